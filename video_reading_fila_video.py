"""Videos as frames with their true times: exact, fast, in bounded memory.

`read_frames` and `iter_frames` take a few frames out of a video of any length. They read the packets once without
decoding them, choose the frames by presentation time, and decode only what those frames need.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .video_decoding_fila_video import SHORT_RUN, Index, Run, Track, plan_runs
from .video_index_fila_video import index_video
from .video_pixels_fila_video import FrameConverter
from .video_sources_fila_video import OpenedSource, VideoLimits, VideoReadError, VideoSegment, open_source

logger = logging.get_logger(__name__)

MAX_THREADS = 4
AHEAD_BYTES = 96 << 20  # frames decoded and not yet taken


class TimedVideoMetadata(VideoMetadata):
    """
    `VideoMetadata` whose `timestamps` are the true times of the frames, also where the frame rate varies.

    The times belong to the frame indices: a metadata whose `frames_indices` are thinned keeps giving the right ones.
    """

    frame_times: dict[int, float] | None = None

    @property
    def timestamps(self) -> list[float]:
        """Times of the sampled frames in seconds from the start of the video."""
        times = self.frame_times or {}
        if self.frames_indices is None or not all(index in times for index in self.frames_indices):
            return super().timestamps
        return [times[index] for index in self.frames_indices]


@dataclass
class VideoFrames:
    """
    Frames of one video.

    Attributes:
        frames (`np.ndarray` of shape `(T, H, W, 3)`):
            uint8, RGB.
        timestamps (`np.ndarray` of shape `(T,)`):
            float64, seconds from the start of the video.
        metadata ([`~transformers.video_utils.VideoMetadata`]):
            Its `frames_indices` number the frames in the order of presentation.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    metadata: VideoMetadata


@dataclass
class _Part:
    """A stretch of one source within the video: its frames `low` to `high`, of which the first is number `first` of
    the video; `seconds` are theirs within the video."""

    source: OpenedSource
    index: Index
    first: int
    low: int
    high: int
    seconds: np.ndarray
    duration: float


class _Video:
    """The parts of a video, opened and indexed, until it is closed. Frames are numbered across the parts."""

    def __init__(self, source: Any, limits: VideoLimits | None, allow_private_hosts: bool) -> None:
        self.parts: list[_Part] = []
        self._opened = ExitStack()
        segments = [source]
        if isinstance(source, (list, tuple)) and not isinstance(source, VideoSegment):
            if not source or not all(isinstance(segment, VideoSegment) for segment in source):
                raise VideoReadError("A list as a video must hold at least one VideoSegment, and nothing else.")
            segments = source
        indexed: dict[Any, tuple[OpenedSource, Index]] = {}  # segments of one file share it
        with ExitStack() as opened:
            for segment in segments:
                segment = segment if isinstance(segment, VideoSegment) else VideoSegment(segment)
                key = segment.source if isinstance(segment.source, (str, os.PathLike)) else id(segment.source)
                if key not in indexed:
                    one = open_source(segment.source, limits=limits, allow_private_hosts=allow_private_hosts)
                    opened.enter_context(one)
                    indexed[key] = one, index_video(one)
                    if indexed[key][1].damage:
                        logger.warning("%s %s.", one.name, indexed[key][1].damage)
                self._add(segment, *indexed[key])
            self._opened = opened.pop_all()
        self.names = ", ".join(source.name for source, _ in indexed.values())
        self.seconds = np.concatenate([part.seconds for part in self.parts])
        self.duration = sum(part.duration for part in self.parts)

    def _add(self, segment, source, index) -> None:
        start = 0.0 if segment.start is None else float(segment.start)
        end = index.duration if segment.end is None else min(float(segment.end), index.duration)
        if not 0 <= start < end:
            raise source.error(
                f"its segment from {segment.start} to {segment.end} seconds does not lie within its "
                f"{index.duration:.3f} seconds"
            )
        seconds = index.seconds
        low = int(shown_at(seconds, [start])[0])
        high = max(int(np.searchsorted(seconds, end - 1e-6)), low + 1)
        seconds = np.maximum(seconds[low:high] - start, 0) + sum(part.duration for part in self.parts)
        first = sum(part.high - part.low for part in self.parts)
        self.parts.append(_Part(source, index, first, low, high, seconds, end - start))

    def metadata(self) -> TimedVideoMetadata:
        height, width = self.parts[0].index.size
        total = len(self.seconds)
        return TimedVideoMetadata(
            total_num_frames=total,
            fps=total / self.duration,
            width=width,
            height=height,
            duration=self.duration,
            video_backend="pyav",
        )

    def choose(self, num_frames, fps, times, seek_mode) -> np.ndarray:
        """The numbers of the wanted frames, ascending; a number stands as often as `times` ask for its frame."""
        if times is not None:
            frames = shown_at(self.seconds, times)
        elif fps is not None:
            frames = sample_at_rate(self.seconds, self.duration, fps)
        else:
            if callable(num_frames):
                num_frames = _positive_int("what num_frames returned", num_frames(self.metadata()))
            frames = spread_evenly(self.seconds, num_frames)
        if seek_mode == "keyframe":
            near = [self._nearest_keyframes(part, frames) for part in self.parts]
            frames = np.concatenate(near)
            return frames if times is not None else np.unique(frames)
        if seek_mode == "auto" and times is None and len(frames) > 2:
            return self._keyframes_where_near(frames)
        return frames

    def _nearest_keyframes(self, part, frames) -> np.ndarray:
        """For the frames of one part, its keyframes nearest in time (the earlier of two as near)."""
        frames = frames[(frames >= part.first) & (frames < part.first + part.high - part.low)]
        keys = part.first + np.flatnonzero(part.index.keys[part.index.packets[part.low : part.high]])
        if len(keys) == 0:
            return np.full_like(frames, part.first)
        times = self.seconds[keys]
        after = np.minimum(np.searchsorted(times, self.seconds[frames]), len(keys) - 1)
        before = np.maximum(after - 1, 0)
        earlier = self.seconds[frames] - times[before] <= np.abs(times[after] - self.seconds[frames])
        return keys[np.where(earlier, before, after)]

    def _keyframes_where_near(self, frames) -> np.ndarray:
        """The wanted frames, but for the first and the last each replaced by the nearest keyframe that is less than
        half of their spacing away, and that no other one takes."""
        near = np.concatenate([self._nearest_keyframes(part, frames) for part in self.parts])
        spacing = (self.seconds[frames[-1]] - self.seconds[frames[0]]) / (len(frames) - 1)
        chosen = frames.copy()
        for place in range(1, len(frames) - 1):
            close = abs(self.seconds[near[place]] - self.seconds[frames[place]]) < spacing / 2
            if close and chosen[place - 1] < near[place] < frames[place + 1]:
                chosen[place] = near[place]
        return chosen

    def plan(self, frames: np.ndarray) -> list[tuple[_Part, Run]]:
        """How to reach frames of ascending numbers."""
        plan = []
        for part in self.parts:
            inside = frames[(frames >= part.first) & (frames < part.first + part.high - part.low)]
            plan.extend((part, run) for run in plan_runs(part.index, np.unique(inside) - part.first + part.low))
        return plan

    def close(self) -> None:
        self._opened.close()


def shown_at(seconds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The frame shown at each of `times`: (len(times),) int64; before the first frame it is the first one."""
    return np.maximum(np.searchsorted(seconds, np.asarray(times) + 1e-6, side="right") - 1, 0)


def spread_evenly(seconds: np.ndarray, count: int) -> np.ndarray:
    """
    The frames shown at `count` evenly spaced times from the first frame to the last, no frame twice.

    Args:
        seconds (`np.ndarray` of shape `(T,)`): When each frame is shown, ascending.
        count (`int`): The number of frames.

    Returns:
        `np.ndarray` of shape `(min(count, T),)`: int64 indices, ascending. Where one frame is shown at two of the
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


class _Decoding:
    """
    Carries out a plan on all cores.

    Args:
        plan (`list[tuple[_Part, Run]]`): What to decode.
        size (`tuple[int, int]`): (height, width) of the frames.
    """

    def __init__(self, plan: list[tuple[_Part, Run]], size: tuple[int, int]) -> None:
        self._plan, self._size = plan, size
        self._tracks: set[Track] = set()
        self._idle: list[tuple[Track, FrameConverter]] = []

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """
        `(number within the video, frame (H, W, 3) uint8)`, in the order of presentation.

        Runs share the cores, each decoded by one thread. Where one run outweighs the others, or its frames may not
        all wait to be taken, one run after the other is decoded by several threads.
        """
        lengths = [run.stop - run.start + 1 for _, run in self._plan]
        longest = max(len(run.frames) for _, run in self._plan)
        threads = min(_cores(), MAX_THREADS)
        # Runs begun before the first of them is over: a long one does not stop the other threads.
        ahead = min(2 * threads, AHEAD_BYTES // (3 * self._size[0] * self._size[1]) // longest - 1)
        try:
            if threads == 1 or ahead < threads or max(lengths) * threads > 1.5 * sum(lengths):
                for part, run in self._plan:
                    yield from self._decode(part, run, threads)
                return
            with ThreadPoolExecutor(threads) as pool:
                waiting: deque = deque()
                try:
                    for part, run in self._plan:
                        waiting.append(pool.submit(lambda *task: list(self._decode(*task)), part, run, 1))
                        if len(waiting) > ahead:
                            yield from waiting.popleft().result()
                    while waiting:
                        yield from waiting.popleft().result()
                finally:
                    for future in waiting:
                        future.cancel()
                    for track in list(self._tracks):
                        track.stopped = True
        finally:
            for track, _ in self._idle:
                self._put_away(track)

    def _decode(self, part, run, threads) -> Iterator[tuple[int, np.ndarray]]:
        track, convert = self._idle.pop() if self._idle else (None, FrameConverter(self._size))
        if track is None or track.source is not part.source:
            self._put_away(track)
            threads = threads if run.stop - run.start >= SHORT_RUN else 1
            track = Track(part.source, threads, part.index.stream)
            self._tracks.add(track)
        part.source.budget.spend()
        try:
            with closing(track.read(run, part.index)) as frames:
                for number, frame in frames:
                    try:
                        pixels = convert(frame)
                    except (av.FFmpegError, MemoryError, ValueError):  # a picture that no scaler can read
                        continue
                    yield number - part.low + part.first, pixels
                    part.source.budget.spend()  # the time that the consumer took does not count as a stall
        finally:
            self._idle.append((track, convert))

    def _put_away(self, track) -> None:
        if track is not None:
            self._tracks.discard(track)
            track.close()


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive_int(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def _check_arguments(num_frames, fps, times, size, seek_mode):
    if sum(value is not None for value in (num_frames, fps, times)) != 1:
        raise ValueError(f"Give exactly one of num_frames, fps and times; got {num_frames=}, {fps=}, {times=}.")
    if num_frames is not None and not callable(num_frames):
        num_frames = _positive_int("num_frames", num_frames)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number, got {fps!r}.")
    if times is not None:
        times = np.asarray(times, dtype=np.float64)
        if (
            times.ndim != 1
            or len(times) == 0
            or not np.isfinite(times).all()
            or times[0] < 0
            or (np.diff(times) < 0).any()
        ):
            raise ValueError("times must be a list of at least one number of seconds, from 0 on, in ascending order.")
    if size is not None:
        if len(size) != 2:
            raise ValueError(f"size must be (height, width), got {size!r}.")
        height, width = size
        size = (_positive_int("The height in size", height), _positive_int("The width in size", width))
    if seek_mode not in ("exact", "keyframe", "auto"):
        raise ValueError(f"seek_mode must be 'exact', 'keyframe' or 'auto', got {seek_mode!r}.")
    return num_frames, times, size


class FrameReader:
    """
    One reading of a video, for callers who decide by its metadata what to do with its frames: it is opened and the
    frames are chosen at once, and decoded by iterating or by [`FrameReader.read`]. To be closed.

    Takes the arguments of [`read_frames`].

    Attributes:
        metadata ([`TimedVideoMetadata`]): Of the whole video.
        total (`int`): The number of frames chosen.
    """

    def __init__(
        self,
        source: Any,
        *,
        num_frames: int | Callable[[VideoMetadata], int] | None = None,
        fps: float | None = None,
        times: Any = None,
        size: tuple[int, int] | None = None,
        seek_mode: str = "exact",
        progress: Callable[[int, int], None] | bool | None = None,
        limits: VideoLimits | None = None,
        allow_private_hosts: bool = True,
    ) -> None:
        num_frames, times, size = _check_arguments(num_frames, fps, times, size, seek_mode)
        self._video = _Video(source, limits, allow_private_hosts)
        try:
            self._wanted = self._video.choose(num_frames, fps, times, seek_mode)
        except BaseException:
            self.close()
            raise
        self._size = size or self._video.parts[0].index.size
        self._progress = _progress_bar(self._video.names) if progress is True else progress
        self.metadata, self.total = self._video.metadata(), len(self._wanted)

    def __iter__(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """`(number of the frame, seconds, frame (H, W, 3) uint8)`; what cannot be decoded is left out."""
        decoding = _Decoding(self._video.plan(self._wanted), self._size)
        repeats = dict(zip(*np.unique(self._wanted, return_counts=True), strict=True))
        done = 0
        with closing(iter(decoding)) as frames:
            for number, pixels in frames:
                for _ in range(repeats[number]):
                    done += 1
                    yield number, float(self._video.seconds[number]), pixels
                if self._progress is not None:
                    self._progress(done, self.total)
        if done == 0:
            raise self._video.parts[0].source.error("none of the frames wanted from it can be decoded")
        if done < self.total:
            logger.warning(
                "%s is damaged: %d of the %d frames wanted could not be decoded; they are left out.",
                self._video.names,
                self.total - done,
                self.total,
            )

    def read(self) -> VideoFrames:
        """All frames chosen."""
        frames, seconds, indices = None, [], []
        with closing(iter(self)) as results:
            for index, second, pixels in results:
                if frames is None:
                    frames = np.empty((self.total, *pixels.shape), dtype=np.uint8)
                frames[len(indices)] = pixels
                seconds.append(second)
                indices.append(index)
        metadata = self.metadata
        metadata.frames_indices = indices
        metadata.frame_times = dict(zip(indices, seconds, strict=True))
        return VideoFrames(frames[: len(indices)], np.array(seconds, dtype=np.float64), metadata)

    def close(self) -> None:
        self._video.close()


def iter_frames(source: Any, **arguments: Any) -> Iterator[tuple[float, np.ndarray]]:
    """
    [`read_frames`], with its arguments, as a generator, in the order of time and in bounded memory: `(timestamp in
    seconds, frame (H, W, 3) uint8)`, as the frames are decoded. Closing the generator early frees the decoder.
    """
    with closing(FrameReader(source, **arguments)) as reading, closing(iter(reading)) as frames:
        for _, seconds, pixels in frames:
            yield seconds, pixels


def read_frames(
    source: Any,
    *,
    num_frames: int | Callable[[VideoMetadata], int] | None = None,
    fps: float | None = None,
    times: Any = None,
    size: tuple[int, int] | None = None,
    seek_mode: str = "exact",
    progress: Callable[[int, int], None] | bool | None = None,
    limits: VideoLimits | None = None,
    allow_private_hosts: bool = True,
) -> VideoFrames:
    """
    Reads frames of a video.

    Args:
        source:
            A path, a `file://` or `http(s)://` URL, bytes, a binary file object, a [`VideoSegment`], or a list of
            [`VideoSegment`], which is one video, played in order.
        num_frames (`int` or `Callable`, *optional*):
            So many frames, evenly from the first to the last, at most every frame once; or a function of the video's
            metadata (without `frames_indices`) that returns the number.
        fps (`float`, *optional*):
            The frames shown at 0, 1/fps, 2/fps, ... seconds, no frame twice.
        times (`Sequence[float]`, *optional*):
            The frames shown at these times, ascending seconds from the start of the video; past the end, the last.
        size (`tuple[int, int]`, *optional*):
            (height, width) of the frames; by default that of the video as a player shows it.
        seek_mode (`str`, *optional*, defaults to `"exact"`):
            `"exact"`; `"keyframe"` for the keyframe nearest to each wanted frame, no frame twice; or `"auto"` for that
            keyframe where it is less than half the spacing of the wanted frames away, and the wanted frame elsewhere.
            The first and the last frame, and `times`, stay exact under `"auto"`. The times are always those of the
            frames given.
        progress (`Callable` or `bool`, *optional*):
            Called with the number of frames read and the number to read; `True` shows a progress bar.
        limits ([`VideoLimits`], *optional*):
            What reading each source may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its private network.

    Returns:
        [`VideoFrames`]: The frames. Where a file is damaged, frames that cannot be decoded are left out, with a
        warning.

    Raises:
        VideoReadError: If the source cannot be read.
        ValueError: If another argument is wrong.
    """
    reading = FrameReader(
        source, num_frames=num_frames, fps=fps, times=times, size=size, seek_mode=seek_mode, progress=progress,
        limits=limits, allow_private_hosts=allow_private_hosts,
    )  # fmt: skip
    with closing(reading):
        return reading.read()


def probe_video(
    source: Any, *, limits: VideoLimits | None = None, allow_private_hosts: bool = True
) -> TimedVideoMetadata:
    """
    Duration, fps, number of frames, width and height as shown. Only the first frame is decoded, or all where the file
    does not store when they are shown.

    Args:
        source: As for [`read_frames`].
        limits ([`VideoLimits`], *optional*): What reading each source may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`): As for [`read_frames`].

    Raises:
        VideoReadError: If the source cannot be read.
    """
    with closing(_Video(source, limits, allow_private_hosts)) as video:
        return video.metadata()


def _progress_bar(name):
    bar = logging.tqdm(desc=f"Reading {name}", unit="frame", leave=False)

    def update(done, total) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return update


__all__ = [
    "FrameReader",
    "TimedVideoMetadata",
    "VideoFrames",
    "VideoLimits",
    "VideoReadError",
    "VideoSegment",
    "iter_frames",
    "probe_video",
    "read_frames",
]
