"""Frames of one video stream, decoded in runs from keyframes, or from the start where they have to be counted."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from transformers.utils import logging

from .video_pixels_fila_video import webp_frames
from .video_sources_fila_video import OpenedSource

logger = logging.get_logger(__name__)

NOPTS = np.iinfo(np.int64).min
SHORT_RUN = 48  # packets: gaps up to this length are read over rather than sought over
_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNKNOWN = 256  # packets after a seek of which the index knows none
_MAX_EARLY = 16  # wanted frames that may come before another one that is shown earlier


class _OutOfStep(Exception):
    """The packets are not those of the index."""


@dataclass
class Index:
    """
    What a stream holds: P packets in the order of decoding, T frames in the order of presentation.

    Attributes:
        pts (`np.ndarray` of shape `(P,)`):
            int64, presentation times of the packets in units of `time_base` seconds, `NOPTS` where there is none.
        sizes (`np.ndarray` of shape `(P,)`):
            int32, bytes of the packets.
        keys (`np.ndarray` of shape `(P,)`):
            bool, packets from which decoding can start.
        times (`np.ndarray` of shape `(T,)`):
            int64, ascending: when each frame is shown, on one time line also where joined recordings restart their
            clocks.
        packets (`np.ndarray` of shape `(T,)`):
            int32, the packet of each frame.
        end (`int`):
            The time at which the last frame disappears.
        time_base (`Fraction`):
            Seconds of one unit of time.
        size (`tuple[int, int]`):
            (height, width) of the frames as a player shows them.
        stream (`int`):
            Number of the stream within its container.
        counted (`bool`):
            The times are not stored: packet n stands for the n-th frame that comes out of the decoder.
        restarts (`bool`):
            The clock starts anew within the stream, so that a time does not tell where to seek.
        interlaced (`bool`):
            Frames are interlaced: their two fields may be packets of their own, so that none is skipped.
        palette (`bool`):
            The palette comes once, with the first packet, so that decoding always starts there.
        damage (`str`, *optional*):
            What is missing or cannot be read.
    """

    pts: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    times: np.ndarray
    packets: np.ndarray
    end: int
    time_base: Fraction
    size: tuple[int, int]
    stream: int = 0
    counted: bool = False
    restarts: bool = False
    interlaced: bool = False
    palette: bool = False
    damage: str | None = None

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64: seconds from the first frame to each frame."""
        return (self.times - self.times[0]) * float(self.time_base)

    @property
    def duration(self) -> float:
        return float((self.end - int(self.times[0])) * self.time_base)

    def key_before(self, packet: int) -> int:
        """The last keyframe stored before `packet`, 0 where there is none."""
        keys = np.flatnonzero(self.keys[:packet])
        return int(keys[-1]) if len(keys) else 0


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
    keys = np.flatnonzero(index.keys) if not index.palette else np.zeros(1, dtype=np.int64)
    shown = np.full(len(index.pts), NOPTS)
    shown[index.packets] = index.times
    runs: list[Run] = []
    for frame in frames.tolist():
        packet = int(index.packets[frame])
        at = int(np.searchsorted(keys, packet, side="right")) - 1
        while at >= 0 and shown[keys[at]] > index.times[frame]:
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
        stream (`int`, *optional*, defaults to 0): Number of the stream.

    Attributes:
        errors (`int`): What the container and the decoder complained of.
        stopped (`bool`): Set by another thread to end a reading.
    """

    def __init__(self, source: OpenedSource, threads: int = 1, stream: int = 0) -> None:
        self.source = source
        self.errors = 0
        self.stopped = False
        self.container = None
        self._threads, self._number = threads, stream
        self._seekable = True  # until a seek in this file does not land where the index says
        if not source.is_webp:
            self.open()

    def open(self) -> None:
        """Opens the container, anew where it was open: it stands at its first packet."""
        self.close()
        self.container = self.source.container()
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
            self.packets.close()
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

    def _complain(self, error) -> None:
        self.errors += 1
        logger.debug("%s: %s", self.source.name, error)

    def read(self, run: Run, index: Index) -> Iterator[tuple[int, av.VideoFrame]]:
        """
        `(number, frame)` of the wanted frames, in the order of presentation; what cannot be decoded is left out.

        Frames that nobody wants and on which no other depends are skipped. A run that did not give its frames is
        decoded once more without skipping, from a keyframe earlier.
        """
        wanted = deque(run.frames)
        if index.counted:
            for number, frame in enumerate(all_frames(self)):
                if number == wanted[0]:
                    yield wanted.popleft(), frame
                    if not wanted:
                        return
            return
        pts = {number: int(index.pts[index.packets[number]]) for number in wanted}
        if not index.interlaced:
            for frame in self._run(run.start, run.stop, index, {int(index.packets[number]) for number in wanted}):
                if frame.interlaced_frame:
                    index.interlaced = True
                    break
                if frame.pts == pts[wanted[0]]:
                    yield wanted.popleft(), frame
                    if not wanted:
                        return
                elif frame.pts is not None and frame.pts > pts[wanted[0]]:
                    break
        numbers = {pts[number]: number for number in wanted}
        early: dict[int, av.VideoFrame] = {}  # of damaged files, frames may come in another order
        before = None
        start = run.start if index.interlaced or index.restarts or index.palette else index.key_before(run.start)
        for frame in self._run(start, run.stop, index):
            if index.interlaced and before is not None and frame.pts is not None:
                # The packet of a second field has a time, but no frame of its own: the first one's is shown.
                early |= {number: before for number in wanted if before.pts < pts[number] < frame.pts}
            before = frame if frame.pts is not None else before
            if frame.pts in numbers:
                early[numbers[frame.pts]] = frame
            while wanted and (wanted[0] in early or len(early) > _MAX_EARLY):
                number = wanted.popleft()
                if number in early:
                    yield number, early.pop(number)
            if not wanted:
                return
        yield from sorted(early.items())

    def _run(self, start: int, stop: int, index: Index, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
        """Frames of the packets `start` to `stop`. Where `needed`, the packets of wanted frames, is given, the decoder
        skips the others on which no frame depends."""
        try:
            self._go_to(start, index)
            while self._at <= stop and not self.stopped:
                packet, self._held = self._held or next(self.packets, None), None
                if packet is None:
                    break
                position = self._at
                self._at += 1
                if index.pts[position] != (NOPTS if packet.pts is None else packet.pts):
                    raise _OutOfStep
                if position >= start:
                    self._skip(needed is not None and position not in needed)
                    yield from self.decode(packet)
            self._skip(False)
            yield from self.decode(None)
        except _OutOfStep:
            self._seekable = False
            self._at = len(index.pts) + 1  # the next run opens the file anew
        finally:
            self.codec.flush_buffers()

    def _skip(self, skipping) -> None:
        if skipping != self._skipping:
            self.codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            self._skipping = skipping

    def _go_to(self, start: int, index: Index) -> None:
        """Stands before the packet `start` or an earlier one, wherever a seek really lands."""
        seekable = self._seekable and not index.restarts and not index.palette
        if self._at <= start and (start - self._at <= SHORT_RUN or not seekable):
            return
        for target in (start, max(0, start - 500)) if seekable else ():
            if index.pts[target] != NOPTS and self._seek(int(index.pts[target]), start, index):
                return
        self.open()

    def _seek(self, time: int, start: int, index: Index) -> bool:
        self.packets.close()
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


def all_frames(track: Track) -> Iterator[av.VideoFrame]:
    """Every frame from the first on."""
    if track.source.is_webp:
        yield from webp_frames(track.source)
        return
    track.open()
    for packet in track.packets:
        if track.stopped:
            return
        yield from track.decode(packet)
    yield from track.decode(None)


__all__ = ["NOPTS", "SHORT_RUN", "Index", "Run", "Track", "all_frames", "plan_runs"]
