"""Annotated videos and images: JSON lines in LLaVA's form, with their questions and events."""

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

from ..long_video.annotations import without_nan
from ..long_video.json_records import JsonRecordError, read_json_records
from .texts import chosen_option, is_same, split_choice

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
            and maybe `kind` and `form`), and for videos `duration` and `events` (each with `start` and `end`). An
            `answer` is a text, or a list of texts of which any is right; numbers count as text, and true means "yes"
            or "true". What may be left out may be null; so is what is not a number (NaN), as tables write it.
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
        shown = without_nan(data).get("events")
        events.append(
            [{**event, **_times(event)} if {"start", "end"} <= event.keys() else event for event in shown or []]
        )
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
        data = without_nan(data)
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
        events = _objects([] if data.get("events") is None else data["events"], "`events`")
        events = [tuple(_times(event).values()) for event in events]
        duration = data.get("duration")
        duration = None if duration is None else _seconds(duration, "the `duration`")
        return Record(name, folder / data[medium], medium == "video", questions, duration, events)
    except KeyError as error:
        raise ValueError(f"{where}: `{error.args[0]}` is missing.") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from error


def _read_question(data: dict) -> Question:
    data = without_nan(data)
    text = _text(data["question"], "a `question`")
    kinds = data.get("kind") if isinstance(data.get("kind"), list) else [data.get("kind")]
    kind = ", ".join("other" if each is None else _text(each, "the `kind` of a question") for each in kinds) or "other"
    answers = []
    for answer in data["answer"] if isinstance(data["answer"], list) else [data["answer"]]:
        if isinstance(answer, bool):
            answers += _truth(answer, text, data.get("form"))
        else:
            answers.append(_text(answer, f"the `answer` to {text!r:.80}"))
    form = "free" if data.get("form") is None else data["form"]
    if form not in FORMS:
        raise ValueError(f"the form {form!r} of a question is not one of {', '.join(FORMS)}")
    if not text.strip() or not answers or not all(map(str.strip, answers)):
        raise ValueError("a question or its answer is empty")
    if form == "choice":
        _check_choice(text, answers)
    return Question(text, answers[0], kind, form, tuple(answers[1:]))


def _truth(answer: bool, text: str, form: object) -> list[str]:
    """What may say it; of a choice, what is an option."""
    said = ["yes", "true"] if answer else ["no", "false"]
    _, options = split_choice(text)
    return [word for word in said if chosen_option(options, word)] or said if form == "choice" else said


def _check_choice(text: str, answers: list[str]) -> None:
    _, options = split_choice(text)
    texts = list(options.values())
    for answer in answers:
        letter = chosen_option(options, answer)
        if letter is None and not options:
            raise ValueError(
                f"the options of the choice {text!r:.200} cannot be told: put two or more at its end, each on its own "
                "line behind its letter, such as 'A. red' or '(A) red', from A on; or give the letter as the answer"
            )
        if letter is None and sum(is_same(answer, option) for option in texts) > 1:
            raise ValueError(f"two options of the choice {text!r:.200} are {answer!r}: give the letter of one")
        if letter is None:
            raise ValueError(
                f"the answer {answer!r} is none of the options {', '.join(options)} of the choice {text!r:.200}: give "
                f"the letter of one, or its text{_counted(list(options), answer)}"
            )
        for one, option in options.items():  # which of both an answer means cannot be told
            if option != one and option in options and letter in (one, option):
                raise ValueError(f"the option {one} of the choice {text!r:.200} reads {option!r}, another's letter")


def _counted(letters: list[str], answer: str) -> str:
    """What to write where an answer may be the place of an option."""
    places = {start: int(answer) - start for start in (0, 1) if answer.isdecimal()}
    read = [
        f"{letters[at]!r} if it counts them from {start}" for start, at in places.items() if 0 <= at < len(letters)
    ]
    return f"; a place in their list is written as its letter: {', '.join(read)}" if read else ""


def _text(value: object, what: str) -> str:
    """A text, also of a number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not is_number:
        raise ValueError(f"{what} must be a text or a number, not {value!r:.80}")
    return str(value)


def _times(event: dict) -> dict[str, float]:
    return {name: _seconds(event[name], f"the `{name}` of an event") for name in ("start", "end")}


def _seconds(value: object, what: str) -> float:
    """A number, also of a text."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{what} must be a number of seconds, not {value!r:.80}")
    return seconds


def _objects(values: object, what: str) -> list[dict]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{what} must be a list of objects in braces, not {values!r:.80}")
    return values


__all__ = ["FORMS", "Question", "Record", "read_events", "read_records"]
