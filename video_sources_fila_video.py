"""Where a video comes from: paths, URLs, bytes and file objects, opened within limits.

FFmpeg opens local files itself and reads bytes through a file object. It has no network protocol and only the
container formats below, so that an uploaded file can neither read other files nor call out: playlists, concatenations
and external references have nothing to open.
"""

import gc
import io
import math
import os
import re
import stat
import struct
import tempfile
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from numbers import Real
from typing import Any, BinaryIO, NamedTuple

import av
import PIL.features
import PIL.Image
from av.codec.hwaccel import HWAccel
from transformers.utils import logging

from .video_limits_fila_video import MAX_HEADER, Budget, VideoLimits, VideoReadError, check_boxes, download

if int(av.__version__.partition(".")[0]) < 17:
    # Older ones end the process without a word where a file object is opened.
    raise ImportError(
        f"Reading videos needs PyAV 17.1 or newer, but {av.__version__} is installed, which other packages such as "
        "lmms-eval ask for: pip install -U 'av>=17.1'."
    )

logger = logging.get_logger(__name__)

FORMATS = "matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,asf,ogg,ivf,mxf,dv,h264,hevc,m4v,mjpeg,obu,yuv4mpegpipe"
# Files of these kinds hold one picture, unless they are animated.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
if "avif" in PIL.features.modules and PIL.features.check("avif"):  # unknown to Pillow before 11.3
    PICTURE_FORMATS += ("AVIF",)
MAX_NAME = 200  # characters of a source's name in a message; a `data:` URL is as long as its file
NOT_ON_DEVICE = "the device of hwaccel does not decode it; leave hwaccel out to decode on the CPU"
_FIRST_BOX = re.compile(
    rb"[\0-\x0f]...[a-zA-Z0-9 ]{4}|....(?:mdat|wide|moov|free|skip|pnot|ftyp)", re.DOTALL
)  # of MP4
_INDIRECT = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"[Reference]", b"<SMIL", b"<ASX", b"v=0\r\n", b"v=0\n")


class VideoSegment(NamedTuple):
    """From `start` to `end` (seconds from the start of `source`; `None`: its own start or end)."""

    source: Any
    start: float | None = None
    end: float | None = None


def span_of(segment: VideoSegment) -> tuple[float, float]:
    """
    Its start and its end, 0 and infinity where none is given.

    Raises:
        VideoReadError: If one is no number, or the start is negative or not before the end.
    """
    its = f"Cannot read the video {source_name(segment.source)}: its segment from {segment.start!r} to {segment.end!r}"
    for time in (segment.start, segment.end):
        if time is not None and (isinstance(time, bool) or not isinstance(time, Real)):
            raise VideoReadError(f"{its} has no times in seconds; pass numbers, or `None` for its own start or end.")
    start, end = segment.start or 0.0, math.inf if segment.end is None else segment.end
    if not 0 <= start < end:
        raise VideoReadError(f"{its} seconds does not lie within it: a segment starts at 0 or later, before its end.")
    return start, end


class OpenedSource(ExitStack):
    """
    A source of a video that can be opened several times at once, by as many threads. To be closed, or used in a `with`
    statement, which frees what was fetched.

    Args:
        source:
            A path, a `file://` or `http(s)://` URL, bytes, or a binary file object, which stays open and returns to
            the position where it stood. What is neither a file of this machine nor bytes is copied to one.
        limits ([`VideoLimits`] or [`Budget`], *optional*): What reading it, or the whole it is a part of, may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its private network.
        kind (`str`, *optional*, defaults to `"video"`): What messages call it; what is no video is not looked into.

    Attributes:
        name (`str`): How messages name it.
        budget ([`Budget`]): What is left of its limits.
        path (`str`): The file of this machine that is read, also where it was fetched; empty for bytes.
        head (`bytes`): Its first 1024 bytes.
        is_webp (`bool`): Whether Pillow has to read it.

    Raises:
        VideoReadError: If there is nothing to read, or a limit is passed.
    """

    def __init__(
        self,
        source: Any,
        *,
        limits: VideoLimits | None = None,
        allow_private_hosts: bool = True,
        kind: str = "video",
    ) -> None:
        self.name = source_name(source)
        self.budget = Budget(limits, f"the {kind} {self.name}", is_url(source))
        self.error = self.budget.error
        super().__init__()
        self.path, self._data, self._empty = "", b"", "it is empty (0 bytes)"
        try:
            if isinstance(source, (bytes, bytearray, memoryview)):
                self._data = bytes(source)
            elif is_url(source):
                with self._temporary_file() as file:
                    download(source, file, self.budget, allow_private_hosts)
            elif isinstance(source, (str, os.PathLike)):
                self.path = self._local(os.fspath(source))
            elif _is_file_of_its_name(source):
                self.path = self._local(source.name)
            elif hasattr(source, "read"):
                self._copy(source)
            else:
                raise self.error(
                    "expected a path, a file:// or http(s):// URL, bytes or a binary file object, got a "
                    f"{type(source).__name__}"
                )
            with self.open() as file:
                self.head = file.read(1024)
                if not self.head:
                    raise self.error(self._empty)
                if kind == "video":
                    self._check_head(file)
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, TypeError, ValueError)) and not isinstance(error, VideoReadError):
                # What the system says of a file names it once more, as long as it may be.
                reason = getattr(error, "strerror", None) or error
                raise self.error(f"it cannot be read ({reason})") from error
            raise

    def _local(self, name: str | bytes) -> str:
        """The absolute path of a file of this machine that is named by a path or a `file://` URL."""
        if os.fsdecode(name)[:5].lower() == "data:":
            raise self.error("a data: URL is not read here; decode it (base64.b64decode) and pass the bytes")
        if isinstance(name, str) and ("://" in name or name[:6].lower() == "file:/"):
            url = urllib.parse.urlsplit(name)
            if (scheme := name.partition(":")[0].lower()) != "file":
                raise self.error(f"the protocol {scheme!r} is not supported; file, http and https are")
            if url.netloc not in ("", "localhost"):
                raise self.error(f"a file:// URL must name a file on this machine, not on {url.netloc!r}")
            name = urllib.request.url2pathname(url.path)
        try:
            mode = os.stat(name).st_mode
        except FileNotFoundError:
            raise self.error("there is no such file") from None
        if not stat.S_ISREG(mode):  # opening a pipe would wait for whoever writes into it
            raise self.error(f"it is a {'directory' if stat.S_ISDIR(mode) else 'device, pipe or socket'}, not a file")
        return os.path.abspath(os.fsdecode(name))

    def _temporary_file(self) -> BinaryIO:
        """A file that goes with this source and is read in its place; the caller writes and closes it."""
        folder = tempfile.TemporaryDirectory(prefix="fila-video-", ignore_cleanup_errors=True)
        self.path = os.path.join(self.enter_context(folder), "video")
        return open(self.path, "wb")

    def _copy(self, file: Any) -> None:
        with self._temporary_file() as target, ExitStack() as finally_:
            if can_seek(file):
                finally_.callback(file.seek, file.tell())
                file.seek(0)
            else:
                self._empty = (
                    "it is empty (0 bytes), or was read before: the file object cannot seek and can be "
                    "read once only, so where it is read more than once, as with subtitles inside of it, pass its "
                    "bytes or a file"
                )
            while data := self._read(file):
                self.budget.store(data, target)
            self.budget.spend()

    def _read(self, file: Any) -> bytes:
        """Some more bytes of a file object, none at its end."""
        try:
            data = file.read(1 << 18)
        except UnicodeDecodeError:
            data = ""
        except Exception as error:  # of whatever unpacks, decrypts or fetches: they have no common class
            raise self.error(f"the file object cannot be read ({type(error).__name__}: {error})") from error
        self.budget.check()
        if data is None:
            raise self.error("the file object does not wait for its data; set it to block, or pass its bytes")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            given = "text" if isinstance(data, str) else type(data).__name__
            raise self.error(f"the file object gives {given}, not bytes; open it in binary mode ('rb')")
        return bytes(data)

    def open(self) -> BinaryIO:
        """A new file object on the source, at its start, with a position of its own."""
        return open(self.path, "rb") if self.path else io.BytesIO(self._data)

    def _check_head(self, file: BinaryIO) -> None:
        """Refuses what is no video, or costs too much to open, before FFmpeg believes what it claims."""
        text = self.head.lstrip(b"\xef\xbb\xbf \t\r\n")
        if text.startswith(_INDIRECT) or (text.startswith(b"<?xml") and b"<MPD" in text):
            raise self.error("it is a playlist or another list of references, which are not followed")
        self.is_webp = self.head[:4] == b"RIFF" and self.head[8:12] == b"WEBP"
        if (canvas := _canvas(file, self.head)) is not None:
            self.budget.count_as_animation()
            self.budget.check_frame(*canvas)
        elif self.head.startswith(b"\x89PNG") and not _first_of_png(file):
            raise self.error("it is cut off: a PNG that ends before its first picture")
        elif self.head[:4] in (b"II*\0", b"MM\0*"):
            raise self.error("it is a TIFF, not a video: pass its pages as pictures")
        elif (kind := still_of_mp4(self.head)) in PICTURE_FORMATS or is_still(file):
            raise self.error("it is a still picture, not a video")
        elif kind:
            raise self.error(f"it is a picture that Pillow cannot read here: convert it from {kind} to JPEG or PNG")
        self._formats = FORMATS
        if _FIRST_BOX.match(self.head):
            check_boxes(file, self.budget)
            self._formats = "mov," + FORMATS

    def container(self, hwaccel: HWAccel | None = None) -> av.container.InputContainer:
        """
        A new container, which the caller closes, with a position of its own.

        Args:
            hwaccel (`HWAccel`, *optional*): The device of its decoders, which the machine must have.

        Raises:
            VideoReadError: If FFmpeg cannot open it.
        """
        options = {
            "format_whitelist": self._formats,
            "protocol_whitelist": "file" if self.path else "none",
            "max_pixels": str(self.budget.frame_pixels),
        }
        file = f"file:{self.path}" if self.path else self.open()
        # Not a single picture, for which FFmpeg would take a JPEG, or a PNG with much before its animation.
        kind = "mjpeg" if self.head.startswith(b"\xff\xd8\xff") else None
        kind = "apng" if self.head.startswith(b"\x89PNG") else kind
        try:
            # No metadata of ours is read, and strict decoding would reject a file for the letters of its title.
            return av.open(
                file, "r", kind, options=options, metadata_errors="ignore", buffer_size=1 << 17,
                timeout=self.budget.limits.stall_seconds, hwaccel=hwaccel,
            )  # fmt: skip
        except KeyboardInterrupt:
            gc.collect()  # a container that was opened and not handed over: it and its streams hold each other
            raise
        except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
            self.budget.check()
            reason = getattr(error, "strerror", None) or error
            local = (FileNotFoundError, PermissionError, MemoryError)
            if isinstance(error, local) or "Too many open files" in str(error):
                raise self.error(f"it cannot be opened ({reason})") from error
            if self.name.strip("'").endswith(".safetensors"):
                raise self.error("`EncodedVideo.load` reads what `EncodedVideo.save` wrote") from error
            raise self.error(f"it is not a video of a kind that is read, or too damaged to open ({reason})") from error
        except RuntimeError as error:  # of `hwaccel`: it decodes none of the streams
            raise self.error(NOT_ON_DEVICE) from error

    def find_stream(self, container: av.container.InputContainer) -> int:
        """The number of the stream to read: of several that can be decoded, the one that FFmpeg thinks best, unless it
        holds a few pictures only and another one moves. Transparency that is a stream of its own (animated AVIF), or
        stands beside the pictures (VP8 and VP9 in WebM), is not read: such pictures are opaque."""
        streams = container.streams
        if not streams.video:
            sound = "it holds sound only, no video stream"
            raise self.error(sound if streams.audio else "it holds no video stream")
        kinds = type(streams.video[0].disposition)
        still = kinds.attached_pic | kinds.timed_thumbnails
        moving = [stream for stream in streams.video if not stream.disposition & still]
        if not moving:
            raise self.error("its only picture is a cover; it holds no video stream")
        videos = [stream.index for stream in moving if stream.codec_context is not None]
        if not videos:
            raise self.error("its video codec is unknown, or not decoded by the installed PyAV")
        best = getattr(streams.best("video"), "index", None)
        best = best if best in videos else videos[0]
        if len(videos) == 1:
            return best
        counts: Counter[int] = Counter()
        spans: dict[int, tuple[float, float]] = {}
        with self.container() as other, suppress(av.FFmpegError):
            for packet in other.demux([other.streams[number] for number in videos]):
                self.budget.spend(packets=1)
                counts[packet.stream_index] += packet.size > 0
                if packet.pts is not None:
                    time = float(packet.pts * packet.time_base)
                    first, last = spans.get(packet.stream_index, (time, time))
                    spans[packet.stream_index] = min(first, time), max(last, time)
        most = max(videos, key=lambda number: counts[number])
        chosen = best if counts[best] * 10 >= counts[most] else most
        for number, (first, last) in spans.items():
            low, high = spans.get(chosen, (first, last))
            is_other = number != chosen and counts[number] > 1
            if is_other and (last <= low or first >= high):  # as where recordings were joined
                logger.warning(
                    f"{self.name} has its video in several streams: {counts[number]} frames from {first:.1f} to "
                    f"{last:.1f} seconds of its clock are of another one, and are not read."
                )
        return chosen


@cache
def find_device(hwaccel: str) -> HWAccel:
    """
    The settings of decoders that work on a device, which was tried once.

    Args:
        hwaccel (`str`): What FFmpeg calls it, such as `"cuda"`; of several the number, as in `"cuda:1"`.

    Raises:
        ValueError: If this machine, or the installed PyAV, cannot decode on it.
    """
    if int(av.__version__.partition(".")[0]) < 18:
        raise ValueError(
            f"hwaccel needs PyAV 18 or newer, but {av.__version__} is installed, which loses the colors and the "
            "rotation of such frames: pip install -U av."
        )
    codec = av.Codec("h264", "r")  # whatever decodes video on a device decodes this
    kinds = [config.device_type.name for config in codec.hardware_configs if config.is_supported]
    kind, _, number = hwaccel.partition(":")
    if kind not in kinds:
        raise ValueError(
            f"hwaccel must be one of {kinds}, on which the installed PyAV can decode, got {hwaccel!r}: leave it out "
            "to decode on the CPU."
        )
    try:
        device = HWAccel(kind, number or None, allow_software_fallback=False)
        device.create(codec)
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(
            f"This machine has no device for hwaccel={hwaccel!r} ({error}): leave it out to decode on the CPU."
        ) from error
    return device


@contextmanager
def pillow_errors(opened: OpenedSource) -> Iterator[None]:
    """What Pillow raises, as errors of a source. It has a limit of its own for the pixels of a picture."""
    try:
        yield
    except PIL.UnidentifiedImageError as error:
        raise opened.error("it is not a picture that Pillow knows") from error
    except PIL.Image.DecompressionBombError as error:
        pixels = int((re.search(r"\d+", str(error)) or "0")[0])
        if pixels > opened.budget.frame_pixels:
            raise opened.budget.refuse(f"it has {pixels} pixels", opened.budget.frame_field) from error
        raise opened.error(f"{error} This is Pillow's own limit: set PIL.Image.MAX_IMAGE_PIXELS as well") from error
    except VideoReadError:
        raise
    except Exception as error:  # of its many formats: they have no common class
        raise opened.error(f"it is damaged, or cannot be decoded ({error})") from error


def is_url(source: Any) -> bool:
    """Whether a source lies on a web server."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _is_file_of_its_name(file: Any) -> bool:
    """Whether a file object reads a file of this machine, which can be opened by its name instead."""
    if not (isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO) and isinstance(file.name, str)):
        return False
    with suppress(OSError, ValueError):
        return "://" not in file.name and os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    return False


def source_key(source: Any) -> Any:
    """What is equal of two sources that are the same: names are compared, and objects are what they are."""
    return source if isinstance(source, (str, os.PathLike)) else id(source)


def source_name(source: Any) -> str:
    """How messages name a source: without the passwords and tokens of a URL, without its bytes, and not too long."""
    if isinstance(source, str) and "://" in source[:MAX_NAME]:
        scheme, _, rest = source.partition("://")
        host, slash, path = re.split("[?#]", rest)[0].partition("/")
        return repr(_short(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"))
    if isinstance(source, (str, os.PathLike)):
        return repr(_short(os.fspath(source)))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"given as {len(source)} bytes"
    name = getattr(source, "name", None)
    return repr(_short(name)) if isinstance(name, str) and name else f"given as a {type(source).__name__}"


def _short(name: str | bytes) -> str | bytes:
    """Its beginning and its end, where it is long."""
    end = MAX_NAME // 4
    dots = "..." if isinstance(name, str) else b"..."
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - end - 3] + dots + name[-end:]


def _canvas(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """(width, height) of a GIF, an APNG or a WebP that begins with `head`; `None` of anything else."""
    numbers = head.ljust(30, b"\0")
    if head.startswith(b"GIF8"):
        return struct.unpack_from("<HH", numbers, 6)
    if head.startswith(b"\x89PNG") and _first_of_png(file) == b"acTL":
        return struct.unpack_from(">II", numbers, 16)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":  # without this chunk it holds one picture
        is_extended = head[12:16] == b"VP8X"
        return tuple(1 + int.from_bytes(numbers[at : at + 3], "little") for at in (24, 27)) if is_extended else (1, 1)
    return None


def _first_of_png(file: BinaryIO) -> bytes:
    """The chunk of a PNG behind its profiles and texts: that of an animation or of a picture. None where it ends
    before."""
    file.seek(8)
    for _ in range(1000):
        if len(chunk := file.read(8)) < 8:
            return b""
        if (name := chunk[4:]) in (b"acTL", b"IDAT", b"IEND", bytes(4)):
            return name
        file.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    return name


def still_of_mp4(head: bytes) -> str:
    """`"AVIF"`, `"HEIC"` or `"HEIF"` where an MP4 file begins as a still picture does, by what it says that its
    readers must know; else nothing. FFmpeg shows such a picture without its transparency, or a single tile of it."""
    names = {head[at : at + 4] for at in range(8, min(int.from_bytes(head[:4], "big"), len(head)), 4)}
    if head[4:8] != b"ftyp" or names & {b"avis", b"hevc", b"msf1"}:  # of pictures that move
        return ""
    if b"avif" in names:
        return "AVIF"
    return "HEIC" if names & {b"heic", b"heix"} else "HEIF" if head[8:12] == b"mif1" else ""


def can_seek(file: Any) -> bool:
    """Whether a file object can be read more than once; one that does not say so is believed."""
    return hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable())


def is_still(file: BinaryIO) -> bool:
    """Whether a file holds a single picture. A JPEG with another right behind it is a video (raw Motion JPEG), unless
    it says that these are smaller copies of it."""
    file.seek(0)
    data = file.read(4)
    if not data.startswith(b"\xff\xd8\xff"):
        return data.startswith((b"BM", b"II*\0", b"MM\0*", b"\x89PNG"))
    data += file.read(MAX_HEADER)
    at = 2  # behind the segments before the picture itself, in which previews may lie
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b"\xff", b""):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    another = re.compile(rb"\xff\xd9[\0\xff\r\n ]{0,64}\xff\xd8\xff").search(data, at)  # there may be padding
    return another is None or b"MPF\0" in data[: another.start()]


__all__ = [
    "NOT_ON_DEVICE",
    "PICTURE_FORMATS",
    "OpenedSource",
    "VideoSegment",
    "can_seek",
    "find_device",
    "is_still",
    "is_url",
    "pillow_errors",
    "source_key",
    "source_name",
    "span_of",
    "still_of_mp4",
]
