r"""
Things that are seen for two to three seconds in films of one minute to two hours: how many of them a chosen frame
shows, and how many answers are right.

    python -m fila_video.evaluation.needle --model . --work FOLDER

At equal numbers of visual tokens, evenly spaced frames are compared with k-means and farthest-point selection. Each of
these chooses from two pools of as many candidates: an even one, and the processor's own, which keeps the frames that
differ most from their neighbors. The command films its own sets and keeps films and answers in `--work`: started
again, it goes on.
"""

import argparse
import sys
from collections.abc import Iterable

import torch

from ..commands.loading import DEFAULT_MODEL
from ..toy_world.sets import Settings
from .charts import ACCENT, COLORS, FAINT, INK, check_can_draw
from .curves import FILMS, Counts, Series, Watcher, add_arguments, chosen_ways, draw, measure_films, section, write
from .records import Record
from .selections import event_recall

# By name: the label, the selection, the pool and the style of the line; the pools themselves are found only.
WAYS = {
    "uniform": ("uniform frames", "uniform", "even", {"color": FAINT, "marker": "o"}),
    "kmeans-even": ("k-means, even pool", "kmeans", "even", {"color": COLORS[0], "linestyle": "--", "marker": "o"}),
    "kmeans-adaptive": ("k-means, adaptive pool", "kmeans", "adaptive", {"color": COLORS[0], "marker": "o"}),
    "farthest-even": ("farthest, even pool", "farthest", "even", {"color": ACCENT, "linestyle": "--", "marker": "o"}),
    "farthest-adaptive": ("farthest, adaptive pool", "farthest", "adaptive", {"color": ACCENT, "marker": "o"}),
}
POOLS = {
    "even": ("all of the even pool", {"color": INK, "linestyle": ":", "linewidth": 1.2}),
    "adaptive": ("all of the adaptive pool", {"color": INK, "linestyle": "-.", "linewidth": 1.2}),
}
MINUTES = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)


def measure(watcher: Watcher, ways: list[str], record: Record) -> Counts:
    """The events `found` by each way and by each whole pool, and the answers that are `right`."""
    num_scenes, number, counts, prompts = watcher.processor.num_scenes, len(record.events), {}, {}
    pools = watcher.pools(record, num_scenes)
    for name, pool in pools.items():
        times = torch.tensor(pool.timestamps, dtype=torch.float64)[:, None]
        counts[name] = {"found": (event_recall(record.events, times).found, number)}
    # Of a short film the two pools are one: what is chosen from it is asked once.
    same = {name: (WAYS[name][1], id(pools[WAYS[name][2]])) for name in ways}
    for name in ways:
        _, selection, pool, _ = WAYS[name]
        prompts[same[name]], times = watcher.choose(record, pools[pool], selection, num_scenes)
        counts[name] = {"found": (event_recall(record.events, times[0]).found, number)}
    right = watcher.right(record, prompts)
    for name in ways:
        counts[name]["right"] = right[same[name]], len(record.questions)
    return counts


def main(argv: Iterable[str] | None = None) -> int:
    """Measures, writes tables and picture; exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub name (default: the embedded model)")
    parser.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="lengths (default: from 1 to 120)")
    add_arguments(parser, WAYS)
    args = parser.parse_args(argv)
    try:
        check_can_draw()
        ways = chosen_ways(args, WAYS)
        watcher = Watcher(args.model, args.device)
        about = {**watcher.about, "ways": ways}
        results = {}
        for minutes in sorted(set(args.minutes)):
            duration = (60 * minutes, 60 * minutes)
            settings = Settings("rare", args.split, args.seed, duration, args.questions, fps=4.0, **FILMS)
            name = f"needle_{minutes:g}min_{args.split}_{args.seed}"
            results[minutes] = measure_films(args, name, settings, about, lambda film, _: measure(watcher, ways, film))
        chosen = [(name, WAYS[name][0], WAYS[name][-1]) for name in ways]
        pools = [(name, *POOLS[name]) for name in POOLS]
        lines = [
            Series(label, style, [(minutes, films, name) for minutes, films in results.items()])
            for name, label, style in [*chosen, *pools]
        ]
        header, found, right = (
            [f"{minutes:g}" for minutes in results],
            "Events that a chosen frame shows",
            "Right answers",
        )
        text = (
            "# Short events in long films\n\n"
            f"`python -m fila_video.evaluation.needle --work FOLDER --split {args.split} --seed {args.seed}`: "
            f"{args.films} films of each length, with four to six things that are seen for two to three seconds. Each "
            f"way gives the model {watcher.processor.num_scenes} scenes. Percent by minutes, with 95% intervals over "
            "films.\n"
            f"{section(f'{found}:', header, lines, 'found')}{section(f'{right}:', header, lines, 'right')}"
        )
        del about["model"]  # a path
        write(args.output, "needle", text, {"about": about, "minutes": results})
        row = [(f"{found} (%)", lines, "found"), (f"{right} (%)", lines, "right")]
        draw(args.output / "needle.png", [row], "minutes of film", results)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"needle: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
