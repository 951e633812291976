"""Storyboards: the scenes that were selected from a video, as one picture for people."""

import math
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

PAPER, CARD, EDGE = (244, 241, 235), (255, 255, 255), (226, 220, 210)
INK, FAINT = (38, 42, 54), (128, 126, 124)
REPRESENTATIVE, SUPPLEMENT = (224, 88, 58), (66, 122, 148)
# Of systems, for letters that Pillow's own font lacks, which are nearly all beside ASCII.
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf")
FONTS += ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "PingFang.ttc")
FLATTEST, TALLEST = 0.3, 2.0  # height of a frame's place by its width; others stand in one with room beside them


def draw_storyboard(
    frames: np.ndarray,
    scenes: np.ndarray,
    timestamps: np.ndarray,
    *,
    title: str = "",
    subtitle: str = "",
    duration: float | None = None,
    scores: tuple[np.ndarray, np.ndarray] | None = None,
    film: np.ndarray | None = None,
    columns: int | None = None,
    frame_width: int = 208,
    noun: str = "Scene",
) -> Image.Image:
    """
    Draws a row of frames for every scene, in order of time, with the representative marked and dated. A frame's place
    is at most twice as high as it is wide, and at least three tenths as high.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8 RGB.
        scenes (`np.ndarray` of shape `(num_scenes, scene_size)`):
            Indices into `frames`; the last of a scene is its representative, as [`select_scenes`] gives them.
        timestamps (`np.ndarray` of shape `(num_frames,)`): Seconds from the start of the video.
        title (`str`, *optional*): The headline, usually the name of the video's file.
        subtitle (`str`, *optional*): A line under it, usually how the scenes were selected.
        duration (`float`, *optional*): Seconds of the whole video; with it, a time line is drawn under the headline.
        scores (`tuple[np.ndarray, np.ndarray]`, *optional*):
            Times of the candidates in seconds and what the question gave them, both `(num_candidates,)`: a thin bar
            each under the time line.
        film (`np.ndarray` of shape `(num_others,)`, *optional*):
            Indices into `frames` of those beside the scenes: a film strip of small pictures under them.
        columns (`int`, *optional*): Scenes side by side. By default as many as make a pleasant shape.
        frame_width (`int`, *optional*, defaults to 208): Of a frame on the board, in pixels.
        noun (`str`, *optional*, defaults to `"Scene"`): What the rows are called.

    Returns:
        `PIL.Image.Image`, RGB.

    Raises:
        ValueError: If the shapes do not fit each other, or `columns` or `frame_width` is too small.
    """
    frames, scenes, timestamps = (np.asarray(value) for value in (frames, scenes, timestamps))
    _check(frames, scenes, timestamps, scores, columns, frame_width)
    above = 92 if duration is None else 150 if scores is None else 200
    film = np.array([], dtype=int) if film is None else np.asarray(film)
    if len(film) and not 0 <= film.min() <= film.max() < len(frames):
        raise ValueError(f"`film` names the frames {film.min()} to {film.max()}, but there are {len(frames)} frames.")
    board = _Board(frames.shape[1] / frames.shape[2], *scenes.shape, columns, frame_width, above, len(film))
    board.headline(title, subtitle)
    if duration is not None:
        board.time_line(scenes, timestamps, duration)
        if scores is not None:
            board.score_bars(*(np.asarray(values, dtype=float) for values in scores), duration)
    for number, scene in enumerate(scenes):
        board.scene(f"{noun} {number + 1}", number, frames[scene], timestamps[scene])
    board.film_strip(frames[film], timestamps[film])
    return board.image


def _check(
    frames: np.ndarray,
    scenes: np.ndarray,
    timestamps: np.ndarray,
    scores: tuple[np.ndarray, np.ndarray] | None,
    columns: int | None,
    frame_width: int,
) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"`frames` must be uint8 of shape (num_frames, height, width, 3), got {frames.dtype} {frames.shape}."
        )
    if scenes.ndim != 2 or 0 in scenes.shape:
        raise ValueError(
            f"`scenes` must have the shape (num_scenes, scene_size), at least (1, 1), got {scenes.shape}."
        )
    if timestamps.shape != frames.shape[:1]:
        raise ValueError(f"`timestamps` has the shape {timestamps.shape}, but there are {len(frames)} frames.")
    if scenes.min() < 0 or scenes.max() >= len(frames):
        raise ValueError(
            f"`scenes` names the frames {scenes.min()} to {scenes.max()}, but there are {len(frames)} frames."
        )
    if scores is not None and np.shape(scores[0]) != np.shape(scores[1]):
        raise ValueError(f"`scores` has {len(scores[0])} times and {len(scores[1])} scores: there must be one each.")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` must be at least 1, got {columns}.")
    if frame_width < 64:
        raise ValueError(f"`frame_width` must be at least 64 pixels, got {frame_width}.")


def write_picture(picture: Image.Image, path: str | Path) -> None:
    """Encoded before it is written: an interrupted command leaves no half picture."""
    encoded = BytesIO()
    picture.save(encoded, {".png": "PNG", ".webp": "WEBP"}.get(Path(path).suffix.lower(), "JPEG"))
    Path(path).write_bytes(encoded.getvalue())


def clock(seconds: float, digits: int = 1) -> str:
    """Seconds as minutes and seconds with a tenth, `1:02.5`; from an hour on `1:00:02.5`. Or with more `digits`."""
    unit = 10**digits
    parts = round(seconds * unit)
    minutes, hours = parts // (60 * unit) % 60, parts // (3600 * unit)
    rest = f"{parts // unit % 60:02d}.{parts % unit:0{digits}d}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def clocks(times: Sequence[float]) -> list[str]:
    """A label for each time, with as many digits as it takes to tell different times apart, at most three."""
    for digits in (1, 2, 3):
        labels = [clock(seconds, digits) for seconds in times]
        if len(set(labels)) == len(set(times)):
            break
    return labels


@lru_cache(maxsize=256)
def _font(name: str | None, size: float) -> ImageFont.FreeTypeFont | None:
    """One of the system, or Pillow's own; `None` where there is none of that name."""
    if name is None:
        return ImageFont.load_default(size)
    with suppress(OSError):
        return ImageFont.truetype(name, size)
    return None


@lru_cache(maxsize=4096)
def _is_drawn(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a font has the character; it draws the same box for all that it has not."""
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff"))


def _drawable(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """
    A text, and the font that lacks the fewest of its characters. Of those that it lacks, the parts that it has stand
    in their place, such as a letter without its accent, or a question mark.
    """
    text = unicodedata.normalize("NFC", text)

    def lacking(font: ImageFont.FreeTypeFont) -> int:
        return sum(not _is_drawn(font, character) for character in text)

    font = _font(None, size)
    if lacking(font):
        font = min(filter(None, (_font(name, size) for name in (None, *FONTS))), key=lacking)

    def drawn(character: str) -> str:
        if _is_drawn(font, character):
            return character
        parts = unicodedata.normalize("NFKD", character)
        return "".join(part for part in parts if _is_drawn(font, part)) or "?"

    return "".join(map(drawn, text)), font


class _Board:
    """The picture and its measures, all of them multiples of a frame's width."""

    def __init__(
        self,
        aspect: float,
        num_scenes: int,
        scene_size: int,
        columns: int | None,
        frame_width: int,
        above: float,
        num_others: int = 0,
    ) -> None:
        self.unit = unit = frame_width / 208
        bounded = min(max(aspect, FLATTEST), TALLEST)
        self.fit = ImageOps.fit if bounded == aspect else partial(ImageOps.pad, color=EDGE)
        aspect = bounded
        self.frame_size = frame_width, max(round(frame_width * aspect), 1)
        self.gap, self.margin, self.padding = round(8 * unit), round(36 * unit), round(14 * unit)
        self.caption = round(34 * unit)
        self.card_width = scene_size * frame_width + (scene_size - 1) * self.gap + 2 * self.padding
        self.card_height = self.frame_size[1] + self.caption + 2 * self.padding
        self.spacing = round(16 * unit)
        self.columns = min(columns or self._pleasant_columns(num_scenes), num_scenes)
        rows = math.ceil(num_scenes / self.columns)
        self.top = self.margin + round(above * unit)
        width = 2 * self.margin + self.columns * (self.card_width + self.spacing) - self.spacing
        # A film strip of smaller pictures, with a line of text above each row.
        small = max(frame_width // 3, 1), max(round(frame_width * aspect / 3), 1)
        self.small, self.strip_columns = small, max((width - 2 * self.margin) // (small[0] + round(3 * unit)), 1)
        self.strip_top = self.top + rows * (self.card_height + self.spacing)
        self.strip_row = small[1] + round(26 * unit)
        strip = math.ceil(num_others / self.strip_columns) * self.strip_row
        height = self.strip_top - self.spacing + strip + self.margin
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def _pleasant_columns(self, num_scenes: int) -> int:
        def shape(columns: int) -> float:
            rows = math.ceil(num_scenes / columns)
            ratio = columns * (self.card_width + self.spacing) / (rows * (self.card_height + self.spacing))
            return abs(math.log(ratio / 1.6))

        return min(range(1, num_scenes + 1), key=shape)

    def text(
        self, position: tuple[float, float], text: str, size: float, color: tuple = INK, anchor: str = "ls"
    ) -> None:
        text, font = _drawable(text, size * self.unit)
        self.draw.text(position, text, fill=color, font=font, anchor=anchor)

    def fitting(self, text: str, size: float, width: float) -> str:
        """`text`, with its middle left out where it is too long for `width` pixels."""
        text, font = _drawable(text, size * self.unit)
        kept = len(text)
        short = text
        while font.getlength(short) > width and kept > 2:
            kept -= 1
            short = f"{text[: math.ceil(kept / 2)]}…{text[len(text) - kept // 2 :]}"
        return short

    def headline(self, title: str, subtitle: str) -> None:
        width = self.image.width - 2 * self.margin
        self.text((self.margin, self.margin + 32 * self.unit), self.fitting(title, 34, width), 34)
        self.text((self.margin, self.margin + 66 * self.unit), self.fitting(subtitle, 19, width), 19, FAINT)

    def time_line(self, scenes: np.ndarray, timestamps: np.ndarray, duration: float) -> None:
        """Where in the video the chosen frames lie: a long mark a representative, a short one a supplement."""
        unit, left, right = self.unit, self.margin, self.image.width - self.margin
        y = self.margin + 100 * unit
        self.draw.rounded_rectangle((left, y - 3 * unit, right, y + 3 * unit), 3 * unit, fill=EDGE)
        for part, color, reach in ((scenes[:, :-1], SUPPLEMENT, 7), (scenes[:, -1:], REPRESENTATIVE, 12)):
            for seconds in timestamps[part.ravel()]:
                x = left + (right - left) * min(seconds / duration, 1.0) if duration > 0 else left
                box = (x - 1.5 * unit, y - reach * unit, x + 1.5 * unit, y + reach * unit)
                self.draw.rounded_rectangle(box, 1.5 * unit, fill=color)
        self.text((left, y + 32 * unit), clock(0), 16, FAINT)
        self.text((right, y + 32 * unit), clock(duration), 16, FAINT, "rs")

    def score_bars(self, times: np.ndarray, scores: np.ndarray, duration: float) -> None:
        """How high the question scores each candidate, from the lowest score to the highest one."""
        unit, left, right = self.unit, self.margin, self.image.width - self.margin
        bottom, height = self.margin + 184 * unit, 40 * unit
        heights = (scores - scores.min()) / max(scores.max() - scores.min(), 1e-12) * height
        self.draw.line((left, bottom, right, bottom), fill=EDGE, width=max(round(unit), 1))
        wide = max(0.7 * (right - left) / max(len(times), 1) / 2, 0.75)
        for seconds, reach in zip(times, heights, strict=True):
            x = left + (right - left) * min(seconds / duration, 1.0) if duration > 0 else left
            ends = max(x - wide, left), min(x + wide, right)
            self.draw.rectangle((ends[0], bottom - reach, ends[1], bottom), fill=SUPPLEMENT)

    def film_strip(self, frames: np.ndarray, timestamps: np.ndarray) -> None:
        """Small pictures in the order of time, each row with the times of its first and its last one."""
        unit, left = self.unit, self.margin
        for start in range(0, len(frames), self.strip_columns):
            row = slice(start, start + self.strip_columns)
            top = self.strip_top + start // self.strip_columns * self.strip_row
            first, last = clock(float(timestamps[row][0])), clock(float(timestamps[row][-1]))
            self.text((left, top + 15 * unit), first if first == last else f"{first} to {last}", 15, FAINT)
            for column, frame in enumerate(frames[row]):
                picture = self.fit(Image.fromarray(frame), self.small, Image.LANCZOS)
                x = left + column * (self.small[0] + round(3 * unit))
                self.image.paste(picture, (x, top + round(20 * unit)))

    def scene(self, name: str, number: int, frames: np.ndarray, timestamps: np.ndarray) -> None:
        unit = self.unit
        left = self.margin + number % self.columns * (self.card_width + self.spacing)
        top = self.top + number // self.columns * (self.card_height + self.spacing)
        box = (left, top, left + self.card_width, top + self.card_height)
        self.draw.rounded_rectangle(box, 12 * unit, fill=CARD, outline=EDGE, width=max(round(1.5 * unit), 1))
        baseline = top + self.padding + 17 * unit
        self.text((left + self.padding, baseline), name, 20)
        stamps = clocks([float(seconds) for seconds in timestamps])
        span = stamps[-1] if stamps[0] == stamps[-1] else f"{stamps[0]} to {stamps[-1]}"
        self.text((left + self.card_width - self.padding, baseline), span, 17, FAINT, "rs")
        for column, (frame, seconds) in enumerate(zip(frames, timestamps, strict=True)):
            x = left + self.padding + column * (self.frame_size[0] + self.gap)
            is_representative = column == len(frames) - 1 > 0
            # A scene without enough of a past repeats its representative.
            is_repeated = column < len(frames) - 1 and seconds == timestamps[-1]
            stamp = "repeated" if is_repeated else stamps[column]
            self._frame(frame, x, top + self.padding + self.caption, stamp, is_representative, is_repeated)

    def _frame(
        self, frame: np.ndarray, x: int, y: int, stamp: str, is_representative: bool, is_repeated: bool
    ) -> None:
        unit, (width, height) = self.unit, self.frame_size
        picture = self.fit(Image.fromarray(frame), self.frame_size, Image.LANCZOS)
        if is_repeated:
            picture = Image.blend(picture, Image.new("RGB", picture.size, CARD), 0.65)
        mask = Image.new("L", (width * 4, height * 4))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * 4 - 1, height * 4 - 1), 24 * unit, fill=255)
        self.image.paste(picture, (x, y), mask.reduce(4))
        if is_representative:
            width_line = max(round(4 * unit), 2)
            box = (x - width_line + 1, y - width_line + 1, x + width + width_line - 2, y + height + width_line - 2)
            self.draw.rounded_rectangle(box, 8 * unit, outline=REPRESENTATIVE, width=width_line)
            self._label("representative", x + 6 * unit, y + 6 * unit, REPRESENTATIVE)
        self._label(stamp, x + 6 * unit, y + height - 28 * unit, FAINT if is_repeated else INK)

    def _label(self, text: str, x: float, y: float, color: tuple) -> None:
        text, font = _drawable(text, 14 * self.unit)
        width = font.getlength(text) + 12 * self.unit
        self.draw.rounded_rectangle((x, y, x + width, y + 22 * self.unit), 5 * self.unit, fill=color)
        self.draw.text((x + width / 2, y + 11 * self.unit), text, fill=CARD, font=font, anchor="mm")


__all__ = ["clock", "draw_storyboard", "write_picture"]
