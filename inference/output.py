"""The file of answers: rows are added and synced, and what was broken off goes on with the same settings only."""

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..commands.files import lock_file, replacing
from ..long_video.json_records import JsonRecordError, parse_record
from .questions import VideoQuestions, WorkList

# Of configurations: where they come from, and what saving writes into them. The dtype is told by itself.
NOT_OF_ANSWERS = ("_name_or_path", "transformers_version", "architectures", "auto_map", "custom_pipelines", "dtype")
SAMPLES, SAMPLE_BYTES = 64, 1 << 12  # of each file of weights, to tell models apart
# In a model's folder. Others lie beside them, such as the state of the training that made it.
MODEL_FILES = (
    r".*\.(safetensors|jinja)|(.*config|.*safetensors\.index|tokenizer|special_tokens_map|added_tokens|vocab|"
    r"chat_template)\.json"
)
EARLIER_MODEL_FILES = r".*\.(json|jinja|safetensors)"  # which marks of earlier versions are of


class Answered(NamedTuple):
    """A row: of `answer` and `error` one is `None`. Lines of subtitles that found no room are counted."""

    id: str
    question: str | None = None
    answer: str | None = None
    error: str | None = None
    subtitles_left_out: int = 0


class Output:
    """The file of the answers, which one run at a time writes; its settings stand beside it."""

    def __init__(self, path: Path, settings: dict, resume: bool) -> None:
        text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        # As they are read back, so that a tuple is the list that it is kept as.
        self.path, self.settings, self.resume = path, json.loads(text), resume
        self.mark = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
        self.beside = path.with_name(path.name + ".settings.json")
        self.is_known = False  # whether the settings stood there before this run, or any whole row does
        self.file: BinaryIO | None = None

    def __enter__(self) -> "Output":
        if not self.path.parent.is_dir():
            raise ValueError(f"The output {self.path} cannot be written: there is no folder {self.path.parent}.")
        if not self.resume and self.path.exists() and self.path.stat().st_size:
            raise ValueError(f"The output {self.path} is there already: remove it, or go on with it.")
        self._open()
        try:
            self._check_settings()
        except BaseException:
            self.file.close()
            raise
        return self

    def _open(self) -> None:
        self.file = open(self.path, "ab+")  # noqa: SIM115
        try:
            lock_file(self.file, self.path)
        except ValueError:
            self.file.close()
            raise

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def _check_settings(self) -> None:
        kept = {}
        self.is_known = self.beside.exists()
        if self.is_known:
            with contextlib.suppress(ValueError):
                kept = json.loads(self.beside.read_text(encoding="utf-8"))
        if os.path.getsize(self.path) == 0 or kept == self.settings:
            if kept != self.settings:
                text = json.dumps(self.settings, indent=1, ensure_ascii=False)
                with replacing(self.beside) as unfinished:
                    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8
            return
        if kept:
            raise ValueError(
                f"The output {self.path} was begun with other settings ({differences(kept, self.settings)}). Name a "
                "new file, or give the settings it was begun with."
            )
        # The file beside is lost or broken, but the rows carry its mark; `take_over` compares each.

    def take_over(self, work: WorkList, retry_errors: bool) -> int:
        """
        Takes what is answered from the list; returns how many that are. A row that was half written goes.

        Raises:
            ValueError: If the file holds anything but rows of these settings, or the record of one has changed.
        """
        self.file.seek(0)
        done, end, again = 0, 0, []
        for number, line in enumerate(self.file, 1):
            if not line.endswith(b"\n"):
                if not self.is_known:
                    raise ValueError(
                        f"The output {self.path} is there already and holds no row of answers: name a new file."
                    )
                break
            try:
                row = parse_record(line)
                if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                    raise JsonRecordError("it is no row of answers")
            except JsonRecordError as error:
                raise ValueError(f"The output {self.path}, line {number}: {error}. Name a new file.") from None
            if row.get("settings") != self.mark:
                raise ValueError(
                    f"The output {self.path}, line {number}, was answered with other settings: name a new file."
                )
            if retry_errors and row.get("error") is not None and work.holds(row["id"]):
                again.append(end)
            else:
                try:
                    done += work.remove(row)
                except ValueError as error:
                    raise ValueError(f"{self.path}, line {number}: {error}") from None
            end += len(line)
            self.is_known = True
        self.file.truncate(end)
        if again:
            self._leave_out(again)
        self.file.seek(0, os.SEEK_END)
        return done

    def _leave_out(self, starts: list[int]) -> None:
        """Writes the output anew without some of its lines, whole or not at all; a link goes on to lead to it."""
        starts = iter([*starts, None])
        start = next(starts)
        with replacing(self.path) as unfinished:
            with open(unfinished, "wb") as target:
                self.file.seek(0)
                at = 0
                for line in self.file:
                    if at == start:
                        start = next(starts)
                    else:
                        target.write(line)
                    at += len(line)
            if os.name == "nt":  # which replaces no open file, and where none is locked
                self.file.close()
        self.file.close()
        self._open()

    def write(self, videos: list[VideoQuestions], rows: list[Answered]) -> None:
        """Adds rows and brings them to the disk."""
        sources = {asked.id: video for video in videos for asked in video.asked}
        lines = []
        for name, question, answer, error, left_out in rows:
            source = sources[name]
            row = {"id": name, "video": source.video, "media": source.settings, "question": question}
            row |= {"answer": answer, "error": error}
            row |= {"subtitles_left_out": left_out} if left_out else {}
            lines.append(json.dumps({**row, "settings": self.mark}, ensure_ascii=False) + "\n")
        self.file.write("".join(lines).encode("utf-8", "backslashreplace"))
        self.file.flush()
        os.fsync(self.file.fileno())


def differences(kept: dict, now: dict) -> str:
    """What messages say of settings that are not the same, of dictionaries in them by the names inside."""
    found = []
    for name in {**now, **kept}:
        there, here = kept.get(name), now.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found.append(f"{name}: ({differences(there, here)})")
        else:
            found.append(f"{name}: {there} there, {here} now")
    return "; ".join(found)


def plain(value: Any, without: tuple[str, ...] = ()) -> Any:
    """
    A value as JSON takes it, the same in each process: of what JSON does not know, how Python writes it. The names in
    `without` are left out of all dictionaries.
    """
    if isinstance(value, dict):
        kept = sorted((item for item in value.items() if item[0] not in without), key=str)
        return {str(name): plain(each, without) for name, each in kept}
    if isinstance(value, (list, tuple)):
        return [plain(each, without) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (str, bool, int, float):
        return value
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))


def pipeline_settings(pipe: Any) -> dict[str, Any]:
    """
    What answers by a pipeline beside the files of its model: the dtype, a hash of the model's configuration, the
    settings of the processor, and the pipeline's own options. What holds for every pipeline is left out.
    """
    model, processor = pipe.model, pipe.processor
    text = json.dumps(plain(model.config.to_dict(), NOT_OF_ANSWERS))
    guests = {name: getattr(processor, name) for name in ("frame_encoder", "question_scorer")}
    reading, generation, _ = pipe.options_of()
    # transformers keeps what a pipeline was made with in places that depend on its version.
    generation = pipe.generation_arguments(generation["generate_kwargs"])
    generation = {name: value for name, value in generation.items() if name != "tokenizer"}
    own = {"reading": reading, "generation": generation, "defaults": model.generation_config.to_dict()}
    return {
        "dtype": str(pipe.dtype),
        "config": hashlib.sha256(text.encode()).hexdigest()[:16],
        "processor": plain({**processor.to_dict(), "chat_template": processor.chat_template}, NOT_OF_ANSWERS),
        "guests": {name: getattr(guest, "__qualname__", type(guest).__qualname__) for name, guest in guests.items()},
        "pipeline": plain(own, NOT_OF_ANSWERS),
    }


def model_mark(name: str, files: str = MODEL_FILES) -> str:
    """
    The model's name, with a hash behind it where it is a folder, of the files that are the model: of its settings
    whole, of its weights in samples, since training changes them everywhere. `files` is the pattern of their names. A
    model that was made in memory has no name, and an empty mark.
    """
    folder = Path(name)
    if not name or not folder.is_dir():  # the path of no name would be the current folder
        return name
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if not re.fullmatch(files, file.name) or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with open(file, "rb") as opened:
            if file.suffix != ".safetensors" or size <= SAMPLES * SAMPLE_BYTES:
                digest.update(opened.read())
                continue
            for number in range(SAMPLES):
                opened.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(opened.read(SAMPLE_BYTES))
    return f"{folder.resolve().name} {digest.hexdigest()[:16]}"


__all__ = ["EARLIER_MODEL_FILES", "Answered", "Output", "differences", "model_mark", "pipeline_settings", "plain"]
