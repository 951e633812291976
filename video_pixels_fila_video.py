"""From a decoded frame to RGB as a player shows it: upright, with square pixels, in SDR, at the wanted size."""

import io
import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
from av.sidedata.sidedata import SideDataContainer

from .video_sources_fila_video import Budget, OpenedSource, VideoLimits, download, is_url, source_name

# libswscale's flags: bicubic, its support growing as the picture shrinks (antialiasing), full chroma, exact rounding.
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000
_DISPLAY_MATRIX = "DISPLAYMATRIX"
_BT2020, _PQ, _HLG = 9, 16, 18  # as H.273 numbers primaries and transfer functions
_PEAK = 10.0  # brightest light that is told apart, in units of 100 cd/m2, which become SDR's white
_ROWS = 256  # of an interlaced picture, blended at a time
# Linear light of BT.2020's primaries to that of BT.709's (ITU-R BT.2087).
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


def display_turn(frame: av.VideoFrame) -> tuple[int, bool]:
    """How to show a frame upright: `(k, mirror)`, k quarter turns counterclockwise, then mirrored left to right."""
    # Not `frame.side_data`: frame and side data would hold each other, and the pixels, until garbage is collected.
    for data in SideDataContainer(frame):
        if data.type.name == _DISPLAY_MATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data)[:20], dtype=np.int32).tolist()
            break
    else:
        return 0, False
    # (x, y) is shown at (a x + c y, b x + d y), y downwards. A mirrored picture has a negative determinant.
    mirror = a * d - b * c < 0
    if mirror:
        a, c = -a, -c
    if abs(a) >= abs(b):
        return (0 if a > 0 else 2), mirror
    return (3 if b > 0 else 1), mirror


def display_size(frame: av.VideoFrame, pixel_aspect: float | None = None) -> tuple[int, int]:
    """(height, width) of a frame as a player shows it: pixels made square by widening or narrowing, then turned."""
    width, height = frame.width, frame.height
    aspect = float(pixel_aspect or 0)
    if 0.1 <= aspect <= 10:
        width = max(1, round(width * aspect))
    return (width, height) if display_turn(frame)[0] % 2 else (height, width)


class FrameConverter:
    """
    Converts frames to (height, width, 3) uint8 arrays of one size, reusing the scaler's tables.

    Transparency is laid over black, interlaced lines are blended with their neighbors, HDR (PQ, HLG) and BT.2020
    become BT.709.

    Args:
        size (`tuple[int, int]`): (height, width) of the arrays.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._scaler = av.video.reformatter.VideoReformatter()
        self._threads = {"threads": 1}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turn, mirror = display_turn(frame)
        height, width = self.size if turn % 2 == 0 else self.size[::-1]
        transfer, primaries = int(frame.color_trc or 0), int(frame.color_primaries or 0)
        if transfer in (_PQ, _HLG) or primaries == _BT2020:
            array = self._scale(frame, width, height, "rgb48le").to_ndarray()
            array = np.concatenate([to_sdr(rows, transfer, primaries) for rows in np.array_split(array, 8)])
        elif _has_alpha(frame):
            array = self._scale(frame, width, height, "rgba").to_ndarray().astype(np.uint16)
            array = ((array[..., :3] * array[..., 3:] + 127) // 255).astype(np.uint8)
        else:
            if frame.interlaced_frame and frame.height > 2:
                frame = self._deinterlaced(frame)
            array = self._scale(frame, width, height, "rgb24").to_ndarray()
        if turn:
            array = np.rot90(array, turn)
        if mirror:
            array = array[:, ::-1]
        return np.ascontiguousarray(array)

    def _scale(self, frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> av.VideoFrame:
        arguments = {"width": width, "height": height, "format": pixel_format, "interpolation": _SCALING}
        try:
            return self._scaler.reformat(frame, **arguments, **self._threads)
        except TypeError:  # an older PyAV, which scales on one thread anyway
            self._threads = {}
            return self._scaler.reformat(frame, **arguments)

    def _deinterlaced(self, frame: av.VideoFrame) -> av.VideoFrame:
        array = self._scale(frame, frame.width, frame.height, "rgb24").to_ndarray()
        blended = array.copy()
        for row in range(1, len(array) - 1, _ROWS):
            part = array[row - 1 : row + _ROWS + 1].astype(np.uint16)
            blended[row : row + len(part) - 2] = (part[:-2] + 2 * part[1:-1] + part[2:] + 2) // 4
        return av.VideoFrame.from_ndarray(blended, format="rgb24")


def _has_alpha(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    return name == "pal8" or name.startswith(("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16"))


def to_sdr(frame: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """
    Tone-maps a frame with Hable's curve, which keeps the ratios of red, green and blue.

    Args:
        frame (`np.ndarray`): (height, width, 3) uint16, full range, encoded for its own transfer function.
        transfer (`int`): H.273's number of that function: 16 is PQ, 18 is HLG, others are taken for BT.1886.
        primaries (`int`): H.273's number of the primaries: 9 is BT.2020, others are taken for BT.709.

    Returns:
        `np.ndarray`: (height, width, 3) uint8, BT.709.
    """
    light = _light_of(transfer)[frame]
    if transfer == _HLG:  # the scene's light becomes that of a display of 1,000 cd/m2 (ITU-R BT.2100, gamma 1.2)
        luminance = light @ np.array([0.2627, 0.678, 0.0593], dtype=np.float32)
        light *= 10 * np.maximum(luminance, 1e-6)[..., None] ** 0.2
    if primaries == _BT2020:
        light = light @ _TO_BT709.T
    if transfer in (_PQ, _HLG):
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
        light *= _hable(brightest) / (_hable(_PEAK) * brightest)
    return _codes()[(np.clip(light, 0, 1) * 65535 + 0.5).astype(np.uint16)]


def _hable(light: np.ndarray | float) -> np.ndarray | float:
    return (light * (light * 0.15 + 0.05) + 0.004) / (light * (light * 0.15 + 0.5) + 0.06) - 0.02 / 0.3


@cache
def _light_of(transfer: int) -> np.ndarray:
    """(65536,) float32: the linear light of each code. PQ's unit is 100 cd/m2, HLG's and BT.1886's the peak."""
    code = np.arange(65536) / 65535
    if transfer == _PQ:
        power = code ** (1 / 78.84375)
        light = 100 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    elif transfer == _HLG:
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = code**2.4
    return light.astype(np.float32)


@cache
def _codes() -> np.ndarray:
    """(65536,) uint8: the code of linear light from 0 to 1, for a display of BT.1886."""
    return np.round(255 * (np.arange(65536) / 65535) ** (1 / 2.4)).astype(np.uint8)


def webp_times(source: OpenedSource) -> list[int]:
    """
    When each frame of an animated WebP begins, in milliseconds, and when the last one ends.

    Raises:
        VideoReadError: If it is a still picture, or its canvas or all frames together are over the limits.
    """
    times = [0]
    with source.open() as file:
        position, size = 12, file.seek(0, io.SEEK_END)
        width = height = 1
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"VP8X":
                numbers = file.read(10).ljust(10, b"\0")
                width, height = (1 + int.from_bytes(numbers[at : at + 3], "little") for at in (4, 7))
                source.budget.check_frame(width, height)
            elif name == b"ANMF":
                source.budget.spend(packets=1, pixels=width * height)
                milliseconds = int.from_bytes(file.read(15).ljust(15, b"\0")[12:15], "little")
                times.append(times[-1] + max(1, milliseconds))
            position += 8 + length + length % 2
    if len(times) <= 2:
        raise source.error("it is a still picture, not a video")
    return times


def webp_frames(source: OpenedSource) -> Iterator[av.VideoFrame]:
    """The frames of an animated WebP, which FFmpeg cannot decode, from Pillow; their `pts` is their number."""
    with source.open() as file:
        try:
            with PIL.Image.open(file, formats=["WEBP"]) as image:
                source.budget.check_frame(*image.size)
                for number in range(getattr(image, "n_frames", 1)):
                    image.seek(number)
                    source.budget.spend(pixels=image.width * image.height)
                    pixels = np.array(image if image.mode == "RGBA" else image.convert("RGBA"))
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
                    frame.pts = number
                    yield frame
        except (OSError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
            raise source.error(f"it is damaged ({error})") from error


def open_picture(
    source: str | os.PathLike | bytes,
    *,
    limits: VideoLimits | None = None,
    allow_private_hosts: bool = True,
    formats: tuple[str, ...] | None = None,
) -> PIL.Image.Image:
    """
    A still picture, upright, decoded within limits.

    Args:
        source (`str`, `os.PathLike` or `bytes`): A path, an `http(s)://` URL or the bytes of a file.
        limits ([`VideoLimits`], *optional*): `frame_pixels`, and for a URL those of a download.
        allow_private_hosts (`bool`, *optional*, defaults to `True`): As for [`download`].
        formats (`tuple[str, ...]`, *optional*): Pillow's names of the formats to try; all by default.

    Raises:
        VideoReadError: If it cannot be read, or is too large.
    """
    budget = Budget(limits, f"the picture {source_name(source)}", is_url(source))
    if is_url(source):
        file = io.BytesIO()
        download(source, file, budget, allow_private_hosts)
    elif isinstance(source, (str, os.PathLike)):
        try:
            file = io.BytesIO(Path(source).read_bytes())
        except (OSError, ValueError) as error:
            raise budget.error(f"it cannot be opened ({error})") from error
    else:
        file = io.BytesIO(source)
    try:
        image = PIL.Image.open(file, formats=formats)
        budget.check_frame(*image.size)
        image.load()
        return PIL.ImageOps.exif_transpose(image)
    except PIL.UnidentifiedImageError as error:
        raise budget.error("it is not a picture that Pillow knows") from error
    except (OSError, SyntaxError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise budget.error(f"it cannot be decoded ({error})") from error


__all__ = [
    "FrameConverter",
    "display_size",
    "display_turn",
    "open_picture",
    "to_sdr",
    "webp_frames",
    "webp_times",
]
