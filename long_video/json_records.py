"""The one reader of records in JSON: arrays and lines, a record at a time; errors name the file and the line."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

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
            if line.strip():
                try:
                    yield number, parse_record(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                except JsonRecordError as error:
                    yield number, error


def read_json_records(path: str | Path) -> Iterator[tuple[int, object]]:
    """
    The records of a JSON array or, whatever the file's name, of JSON lines; a file of any size takes little memory.

    Yields:
        The number of the line or of the element, from 1, and its record, or a `JsonRecordError` in its place.

    Raises:
        ValueError: If the file holds neither, ends within its array, or goes on behind it.
    """
    with open(path, "rb") as file:
        start = file.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
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


__all__ = ["JsonRecordError", "parse_record", "read_json_lines", "read_json_records"]
