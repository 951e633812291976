"""Draws `examples/sample.mp4`: a small illustrated film of 2 minutes 20 seconds with a sound track.

Eight places, of which the hills, the sea and the city return, and three short events: lightning over the hills, a
whale at sea, fireworks over the city. Equal library versions give an equal file.

    python examples/make_sample_video.py examples/sample.mp4
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from math import pi
from pathlib import Path

import av
import numpy as np
from PIL import Image
from sample_painting import HEIGHT, WIDTH
from sample_places import city, desert, hills, lightning, reef, sea, snow, space, toys

RATE = 24
SAMPLE_RATE = 44100

# The film: place, seconds, whatever happens there, and the chord that sounds (semitones over A)

FILM = [
    (hills, 14, {}, (0, 4, 7, 11)),
    (sea, 14, {}, (-5, 2, 7, 11)),
    (toys, 12, {}, (3, 7, 10, 15)),
    (city, 14, {}, (-4, 3, 8, 12)),
    (lightning, 2.5, {}, (-9, -3, 3, 6)),
    (reef, 14, {}, (-2, 5, 9, 14)),
    (hills, 9, {}, (0, 4, 7, 11)),
    (desert, 13, {}, (-7, 0, 5, 9)),
    (snow, 12, {}, (1, 5, 8, 12)),
    (sea, 11, {"whale_at": 4.5}, (-5, 2, 7, 11)),
    (space, 14, {}, (-12, -5, 2, 4)),
    (city, 10.5, {"fireworks_at": 5.0}, (-4, 3, 8, 12)),
]


def pictures() -> Iterator[Image.Image]:
    """The frames, one after the other, (HEIGHT, WIDTH, 3) uint8."""
    seen = {}
    for place, seconds, event, _ in FILM:
        for n in range(round(seconds * RATE)):
            visit = n / RATE
            yield np.asarray(place(seen.get(place, 0.0) + visit, visit, **event).convert("RGB").reduce(2))
        seen[place] = seen.get(place, 0.0) + seconds


def sound() -> np.ndarray:
    """The sound track, (1, samples) float32: a slow chord for each place, and a breath of wind or waves."""
    rng = np.random.default_rng(5)
    parts = []
    for _, seconds, event, chord in FILM:
        t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        edge = np.clip(np.minimum(t, seconds - t) / 0.6, 0, 1)
        part = np.zeros_like(t)
        for k, note in enumerate(chord):
            pitch = 220 * 2 ** (note / 12)
            swell = 0.6 + 0.4 * np.sin(2 * pi * (0.11 + 0.03 * k) * t + k)
            part += swell * (np.sin(2 * pi * pitch * t) + 0.25 * np.sin(4 * pi * pitch * t)) / len(chord)
        noise = np.cumsum(rng.standard_normal(len(t)))
        noise -= np.convolve(noise, np.ones(401) / 401, mode="same")
        part = 0.22 * part + 0.05 * noise / np.abs(noise).max() * (1 + np.sin(2 * pi * 0.2 * t))
        if seconds < 3 or event:
            start = next(iter(event.values()), 0.5)
            boom = np.where(t > start, np.exp(-2 * np.clip(t - start, 0, None)), 0)
            part += 0.25 * boom * np.sin(2 * pi * 58 * t)
        parts.append(part * edge)
    return np.concatenate(parts)[None].astype(np.float32)


def write(path: str | Path) -> None:
    """Encodes the film as H.264 and AAC, ready to be played while it loads."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1  # the bytes depend on the number of threads
        # x264's macroblock tree does not repeat itself to the bit on processors with AVX-512.
        video.options = {"preset": "slower", "crf": "28", "profile": "high", "g": str(4 * RATE), "tune": "animation"}
        video.options |= {"x264-params": "mbtree=0"}
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 28000
        for n, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = sound()
        for start in range(0, samples.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    write(parser.parse_args().output)
