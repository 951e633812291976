"""Videos as frames with their true times: exact, fast, in bounded memory.

`read_frames` and `iter_frames` take a few frames out of a video of any length. They read the packets once without
decoding them, choose the frames by presentation time, and decode only what those frames need.
"""

import ctypes
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from numbers import Real
from typing import Any

import av
import numpy as np
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .video_decoding_fila_video import FrameConverter, Track
from .video_index_fila_video import SHORT_RUN, Run, ascending, index_video, plan_runs
from .video_limits_fila_video import VideoLimits, VideoReadError
from .video_sources_fila_video import OpenedSource, VideoSegment, source_key, span_of

logger = logging.get_logger(__name__)

MAX_THREADS = 4
AHEAD_BYTES = 96 << 20  # frames decoded and not yet taken
MAX_FPS = 1e9  # beyond the clock of any file; more could not be told apart in a float's digits
LONG = 50_000  # frames, whose index takes more than a megabyte


class TimedVideoMetadata(VideoMetadata):
    """
    `VideoMetadata` whose `timestamps` are the true times of the frames, also where the frame rate varies.

    The times belong to the frame indices: a metadata whose `frames_indices` are thinned keeps giving the right ones.
    """

    frame_times: dict[int, float] | None = None
    # How they were chosen: "even" in time, "spread" over what differs, or "given" by whoever asked for them.
    pool: str = "given"

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
        frames (`np.ndarray` of shape `(T, H, W, 3)`): uint8, RGB.
        timestamps (`np.ndarray` of shape `(T,)`): float64, seconds from the start of the video.
        metadata ([`~transformers.video_utils.VideoMetadata`]):
            Its `frames_indices` number the frames in the order of presentation.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    metadata: VideoMetadata


class FrameReader(ExitStack):
    """
    One reading of a video, for callers who decide by its metadata what to do with its frames: it is opened and the
    frames are chosen at once, and decoded by iterating or by [`FrameReader.read`]. To be closed, or used in a `with`
    statement. Takes the arguments of [`read_frames`].

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
        hwaccel: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        limits: VideoLimits | None = None,
        allow_private_hosts: bool = True,
    ) -> None:
        times = _check_arguments(num_frames, fps, times, size, seek_mode)
        check_progress(progress)
        super().__init__()
        try:
            parts, seconds, keys = self._open(source, hwaccel, limits=limits, allow_private_hosts=allow_private_hosts)
            if not size:  # pixels that are not square make a frame larger
                parts[0][0].source.budget.check_frame(self.metadata.width, self.metadata.height)
            self._wanted = self._choose(seconds, keys, num_frames, fps, times, seek_mode)
        except BaseException:
            self.close()
            raise
        self.total, self._times = len(self._wanted), seconds[self._wanted].tolist()
        self._runs: list[Run] = []
        first = 0  # of a part, within the video
        for track, low, high in parts:
            inside = self._wanted[(self._wanted >= first) & (self._wanted < first + high - low)]
            self._runs += plan_runs(track, np.unique(inside) - first + low, first - low)
            first += high - low
        is_long = len(seconds) > LONG
        del seconds, keys  # of the whole video
        if is_long:
            # What opening and indexing freed, 11 MB of 3 hours, goes back to the system: the threads that decode have
            # heaps of their own and would not use it.
            with suppress(AttributeError, OSError, TypeError):  # glibc alone has this function
                ctypes.CDLL(None).malloc_trim(0)
        self._size = tuple(map(int, size)) if size else (self.metadata.height, self.metadata.width)
        self._progress = progress

    def _open(
        self, source: Any, hwaccel: str | None, **access: Any
    ) -> tuple[list[tuple[Track, int, int]], np.ndarray, np.ndarray]:
        """
        Opens and indexes the segments, and puts their frames behind one another: the track of each, from which frame
        to which it is played; the seconds of all frames; and which of them are keyframes.
        """
        segment = source if isinstance(source, VideoSegment) else VideoSegment(source)
        segments = source if type(source) in (list, tuple) else [segment]
        if not (segments and all(isinstance(segment, VideoSegment) for segment in segments)):
            raise VideoReadError("A list as a video must hold at least one VideoSegment, and nothing else.")
        tracks: dict[Any, Track] = {}  # segments of one file share it
        parts, times, keys, duration = [], [], [], 0.0
        for segment in segments:
            key = source_key(segment.source)
            if key not in tracks:
                opened = self.enter_context(OpenedSource(segment.source, **access))
                for track in tracks.values():
                    track.close()  # of many files, one is open at a time
                tracks[key] = self.enter_context(closing(Track(opened, hwaccel)))
                if (damage := index_video(tracks[key]).damage) is not None:
                    logger.warning("%s %s.", opened.name, damage)
            track, index = tracks[key], tracks[key].index
            start, last = span_of(segment)
            end = min(last, index.duration)
            if start >= end:
                raise track.source.error(
                    f"its segment from {segment.start} to {segment.end} seconds does not lie within its "
                    f"{index.duration:.3f} seconds"
                )
            if end + 0.5 < last < math.inf:
                logger.warning(
                    "%s ends at %.3f seconds, its segment would at %s.", track.source.name, end, segment.end
                )
            start, end = float(start), float(end)  # of other kinds, seconds would be less exact, or no floats
            seconds = index.seconds
            low = int(shown_at(seconds, [start])[0])
            high = max(int(np.searchsorted(seconds, end - 1e-6)), low + 1)
            parts.append((track, low, high))
            times.append(np.maximum(seconds[low:high] - start, 0) + duration)
            keys.append(index.keyframes[low:high])
            keys[-1][0] |= not keys[-1].any()  # a segment without a keyframe gives its first frame for one
            duration += end - start
        self._error, self._rounding = parts[0][0].source.error, max(track.index.rounding for track, *_ in parts)
        self._name = ", ".join(track.source.name for track in tracks.values())
        seconds, (height, width) = np.concatenate(times), parts[0][0].index.size
        self.metadata = TimedVideoMetadata(len(seconds), len(seconds) / duration, width, height, duration, "pyav")
        return parts, seconds, np.flatnonzero(np.concatenate(keys))

    def _choose(
        self,
        seconds: np.ndarray,
        keys: np.ndarray,
        num_frames: Any,
        fps: float | None,
        times: np.ndarray | None,
        seek_mode: str,
    ) -> np.ndarray:
        """The numbers of the wanted frames, ascending; a number stands as often as `times` ask for its frame."""
        if times is not None:
            frames = shown_at(seconds, times)
        elif fps is not None:
            frames = sample_at_rate(seconds, self.metadata.duration, float(fps), self._rounding)
        else:
            if callable(num_frames):
                num_frames = numbers = num_frames(self.metadata)
                if isinstance(numbers, np.ndarray):
                    last = len(seconds) - 1
                    whole = numbers.ndim == 1 and len(numbers) > 0 and numbers.dtype.kind in "iu"
                    if not whole or not 0 <= numbers[0] <= numbers[-1] <= last or (np.diff(numbers) < 0).any():
                        raise ValueError(f"This video's frames are 0 to {last}, in this order, got {numbers}.")
                    return numbers.astype(np.int64)
                _check_count("what num_frames returned", num_frames)
            frames = spread_evenly(seconds, int(num_frames))
        if seek_mode == "exact" or (seek_mode == "auto" and (times is not None or len(frames) < 3)):
            return frames
        # The nearest keyframe of each, the earlier of two as near.
        after = np.minimum(np.searchsorted(keys, frames), len(keys) - 1)
        before = np.maximum(after - 1, 0)
        moments, low, high = (seconds[at] for at in (frames, keys[before], keys[after]))
        near = keys[np.where(moments - low <= np.abs(high - moments), before, after)]
        if seek_mode == "keyframe":
            return near if times is not None else np.unique(near)
        spacing = (moments[-1] - moments[0]) / (len(frames) - 1)
        close = np.abs(seconds[near] - moments) < spacing / 2
        for place in range(1, len(frames) - 1):
            if close[place] and frames[place - 1] < near[place] < frames[place + 1]:
                frames[place] = near[place]
        return frames

    def __iter__(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """`(number of the frame, seconds, frame (H, W, 3) uint8)`, in the order of time; what cannot be decoded is
        left out."""
        done = 0
        for track, runs in groupby(self._runs, key=lambda run: run.track):
            with closing(track), closing(self._decode_runs(track, list(runs))) as frames:
                for number, pixels in frames:
                    first, last = np.searchsorted(self._wanted, (number, number + 1))
                    for _ in range(first, last):  # `times` may ask for a frame more than once
                        done += 1
                        yield number, self._times[first], pixels
                    if self._progress is not None:
                        self._progress(done, self.total)
        if done == 0:
            raise self._error("none of the frames wanted from it can be decoded")
        if done < self.total:
            logger.warning(
                "%s is damaged: %d of the %d frames wanted could not be decoded; they are left out.",
                self._name, self.total - done, self.total,
            )  # fmt: skip

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
        self.metadata.frames_indices = indices
        self.metadata.frame_times = dict(zip(indices, seconds, strict=True))
        return VideoFrames(frames[: len(indices)], np.array(seconds, dtype=np.float64), self.metadata)

    def _decode_runs(self, track: Track, runs: list[Run]) -> Iterator[tuple[int, np.ndarray]]:
        """
        `(number within the video, frame (H, W, 3) uint8)`, in the order of presentation, of runs of one track, which
        share the cores, each decoded by one thread. Where one run outweighs the others, or its packets or frames are
        too many to wait to be taken, one run after the other is decoded by several threads.
        """
        lengths = [run.stop - run.start + 1 for run in runs]
        num_bytes = max(int(track.index.sizes[run.start : run.stop + 1].sum()) for run in runs)
        longest = max(len(run.frames) for run in runs)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(cores, MAX_THREADS) if track.device is None else 1
        # Runs begun before the first of them is over: a long one does not stop the other threads.
        ahead = min(2 * threads, AHEAD_BYTES // (3 * self._size[0] * self._size[1]) // longest - 1)
        fits = ahead >= threads and num_bytes * threads <= AHEAD_BYTES and not track.index.counted
        track.stopped, track.threads = False, 1
        track.shared = threads > 1 and fits and max(lengths) * threads <= 1.5 * sum(lengths)
        if not track.shared:
            track.threads = threads if max(lengths) > SHORT_RUN else 1
            codec = None if track.index.counted else track.decoder()
            convert = FrameConverter(self._size, track.is_png)
            for run in runs:
                yield from _decode(run, codec, convert)
            return
        decoders = [(track.decoder(), FrameConverter(self._size, track.is_png)) for _ in range(threads)]

        def decode(run: Run) -> list[tuple[int, np.ndarray]]:
            decoder = decoders.pop()
            try:
                return list(_decode(run, *decoder))
            finally:
                decoders.append(decoder)

        with ThreadPoolExecutor(threads) as pool:
            waiting: deque = deque()
            try:
                for run in runs:
                    waiting.append(pool.submit(decode, run))
                    # Where no seek leads back, a run that reads before an earlier one costs a reading from the start.
                    while len(waiting) > (ahead if track.seekable else 0):
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
                track.stopped = True


def _decode(run: Run, codec: av.VideoCodecContext | None, convert: FrameConverter) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of a run, numbered within the video."""
    budget = run.track.source.budget
    budget.spend()
    with closing(run.track.read(run, codec)) as frames:
        for number, frame in frames:
            try:
                pixels = convert(frame)
            except (av.FFmpegError, MemoryError, ValueError):  # a picture that no scaler can read
                continue
            yield number + run.offset, pixels
            budget.spend()  # the time that the consumer took does not count as a stall


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
    wanted = np.linspace(seconds[0], seconds[-1], min(count, len(seconds)))
    tolerance = 1e-9 * max(1.0, float(seconds[-1] - seconds[0]))
    return ascending(np.searchsorted(seconds, wanted + tolerance, side="right") - 1, len(seconds))


def sample_at_rate(seconds: np.ndarray, end: float, fps: float, rounding: float = 0.0) -> np.ndarray:
    """
    The frames shown at 0, 1/fps, 2/fps, ... seconds up to `end`, each once: (K,) int64 indices, ascending. Files round
    the times of frames, such as to a millisecond: a frame counts as shown that much earlier, too.
    """
    early = min(1.01 * rounding, float(np.median(np.diff(seconds))) / 4) if len(seconds) > 1 else 0.0
    ticks = (np.append(seconds, end) - seconds[0] - max(1e-6, early)) * fps
    # The first tick that falls on a frame comes before the next frame.
    return np.flatnonzero(np.ceil(ticks[:-1]) < ticks[1:])


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")


def check_wanted(num_frames: Any, fps: Any, times: Any = None) -> None:
    """Raises `ValueError` unless one of them says which frames are wanted; `times` themselves are not looked at."""
    if sum(value is not None for value in (num_frames, fps, times)) != 1:
        raise ValueError(f"Give exactly one of num_frames, fps and times; got {num_frames=}, {fps=}, {times=}.")
    if num_frames is not None and not callable(num_frames):
        _check_count("num_frames", num_frames)
    if fps is not None and not (isinstance(fps, Real) and not isinstance(fps, bool) and 0 < fps <= MAX_FPS):
        raise ValueError(f"fps must be a positive number, got {fps!r:.40}; the most is {MAX_FPS:.0e}.")


def check_progress(progress: Any) -> None:
    """Raises `ValueError` unless it is a function, or none."""
    if progress is not None and not callable(progress):
        raise ValueError(f"`progress` is a function that is called as frames are done, got {progress!r}.")


def staged(progress: Callable[[str, int, int], None] | None, stage: str) -> Callable[[int, int], None] | None:
    """What a `progress` of all stages hears of one."""
    check_progress(progress)
    return None if progress is None else partial(progress, stage)


def _check_arguments(num_frames: Any, fps: Any, times: Any, size: Any, seek_mode: str) -> np.ndarray | None:
    """Raises `ValueError` for what is wrong in itself, and returns `times` as an array."""
    check_wanted(num_frames, fps, times)
    if size is not None:
        if not isinstance(size, Sequence) or len(size) != 2:
            raise ValueError(f"size must be (height, width), got {size!r}.")
        _check_count("The height in size", size[0])
        _check_count("The width in size", size[1])
    if seek_mode not in ("exact", "keyframe", "auto"):
        raise ValueError(f"seek_mode must be 'exact', 'keyframe' or 'auto', got {seek_mode!r}.")
    if times is None:
        return None
    with suppress(TypeError, ValueError):  # of what is no number
        seconds = np.asarray(times, dtype=np.float64)
        ascending = seconds.ndim == 1 and np.isfinite(seconds).all() and (np.diff(seconds) >= 0).all()
        if ascending and len(seconds) > 0 and seconds[0] >= 0:
            return seconds
    raise ValueError("times must be a list of at least one number of seconds, from 0 on, in ascending order.")


def iter_frames(source: Any, **options: Any) -> Iterator[tuple[float, np.ndarray]]:
    """
    [`read_frames`], with its arguments, as a generator, in the order of time and in bounded memory: `(timestamp in
    seconds, frame (H, W, 3) uint8)`, as the frames are decoded. Closing the generator early frees the decoder.
    """
    with FrameReader(source, **options) as reader, closing(iter(reader)) as frames:
        for _, seconds, pixels in frames:
            yield seconds, pixels


def read_frames(source: Any, **options: Any) -> VideoFrames:
    """
    Reads frames of a video.

    Args:
        source:
            A path, a `file://` or `http(s)://` URL, bytes, a binary file object, a [`VideoSegment`], or a list of
            [`VideoSegment`], which is one video, played in order.
        num_frames (`int` or `Callable`, *optional*):
            So many frames, evenly from the first to the last, at most every frame once; or a function of the video's
            metadata (without `frames_indices`) that returns the number, or an array of the wanted frames' own numbers.
        fps (`float`, *optional*): The frames shown at 0, 1/fps, 2/fps, ... seconds, no frame twice.
        times (`Sequence[float]`, *optional*):
            The frames shown at these times, ascending seconds from the start of the video; past the end, the last.
        size (`tuple[int, int]`, *optional*): (height, width) of the frames; by default as a player shows the video.
        seek_mode (`str`, *optional*, defaults to `"exact"`):
            `"exact"`; `"keyframe"` for the keyframe nearest to each wanted frame, no frame twice; or `"auto"` for that
            keyframe where it is less than half the spacing of the wanted frames away, and the wanted frame elsewhere.
            The first and the last frame, and `times`, stay exact under `"auto"`. The times are always those of the
            frames given.
        hwaccel (`str`, *optional*):
            Decode on a device of this machine, such as `"cuda"` or `"cuda:1"`; frames are scaled on the CPU. What is
            not decoded there, such as AV1 by PyAV's wheels, is an error. Needs PyAV 18.
        progress (`Callable[[int, int], None]`, *optional*): Called with the number of frames read and to be read.
        limits ([`VideoLimits`], *optional*): What reading each source may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its private network.

    Returns:
        [`VideoFrames`]: The frames. Where a file is damaged, frames that cannot be decoded are left out, with a
        warning, and what the decoder puts where parts of a frame are lost may differ between readings on several
        cores.

    Raises:
        VideoReadError: If the source cannot be read.
        ValueError: If another argument is wrong.
    """
    with FrameReader(source, **options) as reader:
        return reader.read()


def probe_video(
    source: Any, *, limits: VideoLimits | None = None, allow_private_hosts: bool = True
) -> TimedVideoMetadata:
    """
    Duration, fps, number of frames, width and height as shown. Few frames at most are decoded, or all where the file
    does not store when they are shown.

    Takes `source`, `limits` and `allow_private_hosts` of [`read_frames`], and raises what it raises.
    """
    with FrameReader(source, num_frames=1, limits=limits, allow_private_hosts=allow_private_hosts) as reader:
        return reader.metadata


__all__ = [
    "FrameReader",
    "TimedVideoMetadata",
    "VideoFrames",
    "VideoLimits",
    "VideoReadError",
    "VideoSegment",
    "check_progress",
    "check_wanted",
    "iter_frames",
    "probe_video",
    "read_frames",
    "staged",
]
