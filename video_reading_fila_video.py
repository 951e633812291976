"""Videos as frames with their true times: exact, fast, in bounded memory.

`read_frames` and `iter_frames` take a few frames out of a video of any length. They read the packets once without
decoding them, choose the frames by presentation time, and decode only what those frames need.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import av
import numpy as np
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .video_crew_fila_video import Crew
from .video_decoding_fila_video import StreamReader
from .video_old_sources_fila_video import VideoSource
from .video_pixels_fila_video import FrameConverter, display_size, webp_times
from .video_plan_fila_video import (
    SHORT_RUN,
    PacketIndex,
    Run,
    nearest_keyframes,
    plan_runs,
    sample_at_rate,
    shown_at,
    spread_evenly,
)
from .video_sources_fila_video import OpenedSource, VideoLimits, VideoReadError, VideoSegment, open_source
from .video_webp_fila_video import WebPReader

logger = logging.get_logger(__name__)

MAX_THREADS = 4
AHEAD_BYTES = 96 << 20  # frames decoded and not yet taken
_TASKS_AHEAD = 8  # runs begun before the first of them is over: a long one does not stop the other threads


class TimedVideoMetadata(VideoMetadata):
    """`VideoMetadata` whose `timestamps` are the true times of the frames, also where the frame rate varies.

    The times belong to the frame indices: a metadata whose `frames_indices` are thinned keeps giving the right ones.
    """

    frame_times: dict[int, float] | None = None

    @property
    def timestamps(self) -> list[float]:
        "Times of the sampled frames in seconds from the start of the video."
        times = self.frame_times or {}
        if self.frames_indices is None or not all(index in times for index in self.frames_indices):
            return super().timestamps
        return [times[index] for index in self.frames_indices]


@dataclass
class VideoFrames:
    """Frames of one video.

    `frames` (T, H, W, 3) uint8; `timestamps` (T,) float64, seconds from the start of the video; `metadata`, whose
    `frames_indices` number the frames in the order of presentation.
    """

    frames: np.ndarray
    timestamps: np.ndarray
    metadata: VideoMetadata


@dataclass
class _Part:
    """A stretch of one source within the video: its frames `low` to `high`, shifted by `offset` seconds."""

    source: VideoSource
    index: PacketIndex
    size: tuple[int, int]
    first: int  # number of its first frame within the video
    low: int
    high: int
    seconds: np.ndarray
    duration: float


class _Video:
    """The parts of a video, opened and indexed. Frames are numbered across the parts."""

    def __init__(self, source, limits=None, allow_private_hosts=True):
        self._limits, self._allow_private_hosts = limits, allow_private_hosts
        self._opened: list[OpenedSource] = []
        self.sources: list[VideoSource] = []
        self.parts: list[_Part] = []
        self.damaged = False
        try:
            if isinstance(source, (list, tuple)) and not isinstance(source, VideoSegment):
                if not source or not all(isinstance(segment, VideoSegment) for segment in source):
                    raise VideoReadError("A list as a video must hold at least one VideoSegment, and nothing else.")
                segments = source
            else:
                segments = [source if isinstance(source, VideoSegment) else VideoSegment(source)]
            for segment in segments:
                self._add(segment)
        except BaseException:
            self.close()
            raise
        all_seconds = [part.seconds for part in self.parts]
        self.seconds = np.concatenate(all_seconds) if len(all_seconds) > 1 else all_seconds[0]
        self.duration = sum(part.duration for part in self.parts)

    def _add(self, segment):
        opened = open_source(segment.source, limits=self._limits, allow_private_hosts=self._allow_private_hosts)
        self._opened.append(opened)
        if opened.is_webp:
            webp_times(opened)
        source = VideoSource(opened.local, opened.name)
        self.sources.append(source)
        reader = _open_reader(source)
        try:
            index, first = reader.index()
            if len(index.times) == 0 or first is None:
                raise source.error("no frame of it can be decoded")
            opened.budget.check_frame(first.width, first.height)
            for _ in range(len(index.pts)):
                opened.budget.spend(packets=1, pixels=first.width * first.height)
            size = display_size(first, reader.pixel_aspect)
            self.damaged |= _report_damage(source, reader, index)
        finally:
            reader.close()
        start, end = _bounds(segment, source, index.duration)
        seconds = index.seconds
        low = int(shown_at(seconds, [start])[0])
        high = max(int(np.searchsorted(seconds, end - 1e-6)), low + 1)
        offset = sum(part.duration for part in self.parts)
        seconds = np.maximum(seconds[low:high] - start, 0) + offset
        first = sum(part.high - part.low for part in self.parts)
        self.parts.append(_Part(source, index, size, first, low, high, seconds, end - start))

    def metadata(self) -> TimedVideoMetadata:
        height, width = self.parts[0].size
        total = len(self.seconds)
        return TimedVideoMetadata(
            total_num_frames=total,
            fps=total / self.duration,
            width=width,
            height=height,
            duration=self.duration,
            video_backend="pyav",
        )

    def choose(self, num_frames, fps, times) -> np.ndarray:
        if times is not None:
            return shown_at(self.seconds, times)
        if fps is not None:
            return sample_at_rate(self.seconds, self.duration, fps)
        if callable(num_frames):
            num_frames = _positive_int("what num_frames returned", num_frames(self.metadata()))
        return spread_evenly(self.seconds, num_frames)

    def close(self):
        for source in [*self.sources, *self._opened]:
            source.close()


def _report_damage(source, reader, index) -> bool:
    """Warns where a file holds less than its header promises, or parts of it cannot be read."""
    packets, seconds = reader.announced()
    held = len(index.pts)
    if packets > held:
        logger.warning(
            "%s is cut off or damaged: %d of its %d frames are missing.", source.name, packets - held, packets
        )
    elif seconds > index.duration + max(1.0, 0.02 * seconds):
        logger.warning(
            "%s is cut off, or its sound outlasts its video: there are frames for %.1f of its %.1f seconds.",
            source.name,
            index.duration,
            seconds,
        )
    elif reader.errors:
        logger.warning("%s is damaged: %d places of it cannot be read.", source.name, reader.errors)
    else:
        return False
    return True


def _bounds(segment, source, duration):
    start = 0.0 if segment.start is None else float(segment.start)
    end = duration if segment.end is None else min(float(segment.end), duration)
    if not 0 <= start < end:
        raise source.error(
            f"its segment from {segment.start} to {segment.end} seconds does not lie within its {duration:.3f} seconds"
        )
    return start, end


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
    if seek_mode not in ("exact", "keyframe"):
        raise ValueError(f"seek_mode must be 'exact' or 'keyframe', got {seek_mode!r}.")
    return num_frames, times, size


class _Reading:
    """Carries out a plan, on one thread or on several.

    `complaints` holds `(frames lost, errors)` of each reader that is done.
    """

    def __init__(self, plan: list[tuple[_Part, Run]], size: tuple[int, int]):
        self._plan, self._size = plan, size
        self.complaints: list[tuple[int, int]] = []
        self._threads = min(_cores(), MAX_THREADS)
        self._room = max(1, AHEAD_BYTES // (3 * size[0] * size[1]))  # frames decoded and not yet taken

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """`(number of the wanted frame, number of the frame shown, pixels)`, in the order of presentation.

        Runs share the cores, each decoded by one thread. A run that outweighs the others, or more frames than may be
        kept waiting, are decoded by one reader.
        """
        lengths = [run.stop - run.start + 1 for _, run in self._plan]
        longest = max(len(run.frames) for _, run in self._plan)
        ahead = min(_TASKS_AHEAD, self._room // longest - 1)
        if self._threads == 1 or ahead < self._threads or max(lengths) * self._threads > 1.5 * sum(lengths):
            return self._read_in_one()
        return iter(Crew(self._work, len(lengths), self._threads, self._room // (ahead + 1), ahead))

    def _read_in_one(self):
        """One reader decodes, several frames at once."""
        with closing(self._work(range(len(self._plan)), self._threads)) as results:
            for _, result in results:
                yield result

    def _work(self, numbers, threads=1):
        """Runs `numbers` of the plan, one after the other. `threads`: those of the decoder."""
        convert = FrameConverter(self._size)
        for (number, frame, shown), picture in self._pictures(numbers, threads):
            for pixels in self._readable(partial(convert, picture)):
                yield number, (frame, shown, pixels)

    def _readable(self, convert) -> list[np.ndarray]:
        """What `convert()` returns; nothing for a picture that no scaler can read."""
        try:
            return [convert()]
        except (av.FFmpegError, MemoryError, ValueError):
            self.complaints.append((1, 1))
            return []

    def _pictures(self, numbers, threads):
        """`((number in the plan, frame, shown), picture)`."""
        reader = None
        try:
            for number in numbers:
                part, run = self._plan[number]
                if reader is None or reader.source is not part.source:
                    self._put_away(reader)
                    reader = _open_reader(part.source, threads if run.stop - run.start >= SHORT_RUN else 1)
                offset = part.first - part.low
                for frame, shown, picture in reader.read(run, part.index):
                    yield (number, offset + frame, offset + max(shown, part.low)), picture
        finally:
            self._put_away(reader)

    def _put_away(self, reader):
        if reader is not None:
            self.complaints.append((reader.lost, reader.errors))
            reader.close()


def _open_reader(source: VideoSource, threads: int = 1) -> StreamReader | WebPReader:
    webp = source.head[:4] == b"RIFF" and source.head[8:12] == b"WEBP"
    return (WebPReader if webp else StreamReader)(source, threads)


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(source, num_frames, fps, times, size, seek_mode, progress, limits, allow_private_hosts):
    """Yields the metadata first, then `(frame index, seconds, pixels)` for each frame."""
    num_frames, times, size = _check_arguments(num_frames, fps, times, size, seek_mode)
    video = _Video(source, limits, allow_private_hosts)
    try:
        frames = video.choose(num_frames, fps, times)
        plan, wanted = [], []
        for part in video.parts:
            offset = part.first - part.low
            inside = frames[(frames >= part.first) & (frames < offset + part.high)] - offset
            if seek_mode == "keyframe":
                inside = nearest_keyframes(part.index, inside, part.low, part.high)
            wanted.append(inside + offset)
            plan.extend((part, run) for run in plan_runs(part.index, np.unique(inside)))
        wanted = np.concatenate(wanted)
        repeats = dict(zip(*np.unique(wanted, return_counts=True), strict=True)) if times is not None else {}
        total = len(wanted) if times is not None else len(np.unique(wanted))
        yield video.metadata(), total
        reading = _Reading(plan, size or video.parts[0].size)
        done, last = 0, -1
        if progress is True:
            progress = _progress_bar(", ".join(source.name for source in video.sources))
        with closing(iter(reading)) as results:
            for frame, shown, pixels in results:
                if times is None and shown <= last:
                    continue  # it stands in for a frame that was lost, and has been given already
                last = shown
                for _ in range(repeats.get(frame, 1)):
                    done += 1
                    yield shown, float(video.seconds[shown]), pixels
                if progress is not None:
                    progress(done, total)
        if done == 0:
            raise video.sources[0].error("none of the frames wanted from it can be decoded")
        lost, errors = (sum(counts) for counts in zip(*reading.complaints, strict=True))
        if lost and (errors or video.damaged):
            logger.warning(
                "%s is damaged: %d of the %d frames wanted could not be decoded; the last before each is shown in its "
                "place, or none.",
                ", ".join(source.name for source in video.sources),
                lost,
                total,
            )
    finally:
        video.close()


def iter_frames(
    source,
    *,
    num_frames: int | Callable[[VideoMetadata], int] | None = None,
    fps: float | None = None,
    times=None,
    size: tuple[int, int] | None = None,
    seek_mode: str = "exact",
    progress: Callable[[int, int], None] | bool | None = None,
    limits: VideoLimits | None = None,
    allow_private_hosts: bool = True,
) -> Iterator[tuple[float, np.ndarray]]:
    """`read_frames` as a generator: `(timestamp in seconds, frame (H, W, 3) uint8)`, as the frames are decoded.

    Closing the generator early frees the decoder.
    """
    frames = _read(source, num_frames, fps, times, size, seek_mode, progress, limits, allow_private_hosts)
    try:
        next(frames)
        for _, seconds, pixels in frames:
            yield seconds, pixels
    finally:
        frames.close()


def read_frames(
    source,
    *,
    num_frames: int | Callable[[VideoMetadata], int] | None = None,
    fps: float | None = None,
    times=None,
    size: tuple[int, int] | None = None,
    seek_mode: str = "exact",
    progress: Callable[[int, int], None] | bool | None = None,
    limits: VideoLimits | None = None,
    allow_private_hosts: bool = True,
) -> VideoFrames:
    """Reads frames of a video.

    Args:
        source: a path, a `file://` or `http(s)://` URL, bytes, a binary file object, a [`VideoSegment`], or a list of
            [`VideoSegment`], which is one video, played in order.
        num_frames: so many frames, evenly from the first to the last, at most every frame once; or a function of the
            video's metadata (without `frames_indices`) that returns the number.
        fps: the frames shown at 0, 1/fps, 2/fps, ... seconds, no frame twice.
        times: the frames shown at these times, ascending seconds from the start of the video; past the end, the last.
        size: (height, width) of the frames; by default that of the video as a player shows it.
        seek_mode: `"exact"`, or `"keyframe"` for the keyframe nearest to each wanted frame: faster, no frame twice.
        progress: called with the number of frames read and the number to read; `True` shows a progress bar.
        limits: what reading may cost; the defaults of [`VideoLimits`] where there are none.
        allow_private_hosts: `False` refuses URLs, and redirects, to this machine or its private network.

    Returns: [`VideoFrames`]. Where a file is damaged, frames that cannot be decoded are left out, with a warning.

    Raises: [`VideoReadError`] where the source cannot be read, `ValueError` for the other arguments.
    """
    reading = _read(source, num_frames, fps, times, size, seek_mode, progress, limits, allow_private_hosts)
    try:
        metadata, total = next(reading)
        frames, seconds, indices = None, [], []
        for index, second, pixels in reading:
            if frames is None:
                frames = np.empty((total, *pixels.shape), dtype=np.uint8)
            frames[len(indices)] = pixels
            seconds.append(second)
            indices.append(index)
    finally:
        reading.close()
    metadata.frames_indices = indices
    metadata.frame_times = dict(zip(indices, seconds, strict=True))
    return VideoFrames(frames[: len(indices)], np.array(seconds, dtype=np.float64), metadata)


def _progress_bar(name):
    bar = logging.tqdm(desc=f"Reading {name}", unit="frame", leave=False)

    def update(done, total):
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return update


def probe_video(source, *, limits: VideoLimits | None = None, allow_private_hosts: bool = True) -> VideoMetadata:
    """Duration, fps, number of frames, width and height as shown; only the first frame is decoded.

    Raises [`VideoReadError`] where the source cannot be read.
    """
    video = _Video(source, limits, allow_private_hosts)
    try:
        return video.metadata()
    finally:
        video.close()


__all__ = [
    "TimedVideoMetadata",
    "VideoFrames",
    "VideoLimits",
    "VideoReadError",
    "VideoSegment",
    "iter_frames",
    "probe_video",
    "read_frames",
]
