"""Which frames of a video to take, and how to reach them: pure functions on the times of its packets.

Times are integers in the stream's own time base until the very end, so that no frame is missed by a rounding.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

NO_TIME = np.iinfo(np.int64).min
SHORT_RUN = 48  # packets: neighbouring runs of decoding are joined up to this length, rather than seek between them


@dataclass
class PacketIndex:
    """Every packet of a video stream, in the order of decoding.

    `pts` (P,) int64, presentation times in units of `time_base` seconds, `NO_TIME` where a packet has none; `sizes`
    (P,) int32, bytes; `keys` (P,) bool, packets that start decoding; `hidden` (P,) bool, packets that an edit list
    cuts out; `end`: the time at which the last frame disappears; `counted`: the file stores no presentation times, and
    `pts` are those of the frames in the order of presentation.

    Adds `times` (T,) int64, ascending: when each frame is shown, on one time line also where joined recordings start
    their clock anew, and `packets` (T,): the packet of each frame.
    """

    pts: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    hidden: np.ndarray
    time_base: Fraction
    end: int
    counted: bool = False

    def __post_init__(self):
        self.shifts = _shifts_of_restarts(self.pts, self.keys)  # (P,) what leads from `pts` to the time line
        shown = np.flatnonzero((self.pts != NO_TIME) & ~self.hidden)
        self.times, first = np.unique(self.pts[shown] + self.shifts[shown], return_index=True)
        self.packets = shown[first].astype(np.int32)
        if len(shown):
            self.end = max(self.end + int(self.shifts[-1]), int(self.times[-1]) + 1)

    def locate(self, pts: int | None, size: int) -> int | None:
        """The position of the one packet with this time and size, if there is exactly one."""
        found = np.flatnonzero((self.pts == (NO_TIME if pts is None else pts)) & (self.sizes == size))
        return int(found[0]) if len(found) == 1 and pts is not None else None

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64: seconds from the first frame to each frame."""
        return (self.times - self.times[0]) * float(self.time_base)

    @property
    def duration(self) -> float:
        return float((self.end - int(self.times[0])) * self.time_base)


def _shifts_of_restarts(pts, keys) -> np.ndarray:
    """(P,) int64: shifts that put recordings that were joined, each with a clock of its own, behind one another.

    Keyframes are stored in the order in which they are shown; one that is not later than the one before it starts a
    new clock, and follows the last frame at the usual distance.
    """
    starts = np.flatnonzero(keys & (pts != NO_TIME))
    restarts = starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist()
    if not restarts:
        return np.broadcast_to(np.int64(0), len(pts))  # one number in memory, for nearly every file
    shifts = np.zeros(len(pts), dtype=np.int64)
    shift, top = 0, NO_TIME
    for low, at, high in zip([0, *restarts], restarts, [*restarts[1:], len(pts)], strict=False):
        part = pts[low:at][pts[low:at] != NO_TIME]
        gaps = np.diff(np.unique(part[-100:]))
        top = max(top, int(part.max()) + shift) if len(part) else top
        shift = top + (int(np.median(gaps)) if len(gaps) else 1) - int(pts[at])
        shifts[at:high] = shift
    return shifts


def spread_evenly(seconds: np.ndarray, count: int) -> np.ndarray:
    """The frames shown at `count` evenly spaced times from the first frame to the last, no frame twice.

    `seconds` (T,) ascending; returns (min(count, T),) int64 indices, ascending. Where one frame is shown at two of the
    times, the next free one is taken, so that the number is always kept.
    """
    total = len(seconds)
    if count >= total:
        return np.arange(total)
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    wanted = np.linspace(seconds[0], seconds[-1], count)
    tolerance = 1e-9 * max(1.0, float(seconds[-1] - seconds[0]))
    indices = np.searchsorted(seconds, wanted + tolerance, side="right") - 1
    steps = np.arange(count)
    indices = np.maximum.accumulate(indices - steps) + steps  # strictly ascending
    return np.minimum(indices, total - count + steps)


def sample_at_rate(seconds: np.ndarray, end: float, fps: float) -> np.ndarray:
    """The frames shown at 0, 1/fps, 2/fps, ... seconds up to `end`, each once: (K,) int64 indices, ascending."""
    ticks = (seconds - seconds[0]) * fps
    first = np.ceil(ticks - 1e-6)  # the first tick that falls on the frame
    until = np.append(ticks[1:], (end - seconds[0]) * fps)
    return np.flatnonzero(first < until - 1e-6)


def shown_at(seconds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The frame shown at each of `times`: (len(times),) int64; before the first frame it is the first one."""
    return np.maximum(np.searchsorted(seconds, np.asarray(times) + 1e-6, side="right") - 1, 0)


def nearest_keyframes(index: PacketIndex, frames: np.ndarray, low: int = 0, high: int | None = None) -> np.ndarray:
    """Replaces frames by the keyframe nearest in time (the earlier of two as near): (len(frames),) int64.

    Only the frames from `low` to `high` are looked at; where no keyframe is among them, all become the frame `low`.
    """
    keys = low + np.flatnonzero(index.keys[index.packets[low:high]])
    if len(keys) == 0:
        return np.full_like(frames, low)
    key_times, wanted = index.times[keys], index.times[frames]
    after = np.minimum(np.searchsorted(key_times, wanted), len(keys) - 1)
    before = np.maximum(after - 1, 0)
    earlier = wanted - key_times[before] <= np.abs(key_times[after] - wanted)
    return keys[np.where(earlier, before, after)]


@dataclass
class Run:
    """One unbroken stretch of decoding: seek to the packet `start`, decode to the packet `stop` (inclusive).

    `frames` are the wanted frames, as indices into `PacketIndex.times`, ascending. Packets between whose frames nobody
    wants and on which no other depends are skipped by the decoder.
    """

    start: int
    stop: int
    frames: list[int]


def plan_runs(index: PacketIndex, frames: np.ndarray) -> list[Run]:
    """Groups ascending frame numbers into runs of decoding.

    A frame is decoded from the last keyframe that comes before it in the file and is not shown after it (a frame shown
    before its keyframe leans on the keyframe before that one). Frames of one such stretch share a run. Where the next
    stretch begins right behind and both are short, decoding on is cheaper than a seek, and the runs are joined.
    """
    if index.counted:
        return [Run(0, len(index.pts) - 1, frames.tolist())] if len(frames) else []
    keys = np.flatnonzero(index.keys)
    moments = index.pts + index.shifts
    runs: list[Run] = []
    for frame in frames.tolist():
        packet = int(index.packets[frame])
        at = int(np.searchsorted(keys, packet, side="right")) - 1
        while at >= 0 and moments[keys[at]] > index.times[frame]:
            at -= 1
        start = int(keys[at]) if at >= 0 else 0
        last = runs[-1] if runs else None
        if last and (start <= last.start or _worth_joining(last, start, packet, index)):
            last.stop = max(last.stop, packet)
            last.frames.append(frame)
        else:
            runs.append(Run(start, packet, [frame]))
    return runs


def _worth_joining(run, start, packet, index):
    near = start <= run.stop + SHORT_RUN // 4 and packet < run.start + SHORT_RUN
    return near and index.shifts[start] == index.shifts[run.start]


__all__ = [
    "NO_TIME",
    "SHORT_RUN",
    "PacketIndex",
    "Run",
    "nearest_keyframes",
    "plan_runs",
    "sample_at_rate",
    "shown_at",
    "spread_evenly",
]
