"""
The frames of a video stream: from its packets, decoded in runs from keyframes, to RGB as a player shows it: upright,
with square pixels, in SDR, at the wanted size.
"""

import io
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import chain, islice
from threading import Lock

import av
import numpy as np
import PIL.Image
from av.packet import PacketSideData
from av.sidedata.sidedata import SideDataContainer
from transformers.utils import logging

from .video_index_fila_video import NOPTS, SHORT_RUN, Index, Run, pts_of
from .video_sources_fila_video import NOT_ON_DEVICE, OpenedSource, find_device, pillow_errors

logger = logging.get_logger(__name__)

_MAX_ERRORS = 64  # errors of the container in a row, after which the rest of the file is given up
_MAX_UNKNOWN = 256  # packets after a seek of which the index knows none
# Decoders whose color profiles have a name, which PyAV 17 and 18 free with a list of what a frame carries, and FFmpeg
# once more with the frame: that ends the process.
_OF_PNG = ("png", "apng")
_CODED_MORE = 1 << 20  # pixels that decoders may add to a picture: they code whole blocks, and pad its rows
_NEW_EXTRADATA = 1  # FFmpeg's number of a packet's data that configures the decoder from there on
_OF_FIELDS = ("h264", "hevc", "vc1")  # whose two fields may come in a packet each
_MAX_EARLY = 16  # wanted frames that may come before another one that is shown earlier
# libswscale's flags: bicubic, its support growing as the picture shrinks (antialiasing), full chroma, exact rounding.
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000
_SHORTEST = 10  # milliseconds: pictures of an animation that should last no longer, browsers show for 100
_BT2020, _PQ, _HLG = 9, 16, 18  # as H.273 numbers primaries and transfer functions
_PEAK = 10.0  # brightest light that is told apart, in units of 100 cd/m2, which become SDR's white
_ROWS = 256  # of an interlaced picture, blended at a time
# Linear light of BT.2020's primaries to that of BT.709's (ITU-R BT.2087).
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


class Track:
    """
    A video stream: what it holds, a container that gives its packets, and decoders, one for each thread that reads.

    Args:
        source (`OpenedSource`): Where the container comes from.
        hwaccel (`str`, *optional*): The device that decodes, see [`find_device`]; one decoder then serves all.

    Attributes:
        number (`int`): The stream's, within its container; known once it was opened.
        index ([`Index`]): What the stream holds; known after [`index_video`].
        configurations (`dict[int, bytes]`): The decoder's, by the packet from which on each holds; known with `index`.
        at (`int`): The position in the index of the packet that the container gives next.
        errors (`int`): What the container and the decoders complained of.
        oversized (`bool`): Whether a decoder refused a picture for its size, which it then forgets, or found none.
        seekable (`bool`): Whether a seek lands where the index says, so far, and leaves out nothing that is needed.
        threads (`int`): Of each decoder made from now on; several decode several frames at once.
        shared (`bool`): Whether several threads call [`Track.read`]; the packets of a run then stand in memory.
        stopped (`bool`): Set by another thread to end all reading.
        is_png (`bool`): Whether its frames are PNG pictures, see [`display_turn`]; known once it was opened.
    """

    index: Index

    def __init__(self, source: OpenedSource, hwaccel: str | None = None) -> None:
        self.device = None if hwaccel is None else find_device(str(hwaccel))
        self.source, self.errors, self.threads, self.shared, self.stopped = source, 0, 1, False, False
        self.container = self.number = None
        self.configurations: dict[int, bytes] = {}
        self.seekable, self.is_png, self.oversized = True, False, False
        self._lock = Lock()  # over the container

    def open(self) -> None:
        """Opens the container, which stands at its first packet; anew where it was open."""
        self.close()
        self.container = self.source.container(self.device)
        if self.number is None:
            self.number = self.source.find_stream(self.container)
        self.stream = self.container.streams[self.number]
        codec = self.stream.codec_context
        self.source.budget.check_frame(codec.width, codec.height)
        self.is_png = codec.name in _OF_PNG
        if self.device is not None and not codec.is_hwaccel:
            raise self.source.error(NOT_ON_DEVICE)
        self._rest = self.packets = self._demux()
        self.at = 0

    def close(self) -> None:
        if self.container is not None:
            self._rest = self.packets = iter(())
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
        codec.options = {"max_pixels": str(int(min(self.source.budget.frame_pixels + _CODED_MORE, 2**31 - 1)))}
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

    def decode(
        self, codec: av.VideoCodecContext, packet: av.Packet | None, failed: set[int] | None = None
    ) -> list[av.VideoFrame]:
        """The frames that come out for a packet, or for the end of the stream; `failed` takes the packet's `pts`."""
        try:
            frames = codec.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self.oversized |= isinstance(error, av.ArgumentError) and 0 in (codec.width, codec.height)
            self._complain(error)
            if failed is not None and packet is not None:
                failed.add(packet.pts)
            return []
        for frame in frames:
            self.source.budget.spend(frame=(frame.width, frame.height))
        return frames

    def display_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """(height, width) of a frame as a player shows it: pixels made square by its width, then turned."""
        width, height, aspect = frame.width, frame.height, 0.0
        if self.container is not None and self.container.format.name != "gif":  # whose aspect byte viewers ignore
            aspect = float(self.stream.sample_aspect_ratio or 0)
        if 0.1 <= aspect <= 10:
            width = max(1, round(width * aspect))
        return (width, height) if display_turn(frame, self.is_png)[0] % 2 else (height, width)

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

    def first_frames(self, start: int, count: int) -> list[av.VideoFrame]:
        """The frames that come out of the packets from `start` on, `count` at most: their `pts` are the positions of
        the packets."""
        errors = self.errors  # which are met once more where they count
        self.open()
        codec, frames = self.decoder(), []
        for packet in islice(self.packets, start + count):
            if self.at >= start:
                packet.pts = self.at
                frames += self.decode(codec, packet)
            self.at += 1
        frames += self.decode(codec, None)
        self.errors = errors
        return frames

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
        if index.interlaced and codec.thread_count > 1:
            self.threads = 1  # several threads tell of an error when it is another packet's turn
            codec = self.decoder()
        early: dict[int, av.VideoFrame] = {}  # of damaged files, frames may come in another order
        before = None
        failed: set[int] = set()
        for frame in self._run(codec, start, run.stop, failed=failed):
            for number in wanted:
                if number > frame.pts:
                    break
                if number == frame.pts:
                    early[number] = frame
                elif self._is_second_field(number, before, failed):
                    early[number] = before
            before = frame
            while wanted and (wanted[0] in early or len(early) > _MAX_EARLY):
                number = wanted.popleft()
                if number in early:
                    yield number, early.pop(number)
            if not wanted:
                return
        for number in wanted:
            if self._is_second_field(number, before, failed):
                early.setdefault(number, before)
        yield from sorted(early.items())

    def _is_second_field(self, number: int, before: av.VideoFrame | None, failed: set[int]) -> bool:
        """Whether the packet of this number was the second field of the frame `before`, which is then shown: it has a
        time, but no frame of its own. One that could not be decoded has none either."""
        is_next = self.index.interlaced and before is not None and number == before.pts + 1
        return is_next and self.stream.codec_context.name in _OF_FIELDS and number not in failed

    def _run(
        self,
        codec: av.VideoCodecContext,
        start: int,
        stop: int,
        needed: set[int] | None = None,
        failed: set[int] | None = None,
    ) -> Iterator[av.VideoFrame]:
        """
        Frames of the packets `start` to `stop`, whose `pts` are their numbers. Where `needed`, the packets of wanted
        frames, is given, the decoder skips the others on which no frame depends; else it is shown the next packet too,
        which may be the second field of the last frame. The numbers of packets with errors go into `failed`.
        """
        packets = self._packets_between(start, stop, ahead=needed is None)
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
                yield from (frame for frame in self.decode(codec, packet, failed) if frame.pts is not None)
            codec.skip_frame = "DEFAULT"
            yield from (frame for frame in self.decode(codec, None) if frame.pts is not None)
        finally:
            codec.flush_buffers()

    def _packets_between(self, start: int, stop: int, ahead: bool) -> Iterator[tuple[int, av.Packet]]:
        """`(position, packet)` from `start` to `stop`, unless what the container gives is not the index's; with
        `ahead`, a copy of the next one behind them, which stays to be read."""
        self._go_to(start)
        is_first = True
        while self.at <= stop and not self.stopped:
            packet, position = next(self.packets, None), self.at
            self.at += 1
            # Behind a seek, of files that were joined FFmpeg gives one alone.
            if packet is None or self.index.pts[position] != pts_of(packet):
                was_seekable, self.seekable = self.seekable, False
                self.at = len(self.index.pts) + 1  # the file is opened anew: now, or by the next run
                if not (is_first and was_seekable):
                    return
                self._go_to(start)
            elif position >= start:
                if is_first and len(self.configurations) > 1:
                    self._configure(position, packet)
                is_first = False
                yield position, packet
        if ahead and self.at == stop + 1 < len(self.index.pts) and (packet := next(self.packets, None)) is not None:
            self.packets = chain([packet], self._rest)
            yield self.at, av.Packet(bytes(packet))

    def _configure(self, position: int, packet: av.Packet) -> None:
        """Gives a packet the configuration that holds there: FFmpeg gives it with the one where it changes alone."""
        data = self.configurations[max(at for at in self.configurations if at <= position)]
        configuration = PacketSideData(_NEW_EXTRADATA, len(data))
        configuration.update(data)
        packet.set_sidedata(configuration)

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
            self._rest = self.packets = self._demux()
            for packet in islice(self.packets, _MAX_UNKNOWN):
                found = np.flatnonzero((index.pts == pts_of(packet)) & (index.sizes == packet.size))
                if packet.pts is not None and len(found) == 1:
                    self.at, self.packets = int(found[0]), chain([packet], self._rest)
                    return True
        return False


def webp_frames(source: OpenedSource) -> Iterator[av.VideoFrame]:
    """
    The frames of an animated WebP, which FFmpeg cannot decode, from Pillow: their `pts` and `duration` are in
    milliseconds.

    Raises:
        VideoReadError: If it is a still picture, damaged, or over the limits.
    """
    with source.open() as file, pillow_errors(source), PIL.Image.open(file, formats=["WEBP"]) as image:
        source.budget.check_frame(*image.size)
        if getattr(image, "n_frames", 1) == 1:
            raise source.error("it is a still picture, not a video")
        time = 0
        for number in range(image.n_frames):
            source.budget.spend(packets=1, frame=image.size)
            image.seek(number)
            frame = av.VideoFrame.from_ndarray(np.array(image.convert("RGBA")), format="rgba")
            duration = image.info["duration"]
            frame.pts, frame.duration = time, duration if duration > _SHORTEST else 100
            time += frame.duration
            yield frame


def display_turn(frame: av.VideoFrame, is_png: bool = False) -> tuple[int, bool]:
    """
    How to show a frame upright: `(k, mirror)`, k quarter turns counterclockwise, then mirrored left to right. Of PNG
    pictures (`is_png`), what a frame carries must not be listed, so that they are turned only.
    """
    kinds = None
    with suppress(ValueError):  # of other data of a kind that PyAV does not know yet, such as a photograph's EXIF
        # Not `frame.side_data`: frame and side data would hold each other, and the pixels, until garbage is collected.
        kinds = None if is_png else {data.type.name: data for data in SideDataContainer(frame)}
    if kinds is None:
        return round(frame.rotation / 90) % 4, False
    matrix = bytes(kinds.get("DISPLAYMATRIX", bytes(20)))
    a, b, _, c, d = np.frombuffer(matrix[:20], dtype=np.int32).tolist()
    if a * d == b * c:  # none, or one that leaves nothing of a picture
        return 0, False
    # (x, y) is shown at (a x + c y, b x + d y), y downwards. A mirrored picture has a negative determinant.
    mirror = a * d - b * c < 0
    if mirror:
        a, c = -a, -c
    if abs(a) >= abs(b):
        return (0 if a > 0 else 2), mirror
    return (3 if b > 0 else 1), mirror


class FrameConverter:
    """
    Converts frames to (height, width, 3) uint8 arrays of one size, reusing the scaler's tables.

    Transparency is laid over black, interlaced lines are blended with their neighbors, HDR (PQ, HLG) and BT.2020
    become BT.709.

    Args:
        size (`tuple[int, int]`): (height, width) of the arrays.
        is_png (`bool`, *optional*, defaults to `False`): Whether the frames come from PNG pictures.
    """

    def __init__(self, size: tuple[int, int], is_png: bool = False) -> None:
        self.size, self._is_png = size, is_png
        self._scaler = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turn, mirror = display_turn(frame, self._is_png)
        height, width = self.size if turn % 2 == 0 else self.size[::-1]
        transfer, primaries = int(frame.color_trc or 0), int(frame.color_primaries or 0)
        if transfer in (_PQ, _HLG) or primaries == _BT2020:
            kind = "rgb48le"
        elif frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
            kind = "rgba"
        else:
            kind = "rgb24"
        if frame.interlaced_frame and frame.height > 2:
            frame = self._deinterlaced(frame, kind)
        array = self._scale(frame, width, height, kind)
        if kind == "rgb48le":
            array = np.concatenate([to_sdr(rows, transfer, primaries) for rows in np.array_split(array, 8)])
        elif kind == "rgba":
            array = array.astype(np.uint16)
            array = ((array[..., :3] * array[..., 3:] + 127) // 255).astype(np.uint8)
        if turn:
            array = np.rot90(array, turn)
        if mirror:
            array = array[:, ::-1]
        return np.ascontiguousarray(array)

    def _scale(self, frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> np.ndarray:
        scaled = self._scaler.reformat(frame, width, height, pixel_format, interpolation=_SCALING, threads=1)
        return scaled.to_ndarray()

    def _deinterlaced(self, frame: av.VideoFrame, kind: str) -> av.VideoFrame:
        array = self._scale(frame, frame.width, frame.height, kind)
        blended = array.copy()
        for row in range(1, len(array) - 1, _ROWS):
            part = array[row - 1 : row + _ROWS + 1].astype(np.uint32 if array.dtype == np.uint16 else np.uint16)
            blended[row : row + len(part) - 2] = (part[:-2] + 2 * part[1:-1] + part[2:] + 2) // 4
        return av.VideoFrame.from_ndarray(blended, format=kind)


def to_sdr(frame: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """
    Tone-maps a frame with Hable's curve, which keeps the ratios of red, green and blue.

    Args:
        frame (`np.ndarray`): (height, width, 3) uint16, full range, encoded for its own transfer function.
        transfer (`int`): H.273's number of that function: 16 is PQ, 18 is HLG, others are taken for BT.1886.
        primaries (`int`): H.273's number of the primaries: 9 is BT.2020, others are taken for BT.709.

    Returns:
        `np.ndarray`: (height, width, 3) uint8, BT.709.
    """
    light = _light_of(transfer)[frame]
    if transfer == _HLG:  # the scene's light becomes that of a display of 1,000 cd/m2 (ITU-R BT.2100, gamma 1.2)
        luminance = light @ np.array([0.2627, 0.678, 0.0593], dtype=np.float32)
        light *= 10 * np.maximum(luminance, 1e-6)[..., None] ** 0.2
    if primaries == _BT2020:
        light = light @ _TO_BT709.T
    if transfer in (_PQ, _HLG):
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
        light *= _hable(brightest) / (_hable(_PEAK) * brightest)
    return _codes()[(np.clip(light, 0, 1) * 65535 + 0.5).astype(np.uint16)]


def _hable(light: np.ndarray | float) -> np.ndarray | float:
    return (light * (light * 0.15 + 0.05) + 0.004) / (light * (light * 0.15 + 0.5) + 0.06) - 0.02 / 0.3


@cache
def _light_of(transfer: int) -> np.ndarray:
    """(65536,) float32: the linear light of each code. PQ's unit is 100 cd/m2, HLG's and BT.1886's the peak."""
    code = np.arange(65536) / 65535
    if transfer == _PQ:
        power = code ** (1 / 78.84375)
        light = 100 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    elif transfer == _HLG:
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = code**2.4
    return light.astype(np.float32)


@cache
def _codes() -> np.ndarray:
    """(65536,) uint8: the code of linear light from 0 to 1, for a display of BT.1886."""
    return np.round(255 * (np.arange(65536) / 65535) ** (1 / 2.4)).astype(np.uint8)


__all__ = ["FrameConverter", "Track", "display_turn", "to_sdr", "webp_frames"]
