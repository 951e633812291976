"""
Whether the events that questions name are among the chosen frames, and whether the answers are right: the tables of
results/asked_events.md.

    python -m fila_video.evaluation.asked_events --records world/test_rare.jsonl world/test_crowded.jsonl

The films are those of `fila-video make-videos --kind rare` and `--kind crowded`. Of their questions those count that
name one event, in their wording and not in their options: what, color, when, before and after.
"""

import argparse
import json
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..commands.loading import DEFAULT_MODEL, load_model, quiet
from ..other_models.contrastive_scorer import ContrastiveScorer
from ..question_selection_fila_video import LAYERS, relevance, relevant_frames
from ..scene_selection_fila_video import frame_weights, scenes_of
from ..video_pool_fila_video import thumbnails
from ..video_prompt_fila_video import prompt_of_question
from .answering import Answerer
from .intervals import accuracy
from .judging import is_right
from .records import Question, Record, read_events, read_records
from .selections import Precomputed, find_selection

PLAIN = ("uniform", "kmeans", "farthest")
NEIGHBORS = ("before", "after")
NEUTRAL = "What can be seen?"


SCORED_BY = {"middle": "middle layers", "first": "first layer", "contrastive": "contrastive"}


@dataclass(frozen=True)
class Asking:
    """
    One way to choose by the question; the names are those of the processor's settings without `question_`, but
    `layers="contrastive"` is a [`ContrastiveScorer`].
    """

    layers: str = "first"
    neutral: bool = True
    diversity: str = "top"
    spacing: float = 3.0
    context: float = 0.0
    min_rise: float = 0.0

    @property
    def name(self) -> str:
        parts = [SCORED_BY[self.layers], self.diversity]
        parts += ["neutral"] if self.neutral else []
        for setting in ("spacing", "context", "min_rise"):
            parts += [f"{setting.replace('_', ' ')} {value:g}"] if (value := getattr(self, setting)) else []
        return "question: " + ", ".join(parts)


XCOMP = Asking("middle", neutral=False, spacing=0.0)
ASKINGS = [
    XCOMP,
    Asking("middle", neutral=False),
    Asking("middle"),
    Asking(neutral=False, spacing=0.0),
    Asking(neutral=False),
    Asking(),
    Asking(diversity="clusters"),
    Asking(diversity="coverage", spacing=0.0),
    Asking(context=60.0),
    Asking(min_rise=0.3),
    Asking(context=60.0, min_rise=0.3),
]
ANSWERED = [XCOMP, *ASKINGS[-6:]]
# With `--scorer`, all of them answered.
CONTRASTIVE = [
    Asking("contrastive", neutral=False),
    Asking("contrastive"),
    Asking("contrastive", neutral=False, context=60.0, min_rise=0.9),
    Asking("contrastive", neutral=False, context=300.0, min_rise=0.9),
]


def named_event(question: Question, events: list[dict]) -> int | None:
    """Which event a question names, by color and shape or by what only one event has; `None` for none or several."""
    line = question.text.split("\n")[0].lower()
    words = re.findall(r"\w+", line)
    if question.kind in ("what", "color"):
        field = "color" if question.kind == "what" else "shape"
        named = [n for n, event in enumerate(events) if event[field] in words]
    elif question.kind in ("when", *NEIGHBORS):
        named = [n for n, event in enumerate(events) if f"{event['color']} {event['shape']}" in line]
    else:
        named = []
    return named[0] if len(named) == 1 else None


def even_places(timestamps: list[float], number: int) -> torch.Tensor:
    """
    The places in a pool, at most `number` of them and ascending, that are nearest to evenly spaced times. The pool of
    a long film, which all ways share here, has fewer frames where nothing changes; uniform frames do not depend on
    what is seen.
    """
    times = torch.tensor(timestamps, dtype=torch.float64)
    if number >= len(times):
        return torch.arange(len(times))
    even = torch.linspace(times[0].item(), times[-1].item(), number, dtype=torch.float64)
    return (times[None] - even[:, None]).abs().argmin(dim=1).unique()


@torch.no_grad()
def measure(
    answerer: Answerer,
    record: Record,
    events: list[dict],
    num_scenes: list[int],
    max_questions: int | None,
    scorer: ContrastiveScorer | None = None,
    ways: Collection[str] | None = None,
) -> tuple[list[dict], dict[str, dict[str, list[int]]]]:
    """
    For one film the questions that count, with `kind` and `form`, and by `"name, number of scenes"` for each of them
    the number of `scenes` taken, whether the named event is `found` by a chosen frame, the asked `neighbor` is, where
    there is one, and the answer is `right`, where it was asked for. `ways` names those that are measured, by default
    all.
    """
    processor, model = answerer.processor, answerer.model
    named = [(question, named_event(question, events)) for question in record.questions]
    named = [(question, event) for question, event in named if event is not None][:max_questions]
    if not named:
        raise ValueError(f"Record {record.id!r} has no question that names one event.")
    pool = answerer.read(record, find_selection("kmeans"))
    features = answerer.encode(pool)
    means, times = features.float().mean(dim=1), torch.tensor(pool.metadata.timestamps, dtype=torch.float64)
    weights = frame_weights(thumbnails(pool.frames))
    tokens = model.tokens_for_scoring(features, processor.question_tokens)
    askings = ASKINGS if scorer is None else [*ASKINGS, *CONTRASTIVE]
    askings = [way for way in askings if ways is None or way.name in ways]
    used = {way.layers for way in askings}

    def scores(text: str) -> dict[str, torch.Tensor]:
        prompt = prompt_of_question(text, processor.tokenizer, processor.video_token, processor.apply_chat_template)
        own = {layers: model.score_tokens(tokens, *prompt, layers=layers) for layers in LAYERS if layers in used}
        return own | {"contrastive": scorer(pool.frames, text)[None]} if "contrastive" in used else own

    neutral = scores(NEUTRAL)
    asked = [scores(question.text) for question, _ in named]
    chosen: dict[str, list[torch.Tensor]] = {}
    for count in num_scenes:
        for name in [name for name in PLAIN if ways is None or name in ways]:
            places = torch.arange(len(times))
            if name == "uniform":
                places = even_places(pool.metadata.timestamps, count * processor.scene_size)
            selection, own = find_selection(name), weights[places]
            scenes = selection.scenes(means[places], count, processor.scene_size, processor.seed, own)
            chosen[f"{name}, {count}"] = [places[scenes]] * len(named)
        for way in askings:
            chosen[f"{way.name}, {count}"] = [
                scenes_of(
                    means,
                    relevant_frames(
                        relevance(own[way.layers], *([neutral[way.layers]] if way.neutral else [])),
                        times,
                        means,
                        count,
                        diversity=way.diversity,
                        spacing=way.spacing,
                        context=way.context,
                        min_rise=way.min_rise,
                        seed=processor.seed,
                    ),
                    processor.scene_size,
                )
                for own in asked
            ]
    questions = [{"kind": question.kind, "form": question.form} for question, _ in named]
    answered = {*PLAIN, *(way.name for way in [*ANSWERED, *CONTRASTIVE])}
    results, prompts = {}, []
    for name, scenes in chosen.items():
        rows = results[name] = {"scenes": [], "found": [], "neighbor": [], "right": []}
        for (question, event), indices in zip(named, scenes, strict=True):
            rows["scenes"].append(len(indices))
            rows["found"].append(int(_shows(events[event], times[indices])))
            if question.kind in NEIGHBORS:
                neighbor = events[event + (1 if question.kind == "after" else -1)]
                rows["neighbor"].append(int(_shows(neighbor, times[indices])))
            if name.rsplit(", ", 1)[0] in answered:
                single = replace(record, questions=[question])
                prompts.append(
                    (name, question, answerer.about_video(single, pool, features, Precomputed(indices))[0][0])
                )
    for (name, question, _), answer in zip(prompts, answerer.answer([p for *_, p in prompts]), strict=True):
        results[name]["right"].append(int(is_right(question, answer)))
    return questions, results


def _shows(event: dict, times: torch.Tensor) -> bool:
    return bool(((times >= event["start"]) & (times < event["end"])).any())


def markdown(results: dict) -> str:
    """The tables, in percent with 95% intervals over films."""
    lines = ["# Events that are asked about", "", results["about"], ""]
    for title, films in results["sets"].items():
        kinds = [np.array([question["kind"] for question in film["questions"]]) for film in films]
        names = list(films[0]["results"])
        counts = list(dict.fromkeys(int(name.rsplit(", ", 1)[1]) for name in names))
        ways = list(dict.fromkeys(name.rsplit(", ", 1)[0] for name in names))

        def cell(way: str, count: int, what: str, of: tuple[str, ...] | None, films=films, kinds=kinds) -> str:
            right, asked = [], []
            for film, own in zip(films, kinds, strict=True):
                values = np.array(film["results"][f"{way}, {count}"][what], dtype=float)
                if what != "neighbor" and of is not None and len(values):
                    values = values[np.isin(own, of)]
                right.append(values.sum())
                asked.append(len(values))
            if not sum(asked):
                return ""
            if what == "scenes":
                return f"{sum(right) / sum(asked):.1f}"
            share, low, high = (100 * value for value in accuracy(np.array([right]), np.array(asked)))
            return f"{share:.0f} ({low:.0f} to {high:.0f})"

        number = sum(map(len, kinds))
        neighbors = sum(int(np.isin(own, NEIGHBORS).sum()) for own in kinds)
        lines += [f"## {title}: {len(films)} films, {number} questions, {neighbors} of them before and after", ""]
        for heading, what, of in (
            ("The named event is among the chosen frames", "found", None),
            ("Of before and after questions, the event asked for is", "neighbor", None),
            ("Answers right", "right", None),
            ("Answers right, before and after", "right", NEIGHBORS),
            ("Scenes taken, on average", "scenes", None),
        ):
            lines += [f"{heading}, by the number of scenes:", ""]
            lines += [f"| selection | {' | '.join(map(str, counts))} |", "| --- " * (len(counts) + 1) + "|"]
            for way in ways if what != "scenes" else (way for way in ways if "min rise" in way):
                cells = [cell(way, count, what, of) for count in counts]
                if any(cells):
                    lines.append(f"| `{way}` | {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def write(sets: dict[str, list[dict]], folder: Path, note: str = "") -> str:
    """Writes what was measured as JSON and as tables, headed by a note, and returns the tables."""
    about = (
        "`python -m fila_video.evaluation.asked_events`: percent of the questions that name one event, with 95% "
        "intervals over films; scenes of three frames."
    )
    about = f"{about}\n\n{note}" if note else about
    results = {"about": about, "sets": sets}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "asked_events.json").write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")
    text = markdown(results)
    (folder / "asked_events.md").write_text(text, encoding="utf-8")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Measures, and writes the tables; exit status 2 with one line for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", nargs="+", type=Path, required=True, help="JSON lines of make-videos, a set each")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub name (default: the embedded one)")
    parser.add_argument("--num-scenes", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--limit", type=int, help="only the first so many films of a set")
    parser.add_argument("--questions", type=int, help="only the first so many of a film that name one event")
    parser.add_argument("--scorer", help="folder of a SigLIP or CLIP that scores too, see train_scorer")
    parser.add_argument("--ways", nargs="+", help="only these, by the names of the tables")
    parser.add_argument("--note", default="", help="for the head of the tables, such as how the films were made")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    options = parser.parse_args(arguments)
    try:
        quiet()
        model, processor = load_model(options.model, options.device)
        scorer = None if options.scorer is None else ContrastiveScorer(options.scorer, device=model.device)
        known = [*PLAIN, *(way.name for way in (ASKINGS if scorer is None else [*ASKINGS, *CONTRASTIVE]))]
        if unknown := [name for name in options.ways or () if name not in known]:
            raise ValueError(f"There is no way {unknown[0]!r}: --ways takes names of {', '.join(known)}.")
        sets, stems = {}, [file.stem for file in options.records]
        part = options.output / "asked_events.part"
        for file in options.records:
            title = file.stem if stems.count(file.stem) == 1 else str(file.with_suffix(""))
            records = read_records(file, options.limit)
            events = read_events(file, options.limit)
            sets[title] = []
            # The pool must be able to fill the most scenes.
            answerer = Answerer(model, processor, num_scenes=max(options.num_scenes))
            for record, own in zip(tqdm(records, desc=file.stem, disable=None), events, strict=True):
                questions, results = measure(
                    answerer, record, own, options.num_scenes, options.questions, scorer, options.ways
                )
                sets[title].append({"id": record.id, "questions": questions, "results": results})
                # A run that is broken off leaves its part beside the results of the run before, which stay.
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps(sets), encoding="utf-8")
        text = write(sets, options.output, options.note)
        part.unlink()
    except (ValueError, OSError, ImportError, KeyError) as error:
        sys.stderr.write(f"asked_events: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
