"""Files that take the place of others."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """
    A file to write instead of `path`, whose place it takes at the end, whole or not at all: its bytes are on the disk
    by then. A link goes on to lead to it, and it keeps the permissions of what was there. Its path is absolute, since
    FFmpeg takes what stands before a colon of a relative one for a protocol.
    """
    path = Path(os.path.realpath(path))
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        yield unfinished
        sync_file(unfinished)
        if path.exists():
            with suppress(OSError):  # of file systems, some have no permissions
                shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Brings a file's bytes to the disk, so that it is whole once it has its name, also after a loss of power."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def lock_file(file: IO, path: Path) -> None:
    """
    Keeps a second run out of an open file, for as long as it is open.

    Raises:
        ValueError: If another run has it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise ValueError(f"Another run is writing to {path}: wait for it, or name another output.") from error
    except OSError:  # of network file systems, some have no locks
        return


__all__ = ["lock_file", "replacing", "sync_file"]
