"""What the places of the sample video are painted with, at twice the film's size for smooth edges."""

from collections.abc import Iterator
from functools import lru_cache
from math import sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 448, 252
W, H = 2 * WIDTH, 2 * HEIGHT

Color = tuple[int, int, int]


@lru_cache(maxsize=64)
def backdrop(*colors: Color, grain: float = 1.6) -> Image.Image:
    """A vertical gradient through `colors`, with a fixed soft texture that keeps it from banding."""
    rng = np.random.default_rng(7)
    stops = np.linspace(0, H - 1, len(colors))
    rows = np.stack([np.interp(np.arange(H), stops, [c[i] for c in colors]) for i in range(3)], axis=-1)
    soft = Image.fromarray((rng.random((H // 8, W // 8)) * 255).astype(np.uint8)).resize((W, H), Image.BICUBIC)
    texture = (np.asarray(soft, dtype=np.float64)[..., None] / 255 - 0.5) * grain * 2
    return Image.fromarray(np.clip(rows[:, None] + texture, 0, 255).astype(np.uint8)).convert("RGBA")


@lru_cache(maxsize=32)
def glow(radius: int, color: Color, strength: float = 1.0) -> Image.Image:
    """A round light that fades out."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1] / radius
    alpha = np.clip(1 - np.hypot(x, y), 0, 1) ** 2 * 255 * strength
    light = np.empty((*alpha.shape, 4))
    light[..., :3], light[..., 3] = color, alpha
    return Image.fromarray(light.astype(np.uint8))


@lru_cache(maxsize=32)
def cloud(seed: int, color: Color, width: int = 260) -> Image.Image:
    rng = Random(seed)
    image = Image.new("RGBA", (width, width // 2), (*color, 0))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        r = rng.uniform(0.09, 0.2) * width
        x, y = rng.uniform(0.25, 0.75) * width, width * 0.33 - rng.uniform(0, 0.08) * width
        draw.ellipse((x - r, y - r * 0.6, x + r, y + r * 0.45), fill=(*color, 215))
    return image.filter(ImageFilter.GaussianBlur(width / 50))


def paste(image: Image.Image, sprite: Image.Image, x: float, y: float) -> None:
    """Lays `sprite` on `image` around the point (x, y), also where it sticks out."""
    left, top = round(x - sprite.width / 2), round(y - sprite.height / 2)
    image.paste(sprite, (left, top), sprite)


def height_at(x: float, seed: int, base: float, swing: float) -> float:
    rng = Random(seed)
    waves = [(rng.uniform(0.6, 1.0) / k, rng.uniform(0.7, 1.3) * k / 230, rng.uniform(0, 6)) for k in (1, 2, 4, 7)]
    return base - swing * sum(a * sin(f * x + p) for a, f, p in waves)


def ridge(draw: ImageDraw.ImageDraw, color: Color, seed: int, base: float, swing: float, shift: float) -> None:
    """A line of hills across the picture, seen from `shift` pixels further on."""
    points = [(x, height_at(x + shift, seed, base, swing)) for x in range(0, W + 8, 8)]
    draw.polygon([(0, H), *points, (W, H)], fill=color)


def fir(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color) -> None:
    for k in range(3):
        w, top = size * (0.2 + 0.1 * k), y - size * (1 - 0.26 * k)
        draw.polygon([(x, top), (x - w, top + size * 0.46), (x + w, top + size * 0.46)], fill=color)


def along(shift: float, spacing: float, seed: int, margin: float = 80) -> Iterator[tuple[float, Random]]:
    """Things that stand `spacing` apart in the world: their number, place on the screen and own random numbers."""
    for n in range(int((shift - margin) // spacing), int((shift + W + margin) // spacing) + 1):
        rng = Random(seed * 1000 + n)
        yield n * spacing + rng.uniform(0, 0.6) * spacing - shift, rng
