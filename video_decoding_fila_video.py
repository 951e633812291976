"""
Frames of one video stream: an index of when each is shown and from where it can be decoded, and their decoding in
runs from keyframes.

Where a container stores when each frame is shown, frames are found by their times. Where it does not (AVI with
B-frames, raw streams, WebP), they are decoded from the start and counted.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice

import av
import numpy as np
from transformers.utils import logging

from .video_pixels_fila_video import display_size, webp_frames
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
    What a stream holds: P packets in the order of decoding, T frames in the order of presentation. Its times are
    integers, in units of `time_base` seconds.
    """

    pts: np.ndarray  # (P,) int64: presentation times of the packets, `NOPTS` where there is none
    sizes: np.ndarray  # (P,): bytes of the packets
    keys: np.ndarray  # (P,) bool: the keyframes
    starts: np.ndarray  # packets from which decoding can start, ascending
    times: np.ndarray  # (T,) int64, ascending: when each frame is shown, also in joined recordings
    frames: np.ndarray  # (P,): the frame that each packet belongs to; -1 where it shows none
    end: int  # the time at which the last frame disappears
    time_base: Fraction
    size: tuple[int, int]  # (height, width) of the frames as a player shows them
    stream: int = 0  # number of the stream within its container
    counted: bool = False  # times are not stored: packet n stands for the n-th frame that the decoder gives
    interlaced: bool = False  # the two fields of a frame may be packets of their own, so that none is skipped
    damage: str | None = None  # what is missing or cannot be read

    def __post_init__(self) -> None:
        shown = np.flatnonzero(self.frames >= 0)
        self.packets = np.zeros(len(self.times), dtype=np.int32)  # of each frame, the one that completes it
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

    def open(self) -> None:
        """Opens the container, which stands at its first packet; anew where it was open."""
        self.close()
        self.container = self.source.container()
        if self._number is None:
            self._number = self.source.find_stream(self.container)
        self.stream = self.container.streams[self._number]
        self.codec = self.stream.codec_context
        self.codec.thread_type = "FRAME" if self._threads > 1 else "SLICE"
        self.codec.thread_count = self._threads
        with suppress(av.FFmpegError):  # `decode` meets it again
            self.codec.open(strict=False)  # before `skip_frame` is set: some decoders take it then, and for good
        self.packets = self._demux()
        self._at = 0  # position in the index of the next packet

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

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that come out for a packet, or for the end of the stream."""
        try:
            frames = self.codec.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._complain(error)
            return []
        for frame in frames:
            self.source.budget.spend(frame=(frame.width, frame.height))
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
        for packet in chain(self.packets, [None]):
            if self.stopped:
                return
            yield from self.decode(packet)

    def read(self, run: Run, index: Index) -> Iterator[tuple[int, av.VideoFrame]]:
        """
        `(number, frame)` of the wanted frames, in the order of presentation; what cannot be decoded is left out.

        Frames that nobody wants and on which no other depends are skipped. A run that did not give its frames is
        decoded once more without skipping, from a keyframe earlier.
        """
        if index.counted:
            counted = set(run.frames)
            frames = enumerate(islice(self.all_frames(), run.frames[-1] + 1))
            yield from ((number, frame) for number, frame in frames if number in counted)
            return
        wanted, start = deque(run.frames), run.start
        if not index.interlaced:
            needed = {int(index.packets[number]) for number in wanted}
            for frame in self._run(start, run.stop, index, needed):
                if frame.interlaced_frame or frame.pts > wanted[0]:
                    index.interlaced |= frame.interlaced_frame
                    break
                if frame.pts == wanted[0]:
                    yield wanted.popleft(), frame
                    if not wanted:
                        return
            if not index.interlaced:
                start = int(index.starts[index.starts < start].max(initial=0))
        early: dict[int, av.VideoFrame] = {}  # of damaged files, frames may come in another order
        before = None
        for frame in self._run(start, run.stop, index):
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
        self._go_to(start, index)
        try:
            while self._at <= stop and not self.stopped and (packet := next(self.packets, None)) is not None:
                position = self._at
                self._at += 1
                if index.pts[position] != _pts_of(packet):
                    # These packets are not the index's: the next run opens the file anew.
                    self._seekable, self._at = False, len(index.pts) + 1
                    return
                if position >= start:
                    self.codec.skip_frame = "NONREF" if needed is not None and position not in needed else "DEFAULT"
                    number = int(index.frames[position])
                    packet.pts = number if number >= 0 else None
                    yield from (frame for frame in self.decode(packet) if frame.pts is not None)
            self.codec.skip_frame = "DEFAULT"
            yield from (frame for frame in self.decode(None) if frame.pts is not None)
        finally:
            self.codec.flush_buffers()

    def _go_to(self, start: int, index: Index) -> None:
        """Stands before the packet `start` or an earlier one, wherever a seek really lands."""
        if self.container is None:
            self.open()
        if self._at <= start and (start - self._at <= SHORT_RUN or not self._seekable):
            return
        if self._seekable and start > 0:
            if any(self._seek(target, start, index) for target in (start, max(0, start - 500))):
                return
            self._seekable = False
        self.open()

    def _seek(self, target: int, start: int, index: Index) -> bool:
        if index.pts[target] == NOPTS:
            return False
        with suppress(av.FFmpegError):
            self.container.seek(int(index.pts[target]), stream=self.stream)
            self.packets = self._demux()
            for packet in islice(self.packets, _MAX_UNKNOWN):
                found = np.flatnonzero((index.pts == _pts_of(packet)) & (index.sizes == packet.size))
                if packet.pts is not None and len(found) == 1:
                    self._at, self.packets = int(found[0]), chain([packet], self.packets)
                    return self._at <= start
        return False


def _pts_of(packet: av.Packet) -> int:
    return NOPTS if packet.pts is None else packet.pts


def index_video(source: OpenedSource) -> Index:
    """
    Reads every packet of the stream. Only its first frame is decoded, and all where they have to be counted.

    Raises:
        VideoReadError: If no frame can be decoded, or a limit is passed.
    """
    with closing(Track(source)) as track:
        index = _index_webp(source) if source.is_webp else _index(track)
    if index.damage:  # FFmpeg also ends a video early that the machine cannot read
        try:
            with source.open() as file:
                while file.read(1 << 20):
                    source.budget.spend()
        except OSError as error:
            raise source.error(f"it cannot be read ({error})") from error
    return index


def _index(track: Track) -> Index:
    track.open()
    columns, first, corrupt = array("q"), None, False
    for packet in track.packets:
        if first is None:
            first = next(iter(track.decode(packet)), None)
        dts = NOPTS if packet.dts is None else packet.dts
        flags = packet.is_keyframe + 2 * packet.is_discard
        columns.extend((_pts_of(packet), dts, packet.duration or 0, packet.size, flags))
        corrupt = packet.is_corrupt
        track.errors += corrupt
    if first is None:
        first = next(iter(track.decode(None)), None)
    pts, dts, lengths, sizes, flags = np.array(columns, dtype=np.int64).reshape(-1, 5).T
    stream, codec = track.stream, track.codec
    if first is None or len(pts) == 0:
        raise track.source.error("no frame of it can be decoded")
    if not stream.time_base:
        raise track.source.error("its times have no unit")
    keys, shown = flags % 2 == 1, (pts != NOPTS) & (flags < 2)
    if corrupt and len(pts) > 1:
        shown[-1] = False  # the file ends within this frame
    shown = np.flatnonzero(shown)
    # FFmpeg makes presentation times up where a container has none, and cannot do so where frames are reordered.
    reordered = codec.has_b_frames or (pts != dts).any() or len(np.unique(pts[shown])) < len(pts)
    not_coded = codec.name == "mpeg4" and sizes.min() < _NOT_CODED
    if len(shown) == 0 or (track.container.format.name in _UNTIMED and (reordered or not_coded)):
        index = _count(track, dts[flags < 2])
        index.damage = _damage(track, index, len(pts), 0)
        return index
    wild = _wild(pts[shown], float(stream.time_base))
    kept = shown[~wild]
    moments = pts[kept] + _shifts_of_restarts(pts, kept[keys[kept]])[kept]
    frames = np.full(len(pts), -1, dtype=np.int32)
    times, frames[kept] = np.unique(moments, return_inverse=True)
    length = int(lengths[np.flatnonzero(frames == len(times) - 1)[-1]])
    if length <= 0 or length * float(stream.time_base) > max(_FAR, 20 * float(np.ptp(times) * stream.time_base)):
        length = max(1, int(np.median(np.diff(times[-100:])))) if len(times) > 1 else 1
    has_one_palette = codec.pix_fmt == "pal8" and codec.name != "png"  # it comes with the first packet
    starts = np.zeros(1, dtype=np.int64) if has_one_palette else np.flatnonzero(keys)
    index = Index(
        pts.copy(), sizes.astype(np.int32), keys, starts, times, frames, int(times[-1]) + length, stream.time_base,
        _shown_size(first, track), stream.index, interlaced=first.interlaced_frame,
    )  # fmt: skip
    index.damage = _damage(track, index, len(pts), int(wild.sum()))
    return index


def _shown_size(first: av.VideoFrame, track: Track) -> tuple[int, int]:
    is_gif = track.container.format.name == "gif"  # every viewer ignores GIF's aspect byte
    return display_size(first, None if is_gif else track.stream.sample_aspect_ratio)


def _index_webp(source: OpenedSource) -> Index:
    frames = [(frame.pts, frame.duration, display_size(frame)) for frame in webp_frames(source)]
    times, (_, last, size) = np.array([pts for pts, *_ in frames]), frames[-1]
    return _counted(times, np.ones(len(times), dtype=bool), times[-1] + last, Fraction(1, 1000), size)


def _count(track: Track, dts: np.ndarray) -> Index:
    """The index of a stream that says in which order frames are decoded, but not when they are shown."""
    came, keys, size = array("q"), array("b"), None
    for frame in track.all_frames():
        size = size or _shown_size(frame, track)
        came.append(NOPTS if frame.dts is None else frame.dts)
        keys.append(bool(frame.key_frame))
    if size is None:
        raise track.source.error("no frame of it can be decoded")
    stream = track.stream
    step = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
    slots = np.unique(dts)
    if len(slots) >= len(came) and slots[0] != NOPTS:
        # A slot without a picture of its own (not coded) shows the picture before it again.
        times = slots if len(slots) == len(came) else _slots_of(np.array(came), slots)
        end = max(int(times[-1]) + max(1, round(step)), int(slots[-1]) + 1)
    else:
        times = np.array([int(number * step) for number in range(len(came))], dtype=np.int64)
        end = int(times[-1]) + max(1, round(step))
    return _counted(times, np.array(keys, dtype=bool), end, stream.time_base, size, stream.index)


def _counted(
    times: np.ndarray, keys: np.ndarray, end: int, time_base: Fraction, size: tuple[int, int], stream: int = 0
) -> Index:
    every = np.arange(len(times), dtype=np.int32)
    return Index(times, every, keys, every[:1], times, every, int(end), time_base, size, stream, counted=True)


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


def _shifts_of_restarts(pts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """
    (P,) int64: shifts that put recordings that were joined, each with a clock of its own, behind one another.

    Keyframes, the packets `starts`, are stored in the order in which they are shown; one that is not later than the
    one before it starts a new clock, and follows the last frame at the usual distance.
    """
    restarts = starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist()
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


__all__ = ["Index", "Run", "Track", "index_video"]
