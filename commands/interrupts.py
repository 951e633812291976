"""Ctrl-C and what else ends a process, so that a command ends at once and leaves nothing behind."""

import os
import shutil
import signal
import socket
import tempfile
import threading

INTERRUPTED = 130
# SIGHUP, of a terminal that is closed, is not on every system.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class EndsAtCtrlC:
    """
    Ends the process as soon as Ctrl-C is pressed, or SIGTERM or SIGHUP comes, whatever it does. The status is that of
    a shell, 128 and the signal's number: 130 for Ctrl-C.

    A `KeyboardInterrupt` would wait until code in C comes back, some imports turn it into another error, and PyAV
    drops it where it lands in a callback. Here the interpreter's own handler, which runs in C, writes the signal's
    number to a socket, and a thread that waits there ends the process. Only for what has no children and no
    half-written output.
    """

    current: "EndsAtCtrlC | None" = None

    def __init__(self) -> None:
        self.scratch: str | None = None
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # A job in the background ignores Ctrl-C, and one of `nohup` SIGHUP.
        self.before = {number: known for number, known in before.items() if known not in (signal.SIG_IGN, None)}
        EndsAtCtrlC.current = self
        self.waiting, self.signaled = socket.socketpair()  # of all descriptors, Windows takes sockets alone
        self.signaled.setblocking(False)
        threading.Thread(target=self._watch, daemon=True).start()
        for number in self.before:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.signaled.fileno(), warn_on_full_buffer=False)

    def _watch(self) -> None:
        while number := self.waiting.recv(1):
            if number[0] in self.before:
                self.remove_temporary_files()
                os._exit(128 + number[0])

    def keep_temporary_files(self) -> None:
        """Has temporary files made in a folder that goes with the process, downloaded videos for one."""
        self.scratch = tempfile.tempdir = tempfile.mkdtemp(prefix="fila-video-")

    def remove_temporary_files(self) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def hand_back(self) -> None:
        """From here on all signals do what they did, for commands that clean up behind themselves."""
        signal.set_wakeup_fd(-1)
        for number in [*self.before]:
            self.hand_back_one(number)
        self.signaled.close()

    def hand_back_one(self, number: int) -> None:
        """From here on one signal does what it did: Ctrl-C is a `KeyboardInterrupt` again."""
        if number in self.before:
            signal.signal(number, self.before.pop(number))


def hand_back() -> None:
    """Of Ctrl-C, for a command that answers it itself once it has begun; what else ends the process still does."""
    if EndsAtCtrlC.current is not None:
        EndsAtCtrlC.current.hand_back_one(signal.SIGINT)


__all__ = ["INTERRUPTED", "EndsAtCtrlC", "hand_back"]
