"""Where a video comes from: paths, URLs, bytes and file objects, opened within limits.

FFmpeg opens local files itself and reads everything else through a file object. It has no network protocol and only
the container formats below, so that an uploaded file can neither read other files nor call out: playlists,
concatenations and external references have nothing to open.
"""

import base64
import gc
import http
import io
import ipaddress
import os
import re
import socket
import stat
import struct
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import av

try:  # for videos on web servers
    import httpcore
    import httpx
except ImportError:
    httpcore = httpx = None

if int(av.__version__.partition(".")[0]) < 17:
    # Older ones end the process without a word where a file object is opened.
    raise ImportError(
        f"Reading videos needs PyAV 17.1 or newer, but {av.__version__} is installed, which other packages such as "
        "lmms-eval ask for: pip install -U 'av>=17.1'."
    )

FORMATS = "matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,asf,ogg,ivf,mxf,dv,h264,hevc,m4v,mjpeg,obu,yuv4mpegpipe"
MAX_HEADER = 1 << 26  # bytes of one header box of an MP4 file; that of three hours takes some 5 MB
MAX_REDIRECTS = 10
PROGRESS_BYTES = 1 << 16  # so much of a download, at least, must arrive between two signs of progress
_ANIMATION_FRAME = 128 * 128  # pixels that each frame of an animation counts at least
_INDIRECT = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"[Reference]", b"<SMIL", b"<ASX", b"v=0\r\n", b"v=0\n")
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".lan")


class VideoReadError(ValueError):
    """A video that cannot be read; the message names the source and says what is wrong with it."""


class VideoSegment(NamedTuple):
    """From `start` to `end` (seconds from the start of `source`; `None`: its own start or end)."""

    source: Any
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class VideoLimits:
    """
    What one video may cost. The defaults are such that no honest video of three hours meets them.

    Args:
        frame_pixels (`int`, *optional*, defaults to 67,108,864):
            Pixels of one frame or still picture: 8192 x 8192.
        total_pixels (`int`, *optional*, defaults to 2**45):
            Pixels of all frames decoded: three hours of 8K at 60 frames a second take 2**44.3.
        canvas_pixels (`int`, *optional*, defaults to 16,777,216):
            Pixels of one frame of a GIF, APNG or WebP: 4096 x 4096. A few bytes of such a file repaint its whole
            canvas, so that its size says nothing about its cost.
        animation_pixels (`int`, *optional*, defaults to 2**32):
            Pixels of all frames decoded of a GIF, APNG or WebP: 2,000 frames of full HD.
        packets (`int`, *optional*, defaults to 10,000,000):
            Packets of the video stream, and samples that a header announces: two days at 60 frames a second.
        download_bytes (`int`, *optional*, defaults to 64,000,000,000):
            Bytes fetched from a web server, or from a file object that cannot seek.
        seconds (`float`, *optional*):
            Seconds that reading may take in all. No limit by default.
        web_seconds (`float`, *optional*, defaults to 7200.0):
            The same for a URL, download included. `None`: no limit.
        stall_seconds (`float`, *optional*, defaults to 30.0):
            Seconds without progress: a packet, or 64 KiB of a download.
    """

    frame_pixels: int = 8192 * 8192
    total_pixels: int = 2**45
    canvas_pixels: int = 4096 * 4096
    animation_pixels: int = 2**32
    packets: int = 10_000_000
    download_bytes: int = 64 * 10**9
    seconds: float | None = None
    web_seconds: float | None = 7200.0
    stall_seconds: float = 30.0


class Budget:
    """
    What is left of the limits of one video. Several threads may spend from it.

    Args:
        limits ([`VideoLimits`], *optional*):
            The limits; the defaults where there are none.
        name (`str`):
            How messages call the source, such as `"the video 'a.mp4'"`.
        is_web (`bool`, *optional*, defaults to `False`):
            Whether the source is a URL, for which `web_seconds` holds.
    """

    def __init__(self, limits: VideoLimits | None, name: str, is_web: bool = False) -> None:
        if not isinstance(limits, VideoLimits | None):
            raise ValueError(f"limits must be a VideoLimits, got {limits!r}.")
        self.limits = limits or VideoLimits()
        self.name = name
        self._seconds_field = "web_seconds" if is_web else "seconds"
        self._frame_field, self._total_field = "frame_pixels", "total_pixels"
        self._lock = threading.Lock()
        self._packets = self._pixels = 0
        self._start = self._progress = time.monotonic()

    def error(self, problem: str) -> VideoReadError:
        return VideoReadError(f"Cannot read {self.name}: {problem}.")

    def refuse(self, what: str, field: str) -> VideoReadError:
        """The error of a limit: `what` names the number that is over the limit `field`."""
        limit = getattr(self.limits, field)
        return self.error(f"{what}, over the limit of {limit}; VideoLimits({field}=...) sets another, as `limits`")

    def is_animation(self) -> None:
        """From now on the limits of GIF, APNG and WebP hold."""
        self._frame_field, self._total_field = "canvas_pixels", "animation_pixels"

    @property
    def frame_pixels(self) -> int:
        return getattr(self.limits, self._frame_field)

    def check_frame(self, width: int, height: int) -> None:
        """Raises [`VideoReadError`] if frames of this size are too large."""
        if width * height > self.frame_pixels:
            raise self.refuse(f"its pictures of {width} x {height} have {width * height} pixels", self._frame_field)

    def spend(self, packets: int = 0, pixels: int = 0) -> None:
        """
        Counts packets that were read, or the pixels of a frame that was decoded, which is progress.

        Raises:
            VideoReadError: If it is too much.
        """
        if pixels > self.frame_pixels:
            raise self.refuse(f"one of its pictures has {pixels} pixels", self._frame_field)
        if pixels and self._total_field == "animation_pixels":
            pixels = max(pixels, _ANIMATION_FRAME)
        with self._lock:
            self._packets += packets
            self._pixels += pixels
            self._progress = time.monotonic()
        if self._packets > self.limits.packets:
            raise self.refuse(f"it has {self._packets} packets or more", "packets")
        total = getattr(self.limits, self._total_field)
        if self._pixels > total:
            raise self.refuse(f"its frames have {self._pixels} pixels in all or more", self._total_field)
        self.check()

    def check(self) -> None:
        """Raises [`VideoReadError`] if a deadline has passed."""
        now, seconds = time.monotonic(), getattr(self.limits, self._seconds_field)
        if seconds is not None and now - self._start > seconds:
            raise self.refuse(f"it took {now - self._start:.1f} seconds", self._seconds_field)
        if now - self._progress > self.limits.stall_seconds:
            raise self.refuse(f"there was no progress for {now - self._progress:.1f} seconds", "stall_seconds")

    def seconds_left(self) -> float:
        """How long a call may block: until just after the next deadline, so that `check` finds it passed."""
        self.check()
        ends = [self._progress + self.limits.stall_seconds]
        if (seconds := getattr(self.limits, self._seconds_field)) is not None:
            ends.append(self._start + seconds)
        return max(min(ends) - time.monotonic(), 0) + 0.01


class OpenedSource:
    """
    A source of a video that can be opened several times at once, by as many threads. To be closed, or used in a `with`
    statement, which frees what was fetched.

    Args:
        source:
            A path, a `file://` or `http(s)://` URL, bytes, or a binary file object, which stays open and returns to
            the position where it stood. What is neither a file of this machine nor bytes is copied to one.
        limits ([`VideoLimits`], *optional*):
            What reading it may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its private network.
        kind (`str`, *optional*, defaults to `"video"`): What messages call it.

    Attributes:
        name (`str`): How messages name it.
        budget ([`Budget`]): What is left of its limits.
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
        self._path, self._data, self._cleanup = "", b"", ExitStack()
        try:
            if isinstance(source, (bytes, bytearray, memoryview)):
                self._data = bytes(source)
            elif is_url(source):
                with self._temporary_file() as file:
                    download(source, file, self.budget, allow_private_hosts)
            elif isinstance(source, (str, os.PathLike)):
                self._set_path(os.fspath(source))
            elif not hasattr(source, "read"):
                raise self.error("expected a path, a file:// or http(s):// URL, bytes or a binary file object")
            elif _is_file_of_its_name(source):
                self._set_path(source.name)
            else:
                self._copy(source)
            self._look_at_head()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, TypeError)):
                raise self.error(f"it cannot be read ({error})") from error
            raise

    def __enter__(self) -> "OpenedSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._cleanup.close()

    def error(self, problem: str) -> VideoReadError:
        return self.budget.error(problem)

    def _set_path(self, name: str | bytes) -> None:
        scheme, separator, _ = os.fsdecode(name).partition("://")
        if separator and isinstance(name, str):
            url = urllib.parse.urlsplit(name)
            if scheme.lower() != "file":
                raise self.error(f"the protocol {scheme.lower()!r} is not supported; file, http and https are")
            if url.netloc not in ("", "localhost"):
                raise self.error(f"a file:// URL must name a file on this machine, not on {url.netloc!r}")
            name = urllib.request.url2pathname(url.path)
        try:
            mode = os.stat(name).st_mode
        except FileNotFoundError:
            raise self.error("there is no such file") from None
        except (OSError, ValueError) as error:
            raise self.error(f"it cannot be opened ({error})") from error
        if stat.S_ISDIR(mode):
            raise self.error("it is a directory")
        if not stat.S_ISREG(mode):
            raise self.error("it is a device, pipe or socket, not a file")
        self._path = os.path.abspath(os.fsdecode(name))

    def _temporary_file(self) -> BinaryIO:
        """A file that goes with this source and is read in its place; the caller writes and closes it."""
        folder = tempfile.TemporaryDirectory(prefix="fila-video-", ignore_cleanup_errors=True)
        self._path = os.path.join(self._cleanup.enter_context(folder), "video")
        return open(self._path, "wb")

    def _copy(self, file: Any) -> None:
        if getattr(file, "closed", False):
            raise self.error("the file object is closed")
        with self._temporary_file() as target, ExitStack() as finally_:
            if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
                finally_.callback(file.seek, file.tell())
                file.seek(0)
            while data := file.read(1 << 18):
                if not isinstance(data, bytes):
                    raise self.error("the file object does not give bytes; open it in binary mode")
                self.budget.check()
                self.budget.spend()
                if target.tell() + len(data) > self.budget.limits.download_bytes:
                    raise self.budget.refuse(f"it gave {target.tell() + len(data)} bytes or more", "download_bytes")
                target.write(data)

    @property
    def path(self) -> str:
        """The file of this machine that is read, also where it was fetched; empty for bytes."""
        return self._path

    def open(self) -> BinaryIO:
        """A new file object on the source, at its start, with a position of its own."""
        return open(self._path, "rb") if self._path else io.BytesIO(self._data)

    def _look_at_head(self) -> None:
        """Refuses what is no video, or costs too much to open, before FFmpeg believes what it claims."""
        with self.open() as file:
            self.head = file.read(1024)
            if not self.head:
                raise self.error("it is empty (0 bytes)")
            text = self.head.lstrip(b"\xef\xbb\xbf \t\r\n")
            if text.startswith(_INDIRECT) or (text.startswith(b"<?xml") and b"<MPD" in text):
                raise self.error("it is a playlist or another list of references, which are not followed")
            self.is_webp = self.head[:4] == b"RIFF" and self.head[8:12] == b"WEBP"
            is_apng = self.head.startswith(b"\x89PNG") and b"acTL" in self.head
            if is_apng or self.is_webp or self.head.startswith(b"GIF8"):
                self.budget.is_animation()
                head = self.head.ljust(24, b"\0")
                if not self.is_webp:
                    self.budget.check_frame(*struct.unpack_from(*((">II", head, 16) if is_apng else ("<HH", head, 6))))
            elif is_still(self.head, file):
                raise self.error("it is a still picture, not a video")
            self._formats = FORMATS
            if re.fullmatch(rb"[\0-\x0f]...[a-zA-Z0-9 ]{4}", self.head[:8], re.DOTALL):  # the first box of an MP4 file
                _check_boxes(file, self.budget)
                self._formats = "mov," + FORMATS

    def container(self) -> av.container.InputContainer:
        """
        A new container, which the caller closes, with a position of its own.

        Raises:
            VideoReadError: If FFmpeg cannot open it.
        """
        options = {
            "format_whitelist": self._formats,
            "protocol_whitelist": "file" if self._path else "none",
            "max_pixels": str(self.budget.frame_pixels),
        }
        file = f"file:{self._path}" if self._path else self.open()
        kind = "mjpeg" if self.head.startswith(b"\xff\xd8\xff") else None  # not a single JPEG
        try:
            # No metadata of ours is read, and strict decoding would reject a file for the letters of its title.
            return av.open(
                file, "r", kind, options=options, metadata_errors="ignore", buffer_size=1 << 17,
                timeout=self.budget.limits.stall_seconds,
            )  # fmt: skip
        except KeyboardInterrupt:
            gc.collect()  # a container that was opened and not handed over: it and its streams hold each other
            raise
        except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
            self.budget.check()
            reason = getattr(error, "strerror", None) or error
            if isinstance(error, (PermissionError, MemoryError)) or "Too many open files" in str(error):
                raise self.error(f"it cannot be opened ({reason})") from error
            raise self.error(f"it is not a video, or too damaged to open ({reason})") from error


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


def source_name(source: Any) -> str:
    """How messages name a source: without the passwords and tokens of a URL, and without its bytes."""
    if isinstance(source, str) and "://" in source:
        scheme, _, rest = source.partition("://")
        host, slash, path = re.split("[?#]", rest)[0].partition("/")
        return repr(f"{scheme}://{host.rpartition('@')[2]}{slash}{path}")
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"given as {len(source)} bytes"
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"given as a {type(source).__name__}"


def is_still(head: bytes, file: BinaryIO) -> bool:
    """Whether a file holds a single picture. A JPEG with another right behind it is a video: raw Motion JPEG."""
    if not head.startswith(b"\xff\xd8\xff"):
        return head.startswith((b"BM", b"II*\x00", b"MM\x00*", b"\x89PNG"))
    position = 2
    while True:
        file.seek(position)
        marker, length = struct.unpack(">HH", file.read(4).ljust(4, b"\0"))
        name = file.read(4)
        if marker == 0xFFE2 and name == b"MPF\0":  # a photograph with smaller copies or depth behind it
            return True
        if marker == 0xFFDA or not 0xFFC0 <= marker <= 0xFFFE:
            break
        position += 2 + length
    file.seek(position)
    data = file.read(MAX_HEADER)
    end = data.find(b"\xff\xd9")
    return end < 0 or data[end + 2 : end + 5] != b"\xff\xd8\xff"


def _check_boxes(file: BinaryIO, budget: Budget) -> None:
    """
    Refuses headers that announce encryption, or more samples than the file or the limits hold: FFmpeg makes an entry
    of its own for each sample that a table announces, even if the file is a few bytes long.
    """
    size, position, samples = file.seek(0, os.SEEK_END), 0, 0
    while position + 8 <= size:
        file.seek(position)
        length, name, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        start = position + (16 if length == 1 else 8)
        end = min(position + (long_length if length == 1 else length), size) if length else size
        position = max(end, start)
        if name in (b"mdat", b"free", b"skip", b"wide"):
            continue
        if end - start > MAX_HEADER:
            raise budget.error(f"its header of {end - start} bytes is larger than {MAX_HEADER}")
        file.seek(start)
        header = file.read(max(0, end - start))
        if b"cmov" in header:
            raise budget.error("its header is compressed, which is not supported")
        if b"encv" in header and b"sinf" in header:
            raise budget.error("it is encrypted")
        for track in header.split(b"trak"):
            # Uncompressed sound, whose every value is a sample, is indexed by blocks.
            pcm = re.search(rb"hdlr.{8}soun", track, re.DOTALL) and re.search(
                rb"stts\0{4}\0{3}\x01.{4}\0{3}\x01", track, re.DOTALL
            )
            for match in re.finditer(rb"(stsz|stz2|trun).{4}(.{4})(.{4})", track, re.DOTALL):
                table, fixed, count = match[1], *struct.unpack(">II", match[2] + match[3])
                fixed, count = (0, fixed) if table == b"trun" else (fixed if table == b"stsz" else 0, count)
                if count * max(fixed, 1) > size:
                    raise budget.error(f"its header announces {count} samples in a file of {size} bytes")
                samples += 0 if pcm else count
        if samples > budget.limits.packets:
            raise budget.refuse(f"its header announces {samples} samples or more", "packets")


def download(url: str, target: BinaryIO, budget: Budget, allow_private_hosts: bool = True) -> None:
    """
    Fetches a URL into a file, whole: a shorter body than announced is an error.

    Args:
        url (`str`): An `http://` or `https://` URL; a name and a password in it are sent, and shown in no message.
        target (`BinaryIO`): Where the body is written.
        budget ([`Budget`]): What it may cost: `download_bytes`, `web_seconds` and `stall_seconds` of its limits.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            `False` refuses addresses of this machine, its private network and other reserved ones, also behind a
            redirect. The address that is connected to is what counts; where a proxy connects, the name is looked up.

    Raises:
        VideoReadError: If it cannot be fetched within the limits.
    """
    if httpx is None:
        raise budget.error("files on web servers need httpx: `pip install httpx`")
    try:
        address = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            if address.scheme not in ("http", "https"):
                raise budget.error(f"the server did not give it (redirected to the protocol {address.scheme!r})")
            if not address.host:
                raise httpx.InvalidURL("it has no host")
            headers = {"User-Agent": "fila-video", "Accept": "*/*", "Accept-Encoding": "identity"}
            if address.userinfo:
                user = urllib.parse.unquote_to_bytes(address.userinfo)
                headers["Authorization"] = "Basic " + base64.b64encode(user).decode()
            place = httpcore.URL(
                scheme=address.raw_scheme, host=address.raw_host, port=address.port, target=address.raw_path
            )
            with (
                _connections(address, budget, allow_private_hosts) as connections,
                connections.stream("GET", place, headers=headers) as response,
            ):
                answer = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
                if response.status not in (301, 302, 303, 307, 308) or "location" not in answer:
                    _store(response, answer, target, budget)
                    return
                address = address.join(answer["location"])  # the body of a redirect is never read
        raise budget.error(f"the server did not give it (more than {MAX_REDIRECTS} redirects)")
    except VideoReadError:
        raise
    except (httpx.InvalidURL, UnicodeError) as error:
        raise budget.error("it, or an address that it is redirected to, is not a URL") from error
    except Exception as error:  # of sockets, TLS, HTTP's grammar: they have no common class
        budget.check()
        raise budget.error(f"the server did not give it ({str(error) or type(error).__name__})") from error


def _store(response: Any, headers: dict[str, str], target: BinaryIO, budget: Budget) -> None:
    """Writes the body of a response to `target`."""
    if response.status not in (200, 203):
        known = {status.value: status.phrase for status in http.HTTPStatus}
        problem = f"HTTP {response.status} {known.get(response.status, '')}".strip()
        raise budget.error(f"the server did not give it ({problem})")
    if (encoding := headers.get("content-encoding", "identity").lower()) not in ("identity", "none", ""):
        raise budget.error(f"the server sent it with the encoding {encoding[:40]!r}, although asked for none")
    limit, announced = budget.limits.download_bytes, headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise budget.refuse(f"it has {int(announced)} bytes", "download_bytes")
    received = 0
    for data in response.iter_stream():
        before, received = received, received + len(data)
        if received > limit:
            raise budget.refuse(f"it has {received} bytes or more", "download_bytes")
        try:
            target.write(data)
        except OSError as error:
            raise budget.error(
                f"{received} bytes of it could not be stored in the temporary folder ({error})"
            ) from error
        if received // PROGRESS_BYTES > before // PROGRESS_BYTES:
            budget.spend()
    if announced.isdecimal() and received < int(announced):
        raise budget.error(f"the server closed the connection after {received} of {int(announced)} bytes")
    target.flush()
    budget.spend()


def _connections(url: Any, budget: Budget, allow_private_hosts: bool) -> Any:
    """A connection pool of httpcore for one request, through the proxy that the environment names, if any."""
    tls = httpx.create_ssl_context() if url.scheme == "https" else None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.host):
        return httpcore.ConnectionPool(tls, network_backend=_Network(budget, allow_private_hosts))
    proxy = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    if proxy.scheme not in ("http", "https"):
        raise budget.error(f"the environment names a proxy of the kind {proxy.scheme!r}; http and https are supported")
    if not allow_private_hosts:
        _public_addresses(url.host, url.port, budget, through_proxy=True)
    login = (proxy.username, proxy.password) if proxy.userinfo else None
    place = httpcore.URL(scheme=proxy.raw_scheme, host=proxy.raw_host, port=proxy.port, target=b"/")
    return httpcore.HTTPProxy(place, proxy_auth=login, ssl_context=tls, network_backend=_Network(budget, True))


def _public_addresses(host: str, port: int | None, budget: Budget, through_proxy: bool = False) -> list[str]:
    """The addresses of a host, all of which must be public."""
    name = host.lower().rstrip(".")
    private = name == "localhost" or name.endswith(_LOCAL_NAMES)
    try:
        found = [] if private else socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:  # behind a proxy, names are often its own business
        if not through_proxy:
            raise budget.error(f"the server did not give it ({error})") from error
        found = []
    addresses = [ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found]
    for address in addresses:
        inner = [getattr(address, "ipv4_mapped", None), getattr(address, "sixtofour", None)]
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        private |= any(not one.is_global or one.is_multicast for one in (address, *filter(None, inner)))
    if private:
        raise budget.error("its host, or one that it is redirected to, is not public; allow_private_hosts is False")
    return [str(address) for address in addresses]


class _Network:
    """httpcore's sockets, where every call ends with the budget, and which lead to public hosts alone if need be."""

    def __init__(self, budget: Budget, allow_private_hosts: bool) -> None:
        self._budget, self._allow_private_hosts = budget, allow_private_hosts

    def connect_tcp(
        self, host: str, port: int, timeout: Any = None, local_address: Any = None, socket_options: Any = None
    ) -> "_Connection":
        addresses = [host] if self._allow_private_hosts else _public_addresses(host, port, self._budget)
        backend = httpcore.SyncBackend()
        for number, address in enumerate(addresses, start=1):
            wait = self._budget.seconds_left()
            try:
                stream = backend.connect_tcp(address, port, wait, local_address, socket_options)
                return _Connection(stream, self._budget)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise


class _Connection:
    def __init__(self, stream: Any, budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self.get_extra_info, self.close = stream.get_extra_info, stream.close

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._budget.seconds_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._budget.seconds_left())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: Any = None) -> "_Connection":
        wait = self._budget.seconds_left()
        return _Connection(self._stream.start_tls(ssl_context, server_hostname, wait), self._budget)


__all__ = [
    "Budget",
    "OpenedSource",
    "VideoLimits",
    "VideoReadError",
    "VideoSegment",
    "download",
    "is_still",
    "is_url",
    "source_name",
]
