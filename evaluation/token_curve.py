r"""
Right answers against visual tokens: 4 to 64 scenes of short films, and of ten-minute films with rare events, by every
way to choose them.

    python -m fila_video.evaluation.token_curve --model . --work FOLDER

A model that reads several tokens of a scene is also asked with LP-Comp (`layer_compression="cosine"`), for which it
need not be tuned; tokens that fall away between the layers are then counted as the mean over the layers. Of several
models, such as one with background tokens, each is a group of lines. Films and answers are kept in `--work`: started
again, the command goes on.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ..commands.loading import DEFAULT_MODEL
from ..configuration_fila_video import FilaVideoConfig, pooled_grid_size
from ..layer_compression_fila_video import CompressionSchedule
from ..toy_world.sets import Settings
from .asked_events import named_event
from .charts import ACCENT, COLORS, FAINT, check_can_draw
from .curves import FILMS, Counts, Series, Watcher, add_arguments, chosen_ways, draw, measure_films, section, write
from .records import Record
from .results import markdown
from .selections import event_recall

# By selection, the name in the tables and the color in the picture, which has room for four; others alone have others.
WAYS = {
    "uniform": ("uniform frames", FAINT),
    "bsm": ("BSM", None),
    "kmeans": ("k-means", COLORS[0]),
    "kmeans_dissimilar": ("k-means, dissimilar frames", None),
    "prototypes": ("prototypes", None),
    "farthest": ("farthest", ACCENT),
    "question": ("by the question", COLORS[2]),
}
BY_TIME = ("uniform", "bsm")
SCENES = (4, 8, 16, 32, 48, 64)
SETS = {"short": "Short films", "long": "Long films"}
COMPRESSED = ", LP-Comp"
MODEL_STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "v"))


def visual_tokens(config: FilaVideoConfig, number: int) -> float:
    """Of a video's `number` visual tokens, newlines among them, how many enter a layer on average."""
    if config.layer_compression is None:
        return number
    side = pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride)
    how = (config.layer_compression_group, config.layer_compression_rounding, config.layer_compression_keep)
    schedule = CompressionSchedule(config.text_config.num_hidden_layers, side, config.newline_position, *how)
    return sum(schedule.video(number)) / schedule.num_layers  # a token enters as many layers as the last one's number


def can_compress(config: FilaVideoConfig) -> bool:
    """Whether LP-Comp is not in use already, goes with the model's tokens, and would drop any."""
    side = pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride)
    several = min(side**2, config.layer_compression_group or side**2) > 1
    return config.layer_compression is None and not config.background_tokens and several


@contextmanager
def compressed(config: FilaVideoConfig) -> Iterator[None]:
    """LP-Comp, which has no weights, for a while."""
    config.layer_compression = "cosine"
    try:
        yield
    finally:
        config.layer_compression = None


def measure(watcher: Watcher, ways: list[str], scenes: list[int], record: Record, events: list[dict]) -> Counts:
    """
    By `"way, number of scenes"` the `tokens` of the answers, how many are `right`, and of the questions that name one
    event how often it is `found`.
    """
    named = [(number, named_event(question, events)) for number, question in enumerate(record.questions)]
    named = [(number, record.events[event]) for number, event in named if event is not None]
    config, asked, counts, prompts = watcher.model.config, len(record.questions), {}, {}
    # One pool can fill the most scenes; but how many background tokens there are depends on it.
    shared = None if config.background_tokens else watcher.pools(record, max(scenes))
    for count in scenes:
        pools = shared or watcher.pools(record, count)
        for way in ways:
            pool = pools["even" if way in BY_TIME else "adaptive"]
            prompts[way, count], times = watcher.choose(record, pool, way, count)
            found = sum(event_recall([event], times[number]).found for number, event in named)
            counts[f"{way}, {count}"] = {"found": (found, len(named))}

    def answer(suffix: str = "") -> None:
        for (way, count), right in watcher.right(record, prompts).items():
            tokens = sum(visual_tokens(config, len(prompt.visual)) for prompt in prompts[way, count])
            column = counts.setdefault(f"{way}{suffix}, {count}", {})
            column |= {"right": (right, asked), "tokens": (tokens, asked)}

    answer()
    if can_compress(config):
        with compressed(config):
            answer(COMPRESSED)
    return counts


def mean_tokens(films: list[Counts], column: str) -> float:
    tokens, asked = np.sum([film[column]["tokens"] for film in films], axis=0)
    return tokens / asked


def series_of(films: list[Counts], ways: list[str], scenes: list[int], place: int, model: str) -> list[Series]:
    """The lines of a model and a set; those with LP-Comp are hollow points."""
    dash, marker = MODEL_STYLES[place % len(MODEL_STYLES)]
    lines = []
    for way, suffix in [(way, "") for way in ways] + [(way, COMPRESSED) for way in ways]:
        columns = [f"{way}{suffix}, {count}" for count in scenes]
        if columns[0] not in films[0]:
            continue
        name, color = WAYS[way]
        if not any(WAYS[each][1] for each in ways):
            color = f"C{ways.index(way)}"
        style = {"linestyle": "none", "markerfacecolor": "white"} if suffix else {"linestyle": dash}
        points = [(mean_tokens(films, column), films, column) for column in columns]
        lines.append(Series(f"{name}{suffix}{model}", {"color": color, "marker": marker, **style}, points))
    return lines


def report(args: argparse.Namespace, scenes: list[int], lines: dict[str, dict[str, list[Series]]]) -> str:
    """The tables, by model and set."""
    text = (
        "# Answers by visual tokens\n\n"
        f"`python -m fila_video.evaluation.token_curve --work FOLDER --split {args.split} --seed {args.seed}`: "
        f"{args.films} films of each set, the long ones of {args.long_seconds / 60:g} minutes with rare events. "
        "Percent by the number of scenes, with 95% intervals over films. Visual tokens are those that enter the "
        "language model, newlines among them; with LP-Comp, the mean over its layers.\n"
    )
    header = [str(count) for count in scenes]
    for model, sets in lines.items():
        for name, series in sets.items():
            whose = "" if len(lines) == 1 else f": {model}"
            text += f"\n## {SETS[name]}{whose}\n{section('Right answers:', header, series, 'right')}"
            text += section("Of questions that name one event, a chosen frame shows it:", header, series, "found")
            tokens = [[line.label, *(f"{x:.1f}" for x, *_ in line.points)] for line in series]
            text += f"\nVisual tokens, on average:\n\n{markdown(['', *header], tokens)}"
    return text


def main(argv: Iterable[str] | None = None) -> int:
    """Measures, writes tables and picture; exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", default=[str(DEFAULT_MODEL)], help="folders or Hub names (default: the embedded model)"
    )
    parser.add_argument("--label", nargs="+", help="of each of several models (default: the last part of its name)")
    parser.add_argument("--num-scenes", type=int, nargs="+", default=SCENES, help="(default: from 4 to 64)")
    parser.add_argument("--long-seconds", type=float, default=600.0, help="of the long films (default: 600)")
    add_arguments(parser, WAYS)
    args = parser.parse_args(argv)
    try:
        check_can_draw()
        ways, scenes = chosen_ways(args, WAYS), sorted(set(args.num_scenes))
        names = [Path(model).resolve().name for model in args.model] if len(args.model) > 1 else ["model"]
        labels = args.label or names
        if len(set(labels)) != len(args.model) or len(labels) != len(args.model):
            raise ValueError(f"{len(args.model)} models need as many different --label, got {', '.join(labels)}.")
        films = {
            "short": Settings("short", args.split, args.seed, None, args.questions, **FILMS),
            "long": Settings(
                "rare", args.split, args.seed, (args.long_seconds,) * 2, args.questions, fps=4.0, **FILMS
            ),
        }
        lines, results = {}, {"split": args.split, "seed": args.seed, "about": {}, "films": {}}
        for place, (model, label) in enumerate(zip(args.model, labels, strict=True)):
            watcher = Watcher(model, args.device)
            about = {**watcher.about, "ways": ways, "scenes": scenes}
            results["about"][label] = {key: value for key, value in about.items() if key != "model"}  # a path
            lines[label], results["films"][label] = {}, {}
            for name, settings in films.items():
                file = f"tokens_{re.sub(r'[^a-zA-Z0-9_.-]', '_', label)}_{name}_{args.split}_{args.seed}"
                watch = partial(measure, watcher, ways, scenes)
                measured = results["films"][label][name] = measure_films(args, file, settings, about, watch)
                suffix = "" if len(labels) == 1 else f" ({label})"
                lines[label][name] = series_of(measured, ways, scenes, place, suffix)
        text = report(args, scenes, lines)
        write(args.output, "token_curve", text, results)
        drawn = {
            name: [line for sets in lines.values() for line in sets[name] if line.style["color"] is not None]
            for name in SETS
        }
        panels = [
            [(f"{title}: {what} (%)", drawn[name], column) for name, title in SETS.items()]
            for column, what in (("right", "right"), ("found", "named event found"))
        ]
        places = [x for sets in lines.values() for series in sets.values() for line in series for x, *_ in line.points]
        ticks = [2**power for power in range(20) if 0.75 * min(places) <= 2**power <= 1.35 * max(places)]
        draw(args.output / "token_curve.png", panels, "visual tokens", ticks)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"token_curve: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
