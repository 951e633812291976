"""Questions about long videos that `build-dataset` joined from films of this world, from the annotations of these."""

import json
from dataclasses import fields
from pathlib import Path
from random import Random

from ..commands.files import replacing
from ..long_video.json_records import read_json_lines
from ..long_video.records import TIME_PLACEHOLDER, VIDEO_PLACEHOLDER
from ..long_video.statistics import check_complete, read_records
from .questions import Question, ask_about_film
from .sets import Settings
from .wordings import Wordings
from .world import COMPOSITIONS, Event, Film, Thing

# What a set of joined videos can be told.
ASKED = ("split", "seed", "questions", "choice_share", "ask", "wordings", "style", "compositions")


def ask_about_joined(output: str | Path, joined: str | Path, settings: Settings, count: int) -> Path:
    """
    Asks about the first `count` videos of a build as about films, and keeps their captions as a last turn.

    Args:
        output (`str` or `Path`): The folder of the films that were joined, with their records.
        joined (`str` or `Path`): The folder that `build-dataset` wrote.
        settings (`Settings`):
            Those of [`ASKED`]; the others, about filming and questions in vain, have their defaults.
        count (`int`): How many.

    Returns:
        `Path`: The JSONL file under `output`, `{split}_joined.jsonl`: as of films, but with the `segments` of the
        build instead of a `video`. No question names a thing that is in several of the joined films.

    Raises:
        ValueError: If the folder holds no build, an unfinished one or one of fewer videos, a film that it joined has
            no record in `output`, or a setting is given that is none of [`ASKED`].
        `FileExistsError` if the file is there already.
    """
    names, plain = [field.name for field in fields(Settings) if field.name not in ASKED], Settings("short")
    if unused := [name for name in names if getattr(settings, name) != getattr(plain, name)]:
        raise ValueError(f"Of joined videos only {', '.join(ASKED)} can be set: leave out {', '.join(unused)}.")
    check_complete(joined)
    output, records = Path(output), list(read_records(Path(joined)))
    if not records:
        raise ValueError(f"`joined` {joined} holds no videos of build-dataset: name the folder that it wrote.")
    if not 1 <= count <= len(records):
        raise ValueError(f"`count` must be from 1 to the {len(records)} videos of {joined}, got {count}.")
    file = output / f"{settings.split}_joined.jsonl"
    if file.exists():
        raise FileExistsError(f"{file} is there already: name another output, or remove it.")
    films: dict[str, dict[str, list[dict]]] = {}
    lines = []
    for number, record in enumerate(records[:count]):
        events = []
        for segment in record["segments"]:
            name = segment["id"].rsplit("_", 1)[0]
            if name not in films:
                films[name] = _events(output / f"{name}.jsonl")
            if segment["id"] not in films[name]:
                raise ValueError(f"{output / name}.jsonl has no film {segment['id']!r}, which {joined} joined.")
            at = segment["scene_start"] - segment["start"]
            events += [_event(values, at) for values in films[name][segment["id"]]]
        pairs = COMPOSITIONS[settings.compositions]
        film = Film(record["duration"], settings.fps, (), tuple(events), pairs)
        origin = f"{settings.seed}/{settings.split}/joined/{number}"
        wordings = Wordings(Random(f"{origin}/words"), settings.wordings, settings.style)
        how = settings.choice_share, settings.ask, wordings, settings.split == "test"
        turns = ask_about_film(Random(origin), film, settings.questions, *how)
        request, caption = (turn["value"] for turn in record["conversations"])
        request = request.replace(f"{VIDEO_PLACEHOLDER}\n", "").replace(f"{TIME_PLACEHOLDER}\n", "")
        turns.append(Question("caption", "free", request, caption))
        line = {
            "id": f"{settings.split}_joined_{number:06d}",
            "duration": record["duration"],
            "segments": record["segments"],
            "conversations": conversation(turns),
            "events": [event.describe() for event in events],
            "questions": [turn.describe() for turn in turns],
            "data_source": "procedural_joined",
        }
        lines.append(json.dumps(line) + "\n")
    with replacing(file) as whole:
        whole.write_text("".join(lines), encoding="utf-8")
    return file


def _events(file: Path) -> dict[str, list[dict]]:
    if not file.is_file():
        raise ValueError(f"There is no {file}: the records of the films that were joined must lie in the output.")
    records = (record for _, record in read_json_lines(file))
    return {record["id"]: record["events"] for record in records if isinstance(record, dict) and "events" in record}


def _event(values: dict, at: float) -> Event:
    thing = Thing(*(values[name] for name in ("color", "shape", "size", "x", "y", "motion")))
    return Event(at + values["start"], at + values["end"], thing)


def conversation(turns: list[Question]) -> list[dict]:
    """LLaVA's form; the medium stands in the first turn. Of lettered options, the text is the reply."""
    spoken = []
    for turn in turns:
        medium = "" if spoken else "<image>\n"
        spoken.append({"from": "human", "value": medium + turn.question})
        spoken.append({"from": "gpt", "value": turn.reply})
    return spoken


__all__ = ["ask_about_joined", "conversation"]
