"""Animated WebP, which FFmpeg cannot decode, read through Pillow."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import PIL.Image

from .video_limits_fila_video import MAX_PIXELS
from .video_plan_fila_video import PacketIndex, Run
from .video_sources_fila_video import VideoSource

MAX_BYTES = 1 << 28  # Pillow holds the whole file in memory


class WebPReader:
    """Reads an animated WebP in the manner of a `StreamReader`."""

    pixel_aspect = None

    def __init__(self, source: VideoSource, threads: int = 1):
        self.source = source
        self.lost = self.errors = 0
        self._view = source.open()
        try:
            if self._view.size > MAX_BYTES:
                raise source.error(f"an animated WebP of {self._view.size} bytes is too large, at most {MAX_BYTES}")
            self._open()
        except BaseException:
            self._view.close()
            raise

    def _open(self):
        try:
            self._image = PIL.Image.open(self._view, formats=["WEBP"])
        except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
            raise self.source.error(f"it is not a WebP that Pillow can open ({error})") from error
        width, height = self._image.size
        if width * height > MAX_PIXELS:
            raise self.source.error(f"its pictures of {width} x {height} are over the limit of {MAX_PIXELS} pixels")
        if getattr(self._image, "n_frames", 1) == 1:
            raise self.source.error("it is a still picture, not a video")

    def close(self):
        self._image.close()
        self._view.close()

    def announced(self) -> tuple[int, float]:
        return self._image.n_frames, 0.0

    def _frames(self) -> Iterator[av.VideoFrame]:
        for number in range(self._image.n_frames):
            try:
                self._image.seek(number)
                self._image.load()
            except (OSError, SyntaxError, ValueError, EOFError):
                self.errors += 1
                return
            frame = av.VideoFrame.from_ndarray(np.array(self._image.convert("RGBA")), format="rgba")
            frame.pts = number
            yield frame

    def index(self) -> tuple[PacketIndex, av.VideoFrame | None]:
        pts, first, end = [], None, 0
        for frame in self._frames():
            first = first or frame
            pts.append(end)
            end += max(1, int(self._image.info.get("duration", 0)))
        keys = np.arange(len(pts)) == 0
        none = np.zeros(len(pts), dtype=bool)
        times = np.array(pts, dtype=np.int64)
        return PacketIndex(times, np.zeros_like(times), keys, none, Fraction(1, 1000), end), first

    def read(self, run: Run, index: PacketIndex) -> Iterator[tuple[int, int, av.VideoFrame]]:
        wanted = set(run.frames)
        for number, frame in enumerate(self._frames()):
            if number in wanted:
                wanted.discard(number)
                yield number, number, frame
            if not wanted:
                return
        self.lost += len(wanted)


__all__ = ["WebPReader"]
