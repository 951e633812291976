r"""
What a visitor may expect of a checkpoint of the procedural world, in one table: short and long films, other wordings,
other pictures, unseen things, and questions that cannot be answered.

    python -m fila_video.evaluation.goals --model WORK/stage4 --work GOALS

It films its own sets (of the split `validation`, unless another is named) and keeps films and answers in `--work`:
started again, it goes on. For a last look at the split `test`, take a seed that `evaluation/seeds.md` does not name.
With `--output` it keeps what was right and what was refused, question by question.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from ..commands.loading import DEFAULT_MODEL
from ..toy_world.make_videos import make_videos
from ..toy_world.questions import REFUSALS
from ..toy_world.sets import SPLITS, Settings
from .answer_questions import load_answerer
from .answering import Answerer
from .intervals import accuracy, difference
from .records import read_records
from .results import counts, evaluate, explained, is_question, load_results, markdown, percent, save_results
from .selections import find_selection, own_selection
from .tables import pack
from .texts import normalize

logger = logging.get_logger(__name__)

UNIFORM = "uniform"
REFUSED = ", refused"  # behind the name of a column: how many of its answers refuse
# What differs from plain short films in each set. Of the pairs of color and shape, those of training are shown in all
# but one; short films are asked in vain too.
SETS = {
    "short": {"refusals": 4},
    "long": {"kind": "rare"},
    "wordings": {"wordings": "held-out"},
    "lower": {"style": "lower"},
    "upper": {"style": "upper"},
    "boxed": {"boxed": 1.0},
    "darker": {"light": (0.6, 0.6)},
    "unseen": {"compositions": "held-out"},
    "there": {"ask": ("there",)},
    "motion": {"ask": ("motion",)},
}


@dataclass(frozen=True)
class Row:
    """
    One line of the table: of a set and a selection (the model's own, where there is none) the share of right answers,
    or, with `refused`, of answers that refuse; with `change`, less that of the short films. `goal` is the least, or of
    true questions that are refused the most.
    """

    label: str
    name: str
    goal: float | None
    selection: str | None = None
    refused: bool = False
    in_vain: bool = False
    change: bool = False

    @property
    def goal_text(self) -> str:
        if self.goal is None:
            return "-"
        if self.change:
            return f"{100 * self.goal:.0f} or better"
        return f"under {100 * self.goal:.0f}" if self.refused and not self.in_vain else f"{100 * self.goal:.0f}"

    def is_met(self, value: float) -> bool:
        return value < self.goal if self.refused and not self.in_vain else value >= self.goal


ROWS = (
    Row("short films", "short", 0.88),
    Row("short films, uniform frames", "short", 0.90, UNIFORM),
    Row("ten-minute films with rare events", "long", 0.80),
    Row("unseen wordings, change", "wordings", -0.05, change=True),
    Row("lower case, change", "lower", -0.02, change=True),
    Row("upper case, change", "upper", -0.10, change=True),
    Row("between black bars, change", "boxed", -0.05, change=True),
    Row("darker (0.6), change", "darker", -0.05, change=True),
    Row("unseen pairs of color and shape", "unseen", 0.75),
    Row("false premises that are refused", "short", 0.90, refused=True, in_vain=True),
    Row("false premises that are refused with the right words", "short", None, in_vain=True),
    Row("true questions that are refused", "short", 0.03, refused=True),
    Row("whether something is there", "there", None),
    Row("how things move", "motion", None),
)


def set_of(name: str, split: str, seed: int, long_seconds: float = 600.0) -> Settings:
    """The settings of a set; all but the long films, the unseen pairs and the last two show and ask the same."""
    changes = {"kind": "short", "compositions": "train", "side": 64, **SETS[name]}
    duration = (long_seconds, long_seconds) if name == "long" else None
    return Settings(split=split, seed=seed, duration=duration, **changes)


def is_refusal(answer: str) -> bool:
    """Whether an answer says that there is no such thing, or that it cannot talk about something."""
    text = normalize(answer)
    return text.startswith(("there is no ", "there is only ", "there are only ", "i can only talk about "))


def answer_sets(
    answerer: Answerer,
    model: str,
    work: str | Path,
    split: str,
    seed: int,
    films: int,
    long_films: int,
    long_seconds: float = 600.0,
    workers: int = 1,
) -> dict[str, dict]:
    """
    The results of every set by its name, as [`evaluate`] gives them, with a column of refusals beside each of right
    answers. What was filmed or answered before is kept.

    Raises:
        ValueError: If the folder holds the answers of another model, also of one of the same name, or with other
            settings of its processor.
    """
    work, results = Path(work), {}
    for name in tqdm(SETS, desc="Sets", disable=None):
        settings, count = set_of(name, split, seed, long_seconds), long_films if name == "long" else films
        folder = work / "films" / f"{name}_{split}_{seed}_{count}_{long_seconds:g}"
        saved = work / "answers" / f"{folder.name}.json"
        if not saved.is_file():
            records = folder / f"{split}_{settings.kind}.jsonl"
            if not records.is_file():
                make_videos(folder, settings, count, workers)
            own = own_selection(answerer.processor.video_processor.scene_settings())
            selections = {answerer.processor.selection: own}
            if name == "short":
                selections.setdefault(UNIFORM, find_selection(UNIFORM))
            found = evaluate({model: answerer}, read_records(records), selections, blind=False)
            found[model] |= {"digest": answerer.digest, "settings": answerer.settings}
            part = saved.with_suffix(".part")
            save_results(found, part)
            part.replace(saved)
        found = load_results(saved)
        if [result.get("digest") for result in found.values()] != [answerer.digest]:
            raise ValueError(f"{saved} holds the answers of another model than {model}: name another --work.")
        (results[name],) = found.values()
        _check_settings(saved, results[name].get("settings"), answerer.settings)
        for row in results[name]["questions"]:
            row["right"] |= {column + REFUSED: int(is_refusal(text)) for column, text in row["answers"].items()}
    return results


def _check_settings(saved: Path, before: dict | None, now: dict) -> None:
    if before is None:
        logger.warning_once(f"{saved.parent}: answers of an earlier version do not say with which settings they are.")
        return
    # Settings that one version has and the other has not are left out.
    if other := [name for name in now if name in before and before[name] != now[name]]:
        pairs = "; ".join(f"{name}: {before[name]!r} there, {now[name]!r} now" for name in other)
        raise ValueError(
            f"{saved} holds answers with other settings of the processor ({pairs}): name another --work, or give the "
            "processor those settings."
        )


def table(results: dict[str, dict], selection: str) -> str:
    """The rows with their intervals (95%, over films), the number of questions, the goal, and whether it is met."""
    body = []
    for row in ROWS:
        column = row.selection or selection
        value, number = _measure(row, results, column)
        met = "" if row.goal is None else ("yes" if row.is_met(value[0]) else "no")
        body.append([row.label, str(number), percent(value), row.goal_text, met])
    return markdown(["", "questions", "percent", "goal", "met"], body)


def by_kind(results: dict[str, dict], selection: str) -> str:
    """The share of right answers of each kind of question, in every set that asks it."""
    kinds = list(dict.fromkeys(row["kind"] for result in results.values() for row in result["questions"]))
    body = []
    for kind in kinds:
        cells = []
        for result in results.values():
            asked = any(row["kind"] == kind for row in result["questions"])
            where = lambda row, kind=kind: row["kind"] == kind  # noqa: E731
            cells.append(percent(accuracy(*counts([result], selection, where)) if asked else None))
        body.append([kind, *cells])
    return markdown(["right, by kind of question", *results], body)


def _measure(row: Row, results: dict[str, dict], column: str) -> tuple[tuple[float, float, float], int]:
    where: Callable[[dict], bool] = is_in_vain if row.in_vain else is_true
    result, column = results[row.name], column + (REFUSED if row.refused else "")
    if row.change:  # the same films are asked the same
        right, asked = counts([result, results["short"]], column, where)
        return difference(right[:1], right[1:], asked), int(asked.sum())
    right, asked = counts([result], column, where)
    return accuracy(right, asked), int(asked.sum())


def is_in_vain(row: dict) -> bool:
    return row["kind"] in REFUSALS


def is_true(row: dict) -> bool:
    return is_question(row) and not is_in_vain(row)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub name (default: the embedded model)")
    parser.add_argument("--work", metavar="FOLDER", required=True, help="of films and answers, of this model alone")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="(default: validation)")
    parser.add_argument("--seed", type=int, default=42, help="of the films (default: 42)")
    parser.add_argument("--films", type=int, default=60, help="of each set (default: 60)")
    parser.add_argument("--long-films", type=int, default=24, help="of ten minutes (default: 24)")
    parser.add_argument("--workers", type=int, default=1, help="processes that film (default: 1)")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="of what was right and what was refused, as JSON")


def main(argv: Iterable[str] | None = None) -> int:
    """Prints the tables. Exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        answerer = load_answerer(args.model, args.device)
        sizes = args.split, args.seed, args.films, args.long_films
        results = answer_sets(answerer, args.model, args.work, *sizes, workers=args.workers)
        selection = answerer.processor.selection
        if args.output is not None:
            sets = {name: pack({"model": result}) for name, result in results.items()}
            kept = {"split": args.split, "seed": args.seed, "selection": selection, "sets": sets}
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
        sys.stdout.write(explained(f"{table(results, selection)}\n{by_kind(results, selection)}"))
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"goals: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
