"""Durations of many video files, read in parallel and remembered: one file of JSON lines, added to as they come."""

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .annotations import LongVideoError
from .engines import run_tasks

_CHUNK = 16  # files a task


def probe_file(path: str | os.PathLike) -> float | str:
    """The file's duration in seconds, rounded down to a microsecond; or why there is none."""
    from ..video_reading_fila_video import VideoReadError, probe_video  # and not above, where help would wait for it

    try:
        duration = probe_video(str(path)).duration
    except (VideoReadError, OSError) as error:
        return str(error)
    if duration is None or not math.isfinite(duration) or duration <= 0:
        return f"it has no duration ({duration} seconds)"
    # Down, so that a segment that ends there lies within the file.
    duration = math.floor(duration * 1e6) / 1e6
    return duration if duration > 0 else "it has no duration"


def _probe_files(root: str, files: list[str]) -> list[float | str]:
    return [probe_file(Path(root) / file) for file in files]


class DurationCache:
    """
    Durations under the file's path, size and time of change. A line that a kill left torn is passed over.

    Raises:
        LongVideoError: If the file is there and holds something else, behind which nothing may be written.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = Path(path)
        self._known: dict[str, tuple[int, int, float]] = {}
        if self._path.exists():
            lines = self._path.read_bytes().split(b"\n")
            for line in lines:
                try:
                    file, size, changed, duration = json.loads(line)
                    self._known[file] = (size, changed, float(duration))
                except (ValueError, TypeError):
                    continue
            if lines[0] and not self._known:  # ours begin with an empty line, also where all behind it is torn
                raise LongVideoError(
                    f"{str(self._path)!r} is there and holds no durations: name another file for them."
                )

    def get(self, root: Path, file: str) -> float | None:
        known = self._known.get(file)
        return known[2] if known and known[:2] == _state(root / file) else None

    def add(self, root: Path, durations: Iterable[tuple[str, float]]) -> None:
        lines = []
        for file, duration in durations:
            size, changed = _state(root / file)
            self._known[file] = (size, changed, duration)
            lines.append(json.dumps([file, size, changed, duration]))
        if lines:
            # The newline before ends what a kill may have left behind; one write, so that lines stay whole.
            with open(self._path, "ab") as out:
                out.write(("\n" + "\n".join(lines) + "\n").encode())


def _state(path: Path) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def read_durations(
    root: str | os.PathLike,
    files: list[str],
    cache: DurationCache,
    *,
    engine: str = "local",
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, float | str]]:
    """`(number of the file, seconds)`, or the reason instead of the seconds, as they are known; each file once.

    Files that could not be read are tried again by the next build. `progress` is called with how many were added.
    """
    root = Path(root)
    unknown = []
    for number, file in enumerate(files):
        duration = cache.get(root, file)
        if duration is None:
            unknown.append(number)
        else:
            yield number, duration
    if progress is not None:
        progress(len(files) - len(unknown))
    chunks = [unknown[at : at + _CHUNK] for at in range(0, len(unknown), _CHUNK)]
    tasks = ([files[number] for number in chunk] for chunk in chunks)
    task = functools.partial(_probe_files, str(root))
    for done, durations in run_tasks(task, tasks, len(chunks), engine=engine, workers=workers):
        results = list(zip(chunks[done], durations, strict=True))
        cache.add(root, ((files[number], value) for number, value in results if not isinstance(value, str)))
        yield from results
        if progress is not None:
            progress(len(results))


__all__ = ["DurationCache", "probe_file", "read_durations"]
