"""Reading one video stream: its packet index, then runs of frames, whatever state the file is in."""

import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
from transformers.utils import logging

from .video_limits_fila_video import DECODE_SECONDS, MAX_PACKETS, MAX_PIXELS, STALL_SECONDS, VideoReadError
from .video_plan_fila_video import NO_TIME, SHORT_RUN, PacketIndex, Run
from .video_sources_fila_video import VideoSource, open_container

logger = logging.get_logger(__name__)

_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNMATCHED = 256  # packets after a seek without one that the index knows
_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}  # formats that store no presentation times


class _OutOfStep(Exception):
    """The packets after a seek are not those of the index."""


class StreamReader:
    """One open container with its decoder. `threads` > 1 decodes several frames at once.

    `lost` counts wanted frames that could not be decoded, `errors` what the container and the decoder complained of.
    """

    def __init__(self, source: VideoSource, threads: int = 1):
        self.source = source
        self.lost = self.errors = 0
        self._threads = threads
        self._spent = 0.0  # seconds of decoding since the last wanted frame
        self._interlaced = False
        self._seeking = True  # whether a seek in this file lands where the index says
        self._open()

    def _open(self):
        self._container, self._stream, self._view = open_container(self.source)
        self._codec = self._stream.codec_context
        self._codec.thread_type = "FRAME" if self._threads > 1 else "SLICE"
        self._codec.thread_count = self._threads
        self._codec.options = {"max_pixels": str(MAX_PIXELS)}
        self._skipping = False
        self._demux = self._packets()
        self._at = 0  # position in the index of the packet that comes next
        self._held = None  # that packet, where it was read already

    def close(self):
        self._demux.close()
        self._container.close()
        self._view.close()

    @property
    def pixel_aspect(self) -> Fraction | None:
        return self._stream.sample_aspect_ratio

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets from where the container stands; what it cannot read is skipped, within bounds."""
        errors = 0
        while errors < _MAX_ERRORS:
            self._view.limit(STALL_SECONDS)
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size == 0 and packet.dts is None:  # PyAV's own mark of the end
                        return
                    errors = 0
                    yield packet
                    self._view.limit(STALL_SECONDS)
                return
            except VideoReadError:
                raise
            except TimeoutError as error:
                raise self.source.error(f"it stalled ({error})") from error
            except (av.FFmpegError, OSError) as error:
                errors += 1
                self._complain(error)

    def _decode(self, packet) -> list[av.VideoFrame]:
        start = time.monotonic()
        try:
            return self._codec.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._complain(error)
            return []
        finally:
            self._spent += time.monotonic() - start

    def _complain(self, error):
        self.errors += 1
        logger.debug("%s: %s", self.source.name, error)

    def index(self) -> tuple[PacketIndex, av.VideoFrame | None]:
        """The index of all packets, and the first frame, which is all that is decoded."""
        pts, dts, sizes, keys, hidden = array("q"), array("q"), array("i"), array("b"), array("b")
        end, first, last = NO_TIME, None, None
        for packet in self._packets():
            if first is None:
                first = next(iter(self._decode(packet)), None)
            pts.append(NO_TIME if packet.pts is None else packet.pts)
            dts.append(NO_TIME if packet.dts is None else packet.dts)
            sizes.append(packet.size)
            keys.append(packet.is_keyframe)
            hidden.append(packet.is_discard)
            self.errors += packet.is_corrupt
            if pts[-1] != NO_TIME and not hidden[-1]:
                end = max(end, pts[-1] + (packet.duration or 0))
            if len(pts) > MAX_PACKETS:
                raise self.source.error(f"it has more than {MAX_PACKETS} packets")
            last = packet
        if first is None:
            first = next(iter(self._decode(None)), None)
        if last is not None and last.is_corrupt and len(hidden) > 1:
            hidden[-1] = True  # the file ends within this frame
        self._codec.flush_buffers()
        if not self._stream.time_base:
            raise self.source.error("its times have no unit")
        index = PacketIndex(
            pts=np.frombuffer(pts, dtype=np.int64),
            sizes=np.frombuffer(sizes, dtype=np.int32),
            keys=np.frombuffer(keys, dtype=bool),
            hidden=np.frombuffer(hidden, dtype=bool),
            time_base=self._stream.time_base,
            end=end,
        )
        # FFmpeg makes presentation times up from the decoding times, and cannot do so where H.264 reorders frames.
        reordered = self._codec.has_b_frames and self._codec.name in ("h264", "hevc")
        doubtful = reordered or NO_TIME in pts or len(index.times) < len(pts)
        if (doubtful and self._container.format.name in _UNTIMED) or len(index.times) == 0:
            index = self._counted(index, np.frombuffer(dts, dtype=np.int64))
        return index, first

    def _counted(self, index, dts) -> PacketIndex:
        """The index of a stream that says in which order frames are decoded, but not when they are shown."""
        shown = np.flatnonzero(~index.hidden)
        moments = np.sort(dts[shown])
        if len(moments) and (moments[0] == NO_TIME or len(np.unique(moments)) < len(moments)):
            step = 1 / (self._stream.average_rate or self._stream.guessed_rate or 25) / index.time_base
            moments = np.array([int(number * step) for number in range(len(shown))], dtype=np.int64)
        times = np.full(len(index.pts), NO_TIME)
        times[shown] = moments
        end = moments[-1] + (moments[-1] - moments[0]) // max(len(moments) - 1, 1) if len(moments) else NO_TIME
        return PacketIndex(times, index.sizes, index.keys, index.hidden, index.time_base, int(end), counted=True)

    def announced(self) -> tuple[int, float]:
        """Number of packets and seconds that the file's header promises; 0 where it does not say."""
        entries = len(getattr(self._stream, "index_entries", ()))
        packets = entries if "mov" in self._container.format.name else self._stream.frames
        return packets, (self._container.duration or 0) / av.time_base

    def _go_to(self, start: int, index: PacketIndex):
        """Stands before the packet `start` or an earlier one, wherever a seek really lands."""
        if self._at <= start and (start - self._at <= SHORT_RUN or not self._seeking):
            return
        if self._seeking:
            for target in (start, max(0, start - 500)):
                if index.pts[target] != NO_TIME and self._seek(int(index.pts[target]), start, index):
                    return
        self.close()
        self._open()

    def _seek(self, time, start, index) -> bool:
        self._demux.close()
        self._view.limit(STALL_SECONDS)
        try:
            self._container.seek(time, stream=self._stream)
        except (av.FFmpegError, OSError):
            return False
        self._demux = self._packets()
        for _, packet in zip(range(_MAX_UNMATCHED), self._demux, strict=False):
            found = index.locate(packet.pts, packet.size)
            if found is not None:
                self._at, self._held = found, packet
                return found <= start
        return False

    def _packets_from(self, start: int, index: PacketIndex) -> Iterator[tuple[int, av.Packet]]:
        """`(position in the index, packet)` from the packet `start` on."""
        self._go_to(start, index)
        while True:
            packet, self._held = self._held or next(self._demux, None), None
            if packet is None:
                self._at = len(index.pts)
                return
            position = self._at
            self._at += 1
            time = NO_TIME if packet.pts is None else packet.pts
            if position >= len(index.pts) or (index.pts[position] != time and not index.counted):
                self._seeking = False
                raise _OutOfStep
            if position >= start:
                yield position, packet

    def _frames(self, run, index, needed=None) -> Iterator[av.VideoFrame]:
        """Decodes a run. Where `needed`, the positions of wanted packets, is given, the decoder skips the others on
        which no other depends."""
        self._codec.flush_buffers()
        try:
            for position, packet in self._packets_from(run.start, index):
                self._skip(needed is not None and position not in needed)
                yield from self._decode(packet)
                if position >= run.stop:
                    break
                if self._spent > DECODE_SECONDS:
                    raise self.source.error(f"{DECODE_SECONDS:.0f} seconds of decoding did not reach a frame wanted")
            self._skip(False)
            yield from self._decode(None)
        finally:
            self._codec.flush_buffers()

    def _skip(self, skipping):
        if skipping != self._skipping:
            self._codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            self._skipping = skipping

    def read(self, run: Run, index: PacketIndex) -> Iterator[tuple[int, int, av.VideoFrame]]:
        """`(number of the wanted frame, number of the frame shown, frame)`, in the order of presentation.

        A frame that the file does not hold in a readable state is replaced by the one a player would still show then,
        the last before it; where there is none it is left out. Both are counted in `lost`.
        """
        for result in self._read_counting(run, index) if index.counted else self._read_timed(run, index):
            self._spent = 0.0
            yield result

    def _read_timed(self, run, index):
        wanted = deque((int(index.pts[index.packets[number]]), number) for number in run.frames)
        with suppress(_OutOfStep):
            yield from self._read_fast(run, index, wanted)
        if wanted:
            keys = np.flatnonzero(index.keys[: run.start])
            earlier = Run(int(keys[-1]) if len(keys) else 0, run.stop, [])
            yield from self._read_carefully(earlier, index, wanted)

    def _read_fast(self, run, index, wanted):
        needed = None if self._interlaced else {int(index.packets[number]) for number in run.frames}
        for frame in self._frames(run, index, needed):
            if frame.pts is None or frame.pts > wanted[0][0]:
                return  # a frame is missing: the careful way finds what is shown instead
            if frame.pts == wanted[0][0]:
                if frame.interlaced_frame and not self._interlaced:
                    self._interlaced = True
                    return  # its second field may have been a packet of its own, and skipped
                _, number = wanted.popleft()
                yield number, number, frame
                if not wanted:
                    return

    def _read_carefully(self, run, index, wanted):
        """Decodes everything, from one keyframe earlier on."""
        numbers = {int(index.pts[packet]): number for number, packet in enumerate(index.packets.tolist())}
        shown = None
        for _ in range(2):
            try:
                for frame in self._frames(run, index):
                    if frame.pts not in numbers:
                        continue
                    while wanted and wanted[0][0] < frame.pts:
                        yield from self._substitute(wanted.popleft()[1], shown)
                    shown = (numbers[frame.pts], frame)
                    if wanted and frame.pts == wanted[0][0]:
                        yield wanted.popleft()[1], *shown
                    if not wanted:
                        return
                break
            except _OutOfStep:
                continue
        while wanted:
            yield from self._substitute(wanted.popleft()[1], shown)

    def _read_counting(self, run, index):
        """The n-th frame that comes out of the decoder is the n-th shown."""
        wanted, shown = deque(run.frames), None
        for number, frame in enumerate(self._frames(run, index)):
            shown = (number, frame)
            if number == wanted[0]:
                yield wanted.popleft(), *shown
                if not wanted:
                    return
        for number in wanted:
            yield from self._substitute(number, shown)

    def _substitute(self, number, shown):
        self.lost += 1
        if shown is not None:
            yield number, *shown


__all__ = ["StreamReader"]
