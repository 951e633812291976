"""What `conversion/qwen.md` says of Qwen2.5-VL and Qwen3-VL is what the experiments find."""

from types import SimpleNamespace

import pytest
import torch
from fila_video.conversion.qwen_experiments import KINDS, experiments, takes_pixels
from fila_video.video_prompt_fila_video import VideoPrompt, VideoTokens
from transformers import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata


@pytest.mark.parametrize("kind", KINDS)
def test_the_experiments_find_what_the_page_says(kind) -> None:
    found = experiments(kind)
    equal = [
        "a pair encoded alone, and beside another pair",
        "a doubled frame, and its picture under the kernel summed over time",
        "logits natively, and in parts",
        "the features of three equal frames merged, and of one",
    ]
    assert all(found[what] < 1e-5 for what in equal)
    different = [
        "a pair, and the same pair in the other order",
        "a pair, and the mean of its two frames doubled",
        "... with positions in one dimension",
        "the next token's position by counting, and by the model's own rule",
    ]
    if kind == "qwen3_vl":
        different.append("... without the features of other layers")
    assert all(found[what] > 0.01 for what in different)
    in_another_order = found["the tower's merger on its patch features, and its output"] > 0.01
    assert in_another_order == (kind == "qwen2_5_vl") and not takes_pixels(kind)


def test_qwen3_vls_prompt_of_doubled_frames_is_that_of_marks_a_scene() -> None:
    numbers = [0, 40, 85]
    doubled = [number for number in numbers for _ in range(2)]
    theirs = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        video_token="<|video_pad|>",
        _calculate_timestamps=lambda *values: Qwen3VLProcessor._calculate_timestamps(None, *values),
    )
    metadata = VideoMetadata(total_num_frames=100, fps=10.0, frames_indices=doubled)
    inputs = {"video_grid_thw": torch.tensor([[3, 4, 4]]), "video_metadata": [metadata]}
    expected = Qwen3VLProcessor.replace_video_token(theirs, inputs, 0)
    prompt = VideoPrompt(
        "per_scene", "<{seconds:.1f} seconds>", visual_start="<|vision_start|>", visual_end="<|vision_end|>"
    )
    scenes = {"timestamps": torch.tensor([[n / 10] for n in numbers], dtype=torch.float64), "duration": 10.0}
    assert prompt.text("<|video_pad|>", VideoTokens([4] * 3, [0] * 3, 0), scenes) == expected
