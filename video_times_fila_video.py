"""Times of a stream's frames: which of them are damage, joined clocks, and the frame that is shown at a time."""

from typing import Any

import numpy as np

NOPTS = np.iinfo(np.int64).min
FAR = 3600.0  # seconds between the first or last times and all others, from which on they are taken for damage


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
    return np.flatnonzero(
        np.ceil(ticks[:-1]) < ticks[1:]
    )  # the first tick that falls on the frame comes before the next


__all__ = ["FAR", "NOPTS", "damaged_times", "on_one_clock", "sample_at_rate", "shown_at", "slots_of", "spread_evenly"]
