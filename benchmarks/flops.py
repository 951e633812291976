"""
Floating-point operations from a pool of frames to the first token, counted at 7B shapes without weights.

    python -m fila_video.benchmarks.flops

SigLIP so400m at 384 pixels and Qwen2-7B (or another `--config`), on torch's meta device: every product of matrices and
every attention is counted, as twice its multiplications, attention in full (not the causal half). Layers of the
language model are counted one at a time, with the tokens that enter them, which is what layer compression changes.
Merging and selection, which are not products of matrices, are counted by their formulas, k-means at all its
iterations. Pictures are taken as read.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..configuration_fila_video import (
    FilaVideoConfig,
    detail_sizes,
    num_cooperative_tokens,
    num_detail_tokens,
    num_key_frames,
    pooled_grid_size,
)
from ..cooperative_encoding_fila_video import EVENT_NEIGHBORS, FilaVideoCooperativeEncoder, density_peaks
from ..layer_compression_fila_video import CompressionSchedule
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..scene_selection_fila_video import ITERATIONS, RESTARTS
from ..video_pool_fila_video import THUMBNAIL_SIZE

QUESTION_TOKENS = 20  # that every frame's patches are attended to by


@dataclass(frozen=True)
class Case:
    """
    One way from frames to the first token.

    Args:
        name (`str`): Its row's head.
        frames (`int`): Frames that the language model sees something of.
        scene_size (`int`): Frames that are merged to one.
        encoded (`int`): Frames that go through the vision tower.
        pool (`int`, *optional*): Frames that the scenes are selected from, by k-means.
        on_thumbnails (`bool`, *optional*, defaults to `False`): Whether they are compared by thumbnails.
        thinned_from (`int`, *optional*): Frames before the pool was thinned on thumbnails.
        compressed (`bool`, *optional*, defaults to `False`): Whether layers are compressed, in groups of 16.
        background (`int`, *optional*, defaults to 0): Tokens of each encoded frame that is in no scene.
        cooperative (`bool`, *optional*, defaults to `False`): DynFocus: key frames, and two tokens of every frame.
    """

    name: str
    frames: int
    scene_size: int
    encoded: int
    pool: int | None = None
    on_thumbnails: bool = False
    thinned_from: int | None = None
    compressed: bool = False
    background: int = 0
    cooperative: bool = False


def cases(frames: int, scene_size: int, pool: int, thinned: list[int]) -> list[Case]:
    """LLaVA-OneVision and FiLA-Video at as many frames, without and with layer compression."""
    plain = [
        Case(f"FiLA-Video, pool of {pool}, thumbnails", frames, scene_size, frames, pool, on_thumbnails=True),
        Case(f"FiLA-Video, pool of {pool}, model features", frames, scene_size, pool, pool),
    ]
    plain += [
        Case(f"FiLA-Video, pool of {pool} thinned to {kept}", frames, scene_size, kept, kept, thinned_from=pool)
        for kept in thinned
    ]
    compressed = [replace(case, name=f"{case.name}, layers compressed", compressed=True) for case in plain]
    beside = [
        replace(case, name=f"{case.name}, background {tokens}", background=tokens)
        for case in plain[1:]
        if case.encoded > frames
        for tokens in (1, 2)
    ]
    key_frames = [
        Case(
            f"DynFocus, pool of {pool}{how}", kept, 1, kept, kept, thinned_from=pool if how else None, cooperative=True
        )
        for kept, how in [(pool, ""), *((kept, f" thinned to {kept}") for kept in thinned)]
    ]
    llava = Case(f"LLaVA-OneVision, {frames} frames", frames, 1, frames)
    return [llava, *plain, *beside, *key_frames, *compressed]


def _cooperative(config: FilaVideoConfig) -> FilaVideoConfig | None:
    """The same shapes with DynFocus's encoding, as its paper has it; `None` where the projector takes other widths."""
    if config.pooling_mode == "pixel_shuffle":
        return None
    changes = {"frame_encoding": "cooperative", "scene_size": 1, "background_tokens": 2, "layer_compression": None}
    changes |= {"newline_position": "video"}
    return FilaVideoConfig.from_dict({**config.to_dict(), **changes})


def counted(function: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    """The operations of a call, without gradients."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments, **options)
    return counter.get_total_flops()


class Counter:
    """
    Counts the parts of a model of this configuration.

    Args:
        config (`FilaVideoConfig`): Its shapes.
        text_tokens (`int`): Tokens of the prompt beside the video's.
    """

    def __init__(self, config: FilaVideoConfig, text_tokens: int) -> None:
        self.config, self.text_tokens = config, text_tokens
        with torch.device("meta"):
            self.model = FilaVideoForConditionalGeneration._from_config(config, dtype=torch.bfloat16).eval()
            self.key_frames = _cooperative(config)
            if self.key_frames is not None:
                self.encoder = FilaVideoCooperativeEncoder(self.key_frames).to(torch.bfloat16).eval()
                self.encoder.score_net.float()

    def parts(self, case: Case) -> dict[str, int]:
        """Operations by part: `selection`, `tower`, `merger and projector`, `language model`."""
        return {
            "selection": self.selection(case),
            "tower": self.tower(case.encoded),
            "merger and projector": self.connector(case),
            "language model": self.language_model(case),
        }

    def tower(self, num_frames: int) -> int:
        side = self.config.vision_config.image_size
        pixels = torch.empty(1, 3, side, side, dtype=torch.bfloat16, device="meta")
        return num_frames * counted(self.model.model.encode_frames, pixels)

    def connector(self, case: Case) -> int:
        shape = self.config.patches_per_side**2, self.config.vision_config.hidden_size
        model, dtype = self.model.model, torch.bfloat16
        scenes = case.frames // case.scene_size
        merging = 0
        if case.scene_size > 1:
            merging = 2 * case.scene_size * shape[0] * shape[1]  # a product and a sum for each feature
        merged = torch.empty(1, *shape, dtype=dtype, device="meta")
        if case.cooperative:
            return self.cooperative(case.encoded)
        others = case.background * (case.encoded - case.frames)
        beside = torch.empty(1, others, shape[1], dtype=dtype, device="meta")
        # The query of a second token is a product with every patch, and so is the sum that it weights.
        queries = 4 * shape[0] * shape[1] * (case.encoded - case.frames) if case.background == 2 else 0
        scenes_alone = scenes * (merging + counted(model.multi_modal_projector, merged))
        return scenes_alone + queries + counted(model.multi_modal_projector, beside)

    def cooperative(self, num_frames: int) -> int:
        """DynFocus's prototypes, scores, details, and tokens of every frame, with what projects them."""
        config, projector, encoder = self.key_frames, self.model.model.multi_modal_projector, self.encoder
        width, side = config.vision_config.hidden_size, detail_sizes(config.patches_per_side)[0]
        num_prototypes = min(config.num_prototypes, num_frames)
        num_keys = num_key_frames(num_frames, num_prototypes, config.key_frames)
        with torch.device("meta"):
            frames = torch.empty(num_frames, config.num_patches, width, dtype=torch.bfloat16)
            pooled = torch.empty(1, num_frames, side**2 * width, dtype=torch.bfloat16)
            seen = torch.empty(num_prototypes, 2 * width)  # the score net's own forward knows no meta device
            question = torch.empty(QUESTION_TOKENS, config.text_config.hidden_size, dtype=torch.bfloat16)
            num_details = num_keys * num_detail_tokens(config.patches_per_side, config.detail_tokens)
            tokens = torch.empty(1, config.background_tokens * num_frames + num_details, width, dtype=torch.bfloat16)
            return (
                counted(density_peaks, pooled, EVENT_NEIGHBORS)
                + counted(encoder.score_net.view, seen)
                + counted(encoder.score_net.layers, seen)
                + counted(encoder._cluster, frames[:num_keys])
                + counted(encoder.encode_every_frame, frames, question)
                + counted(projector, tokens)
            )

    def language_model(self, case: Case) -> int:
        """The prefill: each layer with the tokens that enter it, and the last token's logits."""
        config, text = self.config, self.config.text_config
        side = pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride)
        scenes = case.frames // case.scene_size
        schedule = CompressionSchedule(text.num_hidden_layers, side, config.newline_position, 16)
        num_tokens = scenes * side**2 + {"video": 1, "grid": scenes * side, "frame": scenes}.get(
            config.newline_position, 0
        )
        if case.compressed:
            last = schedule.video(num_tokens)
            entering = [sum(layer >= number for layer in last) for number in range(1, text.num_hidden_layers + 1)]
        else:
            if case.cooperative:
                shape = (case.encoded, config.patches_per_side, self.key_frames.num_prototypes)
                shape += (self.key_frames.key_frames, self.key_frames.background_tokens)
                num_tokens = num_cooperative_tokens(*shape, self.key_frames.newline_position)
            else:
                num_tokens += case.background * (case.encoded - case.frames)
            entering = [num_tokens] * text.num_hidden_layers
        total, known = 0, {}
        for count in entering:
            if count not in known:
                known[count] = self.layer(count + self.text_tokens)
            total += known[count]
        return total + 2 * text.hidden_size * text.vocab_size

    def layer(self, num_tokens: int) -> int:
        """One layer of the language model; they are equal."""
        model, size = self.model.model.language_model, self.config.text_config.hidden_size
        hidden = torch.empty(1, num_tokens, size, dtype=torch.bfloat16, device="meta")
        positions = torch.arange(num_tokens, device="meta")[None]
        angles = model.rotary_emb(hidden, positions)
        return counted(
            model.layers[0], hidden, attention_mask=None, position_ids=positions, position_embeddings=angles
        )

    def selection(self, case: Case) -> int:
        small, total = 3 * THUMBNAIL_SIZE**2, 0
        if case.thinned_from is not None:
            total += 2 * case.thinned_from * small * case.pool  # each frame chosen with every other
        if case.pool is not None and case.pool > case.frames:
            dim = small if case.on_thumbnails else self.config.vision_config.hidden_size
            scenes = case.frames // case.scene_size
            # Each distance of a frame to a centroid: in k-means++ once, in each iteration once.
            total += 2 * case.pool * scenes * dim * (ITERATIONS + 1) * RESTARTS
        return total


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="folder or Hub name of a FiLA-Video configuration (default: 7B)")
    parser.add_argument("--num-scenes", type=int, default=32)
    parser.add_argument("--pool", type=int, default=512)
    parser.add_argument("--thinned", type=int, nargs="*", default=[192, 96], help="frames left of the pool")
    parser.add_argument("--text-tokens", type=int, default=300, help="of the times, the question and the template")
    options = parser.parse_args(arguments)
    config = FilaVideoConfig.from_pretrained(options.config) if options.config else FilaVideoConfig()
    counter = Counter(config, options.text_tokens)
    frames = options.num_scenes * config.scene_size
    rows = {}
    for case in cases(frames, config.scene_size, options.pool, options.thinned):
        if (case.background or case.cooperative) and counter.key_frames is None:
            continue
        if case.encoded < frames:
            raise ValueError(f"{case.name}: the scenes have {frames} frames, more than are encoded.")
        rows[case.name] = counter.parts(case)
    first = sum(next(iter(rows.values())).values())
    heads = ["case", *next(iter(rows.values())), "all", "of the first"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, parts in rows.items():
        total = sum(parts.values())
        cells = [f"{part / 1e12:.3g}" for part in (*parts.values(), total)]
        lines.append(f"| {name} | {' | '.join(cells)} | {total / first:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
