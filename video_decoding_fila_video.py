"""
Frames of one video stream: an index of when each is shown and from where it can be decoded, and their decoding in
runs from keyframes.

Where a container stores when each frame is shown, frames are found by their times. Where it does not (AVI with
B-frames, raw streams, WebP), they are decoded from the start and counted.
"""

import io
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from threading import Lock

import av
import numpy as np
from transformers.utils import logging

from .video_pixels_fila_video import display_size, webp_frames
from .video_pool_fila_video import FAR, NOPTS, damaged_times, on_one_clock, slots_of
from .video_sources_fila_video import NOT_ON_DEVICE, OpenedSource, find_device

logger = logging.get_logger(__name__)

SHORT_RUN = 48  # packets: gaps up to this length are read over rather than sought over
_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNKNOWN = 256  # packets after a seek of which the index knows none
_MAX_EARLY = 16  # wanted frames that may come before another one that is shown earlier
_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}  # formats that store no presentation times
_NOT_CODED = 20  # bytes: an MPEG-4 packet below this may hold no picture ("show the last one again")


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
    """An unbroken stretch of decoding from the packet `start` to the packet `stop` (inclusive) of a track, for the
    wanted `frames`: ascending indices into `Index.times`, which are `offset` lower than within the video."""

    track: "Track"
    offset: int
    start: int
    stop: int
    frames: list[int]


class Track:
    """
    A video stream: what it holds, a container that gives its packets, and decoders, one for each thread that reads.

    Args:
        source (`OpenedSource`): Where the container comes from.
        hwaccel (`str`, *optional*): The device that decodes, see [`find_device`]; one decoder then serves all.

    Attributes:
        index ([`Index`]): What the stream holds; known after [`index_video`].
        at (`int`): The position in the index of the packet that the container gives next.
        errors (`int`): What the container and the decoders complained of.
        seekable (`bool`): Whether a seek lands where the index says, so far, and leaves out nothing that is needed.
        threads (`int`): Of each decoder made from now on; several decode several frames at once.
        shared (`bool`): Whether several threads call [`Track.read`]; the packets of a run then stand in memory.
        stopped (`bool`): Set by another thread to end all reading.
    """

    index: Index

    def __init__(self, source: OpenedSource, hwaccel: str | None = None) -> None:
        self.device = None if hwaccel is None else find_device(str(hwaccel))
        self.source, self.errors, self.threads, self.shared, self.stopped = source, 0, 1, False, False
        self.container = self._number = None
        self.seekable = True
        self._lock = Lock()  # over the container

    def open(self) -> None:
        """Opens the container, which stands at its first packet; anew where it was open."""
        self.close()
        self.container = self.source.container(self.device)
        if self._number is None:
            self._number = self.source.find_stream(self.container)
        self.stream = self.container.streams[self._number]
        if self.device is not None and not self.stream.codec_context.is_hwaccel:
            raise self.source.error(NOT_ON_DEVICE)
        self.packets = self._demux()
        self.at = 0

    def close(self) -> None:
        if self.container is not None:
            self.packets = iter(())
            self.container.close()
            self.container = None

    def decoder(self) -> av.VideoCodecContext:
        """A new decoder of the stream."""
        if self.container is None:
            self.open()
        if self.device is not None:
            codec = self.stream.codec_context
            codec.flush_buffers()
            if codec.is_open:
                return codec
        else:
            # A stream has one of PyAV's decoders. Opening the file once more for another would cost FFmpeg's index of
            # it, some 60 bytes a frame; this stream is never written, and its decoder outlives it.
            with av.open(io.BytesIO(), "w", format="null") as nothing:
                codec = nothing.add_stream_from_template(self.stream, opaque=True).codec_context
            with suppress(UnicodeError):  # of a damaged header
                codec.codec_tag = self.stream.codec_context.codec_tag
        codec.thread_type = "FRAME" if self.threads > 1 else "SLICE"
        codec.thread_count = self.threads
        with suppress(av.FFmpegError):  # `decode` meets it again
            codec.open(strict=False)  # before `skip_frame` is set: some decoders take it then, and for good
        return codec

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

    def decode(self, codec: av.VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that come out for a packet, or for the end of the stream."""
        try:
            frames = codec.decode(packet)
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
            if self.device is not None:
                raise self.source.error(NOT_ON_DEVICE)
            yield from webp_frames(self.source)
            return
        self.open()
        codec = self.decoder()
        for packet in chain(self.packets, [None]):
            if self.stopped:
                return
            yield from self.decode(codec, packet)

    def read(self, run: Run, codec: av.VideoCodecContext | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """
        `(number, frame)` of the wanted frames, in the order of presentation; what cannot be decoded is left out.

        Frames that nobody wants and on which no other depends are skipped. A run that did not give its frames is
        decoded once more without skipping, from a keyframe earlier.
        """
        if self.index.counted:
            counted = set(run.frames)
            frames = enumerate(islice(self.all_frames(), run.frames[-1] + 1))
            yield from ((number, frame) for number, frame in frames if number in counted)
            return
        index, wanted, start = self.index, deque(run.frames), run.start
        if not index.interlaced:
            needed = {int(index.packets[number]) for number in wanted}
            for frame in self._run(codec, start, run.stop, needed):
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
        for frame in self._run(codec, start, run.stop):
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

    def _run(
        self, codec: av.VideoCodecContext, start: int, stop: int, needed: set[int] | None = None
    ) -> Iterator[av.VideoFrame]:
        """
        Frames of the packets `start` to `stop`, whose `pts` are their numbers. Where `needed`, the packets of wanted
        frames, is given, the decoder skips the others on which no frame depends.
        """
        packets = self._packets_between(start, stop)
        if self.shared:
            with self._lock:
                packets = list(packets)
        try:
            for position, packet in packets:
                if self.stopped:
                    return
                codec.skip_frame = "NONREF" if needed is not None and position not in needed else "DEFAULT"
                number = int(self.index.frames[position])
                packet.pts = number if number >= 0 else None
                yield from (frame for frame in self.decode(codec, packet) if frame.pts is not None)
            codec.skip_frame = "DEFAULT"
            yield from (frame for frame in self.decode(codec, None) if frame.pts is not None)
        finally:
            codec.flush_buffers()

    def _packets_between(self, start: int, stop: int) -> Iterator[tuple[int, av.Packet]]:
        """`(position, packet)` from `start` to `stop`, unless what the container gives is not the index's."""
        self._go_to(start)
        while self.at <= stop and not self.stopped and (packet := next(self.packets, None)) is not None:
            position = self.at
            self.at += 1
            if self.index.pts[position] != _pts_of(packet):
                self.seekable, self.at = False, len(self.index.pts) + 1  # the next run opens the file anew
                return
            if position >= start:
                yield position, packet

    def _go_to(self, start: int) -> None:
        """Stands before the packet `start` or an earlier one, wherever a seek really lands."""
        if self.container is None:
            self.open()
        if self.at <= start and (start - self.at <= SHORT_RUN or not self.seekable):
            return
        targets = (start, max(0, start - 500)) if self.seekable else ()
        if not any(self._seek(target) and self.at <= start for target in targets):
            self.seekable = self.seekable and start == 0
            self.open()

    def _seek(self, target: int) -> bool:
        """Seeks to the time of a packet, and says whether a packet that the index knows was found there."""
        index = self.index
        if index.pts[target] == NOPTS:
            return False
        with suppress(av.FFmpegError):
            self.container.seek(int(index.pts[target]), stream=self.stream)
            self.packets = self._demux()
            for packet in islice(self.packets, _MAX_UNKNOWN):
                found = np.flatnonzero((index.pts == _pts_of(packet)) & (index.sizes == packet.size))
                if packet.pts is not None and len(found) == 1:
                    self.at, self.packets = int(found[0]), chain([packet], self.packets)
                    return True
        return False


def _pts_of(packet: av.Packet) -> int:
    return NOPTS if packet.pts is None else packet.pts


def index_video(track: Track) -> Index:
    """
    Reads every packet of a track, which then knows what it holds. Only its first frame is decoded, and all where they
    have to be counted.

    Raises:
        VideoReadError: If no frame can be decoded, or a limit is passed.
    """
    index = track.index = _index_webp(track) if track.source.is_webp else _index(track)
    if index.damage:  # FFmpeg also ends a video early that the machine cannot read
        try:
            with track.source.open() as file:
                while file.read(1 << 20):
                    track.source.budget.spend()
        except OSError as error:
            raise track.source.error(f"it cannot be read ({error})") from error
    return index


def _index(track: Track) -> Index:
    track.open()
    stream, codec, name = track.stream, track.decoder(), track.container.format.name
    # A column each, as compact as can be: of a long video they are what its reading costs in memory.
    pts, lengths, sizes, flags, undated = array("q"), array("q"), array("i"), array("b"), array("q")
    first, corrupt, reordered = None, False, False
    for packet in track.packets:
        if first is None:
            first = next(iter(track.decode(codec, packet)), None)
        pts.append(_pts_of(packet))
        lengths.append(packet.duration or 0)
        sizes.append(packet.size)
        flags.append(packet.is_keyframe + 2 * packet.is_discard)
        if not packet.is_discard and (name in _UNTIMED or packet.pts is None):
            undated.append(NOPTS if packet.dts is None else packet.dts)
        reordered |= packet.pts != packet.dts
        corrupt = packet.is_corrupt
        track.errors += corrupt
    if first is None:
        first = next(iter(track.decode(codec, None)), None)
    track.at = len(pts)
    if first is None or len(pts) == 0:
        raise track.source.error("no frame of it can be decoded" if track.device is None else NOT_ON_DEVICE)
    if not stream.time_base:
        raise track.source.error("its times have no unit")
    size = display_size(first, None if name == "gif" else stream.sample_aspect_ratio)  # viewers ignore GIF's byte
    pts, lengths, sizes, flags = (
        np.frombuffer(column, dtype=column.typecode) for column in (pts, lengths, sizes, flags)
    )
    keys, kept = flags % 2 == 1, (pts != NOPTS) & (flags < 2)
    if corrupt and len(pts) > 1:
        kept[-1] = False  # the file ends within this frame
    is_timed = kept.any()
    if is_timed and name in _UNTIMED:
        # FFmpeg makes presentation times up where a container has none, and cannot do so where frames are reordered.
        not_coded = codec.name == "mpeg4" and sizes.min() < _NOT_CODED
        twice = len(np.unique(pts[kept])) < len(pts)
        is_timed = not (codec.has_b_frames or reordered or twice or not_coded)
    if not is_timed:
        index = _count(track, np.array(undated, dtype=np.int64), size)
        index.damage = _damage(track, index, len(pts), 0)
        return index
    wild = damaged_times(pts[kept] * float(stream.time_base))
    kept[kept] = ~wild
    moments = on_one_clock(pts, np.flatnonzero(kept & keys))[kept]
    times = np.sort(moments)
    times = times[np.append(True, times[1:] > times[:-1])]  # `np.unique` would take four times the memory
    frames = np.full(len(pts), -1, dtype=np.int32)
    frames[kept] = np.searchsorted(times, moments)
    length = int(lengths[np.flatnonzero(frames == len(times) - 1)[-1]])
    if length <= 0 or length * float(stream.time_base) > max(FAR, 20 * float(np.ptp(times) * stream.time_base)):
        length = max(1, int(np.median(np.diff(times[-100:])))) if len(times) > 1 else 1
    track.seekable = codec.pix_fmt != "pal8" or codec.name == "png"  # a palette may come with the first packet alone
    starts = np.flatnonzero(keys) if track.seekable else np.zeros(1, dtype=np.int64)
    index = Index(
        pts, sizes, keys, starts, times, frames, int(times[-1]) + length, stream.time_base, size, stream.index,
        interlaced=first.interlaced_frame,
    )  # fmt: skip
    index.damage = _damage(track, index, len(pts), int(wild.sum()))
    return index


def _index_webp(track: Track) -> Index:
    frames = [(frame.pts, frame.duration, display_size(frame)) for frame in track.all_frames()]
    times, (_, last, size) = np.array([pts for pts, *_ in frames]), frames[-1]
    return _counted(times, np.ones(len(times), dtype=bool), times[-1] + last, Fraction(1, 1000), size)


def _count(track: Track, dts: np.ndarray, size: tuple[int, int]) -> Index:
    """The index of a stream that says in which order frames are decoded, but not when they are shown."""
    came, keys, stream = array("q"), array("b"), track.stream
    for frame in track.all_frames():
        came.append(NOPTS if frame.dts is None else frame.dts)
        keys.append(bool(frame.key_frame))
    if not came:
        raise track.source.error("no frame of it can be decoded")
    step = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
    slots = np.unique(dts)
    if len(slots) < len(came) or slots[0] == NOPTS:
        slots = np.array([int(number * step) for number in range(len(came))], dtype=np.int64)
    # A slot without a picture of its own (not coded) shows the picture before it again.
    times = slots_of(np.array(came), slots)
    end = max(int(times[-1]) + max(1, round(step)), int(slots[-1]) + 1)
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


__all__ = ["Index", "Run", "Track", "index_video"]
