"""Videos on web servers, fetched by ranges."""

import base64
import http.client
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from .video_limits_fila_video import MAX_DOWNLOAD

HTTP_BLOCK = 1 << 18
HTTP_READ_AHEAD = 32  # blocks; reached by doubling while the reads are in sequence


class _HttpRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, new_url):
        if urllib.parse.urlsplit(new_url).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(new_url, code, "redirected to another protocol", headers, file)
        return super().redirect_request(request, file, code, message, headers, new_url)


def _http_opener():
    """urllib's handlers for http and https alone: none for file, ftp or data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _HttpRedirect,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "fila-video"), ("Accept-Encoding", "identity")]
    return opener


class HttpFile:
    """A file on a web server, fetched by ranges into a temporary file: no part of it is fetched twice."""

    def __init__(self, url: str, error: Callable[[str], ValueError], patience: float):
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError as problem:
            raise error(f"it is not a URL ({problem})") from problem
        user, _, host = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=host, fragment="").geturl()
        self._secret = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode() if user else None
        self._error = error
        self._patience = patience
        self._opener = _http_opener()
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the source)
        self._have = set()  # numbers of the blocks that are in the temporary file
        self._next = 0
        self._ahead = 1
        try:
            self._start()
        except BaseException:
            self._file.close()
            raise

    def _start(self):
        with self._request(0, HTTP_BLOCK) as response:
            if response.status == 206:
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                if not total.isdigit():
                    raise self._error("the server does not say how long the file is")
                self.size = int(total)
                if self.size > MAX_DOWNLOAD:
                    raise self._error(f"its {self.size} bytes are over the limit of {MAX_DOWNLOAD}")
                self._store(0, response, min(HTTP_BLOCK, self.size))
            else:  # a server without ranges
                self._store(0, response, None)
                self.size = self._file.tell()
                self._have = range(-(-self.size // HTTP_BLOCK))

    def _request(self, start, length):
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={start}-{start + length - 1}"})
        if self._secret:  # for this server alone, not for one that it redirects to
            request.add_unredirected_header("Authorization", f"Basic {self._secret}")
        try:
            return self._opener.open(request, timeout=self._patience / 2)
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = getattr(error, "reason", None) or error
            code = f"HTTP {error.code}, " if isinstance(error, urllib.error.HTTPError) else ""
            raise self._error(f"the server did not give it ({code}{problem})") from error

    def _store(self, start, response, length):
        """Writes a response to the temporary file; every block has a deadline, so that a server cannot drip."""
        self._file.seek(start)
        done = 0
        deadline = time.monotonic() + self._patience
        while length is None or done < length:
            try:
                data = response.read1(HTTP_BLOCK if length is None else min(HTTP_BLOCK, length - done))
            except (OSError, http.client.HTTPException) as error:
                raise self._error(f"the connection failed after {start + done} bytes ({error})") from error
            if not data:
                break
            self._file.write(data)
            if done // HTTP_BLOCK != (done + len(data)) // HTTP_BLOCK:
                deadline = time.monotonic() + self._patience
            done += len(data)
            if start + done > MAX_DOWNLOAD:
                raise self._error(f"the server sent more than the limit of {MAX_DOWNLOAD} bytes")
            if time.monotonic() > deadline:
                raise self._error(f"the server sent less than {HTTP_BLOCK} bytes in {self._patience:.0f} seconds")
        if length is not None and done < length:
            raise self._error(f"the server closed the connection after {start + done} of {self.size} bytes")
        if length is not None:
            self._have.update(range(start // HTTP_BLOCK, -(-(start + length) // HTTP_BLOCK)))

    def _fetch(self, block):
        self._ahead = min(2 * self._ahead, HTTP_READ_AHEAD) if block == self._next else 1
        end = block + 1
        while end < block + self._ahead and end not in self._have:
            end += 1
        start, stop = block * HTTP_BLOCK, min(end * HTTP_BLOCK, self.size)
        with self._request(start, stop - start) as response:
            if response.status != 206:
                raise self._error(f"the server answered a request for a range with HTTP {response.status}")
            self._store(start, response, stop - start)
        self._next = end

    def read_at(self, position, size):
        size = min(size, self.size - position, HTTP_BLOCK)
        if size <= 0:
            return b""
        with self._lock:
            for block in range(position // HTTP_BLOCK, -(-(position + size) // HTTP_BLOCK)):
                if block not in self._have:
                    self._fetch(block)
            self._file.seek(position)
            return self._file.read(size)

    def release(self):
        pass

    def close(self):
        self._file.close()


__all__ = ["HttpFile"]
