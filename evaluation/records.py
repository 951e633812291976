"""Annotated videos and images: JSON lines in LLaVA's form, with their questions and events."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from ..long_video.json_records import JsonRecordError, read_json_records

FORMS = ("free", "choice")


@dataclass
class Question:
    """`form`: "free", or "choice", whose text ends with lines such as "A. red" and whose answer is the letter."""

    text: str
    answer: str
    kind: str
    form: str = "free"


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
            `kind` and `form`), and for videos `duration` and `events` (each with `start` and `end`).
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
        events.append(data.get("events") or [])
        if not all({"start", "end", "color", "shape"} <= event.keys() for event in events[-1]) or "events" not in data:
            raise ValueError(
                f"{file}, line {number}: record {data['id']!r} does not say which `events` it shows, with their "
                "`color` and `shape`: use records of make-videos."
            )
    return events


def _read_record(data: object, where: str, folder: Path) -> Record:
    try:
        if isinstance(data, JsonRecordError):
            raise data
        is_video = "video" in data
        if "id" not in data or is_video == ("image" in data):
            raise ValueError("a record has an `id` and either a `video` or an `image`")
        if not data.get("questions"):
            raise ValueError(f"record {data['id']!r} has no `questions`: there is nothing to ask")
        questions = [_read_question(question) for question in data["questions"]]
        events = [(float(event["start"]), float(event["end"])) for event in data.get("events", [])]
        path = folder / data["video" if is_video else "image"]
        return Record(str(data["id"]), path, is_video, questions, data.get("duration"), events)
    except KeyError as error:
        raise ValueError(f"{where}: `{error.args[0]}` is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error}.") from error


def _read_question(data: dict) -> Question:
    question = Question(str(data["question"]), str(data["answer"]), str(data["kind"]), data.get("form", "free"))
    if question.form not in FORMS:
        raise ValueError(f"the form {question.form!r} of a question is not one of {', '.join(FORMS)}")
    if not question.text.strip() or not question.answer.strip():
        raise ValueError("a question or its answer is empty")
    return question


__all__ = ["FORMS", "Question", "Record", "read_events", "read_records"]
