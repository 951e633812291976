"""
How many short events the pool of a long video holds: the adaptive pool against as many evenly spaced frames.

Films of the procedural world, 4 to 6 things seen for 2 to 3 seconds each in front of moving and changing backgrounds,
are drawn frame by frame and given to the pool as the reader gives it the frames of a file. An event is found where a
frame of the pool shows it.

    python -m fila_video.benchmarks.pool_recall --minutes 20 40 60 120 --films 5

With `--encoded`, films of 8 frames a second are written by x264, which puts keyframes at cuts, and read back: once a
second the frame shown (`exact`, as the processor does without `seek_mode="auto"`), the nearest keyframe within half a
second (`auto`), or keyframes alone (`keyframe`).
"""

import argparse
import json
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from ..toy_world.world import Film, draw_film
from ..video_pool_fila_video import SpreadPool, most_different
from ..video_reading_fila_video import FrameReader, TimedVideoMetadata

ENCODED_FPS = 8


def draw(minutes: float, seed: int, fps: float, side: int) -> Film:
    """A film like those of `make-videos --kind rare`, of any length."""
    random = Random(f"{seed} {minutes}")
    return draw_film(
        random,
        duration=60 * minutes,
        fps=fps,
        side=side,
        num_events=random.randint(4, 6),
        event_seconds=(2.0, 3.0),
        num_stretches=max(round(1.2 * minutes), 2),
        num_backgrounds=random.randint(3, 5),
    )


def adaptive_times(film: Film, max_candidates: int) -> tuple[np.ndarray, float]:
    """The times of the frames that the adaptive pool keeps of a film, and the CPU seconds that it took for that."""
    pool, spent = SpreadPool(max_candidates), 0.0
    for number, frame in enumerate(film.frames()):
        start = time.process_time()
        pool.add(number, number / film.fps, frame)
        spent += time.process_time() - start
    total = round(film.duration * film.fps)
    metadata = TimedVideoMetadata(total_num_frames=total, fps=film.fps, duration=film.duration)
    return pool.frames(metadata)[1], spent


def num_found(film: Film, times: np.ndarray) -> int:
    return sum(bool(((times >= event.start) & (times < event.end)).any()) for event in film.events)


def measure(minutes: float, films: int, max_candidates: int, fps: float, side: int, seed: int) -> dict:
    """Events of films of one length, and how many of them each pool holds."""
    row = {"minutes": minutes, "films": films, "max_candidates": max_candidates, "events": 0, "adaptive": 0, "even": 0}
    milliseconds = []
    for number in range(films):
        film = draw(minutes, seed + number, fps, side)
        total = round(film.duration * film.fps)
        times, spent = adaptive_times(film, max_candidates)
        even = np.linspace(0, total - 1, min(max_candidates, total)).round() / film.fps
        row["events"] += len(film.events)
        row["adaptive"] += num_found(film, times)
        row["even"] += num_found(film, even)
        milliseconds.append(1000 * spent / total)
    return row | {"cpu_ms_per_frame": round(float(np.median(milliseconds)), 2)}


def encode(film: Film, path: Path, side: int) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=ENCODED_FPS)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.options = {"preset": "veryfast"}  # cuts are found and keyframes at most 250 frames apart, as by default
        for number, pixels in enumerate(film.frames()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, ENCODED_FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def measure_encoded(minutes: float, max_candidates: int, side: int, seed: int, fps: float) -> dict:
    """Of one encoded film: its events, those found by each way to look `fps` times a second, and their CPU seconds."""
    film = draw(minutes, seed, ENCODED_FPS, side)
    row = {"minutes": minutes, "seed": seed, "max_candidates": max_candidates, "events": len(film.events)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        encode(film, path, side)
        for mode in ("exact", "auto", "keyframe"):
            start = time.process_time()
            with FrameReader(path, fps=fps, seek_mode=mode) as reader:
                _, times = most_different(iter(reader), max_candidates, reader.metadata)
            row[mode] = num_found(film, times)
            row[f"{mode}_looked_at"], row[f"{mode}_cpu"] = reader.total, round(time.process_time() - start, 2)
    return row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[20, 40, 60, 120], help="lengths of the films")
    parser.add_argument("--films", type=int, default=5, help="of each length (default: 5)")
    parser.add_argument("--max-candidates", type=int, default=512, help="frames of a pool (default: 512)")
    parser.add_argument("--fps", type=float, default=1.0, help="frames that are looked at, a second (default: 1)")
    parser.add_argument("--side", type=int, default=96, help="of the square picture, in pixels (default: 96)")
    parser.add_argument("--seed", type=int, default=77, help="of the first film (default: 77)")
    parser.add_argument("--encoded", action="store_true", help="encoded films, looked at in three ways")
    args = parser.parse_args(arguments)
    if args.max_candidates < 3:
        parser.error(f"--max-candidates must be at least 3, got {args.max_candidates}")
    for minutes in args.minutes:
        if args.encoded:
            for seed in range(args.seed, args.seed + args.films):
                print(json.dumps(measure_encoded(minutes, args.max_candidates, args.side, seed, args.fps)), flush=True)
            continue
        print(
            json.dumps(measure(minutes, args.films, args.max_candidates, args.fps, args.side, args.seed)), flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
