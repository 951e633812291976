"""
Frames of one video stream: an index of when each is shown and from where it can be decoded, and their decoding in
runs from keyframes.

Where a container stores when each frame is shown, frames are found by their times. Where it does not (AVI with
B-frames, raw streams), they are decoded from the start and counted.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from transformers.utils import logging

from .video_pixels_fila_video import display_size, webp_frames, webp_times
from .video_sources_fila_video import OpenedSource

logger = logging.get_logger(__name__)

NOPTS = np.iinfo(np.int64).min
SHORT_RUN = 48  # packets: gaps up to this length are read over rather than sought over
_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNKNOWN = 256  # packets after a seek of which the index knows none
_MAX_EARLY = 16  # wanted frames that may come before another one that is shown earlier
_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}  # formats that store no presentation times
_NOT_CODED = 20  # bytes: an MPEG-4 packet below this may hold no picture ("show the last one again")
_FAR = 3600.0  # seconds between the first or last times and all others, from which on they are taken for damage


@dataclass
class Index:
    """
    What a stream holds: P packets in the order of decoding, T frames in the order of presentation.

    Attributes:
        pts (`np.ndarray` of shape `(P,)`):
            int64, presentation times of the packets in units of `time_base` seconds, `NOPTS` where there is none.
        sizes (`np.ndarray` of shape `(P,)`): Bytes of the packets.
        keys (`np.ndarray` of shape `(P,)`): bool, packets from which decoding can start.
        times (`np.ndarray` of shape `(T,)`):
            int64, ascending: when each frame is shown, on one time line also where joined recordings restart their
            clocks.
        frames (`np.ndarray` of shape `(P,)`): The frame that each packet belongs to; -1 where it shows none.
        end (`int`): The time at which the last frame disappears.
        time_base (`Fraction`): Seconds of one unit of time.
        size (`tuple[int, int]`): (height, width) of the frames as a player shows them.
        stream (`int`): Number of the stream within its container.
        counted (`bool`): The times are not stored: packet n stands for the n-th frame that comes out of the decoder.
        restarts (`bool`): Recordings were joined: before the clock starts anew, the decoder has to be emptied.
        interlaced (`bool`): The two fields of a frame may be packets of their own, so that none is skipped.
        palette (`bool`): The palette comes once, with the first packet, so that decoding always starts there.
        damage (`str`, *optional*): What is missing or cannot be read.
        packets (`np.ndarray` of shape `(T,)`): Of each frame, the packet that completes it.
    """

    pts: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    times: np.ndarray
    frames: np.ndarray
    end: int
    time_base: Fraction
    size: tuple[int, int]
    stream: int = 0
    counted: bool = False
    restarts: bool = False
    interlaced: bool = False
    palette: bool = False
    damage: str | None = None

    def __post_init__(self) -> None:
        shown = np.flatnonzero(self.frames >= 0)
        self.packets = np.zeros(len(self.times), dtype=np.int32)
        self.packets[self.frames[shown]] = shown

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64: seconds from the first frame to each frame."""
        return (self.times - self.times[0]) * float(self.time_base)

    @property
    def duration(self) -> float:
        return float((self.end - int(self.times[0])) * self.time_base)


@dataclass
class Run:
    """An unbroken stretch of decoding from the packet `start` to the packet `stop` (inclusive), for the wanted
    `frames`: ascending indices into `Index.times`."""

    start: int
    stop: int
    frames: list[int]


def plan_runs(index: Index, frames: np.ndarray) -> list[Run]:
    """
    Groups ascending frame numbers into runs of decoding.

    A frame is decoded from the last keyframe that comes before it in the file and is not shown after it (a frame shown
    before its keyframe leans on the keyframe before that one). Frames of one such stretch share a run. Where the next
    stretch begins right behind and both are short, decoding on is cheaper than a seek, and the runs are joined.
    """
    if index.counted:
        return [Run(0, len(index.pts) - 1, frames.tolist())] if len(frames) else []
    keys = np.zeros(1, dtype=np.int64) if index.palette else np.flatnonzero(index.keys)
    runs: list[Run] = []
    for frame in frames.tolist():
        packet = int(index.packets[frame])
        at = int(np.searchsorted(keys, packet, side="right")) - 1
        while at >= 0 and index.frames[keys[at]] > frame:
            at -= 1
        start = int(keys[at]) if at >= 0 else 0
        last = runs[-1] if runs else None
        near = last and start <= last.stop + SHORT_RUN // 4 and packet < last.start + SHORT_RUN
        if last and (start <= last.start or (near and not index.restarts)):
            last.stop = max(last.stop, packet)
            last.frames.append(frame)
        else:
            runs.append(Run(start, packet, [frame]))
    return runs


class Track:
    """
    One container opened for one of its video streams, with a decoder.

    Args:
        source (`OpenedSource`): Where the container comes from.
        threads (`int`, *optional*, defaults to 1): Threads of the decoder; several decode several frames at once.
        stream (`int`, *optional*): Number of the stream; by default the film's is found.

    Attributes:
        errors (`int`): What the container and the decoder complained of.
        stopped (`bool`): Set by another thread to end a reading.
    """

    def __init__(self, source: OpenedSource, threads: int = 1, stream: int | None = None) -> None:
        self.source, self.errors, self.stopped = source, 0, False
        self.container = None
        self._threads, self._number = threads, stream
        self._seekable = True  # until a seek in this file does not land where the index says
        if not source.is_webp:
            try:
                self.open()
            except BaseException:
                self.close()
                raise

    def open(self) -> None:
        """Opens the container, anew where it was open: it stands at its first packet."""
        self.close()
        self.container = self.source.container()
        if self._number is None:
            self._number = _find_stream(self.source, self.container)
        self.stream = self.container.streams[self._number]
        self.codec = self.stream.codec_context
        self.codec.thread_type = "FRAME" if self._threads > 1 else "SLICE"
        self.codec.thread_count = self._threads
        with suppress(av.FFmpegError):  # `decode` meets it again
            self.codec.open(strict=False)  # before `skip_frame` is set: some decoders take it then, and for good
        self.packets = self._demux()
        self._skipping = False
        self._at, self._held = 0, None  # position in the index of the next packet; that packet if it was read already

    def close(self) -> None:
        if self.container is not None:
            self.packets = iter(())
            self.container.close()

    def _demux(self) -> Iterator[av.Packet]:
        """The stream's packets from where the container stands; what it cannot read is skipped, within bounds."""
        errors = 0
        while errors < _MAX_ERRORS:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.size == 0 and packet.dts is None:  # PyAV's own mark of the end
                        break
                    errors = 0
                    self.source.budget.spend(packets=1)
                    yield packet
                self.source.budget.spend()
                return
            except av.FFmpegError as error:
                self.source.budget.check()
                errors += 1
                self._complain(error)
            except OSError as error:  # of the machine, not of the file's content
                raise self.source.error(f"it cannot be read ({error})") from error

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that come out for a packet, or for the end of the stream."""
        try:
            frames = self.codec.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._complain(error)
            return []
        for frame in frames:
            self.source.budget.spend(pixels=frame.width * frame.height)
        return frames

    def _complain(self, error: Exception) -> None:
        self.errors += 1
        logger.debug("%s: %s", self.source.name, error)

    def all_frames(self) -> Iterator[av.VideoFrame]:
        """Every frame from the first on."""
        if self.source.is_webp:
            yield from webp_frames(self.source)
            return
        self.open()
        for packet in self.packets:
            if self.stopped:
                return
            yield from self.decode(packet)
        yield from self.decode(None)

    def read(self, run: Run, index: Index) -> Iterator[tuple[int, av.VideoFrame]]:
        """
        `(number, frame)` of the wanted frames, in the order of presentation; what cannot be decoded is left out.

        Frames that nobody wants and on which no other depends are skipped. A run that did not give its frames is
        decoded once more without skipping, from a keyframe earlier.
        """
        wanted = deque(run.frames)
        if index.counted:
            for number, frame in enumerate(self.all_frames()):
                if number == wanted[0]:
                    yield wanted.popleft(), frame
                    if not wanted:
                        return
            return
        if not index.interlaced:
            for frame in self._run(run.start, run.stop, index, {int(index.packets[number]) for number in wanted}):
                if frame.interlaced_frame:
                    index.interlaced = True
                    break
                if frame.pts == wanted[0]:
                    yield wanted.popleft(), frame
                    if not wanted:
                        return
                elif frame.pts is not None and frame.pts > wanted[0]:
                    break
        start, before = run.start, None
        if not index.interlaced and not index.palette:
            start = int(np.flatnonzero(index.keys[:start]).max(initial=0))
        early: dict[int, av.VideoFrame] = {}  # of damaged files, frames may come in another order
        for frame in self._run(start, run.stop, index):
            if frame.pts is None:
                continue
            for number in wanted:
                if number > frame.pts:
                    break
                if number == frame.pts:
                    early[number] = frame
                elif index.interlaced and before is not None and number > before.pts:
                    # The packet of a second field has a time, but no frame of its own: the first one's is shown.
                    early[number] = before
            before = frame
            while wanted and (wanted[0] in early or len(early) > _MAX_EARLY):
                number = wanted.popleft()
                if number in early:
                    yield number, early.pop(number)
            if not wanted:
                return
        yield from sorted(early.items())

    def _run(self, start: int, stop: int, index: Index, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """
        Frames of the packets `start` to `stop`, whose `pts` are their numbers. Where `needed`, the packets of wanted
        frames, is given, the decoder skips the others on which no frame depends.
        """
        try:
            self._go_to(start, index)
            while self._at <= stop and not self.stopped:
                packet, self._held = self._held or next(self.packets, None), None
                if packet is None:
                    break
                position = self._at
                self._at += 1
                if index.pts[position] != (NOPTS if packet.pts is None else packet.pts):
                    # These packets are not the index's: the next run opens the file anew.
                    self._seekable, self._at = False, len(index.pts) + 1
                    return
                if position >= start:
                    self._skip(needed is not None and position not in needed)
                    number = int(index.frames[position])
                    packet.pts = number if number >= 0 else None
                    yield from self.decode(packet)
            self._skip(False)
            yield from self.decode(None)
        finally:
            self.codec.flush_buffers()

    def _skip(self, skipping: bool) -> None:
        if skipping != self._skipping:
            self.codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            self._skipping = skipping

    def _go_to(self, start: int, index: Index) -> None:
        """Stands before the packet `start` or an earlier one, wherever a seek really lands."""
        if self._at <= start and (start - self._at <= SHORT_RUN or not self._seekable):
            return
        if self._seekable and start > 0:
            for target in (start, max(0, start - 500)):
                if index.pts[target] != NOPTS and self._seek(int(index.pts[target]), start, index):
                    return
            self._seekable = False
        self.open()

    def _seek(self, time: int, start: int, index: Index) -> bool:
        try:
            self.container.seek(time, stream=self.stream)
        except av.FFmpegError:
            return False
        self.packets = self._demux()
        for _, packet in zip(range(_MAX_UNKNOWN), self.packets, strict=False):
            if packet.pts is None:
                continue
            found = np.flatnonzero((index.pts == packet.pts) & (index.sizes == packet.size))
            if len(found) == 1:
                self._at, self._held = int(found[0]), packet
                return self._at <= start
        return False


def index_video(source: OpenedSource) -> Index:
    """
    Reads every packet of the stream. Only its first frame is decoded, and all where they have to be counted.

    Raises:
        VideoReadError: If no frame can be decoded, or a limit is passed.
    """
    with closing(Track(source)) as track:
        index = _index_webp(source) if source.is_webp else _index(track)
    if index.damage:
        _check_readable(source)
    return index


def _index_webp(source: OpenedSource) -> Index:
    times = np.array(webp_times(source), dtype=np.int64)
    with closing(webp_frames(source)) as frames:
        first = next(frames, None)
    if first is None:
        raise source.error("no frame of it can be decoded")
    return _counted(times[:-1], np.ones(len(times) - 1, dtype=bool), times[-1], Fraction(1, 1000), display_size(first))


def _check_readable(source: OpenedSource) -> None:
    """Raises where it is the machine that cannot read the file: FFmpeg ends such a video early, like a damaged one."""
    try:
        with source.open() as file:
            while file.read(1 << 20):
                source.budget.spend()
    except OSError as error:
        raise source.error(f"it cannot be read ({error})") from error


def _index(track: Track) -> Index:
    columns, first, corrupt = array("q"), None, False
    for packet in track.packets:
        if first is None:
            first = next(iter(track.decode(packet)), None)
        times = (NOPTS if time is None else time for time in (packet.pts, packet.dts))
        columns.extend((*times, packet.duration or 0, packet.size, packet.is_keyframe + 2 * packet.is_discard))
        corrupt = packet.is_corrupt
        track.errors += corrupt
    if first is None:
        first = next(iter(track.decode(None)), None)
    pts, dts, lengths, sizes, flags = np.array(columns, dtype=np.int64).reshape(-1, 5).T
    stream, codec, name = track.stream, track.stream.codec_context, track.container.format.name
    if first is None or len(pts) == 0:
        raise track.source.error("no frame of it can be decoded")
    if not stream.time_base:
        raise track.source.error("its times have no unit")
    pts, sizes = pts.copy(), sizes.astype(np.int32)
    keys, shown = flags % 2 == 1, (pts != NOPTS) & (flags < 2)
    if corrupt and len(pts) > 1:
        shown[-1] = False  # the file ends within this frame
    shown = np.flatnonzero(shown)
    # FFmpeg makes presentation times up where a container has none, and cannot do so where frames are reordered.
    reordered = codec.has_b_frames or (pts != dts).any() or len(np.unique(pts[shown])) < len(pts)
    not_coded = codec.name == "mpeg4" and sizes.min() < _NOT_CODED
    if len(shown) == 0 or (name in _UNTIMED and (reordered or not_coded)):
        index = _count(track, dts[flags < 2], first)
        index.damage = _damage(track, index, len(pts), 0)
        return index
    wild = _wild(pts[shown], float(stream.time_base))
    kept = shown[~wild]
    shifts = _shifts_of_restarts(pts, kept[keys[kept]])
    moments = pts[kept] if shifts is None else pts[kept] + shifts[kept]
    frames = np.full(len(pts), -1, dtype=np.int32)
    times, frames[kept] = np.unique(moments, return_inverse=True)
    length = int(lengths[np.flatnonzero(frames == len(times) - 1)[-1]])
    usual = int(np.median(np.diff(times[-100:]))) if len(times) > 1 else 1
    if length <= 0 or length * float(stream.time_base) > max(_FAR, 20 * float(np.ptp(times) * stream.time_base)):
        length = max(1, usual)
    index = Index(
        pts, sizes, keys, times, frames, int(times[-1]) + length, stream.time_base, _shown_size(first, track),
        stream.index, restarts=shifts is not None, interlaced=first.interlaced_frame,
        palette=codec.pix_fmt == "pal8" and codec.name != "png",
    )  # fmt: skip
    index.damage = _damage(track, index, len(pts), int(wild.sum()))
    return index


def _shown_size(first: av.VideoFrame, track: Track) -> tuple[int, int]:
    is_gif = track.container.format.name == "gif"  # every viewer ignores GIF's aspect byte
    return display_size(first, None if is_gif else track.stream.sample_aspect_ratio)


def _count(track: Track, dts: np.ndarray, first: av.VideoFrame) -> Index:
    """The index of a stream that says in which order frames are decoded, but not when they are shown."""
    came, keys = array("q"), array("b")
    for frame in track.all_frames():
        came.append(NOPTS if frame.dts is None else frame.dts)
        keys.append(bool(frame.key_frame))
    came, keys = np.array(came), np.array(keys, dtype=bool)
    if len(came) == 0:
        raise track.source.error("no frame of it can be decoded")
    stream = track.stream
    step = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
    slots = np.unique(dts)
    if len(slots) >= len(came) and slots[0] != NOPTS:
        # A slot without a picture of its own (not coded) shows the picture before it again.
        times = slots if len(slots) == len(came) else _slots_of(came, slots)
        end = max(int(times[-1]) + max(1, round(step)), int(slots[-1]) + 1)
    else:
        times = np.array([int(number * step) for number in range(len(came))], dtype=np.int64)
        end = int(times[-1]) + max(1, round(step))
    return _counted(times, keys, end, stream.time_base, _shown_size(first, track), stream.index)


def _counted(
    times: np.ndarray, keys: np.ndarray, end: int, time_base: Fraction, size: tuple[int, int], stream: int = 0
) -> Index:
    numbers = np.arange(len(times), dtype=np.int32)
    return Index(times, numbers, keys, times, numbers, int(end), time_base, size, stream, counted=True)


def _damage(track: Track, index: Index, held: int, wild: int) -> str | None:
    """What the file holds less than its header promises, or what of it cannot be read."""
    name = track.container.format.name
    entries = getattr(track.stream, "index_entries", ())
    announced = len(entries) if "mov" in name else track.stream.frames
    seconds = (track.container.duration or 0) / av.time_base
    if name == "avi" and len(entries):  # it counts chunks, also those of 0 bytes, which show the last picture again
        held, seconds = max(held, entries[-1].timestamp + 1), 0.0
    if announced > held:
        return f"is cut off or damaged: {announced - held} of its {announced} frames are missing"
    if wild:
        return f"is damaged: the times of {wild} of its {held} frames are far from all others; they are left out"
    if seconds > index.duration + max(1.0, 0.02 * seconds):
        return (
            "is cut off, or its sound outlasts its video: there are frames for "
            f"{index.duration:.1f} of its {seconds:.1f} seconds"
        )
    return f"is damaged: {track.errors} places of it cannot be read" if track.errors else None


def _wild(pts: np.ndarray, unit: float) -> np.ndarray:
    """
    (S,) bool: which of the times `pts` (S,), in the order of decoding, are damaged.

    One is that jumps away from those around it, which agree, further than frames are reordered. At both ends, where
    there is nothing to come back to, it takes an hour and 20 times the length of everything else.
    """
    seconds = pts * unit
    wild = np.zeros(len(pts), dtype=bool)
    reach = 4  # times before and after, of which the middle is taken
    if len(pts) > 2 * reach:
        around = np.lib.stride_tricks.sliding_window_view(seconds, reach)
        before, after = np.median(around, axis=1)[: -reach - 1], np.median(around, axis=1)[reach + 1 :]
        here = seconds[reach:-reach]
        steps = np.abs(np.diff(seconds))
        usual = np.median(np.lib.stride_tricks.sliding_window_view(steps, 2 * reach), axis=1)
        far = 1 + 32 * usual
        jumps = (here > np.maximum(before, after) + far) | (here < np.minimum(before, after) - far)
        wild[reach:-reach] = jumps & (np.abs(after - before) < far)
    rest = np.sort(seconds[~wild])
    low, high = np.quantile(rest, (0.1, 0.9), method="nearest")
    far = max(_FAR, 20 * (high - low))
    ends = ~wild & ((seconds < low - far) | (seconds > high + far))
    if len(pts) > 2 and ends.sum() <= max(1, len(pts) // 50):
        wild |= ends
    return wild


def _shifts_of_restarts(pts: np.ndarray, starts: np.ndarray) -> np.ndarray | None:
    """
    (P,) int64: shifts that put recordings that were joined, each with a clock of its own, behind one another.

    Keyframes, the packets `starts`, are stored in the order in which they are shown; one that is not later than the
    one before it starts a new clock, and follows the last frame at the usual distance. `None` where there is none.
    """
    restarts = starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist()
    if not restarts:
        return None
    shifts = np.zeros(len(pts), dtype=np.int64)
    shift, top = 0, NOPTS
    for low, at, high in zip([0, *restarts], restarts, [*restarts[1:], len(pts)], strict=False):
        part = pts[low:at][pts[low:at] != NOPTS]
        gaps = np.diff(np.unique(part[-100:]))
        top = max(top, int(part.max()) + shift) if len(part) else top
        shift = top + (int(np.median(gaps)) if len(gaps) else 1) - int(pts[at])
        shifts[at:high] = shift
    return shifts


def _slots_of(came: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(T,) int64, strictly ascending: the slots of T frames of which each came out of the decoder at a slot of `came`
    (`NOPTS` at the end, where the decoder was emptied), a constant number of slots after its own."""
    at = np.where(came == NOPTS, 0, np.searchsorted(slots, came))
    steps = np.arange(len(came))
    at = np.maximum.accumulate(np.maximum(at - at[0], 0) - steps) + steps
    return slots[np.minimum(at, len(slots) - len(came) + steps)]


def _find_stream(source: OpenedSource, container: av.container.InputContainer) -> int:
    """The number of the stream to read: of several that can be decoded, the one that FFmpeg thinks best, unless it
    holds a few pictures only and another one moves."""
    streams = container.streams
    if not streams.video:
        raise source.error("it holds sound only, no video stream" if streams.audio else "it holds no video stream")
    kinds = type(streams.video[0].disposition)
    still = kinds.attached_pic | kinds.timed_thumbnails
    videos = [stream for stream in streams.video if not stream.disposition & still]
    if not videos:
        raise source.error("its only picture is a cover; it holds no video stream")
    videos = [stream for stream in videos if stream.codec_context is not None]
    if not videos:
        raise source.error("its video codec is unknown, or not decoded by the installed PyAV")
    best = streams.best("video")
    best = best if best in videos else videos[0]
    if len(videos) == 1:
        return best.index
    counts: Counter[int] = Counter()
    numbers = [stream.index for stream in videos]
    with source.container() as other, suppress(av.FFmpegError):
        for packet in other.demux([other.streams[number] for number in numbers]):
            source.budget.spend(packets=1)
            counts[packet.stream_index] += packet.size > 0
    most = max(numbers, key=lambda number: counts[number])
    return best.index if counts[best.index] * 10 >= counts[most] else most


__all__ = ["Index", "Run", "Track", "index_video", "plan_runs"]
