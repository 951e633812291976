"""Reading one video stream: its packet index, then runs of frames, whatever state the file is in."""

from array import array
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from transformers.utils import logging

from .video_plan_fila_video import NO_TIME, PacketIndex, Run
from .video_sources_fila_video import (
    MAX_PACKETS,
    MAX_PIXELS,
    STALL_SECONDS,
    VideoReadError,
    VideoSource,
    open_container,
)

logger = logging.get_logger(__name__)

_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNMATCHED = 256  # packets after a seek without one that the index knows
_ENDED = object()


class _OutOfStep(Exception):
    """The packets after a seek are not those of the index."""


class StreamReader:
    """One open container with its decoder. `threads` > 1 decodes several frames at once.

    `lost` counts wanted frames that could not be decoded, `errors` what the decoder and the container complained of.
    """

    def __init__(self, source: VideoSource, threads: int = 1):
        self.source = source
        self.lost = 0
        self.errors = 0
        self._threads = threads
        self._seeking = True
        self._open()

    def _open(self):
        self._container, self._stream, self._view = open_container(self.source)
        self._codec = self._stream.codec_context
        self._codec.thread_type = "FRAME" if self._threads > 1 else "SLICE"
        self._codec.thread_count = self._threads
        self._codec.options = {"max_pixels": str(MAX_PIXELS)}
        self._skipping = False

    def close(self):
        self._container.close()
        self._view.close()

    @property
    def pixel_aspect(self):
        return self._stream.sample_aspect_ratio

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets from where the container stands; what it cannot read is skipped, within bounds."""
        errors = 0
        while errors < _MAX_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size == 0 and packet.dts is None:  # PyAV's own mark of the end
                        return
                    errors = 0
                    self._view.limit(STALL_SECONDS)
                    yield packet
                    self._view.limit(STALL_SECONDS)
                return
            except VideoReadError:
                raise
            except TimeoutError as error:
                raise self.source.error(f"it stalled ({error})") from error
            except (av.FFmpegError, OSError) as error:
                errors += 1
                self.errors += 1
                logger.debug("%s: %s", self.source.name, error)

    def _decode(self, packet) -> list[av.VideoFrame]:
        try:
            return self._codec.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self.errors += 1
            logger.debug("%s: %s", self.source.name, error)
            return []

    def index(self) -> tuple[PacketIndex, av.VideoFrame | None]:
        """The index of all packets, without decoding more than the first frame, which is returned too."""
        pts, sizes, keys, hidden, end, first = array("q"), array("q"), array("b"), array("b"), NO_TIME, None
        for packet in self._packets():
            if first is None:
                first = next(iter(self._decode(packet)), None)
            time = NO_TIME if packet.pts is None else packet.pts
            pts.append(time)
            sizes.append(packet.size)
            keys.append(packet.is_keyframe)
            hidden.append(packet.is_discard)
            if time != NO_TIME and not hidden[-1]:
                end = max(end, time + (packet.duration or 0))
            if len(pts) > MAX_PACKETS:
                raise self.source.error(f"it has more than {MAX_PACKETS} packets")
        if first is None:
            first = next(iter(self._decode(None)), None)
        self._codec.flush_buffers()
        index = PacketIndex(
            np.frombuffer(pts, dtype=np.int64),
            np.frombuffer(sizes, dtype=np.int64),
            np.frombuffer(keys, dtype=bool),
            np.frombuffer(hidden, dtype=bool),
            self._stream.time_base,
            end,
        )
        return index, first

    def _packets_from(self, start: int, index: PacketIndex) -> Iterator[tuple[int, av.Packet]]:
        """`(position in the index, packet)` from the packet `start` on, wherever a seek really lands."""
        for target in (start, max(0, start - 500), None) if self._seeking else (None,):
            if target is None:
                self.close()
                self._open()
            elif index.pts[target] == NO_TIME:
                continue
            else:
                try:
                    self._container.seek(int(index.pts[target]), stream=self._stream)
                except (av.FFmpegError, OSError):
                    continue
            position, unmatched = (None, 0) if target is not None else (-1, 0)
            for packet in self._packets():
                if position is not None:
                    position += 1
                else:
                    position = _locate(packet, index)
                    unmatched += 1
                    if position is None and unmatched < _MAX_UNMATCHED:
                        continue
                    if position is None or position > start:
                        break
                time = NO_TIME if packet.pts is None else packet.pts
                if position >= len(index.pts) or index.pts[position] != time:
                    self._seeking = False
                    raise _OutOfStep
                if position >= start:
                    yield position, packet
            else:
                if position is not None:
                    return

    def read(self, run: Run, index: PacketIndex) -> Iterator[tuple[int, av.VideoFrame]]:
        """`(frame index, frame)` for each wanted frame of a run, in the order of presentation.

        A frame that the file does not hold in a readable state is replaced by the one a player would still show then,
        the last before it in the run; where there is none it is left out, and counted in `lost`.
        """
        wanted = {int(index.times[frame]): frame for frame in run.frames}
        with suppress(_OutOfStep):
            yield from self._read_fast(run, index, wanted)
        if wanted:
            keys = np.flatnonzero(index.keys[: run.start])
            earlier = Run(int(keys[-1]) if len(keys) else 0, run.stop, list(wanted.values()))
            yield from self._read_carefully(earlier, index, wanted)

    def _frames(self, run, index, needed=None) -> Iterator[av.VideoFrame]:
        """Decodes a run. `needed`: positions of the packets whose frames are wanted; others are skipped if nothing
        depends on them."""
        self._codec.flush_buffers()
        try:
            for position, packet in self._packets_from(run.start, index):
                self._skip(needed is not None and position not in needed)
                yield from self._decode(packet)
                if position >= run.stop:
                    break
            self._skip(False)
            yield from self._decode(None)
        finally:
            self._codec.flush_buffers()

    def _skip(self, skipping):
        if skipping != self._skipping:
            self._codec.skip_frame = "NONREF" if skipping else "DEFAULT"
            self._skipping = skipping

    def _read_fast(self, run, index, wanted):
        needed = {int(index.packets[frame]) for frame in run.frames}
        for frame in self._frames(run, index, needed):
            if frame.pts is None or frame.pts > min(wanted):
                return  # a frame is missing: the careful way finds what is shown instead
            if frame.pts in wanted:
                if frame.interlaced_frame:
                    return  # its second field may have been skipped
                yield wanted.pop(frame.pts), frame
                if not wanted:
                    return

    def _read_carefully(self, run, index, wanted):
        held = None
        for _ in range(2):
            try:
                for frame in self._frames(run, index):
                    if frame.pts is None:
                        continue
                    while wanted and min(wanted) < frame.pts:
                        yield from self._substitute(wanted, held)
                    held = frame
                    if frame.pts in wanted:
                        yield wanted.pop(frame.pts), frame
                    if not wanted:
                        return
                break
            except _OutOfStep:
                continue
        while wanted:
            yield from self._substitute(wanted, held)

    def _substitute(self, wanted, held):
        time = min(wanted)
        frame = wanted.pop(time)
        self.lost += 1
        if held is not None:
            yield frame, held


def _locate(packet, index):
    if packet.pts is None:
        return None
    found = np.flatnonzero((index.pts == packet.pts) & (index.sizes == packet.size))
    return int(found[0]) if len(found) == 1 else None


__all__ = ["StreamReader"]
