"""Annotated videos and images: JSON lines in LLaVA's form, with their questions and events."""

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

from ..long_video.json_records import JsonRecordError, read_json_records
from .texts import chosen_option, split_choice

FORMS = ("free", "choice")


@dataclass
class Question:
    """
    `form`: "free", or "choice", whose text offers options (see [`split_choice`]) and whose answer names one of them.
    `others`: further answers that are right too.
    """

    text: str
    answer: str
    kind: str
    form: str = "free"
    others: tuple[str, ...] = ()


@dataclass
class Record:
    """One medium. `events`: (start, end) in seconds of what happens in a video."""

    id: str
    path: Path
    is_video: bool
    questions: list[Question]
    duration: float | None = None
    events: list[tuple[float, float]] = field(default_factory=list)


def read_records(file: str | Path, limit: int | None = None, check_files: bool = True) -> list[Record]:
    """
    The records of a file; paths of media are relative to its folder.

    Args:
        file (`str` or `Path`): JSON lines with `id`, `video` or `image`, `questions` (each with `question`, `answer`,
            `kind` and `form`), and for videos `duration` and `events` (each with `start` and `end`). An `answer` is a
            text, or a list of texts of which any is right; numbers count as text. What may be left out may be null.
        limit (`int`, *optional*): Only the first so many.
        check_files (`bool`, *optional*): Whether the media must be there.

    Raises:
        ValueError: If a line is no such record, names the line. `FileNotFoundError` where the file or a medium is
        missing.
    """
    file = Path(file)
    if limit is not None and limit < 1:
        raise ValueError(f"The limit of records must be at least 1, got {limit}.")
    records = []
    for number, data in read_json_records(file) if file.stat().st_size else ():
        if len(records) == limit:
            break
        where = f"{file}, line {number}"
        records.append(_read_record(data, where, file.parent))
        if check_files and not records[-1].path.is_file():
            raise FileNotFoundError(f"{where}: {records[-1].path} of record {records[-1].id!r} is missing.")
    if not records:
        raise ValueError(f"{file} holds no records.")
    names = [record.id for record in records]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file}: the id {twice!r} occurs twice.")
    return records


def read_events(file: str | Path, limit: int | None = None) -> list[list[dict]]:
    """
    The events of each of [`read_records`], whole: `start` and `end`, `color` and `shape`.

    Raises:
        ValueError: If a record has none of these, as those of make-videos do.
    """
    events = []
    for number, data in itertools.islice(read_json_records(file), limit):
        shown = data.get("events")
        events.append(shown or [])
        if shown is None or not all({"start", "end", "color", "shape"} <= event.keys() for event in shown):
            raise ValueError(
                f"{file}, line {number}: record {data['id']!r} does not say which `events` it shows, with their "
                "`color` and `shape`: use records of make-videos."
            )
    return events


def _read_record(data: object, where: str, folder: Path) -> Record:
    try:
        if isinstance(data, JsonRecordError):
            raise data
        if not isinstance(data, dict):
            raise ValueError(f"a record is an object in braces, not {data!r:.80}")
        named = [name for name in ("video", "image") if data.get(name) is not None]
        if data.get("id") is None or len(named) != 1:
            raise ValueError("a record has an `id` and either a `video` or an `image`")
        name = _text(data["id"], "the `id`")
        (medium,) = named
        if not isinstance(data[medium], str):
            raise ValueError(f"the `{medium}` of record {name!r} must be the path of a file, not {data[medium]!r:.80}")
        if not data.get("questions"):
            raise ValueError(f"record {name!r} has no `questions`: there is nothing to ask")
        questions = [_read_question(question) for question in _objects(data["questions"], "`questions`")]
        events = [
            (_seconds(event["start"], "the `start` of an event"), _seconds(event["end"], "the `end` of an event"))
            for event in _objects([] if data.get("events") is None else data["events"], "`events`")
        ]
        duration = data.get("duration")
        duration = None if duration is None else _seconds(duration, "the `duration`")
        return Record(name, folder / data[medium], medium == "video", questions, duration, events)
    except KeyError as error:
        raise ValueError(f"{where}: `{error.args[0]}` is missing.") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error


def _read_question(data: dict) -> Question:
    text, kind = _text(data["question"], "a `question`"), _text(data["kind"], "the `kind` of a question")
    given = data["answer"] if isinstance(data["answer"], list) else [data["answer"]]
    answers = [_text(answer, f"the `answer` to {text!r:.80}") for answer in given]
    form = "free" if data.get("form") is None else data["form"]
    if form not in FORMS:
        raise ValueError(f"the form {form!r} of a question is not one of {', '.join(FORMS)}")
    if not text.strip() or not answers or not all(map(str.strip, answers)):
        raise ValueError("a question or its answer is empty")
    if form == "choice":
        _check_choice(text, answers)
    return Question(text, answers[0], kind, form, tuple(answers[1:]))


def _check_choice(text: str, answers: list[str]) -> None:
    _, options = split_choice(text)
    if not options:
        raise ValueError(
            f"the options of the choice {text!r:.200} cannot be told: put two or more at its end, each on its own "
            "line behind its letter, such as 'A. red' or '(A) red', from A on"
        )
    for letter, option in options.items():
        if option != letter and option in options:
            raise ValueError(f"the option {letter} of the choice {text!r:.200} reads {option!r}, another's letter")
        if list(options.values()).count(option) > 1:
            raise ValueError(f"two options of the choice {text!r:.200} are {option!r}")
    for answer in answers:
        if chosen_option(options, answer) is None:
            raise ValueError(
                f"the answer {answer!r} is none of the options {', '.join(options)} of the choice {text!r:.200}: give "
                "the letter of one, or its text"
            )


def _text(value: object, what: str) -> str:
    """A text, also of a number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not is_number:
        raise ValueError(f"{what} must be a text or a number, not {value!r:.80}")
    return str(value)


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} must be a number of seconds, not {value!r:.80}")
    return float(value)


def _objects(values: object, what: str) -> list[dict]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{what} must be a list of objects in braces, not {values!r:.80}")
    return values


__all__ = ["FORMS", "Question", "Record", "read_events", "read_records"]
