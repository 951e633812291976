"""What reading a video may cost: limits, downloads that keep to them, and MP4 files that claim more than they hold."""

import base64
import ipaddress
import math
import os
import re
import socket
import struct
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import chain
from numbers import Real
from typing import Any, BinaryIO

import httpcore
import httpx
import numpy as np

MAX_REDIRECTS = 10
PROGRESS_BYTES = 1 << 16  # so much of a download, at least, must arrive between two signs of progress
_ANIMATION_FRAME = 128 * 128  # pixels that each frame of an animation counts at least
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
MAX_HEADER = 1 << 26  # bytes of one header box; that of three hours takes some 5 MB
MAX_BOXES = 5_000_000  # three hours of a fragment a frame
_TABLES = re.compile(rb"elst|stsc|stco|co64|stsz|stz2|trun")  # boxes of which FFmpeg makes entries of its own
# The boxes in which FFmpeg looks for others, wherever they stand, and more levels of them than it takes.
_PARENTS = frozenset(b"dinf edts ilst mdia meta minf moof moov mvex schi sinf stbl traf trak tref udta wave".split())
_MAX_DEPTH = 12


class VideoReadError(ValueError):
    """A video that cannot be read; the message names the source and says what is wrong with it."""


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
            Pixels of all frames decoded of a GIF, APNG or WebP, some of them twice: 2,000 frames of full HD.
        packets (`int`, *optional*, defaults to 10,000,000):
            Packets of the video stream that are read, once to find its frames and again to decode them, and samples
            that a header announces: 23 hours at 60 frames a second.
        download_bytes (`int`, *optional*, defaults to 64,000,000,000):
            Bytes fetched from a web server, or copied from a file object that was not opened by its name.
        seconds (`float`, *optional*):
            Seconds that reading may take in all. No limit by default.
        web_seconds (`float`, *optional*, defaults to 7200.0):
            The same for a URL, download included. `None`: no limit.
        stall_seconds (`float`, *optional*, defaults to 30.0):
            Seconds without progress: a packet, or 64 KiB of a download or a file object.

    Raises:
        ValueError: If a limit is no number, nor `None` where there may be no limit.
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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
            if not is_number and not (value is None and field.name in ("seconds", "web_seconds")):
                raise ValueError(f"The limit `{field.name}` is a number, got {value!r}.")

    @classmethod
    def of(cls, limits: dict[str, Any]) -> "VideoLimits":
        """
        The limits in a dictionary, as a processor saves them.

        Raises:
            ValueError: If one is unknown, or no number.
        """
        known = [field.name for field in fields(cls)]
        for name in limits:
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}."
                raise ValueError(f"`limits` knows no `{name}`: {hint}")
        return cls(**limits)


class Budget:
    """
    What is left of the limits of one video. Several threads may spend from it.

    Args:
        limits ([`VideoLimits`] or `Budget`, *optional*):
            The limits, the defaults where there are none; or the budget of the whole of which this is a part.
        name (`str`): How messages call the source, such as `"the video 'a.mp4'"`.
        is_web (`bool`, *optional*, defaults to `False`): Whether it is a URL, for which `web_seconds` holds.
    """

    def __init__(self, limits: VideoLimits | None, name: str, is_web: bool = False) -> None:
        if VideoLimits.__name__ in (kind.__name__ for kind in type(limits).__mro__):
            # Also one of another copy of this code, or of a subclass, with fields that are not known here.
            known = (field.name for field in fields(VideoLimits) if hasattr(limits, field.name))
            limits = VideoLimits(**{name: getattr(limits, name) for name in known})
        elif limits is not None and not isinstance(limits, Budget):
            raise ValueError(f"limits must be a VideoLimits, got {limits!r}.")
        whole = limits if isinstance(limits, Budget) else None
        self.limits, self.name = whole.limits if whole else limits or VideoLimits(), name
        self._whole = whole
        # The limits that hold for this kind of source.
        self._seconds = "web_seconds" if is_web else "seconds"
        self.frame_field, self._total = "frame_pixels", "total_pixels"
        self._lock, self._spent = (whole._lock, whole._spent) if whole else (threading.Lock(), Counter())
        self._progress = time.monotonic()
        self._start = whole._start if whole else self._progress
        seconds = getattr(self.limits, self._seconds)
        self._deadline = math.inf if seconds is None else self._start + seconds

    def error(self, problem: str) -> VideoReadError:
        return VideoReadError(f"Cannot read {self.name}: {problem}.")

    def refuse(self, what: str, field: str) -> VideoReadError:
        """The error of a limit: `what` names the number that is over the limit `field`."""
        limit = getattr(self.limits, field)
        return self.error(f"{what}, over the limit of {limit}; VideoLimits({field}=...) sets another, as `limits`")

    def count_as_animation(self) -> None:
        """From now on the limits of GIF, APNG and WebP hold."""
        self.frame_field, self._total = "canvas_pixels", "animation_pixels"

    @property
    def frame_pixels(self) -> int:
        return getattr(self.limits, self.frame_field)

    def check_frame(self, width: int, height: int) -> None:
        """Raises [`VideoReadError`] if frames of this size are too large."""
        if width * height > self.frame_pixels:
            raise self.refuse(f"its pictures of {width} x {height} have {width * height} pixels", self.frame_field)

    def spend(self, packets: int = 0, frame: tuple[int, int] | None = None) -> None:
        """
        Counts packets that were read, or a frame (width, height) that was decoded, which is progress.

        Raises:
            VideoReadError: If it is too much.
        """
        pixels = 0
        if frame is not None:
            self.check_frame(*frame)
            pixels = max(frame[0] * frame[1], _ANIMATION_FRAME if self._total == "animation_pixels" else 0)
        now = time.monotonic()
        with self._lock:
            self._spent["packets"] += packets
            self._spent["pixels"] += pixels
            self._progress = now
        if packets and self._spent["packets"] > self.limits.packets:
            raise (self._whole or self).refuse(f"{self._spent['packets']} of its packets were read", "packets")
        if frame is not None and self._spent["pixels"] > getattr(self.limits, self._total):
            raise (self._whole or self).refuse(
                f"its frames have {self._spent['pixels']} pixels in all or more", self._total
            )
        if now > self._deadline:
            self.check()

    def store(self, data: bytes, target: BinaryIO) -> None:
        """
        Writes bytes that were fetched to a file. Each `PROGRESS_BYTES` of them are progress.

        Raises:
            VideoReadError: If it is too much, or they cannot be written.
        """
        with self._lock:
            before = self._spent["bytes"]
            self._spent["bytes"] = received = before + len(data)
        if received > self.limits.download_bytes:
            raise (self._whole or self).refuse(f"{received} bytes or more were fetched", "download_bytes")
        try:
            target.write(data)
        except OSError as error:
            raise self.error(f"{received} bytes could not be stored in the temporary folder ({error})") from error
        if received // PROGRESS_BYTES > before // PROGRESS_BYTES:
            self.spend()

    def check(self) -> float:
        """Raises [`VideoReadError`] if a deadline has passed, and returns how many seconds a call may block: until
        just after the next one."""
        now = time.monotonic()
        left = self._deadline - now
        until_stall = self._progress + self.limits.stall_seconds - now
        if left < 0:
            raise self.refuse(f"it took {now - self._start:.1f} seconds", self._seconds)
        if until_stall < 0:
            raise self.refuse(f"there was no progress for {now - self._progress:.1f} seconds", "stall_seconds")
        return min(left, until_stall) + 0.01


def download(url: str, target: BinaryIO, budget: Budget, allow_private_hosts: bool = True) -> None:
    """
    Fetches a URL into a file, whole: a shorter body than announced is an error.

    Args:
        url (`str`): An `http://` or `https://` URL; a name and a password in it are sent, and shown in no message.
        target (`BinaryIO`): Where the body is written.
        budget ([`Budget`]): What it may cost: `download_bytes`, `web_seconds` and `stall_seconds` of its limits.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            `False` refuses addresses of this machine's interfaces, private networks and other reserved ones, also
            behind a redirect. The address that is connected to is what counts. Where a proxy connects, the name is
            looked up, and one with a dot that is not known here is left to the proxy.

    Raises:
        VideoReadError: If it cannot be fetched within the limits.
    """
    try:
        address = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            if address.scheme not in ("http", "https"):
                raise budget.error(f"the server did not give it (redirected to the protocol {address.scheme!r})")
            if not address.host:
                raise httpx.InvalidURL("it has no host")
            headers = {"Host": address.netloc.decode(), "User-Agent": "fila-video", "Accept": "*/*"}
            headers["Accept-Encoding"] = "identity"
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


def _store(response: httpcore.Response, headers: dict[str, str], target: BinaryIO, budget: Budget) -> None:
    """Writes the body of a response to `target`. That it is as long as announced, the HTTP parser sees to."""
    if response.status not in (200, 203):
        problem = f"HTTP {response.status} {httpx.codes.get_reason_phrase(response.status)}".strip()
        raise budget.error(f"the server did not give it ({problem})")
    encodings = b",".join(value for name, value in response.headers if name.lower() == b"content-encoding")
    for encoding in map(str.strip, encodings.decode("latin-1").lower().split(",")):
        if encoding not in ("identity", "none", ""):
            raise budget.error(f"the server sent it with the encoding {encoding[:40]!r}, although asked for none")
    announced = int(headers.get("content-length", 0))
    if announced > budget.limits.download_bytes:
        raise budget.refuse(f"it has {announced} bytes", "download_bytes")
    for data in response.iter_stream():
        budget.store(data, target)
    budget.spend()


def _connections(url: httpx.URL, budget: Budget, allow_private_hosts: bool) -> httpcore.ConnectionPool:
    """A connection pool for one request, through the proxy that the environment names, if any."""
    tls = httpx.create_ssl_context() if url.scheme == "https" else None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    places = (url.host, url.netloc.decode())  # `no_proxy` names hosts, and hosts with their ports
    if not proxy or any(map(urllib.request.proxy_bypass, places)):
        return httpcore.ConnectionPool(tls, network_backend=_Network(budget, allow_private_hosts))
    proxy = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    if proxy.scheme not in ("http", "https"):
        raise budget.error(f"the environment names a proxy of the kind {proxy.scheme!r}; http and https are supported")
    if not allow_private_hosts:
        _public_addresses(url.host, url.port, budget, through_proxy=True)
    login = (proxy.username, proxy.password) if proxy.userinfo else None
    backend = _Network(budget, allow_private_hosts=True)
    return httpcore.HTTPProxy(str(proxy), proxy_auth=login, ssl_context=tls, network_backend=backend)


def _addresses(host: str, port: int | None, budget: Budget) -> list[str]:
    """The addresses of a host."""
    try:
        return [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise budget.error(f"the server did not give it ({error})") from error


def _public_addresses(host: str, port: int | None, budget: Budget, through_proxy: bool = False) -> list[str]:
    """The addresses of a host, all of which must be public."""
    name = host.lower().rstrip(".")
    private = name == "localhost" or name.endswith(_LOCAL_NAMES) or not {".", ":"} & {*name}
    try:
        addresses = [] if private else _addresses(host, port, budget)
    except VideoReadError:  # behind a proxy, names are often its own business
        if not through_proxy:
            raise
        addresses = []
    for address in addresses:
        private |= not _is_public(ipaddress.ip_address(address.partition("%")[0]))
    if private:
        raise budget.error("its host, or one that it is redirected to, is not public; allow_private_hosts is False")
    return addresses


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is of the internet, and stands on no interface of this machine."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if address in ipaddress.ip_network("64:ff9b::/96"):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return _is_public(inner)
    if (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or getattr(address, "is_site_local", False)
    ):
        return False
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # sends nothing, but finds from where it would be sent
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) != address
    except OSError:  # no way leads there
        return True


class _Network(httpcore.SyncBackend):
    """Sockets of which every call ends with the budget, and which lead to public hosts alone if need be."""

    def __init__(self, budget: Budget, allow_private_hosts: bool) -> None:
        self._budget, self._allow_private_hosts = budget, allow_private_hosts

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> "_Connection":
        find = _addresses if self._allow_private_hosts else _public_addresses
        addresses = find(host, port, self._budget)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:  # each for its part of the time, so that the last is tried too
                stream = super().connect_tcp(address, port, self._budget.check() / left, **options)
                return _Connection(stream, self._budget)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise


class _Connection:
    def __init__(self, stream: httpcore.NetworkStream, budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self.get_extra_info, self.close = stream.get_extra_info, stream.close

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._budget.check())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._budget.check())

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: Any = None) -> "_Connection":
        return _Connection(self._stream.start_tls(ssl_context, server_hostname, self._budget.check()), self._budget)


def _boxes(file: BinaryIO, at: int, end: int, inside: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, int, int]]:
    """
    `(name, where its content begins, where it ends)` of each box of an MP4 file between two places, and of the boxes
    in it, in order: what FFmpeg takes for one, also where sizes are wrong or a box stands where it does not belong.
    """
    while at + 8 <= end:
        file.seek(at)
        length, name, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        start = at + (16 if length == 1 else 8)
        stop = {0: end, 1: at + long_length}.get(length, at + length)
        if stop < start or (name in (b"trak", b"mdat") and inside[-1:] not in ((), (b"moov",))):
            return
        at = stop = min(stop, end)
        file.seek(start)
        if name in (b"free", b"hoov") and file.read(8)[4:] in (b"mvhd", b"cmov"):
            name = b"moov"  # FFmpeg takes it for one where there is no other
        elif name == b"meta":  # its first box, which names its handler, stands at the start, or behind a version
            handler = re.match(rb"(?:....)*?....hdlr", file.read(min(stop - start, MAX_HEADER)), re.DOTALL)
            start = stop if handler is None else start + handler.end() - 8
        yield name, start, stop
        if name in _PARENTS and len(inside) < _MAX_DEPTH:
            yield from _boxes(file, start, stop, (*inside, name))


def check_boxes(file: BinaryIO, budget: Budget) -> None:
    """
    Refuses an MP4 file whose header is encrypted, compressed or very large, or announces more samples than the file or
    the limits hold: FFmpeg makes an entry of its own for each of them, and again for each edit, even if the file is a
    few bytes long. The file is left at another position.

    Raises:
        VideoReadError: If it is refused.
    """
    size, samples = file.seek(0, os.SEEK_END), 0
    # Of a track: handlers, (count, duration) of samples, tables of chunks, and how many of each there are.
    kinds, paces, runs, in_track, chunks, edits, most = set(), set(), [], 0, 0, 1, 1
    boxes = chain(_boxes(file, 0, size), [(b"trak", size, size)])
    for number, (name, start, end) in enumerate(boxes, 1):
        if number % 64 == 0:
            budget.spend()
        if number > MAX_BOXES:
            raise budget.error(f"its header has more than {MAX_BOXES} boxes")
        if name in (b"moov", b"moof") and end - start > MAX_HEADER:
            raise budget.error(f"its header of {end - start} bytes is larger than {MAX_HEADER}")
        if name == b"cmov":
            raise budget.error("its header is compressed, which is not supported")
        file.seek(start)
        if name == b"trak":  # the end of the one before it
            # Uncompressed sound, whose every value is a sample, is indexed by blocks.
            is_blocks = kinds == {b"soun"} and paces == {(1, 1)}
            samples += (_blocks(runs, chunks) if is_blocks else in_track) * edits
            kinds, paces, runs, in_track, chunks, edits, most = set(), set(), [], 0, 0, 1, max(most, edits)
        elif name == b"hdlr":
            kinds |= {file.read(12)[8:]} & {b"soun", b"vide", b"subp", b"clcp"}  # those of metadata are no track's
        elif name == b"stts":
            count, _, duration = struct.unpack_from(">III", file.read(16).ljust(16, b"\0"), 4)
            paces.add((count, duration))
        elif name == b"elst":
            table = file.read(24)
            width, times = (20, table[16:24]) if table[:1] == b"\1" else (12, table[12:16])
            # No samples are in an empty edit at the start, which delays them.
            edits = max(edits, (end - start - 8) // width - (set(times) == {255}))
        elif name == b"stsc":
            runs.append(file.read(min(end - start, MAX_HEADER))[8:])
            if sum(map(len, runs)) > MAX_HEADER:
                raise budget.error(f"the tables of one track take more than {MAX_HEADER} bytes")
        elif name in (b"stco", b"co64"):
            chunks += _samples(name, file.read(12), size, budget)
        elif name == b"stsd":
            entries = file.read(min(end - start, MAX_HEADER))
            if b"encv" in entries and b"sinf" in entries:
                raise budget.error("it is encrypted")
            # What stands behind the settings of a codec, in a video 94 bytes with its name, is read as boxes too.
            if table := _TABLES.search(entries, 94 if kinds == {b"vide"} else 0):
                raise budget.error(f"its header has a table {table[0].decode()!r} among the settings of a codec")
        elif name in (b"stsz", b"stz2"):
            in_track += _samples(name, file.read(12), size, budget)
        elif name == b"trun":
            samples += _samples(name, file.read(12), size, budget)
        if samples > budget.limits.packets:
            header = "its header" if most == 1 else f"its header with up to {most} edits a track"
            raise budget.refuse(f"{header} announces {samples} samples or more", "packets")


def _blocks(tables: list[bytes], chunks: int) -> int:
    """How many entries FFmpeg makes of `chunks` of uncompressed sound, of which each run in `tables` says from which
    one on it holds, and how many samples each has: one for each 1024 of them."""
    runs = np.frombuffer(b"".join(table[: len(table) // 12 * 12] for table in tables), ">u4").astype(np.int64)
    first, blocks = runs[::3], runs[1::3] // 1024 + 1
    lengths = np.diff(first, append=chunks + 1)
    # A damaged table is mended in ways of FFmpeg's own.
    return int(lengths @ blocks) if (lengths > 0).all() else chunks * int(blocks.max())


def _samples(name: bytes, table: bytes, size: int, budget: Budget) -> int:
    """How many samples, or chunks of them, a table announces in a file of `size` bytes."""
    first, second = struct.unpack_from(">II", table.ljust(12, b"\0"), 4)
    count = first if name in (b"trun", b"stco", b"co64") else second
    if count > size:  # and not their bytes, where all have one size: of a film that is cut off, what is there is read
        raise budget.error(f"its header announces {count} samples in a file of {size} bytes")
    return count


__all__ = ["MAX_HEADER", "Budget", "VideoLimits", "VideoReadError", "check_boxes", "download"]
