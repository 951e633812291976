"""What was asked and answered, question by question, as plain data; and the tables of it."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np

from .answering import Answerer, Pool
from .intervals import accuracy
from .judging import BlindBaseline, is_right
from .kept import KeptAnswers
from .records import Record
from .selections import AnySelection, Recall

BLIND = "blind"
CONSTANT = "constant"
IMAGE = "image"


def evaluate(
    answerers: dict[str, Answerer],
    records: list[Record],
    selections: dict[str, AnySelection],
    blind: bool = True,
    baseline: BlindBaseline | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept: KeptAnswers | None = None,
) -> dict[str, dict]:
    """
    Asks every model all questions with every selection. The frames that several of them choose from are read once.

    Args:
        kept (`KeptAnswers`, *optional*): Keeps what is answered, and has what was answered before; of [`asked_with`].

    Returns:
        For each model `questions`, a list of dictionaries with `id` (of the record), `number` (of the question in it),
        `kind`, `form`, `expected`, `answers` and `right` (by selection, and "blind"), with a `baseline` also `chance`
        and `right["constant"]`; and `recall`, by selection and record the counts of [`Recall`]. An image
        has the same answer in all columns.

    Raises:
        ValueError: If a record cannot be answered; names it.
    """
    results = {name: {"questions": [], "recall": {chosen: {} for chosen in selections}} for name in answerers}
    for done, record in enumerate(records, 1):
        ask = partial(_ask_all, answerers, record, selections, blind)
        try:
            answered = ask() if kept is None else kept.of(record, ask)
        except (ValueError, OSError) as error:
            note = ""
            if kept is not None:
                note = (
                    f" The answers to the {done - 1} before it are kept in {kept.file}: mend or remove the record and "
                    "start the same again, then it goes on."
                )
            raise ValueError(f"Record {record.id!r}: {str(error).rstrip('.')}.{note}") from error
        for name, (answers, recalls) in answered.items():
            results[name]["questions"] += _judged(record, answers, baseline)
            for chosen, recall in recalls.items():
                results[name]["recall"][chosen][record.id] = recall
        if progress is not None:
            progress(done, len(records))
    return results


def asked_with(answerers: dict[str, Answerer], selections: dict[str, AnySelection], blind: bool = True) -> dict:
    """What the answers of [`evaluate`] depend on beside the records, for [`KeptAnswers`]."""
    models = {name: {"digest": one.digest, "settings": one.settings} for name, one in answerers.items()}
    chosen = {name: asdict(selection) for name, selection in selections.items()}
    return {"models": models, "selections": chosen, "blind": blind}


def _ask_all(
    answerers: dict[str, Answerer], record: Record, selections: dict[str, AnySelection], blind: bool
) -> dict[str, tuple[dict[str, list[str]], dict[str, dict]]]:
    """By model the answers by column, and by selection the counts of [`Recall`]."""
    pools: dict[str, Pool] = {}
    answered, duration = {}, None
    for name, answerer in answerers.items():
        prompts, recalls, encoded = {}, {}, {}
        for chosen, selection in selections.items() if record.is_video else ():
            if duration is None:  # only a file that was read tells it
                pool = answerer.read(record, selection)
                duration = pool.metadata.duration
                pools[answerer.pool_settings(selection, duration)] = pool
            key = answerer.pool_settings(selection, duration)
            if key not in pools:
                pools[key] = answerer.read(record, selection)
            if key not in encoded:
                encoded[key] = answerer.encode(pools[key])
            prompts[chosen], recall = answerer.about_video(record, pools[key], encoded[key], selection)
            recalls[chosen] = asdict(recall)
        if not record.is_video:
            prompts[IMAGE] = answerer.about_image(record)
        replies = iter(answerer.answer([prompt for group in prompts.values() for prompt in group]))
        answers = {column: [next(replies) for _ in group] for column, group in prompts.items()}
        if not record.is_video:  # there is nothing to select
            answers = dict.fromkeys(selections, answers[IMAGE])
        if blind:
            answers[BLIND] = answerer.blind(question.text for question in record.questions)
        answered[name] = answers, recalls
    return answered


def _judged(record: Record, answers: dict[str, list[str]], baseline: BlindBaseline | None) -> list[dict]:
    rows = []
    for number, question in enumerate(record.questions):
        given = {name: group[number] for name, group in answers.items()}
        row = {"id": record.id, "number": number, "kind": question.kind, "form": question.form}
        row["expected"] = [question.answer, *question.others] if question.others else question.answer
        row["right"] = {name: int(is_right(question, answer)) for name, answer in given.items()}
        if baseline is not None:
            row["right"][CONSTANT] = int(is_right(question, baseline.answer(question)))
            row["chance"] = baseline.chance(question)
        rows.append({**row, "answers": given})
    return rows


def save_results(results: dict, file: str | Path) -> None:
    """One question a line, so that the file stays small and can be compared."""
    lines = []
    for name, result in results.items():
        questions = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in result["questions"])
        rest = {key: value for key, value in result.items() if key != "questions"}
        lines.append(f'{json.dumps(name)}: {{"questions": [\n  {questions}],\n {json.dumps(rest)[1:]}')
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def load_results(file: str | Path) -> dict:
    """
    Raises:
        ValueError: If the file holds no results.
    """
    try:
        results = json.loads(Path(file).read_text(encoding="utf-8"))
        if not results or not all(result["questions"] for result in results.values()):
            raise ValueError("no questions were asked")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no results of an evaluation: {error}.") from error
    return results


def counts(
    results: Iterable[dict], column: str, where: Callable[[dict], bool] = lambda row: True
) -> tuple[np.ndarray, np.ndarray]:
    """
    Right answers `(num_models, num_records)` in a column and questions `(num_records,)`, of rows that `where` keeps.

    Raises:
        ValueError: If the models were not asked the same.
    """
    right, asked = [], None
    for result in results:
        rows = [row for row in result["questions"] if where(row)]
        names = list(dict.fromkeys(row["id"] for row in result["questions"]))
        places = {name: place for place, name in enumerate(names)}
        total, correct = np.zeros(len(names)), np.zeros(len(names))
        for row in rows:
            if column not in row["right"]:
                raise ValueError(f"The results have no {column!r}: they have {', '.join(row['right'])}.")
            total[places[row["id"]]] += 1
            correct[places[row["id"]]] += row["right"][column]
        if asked is not None and (names, total.tolist()) != asked:
            raise ValueError("The models were asked different questions: evaluate them on the same records.")
        asked = names, total.tolist()
        right.append(correct)
    return np.array(right), np.array(asked[1])


def columns(result: dict) -> list[str]:
    """The selections of a result, then what needs no video."""
    names = list(result["questions"][0]["right"])
    return [name for name in names if name not in (BLIND, CONSTANT)] + [n for n in (BLIND, CONSTANT) if n in names]


def recall_shares(results: Iterable[dict], column: str) -> dict[str, float | None]:
    """Shares of events that are found and represented, and of scenes that are pure; `None` where there are none."""
    names = [field.name for field in fields(Recall)]
    sums = dict.fromkeys(names, 0)
    for result in results:
        for recall in result["recall"].get(column, {}).values():
            for name in names:
                sums[name] += recall[name]
    events, scenes = sums["events"], sums["scenes"]
    return {
        "found": sums["found"] / events if events else None,
        "represented": sums["represented"] / events if events else None,
        "pure": sums["pure"] / scenes if scenes else None,
    }


def percent(value: tuple[float, float, float] | float | None) -> str:
    """ "81.0 (77.5 to 84.2)", "81.0", or a dash."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        middle, low, high = (f"{100 * part:.1f}" for part in value)
        return f"{middle} ({low} to {high})"
    return f"{100 * value:.1f}"


def explained(tables: str) -> str:
    """The tables, and below them what an interval without width means where there is one."""
    if not any(low == high for low, high in re.findall(r"\(([\d.]+) to ([\d.]+)\)", tables)):
        return tables
    return (
        f"{tables}\nAn interval without width, such as 100.0 (100.0 to 100.0), only says that all videos agree. By "
        "the rule of three, where n of them do, up to 3 / n of all such videos may still differ (95%).\n"
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def summary(results: list[dict]) -> str:
    """The tables of one model, or of several that differ in their seed: accuracy by form and kind, and events."""
    names = columns(results[0])
    rows = results[0]["questions"]
    has_chance = "chance" in rows[0]
    body = []
    for label, where in _groups(rows):
        chosen = [row for row in rows if where(row)]
        cells = [percent(accuracy(*counts(results, name, where))) for name in names]
        chance = [percent(float(np.mean([row["chance"] for row in chosen])))] if has_chance else []
        body.append([label, str(len(chosen)), *cells, *chance])
    text = markdown(["questions", "number", *names, *(["chance"] if has_chance else [])], body)
    selections = [name for name in names if name in results[0]["recall"]]
    shares = {name: recall_shares(results, name) for name in selections}
    if any(share["found"] is not None for share in shares.values()):
        header = [
            "selection",
            "events found",
            "by a representative",
            "pure scenes",
        ]
        text += "\n" + markdown(header, [[name, *map(percent, share.values())] for name, share in shares.items()])
    return text


def is_question(row: dict) -> bool:
    """Captions, of which no two people write the same, are kept out of the averages."""
    return row["kind"] != "caption"


def _groups(rows: list[dict]) -> list[tuple[str, Callable[[dict], bool]]]:
    groups = [("all but captions", is_question)] if any(map(is_question, rows)) else []
    for key, label in (("form", "all but captions, {}"), ("kind", "{}")):
        for value in dict.fromkeys(row[key] for row in rows if is_question(row)):
            where = lambda row, key=key, value=value: is_question(row) and row[key] == value  # noqa: E731
            groups.append((label.format(value), where))
    if not all(map(is_question, rows)):
        groups.append(("captions, word for word", lambda row: not is_question(row)))
    return groups


__all__ = [
    "BLIND",
    "CONSTANT",
    "asked_with",
    "columns",
    "counts",
    "evaluate",
    "explained",
    "is_question",
    "load_results",
    "markdown",
    "percent",
    "recall_shares",
    "save_results",
    "summary",
]
