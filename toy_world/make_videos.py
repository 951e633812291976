"""
Films a set of the procedural world: real H.264 files, or pictures, with exact annotations from a seed.

    fila-video make-videos --output WORLD --kind short --split train --count 1000
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import av
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from .questions import (
    CAPTION_REQUESTS,
    Question,
    ask_about_film,
    ask_about_picture,
    caption_film,
    caption_film_with_times,
    caption_picture,
)
from .world import (
    COLORS,
    SHAPES,
    Background,
    Film,
    Thing,
    draw_colors,
    draw_film,
    draw_new_thing,
    draw_thing,
)

SPLITS = ("train", "validation", "test")
KINDS = {
    "picture": "one thing or none, with its caption",
    "picture-questions": "one or two things, with a caption and questions",
    "clip": "one thing in 5 to 15 seconds, with its caption: what long videos are made of",
    "few": "1 to 3 things in 5 to 12 seconds, seen for a 7th of the video at least",
    "pair": "2 or 3 things in 5 to 12 seconds, seen for a 6th of the video at least",
    "row": "3 to 8 things in 5 to 8 seconds, one soon after another",
    "short": "2 to 5 things in 5 to 60 seconds, seen for a 20th of the video at least",
    "rare": "4 to 6 things, each seen for 2 to 3 seconds, in 5 to 30 minutes",
    "crowded": "30 things, each seen for 2 to 3 seconds, in 10 minutes",
}
DURATIONS = {
    "clip": (5.0, 15.0),
    "few": (5.0, 12.0),
    "pair": (5.0, 12.0),
    "row": (5.0, 8.0),
    "short": (5.0, 60.0),
    "rare": (300.0, 1800.0),
    "crowded": (600.0, 600.0),
}
ROW = (3, 8)  # things
CROWD = 30  # things


@dataclass(frozen=True)
class Settings:
    """
    What a set is like. `duration` is (shortest, longest) in seconds, `side` the picture's in pixels, `colors` how
    many the things of one video have at most: the fewer, the more of them only their shape tells apart.
    """

    kind: str
    split: str = "train"
    seed: int = 42
    duration: tuple[float, float] | None = None
    questions: int = 8
    choice_share: float = 0.3
    side: int = 96
    fps: float = 8.0
    colors: int = len(COLORS)

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("split", self.split, SPLITS)):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}.")
        if self.duration is not None and not 5 <= self.duration[0] <= self.duration[1]:
            raise ValueError(f"Durations must be at least 5 seconds and the longest no shorter, got {self.duration}.")
        if self.side < 32 or self.side % 2:
            raise ValueError(f"`side` must be an even number of at least 32 pixels, got {self.side}.")
        if not 1 <= self.fps <= 60:
            raise ValueError(f"`fps` must be from 1 to 60, got {self.fps}.")
        if not 1 <= self.colors <= len(COLORS):
            raise ValueError(f"`colors` must be from 1 to {len(COLORS)}, got {self.colors}.")
        if self.kind == "row" and self.colors * len(SHAPES) < ROW[1]:
            raise ValueError(
                f"A row has up to {ROW[1]} different things: it needs `colors` 2 or more, got {self.colors}."
            )
        if self.kind == "crowded" and self.colors * len(SHAPES) < CROWD:
            raise ValueError(
                f"A crowded film has {CROWD} different things: it needs `colors` {CROWD // len(SHAPES)} or more, got "
                f"{self.colors}."
            )
        if self.questions < 0 or not 0 <= self.choice_share <= 1:
            raise ValueError(
                f"`questions` must be 0 or more and `choice_share` from 0 to 1, got {self.questions} and "
                f"{self.choice_share}."
            )

    @property
    def is_picture(self) -> bool:
        return self.kind.startswith("picture")


def make_videos(output: str | Path, settings: Settings, count: int, workers: int = 1, progress: bool = False) -> Path:
    """
    Films `count` videos or pictures under `output` and writes their records.

    The n-th depends on the settings and n alone: a larger set begins with the smaller one, and splits, which seed
    their own generators, share nothing.

    Returns:
        `Path`: The JSONL file, `{split}_{kind}.jsonl`. A record is in LLaVA's conversation form; `events` are what is
        seen from when to when (seconds) and `questions` what the turns are: `kind`, `form`, `question`, `answer`.

    Raises:
        ValueError: For settings that cannot be. `FileExistsError` if the file is there already.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    output = Path(output)
    records = output / f"{settings.split}_{settings.kind}.jsonl"
    if records.exists():
        raise FileExistsError(f"{records} is there already: name another output, or remove it.")
    (output / ("images" if settings.is_picture else "videos")).mkdir(parents=True, exist_ok=True)
    lines = []
    make = partial(make_one, output, settings)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = pool.map(make, range(count), chunksize=8) if workers > 1 else map(make, range(count))
        for record in tqdm(made, total=count, desc="Filming", disable=not progress):
            lines.append(json.dumps(record) + "\n")
    # Written last: a set that was broken off has no records, and can be made again.
    records.write_text("".join(lines), encoding="utf-8")
    return records


def make_one(output: Path, settings: Settings, index: int) -> dict:
    """Films the `index`-th of a set and returns its record."""
    rng = Random(f"{settings.seed}/{settings.split}/{settings.kind}/{index}")
    name = f"{settings.split}_{settings.kind}_{index:06d}"
    make = _make_picture if settings.is_picture else _make_video
    return {"id": name, **make(rng, output, name, settings), "data_source": f"procedural_{settings.kind}"}


def _make_picture(rng: Random, output: Path, name: str, settings: Settings) -> dict:
    picture = Background(rng, settings.side).at(rng.uniform(0, 60))
    count = rng.choice((1, 2)) if settings.kind == "picture-questions" else int(rng.random() > 0.1)
    colors = draw_colors(rng, settings.colors)
    things = [draw_new_thing(rng, rng.choice(colors), rng.choice(SHAPES)) for _ in range(count)]
    if count == 2:  # side by side, neither hides the other
        things = [_in_half(thing, half) for half, thing in enumerate(things)]
    for thing in things:
        draw_thing(picture, thing)
    Image.fromarray(picture).save(output / "images" / f"{name}.png")
    turns = [Question("caption", "free", "Describe the picture.", caption_picture(things))]
    if settings.kind == "picture-questions":
        turns += ask_about_picture(rng, things, settings.questions, settings.choice_share)
    return {"image": f"images/{name}.png", "conversations": _conversation(turns), "questions": _describe(turns)}


def _in_half(thing: Thing, half: int) -> Thing:
    return replace(thing, size=min(thing.size, 0.44), x=(0.25, 0.75)[half])


def _make_video(rng: Random, output: Path, name: str, settings: Settings) -> dict:
    film = _draw(rng, settings)
    path = f"videos/{name}.mp4"
    encode(output / path, film.frames(), settings.fps)
    if settings.kind == "clip":
        event = film.events[0]
        turns = [Question("caption", "free", rng.choice(CAPTION_REQUESTS), f"{event.caption.capitalize()}.")]
    else:
        turns = ask_about_film(rng, film, settings.questions, settings.choice_share)
        request, caption = rng.choice(CAPTION_REQUESTS), caption_film(film)
        if rng.random() < 0.2:
            request, caption = "Describe the video with times.", caption_film_with_times(film)
        turns.append(Question("caption", "free", request, caption))
    return {
        "video": path,
        "duration": film.duration,
        "conversations": _conversation(turns),
        "events": [event.describe() for event in film.events],
        "questions": _describe(turns),
    }


def _draw(rng: Random, settings: Settings) -> Film:
    shortest, longest = (round(seconds * settings.fps) for seconds in settings.duration or DURATIONS[settings.kind])
    if settings.kind == "short":  # as many of 5 to 10 seconds as of 30 to 60
        duration = round(shortest * (longest / shortest) ** rng.random()) / settings.fps
    else:
        duration = rng.randint(shortest, longest) / settings.fps
    if settings.kind == "short":
        number, stretches, backgrounds = rng.randint(2, 5), rng.randint(1, 4), rng.randint(1, 3)
        seconds = (duration / 20, 0.6 * duration / number)
    elif settings.kind == "clip":
        number, seconds, stretches, backgrounds = 1, (0.35 * duration, 0.6 * duration), 1, 1
    elif settings.kind in ("few", "pair"):
        number, share = (rng.randint(1, 3), 7) if settings.kind == "few" else (rng.randint(2, 3), 6)
        seconds, stretches, backgrounds = (duration / share, 0.6 * duration / number), rng.randint(1, 3), 2
    elif settings.kind == "row":  # things fill about 0.6 of it, with gaps half as long as one
        number, stretches, backgrounds = rng.randint(*ROW), rng.randint(1, 3), 2
        seconds = (duration / (1.5 * number + 0.6),) * 2
    else:
        number, seconds = CROWD if settings.kind == "crowded" else rng.randint(4, 6), (2.0, 3.0)
        stretches, backgrounds = max(round(duration / 50), 2), rng.randint(3, 5)
    sizes = duration, settings.fps, settings.side, number, seconds, stretches, backgrounds, settings.colors
    return draw_film(rng, *sizes)


def encode(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes frames, `(side, side, 3)` uint8, as H.264 with a keyframe at least every 5 seconds."""
    rate = Fraction(fps).limit_denominator(1001)
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = round(5 * fps)
        stream.codec_context.thread_count = 1
        for frame in itertools.chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))


def _conversation(turns: list[Question]) -> list[dict]:
    """LLaVA's form; the medium stands in the first turn. Of lettered options, the text is the reply."""
    conversation = []
    for turn in turns:
        medium = "" if conversation else "<image>\n"
        conversation.append({"from": "human", "value": medium + turn.question})
        conversation.append({"from": "gpt", "value": turn.reply})
    return conversation


def _describe(turns: list[Question]) -> list[dict]:
    return [turn.describe() for turn in turns]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Settings("short")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where to")
    parser.add_argument(
        "--kind", choices=KINDS, default="short", help="; ".join(f"{name}: {text}" for name, text in KINDS.items())
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="splits share no video (default: train)")
    parser.add_argument("--count", type=int, default=100, help="videos or pictures (default: 100)")
    parser.add_argument("--min-duration", type=float, help="seconds of a video at least (default: the kind's)")
    parser.add_argument("--max-duration", type=float, help="and at most")
    parser.add_argument("--questions", type=int, default=default.questions, help="a video (default: 8)")
    parser.add_argument(
        "--choice-share", type=float, default=default.choice_share, help="share of multiple choice (default: 0.3)"
    )
    parser.add_argument("--side", type=int, default=default.side, help="of the square picture, pixels (default: 96)")
    parser.add_argument(
        "--colors",
        type=int,
        default=default.colors,
        help=f"of the things of one video, at most (default: {default.colors})",
    )
    parser.add_argument("--fps", type=float, default=default.fps, help="frames a second (default: 8)")
    parser.add_argument("--seed", type=int, default=default.seed, help="(default: 42)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--no-progress", action="store_true", help="no bar")


def run(args: argparse.Namespace) -> int:
    """Films the set; exit status 0."""
    shortest, longest = DURATIONS.get(args.kind, (5.0, 5.0))
    shortest = shortest if args.min_duration is None else args.min_duration
    longest = max(longest, shortest) if args.max_duration is None else args.max_duration
    settings = Settings(
        args.kind,
        args.split,
        args.seed,
        (shortest, longest),
        args.questions,
        args.choice_share,
        args.side,
        args.fps,
        args.colors,
    )
    make_videos(args.output, settings, args.count, args.workers, progress=not args.no_progress)
    return 0


__all__ = ["KINDS", "SPLITS", "Settings", "add_arguments", "encode", "make_one", "make_videos", "run"]
