"""
The places of the sample video, painted with Pillow. Each takes the seconds since the place was first seen, and the
seconds since this visit began.
"""

from functools import lru_cache
from math import cos, exp, pi, sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sample_painting import Color, H, W, along, backdrop, cloud, fir, glow, height_at, paste, ridge


def hills(t: float, _: float) -> Image.Image:
    image = backdrop((96, 150, 214), (180, 200, 220), (253, 217, 170), (255, 190, 130)).copy()
    paste(image, glow(300, (255, 236, 170)), 600, 330 - 6.5 * t)
    draw = ImageDraw.Draw(image)
    draw.ellipse((562, 292 - 6.5 * t, 638, 368 - 6.5 * t), fill=(255, 246, 214))
    paste(image, cloud(1, (255, 240, 228), 320), 180 + 5 * t, 90)
    paste(image, cloud(2, (255, 240, 228), 220), 720 + 4 * t, 60)
    for n, color in enumerate([(150, 165, 190), (108, 140, 150), (72, 118, 104)]):
        ridge(draw, color, n + 1, 320 + 50 * n, 26, t * (4 + 5 * n) + 400 * n)
    shift = 26 * t
    for x, rng in along(shift, 74, 3):
        fir(draw, x, height_at(x + shift, 9, 452, 20) + 8, rng.uniform(60, 105), (30, 78, 62))
    ridge(draw, (44, 96, 66), 9, 452, 20, shift)
    for n in range(5):
        x, y = 40 + 46 * t + 44 * n, 150 + 22 * sin(n * 2.1) + 8 * sin(0.7 * t + n)
        flap = 9 * sin(7 * t + n)
        draw.line([(x - 15, y - flap), (x, y), (x + 15, y - flap)], fill=(60, 64, 84), width=4, joint="curve")
    return image


def lightning(t: float, visit: float) -> Image.Image:
    image = backdrop((58, 64, 90), (84, 90, 118), (122, 124, 142)).copy()
    draw = ImageDraw.Draw(image)
    for n in range(7):
        paste(image, cloud(n + 20, (44, 48, 70), 460), 60 + 130 * n + 10 * t, 96 + 30 * sin(n * 1.9))
    for n, color in enumerate([(52, 58, 80), (38, 44, 60), (24, 30, 40)]):
        ridge(draw, color, n + 4, 370 + 45 * n, 24, 300 * n)
    bolt = Random(5 if visit < 1.2 else 8)
    if 0.4 < visit < 1.0 or 1.5 < visit < 2.2:
        x, y = bolt.uniform(300, 600), 90.0
        paste(image, glow(330, (214, 220, 255), 0.75), x, 190)
        points = [(x, y)]
        while y < 372:
            x, y = x + bolt.uniform(-38, 38), y + bolt.uniform(22, 44)
            points.append((x, y))
        draw.line(points, fill=(206, 212, 255), width=12, joint="curve")
        draw.line(points, fill=(255, 255, 255), width=6, joint="curve")
        x, y = points[len(points) // 2]
        draw.line([(x, y), (x + 40, y + 34), (x + 52, y + 80)], fill=(238, 240, 255), width=4, joint="curve")
    return image


def sailboat(draw: ImageDraw.ImageDraw, x: float, y: float, tilt: float) -> None:
    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x + px * cos(tilt) - py * sin(tilt), y + px * sin(tilt) + py * cos(tilt)) for px, py in points]

    draw.polygon(place([(4, -150), (4, -18), (86, -18)]), fill=(252, 250, 244))
    draw.polygon(place([(-6, -132), (-6, -18), (-64, -18)]), fill=(226, 74, 62))
    draw.line(place([(0, -156), (0, 0)]), fill=(96, 66, 48), width=6)
    draw.polygon(place([(-84, -8), (92, -8), (62, 30), (-62, 30)]), fill=(132, 78, 50))
    draw.polygon(place([(-84, -8), (92, -8), (86, 2), (-78, 2)]), fill=(240, 232, 218))


def sea(t: float, visit: float, whale_at: float | None = None) -> Image.Image:
    image = backdrop((74, 158, 226), (168, 214, 240), (222, 238, 244), (222, 238, 244)).copy()
    paste(image, glow(170, (255, 250, 214)), 740, 84)
    for n, (x, y, width) in enumerate([(120, 80, 340), (430, 126, 240), (700, 170, 280)]):
        paste(image, cloud(n + 5, (255, 255, 255), width), x + 7 * t, y)
    draw = ImageDraw.Draw(image)
    draw.polygon([(0, 250), (70, 226), (150, 210), (240, 232), (330, 254)], fill=(116, 146, 150))
    for n in range(6):
        y = 252 + n * 44
        if n == 3:
            sailboat(draw, 90 + 21 * t, y - 20 + 5 * sin(1.3 * t), 0.05 * sin(1.1 * t))
        if n == 2 and whale_at is not None and whale_at < visit < whale_at + 3:
            whale(image, draw, visit - whale_at, y)
        color = (38 - 3 * n, 136 - 13 * n, 186 - 11 * n)
        points = [
            (x, y + (2 + 1.6 * n) * sin(x / (34 + 9 * n) + (0.8 + 0.1 * n) * t + 2 * n)) for x in range(0, W + 8, 8)
        ]
        draw.polygon([(0, H), *points, (W, H)], fill=color)
    return image


def whale(image: Image.Image, draw: ImageDraw.ImageDraw, t: float, surface: float) -> None:
    """It rises for a second, blows, and dives again."""
    y = surface + 96 - 120 * sin(pi * t / 3)
    x = 180 + 14 * t
    draw.ellipse((x - 120, y - 52, x + 120, y + 90), fill=(52, 64, 92))
    draw.ellipse((x - 108, y + 6, x + 60, y + 96), fill=(176, 188, 204))
    draw.ellipse((x - 84, y - 2, x - 72, y + 10), fill=(250, 250, 250))
    draw.polygon([(x + 100, y + 10), (x + 168, y - 62), (x + 184, y - 6), (x + 128, y + 44)], fill=(52, 64, 92))
    if 0.8 < t < 2.4:
        rise = 70 * sin(pi * (t - 0.8) / 1.6)
        for side in (-1, 1):
            for k in range(7):
                px, py = x - 40 + side * k * 6, y - 50 - rise * sin(0.45 * k)
                draw.ellipse((px - 7, py - 7, px + 7, py + 7), fill=(236, 248, 255))


@lru_cache(maxsize=1)
def wood() -> Image.Image:
    """Planks with their grain."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[0:H, 0:W]
    plank = y // 84
    wave = np.sin(y / 5.5 + 3.2 * np.sin(x / 190 + plank * 2.3) + plank * 1.7) * 6
    tone = rng.uniform(-14, 14, 8)[plank] + wave - np.where(y % 84 < 4, 46, 0)
    return Image.fromarray(
        np.clip(np.array([196, 146, 96]) + tone[..., None] * [1, 0.9, 0.7], 0, 255).astype(np.uint8)
    ).convert("RGBA")


@lru_cache(maxsize=8)
def shade(shape: str, size: int, color: Color) -> Image.Image:
    """A toy seen from above, with its shadow and a light from the upper left."""
    side = size * 3
    mask = Image.new("L", (side, side))
    draw, c, r = ImageDraw.Draw(mask), side / 2, size / 2 * 1.6
    if shape == "ball":
        draw.ellipse((c - r, c - r, c + r, c + r), fill=255)
    elif shape == "block":
        draw.rounded_rectangle((c - r, c - r, c + r, c + r), size / 7, fill=255)
    else:
        draw.polygon([(c, c - r), (c - r, c + r * 0.8), (c + r, c + r * 0.8)], fill=255)
    image = Image.new("RGBA", (side, side))
    shadow = mask.filter(ImageFilter.GaussianBlur(size / 9)).point(lambda v: v // 3)
    image.paste((50, 28, 12, 255), (size // 8, size // 7), shadow)
    y, x = np.mgrid[0:side, 0:side]
    light = 1.16 - 0.55 * np.hypot(x - side * 0.38, y - side * 0.36) / side
    body = np.clip(np.array(color) * light[..., None], 0, 255).astype(np.uint8)
    image.paste(Image.fromarray(body), (0, 0), mask)
    return image


def toys(t: float, _: float) -> Image.Image:
    image = wood().copy()
    turn = shade("triangle", 96, (66, 172, 92)).rotate(18 * t, Image.BICUBIC)
    paste(image, turn, 690 - 6 * t, 150 + 8 * t)
    paste(image, shade("block", 104, (48, 108, 206)), 250 + 17 * t, 360 - 10 * t)
    roll = t % 6
    x = -90 + 190 * roll if t < 6 else W + 90 - 190 * roll
    paste(image, shade("ball", 92, (220, 52, 48)), x, 236 + 70 * sin(0.8 * t))
    paste(image, shade("ball", 56, (246, 200, 60)), 480 + 120 * cos(0.9 * t), 380 + 60 * sin(0.9 * t))
    return image


@lru_cache(maxsize=1)
def skyline() -> Image.Image:
    image = backdrop((14, 18, 48), (34, 38, 88), (88, 68, 122), (120, 84, 128)).copy()
    rng = Random(3)
    draw = ImageDraw.Draw(image)
    for _ in range(70):
        x, y, r = rng.uniform(0, W), rng.uniform(0, 230), rng.choice([1.5, 2, 2.5])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(226, 228, 250))
    paste(image, glow(150, (250, 240, 210), 0.7), 150, 92)
    draw.ellipse((112, 54, 188, 130), fill=(250, 244, 222))
    for row, (color, base) in enumerate([((46, 46, 92), 250), ((26, 28, 58), 300)]):
        x = -20
        while x < W:
            w, top = rng.randint(64, 116), base + rng.randint(-100, 60)
            draw.rectangle((x, top, x + w, H), fill=color)
            for wy in range(top + 14, 420, 26):
                for wx in range(x + 10, x + w - 14, 22):
                    if row and rng.random() < 0.45:
                        draw.rectangle((wx, wy, wx + 9, wy + 12), fill=rng.choice([(255, 214, 120), (248, 190, 96)]))
            x += w + rng.randint(0, 8)
    draw.rectangle((0, 424, W, H), fill=(30, 30, 42))
    for x in range(10, W, 112):
        draw.rectangle((x, 462, x + 52, 467), fill=(150, 146, 120))
    return image


def city(t: float, visit: float, fireworks_at: float | None = None) -> Image.Image:
    image = skyline().copy()
    draw = ImageDraw.Draw(image)
    for n, (speed, y, color) in enumerate(
        [(96, 436, (206, 60, 66)), (-72, 472, (236, 236, 240)), (96, 436, (60, 150, 190))]
    ):
        x = (speed * t + 380 * n) % (W + 240) - 120
        front = 52 if speed > 0 else -52
        paste(image, glow(60, (255, 240, 180), 0.8), x + front * 1.5, y + 4)
        draw.rounded_rectangle((x - 34, y - 26, x + 30, y), 12, fill=tuple(int(c * 0.7) for c in color))
        draw.rounded_rectangle((x - 56, y - 10, x + 56, y + 14), 8, fill=color)
        for wheel in (-32, 32):
            draw.ellipse((x + wheel - 11, y + 4, x + wheel + 11, y + 26), fill=(14, 14, 20))
    if fireworks_at is not None and 0 < visit - fireworks_at < 2.6:
        fireworks(image, draw, visit - fireworks_at)
    return image


def fireworks(image: Image.Image, draw: ImageDraw.ImageDraw, t: float) -> None:
    for n, (x, y, color) in enumerate(
        [(330, 130, (255, 96, 96)), (600, 96, (120, 230, 160)), (760, 170, (255, 214, 96))]
    ):
        age = t - 0.5 * n
        if not 0 < age < 1.5:
            continue
        paste(image, glow(150, color, 0.5 * (1 - age / 1.5)), x, y)
        reach = 130 * (1 - exp(-3 * age))
        for k in range(16):
            a = 2 * pi * k / 16
            for part in (1.0, 0.8):
                px, py, r = (
                    x + reach * part * cos(a),
                    y + reach * part * sin(a) + 26 * age * age,
                    6 * part * (1.6 - age),
                )
                draw.ellipse((px - r, py - r, px + r, py + r), fill=color)


def fish(
    draw: ImageDraw.ImageDraw, x: float, y: float, size: float, color: Color, fin: Color, way: int, t: float
) -> None:
    wag = 0.25 * size * sin(6 * t)
    tail = x - way * size
    draw.polygon(
        [
            (tail + way * 8, y),
            (tail - way * size * 0.6, y - size * 0.45 + wag),
            (tail - way * size * 0.6, y + size * 0.45 + wag),
        ],
        fill=fin,
    )
    draw.polygon(
        [(x, y - size * 0.4), (x - way * size * 0.4, y - size * 0.8), (x - way * size * 0.6, y - size * 0.3)], fill=fin
    )
    draw.ellipse((x - size, y - size * 0.52, x + size, y + size * 0.52), fill=color)
    draw.rectangle((x - size * 0.12, y - size * 0.5, x + size * 0.12, y + size * 0.5), fill=(250, 248, 240))
    ex = x + way * size * 0.58
    draw.ellipse((ex - 7, y - 14, ex + 7, y), fill=(250, 250, 250))
    draw.ellipse((ex - 3, y - 10, ex + 4, y - 3), fill=(20, 20, 30))


def reef(t: float, _: float) -> Image.Image:
    image = backdrop((96, 206, 214), (32, 146, 178), (14, 92, 140), (10, 62, 106)).copy()
    draw = ImageDraw.Draw(image)
    ridge(draw, (18, 82, 112), 14, 410, 24, 100)
    for n in range(9):
        x, top = 40 + 108 * n, 300 + 44 * sin(n * 2.4)
        points = [(x + (H - y) / 7 * sin(0.9 * t + n + y / 60), y) for y in range(H, int(top), -12)]
        draw.line(points, fill=(34, 132 + 6 * (n % 3), 96), width=16, joint="curve")
    ridge(draw, (206, 184, 132), 15, 478, 9, 0)
    for x, color in [(150, (236, 110, 120)), (540, (240, 150, 80)), (810, (186, 110, 190))]:
        for k in range(5):
            a = -pi / 2 + (k - 2) * 0.42
            draw.line([(x, 484), (x + 62 * cos(a), 484 + 74 * sin(a))], fill=color, width=15)
            px, py = x + 62 * cos(a), 484 + 74 * sin(a)
            draw.ellipse((px - 11, py - 11, px + 11, py + 11), fill=color)
    for n in range(10):
        x, y = 90 + 83 * n + 8 * sin(2 * t + n), H - (44 * t + 170 * n) % (H + 40)
        r = 5 + n % 4 * 2
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(206, 240, 246), width=3)
    fish(draw, -60 + 66 * t, 190 + 22 * sin(t), 62, (250, 140, 40), (214, 96, 30), 1, t)
    fish(draw, W + 40 - 52 * t, 300 + 14 * sin(1.2 * t), 46, (250, 212, 70), (226, 168, 40), -1, t + 1)
    fish(draw, -180 + 58 * t, 92 + 12 * sin(0.8 * t), 36, (96, 122, 224), (70, 86, 190), 1, t + 2)
    return image


def desert(t: float, _: float) -> Image.Image:
    image = backdrop((238, 148, 96), (250, 190, 120), (255, 222, 160), (255, 222, 160)).copy()
    paste(image, glow(220, (255, 244, 200)), 200, 150)
    draw = ImageDraw.Draw(image)
    draw.ellipse((160, 110, 240, 190), fill=(255, 248, 224))
    draw.polygon([(500, 330), (540, 236), (690, 236), (720, 330)], fill=(204, 122, 92))
    draw.polygon([(60, 330), (110, 272), (220, 268), (270, 330)], fill=(214, 134, 98))
    for n, color in enumerate([(230, 166, 104), (216, 144, 86), (196, 120, 68)]):
        ridge(draw, color, n + 30, 350 + 46 * n, 16, 300 * n + t * (3 + 5 * n))
    shift = 13 * t
    for x, rng in along(shift, 250, 8):
        s, y = rng.uniform(70, 110), height_at(x + shift, 32, 442, 16) + 16
        for dx, low, high, bend in ((0, 0, 1, 0), (-0.3, 0.4, 0.72, 1), (0.3, 0.3, 0.62, 1)):
            px = x + dx * s
            draw.line([(px, y - low * s), (px, y - high * s)], fill=(70, 122, 74), width=int(s / 6))
            r = s / 12
            draw.ellipse((px - r, y - high * s - r, px + r, y - high * s + r), fill=(70, 122, 74))
            if bend:
                draw.line([(px, y - low * s), (x, y - low * s)], fill=(70, 122, 74), width=int(s / 8))
    balloon(draw, 420 + 20 * t, 250 - 9 * t, 84)
    return image


def balloon(draw: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    stripes = [(206, 58, 62), (250, 238, 214), (48, 116, 160), (250, 238, 214), (206, 58, 62)]
    for k, color in enumerate(stripes):
        w = r * (1 - 0.4 * k) if k < 3 else 0
        if w > 0:
            draw.ellipse((x - w, y - r, x + w, y + r * 0.92), fill=color)
    draw.polygon(
        [(x - r * 0.62, y + r * 0.62), (x + r * 0.62, y + r * 0.62), (x + 14, y + r * 1.3), (x - 14, y + r * 1.3)],
        fill=(206, 58, 62),
    )
    draw.line([(x - 12, y + r * 1.28), (x - 10, y + r * 1.52)], fill=(110, 80, 60), width=3)
    draw.line([(x + 12, y + r * 1.28), (x + 10, y + r * 1.52)], fill=(110, 80, 60), width=3)
    draw.rounded_rectangle((x - 16, y + r * 1.5, x + 16, y + r * 1.78), 5, fill=(146, 98, 60))


def snow(t: float, _: float) -> Image.Image:
    image = backdrop((150, 174, 206), (196, 210, 228), (228, 234, 242)).copy()
    draw = ImageDraw.Draw(image)
    for n, (color, count, size) in enumerate([((150, 172, 190), 15, 120), ((96, 130, 146), 10, 170)]):
        for k in range(count):
            rng = Random(50 * n + k)
            fir(draw, (k + rng.uniform(0, 0.7)) * W / count, 350 + 40 * n, size * rng.uniform(0.7, 1.1), color)
        ridge(draw, [(214, 224, 236), (228, 236, 244)][n], n + 60, 350 + 40 * n, 10, 200 * n)
    for k in range(7):
        x, y, r = 640 + 9 * k + 10 * sin(0.9 * t + 0.6 * k), 246 - 26 * k - (t * 26) % 26, 8 + 3.2 * k
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(216, 222, 232))
    draw.rectangle((560, 320, 720, 420), fill=(122, 78, 56))
    draw.rectangle((626, 262, 650, 310), fill=(96, 66, 56))
    draw.polygon([(536, 328), (640, 258), (744, 328)], fill=(250, 252, 255))
    for x in (586, 662):
        paste(image, glow(50, (255, 212, 120), 0.8), x + 17, 366)
        draw.rectangle((x, 350, x + 34, 382), fill=(255, 220, 130))
    ridge(draw, (246, 249, 253), 70, 430, 12, 500)
    fir(draw, 120, 480, 220, (52, 96, 100))
    fir(draw, 836, 470, 170, (52, 96, 100))
    for n in range(46):
        rng = Random(900 + n)
        speed, r = rng.uniform(40, 80), rng.uniform(3, 6)
        x = (rng.uniform(0, W) + 16 * sin(0.8 * t + n)) % W
        y = (rng.uniform(0, H) + speed * t) % (H + 20) - 10
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))
    return image


@lru_cache(maxsize=1)
def planet() -> Image.Image:
    """A striped globe with its ring: the front half of the ring lies over it, the other behind."""
    side, r = 620, 130
    y, x = (np.mgrid[0:side, 0:side] - side / 2) / r
    globe = np.hypot(x, y) <= 1
    stripes = 0.5 + 0.5 * np.sin(y * 9 + 0.6 * np.sin(x * 2)) * np.cos(y * 4)
    light = np.clip(1.05 - 0.75 * (x * 0.8 + y * 0.5 + 0.35), 0.18, 1.15)
    picture = np.zeros((side, side, 4))
    picture[..., :3] = (np.array([226, 164, 110]) + stripes[..., None] * [24, 40, 50]) * light[..., None]
    picture[..., 3] = globe * 255
    distance = np.hypot(x, y * 3.6)
    ring = (distance > 1.35) & (distance < 2.2) & (np.abs(distance - 1.82) > 0.05) & ((y > 0) | ~globe)
    picture[ring] = (214, 200, 176, 225)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).rotate(16, Image.BICUBIC)


@lru_cache(maxsize=1)
def stars() -> Image.Image:
    image = backdrop((8, 8, 24), (20, 14, 46), (12, 10, 30)).copy()
    paste(image, glow(360, (88, 46, 120), 0.5), 260, 360)
    paste(image, glow(300, (30, 80, 130), 0.5), 760, 120)
    rng, draw = Random(77), ImageDraw.Draw(image)
    for _ in range(150):
        x, y, r = rng.uniform(0, W), rng.uniform(0, H), rng.choice([1.2, 1.6, 2, 3])
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(220, 224, 255))
    return image


def space(t: float, _: float) -> Image.Image:
    image = stars().copy()
    draw = ImageDraw.Draw(image)
    a = 0.35 * t - 1
    moon = (330 + 300 * cos(a), 240 + 90 * sin(a))
    if sin(a) > 0:
        paste(image, planet(), 330, 240)
    draw.ellipse((moon[0] - 24, moon[1] - 24, moon[0] + 24, moon[1] + 24), fill=(186, 190, 200))
    draw.ellipse((moon[0] - 12, moon[1] - 10, moon[0] - 2, moon[1]), fill=(150, 154, 168))
    if sin(a) <= 0:
        paste(image, planet(), 330, 240)
    x, y = -120 + 92 * t, 470 - 30 * t
    angle = -0.32
    body = [(64, 0), (36, -20), (-40, -20), (-40, 20), (36, 20)]
    flame = [(-42, -13), (-82 - 16 * sin(21 * t), 0), (-42, 13)]
    for shape, color in (
        (flame, (255, 170, 60)),
        (body, (240, 242, 248)),
        ([(64, 0), (36, -20), (36, 20)], (218, 66, 62)),
        ([(-40, -20), (-64, -44), (-12, -20)], (218, 66, 62)),
        ([(-40, 20), (-64, 44), (-12, 20)], (218, 66, 62)),
    ):
        draw.polygon(
            [(x + px * cos(angle) - py * sin(angle), y + px * sin(angle) + py * cos(angle)) for px, py in shape],
            fill=color,
        )
    draw.ellipse((x + 4, y - 16, x + 24, y + 4), fill=(90, 170, 220))
    return image
