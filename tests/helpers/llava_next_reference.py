"""What LLaVA-NeXT's own way does with a video, written out: its frames, its prompt and its visual tokens."""

import av
import numpy as np
import torch

from helpers.tiny_checkpoints import SIDE, TinyParts


def source_frames(path, num_frames: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames `(num_frames, height, width, 3)` at evenly spaced indices, these indices, and the frames a second."""
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    indices = np.linspace(0, len(frames) - 1, num_frames, dtype=int)
    return np.stack([frames[index] for index in indices]), indices, rate


def llava_video_prompt(question: str, visual: str, indices: np.ndarray, total: int, rate: float) -> str:
    """A turn of Qwen2's chat with LLaVA-Video's sentence about times; `visual` stands for the video."""
    times = ",".join([f"{index / rate:.2f}s" for index in indices])
    sentence = (
        f"The video lasts for {total / rate:.2f} seconds, and {len(indices)} frames are uniformly sampled from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )
    return one_turn(f"{visual}\n{sentence}\n{question}")


def one_turn(content: str) -> str:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    return f"{system}<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def pooled_reference(frame: torch.Tensor, mode: str) -> torch.Tensor:
    """A frame `(SIDE, SIDE, channels)` pooled by 2, written out: bilinear rounds the side up, the others down."""
    if mode != "bilinear":
        side = SIDE // 2
        blocks = [[frame[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] for x in range(side)] for y in range(side)]
        reduce = (lambda block: block.mean((0, 1))) if mode == "average" else (lambda block: block.amax((0, 1)))
        return torch.stack([torch.stack([reduce(block) for block in row]) for row in blocks])
    side = (SIDE + 1) // 2

    def neighbors(index: int) -> tuple[int, int, float]:
        position = max((index + 0.5) * SIDE / side - 0.5, 0.0)
        low = int(position)
        return low, min(low + 1, SIDE - 1), position - low

    rows = []
    for y in range(side):
        top, bottom, down = neighbors(y)
        row = []
        for x in range(side):
            left, right, across = neighbors(x)
            upper = frame[top, left] * (1 - across) + frame[top, right] * across
            lower = frame[bottom, left] * (1 - across) + frame[bottom, right] * across
            row.append(upper * (1 - down) + lower * down)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def visual_reference(parts: TinyParts, pixels: torch.Tensor, pooling: str, newline: str) -> torch.Tensor:
    """What LLaVA-NeXT gives its language model for a video, `(num_tokens, channels)`, token by token."""
    tokens = []
    for frame in parts.project(pixels):
        for row in pooled_reference(frame.reshape(SIDE, SIDE, -1), pooling):
            tokens += list(row)
            if newline == "grid":
                tokens.append(parts.newline)
        if newline == "frame":
            tokens.append(parts.newline)
    if newline == "one_token":
        tokens.append(parts.newline)
    return torch.stack(tokens)
