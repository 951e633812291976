"""
A world to film: colored shapes that appear, move and leave before textured backgrounds that drift and change.

A [`Film`] is drawn from a random generator and renders itself frame by frame; what happens in it is known exactly.
"""

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (215, 35, 40),
    "green": (35, 165, 60),
    "blue": (45, 75, 230),
    "yellow": (240, 220, 40),
    "orange": (245, 135, 25),
    "purple": (150, 45, 190),
    "white": (248, 248, 248),
    "black": (12, 12, 12),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
MOTIONS = (
    "stands still",
    "moves to the left",
    "moves to the right",
    "moves up",
    "moves down",
    "moves in a circle",
    "grows",
    "shrinks",
)
TEXTURES = ("cloudy", "striped", "checkered", "dotted", "smooth")
PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
# One of each color, and each shape at least once: a model that is trained on the others shows with these whether it
# puts colors and shapes together, or knows things by heart.
UNSEEN_PAIRS = (
    ("red", "ring"),
    ("green", "triangle"),
    ("blue", "star"),
    ("yellow", "cross"),
    ("orange", "circle"),
    ("purple", "square"),
    ("white", "triangle"),
    ("black", "cross"),
)
NAMELESS = ""  # a color or a shape that the world has no name for
COMPOSITIONS = {
    "all": PAIRS,
    "train": tuple(pair for pair in PAIRS if pair not in UNSEEN_PAIRS),
    "held-out": UNSEEN_PAIRS,
    # What teaches each apart from the other.
    "shapes": tuple((NAMELESS, shape) for shape in SHAPES),
    "colors": tuple((color, NAMELESS) for color in COLORS),
}
APART = 40  # of a color without a name from all that have one, in RGB of 0 to 255
TRAVELS = MOTIONS[1:5]
TRAVEL = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """
    A colored shape. `size` is its side, `x` and `y` its middle, in parts of the picture's side. What of it is
    [`NAMELESS`] is drawn from the seed `look`.
    """

    color: str
    shape: str
    size: float
    x: float
    y: float
    motion: str = "stands still"
    look: int = 0

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape or 'thing'}".lstrip()

    @property
    def a_name(self) -> str:
        return f"{'an' if self.color == 'orange' else 'a'} {self.name}"

    def describe(self) -> dict:
        """In plain values, as the annotations hold it."""
        size, x, y = (round(value, 3) for value in (self.size, self.x, self.y))
        return {"color": self.color, "shape": self.shape, "size": size, "motion": self.motion, "x": x, "y": y}

    def at(self, progress: float) -> tuple[float, float, float]:
        """Size, x and y when that part of its time, 0 to 1, has passed; a quarter of the picture is travelled."""
        shift = 0.25 * (progress - 0.5)
        if self.motion == "grows":
            return self.size * (0.75 + 0.25 * progress), self.x, self.y
        if self.motion == "shrinks":
            return self.size * (1 - 0.25 * progress), self.x, self.y
        if self.motion == "moves in a circle":
            angle = 2 * math.pi * progress
            return self.size, self.x + 0.1 * math.cos(angle), self.y + 0.1 * math.sin(angle)
        dx, dy = TRAVEL.get(self.motion.split()[-1], (0, 0))
        return self.size, self.x + dx * shift, self.y + dy * shift


@dataclass(frozen=True)
class Event:
    """A thing that is seen from `start` to `end`, in seconds."""

    start: float
    end: float
    thing: Thing

    @property
    def caption(self) -> str:
        return f"{self.thing.a_name} {self.thing.motion}"

    def describe(self) -> dict:
        """The event in plain values, as the annotations hold it."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {**times, **self.thing.describe(), "caption": self.caption}


class Background:
    """
    A muted texture, larger than the picture, before which the camera drifts while the light changes slowly. `speed` is
    the fastest, in sides a second, and `contrast` how far the texture's two colors lie apart.
    """

    def __init__(self, rng: Random, side: int, speed: float = 0.02, contrast: float = 0.15) -> None:
        self.side = side
        self.texture = _texture(rng, 2 * side, contrast)
        self.rates = [rng.uniform(0.3, 1) * speed * rng.choice((-1, 1)) for _ in range(2)]
        self.phases = [rng.random() for _ in range(2)]
        self.light = (rng.uniform(0.05, 0.15), rng.uniform(20, 60), rng.random())

    def at(self, seconds: float) -> np.ndarray:
        """The picture without things, `(side, side, 3)` uint8."""
        # A triangle wave, so that the camera turns at the edges.
        corner = [
            int(self.side * abs(2 * ((phase + rate * seconds / 2) % 1) - 1))
            for phase, rate in zip(self.phases, self.rates, strict=True)
        ]
        view = self.texture[corner[0] : corner[0] + self.side, corner[1] : corner[1] + self.side]
        depth, period, phase = self.light
        gain = 1 - depth + depth * math.sin(2 * math.pi * (seconds / period + phase))
        return (view * np.float32(gain)).astype(np.uint8)


@dataclass(frozen=True)
class Film:
    """
    What is seen and when: `stretches` of (start, background), each until the next, and `events` in their order. Wrong
    answers and questions about what is not there name things of the pairs in `nameable` alone.
    """

    duration: float
    fps: float
    stretches: tuple[tuple[float, Background], ...]
    events: tuple[Event, ...]
    nameable: Sequence[tuple[str, str]] = PAIRS

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame, `(side, side, 3)` uint8; frame i is shown from i / fps."""
        events, stretches = list(self.events), list(self.stretches)
        for index in range(round(self.duration * self.fps)):
            now = index / self.fps
            while len(stretches) > 1 and stretches[1][0] <= now:
                stretches.pop(0)
            while events and events[0].end <= now:
                events.pop(0)
            picture = stretches[0][1].at(now)
            if events and events[0].start <= now:
                event = events[0]
                draw_thing(picture, event.thing, (now - event.start) / (event.end - event.start))
            yield picture


def draw_film(
    rng: Random,
    duration: float,
    fps: float,
    side: int,
    num_events: int,
    event_seconds: tuple[float, float],
    num_stretches: int,
    num_backgrounds: int,
    num_colors: int = len(COLORS),
    compositions: str = "all",
    moving: bool = False,
    grid: int | None = None,
) -> Film:
    """
    A film whose events, none of the same color and shape, begin anywhere, one after another with a gap of at least
    half of the shortest event. Where there are more stretches than backgrounds, scenes return. The things have at most
    `num_colors` colors and are of the [`COMPOSITIONS`] of that name. With `moving`, the camera moves fast before
    textures of more contrast. With a `grid`, things travel, each in one of so many runs of three evenly spaced frames,
    instead of `event_seconds` anywhere.

    Raises:
        ValueError: If the events do not fit the duration, or there are more than kinds of things.
    """
    pairs = COMPOSITIONS[compositions]
    colors = (*draw_colors(rng, num_colors), NAMELESS)
    names = [(color, shape) for color in colors for shape in (*SHAPES, NAMELESS) if (color, shape) in pairs]
    if num_events > len(names):
        raise ValueError(
            f"There are {len(names)} kinds of things in {num_colors} colors, got num_events {num_events}."
        )
    if grid is None:
        spans, motions = _anywhere(rng, duration, num_events, event_seconds), MOTIONS
    else:
        spans, motions = _on_grid(rng, duration - 1 / fps, num_events, grid), TRAVELS
    events = [
        Event(start, end, draw_new_thing(rng, color, shape, rng.choice(motions)))
        for (start, end), (color, shape) in zip(spans, rng.sample(names, num_events), strict=True)
    ]
    camera = (0.4, 0.35) if moving else ()
    backgrounds = [Background(rng, side, *camera) for _ in range(num_backgrounds)]
    starts = [0.0, *sorted(rng.uniform(0.05, 0.95) * duration for _ in range(num_stretches - 1))]
    stretches, last = [], None
    for start in starts:
        last = rng.choice([each for each in backgrounds if each is not last] or backgrounds)
        stretches.append((start, last))
    # Held-out things are asked about among all that there are: their number is small enough to be guessed from.
    return Film(duration, fps, tuple(stretches), tuple(events), PAIRS if compositions == "held-out" else pairs)


def _anywhere(rng: Random, duration: float, count: int, seconds: tuple[float, float]) -> list[tuple[float, float]]:
    """Start and end of `count` events of so many seconds, with gaps."""
    lengths = [rng.uniform(*seconds) for _ in range(count)]
    gap = seconds[0] / 2
    slack = duration - sum(lengths) - gap * (count + 1)
    if slack < 0:
        raise ValueError(f"{count} events of {sum(lengths):.1f} s in all do not fit into {duration:.1f} s.")
    used, spans = 0.0, []
    for rest, length in zip(sorted(rng.uniform(0, slack) for _ in lengths), lengths, strict=True):
        start = rest + used + gap
        used += gap + length
        spans.append((start, start + length))
    return spans


def _on_grid(rng: Random, last: float, count: int, grid: int) -> list[tuple[float, float]]:
    """
    Of `3 * grid` frames spaced evenly from 0 to `last` seconds, every three are a run: start and end of `count` runs,
    half a space before their first frame and behind their last.
    """
    if count > grid:
        raise ValueError(f"{count} events do not fit into {grid} runs of frames.")
    space = last / (3 * grid - 1)
    places = sorted(rng.sample(range(grid), count))
    return [(max((3 * place - 0.5) * space, 0.0), (3 * place + 2.5) * space) for place in places]


def draw_colors(rng: Random, count: int) -> list[str]:
    """`count` of the colors; all of them take nothing from the generator."""
    return rng.sample(list(COLORS), count) if count < len(COLORS) else list(COLORS)


def draw_new_thing(rng: Random, color: str, shape: str, motion: str = "stands still") -> Thing:
    """One of random size, at a place where it stays within the picture while it moves."""
    size = rng.uniform(0.34, 0.56)
    margin = size / 2 + (0.13 if motion.startswith("moves") else 0.01)
    x, y = (rng.uniform(margin, 1 - margin) for _ in range(2))
    return Thing(color, shape, size, x, y, motion, 0 if color and shape else rng.getrandbits(32))


def draw_thing(picture: np.ndarray, thing: Thing, progress: float = 0.0) -> None:
    """Draws it into `picture`, `(side, side, 3)` uint8, with smooth edges."""
    side = len(picture)
    size, x, y = thing.at(progress)
    pixels = max(round(size * side), 2)
    mask = _mask(thing.shape, pixels, 0 if thing.shape else thing.look)
    color = COLORS[thing.color] if thing.color else _nameless_color(thing.look)
    left, top = round(x * side - pixels / 2), round(y * side - pixels / 2)
    rows = slice(max(top, 0), min(top + pixels, side))
    columns = slice(max(left, 0), min(left + pixels, side))
    part = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    seen = picture[rows, columns]
    seen[:] = seen + part * (np.array(color, dtype=np.float32) - seen)


@lru_cache(maxsize=1024)
def _mask(shape: str, pixels: int, look: int = 0) -> np.ndarray:
    """How much of each pixel the shape covers, `(pixels, pixels)` float32 in [0, 1]."""
    side = pixels * SUPERSAMPLING
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
        if shape == "ring":
            hole = round(0.25 * side)
            draw.ellipse((hole, hole, side - 1 - hole, side - 1 - hole), fill=0)
    elif shape == "cross":
        arm = round(0.34 * side)
        draw.rectangle((arm, 0, side - 1 - arm, side - 1), fill=255)
        draw.rectangle((0, arm, side - 1, side - 1 - arm), fill=255)
    else:
        corners = _corners(shape) if shape else _blob(look)
        draw.polygon([(x * (side - 1), y * (side - 1)) for x, y in corners], fill=255)
    small = image.resize((pixels, pixels), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


@lru_cache(maxsize=1024)
def _nameless_color(look: int) -> tuple[int, int, int]:
    """One that is [`APART`] from all that have a name, and that stands out from backgrounds."""
    rng = Random(look)
    while True:
        hue, saturation, value = rng.random(), rng.random() ** 1.5, rng.random()
        is_muted = saturation < 0.4 and 0.3 < value < 0.8
        color = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value)]
        if not is_muted and all(math.dist(color, named) >= APART for named in COLORS.values()):
            return tuple(color)


def _blob(look: int) -> list[tuple[float, float]]:
    """The corners of a round, lopsided outline."""
    rng = Random(look)
    waves = [(count, rng.uniform(0.15, 0.3), rng.uniform(0, 2 * math.pi)) for count in (1, 2, 3)]
    angles = [2 * math.pi * point / 72 for point in range(72)]
    radii = [1 + sum(height * math.cos(count * angle + at) for count, height, at in waves) for angle in angles]
    return [
        (0.5 + radius / max(radii) / 2 * math.cos(angle), 0.5 + radius / max(radii) / 2 * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


def _corners(shape: str) -> list[tuple[float, float]]:
    if shape == "square":
        return [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]
    if shape == "triangle":
        return [(0.5, 0.0), (1.0, 0.95), (0.0, 0.95)]
    radii = (0.5, 0.2)  # a star's, outer and inner in turn
    angles = [math.pi * (point / 5 - 0.5) for point in range(10)]
    return [
        (0.5 + radii[point % 2] * math.cos(angle), 0.5 + radii[point % 2] * math.sin(angle))
        for point, angle in enumerate(angles)
    ]


def _texture(rng: Random, side: int, contrast: float) -> np.ndarray:
    """A picture of two muted colors that are mixed by a pattern, `(side, side, 3)` float32 of 0 to 255."""
    random = np.random.default_rng(rng.getrandbits(64))
    kind = rng.choice(TEXTURES)
    cells = rng.randint(5, 14)
    rows, columns = np.meshgrid(np.arange(side) / side, np.arange(side) / side, indexing="ij")
    if kind == "striped":
        angle = rng.uniform(0, math.pi)
        pattern = np.sin(2 * math.pi * cells * (rows * math.sin(angle) + columns * math.cos(angle))) / 2 + 0.5
    elif kind == "checkered":
        pattern = ((rows * cells).astype(int) + (columns * cells).astype(int)) % 2
    elif kind == "dotted":
        pattern = np.sin(math.pi * cells * rows) ** 2 * np.sin(math.pi * cells * columns) ** 2
    else:
        grid = random.random((cells, cells) if kind == "cloudy" else (3, 3)).astype(np.float32)
        pattern = np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))
    hue, value = rng.random(), rng.uniform(0.35, 0.6)
    first = colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.3), value)
    second = colorsys.hsv_to_rgb((hue + rng.uniform(-0.2, 0.2)) % 1, rng.uniform(0.05, 0.3), value + contrast)
    mixed = np.array(first) + np.clip(pattern, 0, 1)[..., None] * (np.array(second) - np.array(first))
    return (255 * mixed).astype(np.float32)


__all__ = [
    "COLORS",
    "COMPOSITIONS",
    "MOTIONS",
    "NAMELESS",
    "PAIRS",
    "SHAPES",
    "UNSEEN_PAIRS",
    "Background",
    "Event",
    "Film",
    "Thing",
    "draw_colors",
    "draw_film",
    "draw_new_thing",
    "draw_thing",
]
