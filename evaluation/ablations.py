"""
The paper's ablations: tables 2 (selection), 3 (merging) and 5 (long-video data), as Markdown and as a picture.

    python -m fila_video.evaluation.ablations evaluation/table2.yaml evaluation/table3.yaml evaluation/table5.yaml
    python -m fila_video.evaluation.ablations --from-results

What a table needs trained is trained first, through `fila_video.training.train`; a run that has finished is not
repeated, and one that was broken off goes on. `evaluation/README.md` describes the files of settings.
"""

import argparse
import itertools
import json
import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path

from tqdm.auto import tqdm
from transformers import set_seed
from transformers.utils import logging

from ..training.parsing import TrainingError, load_yaml
from ..training.resuming import SAVED_SETTINGS, save_values, what_differs
from ..training.settings import Settings, load_settings
from ..training.train import load_model, values_of
from .answer_questions import load_answerer
from .answering import Answerer
from .charts import check_can_draw, draw
from .judging import BlindBaseline
from .kept import KeptAnswers
from .records import Record, read_records
from .results import asked_with, evaluate, save_results
from .selections import find_selection
from .tables import Table, check_labels

logger = logging.get_logger(__name__)

FINISHED = "trainer_state.json"  # what a run of training writes last


@dataclass
class Ablation:
    """
    A file of settings. `rows`: each with `label`, `selection` and what is changed in training (`overrides`, or
    `stages`: overrides of runs of which each starts from the one before); with `untrained`, in the start of training;
    `paper` is what the paper found, for a column of that name.
    `sets`: records by label, or `records` with the `kinds` of questions that this set asks and the `num_scenes` it is
    seen in, by default the model's; `kinds`: of the questions that are asked, by default all; `groups`: kinds that are
    counted together, by label; `annotations`: of training, for the blind guesses; `work`: where runs and answers go.
    `reference`: rows of which the best is compared with each row; `main`: one more row for that.
    Either `models`, trained already, of which the first is what the table is about and the others are its further
    seeds; or `settings` (of training, a path from this file on) and `seeds`, over which a row's mean is taken.
    """

    title: str
    rows: list[dict]
    sets: dict[str, str | dict]
    work: str
    annotations: str | None = None
    models: list[str] = field(default_factory=list)
    settings: str | None = None
    seeds: list[int] = field(default_factory=list)
    overrides: dict = field(default_factory=dict)
    reference: list[str] = field(default_factory=list)
    main: str | None = None
    kinds: list[str] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    paper: str | None = None

    def __post_init__(self) -> None:
        if bool(self.models) == bool(self.settings and self.seeds):
            raise ValueError("give either `models`, or `settings` with `seeds`")
        for row in self.rows:
            unknown = row.keys() - {"label", "selection", "overrides", "stages", "untrained", "paper"}
            if unknown or not {"label", "selection"} <= row.keys():
                raise ValueError(
                    "a row has `label`, `selection` and perhaps `overrides`, `stages`, `untrained` or `paper`, got "
                    f"{', '.join(row)}"
                )
            if "paper" in row and self.paper is None:
                raise ValueError(f"the row {row['label']!r} has `paper`, but the table does not say what `paper` is")
            if "stages" in row and ("overrides" in row or "untrained" in row or not row["stages"]):
                raise ValueError(f"the row {row['label']!r} has `stages`: at least one, and nothing beside them")
            find_selection(row["selection"])
        of_training = [name for name in ("settings", "seeds", "overrides") if getattr(self, name)]
        of_training += [name for row in self.rows for name in ("overrides", "stages", "untrained") if name in row]
        if self.models and of_training:
            raise ValueError(f"`models` are trained already: `{of_training[0]}` has no effect, leave it out")
        for label, one in self.sets.items():
            one = self.sets[label] = {"records": one} if isinstance(one, str) else one
            if "records" not in one or one.keys() - {"records", "kinds", "num_scenes"}:
                raise ValueError(
                    f"the set {label!r} has `records` and perhaps `kinds` or `num_scenes`, got {', '.join(one)}"
                )
        check_labels(self.rows, self.reference, self.main)
        _folder_names({label: label for label in self.sets})
        model_folders(self)

    def records(self, label: str, limit: int | None = None) -> list[Record]:
        """
        Those of a set with the questions that it asks.

        Raises:
            ValueError: If it asks none.
        """
        file, kinds = self.sets[label]["records"], self.sets[label].get("kinds", self.kinds)
        records = read_records(file, limit)
        if not kinds:
            return records
        asked = [[question for question in record.questions if question.kind in kinds] for record in records]
        records = [replace(record, questions=some) for record, some in zip(records, asked, strict=True) if some]
        if not records:
            raise ValueError(f"{file} has no question of the kinds {', '.join(kinds)}, which {label!r} asks.")
        return records

    def runs(self, row: dict) -> list[dict]:
        """What is changed in each run of training of a row; of an untrained one, in its start."""
        return row.get("stages", [row.get("overrides", {})])

    def seeds_of(self, row: dict) -> list[int]:
        return self.seeds[:1] if row.get("untrained") else self.seeds


def load_ablation(file: str | Path) -> Ablation:
    """
    Raises:
        ValueError: If the file is no such settings. `OSError` where it cannot be read.
    """
    try:
        values = load_yaml(Path(file).read_bytes())
        names = {item.name for item in fields(Ablation)}
        needed = {item.name for item in fields(Ablation) if item.default is item.default_factory is MISSING}
        if not isinstance(values, dict) or values.keys() - names or needed - values.keys():
            raise ValueError(
                f"it must have {', '.join(sorted(needed))}, and may have {', '.join(sorted(names - needed))}"
            )
        ablation = Ablation(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: {error}.") from error
    if ablation.settings:
        ablation.settings = str(Path(file).parent / ablation.settings)
    return ablation


def model_folders(ablation: Ablation) -> dict[str, list[str]]:
    """
    By the label of a row, its models' folders, one a seed. Rows with equal overrides share them.

    Raises:
        ValueError: If rows with other overrides would share one too.
    """
    if ablation.models:
        return {row["label"]: ablation.models for row in ablation.rows}
    labels: dict[str, str] = {}  # of the first row of each training
    for row in ablation.rows:
        labels.setdefault(_training(ablation, row), row["label"])
    names, folders = _folder_names(labels), {}
    for row in ablation.rows:
        name = names[_training(ablation, row)]
        folders[row["label"]] = [str(Path(ablation.work) / f"{name}_{seed}") for seed in ablation.seeds_of(row)]
    return folders


def _training(ablation: Ablation, row: dict) -> str:
    """What tells the trainings of two rows apart."""
    return json.dumps([ablation.runs(row), bool(row.get("untrained"))])


def _folder_name(label: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in label.lower()).split())


def _folder_names(labels: dict[str, str]) -> dict[str, str]:
    """The names of folders or files by the keys of their labels; raises where two keys have the same."""
    names: dict[str, str] = {}
    for key, label in labels.items():
        name = _folder_name(label)
        if other := next((other for other in names if names[other] == name), None):
            raise ValueError(
                f"the labels {labels[other]!r} and {label!r} are of different things, but would both be kept as "
                f"{name!r}: let them differ in a letter or digit"
            )
        names[key] = name
    return names


def train(ablation: Ablation) -> None:
    """
    Trains what has not finished, seed by seed.

    Raises:
        ValueError: If a run fails, or was begun with other settings.
    """
    folders = model_folders(ablation)
    for row in ablation.rows if ablation.seeds else ():  # what cannot be is said before the first run
        for values in _runs(ablation, row, ablation.seeds[0], folders[row["label"]][0]):
            _settings(ablation, row, values)
    for place, seed in enumerate(ablation.seeds):
        for row in ablation.rows:
            if place >= len(folders[row["label"]]):
                continue
            runs = _runs(ablation, row, seed, folders[row["label"]][place])
            finished = [_is_finished(ablation, row, values) for values in runs]
            for number, values in enumerate(runs if not finished[-1] else (), 1):
                if finished[number - 1]:
                    continue
                if row.get("untrained"):
                    _save_start(_settings(ablation, row, values))
                    continue
                stage = f", stage {number}" if number > 1 else ""
                logger.warning("Training %s, seed %d%s.", row["label"], seed, stage)
                _run(ablation.settings, values, f"{row['label']!r}, seed {seed}")


def _runs(ablation: Ablation, row: dict, seed: int, last: str) -> list[dict]:
    """What each run of a row and a seed is given over the file of settings; the last one writes to `last`."""
    runs, start = [], {}
    stages = ablation.runs(row)
    for number, overrides in enumerate(stages, 1):
        output = last if number == len(stages) else f"{last}_stage{number}"
        runs.append({**ablation.overrides, **start, **overrides, "training.seed": seed, "output": output})
        start = {"model": output}
    return runs


def _settings(ablation: Ablation, row: dict, values: dict) -> Settings:
    try:
        return load_settings(ablation.settings, _as_arguments(values))
    except ValueError as error:
        raise ValueError(f"The row {row['label']!r}: {error}") from error


def _is_finished(ablation: Ablation, row: dict, values: dict) -> bool:
    """Whether a run has finished; raises where it was begun with other settings, data or another start."""
    output = Path(values["output"])
    finished = (output / FINISHED).exists()
    if not finished and not any(output.glob("checkpoint-*")):  # nothing was trained
        return False
    if not (output / SAVED_SETTINGS).exists():
        logger.warning_once(f"{output} has no {SAVED_SETTINGS}: what it was trained with is not compared.")
        return finished
    try:
        now = values_of(_settings(ablation, row, values)) | ({"untrained": True} if row.get("untrained") else {})
    except TrainingError as error:
        if not finished:
            raise
        logger.warning_once(f"What {output} was trained with is not compared, as its data or start are gone: {error}")
        return finished
    if different := what_differs(output, now, may_grow=False):
        raise ValueError(
            f"The run in {output} was begun with others than the row {row['label']!r} has ({different}). Remove that "
            "folder to train it anew, name another `work`, or give the row what it was begun with."
        )
    return finished


def _run(settings: str, values: dict, what: str) -> None:
    """One run of training, in a process of its own."""
    output = Path(values["output"])
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fila_video.training.train", settings, *_as_arguments(values)]
    with open(output / "training.log", "a", encoding="utf-8") as log:
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if status or not (output / FINISHED).exists():
        raise ValueError(f"Training {what}, failed ({status}): see {log.name}.")


def _save_start(settings: Settings) -> None:
    """The model that a run would start from, and its processor, as they are before the first step."""
    set_seed(settings.training["seed"])
    for part in load_model(settings):
        part.save_pretrained(settings.output)
    save_values(settings.output, {**values_of(settings), "untrained": True})
    (Path(settings.output) / FINISHED).write_text("{}\n", encoding="utf-8")


def _as_arguments(values: dict) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def measure(name: str, ablation: Ablation, folder: Path, limit: int | None = None, device: str | None = None) -> Table:
    """
    Asks all models that have finished the questions of all sets, and saves the table as `{name}.json` in `folder`.

    Raises:
        ValueError: If there is no model at all, or one was trained with other settings. Rows without one are left out.
    """
    folders, seeds = model_folders(ablation), {}
    for row in ablation.rows if not ablation.models else ():
        every = zip(ablation.seeds_of(row), folders[row["label"]], strict=True)
        finished = {
            seed: one
            for seed, one in every
            if [_is_finished(ablation, row, values) for values in _runs(ablation, row, seed, one)][-1]
        }
        seeds[row["label"]], folders[row["label"]] = list(finished), list(finished.values())
    for label, group in folders.items():
        if not group:
            logger.warning("%s: no training of %s has finished; it is left out.", name, label)
    if not any(folders.values()):
        raise ValueError(f"{name}: no training has finished in {ablation.work}.")
    shown = ("label", "selection", "paper")
    rows = [{key: row[key] for key in shown if key in row} for row in ablation.rows]
    rows = [{**row, "models": folders[row["label"]]} for row in rows if folders[row["label"]]]
    rows = [{**row, "seeds": seeds[row["label"]]} if seeds else row for row in rows]
    baseline = None
    if ablation.annotations is not None:
        train_records = read_records(ablation.annotations, check_files=False)
        baseline = BlindBaseline(question for record in train_records for question in record.questions)
    answerers = {one: load_answerer(one, device) for one in dict.fromkeys(itertools.chain(*folders.values()))}
    selections = {one: {row["selection"] for row in rows if one in row["models"]} for one in answerers}
    sets, kept = {}, []
    for label in ablation.sets:
        records, scenes = ablation.records(label, limit), ablation.sets[label].get("num_scenes")
        own = answerers
        if scenes is not None:
            own = {one: Answerer(each.model, each.processor, scenes) for one, each in answerers.items()}
        file = Path(ablation.work) / f"{name}_{_folder_name(label)}.json"
        sets[label], parts = _evaluate(own, records, selections, baseline, f"{name}, {label}", file)
        save_results(sets[label], file)
        kept += parts
    models = {one: _model_name(one, place) for place, one in enumerate(answerers)}
    sets = {label: {models[one]: result for one, result in results.items()} for label, results in sets.items()}
    rows = [{**row, "models": [models[one] for one in row["models"]]} for row in rows]
    reference = [label for label in ablation.reference if folders.get(label) != []]
    main = None if folders.get(ablation.main) == [] else ablation.main
    about = ablation.groups, ablation.paper, bool(ablation.models), main
    table = Table(name, ablation.title, rows, sets, reference, *about)
    table.save(folder / f"{name}.json")
    for part in kept:  # all sets are answered, and what they say is saved
        part.remove()
    return table


def _model_name(folder: str, place: int) -> str:
    return f"{place} {Path(folder).name}"


def _evaluate(
    answerers: dict[str, Answerer],
    records: list[Record],
    selections: dict[str, set[str]],
    baseline: BlindBaseline | None,
    title: str,
    file: Path,
) -> tuple[dict[str, dict], list[KeptAnswers]]:
    """
    Models that share their selections take turns at each video, which is read once for them. What is answered is kept
    beside the `file` of the set's results.
    """
    results, parts = {}, []
    for number, chosen in enumerate(dict.fromkeys(frozenset(names) for names in selections.values())):
        group = {one: answerers[one] for one in answerers if frozenset(selections[one]) == chosen}
        columns = {name: find_selection(name) for name in sorted(chosen)}
        parts.append(KeptAnswers(file.with_suffix(f".{number}.part"), asked_with(group, columns)))
        with tqdm(total=len(records), desc=title, disable=None) as bar:
            show = lambda done, total, bar=bar: bar.update(done - bar.n)  # noqa: E731
            results |= evaluate(group, records, columns, baseline=baseline, progress=show, kept=parts[-1])
    return results, parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="*", metavar="YAML", help="the files of settings")
    parser.add_argument("--from-results", action="store_true", help="only print and draw what is in --results")
    parser.add_argument("--only-finished", action="store_true", help="train nothing; measure the runs that are there")
    parser.add_argument("--results", metavar="FOLDER", default="results", help="default: results")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N records of each set")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Trains and measures; prints, writes (`tables.md`) and draws (`ablations.png`) the tables of that folder."""
    folder = Path(args.results)
    if bool(args.tables) == args.from_results:
        raise ValueError("Name the files of settings, or pass --from-results alone.")
    if args.from_results and (args.only_finished or args.limit is not None or args.device):
        raise ValueError("With --from-results nothing is asked: leave out --only-finished, --limit and --device.")
    check_can_draw()
    ablations = {Path(file).stem: load_ablation(file) for file in args.tables}
    if len(ablations) < len(args.tables):
        raise ValueError("Two of the files have one name, and so would their results: rename one of them.")
    for ablation in ablations.values():  # what is wrong with a set is said before anything is trained or asked
        for label in ablation.sets:
            ablation.records(label, args.limit)
    for name, ablation in ablations.items():
        if not args.only_finished:
            train(ablation)
        measure(name, ablation, folder, args.limit, args.device)
    # Results of other commands lie there too, and have no name.
    files = [file for file in sorted(folder.glob("*.json")) if "name" in json.loads(file.read_text(encoding="utf-8"))]
    if not files:
        raise ValueError(f"{folder} holds no results yet: name files of settings.")
    tables = [Table.load(file) for file in files]
    text = "\n".join(table.markdown() for table in tables)
    sys.stdout.write(text)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    draw(tables, folder / "ablations.png")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"ablations: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
