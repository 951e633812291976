"""A look into the headers of MP4 and QuickTime files, before FFmpeg believes what they claim."""

import re
import struct
from collections.abc import Callable

from .video_limits_fila_video import MAX_PACKETS

MAX_HEADER = 1 << 26  # bytes of one header box; that of two hours takes some 3 MB
_PLAIN = (b"mdat", b"free", b"skip", b"wide")  # boxes without boxes in them
# Where a table's number of entries stands behind its name. FFmpeg makes an entry of its own for each sample that these
# announce, even if the file is a few bytes long.
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}


def is_mp4(head: bytes) -> bool:
    """Whether a file begins with a box: a length and a name of four letters."""
    return len(head) >= 8 and re.fullmatch(rb"[a-zA-Z0-9 ]{4}", head[4:8]) is not None and head[:4] < b"\x10"


def check_boxes(file, error: Callable[[str], ValueError]):
    """Raises `error(...)` where a header announces encryption, or more samples than the file or the reader holds."""
    position, samples = 0, 0
    while position + 8 <= file.size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        start = position + 8
        if length == 1:
            length, start = int.from_bytes(file.read(8), "big"), start + 8
        end = min(position + length, file.size) if length else file.size
        if name not in _PLAIN:
            if end - start > MAX_HEADER:
                raise error(f"its header of {end - start} bytes is larger than the limit of {MAX_HEADER}")
            samples += _count_samples(file.read(max(0, end - start)), file.size, error)
        if samples > MAX_PACKETS:
            raise error(f"its header announces more than {MAX_PACKETS} samples")
        position = max(end, start)


def _count_samples(header, file_size, error):
    if b"cmov" in header:
        raise error("its header is compressed, which is not supported")
    if b"encv" in header and b"sinf" in header:
        raise error("it is encrypted")
    total = 0
    for match in re.finditer(b"stsz|stz2|trun", header):
        at = match.end() + _COUNTS[match.group()]
        count = int.from_bytes(header[at : at + 4], "big")
        if count > file_size:
            raise error(f"its header announces {count} samples in a file of {file_size} bytes")
        total += count
    return total


__all__ = ["check_boxes", "is_mp4"]
