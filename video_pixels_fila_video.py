"""From a decoded frame to RGB as a player shows it: upright, with square pixels, in SDR, at the wanted size."""

import os
import struct
from collections.abc import Iterator
from functools import cache

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
from av.sidedata.sidedata import SideDataContainer

from .video_limits_fila_video import VideoLimits
from .video_sources_fila_video import OpenedSource

# libswscale's flags: bicubic, its support growing as the picture shrinks (antialiasing), full chroma, exact rounding.
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000
_BT2020, _PQ, _HLG = 9, 16, 18  # as H.273 numbers primaries and transfer functions
_PEAK = 10.0  # brightest light that is told apart, in units of 100 cd/m2, which become SDR's white
_ROWS = 256  # of an interlaced picture, blended at a time
# Linear light of BT.2020's primaries to that of BT.709's (ITU-R BT.2087).
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)


def display_turn(frame: av.VideoFrame) -> tuple[int, bool]:
    """How to show a frame upright: `(k, mirror)`, k quarter turns counterclockwise, then mirrored left to right."""
    try:
        # Not `frame.side_data`: frame and side data would hold each other, and the pixels, until garbage is collected.
        matrix = {data.type.name: data for data in SideDataContainer(frame)}.get("DISPLAYMATRIX")
    except ValueError:  # other data of a kind that PyAV does not know yet, such as a photograph's EXIF
        return round(frame.rotation / 90) % 4, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix)[:20], dtype=np.int32).tolist()
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

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turn, mirror = display_turn(frame)
        height, width = self.size if turn % 2 == 0 else self.size[::-1]
        transfer, primaries = int(frame.color_trc or 0), int(frame.color_primaries or 0)
        if transfer in (_PQ, _HLG) or primaries == _BT2020:
            array = self._scale(frame, width, height, "rgb48le")
            array = np.concatenate([to_sdr(rows, transfer, primaries) for rows in np.array_split(array, 8)])
        elif frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
            array = self._scale(frame, width, height, "rgba").astype(np.uint16)
            array = ((array[..., :3] * array[..., 3:] + 127) // 255).astype(np.uint8)
        else:
            if frame.interlaced_frame and frame.height > 2:
                frame = self._deinterlaced(frame)
            array = self._scale(frame, width, height, "rgb24")
        if turn:
            array = np.rot90(array, turn)
        if mirror:
            array = array[:, ::-1]
        return np.ascontiguousarray(array)

    def _scale(self, frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> np.ndarray:
        scaled = self._scaler.reformat(frame, width, height, pixel_format, interpolation=_SCALING, threads=1)
        return scaled.to_ndarray()

    def _deinterlaced(self, frame: av.VideoFrame) -> av.VideoFrame:
        array = self._scale(frame, frame.width, frame.height, "rgb24")
        blended = array.copy()
        for row in range(1, len(array) - 1, _ROWS):
            part = array[row - 1 : row + _ROWS + 1].astype(np.uint16)
            blended[row : row + len(part) - 2] = (part[:-2] + 2 * part[1:-1] + part[2:] + 2) // 4
        return av.VideoFrame.from_ndarray(blended, format="rgb24")


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


def webp_frames(source: OpenedSource) -> Iterator[av.VideoFrame]:
    """
    The frames of an animated WebP, which FFmpeg cannot decode, from Pillow: their `pts` and `duration` are in
    milliseconds.

    Raises:
        VideoReadError: If it is a still picture, damaged, or over the limits.
    """
    with source.open() as file:
        try:
            with PIL.Image.open(file, formats=["WEBP"]) as image:
                source.budget.check_frame(*image.size)
                if getattr(image, "n_frames", 1) == 1:
                    raise source.error("it is a still picture, not a video")
                time = 0
                for number in range(image.n_frames):
                    source.budget.spend(packets=1, frame=image.size)
                    image.seek(number)
                    frame = av.VideoFrame.from_ndarray(np.array(image.convert("RGBA")), format="rgba")
                    frame.pts, frame.duration = time, max(1, image.info["duration"])
                    time += frame.duration
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
    access = {"limits": limits, "allow_private_hosts": allow_private_hosts}
    with OpenedSource(source, kind="picture", **access) as opened, opened.open() as file:
        try:
            image = PIL.Image.open(file, formats=formats)
            opened.budget.check_frame(*image.size)
            image.load()
            return PIL.ImageOps.exif_transpose(image)
        except PIL.UnidentifiedImageError as error:
            raise opened.error("it is not a picture that Pillow knows") from error
        except (OSError, SyntaxError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
            raise opened.error(f"it cannot be decoded ({error})") from error


__all__ = ["FrameConverter", "display_size", "display_turn", "open_picture", "to_sdr", "webp_frames"]
