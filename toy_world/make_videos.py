"""
Films a set of the procedural world: real H.264 files, or pictures, with exact annotations from a seed.

    fila-video make-videos --output WORLD --kind short --split train --count 1000
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from PIL import Image
from tqdm.auto import tqdm

from ..commands.files import lock_file, replacing
from .joined import ask_about_joined, conversation
from .looks import CODECS, draw_look, encode
from .questions import (
    CAPTION_REQUESTS,
    FILM_KINDS,
    MORE_KINDS,
    Question,
    ask_about_film,
    ask_about_picture,
    ask_in_vain,
    caption_film,
    caption_film_with_times,
    caption_picture,
    still,
)
from .sets import CROWD, DURATIONS, GRID, KINDS, ROW, SPLITS, Settings
from .wordings import SETS, STYLES, Wordings
from .world import (
    COMPOSITIONS,
    NAMELESS,
    SHAPES,
    Background,
    Film,
    Thing,
    draw_colors,
    draw_film,
    draw_new_thing,
    draw_thing,
)


def make_videos(output: str | Path, settings: Settings, count: int, workers: int = 1, progress: bool = False) -> Path:
    """
    Films `count` videos or pictures under `output` and writes their records.

    The n-th depends on the settings and n alone: a larger set begins with the smaller one, and splits, which seed
    their own generators, share nothing. A set that was broken off is gone on with; videos of the same names that were
    made with other settings are removed.

    Returns:
        `Path`: The JSONL file, `{split}_{kind}.jsonl`. A record is in LLaVA's conversation form; `events` are what is
        seen from when to when (seconds) and `questions` what the turns are: `kind`, `form`, `question`, `answer`.

    Raises:
        ValueError: For settings that cannot be, or where another run films the same set into this folder.
        `FileExistsError` if the file is there already.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    output = Path(output)
    records = output / f"{settings.split}_{settings.kind}.jsonl"
    if records.exists():
        raise FileExistsError(f"{records} is there already: name another output, or remove it.")
    (output / ("images" if settings.is_picture else "videos")).mkdir(parents=True, exist_ok=True)
    begun, text = output / f".{records.name}", json.dumps(asdict(settings))
    with open(begun, "a+", encoding="utf-8") as file:
        lock_file(file, records)
        if records.exists():  # by a run that ended just now
            raise FileExistsError(f"{records} is there already: name another output, or remove it.")
        # A set that was broken off has no records, but says which one it is: its videos stay. Those of any other must
        # go before this one is named, or they would be taken for its own after the next break.
        file.seek(0)
        keep = file.read() == text
        if not keep:
            for video in output.glob(f"videos/{settings.split}_{settings.kind}_[0-9]*.mp4"):
                video.unlink()
            file.truncate(0)
            file.write(text)
            file.flush()
        make = partial(make_one, output, settings, keep=keep)
        with (
            replacing(records) as unfinished,
            open(unfinished, "w", encoding="utf-8") as lines,
            ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        ):
            made = pool.map(make, range(count), chunksize=8) if workers > 1 else map(make, range(count))
            for record in tqdm(made, total=count, desc="Filming", disable=not progress):
                lines.write(json.dumps(record) + "\n")
    begun.unlink()
    return records


def make_one(output: Path, settings: Settings, index: int, keep: bool = False) -> dict:
    """Films the `index`-th of a set, but for a video that is to be kept and is there, and returns its record."""
    origin = f"{settings.seed}/{settings.split}/{settings.kind}/{index}"
    name = f"{settings.split}_{settings.kind}_{index:06d}"
    make = _make_picture if settings.is_picture else _make_video
    return {"id": name, **make(origin, output, name, settings, keep), "data_source": f"procedural_{settings.kind}"}


def _make_picture(origin: str, output: Path, name: str, settings: Settings, keep: bool) -> dict:
    rng = Random(origin)
    picture = Background(rng, settings.side).at(rng.uniform(0, 60))
    count = rng.choice((1, 2)) if settings.kind == "picture-questions" else int(rng.random() > 0.1)
    colors, pairs = draw_colors(rng, settings.colors), COMPOSITIONS[settings.compositions]
    things = [_draw_still(rng, colors, pairs) for _ in range(count)]
    if count == 2:  # side by side, neither hides the other
        things = [_in_half(thing, half) for half, thing in enumerate(things)]
    for thing in things:
        draw_thing(picture, thing)
    look = draw_look(Random(f"{origin}/look"), settings.side, settings.boxed, settings.light)
    Image.fromarray(look.show(picture)).save(output / "images" / f"{name}.png")
    wordings = Wordings(Random(f"{origin}/words"), settings.wordings, settings.style, "picture")
    turns = [Question("caption", "free", wordings.ask("picture"), caption_picture(things))]
    if settings.kind == "picture-questions":
        turns += ask_about_picture(rng, things, settings.questions, settings.choice_share, wordings, pairs)
        vain = Random(f"{origin}/vain")
        turns += ask_in_vain(vain, still(things, pairs), settings.refusals, wordings, settings.split == "test")
    return {
        "image": f"images/{name}.png",
        "conversations": conversation(turns),
        "things": [thing.describe() for thing in things],
        "questions": _describe(turns),
    }


def _draw_still(rng: Random, colors: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Thing:
    if not all(pairs[0]):
        return draw_new_thing(rng, *rng.choice([pair for pair in pairs if pair[0] in (*colors, NAMELESS)]))
    while (pair := (rng.choice(colors), rng.choice(SHAPES))) not in pairs:
        continue
    return draw_new_thing(rng, *pair)


def _in_half(thing: Thing, half: int) -> Thing:
    return replace(thing, size=min(thing.size, 0.44), x=(0.25, 0.75)[half])


def _make_video(origin: str, output: Path, name: str, settings: Settings, keep: bool) -> dict:
    rng, looks = Random(origin), Random(f"{origin}/look")
    look = draw_look(looks, settings.side, settings.boxed, settings.light)
    moving, codec = looks.random() < settings.moving, looks.choice(settings.codecs)
    if settings.rates:
        settings = replace(settings, fps=looks.choice(settings.rates))
    film = _draw(rng, settings, moving)
    path = f"videos/{name}.mp4"
    if not (keep and (output / path).is_file()):
        encode(output / path, map(look.show, film.frames()), settings.fps, codec)
    wordings = Wordings(Random(f"{origin}/words"), settings.wordings, settings.style)
    if settings.kind == "clip":
        event = film.events[0]
        turns = [_caption(wordings, "caption", rng.choice(CAPTION_REQUESTS), f"{event.caption.capitalize()}.")]
    else:
        test = settings.split == "test"
        turns = ask_about_film(rng, film, settings.questions, settings.choice_share, settings.ask, wordings, test)
        vain = Random(f"{origin}/vain")
        turns += ask_in_vain(vain, film, settings.refusals, wordings, test)
        kind, request, caption = "caption", rng.choice(CAPTION_REQUESTS), caption_film(film)
        if rng.random() < 0.2:
            kind, request, caption = "times", "Describe the video with times.", caption_film_with_times(film)
        turns.append(_caption(wordings, kind, request, caption))
    return {
        "video": path,
        "duration": film.duration,
        "conversations": conversation(turns),
        "events": [event.describe() for event in film.events],
        "questions": _describe(turns),
    }


def _caption(wordings: Wordings, kind: str, plain: str, caption: str) -> Question:
    """A request of that kind; of plain wordings the one that is given."""
    text = wordings.say(plain) if wordings.which == "plain" else wordings.ask(kind)
    return Question("caption", "free", text, caption)


def _draw(rng: Random, settings: Settings, moving: bool) -> Film:
    shortest, longest = (round(seconds * settings.fps) for seconds in settings.duration or DURATIONS[settings.kind])
    if settings.kind == "short":  # as many of 5 to 10 seconds as of 30 to 60
        duration = round(shortest * (longest / shortest) ** rng.random()) / settings.fps
    else:
        duration = rng.randint(shortest, longest) / settings.fps
    if settings.kind == "short":
        number, stretches, backgrounds = rng.randint(2, 5), rng.randint(1, 4), rng.randint(1, 3)
        seconds = (duration / 20, 0.6 * duration / number)
    elif settings.kind == "empty":
        number, seconds, stretches, backgrounds = 0, (1.0, 1.0), rng.randint(1, 4), rng.randint(1, 3)
    elif settings.kind == "clip":
        number, seconds, stretches, backgrounds = 1, (0.35 * duration, 0.6 * duration), 1, 1
    elif settings.kind in ("few", "pair"):
        number, share = (rng.randint(1, 3), 7) if settings.kind == "few" else (rng.randint(2, 3), 6)
        seconds, stretches, backgrounds = (duration / share, 0.6 * duration / number), rng.randint(1, 3), 2
    elif settings.kind == "travel":
        number, seconds, stretches, backgrounds = rng.randint(3, 4), (0.0, 0.0), rng.randint(1, 3), 2
    elif settings.kind == "row":  # things fill about 0.6 of it, with gaps half as long as one
        number, stretches, backgrounds = rng.randint(*ROW), rng.randint(1, 3), 2
        seconds = (duration / (1.5 * number + 0.6),) * 2
    else:
        number, seconds = CROWD if settings.kind == "crowded" else rng.randint(4, 6), (2.0, 3.0)
        stretches, backgrounds = max(round(duration / 50), 2), rng.randint(3, 5)
    if moving:  # a new place every seven seconds or so
        stretches, backgrounds = max(round(duration / 7), 3), min(max(round(duration / 14), 3), 20)
    sizes = duration, settings.fps, settings.side, number, seconds, stretches, backgrounds, settings.colors
    grid = GRID if settings.kind == "travel" else None
    return draw_film(rng, *sizes, compositions=settings.compositions, moving=moving, grid=grid)


def _describe(turns: list[Question]) -> list[dict]:
    return [turn.describe() for turn in turns]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Settings("short")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where to")
    parser.add_argument(
        "--kind", choices=KINDS, default="short", help="; ".join(f"{name}: {text}" for name, text in KINDS.items())
    )
    parser.add_argument(
        "--joined",
        metavar="FOLDER",
        help="film nothing: ask about the videos that build-dataset joined there from films of the output's folder",
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
    # Without a default, so that one that is given beside --rates can be told.
    parser.add_argument("--fps", type=float, help=f"frames a second (default: {default.fps:g})")
    parser.add_argument("--rates", type=float, nargs="+", default=default.rates, help="instead, one of these each")
    parser.add_argument(
        "--ask",
        nargs="+",
        choices=(*FILM_KINDS, *MORE_KINDS, "all"),
        default=default.ask,
        help="kinds, or all (default: all but motion and there)",
    )
    parser.add_argument(
        "--wordings", choices=SETS, default=default.wordings, help="of each kind (default: plain, which is one)"
    )
    parser.add_argument("--style", choices=STYLES, default=default.style, help="how they are typed (default: plain)")
    parser.add_argument(
        "--refusals", type=int, default=0, help="questions about what is not there or about something else, a video"
    )
    parser.add_argument(
        "--compositions",
        choices=COMPOSITIONS,
        default="all",
        help="pairs of color and shape; of shapes the colors have no name, of colors the shapes (default: all)",
    )
    parser.add_argument("--boxed", type=float, default=0.0, help="share between black bars (default: 0)")
    parser.add_argument(
        "--light", type=float, nargs=2, default=default.light, metavar=("LOW", "HIGH"), help="darker below 1, brighter"
    )
    parser.add_argument("--moving", type=float, default=0.0, help="share with fast cameras and changing backgrounds")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=default.codecs, help="one of these each")
    parser.add_argument("--seed", type=int, default=default.seed, help="(default: 42)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--no-progress", action="store_true", help="no bar")


def run(args: argparse.Namespace) -> int:
    """
    Films the set, or asks about a joined one; exit status 0.

    Raises:
        ValueError: For settings that cannot be, or `--fps` beside `--rates` or for pictures.
    """
    if args.fps is not None and args.rates:
        rates = " ".join(f"{rate:g}" for rate in args.rates)
        raise ValueError(f"--fps {args.fps:g} has no effect beside --rates {rates}: leave out one of them.")
    duration = None
    if args.min_duration is not None or args.max_duration is not None:
        shortest, longest = DURATIONS.get(args.kind, (5.0, 5.0))
        shortest = shortest if args.min_duration is None else args.min_duration
        duration = shortest, max(longest, shortest) if args.max_duration is None else args.max_duration
    if args.fps is not None and args.kind.startswith("picture"):
        raise ValueError(f"--fps {args.fps:g} has no effect for the kind {args.kind}: leave it out.")
    given = {field.name: getattr(args, field.name) for field in fields(Settings) if field.name != "duration"}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if "all" in args.ask:
        given["ask"] = (*FILM_KINDS, *MORE_KINDS)
    given["fps"] = Settings.fps if args.fps is None else args.fps
    settings = Settings(**given, duration=duration)
    if args.joined is not None:
        ask_about_joined(args.output, args.joined, settings, args.count)
        return 0
    make_videos(args.output, settings, args.count, args.workers, progress=not args.no_progress)
    return 0


__all__ = ["KINDS", "SPLITS", "Settings", "add_arguments", "encode", "make_one", "make_videos", "run"]
