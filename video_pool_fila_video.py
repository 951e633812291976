"""
Which frames of a video are candidates: evenly spread as other models were trained, or of a dense sampling those that
differ most from their neighbors in time.
"""

from collections.abc import Generator
from contextlib import closing

import numpy as np
import torch
from torch import nn
from transformers.video_utils import VideoMetadata

EVEN_FRAMES = ("ends", "middles", "rate")  # as the reader spreads them, and the two rules of [`even_numbers`]
THUMBNAIL_SIZE = 16  # height and width of the picture that stands for a frame where there is no frame encoder

# Differences of thumbnails are in [0, 1]. Where nothing changes, the frames left shall be spaced evenly: removing a
# frame costs this much for each second that it leaves empty.
SPACING_COST = 1e-5
# Of two frames that look alike, the one that also looks like its other neighbor goes: the other stands at a change.
OTHER_NEIGHBOR_COST = 1e-2


def even_numbers(total: int, rate: float, count: int, rule: str, fps: float) -> np.ndarray:
    """
    Numbers of `count` frames, evenly spread as models were trained.

    Args:
        total (`int`): Frames of the video.
        rate (`float`): Frames a second of the video.
        count (`int`): How many are wanted; fewer where the video has fewer.
        rule (`str`):
            `"middles"` of `count` parts of equal length; or `"rate"`, `fps` a second from the first to the last, and
            where that would be more than `count`, these, without the video's first and last second.
        fps (`float`): Frames a second of `"rate"`.
    """
    count = min(count, total)
    if rule == "middles":
        # In torch's floats, which decide where a middle falls between two frames.
        return torch.arange(total / count / 2, total, total / count).int().numpy()[:count]
    duration, first, last = total / rate, 0, total - 1
    if duration - 2 > count * fps and int(rate) < min(int(total - rate), last):
        first, last = int(rate), min(int(total - rate), last)
    wanted = max(1, min(round(fps * duration), count))
    return np.unique(np.linspace(first, last, wanted, dtype=int))


class SpreadPool:
    """
    Keeps at most `capacity` frames of those that are added in the order of time. When it is full, the frame that
    differs least from a neighbor in time goes, by thumbnails; the first and the last stay. So an event of a few frames
    survives a still hour, in one pass, and memory is bounded by the pool's own frames.

    Scenes are then supplemented (equation 6) from a history with fewer near-copies of the representative: its
    supplements are the most similar frames that still show something else, farther apart in time than in an evenly
    spaced pool, except in moving stretches, of which more is kept.

    Args:
        capacity (`int`): Frames that may be kept, at least 3.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._pixels: np.ndarray | None = None  # (capacity, height, width, 3), filled slot by slot, in any order
        self._thumbnails = np.empty((capacity, 3 * THUMBNAIL_SIZE**2), dtype=np.float32)
        self._seconds = np.empty(capacity)
        self._numbers = np.empty(capacity, dtype=np.int64)
        # The slots as a list linked in the order of time; by slot, what differs from the one before, and what removing
        # it would cost.
        self._before, self._after = np.full(capacity, -1), np.full(capacity, -1)
        self._difference = np.zeros(capacity)
        self._cost = np.full(capacity, np.inf)
        self._last = -1

    def add(self, number: int, seconds: float, frame: np.ndarray) -> None:
        """A frame `(height, width, 3)`, uint8, which is copied, with its number within the video and its time."""
        if self._pixels is None:
            self._pixels = np.empty((self._capacity, *frame.shape), dtype=np.uint8)
        thumbnail = _thumbnail(frame)
        last = self._last
        difference = 0.0 if last < 0 else _distance(thumbnail, self._thumbnails[last])
        if self._size < self._capacity:
            slot = self._size
            self._size += 1
        else:
            # The last frame so far may go too, now that one follows it.
            self._cost[last] = self._cost_of(last, difference, seconds)
            slot = int(self._cost.argmin())
            if slot == last:
                last = self._before[slot]
                difference = _distance(thumbnail, self._thumbnails[last])
            else:
                self._remove(slot)
        self._pixels[slot], self._thumbnails[slot] = frame, thumbnail
        self._numbers[slot], self._seconds[slot] = number, seconds
        self._before[slot], self._after[slot], self._difference[slot] = last, -1, difference
        self._cost[slot] = np.inf
        if last >= 0:
            self._after[last] = slot
            self._cost[last] = self._cost_of(last, difference, seconds)
        self._last = slot

    def _cost_of(self, slot: int, difference: float, seconds: float) -> float:
        """What removing a frame costs, `difference` and `seconds` being those of the frame after it."""
        before = self._before[slot]
        if before < 0:
            return np.inf
        low, high = sorted((self._difference[slot], difference))
        return low + OTHER_NEIGHBOR_COST * high + SPACING_COST * (seconds - self._seconds[before])

    def _remove(self, slot: int) -> None:
        """Unlinks a frame between two others. Where the last one is among these, its cost waits for the frame that is
        about to follow it."""
        before, after = self._before[slot], self._after[slot]
        self._after[before], self._before[after] = after, before
        self._difference[after] = _distance(self._thumbnails[after], self._thumbnails[before])
        for changed in (before, after):
            if (following := self._after[changed]) >= 0:
                self._cost[changed] = self._cost_of(changed, self._difference[following], self._seconds[following])

    def frames(self, metadata: VideoMetadata) -> tuple[np.ndarray, np.ndarray]:
        """
        What was kept, in the order of time: frames `(num_frames, height, width, 3)`, and their seconds. The video's
        `metadata` learns which frames these are.
        """
        order = self._seconds[: self._size].argsort(kind="stable")
        seconds = self._seconds[order]
        pixels = self._pixels
        # In place, cycle by cycle: a sorted copy would need the pool's memory twice.
        target = order.copy()
        for start in range(self._size):
            if target[start] == start:
                continue
            held, at = pixels[start].copy(), start
            while target[at] != start:
                pixels[at] = pixels[target[at]]
                target[at], at = at, target[at]
            pixels[at] = held
            target[at] = at
        metadata.frames_indices = self._numbers[order].tolist()
        metadata.frame_times = dict(zip(metadata.frames_indices, seconds.tolist(), strict=True))
        return pixels[: self._size], seconds


def most_different(
    frames: Generator[tuple[int, float, np.ndarray], None, None], capacity: int, metadata: VideoMetadata
) -> tuple[np.ndarray, np.ndarray]:
    """What a [`SpreadPool`] keeps of frames, of each of which the number, the seconds and the pixels are given."""
    pool = SpreadPool(capacity)
    with closing(frames):
        for frame in frames:
            pool.add(*frame)
    return pool.frames(metadata)


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """(16 * 16 * 3,) float32 in [0, 1]: means of a frame (height, width, 3) over the cells of a grid. Not by PyTorch:
    on a busy machine its threads wait for each other ten times as long as they work."""
    height, width = frame.shape[:2]
    top, left = (np.arange(THUMBNAIL_SIZE) * side // THUMBNAIL_SIZE for side in (height, width))
    bottom, right = np.append(top[1:], height), np.append(left[1:], width)
    bottom, right = np.maximum(bottom, top + 1), np.maximum(right, left + 1)  # of frames smaller than the grid
    rows = np.stack([frame[low:high].sum(axis=0, dtype=np.uint32) for low, high in zip(top, bottom, strict=True)])
    cells = np.add.reduceat(rows, left, axis=1) / ((bottom - top)[:, None, None] * (right - left)[:, None])
    return (cells / 255).astype(np.float32).ravel()


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The root of the mean square: a small thing that appears counts more than a background that moves a little."""
    return float(np.sqrt(np.square(one - other).mean()))


def thumbnails(frames: torch.Tensor) -> torch.Tensor:
    """
    Features of frames by their colors and coarse layout.

    Args:
        frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`): uint8 frames of any size.

    Returns:
        `torch.Tensor` of shape `(num_frames, 3 * 16 * 16)`, float32 in [0, 1].
    """
    # A part at a time: as floats, a whole pool would take four times its memory.
    parts = [nn.functional.adaptive_avg_pool2d(part.float() / 255, THUMBNAIL_SIZE) for part in frames.split(16)]
    return torch.cat(parts).flatten(1)


__all__ = [
    "EVEN_FRAMES",
    "SpreadPool",
    "even_numbers",
    "most_different",
    "thumbnails",
]
