"""
Which frames of a video: when each is shown, and which are taken. Evenly in time, at a rate, as other models were
trained, or of a dense sampling those that differ most from their neighbors in time.
"""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.video_utils import VideoMetadata

NOPTS = np.iinfo(np.int64).min
FAR = 3600.0  # seconds between the first or last times and all others, from which on they are taken for damage
EVEN_FRAMES = ("ends", "middles", "rate")  # as [`spread_evenly`] does, and the two rules of [`even_numbers`]
THUMBNAIL_SIZE = 16  # height and width of the picture that stands for a frame where there is no frame encoder

# Differences of thumbnails are in [0, 1]. Where nothing changes, the frames left shall be spaced evenly: removing a
# frame costs this much for each second that it leaves empty.
SPACING_COST = 1e-5
# Of two frames that look alike, the one that also looks like its other neighbor goes: the other stands at a change.
OTHER_NEIGHBOR_COST = 1e-2


def damaged_times(seconds: np.ndarray) -> np.ndarray:
    """
    (S,) bool: which of the times `seconds` (S,), in the order of decoding, are damaged.

    One is that jumps away from those around it, which agree, further than frames are reordered. At both ends, where
    there is nothing to come back to, it takes an hour and 20 times the length of everything else.
    """
    wild = np.zeros(len(seconds), dtype=bool)
    reach = 4  # times before and after, of which the middle is taken
    if len(seconds) > 2 * reach:
        # Only where a time is far from one of those before it is there anything to look at.
        here, doubtful = seconds[reach:-reach], wild[reach:-reach]
        for back in range(1, reach + 1):
            before = seconds[reach - back : -reach - back]
            doubtful = doubtful | (here - before > 1) | (before - here > 1)
        doubtful = np.flatnonzero(doubtful) + reach
        around = seconds[doubtful[:, None] + np.arange(-reach, reach + 1)]
        here = around[:, reach]
        before, after = np.median(around[:, :reach], axis=1), np.median(around[:, -reach:], axis=1)
        far = 1 + 32 * np.median(np.abs(np.diff(around, axis=1)), axis=1)
        jumps = (here > np.maximum(before, after) + far) | (here < np.minimum(before, after) - far)
        wild[doubtful] = jumps & (np.abs(after - before) < far)
    low, high = np.quantile(seconds[~wild], (0.1, 0.9), method="nearest", overwrite_input=True)
    far = max(FAR, 20 * (high - low))
    ends = ~wild & ((seconds < low - far) | (seconds > high + far))
    if len(seconds) > 2 and ends.sum() <= max(1, len(seconds) // 50):
        wild |= ends
    return wild


def on_one_clock(pts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """
    (P,) int64: the times of packets, with recordings that were joined, each with a clock of its own, put behind one
    another.

    Keyframes, the packets `starts`, are stored in the order in which they are shown; one that is not later than the
    one before it starts a new clock, and follows the last frame at the usual distance.
    """
    restarts = starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist()
    moments, top = pts.copy(), NOPTS
    for low, at, high in zip([0, *restarts], restarts, [*restarts[1:], len(pts)], strict=False):
        part = moments[low:at][pts[low:at] != NOPTS]
        gaps = np.diff(np.unique(part[-100:]))
        top = max(top, int(part.max())) if len(part) else top
        moments[at:high] += top + (int(np.median(gaps)) if len(gaps) else 1) - int(pts[at])
    return moments


def slots_of(came: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(T,) int64, strictly ascending: the slots of T frames of which each came out of the decoder at a slot of `came`
    (`NOPTS` at the end, where the decoder was emptied), a constant number of slots after its own."""
    at = np.where(came == NOPTS, 0, np.searchsorted(slots, came))
    steps = np.arange(len(came))
    at = np.maximum.accumulate(np.maximum(at - at[0], 0) - steps) + steps
    return slots[np.minimum(at, len(slots) - len(came) + steps)]


def shown_at(seconds: np.ndarray, times: Any) -> np.ndarray:
    """The frame shown at each of `times`: (len(times),) int64; before the first frame it is the first one."""
    return np.maximum(np.searchsorted(seconds, np.asarray(times) + 1e-6, side="right") - 1, 0)


def spread_evenly(seconds: np.ndarray, count: int) -> np.ndarray:
    """
    The frames shown at `count` evenly spaced times from the first frame to the last of `seconds` (T,), ascending.

    Returns:
        `np.ndarray` of shape `(min(count, T),)`: int64 indices, ascending, none twice: where one frame is shown at two
        of the times, the next free one is taken, so that the number is always kept.
    """
    total = len(seconds)
    if count >= total:
        return np.arange(total)
    wanted = np.linspace(seconds[0], seconds[-1], count)
    tolerance = 1e-9 * max(1.0, float(seconds[-1] - seconds[0]))
    indices = np.searchsorted(seconds, wanted + tolerance, side="right") - 1
    steps = np.arange(count)
    indices = np.maximum.accumulate(indices - steps) + steps  # strictly ascending
    return np.minimum(indices, total - count + steps)


def sample_at_rate(seconds: np.ndarray, end: float, fps: float) -> np.ndarray:
    """The frames shown at 0, 1/fps, 2/fps, ... seconds up to `end`, each once: (K,) int64 indices, ascending."""
    ticks = (np.append(seconds, end) - seconds[0]) * fps - 1e-6
    # The first tick that falls on a frame comes before the next frame.
    return np.flatnonzero(np.ceil(ticks[:-1]) < ticks[1:])


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
    spaced pool, and in moving stretches, of which more is kept, nearer.

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
        """
        Args:
            number (`int`): The frame's number within the video.
            seconds (`float`): The frame's time, later than those before.
            frame (`np.ndarray` of shape `(height, width, 3)`): uint8; it is copied.
        """
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
                self._remove(slot, difference, seconds)
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

    def _remove(self, slot: int, difference: float, seconds: float) -> None:
        """Unlinks a frame between two others; `difference` and `seconds` are those of the frame about to be added."""
        before, after = self._before[slot], self._after[slot]
        self._after[before], self._before[after] = after, before
        self._difference[after] = _distance(self._thumbnails[after], self._thumbnails[before])
        for changed in (before, after):
            following = self._after[changed]
            if following >= 0:
                difference_after, seconds_after = self._difference[following], self._seconds[following]
            else:
                difference_after, seconds_after = difference, seconds
            self._cost[changed] = self._cost_of(changed, difference_after, seconds_after)

    def frames(self, metadata: VideoMetadata) -> tuple[np.ndarray, np.ndarray]:
        """
        What was kept, in the order of time: frames `(num_frames, height, width, 3)`, and their seconds.

        Args:
            metadata ([`TimedVideoMetadata`]): The video's, which learns which frames these are.
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
    "FAR",
    "NOPTS",
    "SpreadPool",
    "damaged_times",
    "even_numbers",
    "most_different",
    "on_one_clock",
    "sample_at_rate",
    "shown_at",
    "slots_of",
    "spread_evenly",
    "thumbnails",
]
