"""Runs of `answer_all`: records in, rows out."""

import json
from pathlib import Path

from fila_video import answer_all
from fila_video.inference.answer_all import Summary
from fila_video.pipeline_fila_video import VideoTextToTextPipeline

QUESTION = "What happens?"


def write_records(folder: Path, *records: dict | str, name: str = "records.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def rows_of(output: str | Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in Path(output).read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def answer(
    pipe: VideoTextToTextPipeline, records: Path, output: Path, question: str | None = QUESTION, **settings
) -> Summary:
    return answer_all(records, output, question, model=pipe, max_new_tokens=4, progress=False, **settings)
