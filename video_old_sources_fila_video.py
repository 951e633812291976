"""Where a video comes from: opening paths, URLs, bytes and file objects, within limits.

FFmpeg is never given a name to open. Whatever the source, it reads through a Python file object of ours, with every
protocol of its own switched off and only the container formats below switched on, so that an uploaded file can neither
read other files nor call out: playlists, concatenations and external references have nothing to open.
"""

import ctypes
import io
import os
import re
import stat
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import av

from .video_boxes_fila_video import check_boxes, is_mp4
from .video_limits_fila_video import MAX_DOWNLOAD, MAX_PIXELS, STALL_SECONDS
from .video_sources_fila_video import VideoReadError

FORMATS = "matroska,avi,mpegts,mpeg,mpegvideo,flv,gif,apng,asf,ogg,ivf,mxf,dv,h264,hevc,m4v,mjpeg,obu,yuv4mpegpipe"
_INDIRECT = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"[Reference]", b"<SMIL", b"<ASX", b"v=0\r\n", b"v=0\n")
_LONG = 50_000  # entries of an index
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
_STILLS = (b"BM", b"II*\x00", b"MM\x00*", b"\x89PNG")


class VideoSource:
    """A source that can be opened several times at once, by as many readers.

    Raises [`VideoReadError`] where there is nothing to read: missing, empty, a directory, a pipe, a protocol that is
    not supported. `close` frees what was fetched or spooled; a file object of the caller's stays open, at the position
    where it was.
    """

    def __init__(self, source, name=None):
        self.name = name or source_name(source)
        self._shared = None
        self._owned = None
        self.checked = False  # whether its header was found to be plausible
        self.opening = threading.Lock()  # while FFmpeg reads a long file's tables, they take twice their memory
        try:
            self._set(source)
            with self.open() as file:
                self.head = file.read(1024)
            if not self.head:
                raise self.error("it is empty (0 bytes)")
        except (OSError, TypeError) as error:
            self.close()
            raise self.error(f"it cannot be read ({error})") from error
        except BaseException:
            self.close()
            raise

    def error(self, problem: str) -> VideoReadError:
        return VideoReadError(f"Cannot read the video {self.name}: {problem}.")

    def _set(self, source):
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._open = lambda: io.BytesIO(source)
        elif isinstance(source, os.PathLike):
            self._set_path(os.fspath(source))
        elif isinstance(source, str):
            self._set_string(source)
        elif hasattr(source, "read"):
            self._set_file(source)
        else:
            raise VideoReadError(
                f"Cannot read a video from {self.name}: expected a path, a file:// or http(s):// URL, bytes, a binary "
                "file object or a list of VideoSegment."
            )

    def _set_string(self, source):
        scheme, separator, _ = source.partition("://")
        scheme = scheme.lower()
        if not separator:
            self._set_path(source)
        elif scheme == "file":
            url = urllib.parse.urlsplit(source)
            if url.netloc not in ("", "localhost"):
                raise self.error(f"a file:// URL must name a file on this machine, not on {url.netloc!r}")
            self._set_path(urllib.request.url2pathname(url.path))
        else:
            raise self.error(f"the protocol {scheme!r} is not supported; file, http and https are")

    def _set_path(self, path):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            raise self.error("there is no such file") from None
        except (OSError, ValueError) as error:
            raise self.error(f"it cannot be opened ({error})") from error
        if stat.S_ISDIR(mode):
            raise self.error("it is a directory")
        if not stat.S_ISREG(mode):
            raise self.error("it is a device, pipe or socket, not a file")
        self._open = lambda: io.FileIO(path)

    def _set_file(self, file):
        if getattr(file, "closed", False):
            raise self.error("the file object is closed")
        if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
            self._shared = _SharedFile(file)
            return
        self._owned = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the source)
        _spool(file, self._owned, self)
        self._shared = _SharedFile(self._owned)

    def open(self) -> "_View":
        """A new file object on the source, at its start, with a position of its own."""
        if self._shared is not None:
            return _View(self._shared)
        try:
            return _View(_SharedFile(self._open(), close=True))
        except OSError as error:
            raise self.error(f"it cannot be opened ({error})") from error

    def close(self):
        if self._shared is not None:
            self._shared.release()
        if self._owned is not None:
            self._owned.close()


def source_name(source) -> str:
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


def open_container(source: VideoSource):
    """Opens the container and chooses its video stream.

    Returns `(container, stream, view)`, where `view` is the file object under the container; the caller closes both.
    Raises [`VideoReadError`] where the source is not a video, or has no stream of moving pictures that can be decoded.
    """
    _refuse_by_head(source)
    view = source.open()
    view.limit(STALL_SECONDS)
    formats = FORMATS
    try:
        if is_mp4(source.head):
            if not source.checked:
                check_boxes(view, source.error)
                view.seek(0)
                source.checked = True
            formats = "mov," + FORMATS
        options = {"format_whitelist": formats, "protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
        # No metadata of ours is read, and strict decoding would reject a file for the letters of its title.
        with source.opening:
            container = av.open(view, mode="r", options=options, metadata_errors="ignore", buffer_size=1 << 17)
            _give_back_memory(container)
    except VideoReadError:
        view.close()
        raise
    except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
        view.close()
        raise source.error(f"it is not a video, or too damaged to open ({_reason(error)})") from error
    try:
        return container, _video_stream(source, container), view
    except BaseException:
        container.close()
        view.close()
        raise


def _give_back_memory(container):
    """Freed memory to the system, once a long file is open: of two hours, glibc kept more than 20 MB."""
    if _TRIM is not None and any(len(getattr(stream, "index_entries", ())) > _LONG for stream in container.streams):
        _TRIM(0)


def _reason(error) -> str:
    return getattr(error, "strerror", None) or str(error)


def _refuse_by_head(source):
    text = source.head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_INDIRECT) or (text.startswith(b"<?xml") and b"<MPD" in text):
        raise source.error(
            "it is a playlist or another list of references, which are not followed; name the video itself"
        )
    if source.head.startswith(_STILLS) and b"acTL" not in source.head:
        raise source.error("it is a still picture, not a video")


def _video_stream(source, container):
    streams = container.streams
    pictures = [s for s in streams.video if s.disposition & s.disposition.attached_pic]
    videos = [s for s in streams.video if s not in pictures]
    if not videos:
        if pictures:
            raise source.error("its only picture is a cover; it holds no video stream")
        if streams.audio:
            raise source.error("it holds sound only, no video stream")
        raise source.error("it holds no video stream")
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        raise source.error("its video codec is unknown, or not decoded by the installed PyAV")
    best = streams.best("video")
    stream = best if best in decodable else decodable[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise source.error(f"its pictures of {width} x {height} are larger than the limit of {MAX_PIXELS} pixels")
    return stream


class _SharedFile:
    """One seekable file read at any position by several threads."""

    def __init__(self, file, close=False):
        self._file = file
        self._lock = threading.Lock()
        self._close = close
        self._start = file.tell()
        self.size = file.seek(0, os.SEEK_END)
        if self.size is None:
            self.size = file.tell()
        file.seek(0)

    def read_at(self, position, size):
        with self._lock:
            self._file.seek(position)
            return self._file.read(size)

    def release(self):
        """The caller's own file object goes back to where it stood."""
        if not self._close and not getattr(self._file, "closed", False):
            self._file.seek(self._start)

    def close_view(self):
        if self._close:
            self._file.close()


class _View:
    """The file object that FFmpeg reads: a position of its own, and a limit on the time it may take."""

    def __init__(self, shared):
        self._shared = shared
        self._position = 0
        self._deadline = None
        self.closed = False

    def limit(self, seconds):
        """From now on, reads fail after so many seconds; called again at every sign of progress."""
        self._deadline = time.monotonic() + seconds

    def read(self, size=-1):
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TimeoutError(f"no progress in {STALL_SECONDS:.0f} seconds")
        if size < 0:
            size = max(self._shared.size - self._position, 0)
        data = self._shared.read_at(self._position, size)
        if not isinstance(data, bytes):
            raise TypeError("the file object does not give bytes; open it in binary mode")
        data = data[:size]
        self._position += len(data)
        return data

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._shared.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    @property
    def size(self):
        return self._shared.size

    def tell(self):
        return self._position

    def seekable(self):
        return True

    def readable(self):
        return True

    def close(self):
        if not self.closed:
            self.closed = True
            if isinstance(self._shared, _SharedFile):
                self._shared.close_view()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _spool(file, target, source):
    """Copies a stream that cannot seek to a temporary file; fails where it stalls or does not end."""
    while target.tell() <= MAX_DOWNLOAD:
        start = time.monotonic()
        data = file.read(1 << 18)
        if not data:
            return
        if not isinstance(data, bytes):
            raise source.error("the file object does not give bytes; open it in binary mode")
        if time.monotonic() - start > STALL_SECONDS:
            raise source.error(f"it gave no data for {STALL_SECONDS:.0f} seconds")
        target.write(data)
    raise source.error(f"it gave more than the limit of {MAX_DOWNLOAD} bytes")


__all__ = ["VideoSource", "open_container", "source_name"]
