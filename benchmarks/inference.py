"""
From frames to the first token: FiLA-Video against LLaVA-OneVision with equal towers and random weights.

    python -m fila_video.benchmarks.inference                       # small towers, minutes on two cores
    python -m fila_video.benchmarks.inference --size full           # SigLIP so400m + Qwen2-7B in bfloat16, for a GPU

Every case runs in a process of its own, so that its peak memory is its own: once to warm up, once measured. The cases
take turns; times are medians over the rounds: of the clock on a GPU, of the processor without one, which other work on
the machine changes less. The small towers keep the full ones' proportion of arithmetic: for 96 frames, the vision
tower's is 0.19 of the language model's.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fila_video import (
    FilaVideoConfig,
    FilaVideoForConditionalGeneration,
    FilaVideoProcessor,
    FilaVideoVideoProcessor,
)
from transformers import AutoTokenizer, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, PreTrainedModel

from .child import run_child

REPOSITORY = Path(__file__).parent.parent
SIZES = {
    "smoke": {
        "vision": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 4096,
        },
        "dtype": torch.float32,
    },
    "small": {
        "vision": {
            "hidden_size": 288,
            "intermediate_size": 1152,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "image_size": 196,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 6,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 4096,
        },
        "dtype": torch.float32,
    },
    "full": {
        "vision": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        "text": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        "dtype": torch.bfloat16,
    },
}
# name: (model, frames that are given, whether scenes are selected on the model's own features, how many are encoded)
CASES = {
    "LLaVA-OneVision, 96 frames": ("llava", 96, False, None),
    "LLaVA-OneVision, 32 frames": ("llava", 32, False, None),
    "FiLA-Video, 96 to 32, no pool": ("fila", 96, None, None),
    "FiLA-Video, pool of 512, thumbnails": ("fila", 512, False, None),
    "FiLA-Video, pool of 96, model features": ("fila", 96, True, None),
    "FiLA-Video, pool of 512, model features": ("fila", 512, True, None),
    "FiLA-Video, pool of 512 thinned to 192": ("fila", 512, True, 192),
    "FiLA-Video, pool of 512 thinned to 96": ("fila", 512, True, 96),
    "FiLA-Video, pool of 512 thinned to 192, background 1": ("background 1", 512, True, 192),
    "FiLA-Video, pool of 512 thinned to 192, background 2": ("background 2", 512, True, 192),
    "DynFocus, pool of 512 thinned to 192": ("dynfocus", 512, True, 192),
    "FiLA-Video, pool of 512 thinned to 192, layers compressed": ("compressed", 512, True, 192),
    "FiLA-Video, pool of 512 thinned to 96, layers compressed": ("compressed", 512, True, 96),
}
# What the configuration of a kind has beside FiLA-Video's own; the processor shares the latter of the two.
COMPRESSED = {"layer_compression": "cosine", "layer_compression_group": 16}
ENCODINGS = {
    "background 1": {"background_tokens": 1},
    "background 2": {"background_tokens": 2},
    "dynfocus": {"frame_encoding": "cooperative", "background_tokens": 2, "scene_size": 1},
}
CHILD = "--case"


def build_model(kind: str, size: str, device: str) -> PreTrainedModel:
    sizes = SIZES[size]
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **sizes["vision"]}
    text = {"model_type": "qwen2", "max_position_embeddings": 32768, "bos_token_id": None, **sizes["text"]}
    torch.manual_seed(0)
    with torch.device(device):
        if kind != "llava":
            settings = COMPRESSED if kind == "compressed" else ENCODINGS.get(kind, {})
            ids = {"image_token_id": 3, "video_token_id": 4}
            config = FilaVideoConfig(vision_config=vision, text_config=text, **ids, **settings)
            model = FilaVideoForConditionalGeneration._from_config(config, dtype=sizes["dtype"])
        else:
            config = LlavaOnevisionConfig(
                vision_config=vision, text_config=text, image_token_index=3, video_token_index=4
            )
            model = LlavaOnevisionForConditionalGeneration._from_config(config, dtype=sizes["dtype"])
    return model.eval()


def now(device: str) -> float:
    """Seconds: of the processor, of all threads together, or by the clock where a GPU works."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@contextmanager
def timed(modules: list[tuple[str, torch.nn.Module]], device: str, seconds: dict) -> Iterator[None]:
    """Adds to `seconds` the time that each of the named modules takes; modules of one name are added up."""
    handles = []
    for name, module in modules:

        def start(*args: Any, name: str = name) -> None:
            seconds[name] = seconds.get(name, 0.0) - now(device)

        def stop(*args: Any, name: str = name) -> None:
            seconds[name] += now(device)

        handles += [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_case(case: str, size: str, device: str) -> dict:
    kind, num_frames, model_features, num_encoded = CASES[case]
    model = build_model(kind, size, device)
    side = SIZES[size]["vision"]["image_size"]
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, side, side, 3), dtype=np.uint8)
    # Only the tokenizer is the embedded model's; all else is the paper's, so that the model's settings are met.
    tokenizer = AutoTokenizer.from_pretrained(REPOSITORY, model_max_length=32768)
    processor = FilaVideoProcessor(
        image_processor=FilaVideoProcessor.from_pretrained(REPOSITORY).image_processor,
        tokenizer=tokenizer,
        video_processor=FilaVideoVideoProcessor(size={"height": side, "width": side}, **ENCODINGS.get(kind, {})),
        patches_per_side=side // SIZES[size]["vision"]["patch_size"],
    )
    language_model = model.model.language_model
    # Compressed layers are run one by one, not by their model.
    timed_parts = language_model.layers if kind == "compressed" else [language_model]
    modules = [("vision tower", model.model.vision_tower), *(("language model", part) for part in timed_parts)]
    if kind != "llava":
        modules.append(("merger", model.model.scene_merger or model.model.cooperative_encoder))
        processor.frame_encoder = model.encode_frames if model_features else None

    def first_token() -> torch.Tensor:
        if kind != "llava":
            options = {"selection": "uniform"} if model_features is None else {"encoded_candidates": num_encoded}
            inputs = processor(text="<video>\nWhat happens?", videos=frames, return_tensors="pt", **options)
            inputs = inputs.to(device)
        else:
            pixels = processor.video_processor(frames, return_tensors="pt")["pixel_values_videos"]
            tokens = num_frames * (-(-processor.patches_per_side // 2)) ** 2 + 1
            ids = torch.cat([torch.tensor([10, 11]), torch.full((tokens,), 4), torch.tensor([12, 13])])[None]
            inputs = {"input_ids": ids.to(device), "pixel_values_videos": pixels.to(device)}
        visual_tokens = int((inputs["input_ids"] == 4).sum())
        model(**inputs, logits_to_keep=1, use_cache=True).logits.argmax(-1).item()
        return visual_tokens

    with torch.no_grad():
        first_token()  # warms up
        seconds = {}
        start = now(device)
        with timed(modules, device, seconds):
            visual_tokens = first_token()
        seconds["total"] = now(device) - start
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds | {"visual tokens": visual_tokens, "peak memory (GB)": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="the first is the baseline")
    parser.add_argument(CHILD, choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        result = run_case(arguments.case, arguments.size, arguments.device)
        sys.stdout.write(json.dumps(result) + "\n")
        return
    runs = {case: [] for case in arguments.cases}
    for _ in range(arguments.rounds):
        for case in arguments.cases:
            command = [sys.executable, "-m", "fila_video.benchmarks.inference", CHILD, case]
            command += ["--size", arguments.size, "--device", arguments.device]
            runs[case].append(json.loads(run_child(command).splitlines()[-1]))
    results = {
        case: {name: statistics.median(run[name] for run in rounds) for name in rounds[0]}
        for case, rounds in runs.items()
    }

    baseline = results[arguments.cases[0]]
    lines = [
        "| case | seconds | of the first | tower | language model | of the first's | merger | visual tokens "
        "| peak GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, result in results.items():
        merger = f"{result['merger'] / result['total']:.2%}" if "merger" in result else ""
        lines.append(
            f"| {case} | {result['total']:.2f} | {result['total'] / baseline['total']:.2f} "
            f"| {result['vision tower'] / result['total']:.0%} | {result['language model']:.2f} s "
            f"| {result['language model'] / baseline['language model']:.2f} | {merger} "
            f"| {result['visual tokens']:.0f} | {result['peak memory (GB)']:.2f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
