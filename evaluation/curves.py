"""
What the curves by length and by visual tokens share: films that are made and measured one by one and kept, pools of
both kinds, scenes as the processor chooses them, and lines as a picture.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..commands.files import lock_file
from ..commands.loading import load_model, quiet
from ..encoded_video_fila_video import EncodedVideo
from ..frame_selector_fila_video import FrameSelector
from ..question_selection_fila_video import Question as ChoosingQuestion
from ..toy_world.make_videos import make_one
from ..toy_world.sets import SPLITS, Settings
from ..video_prompt_fila_video import prompt_of_question
from .answering import Answerer, Prompt
from .charts import FAINT, GRID, INK
from .intervals import accuracy
from .judging import is_right
from .records import Question, Record
from .results import markdown, percent

# Of one film: by column and by what is counted, how many of how many.
Counts = dict[str, dict[str, tuple[float, float]]]
# Of all films: the embedded model's size, and the pairs of color and shape that training shows.
FILMS = {"side": 64, "compositions": "train"}


class Watcher:
    """
    A model that watches a film once for each of its pools, and is asked with scenes that the processor's own selector
    chooses from them.

    Raises:
        ValueError: If the model chooses its frames itself.
    """

    def __init__(self, name: str, device: str | None = None) -> None:
        quiet()
        self.name = name
        self.model, self.processor = load_model(name, device)
        if self.processor.frame_encoding == "cooperative":
            raise ValueError(f"{name} chooses its frames itself (`frame_encoding='cooperative'`), there is no choice.")
        self.answerer = Answerer(self.model, self.processor)
        self._selector = FrameSelector(model=self.model)

    @property
    def about(self) -> dict[str, Any]:
        """What answers depend on: the model's name and digest, and the processor's settings."""
        return {"model": self.name, "weights": self.answerer.digest, "settings": self.answerer.settings}

    def pools(self, record: Record, num_scenes: int) -> dict[str, EncodedVideo]:
        """
        The film's candidate frames: `"adaptive"` as the processor takes them for selections that look at frames, and
        `"even"`, as many at equal distances. Where the former are evenly spaced already, the two are one.
        """
        # Thinned only by what is selected from it.
        whole = self.processor.video_processor.max_candidates
        read = partial(self.processor.encode_video, record.path, encoded_candidates=whole, selection="kmeans")
        adaptive = read(num_scenes=num_scenes)
        is_even = adaptive.metadata.pool != "spread"
        return {"adaptive": adaptive, "even": adaptive if is_even else read(num_frames=len(adaptive))}

    def choose(
        self, record: Record, pool: EncodedVideo, selection: str, num_scenes: int
    ) -> tuple[list[Prompt], list[torch.Tensor]]:
        """Of each question about a film, the prompt and the times `(num_scenes, scene_size)` of the frames chosen."""
        if selection == "question":
            alone = [replace(record, questions=[question]) for question in record.questions]
            chosen = [self._choose(single, pool, selection, num_scenes) for single in alone]
        else:
            chosen = [self._choose(record, pool, selection, num_scenes)]
        return [prompt for prompts, _ in chosen for prompt in prompts], [
            times for prompts, times in chosen for _ in prompts
        ]

    def _choose(
        self, record: Record, pool: EncodedVideo, selection: str, num_scenes: int
    ) -> tuple[list[Prompt], torch.Tensor]:
        videos, times = self.processor.video_processor, torch.tensor(pool.timestamps, dtype=torch.float64)
        settings = videos.scene_settings(selection=selection, num_scenes=num_scenes)
        prompt = partial(
            prompt_of_question,
            tokenizer=self.processor.tokenizer,
            video_token=self.processor.video_token,
            render=self.processor.apply_chat_template,
        )
        question = ChoosingQuestion(record.questions[0].text, times, prompt)
        selected = self._selector.select(pool, settings, videos.pixels, question=question)
        prompts, _ = self.answerer.about_scenes(
            record, pool.metadata, selected.inputs, selected.indices, selected.background
        )
        return prompts, times[selected.indices]

    def right(self, record: Record, prompts: dict[Any, list[Prompt]]) -> dict[Any, int]:
        """How many of a film's questions are answered rightly, with the prompts of each way to choose scenes."""
        replies = iter(self.answerer.answer([prompt for group in prompts.values() for prompt in group]))
        return {way: sum(is_right(question, next(replies)) for question in record.questions) for way in prompts}


def measure_films(
    args: argparse.Namespace,
    name: str,
    settings: Settings,
    about: dict[str, Any],
    measure: Callable[[Record, list[dict]], Counts],
) -> list[Counts]:
    """
    Makes and measures the films of a set, one after another. What was filmed or measured before is kept in `--work`.

    Args:
        args (`Namespace`): Those of [`add_arguments`].
        name (`str`): Of the file of answers.
        settings (`Settings`): Of the films.
        about (`dict`): All that the answers depend on beside the films, and the `model`'s name.
        measure (`Callable`): From a film's record, without captions, and its events to what is counted.

    Raises:
        ValueError: If the file holds the answers of another model or other settings, or a number is under 1.
    """
    for option in ("films", "questions", "workers"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}.")
    file = args.work / "answers" / f"{name}.json"
    about = json.loads(json.dumps(about | {"films": asdict(settings)}))
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"about": about, "measured": []}
    if other := [key for key in about if key != "model" and known["about"].get(key) != about[key]]:
        raise ValueError(
            f"{file} holds the answers of {known['about']['model']} with other {' and '.join(other)} than those of "
            f"{about['model']} now: name another --work."
        )
    measured = known["measured"]
    seconds = "" if settings.duration is None else f"_{settings.duration[0]:g}s"
    folder = args.work / "films" / f"{settings.kind}{seconds}_{settings.fps:g}fps_{settings.split}_{settings.seed}"
    for place in (folder / "videos", file.parent):
        place.mkdir(parents=True, exist_ok=True)
    missing, make = range(len(measured), args.films), partial(make_one, folder, settings, keep=True)
    with (
        open(folder / ".lock", "a", encoding="utf-8") as lock,
        ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool,
    ):
        lock_file(lock, folder)  # two curves may be of the same films
        made = pool.map(make, missing) if args.workers > 1 else map(make, missing)
        for film in tqdm(made, desc=name, total=len(missing), disable=None):
            asked = [Question(q["question"], q["answer"], q["kind"], q["form"]) for q in film["questions"]]
            asked = [question for question in asked if question.kind != "caption"]
            seen = [(event["start"], event["end"]) for event in film["events"]]
            record = Record(film["id"], folder / film["video"], True, asked, film["duration"], seen)
            measured.append(measure(record, film["events"]))
            part = file.with_suffix(".part")
            part.write_text(json.dumps({"about": about, "measured": measured}), encoding="utf-8")
            part.replace(file)
    return measured[: args.films]


@dataclass(frozen=True)
class Series:
    """A row of the tables and a line of the picture: `points` are (place on the axis, films, their column)."""

    label: str
    style: dict[str, Any]
    points: list[tuple[float, list[Counts], str]]

    def shares(self, what: str) -> list[tuple[float, float, float] | None]:
        """At each point the share and its interval (95%, over films), `None` where nothing of that was counted."""
        counts = [
            np.array([film[column].get(what, (0, 0)) for film in films], float) for _, films, column in self.points
        ]
        return [accuracy(each[None, :, 0], each[:, 1]) if each[:, 1].sum() else None for each in counts]


def section(title: str, header: list[str], series: list[Series], what: str) -> str:
    """A table of what was counted, in percent, and in its last row of how many."""
    rows = {line.label: line.shares(what) for line in series}
    body = [[label, *map(percent, shares)] for label, shares in rows.items() if any(shares)]
    numbers = [sum(film[column][what][1] for film in films) for _, films, column in series[0].points]
    return f"\n{title}\n\n{markdown(['', *header], [*body, ['number', *map(str, numbers)]])}"


def draw(file: Path, panels: list[list[tuple[str, list[Series], str]]], x_label: str, ticks: Iterable[float]) -> None:
    """
    Rows of panels, each a title, lines and what is drawn of them with its intervals, over one logarithmic axis with
    `ticks`, and one legend.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.3 * len(panels) + 0.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    axes, legend = figure.subplots(len(panels), len(panels[0]), squeeze=False).flat, {}
    for axis, (title, series, what) in zip(axes, (panel for row in panels for panel in row), strict=True):
        for number, line in enumerate(series):
            points = [(x, share) for (x, *_), share in zip(line.points, line.shares(what), strict=True) if share]
            if not points:
                continue
            # Beside one another, where lines meet.
            places = [x * 1.02 ** (number - (len(series) - 1) / 2) for x, _ in points]
            middles, lows, highs = 100 * np.array([share for _, share in points]).T
            style = {"elinewidth": 0.8, "linewidth": 1.8, "markersize": 4.5, **line.style}
            legend.setdefault(line.label, axis.errorbar(places, middles, [middles - lows, highs - middles], **style))
        axis.set_xscale("log")
        axis.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_ylim(-2, 103)
        axis.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
        axis.set_xlabel(x_label, color=FAINT, fontsize=10)
        axis.grid(axis="y", color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(length=0, labelsize=9.5, colors=FAINT)
        for side in axis.spines.values():
            side.set_visible(False)
    how = {
        "loc": "outside lower center",
        "ncols": 4 if len(legend) == 4 else 3,
        "frameon": False,
        "fontsize": 9.5,
        "labelcolor": INK,
    }
    figure.legend(legend.values(), legend.keys(), handlelength=2.6, **how)
    figure.savefig(file, dpi=160, metadata={"Software": None})


def write(output: Path, name: str, text: str, results: dict[str, Any]) -> None:
    """The tables and what they were made of."""
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.md").write_text(text, encoding="utf-8")
    (output / f"{name}.json").write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser, ways: Iterable[str]) -> None:
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", required=True, help="of films and answers, to go on with"
    )
    parser.add_argument("--split", choices=SPLITS, default="validation", help="(default: validation)")
    parser.add_argument("--seed", type=int, default=42, help="of the films (default: 42)")
    parser.add_argument("--films", type=int, default=20, help="of each set (default: 20)")
    parser.add_argument("--questions", type=int, default=8, help="about a film, at most (default: 8)")
    parser.add_argument("--ways", nargs="+", help=f"only some of {', '.join(ways)}")
    parser.add_argument("--workers", type=int, default=1, help="processes that film (default: 1)")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )


def chosen_ways(args: argparse.Namespace, ways: Iterable[str]) -> list[str]:
    """
    Those of the `ways` that `--ways` names, by default all.

    Raises:
        ValueError: If one is unknown.
    """
    if unknown := [name for name in args.ways or () if name not in ways]:
        raise ValueError(f"There is no way {unknown[0]!r}: --ways takes some of {', '.join(ways)}.")
    return [name for name in ways if not args.ways or name in args.ways]


__all__ = [
    "FILMS",
    "Counts",
    "Series",
    "Watcher",
    "add_arguments",
    "chosen_ways",
    "draw",
    "measure_films",
    "section",
    "write",
]
