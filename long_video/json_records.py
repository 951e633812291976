"""The one reader of records in JSON: arrays and lines, a record at a time; errors name the file and the line."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BOM = b"\xef\xbb\xbf"  # which editors put before UTF-8
CHUNK = 1 << 20
MOST_DIGITS = 4000  # of an integer; Python's own limit depends on how it was started


class JsonRecordError(ValueError):
    """One record is not valid JSON; the others of its file can be read."""


def parse_record(text: str | bytes) -> object:
    """
    One JSON value.

    Raises:
        JsonRecordError: If it is none: also for bytes that are not UTF-8, nesting that is too deep for the parser, and
            integers with thousands of digits.
    """
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise JsonRecordError("it is nested too deeply") from None
    except ValueError as error:  # also of Unicode
        raise JsonRecordError(str(error)[:300]) from error


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def read_json_lines(path: str | Path) -> Iterator[tuple[int, object]]:
    """
    The records of a file of JSON lines, in order; empty lines are passed over.

    Yields:
        The number of the line, from 1, and its record, or a `JsonRecordError` in its place.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM)
            if line.strip():
                try:
                    yield number, parse_record(line)
                except JsonRecordError as error:
                    yield number, error


def read_own_lines(path: str | Path, may_be_torn: bool = False) -> Iterator[Any]:
    """
    The records of a file of JSON lines that this package wrote, in order.

    Args:
        may_be_torn (`bool`, *optional*, defaults to `False`):
            Pass over a last line that is no JSON, as a kill or a full disk leaves it.

    Raises:
        ValueError: If another line is not valid JSON; with its file and number.
    """
    bad = None
    for number, record in read_json_lines(path):
        if bad is not None:
            break
        if isinstance(record, JsonRecordError):
            bad = number, record
        else:
            yield record
    else:
        if may_be_torn:
            return
    if bad is not None:
        raise ValueError(f"{path}, line {bad[0]}: {bad[1]}. Remove that line.") from bad[1]


def append_lines(path: str | Path, records: Iterable[dict]) -> None:
    """Adds records as JSON lines. What a kill left of a last line goes: it would become one line with the first."""
    with open(path, "ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())


def read_json_records(path: str | Path) -> Iterator[tuple[int, object]]:
    """
    The records of a JSON array or, whatever the file's name, of JSON lines; a file of any size takes little memory.

    Yields:
        The number of the line or of the element, from 1, and its record, or a `JsonRecordError` in its place.

    Raises:
        ValueError: If the file holds neither, ends within its array, or goes on behind it.
    """
    with open(path, "rb") as file:
        start = file.read(CHUNK).removeprefix(BOM).lstrip()
    if not start.startswith(b"["):
        if not start.startswith(b"{"):
            raise ValueError(f"{str(path)!r} holds no JSON array of records, and no JSON lines.")
        yield from read_json_lines(path)
        return
    for number, element in enumerate(_elements(path), 1):
        try:
            yield number, parse_record(element)
        except JsonRecordError as error:
            yield number, error


def _elements(path: str | Path) -> Iterator[bytes]:
    """
    The text of each element of an array. Only brackets and quotes are looked at, so that an element that is no valid
    JSON, or no UTF-8, ends where its brackets end and the next one is found.
    """
    marks = re.compile(rb'[\[\]{}",\\]')
    element, depth, quoted, skip = bytearray(), 0, False, False
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            at = 0
            if skip:  # what follows a backslash, at the start of this chunk
                at, skip = 1, False
                element += chunk[:1]
            while True:
                found = marks.search(chunk, at)
                if found is None:
                    if depth:
                        element += chunk[at:]
                    break
                mark, end = found[0], found.end()
                if quoted or mark not in b"[]{},":
                    if mark == b"\\" and quoted:
                        skip = end == len(chunk)
                        end = min(end + 1, len(chunk))
                    elif mark == b'"':
                        quoted = not quoted
                    element += chunk[at:end]
                elif depth == 1 and mark in b",]":
                    element += chunk[at : found.start()]
                    if element.strip():
                        yield bytes(element)
                    element.clear()
                    if mark == b"]":
                        _check_end(path, itertools.chain([chunk[end:]], iter(lambda: file.read(CHUNK), b"")))
                        return
                else:
                    opens = mark in b"[{"
                    if depth or not opens:
                        element += chunk[at:end]
                    depth += 1 if opens else -(mark in b"]}")
                at = end
    raise ValueError(f"{str(path)!r} is not valid JSON: the file ends within its array.")


def _check_end(path: str | Path, pieces: Iterable[bytes]) -> None:
    """Nothing but white space may follow an array: more records there would be lost."""
    for piece in pieces:
        if rest := piece.strip():
            found = rest[:40].decode(errors="replace")
            raise ValueError(
                f"{str(path)!r} is not valid JSON: behind the end of its array stands {found!r}. Put all records into "
                "one array, or write one on each line."
            )


__all__ = [
    "BOM",
    "JsonRecordError",
    "append_lines",
    "parse_record",
    "read_json_lines",
    "read_json_records",
    "read_own_lines",
]
