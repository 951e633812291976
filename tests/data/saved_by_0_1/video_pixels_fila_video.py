"""From a decoded frame to RGB as a player shows it: upright, with square pixels, at the wanted size."""

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer

# libswscale's flags: bicubic, its support growing as the picture shrinks (antialiasing), full chroma, exact rounding.
_SCALING = 0x4 | 0x2000 | 0x4000 | 0x40000
_DISPLAY_MATRIX = "DISPLAYMATRIX"


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


def display_size(frame: av.VideoFrame, pixel_aspect) -> tuple[int, int]:
    """(height, width) of a frame as a player shows it: pixels made square by widening or narrowing, then turned."""
    width, height = frame.width, frame.height
    aspect = float(pixel_aspect or 0)
    if 0.1 <= aspect <= 10:
        width = max(1, round(width * aspect))
    return (width, height) if display_turn(frame)[0] % 2 else (height, width)


class FrameConverter:
    """Converts frames to (height, width, 3) uint8 arrays of one size, reusing the scaler's tables."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._scaler = av.video.reformatter.VideoReformatter()
        self._threads = {"threads": 1}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turn, mirror = display_turn(frame)
        height, width = self.size if turn % 2 == 0 else self.size[::-1]
        if frame.interlaced_frame or _has_alpha(frame):
            frame = self._flattened(frame)
        array = self._scale(frame, width, height, "rgb24").to_ndarray()
        if turn:
            array = np.rot90(array, turn)
        if mirror:
            array = array[:, ::-1]
        return np.ascontiguousarray(array)

    def _scale(self, frame, width, height, pixel_format):
        arguments = {"width": width, "height": height, "format": pixel_format, "interpolation": _SCALING}
        try:
            return self._scaler.reformat(frame, **arguments, **self._threads)
        except TypeError:  # an older PyAV, which scales on one thread anyway
            self._threads = {}
            return self._scaler.reformat(frame, **arguments)

    def _flattened(self, frame):
        """Interlaced lines blended with their neighbours, transparency laid over black, before scaling."""
        alpha = _has_alpha(frame)
        array = (
            self._scale(frame, frame.width, frame.height, "rgba" if alpha else "rgb24").to_ndarray().astype(np.uint16)
        )
        if frame.interlaced_frame and frame.height > 2:
            array[1:-1] = (array[:-2] + 2 * array[1:-1] + array[2:] + 2) // 4
        if alpha:
            array = (array[..., :3] * array[..., 3:] + 127) // 255
        flat = av.VideoFrame.from_ndarray(np.ascontiguousarray(array[..., :3], dtype=np.uint8), format="rgb24")
        return flat


def _has_alpha(frame):
    name = frame.format.name
    return name == "pal8" or name.startswith(("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16"))


__all__ = ["FrameConverter", "display_size", "display_turn"]
