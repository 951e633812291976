"""Ctrl-C, so that it ends a command at once and leaves nothing behind."""

import os
import shutil
import signal
import socket
import tempfile
import threading

INTERRUPTED = 130


class EndsAtCtrlC:
    """
    Ends the process with status 130 as soon as Ctrl-C is pressed, whatever it does.

    A `KeyboardInterrupt` would wait until code in C comes back, some imports turn it into another error, and PyAV
    drops it where it lands in a callback. Here the interpreter's own handler, which runs in C, writes the signal's
    number to a socket, and a thread that waits there ends the process. Only for what has no children and no
    half-written output.
    """

    current: "EndsAtCtrlC | None" = None

    def __init__(self) -> None:
        self.scratch: str | None = None
        self.is_watching = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # as a job in the background has it
        if not self.is_watching:
            return
        EndsAtCtrlC.current = self
        self.waiting, self.signaled = socket.socketpair()  # of all descriptors, Windows takes sockets alone
        self.signaled.setblocking(False)
        threading.Thread(target=self._watch, daemon=True).start()
        self.before = signal.signal(signal.SIGINT, lambda *_: None)
        signal.set_wakeup_fd(self.signaled.fileno(), warn_on_full_buffer=False)

    def _watch(self) -> None:
        while number := self.waiting.recv(1):
            if number[0] == signal.SIGINT:
                self.remove_temporary_files()
                os._exit(INTERRUPTED)

    def keep_temporary_files(self) -> None:
        """Has temporary files made in a folder that goes with the process, downloaded videos for one."""
        self.scratch = tempfile.tempdir = tempfile.mkdtemp(prefix="fila-video-")

    def remove_temporary_files(self) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def hand_back(self) -> None:
        """From here on Ctrl-C is a `KeyboardInterrupt` again, for commands that clean up behind themselves."""
        if self.is_watching:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, self.before)
            self.signaled.close()


def hand_back() -> None:
    """From here on, for a command that answers Ctrl-C itself once it has begun."""
    if EndsAtCtrlC.current is not None:
        EndsAtCtrlC.current.hand_back()
        EndsAtCtrlC.current = None


__all__ = ["INTERRUPTED", "EndsAtCtrlC", "hand_back"]
