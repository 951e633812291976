"""H.264 whose frames are two field pictures, which no encoder of PyAV writes: bit by bit, of uncompressed blocks."""

import io
from fractions import Fraction

import av
import numpy as np

from .video_files import picture

START = b"\0\0\0\1"
SIDE = 64  # width and height of the frames


def exp_golomb(number: int) -> str:
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def nal_unit(head: int, bits: str) -> bytes:
    """A unit of a stream with its end mark, and where its bytes would look like another's start, with a 3 in them."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    data = bytearray()
    for byte in int(bits, 2).to_bytes(len(bits) // 8, "big"):
        if data[-2:] == b"\0\0" and byte < 4:
            data.append(3)
        data.append(byte)
    return START + bytes([head]) + bytes(data)


def parameters(num_reordered: int) -> bytes:
    """Main profile, counts of 4 and 8 bits, 4 x 2 blocks a field, 25 frames a second."""
    ue = exp_golomb
    timing = f"{1:032b}{50:032b}1"
    restriction = "1" + ue(0) + ue(0) + ue(10) + ue(10) + ue(num_reordered) + ue(4)
    vui = "0000" + "1" + timing + "000" + "1" + restriction
    sequence = f"{77:08b}{0:08b}{30:08b}" + ue(0) + ue(0) + ue(0) + ue(4) + ue(2) + "0" + ue(3) + ue(1)
    sequence += "0" + "0" + "1" + "0" + "1" + vui
    return nal_unit(0x67, sequence) + nal_unit(0x68, ue(0) + ue(0) + "00" + ue(0) * 3 + "000" + ue(0) * 3 + "100")


def field_picture(
    rows: np.ndarray, count: int, shown: int, is_bottom: bool, is_key: bool, is_reference: bool
) -> bytes:
    """Half the rows (SIDE / 2, SIDE) of a gray frame; `count` is that of reference frames, `shown` the order."""
    ue = exp_golomb
    is_start = is_key and not is_bottom
    bits = ue(0) + ue(7) + ue(0) + f"{count % 16:04b}" + "1" + str(int(is_bottom))
    bits += ue(0) if is_start else ""
    bits += f"{(2 * shown + is_bottom) % 256:08b}"
    bits += ("00" if is_start else "0") if is_reference else ""
    bits += ue(0) + ue(1)
    for top in range(0, len(rows), 16):
        for left in range(0, SIDE, 16):
            bits += ue(25)
            bits += "0" * (-len(bits) % 8)
            samples = rows[top : top + 16, left : left + 16].tobytes() + bytes([128] * 128)
            bits += "".join(f"{sample:08b}" for sample in samples)
    return nal_unit(32 * is_reference + (5 if is_start else 1), bits)


def order_of(total: int, group: int, reordered: bool) -> list[int]:
    """The numbers of the frames in the order of decoding: 0 1 2 3 4 ..., or 0 2 1 4 3 ... within each group."""
    order = []
    for first in range(0, total, group):
        numbers = list(range(first, min(first + group, total)))
        pairs = [numbers[at : at + 2][::-1] for at in range(1, len(numbers), 2)] if reordered else [numbers[1:]]
        order += [numbers[0], *(number for pair in pairs for number in pair)]
    return order


def make_fields(total: int, packets: str = "two times", reordered: bool = False, group: int = 12) -> bytes:
    """
    A transport stream of `total` numbered frames, 25 a second, with a keyframe every `group` of them.

    Args:
        packets: Whether the fields of a frame have packets with `"two times"` or with `"one time"`, or `"one"` packet.
        reordered: Whether every second frame comes behind the one shown after it, and no other leans on it.
    """
    file, count, order = io.BytesIO(), 0, order_of(total, group, reordered)
    with av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream("h264", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for place, number in enumerate(order):
            is_key, is_reference = number % group == 0, number >= order[place - 1] or number == 0
            count = 0 if is_key else count
            gray, fields = picture(number, SIDE, SIDE)[:, :, 0], []
            for is_bottom in (False, True):
                start = nal_unit(9, "111") + (parameters(int(reordered)) if is_key and not is_bottom else b"")
                coded = (gray[is_bottom::2], count, number % group, is_bottom, is_key, is_reference)
                fields.append(start + field_picture(*coded))
            count += is_reference
            for half, data in enumerate([b"".join(fields)] if packets == "one" else fields):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts, packet.dts = 2 * number + 4 + half * (packets == "two times"), 2 * place + half
                packet.is_keyframe = is_key and half == 0
                out.mux(packet)
    return file.getvalue()


__all__ = ["make_fields"]
