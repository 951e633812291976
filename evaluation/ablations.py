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
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from .answer_questions import load_answerer
from .answering import Answerer
from .charts import draw
from .judging import BlindBaseline
from .records import Record, read_records
from .results import evaluate, save_results
from .selections import find_selection
from .tables import Table

logger = logging.get_logger(__name__)

RESULTS = Path(__file__).parent / "results"
FINISHED = "trainer_state.json"  # what a run of training writes last


@dataclass
class Ablation:
    """
    A file of settings. `rows`: each with `label`, `selection` and what is changed in training (`overrides`); `sets`:
    records by label; `annotations`: of training, for the blind guesses; `work`: where runs and answers go. Either
    `models`, trained already, one a seed, or `settings` (of training, a path from this file on) and `seeds`.
    """

    title: str
    rows: list[dict]
    sets: dict[str, str]
    work: str
    annotations: str | None = None
    models: list[str] = field(default_factory=list)
    settings: str | None = None
    seeds: list[int] = field(default_factory=list)
    overrides: dict = field(default_factory=dict)
    reference: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if bool(self.models) == bool(self.settings and self.seeds):
            raise ValueError("give either `models`, or `settings` with `seeds`")
        for row in self.rows:
            unknown = row.keys() - {"label", "selection", "overrides"}
            if unknown or not {"label", "selection"} <= row.keys():
                raise ValueError(f"a row has `label`, `selection` and perhaps `overrides`, got {', '.join(row)}")
            find_selection(row["selection"])


def load_ablation(file: str | Path) -> Ablation:
    """
    Raises:
        ValueError: If the file is no such settings. `OSError` where it cannot be read.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        names = {item.name for item in fields(Ablation)}
        needed = {item.name for item in fields(Ablation) if item.default is item.default_factory is MISSING}
        if not isinstance(values, dict) or values.keys() - names or needed - values.keys():
            raise ValueError(
                f"it must have {', '.join(sorted(needed))}, and may have {', '.join(sorted(names - needed))}"
            )
        ablation = Ablation(**values)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: {error}.") from error
    if ablation.settings:
        ablation.settings = str(Path(file).parent / ablation.settings)
    return ablation


def model_folders(ablation: Ablation) -> dict[str, list[str]]:
    """By the label of a row, its models' folders, one a seed. Rows with equal overrides share them."""
    if ablation.models:
        return {row["label"]: ablation.models for row in ablation.rows}
    names = {}
    for row in ablation.rows:
        names.setdefault(json.dumps(row.get("overrides", {})), _folder_name(row["label"]))
    return {
        row["label"]: [
            str(Path(ablation.work) / f"{names[json.dumps(row.get('overrides', {}))]}_{seed}")
            for seed in ablation.seeds
        ]
        for row in ablation.rows
    }


def _folder_name(label: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in label.lower()).split())


def train(ablation: Ablation) -> None:
    """
    Trains what has not finished, seed by seed.

    Raises:
        ValueError: If a run fails.
    """
    folders = model_folders(ablation)
    for place, seed in enumerate(ablation.seeds):
        for row in ablation.rows:
            folder = folders[row["label"]][place]
            if (Path(folder) / FINISHED).exists():
                continue
            values = {**ablation.overrides, **row.get("overrides", {}), "training.seed": seed, "output": folder}
            command = [sys.executable, "-m", "fila_video.training.train", ablation.settings]
            command += [f"{key}={json.dumps(value)}" for key, value in values.items()]
            logger.warning("Training %s, seed %d.", row["label"], seed)
            Path(folder).mkdir(parents=True, exist_ok=True)
            with open(Path(folder) / "training.log", "a", encoding="utf-8") as log:
                status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if status or not (Path(folder) / FINISHED).exists():
                raise ValueError(f"Training {row['label']!r}, seed {seed}, failed ({status}): see {log.name}.")


def measure(name: str, ablation: Ablation, limit: int | None = None, device: str | None = None) -> Table:
    """
    Asks all models that have finished the questions of all sets.

    Raises:
        ValueError: If there is no model at all. Rows without one are left out.
    """
    folders = model_folders(ablation)
    if not ablation.models:
        folders = {
            label: [one for one in group if (Path(one) / FINISHED).exists()] for label, group in folders.items()
        }
    for label, group in folders.items():
        if not group:
            logger.warning("%s: no training of %s has finished; it is left out.", name, label)
    if not any(folders.values()):
        raise ValueError(f"{name}: no training has finished in {ablation.work}.")
    rows = [{"label": r["label"], "selection": r["selection"], "models": folders[r["label"]]} for r in ablation.rows]
    rows = [row for row in rows if row["models"]]
    baseline = None
    if ablation.annotations is not None:
        train_records = read_records(ablation.annotations, check_files=False)
        baseline = BlindBaseline(question for record in train_records for question in record.questions)
    answerers = {one: load_answerer(one, device) for one in dict.fromkeys(itertools.chain(*folders.values()))}
    selections = {one: {row["selection"] for row in rows if one in row["models"]} for one in answerers}
    sets = {}
    for label, file in ablation.sets.items():
        records = read_records(file, limit)
        sets[label] = _evaluate(answerers, records, selections, baseline, f"{name}, {label}")
        save_results(sets[label], Path(ablation.work) / f"{name}_{_folder_name(label)}.json")
    models = {one: _model_name(one, place) for place, one in enumerate(answerers)}
    sets = {label: {models[one]: result for one, result in results.items()} for label, results in sets.items()}
    rows = [{**row, "models": [models[one] for one in row["models"]]} for row in rows]
    reference = [label for label in ablation.reference if folders.get(label) != []]
    return Table(name, ablation.title, rows, sets, reference)


def _model_name(folder: str, place: int) -> str:
    return f"{place} {Path(folder).name}"


def _evaluate(
    answerers: dict[str, Answerer],
    records: list[Record],
    selections: dict[str, set[str]],
    baseline: BlindBaseline | None,
    title: str,
) -> dict[str, dict]:
    """Models that share their selections take turns at each video, which is read once for them."""
    results = {}
    for chosen in dict.fromkeys(frozenset(names) for names in selections.values()):
        group = {one: answerers[one] for one in answerers if frozenset(selections[one]) == chosen}
        with tqdm(total=len(records), desc=title, disable=None) as bar:
            results |= evaluate(
                group,
                records,
                {name: find_selection(name) for name in sorted(chosen)},
                baseline=baseline,
                progress=lambda done, total, bar=bar: bar.update(done - bar.n),
            )
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="*", metavar="YAML", help="the files of settings")
    parser.add_argument("--from-results", action="store_true", help="only print and draw what is in --results")
    parser.add_argument("--only-finished", action="store_true", help="train nothing; measure the runs that are there")
    parser.add_argument("--results", metavar="FOLDER", default=str(RESULTS), help="default: evaluation/results")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N records of each set")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Trains and measures; prints, writes (`tables.md`) and draws (`ablations.png`) the tables of that folder."""
    folder = Path(args.results)
    if bool(args.tables) == args.from_results:
        raise ValueError("Name the files of settings, or pass --from-results alone.")
    ablations = {Path(file).stem: load_ablation(file) for file in args.tables}
    for name, ablation in ablations.items():
        if not args.only_finished:
            train(ablation)
        measure(name, ablation, args.limit, args.device).save(folder / f"{name}.json")
    files = sorted(folder.glob("*.json"))
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
