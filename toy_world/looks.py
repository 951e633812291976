"""How films and pictures are shown: between black bars, darker or brighter, and as files of several codecs."""

import itertools
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

# x264's code for AVX-512 takes eight macroblocks of a row at a time, also where the row has fewer: what it makes of
# small pictures depends on what memory held before, most of all with B-frames. SSE4 gives what AVX2 gives.
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_REPEATABLE = {"bf": "0", **({"x264-params": "asm=sse4"} if _X86 else {})}

# The encoder of each, and what makes it fast on small pictures and equal for equal frames.
CODECS = {
    "h264": ("libx264", {"crf": "20", "preset": "veryfast", **_REPEATABLE}),
    "hevc": (
        "libx265",
        {"crf": "24", "preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "vp9": ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg4": ("mpeg4", {"qscale": "3"}),
}
WIDEST = 2.4  # of a boxed picture, the longer side by the shorter


@dataclass(frozen=True)
class Look:
    """`height` and `width` are those of the whole picture, of which bars may be a part; `light` multiplies it."""

    height: int
    width: int
    light: float = 1.0

    def show(self, picture: np.ndarray) -> np.ndarray:
        """The picture, `(height, width, 3)` uint8, in the middle of black bars."""
        if self.light != 1:
            picture = np.clip(picture * np.float32(self.light), 0, 255).astype(np.uint8)
        height, width = picture.shape[:2]
        if (height, width) == (self.height, self.width):
            return picture
        whole = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        whole[top : top + height, left : left + width] = picture
        return whole


def draw_look(rng: Random, side: int, boxed: float, light: tuple[float, float]) -> Look:
    """That of one video or picture: with the chance `boxed` of another shape than the square of `side` pixels."""
    is_boxed, shape = rng.random() < boxed, rng.uniform(-1, 1)
    gain = light[0] if light[0] == light[1] else rng.uniform(*light)
    if not is_boxed:
        return Look(side, side, gain)
    longer = 2 * max(round(side * math.exp(abs(shape) * math.log(WIDEST)) / 2), side // 2 + 1)
    return Look(side, longer, gain) if shape > 0 else Look(longer, side, gain)


def encode(path: Path, frames: Iterable[np.ndarray], fps: float, codec: str = "h264") -> None:
    """
    Writes frames, `(height, width, 3)` uint8, with a keyframe at least every 5 seconds. The file appears when it is
    whole.
    """
    encoder, options = CODECS[codec]
    rate = Fraction(fps).limit_denominator(1001)
    frames = iter(frames)
    first = next(frames)
    # FFmpeg takes what stands before a colon of a relative path for a protocol.
    part = path.absolute().with_name(f".{path.name}.part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=rate, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = round(5 * fps)
        stream.codec_context.thread_count = 1
        for frame in itertools.chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    part.replace(path)


__all__ = ["CODECS", "Look", "draw_look", "encode"]
