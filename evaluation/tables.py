"""A table of ablations: its results in a small file, and as Markdown."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from .intervals import accuracy, difference
from .results import BLIND, CONSTANT, counts, is_question, markdown, percent

Interval = tuple[float, float, float]  # the mean, and where its 95% interval begins and ends

QUESTION_FIELDS = ("id", "number", "kind", "form", "chance")
RECALL_FIELDS = ("events", "found", "represented", "scenes", "pure")


def pack(results: dict[str, dict]) -> dict:
    """
    What several models answered to the same questions, without the answers themselves.

    Raises:
        ValueError: If the questions differ.
    """
    packed = {"questions": None, "right": {}, "recall": {}}
    for name, result in results.items():
        rows = result["questions"]
        questions = {field: [row.get(field) for row in rows] for field in QUESTION_FIELDS}
        if packed["questions"] not in (None, questions):
            raise ValueError(f"{name} was asked different questions from the others.")
        packed["questions"] = questions
        columns = rows[0]["right"]
        packed["right"][name] = {column: "".join(str(row["right"][column]) for row in rows) for column in columns}
        packed["recall"][name] = {
            selection: {record: [recall[field] for field in RECALL_FIELDS] for record, recall in recalls.items()}
            for selection, recalls in result["recall"].items()
        }
    return packed


def unpack(packed: dict) -> dict[str, dict]:
    """The results that [`pack`] was given, without the answers."""
    results = {}
    for name, right in packed["right"].items():
        rows = [
            dict(zip(QUESTION_FIELDS, values, strict=True))
            for values in zip(*(packed["questions"][field] for field in QUESTION_FIELDS), strict=True)
        ]
        for place, row in enumerate(rows):
            row["right"] = {column: int(digits[place]) for column, digits in right.items()}
        recall = {
            selection: {record: dict(zip(RECALL_FIELDS, values, strict=True)) for record, values in recalls.items()}
            for selection, recalls in packed["recall"][name].items()
        }
        results[name] = {"questions": rows, "recall": recall}
    return results


def check_labels(rows: list[dict], reference: Iterable[str], main: str | None) -> None:
    """
    Raises:
        ValueError: If no row has the label of one that all are compared with.
    """
    known = [row["label"] for row in rows]
    for what, labels in (("reference", reference), ("main row", [main] if main else [])):
        for label in labels:
            if label not in known:
                raise ValueError(f"the {what} {label!r} is none of its rows {', '.join(known)}")


class Table:
    """
    Rows that are compared on one or more sets of questions.

    Args:
        name (`str`): Such as "table2".
        title (`str`): What it shows.
        rows (`list[dict]`):
            Of each `label`, `selection` and `models`: a name for each seed; and perhaps `seeds`, those of the models
            (without them, the n-th models of all rows have the same), and `paper`.
        sets (`dict[str, dict]`): By label, what [`evaluate`] returns: a result for each name of a model.
        reference (`list[str]`, *optional*): Labels of rows; each row is compared with the best of them.
        main (`str`, *optional*): The label of a row that each row is compared with too.
        groups (`dict[str, list[str]]`, *optional*): Kinds of questions that are counted together, by label.
        paper (`str`, *optional*): What the rows' `paper` is.
        apart (`bool`, *optional*, defaults to `False`):
            All figures are those of a row's first model, beside which the accuracy of each other one stands, instead
            of means over all of them.
    """

    def __init__(
        self,
        name: str,
        title: str,
        rows: list[dict],
        sets: dict[str, dict[str, dict]],
        reference: Iterable[str] = (),
        groups: dict[str, list[str]] | None = None,
        paper: str | None = None,
        apart: bool = False,
        main: str | None = None,
    ) -> None:
        self.name, self.title, self.rows, self.sets, self.reference = name, title, rows, sets, list(reference)
        self.groups, self.paper, self.apart, self.main = groups or {}, paper, apart, main
        check_labels(rows, self.reference, main)

    def save(self, file: str | Path) -> None:
        parts = {
            "name": self.name,
            "title": self.title,
            "rows": self.rows,
            "reference": self.reference,
            "groups": self.groups,
            "paper": self.paper,
            "apart": self.apart,
            "main": self.main,
            "sets": {label: pack(results) for label, results in self.sets.items()},
        }
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(parts, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: str | Path) -> "Table":
        """
        Raises:
            ValueError: If the file holds no table.
        """
        try:
            parts = json.loads(Path(file).read_text(encoding="utf-8"))
            sets = {label: unpack(packed) for label, packed in parts["sets"].items()}
            named = [parts[name] for name in ("name", "title", "rows")]
            others = {name: parts[name] for name in ("groups", "paper", "apart", "main") if name in parts}
            return cls(*named, sets, parts["reference"], **others)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file} holds no results of an ablation: {error!r}.") from error

    def results(self, row: dict, label: str) -> list[dict]:
        """Those that a row's figures come from."""
        return [self.sets[label][model] for model in (row["models"][:1] if self.apart else row["models"])]

    def other_seeds(self, row: dict, label: str) -> list[float | None]:
        """The accuracy of each of a row's models but the first."""
        others = [self.sets[label][model] for model in row["models"][1:]]
        return [_middle(_accuracy([one], row["selection"], is_question)) for one in others]

    def accuracy(
        self, row: dict, label: str, column: str | None = None, where: Callable[[dict], bool] = is_question
    ) -> Interval | None:
        """
        Of a row on a set, with its interval: of its own selection, or of "blind" or "constant". `None` where there is
        no such question.
        """
        return _accuracy(self.results(row, label), column or row["selection"], where)

    def recall(self, row: dict, label: str, part: str, of: str) -> Interval | float | None:
        """The share `part` / `of` of the fields of [`Recall`] with its interval, or `None` where there are none."""
        recalls = [result["recall"][row["selection"]].values() for result in self.results(row, label)]
        parts, wholes = (np.array([[recall[f] for recall in one] for one in recalls], float) for f in (part, of))
        if not wholes.sum():
            return None
        if (wholes == wholes[0]).all():
            return accuracy(parts, wholes[0])
        return float(parts.sum() / wholes.sum())

    def gain(
        self,
        row: dict,
        label: str,
        where: Callable[[dict], bool] = is_question,
        to: Iterable[str] | None = None,
    ) -> Interval | None:
        """
        By how much a row is better than the best reference, or the best of the rows `to`, with its interval, over the
        seeds that both have; `None` for that one itself, if they share no seed, or if there is no such question.
        """
        labels = self.reference if to is None else to
        references = [other for other in self.rows if other["label"] in labels]
        best = max(references, key=lambda other: _middle(self.accuracy(other, label)) or 0.0)
        own, others = self._by_seed(row, label), self._by_seed(best, label)
        shared = [seed for seed in own if seed in others]
        if row is best or not shared:
            return None
        right, asked = counts([own[seed] for seed in shared], row["selection"], where)
        other, _ = counts([others[seed] for seed in shared], best["selection"], where)
        return difference(right, other, asked) if asked.any() else None

    def _by_seed(self, row: dict, label: str) -> dict[int, dict]:
        """A row's results by the seeds of training or, where it does not name these, by their places."""
        results = self.results(row, label)
        return dict(zip(row.get("seeds", range(len(results))), results, strict=False))

    def markdown(self) -> str:
        """The tables: accuracy and events of every set, then accuracy by kind of question."""
        return "\n".join([f"### {self.title}\n", *(self._of_set(label) for label in self.sets)])

    def _of_set(self, label: str) -> str:
        questions = next(iter(self.sets[label].values()))["questions"]
        has_events = any(self.recall(row, label, "found", "events") is not None for row in self.rows)
        apart = self.apart and any(len(row["models"]) > 1 for row in self.rows)
        header = ["", *([] if self.apart else ["seeds"]), "accuracy", *(["other seeds"] if apart else [])]
        header += [
            *(["difference"] if self.reference else []),
            *([f"to {self.main}"] if self.main else []),
            *([f"paper: {self.paper}"] if self.paper else []),
            BLIND,
        ]
        header += ["events found", "by a representative", "pure scenes"] if has_events else []
        body = []
        for row in self.rows:
            cells = [row["label"], *([] if self.apart else [str(len(row["models"]))])]
            cells.append(percent(self.accuracy(row, label)))
            cells += [", ".join(map(percent, self.other_seeds(row, label))) or "-"] if apart else []
            cells += [_signed(self.gain(row, label))] if self.reference else []
            cells += [_signed(self.gain(row, label, to=[self.main]))] if self.main else []
            cells += [str(row.get("paper", "-"))] if self.paper else []
            cells.append(percent(self.accuracy(row, label, BLIND)))
            if has_events:
                shares = (("found", "events"), ("represented", "events"), ("pure", "scenes"))
                cells += [percent(_middle(self.recall(row, label, *share))) for share in shares]
            body.append(cells)
        asked = [row for row in questions if is_question(row)]
        text = (
            f"{label}: {len({row['id'] for row in questions})} videos, {len(asked)} questions.{self._guesses(label)}"
        )
        if self.reference:
            better = ", the better of them" if len(self.reference) > 1 else ""
            text += f" Difference: to {' or '.join(self.reference)}{better}."
        groups = f"\n{self._by_group(label)}" if self.groups else ""
        return f"{text}\n\n{markdown(header, body)}{groups}\nBy kind of question:\n\n{self._by_kind(label, questions)}"

    def _guesses(self, label: str) -> str:
        results = self.results(self.rows[0], label)
        rows = [row for row in results[0]["questions"] if is_question(row)]
        if not rows or CONSTANT not in rows[0]["right"]:
            return ""
        constant = accuracy(*counts(results[:1], CONSTANT, is_question))
        chance = float(np.mean([row["chance"] for row in rows]))
        return f" Chance {percent(chance)}; the best constant answers {percent(constant)}."

    def _by_group(self, label: str) -> str:
        header, body = [""], [[row["label"]] for row in self.rows]
        for name, kinds in self.groups.items():
            header += [f"{name}: {', '.join(kinds)}", *(["difference"] if self.reference else [])]
            for row, cells in zip(self.rows, body, strict=True):
                where = lambda one, kinds=kinds: one["kind"] in kinds  # noqa: E731
                cells.append(percent(self.accuracy(row, label, None, where)))
                cells += [_signed(self.gain(row, label, where))] if self.reference else []
        return markdown(header, body)

    def _by_kind(self, label: str, questions: list[dict]) -> str:
        kinds = list(dict.fromkeys(row["kind"] for row in questions))
        body = []
        for row in self.rows:
            parts = [self.accuracy(row, label, None, lambda one, kind=kind: one["kind"] == kind) for kind in kinds]
            body.append([row["label"], *(percent(_middle(part)) for part in parts)])
        blind = [
            self.accuracy(self.rows[0], label, BLIND, lambda one, kind=kind: one["kind"] == kind) for kind in kinds
        ]
        body.append([f"{self.rows[0]['label']}, blind", *(percent(_middle(part)) for part in blind)])
        return markdown(["", *kinds], body)


def _accuracy(results: list[dict], column: str, where: Callable[[dict], bool]) -> Interval | None:
    right, asked = counts(results, column, where)
    return accuracy(right, asked) if asked.any() else None


def _middle(value: Interval | float | None) -> float | None:
    return value[0] if isinstance(value, tuple) else value


def _signed(value: tuple[float, float, float] | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (f"{100 * part:+.1f}" for part in value)
    return f"{middle} ({low} to {high})"


__all__ = ["Table", "check_labels", "pack", "unpack"]
