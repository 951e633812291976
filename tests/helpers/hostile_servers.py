"""Web servers that lie, stall or never end, on the loopback interface."""

import contextlib
import socket
import threading
import time


class HostileServer:
    """
    Answers every request on a new thread with `behave(connection, request, server)`.

    Attributes:
        url (`str`): Its address, without a slash at the end.
        sent (`int`): Bytes that clients took.
        requests (`list[bytes]`): The heads of all requests.
        ended (`threading.Event`): Set when the server closes; a behavior that never ends asks it.
    """

    def __init__(self, behave) -> None:
        self.behave, self.sent, self.requests, self.ended = behave, 0, [], threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "HostileServer":
        self._threads[0].start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _answer(self, connection) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                if not (data := connection.recv(4096)):
                    return
                request += data
            self.requests.append(request)
            self.behave(connection, request, self)

    def send(self, connection, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def drip(self, connection, data: bytes, pause: float = 0.02) -> None:
        """Sends `data` byte by byte, again and again."""
        while not self.ended.is_set():
            for byte in data:
                self.send(connection, bytes([byte]))
                time.sleep(pause)

    def pour(self, connection, data: bytes) -> None:
        """Sends `data` again and again, as fast as it is taken."""
        while not self.ended.is_set():
            self.send(connection, data)


def head(status: str = "200 OK", **headers) -> bytes:
    """The head of an answer; `content_length=5` is `content-length: 5`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


__all__ = ["HostileServer", "head"]
