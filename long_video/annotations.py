"""Annotations of short videos: LLaVA-Video-178K's JSON and JSONL, and anything `datasets` loads with the same columns.

Files are read record by record, so that a set of any size takes little memory. What cannot be used is a `BadInput`,
with its reason; a file that is no annotation file at all is an error.
"""

import hashlib
import json
import math
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any

from .json_records import JsonRecordError, read_json_lines, read_json_records
from .records import TIME_PLACEHOLDER, VIDEO_PLACEHOLDER

Annotation = str | os.PathLike | Sequence[dict]  # a file, what `datasets` loads, or the records themselves

_JSON = (".json", ".jsonl", ".ndjson")
# Endings of files that may hold annotations; all others in a folder may be videos, terabytes of them.
_DATA = (*_JSON, ".csv", ".tsv", ".txt", ".xml", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip")
_CHUNK = 1 << 20
_PLACEHOLDERS = (VIDEO_PLACEHOLDER, TIME_PLACEHOLDER, "<video>")
# What training refuses in a text, whichever of the usual tokenizers the model has: this one is not known here.
_CONTROL_TOKEN = re.compile(
    r"<\|[^\s<>|]+\|>|</?s>|<(unk|pad|bos|eos|mask|start_of_turn|end_of_turn|end_of_utterance|fake_token_around_image|"
    r"global-img|row_\d+_col_\d+|IMG_CONTEXT|im_start|im_end|im_patch)>|</?img>|\[/?INST\]"
)
_ONE_FILE = "the video is one file with "


class LongVideoError(ValueError):
    """The dataset cannot be built; the message says why and what to do."""


@dataclass
class BadInput:
    """An input that is left out. `where`: the annotation file and the record's number in it, from 1."""

    where: str
    id: str | None
    video: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.where}, id {self.id!r}, video {self.video!r}: {self.reason}"

    def as_dict(self) -> dict:
        return asdict(self)

    @property
    def is_other_name(self) -> bool:
        """Whether it is a file under another name, as equal files are in a snapshot of the Hub: no fault of a set."""
        return self.reason.startswith(_ONE_FILE)


def read_annotations(
    annotations: Sequence, videos: str | os.PathLike, report: Callable[[BadInput], None], split: str = "train"
) -> Iterator[dict]:
    """The usable captioned videos, in order: `id`, `data_source`, `file` (under `videos`), `caption`, `where`.

    Args:
        annotations (`Sequence`):
            Paths of JSON or JSONL files, whatever `datasets.load_dataset` takes (a folder, a Parquet or Arrow file, a
            name on the Hub), folders of `save_to_disk`, or iterables of records.
        videos (`str` or `os.PathLike`):
            The folder of the video files; a record's `video` is looked for in it and in its `data_source` folder.
        report (`Callable[[BadInput], None]`):
            Called with each record that cannot be used.
        split (`str`, *optional*, defaults to `"train"`):
            The split of what `datasets` loads by name. Files, sets that have no splits and records are read whole.

    Raises:
        LongVideoError: Where an annotation file is missing or cannot be parsed, or a split is named and none has
        splits.
    """
    _check_split(annotations, split)
    ids, files = {}, {}
    for name, annotation in zip(annotation_names(annotations), annotations, strict=True):
        for number, record in enumerate(_records(annotation, split), start=1):
            where = f"{name}, record {number}"
            item = _check(record, where, Path(videos))
            if isinstance(item, dict):
                key = (item["data_source"], item["id"])
                file = os.path.realpath(Path(videos) / item["file"])  # links give one video several names
                if key in ids:
                    item = _bad(record, where, f"the id is used already by {ids[key]}")
                elif file in files:
                    item = _bad(record, where, _annotated_already(item["file"], *files[file]))
                else:
                    ids[key], files[file] = where, (item["file"], where)
            if isinstance(item, BadInput):
                report(item)
            else:
                yield item


def _annotated_already(file: str, before: str, where: str) -> str:
    if file == before:
        return f"the video is annotated already by {where}"
    return f"{_ONE_FILE}{before!r}, of which it is another name (a link), and is annotated already by {where}"


def check_annotations(annotations: Sequence, split: str = "train") -> None:
    """
    Opens each annotation that is named, and reads its first record.

    Raises:
        LongVideoError: Where one is missing or cannot be read, or a split is named and none has splits.
    """
    _check_split(annotations, split)
    for annotation in annotations:
        if not isinstance(annotation, (str, os.PathLike)):
            continue
        try:
            next(_records(annotation, split), None)
        except OSError as error:
            raise LongVideoError(f"The annotations {str(annotation)!r} cannot be read: {error}.") from error


def annotation_names(annotations: Sequence) -> list[str]:
    """How messages and fingerprints name annotations: without the folder they lie in, those of one name by places."""
    names = [
        (Path(each).name or str(each)) if isinstance(each, (str, os.PathLike)) else type(each).__name__
        for each in annotations
    ]
    return [f"{name} (no. {at})" if names.count(name) > 1 else name for at, name in enumerate(names, start=1)]


def fingerprint(annotation: Annotation, output: str | os.PathLike | None = None) -> str:
    """
    What tells annotations apart: the digest of a file's bytes; of a folder's files; of records; of sets of `datasets`
    their own; of what is on the Hub, its name.

    Args:
        annotation (`str`, `os.PathLike` or `Sequence[dict]`):
            As [`read_annotations`] takes it. Of a folder, names and bytes of data files count; of others in it, such
            as videos, names and sizes; and of hidden files nothing.
        output (`str` or `os.PathLike`, *optional*):
            A folder whose files do not count.
    """
    if not isinstance(annotation, (str, os.PathLike)):
        return getattr(annotation, "_fingerprint", None) or hashlib.sha256(repr(list(annotation)).encode()).hexdigest()
    path = Path(annotation)
    if path.is_file():
        return _digest(path)
    if not path.is_dir():
        return str(annotation)
    folder, digest = path.resolve(), hashlib.sha256()
    left_out = None if output is None else Path(output).resolve()
    for file in sorted(folder.rglob("*"), key=Path.as_posix):
        name = file.relative_to(folder)
        if left_out in file.parents or any(part.startswith(".") for part in name.parts) or not file.is_file():
            continue
        content = _digest(file) if file.suffix.lower() in _DATA else file.stat().st_size
        digest.update(json.dumps([name.as_posix(), content]).encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _records(annotation: Annotation, split: str) -> Iterator:
    if not isinstance(annotation, (str, os.PathLike)):
        return iter(annotation)
    path = Path(annotation)
    if path.suffix in _JSON:
        if not path.is_file():
            raise LongVideoError(f"There is no annotation file {str(path)!r}.")
        return _read_file(path)
    # Beside what has splits, files may stand: they are read whole.
    return iter(load_annotations(annotation, split if _has_splits(annotation) else "train"))


def _has_splits(annotation: Annotation) -> bool:
    """Whether it is what `datasets` loads by name: no file, no set of `save_to_disk` without splits, no records."""
    if not isinstance(annotation, (str, os.PathLike)):
        return False
    path = Path(annotation)
    return path.suffix not in _JSON and not path.is_file() and not (path / "state.json").is_file()


def _check_split(annotations: Sequence, split: str) -> None:
    if split != "train" and not any(map(_has_splits, annotations)):
        names = ", ".join(annotation_names(annotations))
        raise LongVideoError(
            f"`split` {split!r} is of what `datasets` loads by name, such as a folder or a set on the Hub; what is "
            f"given is read whole ({names}): leave it out."
        )


def _read_file(path: Path) -> Iterator:
    read = read_json_records if path.suffix == ".json" else read_json_lines
    try:
        for _, record in read(path):
            yield record
    except ValueError as error:
        raise LongVideoError(f"The annotation file cannot be read: {error}") from error


def load_annotations(annotation: str | os.PathLike, split: str, name: str | None = None) -> Sequence:
    """
    What `datasets` loads: a folder, a Parquet or Arrow file, a name on the Hub, a folder of `save_to_disk`. `name` is
    the configuration of a folder or of a set on the Hub that has several.

    Raises:
        LongVideoError: If it cannot, or is not installed, or a `name`, or a `split` other than `"train"`, is given of
        a set that has none.
    """
    _check_split([annotation], split)
    path = Path(annotation)
    if path.suffix.lower() == ".csv":
        raise LongVideoError(
            f"{str(annotation)!r} is a CSV file, whose columns cannot hold lists such as `conversations`: write the "
            "records as JSON lines (.jsonl) or Parquet."
        )
    is_saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    if name is not None and (is_saved or path.is_file()):
        raise LongVideoError(
            f"`name` {name!r} is of a folder or a set on the Hub that `datasets` loads by name; {str(annotation)!r} "
            "has no configurations: leave it out."
        )
    datasets = _import_datasets(annotation)
    try:
        if is_saved:
            loaded = datasets.load_from_disk(str(path))
            return loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        kinds = {".parquet": "parquet", ".arrow": "arrow"}
        if path.is_file():
            return datasets.load_dataset(kinds.get(path.suffix, "json"), data_files=str(path), split="train")
        return datasets.load_dataset(str(annotation), name, split=split)
    except Exception as error:  # whatever `datasets` and its backends raise for a set that is not one
        raise LongVideoError(f"`datasets` cannot load {str(annotation)!r}, split {split!r}: {error}") from error


def configurations(annotation: str | os.PathLike) -> list[str]:
    """
    The configurations that `datasets` finds in a folder or a set on the Hub.

    Raises:
        LongVideoError: If it cannot, or is not installed.
    """
    datasets = _import_datasets(annotation)
    try:
        return datasets.get_dataset_config_names(str(annotation))
    except Exception as error:  # whatever `datasets` and its backends raise for a set that is not one
        raise LongVideoError(f"`datasets` finds no configurations in {str(annotation)!r}: {error}") from error


def _import_datasets(annotation: str | os.PathLike) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise LongVideoError(
            f"{str(annotation)!r} is neither .json nor .jsonl, and reading it takes the package `datasets`: "
            "pip install 'fila-video[dataset]'."
        ) from error
    return datasets


def _bad(record: Any, where: str, reason: str) -> BadInput:
    fields = record if isinstance(record, dict) else {}
    id, video = (
        # Half a surrogate pair cannot be written to a file: it is shown by its number.
        None if fields.get(name) is None else str(fields[name])[:200].encode(errors="backslashreplace").decode()
        for name in ("id", "video")
    )
    return BadInput(where, id, video, reason.encode(errors="backslashreplace").decode())


def without_nan(record: dict) -> dict:
    """The record with `None` where it is not a number (NaN), as which tables write what is not given."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in record.items()}


def _check(record: Any, where: str, videos: Path) -> dict | BadInput:
    if isinstance(record, JsonRecordError):
        return _bad(record, where, f"the record is not valid JSON ({record})")
    if not isinstance(record, dict):
        return _bad(record, where, f"the record is no object but of the type {type(record).__name__}")
    record = without_nan(record)
    video = record.get("video")
    if not isinstance(video, str) or not video.strip():
        return _bad(record, where, f"`video` must be a file name, got {video!r}"[:200])
    source = record.get("data_source")
    source = "" if source is None else str(source)
    id = video if record.get("id") is None else str(record["id"])
    try:
        "".join((id, source, video)).encode()
    except UnicodeEncodeError:
        return _bad(record, where, "`id`, `data_source` or `video` is not valid Unicode text")
    file = _find(video, source, videos)
    if isinstance(file, str):
        return _bad(record, where, file)
    caption = find_caption(record)
    if isinstance(caption, BaseException):
        return _bad(record, where, str(caption))
    return {"id": id, "data_source": source, "file": str(file), "caption": caption, "where": where}


def path_within(name: str, windows: bool = os.name == "nt") -> PurePosixPath | None:
    """
    The path of a file or folder under another one, or `None` where it leads out of that one.

    Args:
        name (`str`):
            As an annotation gives it. A backslash separates folders on every system: sets are carried from one to
            another, and a name that is harmless on one must not lead out on another.
        windows (`bool`, *optional*):
            Whether a drive's letter leads out, as it does on Windows alone. By default, whether this is Windows.
    """
    path = PurePosixPath(posixpath.normpath(name.replace("\\", "/")))
    leads_out = path.is_absolute() or ".." in path.parts or (windows and PureWindowsPath(path).drive)
    return None if leads_out else path


def _find(video: str, source: str, videos: Path) -> PurePosixPath | str:
    """The file's path under `videos`, or why there is none."""
    path = path_within(video)
    if path is None:
        return "the path leads out of the folder of videos; name it relative to that folder"
    candidates = [path]
    if source:
        folder = path_within(source)
        if folder is None:
            return "`data_source` leads out of the folder of videos; name a folder under it"
        candidates.append(folder / path)
    for candidate in candidates:
        try:
            if (videos / candidate).is_file():
                return candidate
        except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
            return f"no file can have this name ({getattr(error, 'strerror', None) or error})"
    return f"there is no such file in the folder of videos {videos.name!r}"


def find_caption(record: dict) -> str | ValueError:
    """The caption of a record: its one turn of the assistant. Otherwise a `ValueError` that says what is wrong."""
    turns = record.get("conversations")
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, dict) for turn in turns):
        return ValueError("no caption: `conversations` must be a list of turns with `from` and `value`")
    answers = [turn.get("value") for turn in turns if turn.get("from") in ("gpt", "assistant")]
    if not answers:
        return ValueError("no caption: `conversations` has no turn of `gpt`")
    if len(answers) > 1:
        return ValueError(f"no caption: `conversations` has {len(answers)} turns of `gpt`, questions and answers")
    caption = answers[0]
    if not isinstance(caption, str):
        return ValueError(f"the caption is not text but of the type {type(caption).__name__}")
    if not caption.strip():
        return ValueError("the caption is empty")
    try:
        caption.encode()
    except UnicodeEncodeError:
        return ValueError("the caption is not valid Unicode text")
    for placeholder in _PLACEHOLDERS:
        if placeholder in caption:
            return ValueError(f"the caption contains the placeholder {placeholder}")
    if found := _CONTROL_TOKEN.search(caption):
        return ValueError(f"the caption contains {found[0]}, a control token of models: remove it")
    return " ".join(caption.split())


__all__ = [
    "BadInput",
    "LongVideoError",
    "annotation_names",
    "check_annotations",
    "configurations",
    "find_caption",
    "fingerprint",
    "load_annotations",
    "path_within",
    "read_annotations",
    "without_nan",
]
