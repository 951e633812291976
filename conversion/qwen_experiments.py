"""
What scenes would need in Qwen2.5-VL and Qwen3-VL, tried on models of a few thousand random parameters; `qwen.md` draws
the conclusions. Each experiment returns the largest difference between two tensors.

    python -m fila_video.conversion.qwen_experiments
"""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import (
    AutoModel,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    set_seed,
)

KINDS = ("qwen2_5_vl", "qwen3_vl")
PATCH, MERGE, SIDE = 4, 2, 24  # pixels of a patch, patches that become one token, pixels of a frame
GRID = SIDE // PATCH
TOKENS = (GRID // MERGE) ** 2
VIDEO, START, END, VOCABULARY = 60, 61, 62, 64


@torch.no_grad()
def tiny_model(kind: str) -> PreTrainedModel:
    """A model of random weights: three layers of text and three of vision."""
    set_seed(0)
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
    }
    vision = {"depth": 3, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "patch_size": PATCH}
    vision |= {"spatial_merge_size": MERGE, "temporal_patch_size": 2, "out_hidden_size": 32}
    tokens = {
        "image_token_id": 59,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
    }
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": GRID**2}
        config = Qwen3VLConfig(text_config=text | {"head_dim": 8}, vision_config=vision, **tokens)
        model = Qwen3VLForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if parameter.ndim == 1 else 0.0))
    return model.eval()


def patchify(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `(2 * num_pairs, 3, SIDE, SIDE)` as the towers take them, and the grid's sizes `(1, 3)`."""
    blocks = GRID // MERGE
    cut = frames.reshape(-1, 2, 3, blocks, MERGE, PATCH, blocks, MERGE, PATCH).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return cut.reshape(-1, 3 * 2 * PATCH**2), torch.tensor([[len(frames) // 2, GRID, GRID]])


def tower(model: PreTrainedModel, frames: torch.Tensor) -> SimpleNamespace:
    """For pairs of frames: `features` of patches, `tokens` of the language model, and `deepstack` tokens."""
    pixels, grid = patchify(frames)
    outputs = model.model.visual(pixels, grid_thw=grid, return_dict=True)
    deepstack = getattr(outputs, "deepstack_features", None) or []
    return SimpleNamespace(features=outputs.last_hidden_state, tokens=outputs.pooler_output, deepstack=deepstack)


def doubled(frames: torch.Tensor) -> torch.Tensor:
    """Each frame as a pair with itself, which is how these models read a picture."""
    return frames.repeat_interleave(2, dim=0)


def prompt(kind: str, num_pairs: int) -> torch.Tensor:
    """Token ids `(1, length)` of a video and a question: Qwen3-VL writes a time before each pair, Qwen2.5-VL none."""
    video = [VIDEO] * TOKENS
    if kind == "qwen3_vl":
        video = [token for pair in range(num_pairs) for token in (1, 2 + pair, START, *video, END)]
    else:
        video = [START, *video * num_pairs, END]
    return torch.tensor([[5, 6, *video, 7, 8, 9]])


def natively(model: PreTrainedModel, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    pixels, grid = patchify(frames)
    return model(
        input_ids=ids, pixel_values_videos=pixels, video_grid_thw=grid, mm_token_type_ids=(ids == VIDEO) * 2
    ).logits


def in_parts(
    model: PreTrainedModel, frames: torch.Tensor, ids: torch.Tensor, *, mrope: bool = True, deep: bool = True
) -> torch.Tensor:
    """The same with a pair encoded at a time, as scenes would be, and the language model called by itself."""
    pairs = [tower(model, pair) for pair in frames.split(2)]
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == VIDEO] = torch.cat([pair.tokens for pair in pairs])
    more = {}
    if mrope:
        grid = torch.tensor([[len(pairs), GRID, GRID]])
        more["position_ids"], _ = model.model.get_rope_index(ids, (ids == VIDEO).int() * 2, video_grid_thw=grid)
    if deep and pairs[0].deepstack:
        layers = zip(*(pair.deepstack for pair in pairs), strict=True)
        more |= {"visual_pos_masks": ids == VIDEO, "deepstack_visual_embeds": [torch.cat(layer) for layer in layers]}
    return model.lm_head(model.model.language_model(inputs_embeds=embeds, **more).last_hidden_state)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@torch.no_grad()
def experiments(kind: str) -> dict[str, float]:
    """The largest difference that each experiment finds."""
    model = tiny_model(kind)
    frames, found = torch.randn(4, 3, SIDE, SIDE), {}
    alone, both = tower(model, frames[:2]), tower(model, frames)
    found["a pair encoded alone, and beside another pair"] = difference(alone.tokens, both.tokens[:TOKENS])

    conv = model.model.visual.patch_embed.proj
    picture = nn.functional.conv2d(frames[:1], conv.weight.sum(dim=2), conv.bias, stride=PATCH)
    pair = conv(doubled(frames[:1]).transpose(0, 1)[None])[:, :, 0]
    found["a doubled frame, and its picture under the kernel summed over time"] = difference(picture, pair)
    swapped = tower(model, frames[:2].flip(0))
    found["a pair, and the same pair in the other order"] = difference(alone.tokens, swapped.tokens)
    singly = [tower(model, doubled(frame[None])).tokens for frame in frames[:2]]
    found["a pair, and the mean of its two frames doubled"] = difference(alone.tokens, torch.stack(singly).mean(0))

    ids = prompt(kind, 2)
    native = natively(model, frames, ids)
    found["logits natively, and in parts"] = difference(native, in_parts(model, frames, ids))
    found["... with positions in one dimension"] = difference(native, in_parts(model, frames, ids, mrope=False))
    if kind == "qwen3_vl":
        found["... without the features of other layers"] = difference(
            native, in_parts(model, frames, ids, deep=False)
        )
    grid = torch.tensor([[2, GRID, GRID]])
    positions, _ = model.model.get_rope_index(ids, (ids == VIDEO).int() * 2, video_grid_thw=grid)
    found["the next token's position by counting, and by the model's own rule"] = float(
        ids.shape[1] - (int(positions.max()) + 1)
    )

    # A scene of three equal frames, merged as patch features before the tower's own merger.
    three = torch.stack([tower(model, doubled(frames[:1])).features] * 3).mean(dim=0)
    one = tower(model, doubled(frames[:1]))
    found["the features of three equal frames merged, and of one"] = difference(three, one.features)
    found["the tower's merger on its patch features, and its output"] = difference(
        model.model.visual.merger(one.features), one.tokens
    )
    return found


def takes_pixels(kind: str) -> bool:
    """Whether `AutoModel` builds the tower by itself and it takes pixels as every other tower does."""
    config = tiny_model(kind).config.vision_config
    try:
        AutoModel.from_config(config)(torch.zeros(1, 3, SIDE, SIDE))
    except (TypeError, ValueError):
        return False
    return True


def main() -> None:
    for kind in KINDS:
        print(f"{kind}\n  the tower takes pixels: {takes_pixels(kind)}")
        for what, value in experiments(kind).items():
            print(f"  {value:9.2g}  {what}")


if __name__ == "__main__":
    main()
