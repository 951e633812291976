"""The sets of a run and their mixture: which record comes when, by the seed alone."""

import functools
import glob
import hashlib
import itertools
import json
import os
import random
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import PIL.Image
import torch
from torch.utils.data import Dataset, Sampler

from ..long_video.annotations import configurations, fingerprint, load_annotations
from ..long_video.json_records import BOM, JsonRecordError, parse_record, read_json_records
from ..long_video.statistics import check_complete
from .settings import DataSet, TrainingError

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
SUBSET_SEED = 42  # the paper's (section 4.3)
# What records of any form raise where they are read: a value that is missing or of another type among them.
RECORD_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
# What Pillow raises, beside these, of pictures in a set that `datasets` decodes.
PICTURE_ERRORS = (SyntaxError, PIL.Image.DecompressionBombError)


class JsonLines:
    """JSONL files, of which only the lines' places are kept in memory."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.files = [str(file) for file in files]
        self.places, self.numbers = array("q"), array("i")
        for number, file in enumerate(self.files):
            with open(file, "rb") as lines:
                at = len(BOM) if lines.read(len(BOM)) == BOM else 0
                lines.seek(at)
                for line in lines:
                    if line.strip():
                        self.places.append(at)
                        self.numbers.append(number)
                    at += len(line)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict:
        with open(self.files[self.numbers[index]], "rb") as file:
            file.seek(self.places[index])
            return parse_record(file.readline())


class JsonArrays:
    """JSON arrays: packed text, which forked workers share, unlike objects, whose counts of references they write."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self.text, self.ends, self.bad = bytearray(), array("q"), {}
        for file in files:
            for number, record in read_json_records(file):
                if isinstance(record, JsonRecordError):
                    self.bad[len(self.ends)] = f"{file}, record or line {number} is not valid JSON: {record}"
                    record = None
                self.text += json.dumps(record).encode()
                self.ends.append(len(self.text))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict:
        if index in self.bad:
            raise JsonRecordError(self.bad[index])
        return json.loads(self.text[self.ends[index - 1] if index else 0 : self.ends[index]])


def each_configuration(source: DataSet) -> list[DataSet]:
    """
    The set itself, or, where its `name` is `"*"`, one for each configuration that `datasets` finds.

    Raises:
        TrainingError: If it finds none.
    """
    is_file = Path(source.path).suffix in JSON_ENDINGS or Path(source.path).is_file()
    if source.name != "*" or is_file:  # a file is refused with its name
        return [source]
    try:
        names = configurations(source.path)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    return [replace(source, name=name) for name in names]


class RecordSet:
    """
    One set: its records, and where its media lie.

    Args:
        source (`DataSet`):
            The set's settings. `path` is a JSON or JSONL file in LLaVA's form, a pattern that such files match, a
            folder that `build-dataset` wrote, or anything that `datasets` loads.

    Raises:
        TrainingError: If there is no such set, it cannot be loaded, it is empty or an unfinished build, a split or a
            configuration is named of one without, or a pattern of folders does not say where the media lie.
    """

    def __init__(self, source: DataSet) -> None:
        self.source, self.joined = source, None
        path = Path(source.path)
        is_joined = path.is_dir() and list(path.glob("data/train-*.jsonl")) and (path / ".build").is_dir()
        is_json = path.suffix in JSON_ENDINGS
        others = {"split": source.split if source.split != "train" else None, "name": source.name}
        for name, value in others.items():
            if (is_joined or is_json) and value is not None:
                raise TrainingError(
                    f"{source.path!r}: `{name}` {value!r} is of what `datasets` loads; JSON files and folders that "
                    "`build-dataset` wrote are read whole: leave it out."
                )
        files = [source.path] if path.is_file() else sorted(glob.glob(source.path, recursive=True))
        files = [file for file in files if Path(file).is_file()]  # a folder may have such a name too
        if is_json and not files:
            raise TrainingError(f"There is no file {source.path!r}.")
        if is_json and source.media is None and not path.is_file() and re.search(r"[*?[]", str(path.parent)):
            raise TrainingError(
                f"{source.path!r} matches files of several folders: say by `media` where the files lie that its "
                "records name."
            )
        try:
            check_complete(path)
            if is_joined:
                files = sorted(path.glob("data/train-*.jsonl"))
                self.records, self.joined = JsonLines(files), path
            elif is_json:
                self.records = JsonArrays(files) if path.suffix == ".json" else JsonLines(files)
            else:
                self.records = load_annotations(source.path, source.split, source.name)
        except ValueError as error:  # also a `LongVideoError`
            hint = ""
            if "Config name is missing" in str(error):  # of `datasets`
                hint = "\nName one by `data[].name`, or all of them by '*'."
            raise TrainingError(f"{self.name!r}: {error}{hint}") from error
        if len(self.records) == 0:
            raise TrainingError(f"The set {self.name!r} has no records.")
        # Of what `save_to_disk` wrote, this file has its fingerprint.
        self.files = files or [file for file in (path / "state.json",) if file.is_file()]
        self.media = Path(source.media) if source.media else path if path.is_dir() else path.parent
        self.indices = self._subset()
        if source.questions:
            self.indices = array("q", [index for index in self.indices if self._is_asked(index)])
            if not self.indices:
                raise TrainingError(
                    f"{self.name!r}: no record has a question with {source.questions}: name values that its "
                    "annotations have."
                )

    @property
    def name(self) -> str:
        return self.source.path if self.source.name is None else f"{self.source.path}, {self.source.name}"

    def mark(self) -> dict:
        """What tells the set from another state of it: its records' number and the digest of its files, if any."""
        digests = "".join(_digest(str(file), os.path.getmtime(file)) for file in self.files if Path(file).is_file())
        digest = hashlib.sha256(digests.encode()).hexdigest()[:16] if digests else None
        return {"path": self.name, "records": len(self.records), "digest": digest}

    def _subset(self) -> Sequence[int]:
        total, subset = len(self.records), self.source.subset
        if subset is None:
            return range(total)
        count = round(subset * total) if isinstance(subset, float) and subset <= 1 else int(subset)
        if not 1 <= count <= total:
            raise TrainingError(f"{self.name!r}: a `subset` of {count} cannot be taken of {total} records.")
        return array("q", sorted(random.Random(SUBSET_SEED).sample(range(total), count)))

    def _is_asked(self, index: int) -> bool:
        try:
            return bool(keep_questions(self.records[index], self.source.questions)["questions"])
        except JsonRecordError:  # `unreadable` decides what becomes of it when it is drawn
            return True
        except RECORD_ERRORS as error:
            raise TrainingError(
                f"{self.name!r}, record {index + 1}: `questions` needs records as make-videos writes them, with an "
                f"annotation for every two turns ({type(error).__name__}: {error})."
            ) from error

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        record = self.records[self.indices[index]]
        return keep_questions(record, self.source.questions) if self.source.questions else record


@functools.lru_cache(maxsize=256)  # the phases of a curriculum have many sets in common
def _digest(file: str, changed: float) -> str:
    return fingerprint(file)


def keep_questions(record: dict, wanted: dict[str, Sequence[str]]) -> dict:
    """
    The record with those turns alone whose annotation has one of the `wanted` values under each name. Its medium
    stands before the first of them.
    """
    turns, questions = record["conversations"], record["questions"]
    if len(turns) != 2 * len(questions):
        raise ValueError(f"{len(turns)} turns for {len(questions)} questions")
    medium = re.match(r"(<image>\n|<video>\n)?", turns[0]["value"])[0]
    kept = [
        number
        for number, question in enumerate(questions)
        if all(question[name] in values for name, values in wanted.items())
    ]
    turns = [dict(turn) for number in kept for turn in turns[2 * number : 2 * number + 2]]
    if kept and kept[0] != 0:
        turns[0]["value"] = medium + turns[0]["value"]
    return {**record, "conversations": turns, "questions": [questions[number] for number in kept]}


class MixtureSampler(Sampler):
    """
    The order of an epoch: `(epoch, set, record)`, drawn from the seed and the epoch, so that a run that goes on and
    every process of several find the same one.

    Args:
        sizes (`Sequence[int]`):
            The number of records of each set.
        sources (`Sequence[DataSet]`):
            Their settings. Of `weight` (1 by default) times the set, or of `count` records, an epoch has whole passes
            over the set and, for the rest, records that are drawn anew every epoch without repeating one.
    """

    def __init__(self, sizes: Sequence[int], sources: Sequence[DataSet], seed: int) -> None:
        self.sizes, self.seed, self.epoch = list(sizes), seed, 0
        self.counts = [
            source.count or max(1, round(size * (1 if source.weight is None else source.weight)))
            for size, source in zip(sizes, sources, strict=True)
        ]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        drawn = []
        for size, count, start in zip(self.sizes, self.counts, starts, strict=False):
            whole, rest = divmod(count, size)
            drawn += [torch.arange(start, start + size)] * whole
            drawn.append(start + torch.randperm(size, generator=generator)[:rest])
        order = torch.cat(drawn)
        order = order[torch.randperm(len(order), generator=generator)]
        sets = torch.bucketize(order, torch.tensor(starts[1:]), right=True)
        for number, index in zip(sets.tolist(), order.tolist(), strict=True):
            yield self.epoch, number, index - starts[number]


class SortedSteps(Sampler):
    """
    Another sampler's order, but within each step from small to large samples: where a step is accumulated from several
    batches, these then hold less padding. Its gradient stays the same.

    Args:
        sampler (`Sampler`):
            What gives the keys.
        step (`int`):
            The samples of a step, in all its batches and processes.
        size (`Callable`):
            The size of a key's sample.
    """

    def __init__(self, sampler: Sampler, step: int, size: Callable[[tuple], int]) -> None:
        self.sampler, self.step, self.size = sampler, step, size

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):  # a curriculum is one order, without epochs
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple]:
        keys = iter(self.sampler)
        while step := list(itertools.islice(keys, self.step)):
            yield from sorted(step, key=self.size)


class Mixture(Dataset):
    """
    All sets, by the keys of [`MixtureSampler`]. What `encode` refuses is another record's turn (the set's next one)
    with `unreadable="skip"`, so that batches keep their size on every process, and an error with `"fail"`.
    """

    def __init__(
        self,
        sets: Sequence[RecordSet],
        encode: Callable[..., dict],
        seed: int,
        unreadable: str = "fail",
        most_tries: int = 20,
    ) -> None:
        self.sets, self.encode = list(sets), encode
        self.unreadable, self.most_tries = unreadable, most_tries
        self.sampler = MixtureSampler([len(item) for item in self.sets], [item.source for item in self.sets], seed)

    def __len__(self) -> int:
        return len(self.sampler)

    def num_scenes(self, key: tuple[int, int, int]) -> int:
        """How many scenes a video has at most, if that key's sample is one."""
        return self.encode.num_scenes(key)

    def set_epoch(self, epoch: int) -> None:
        # By the data set alone, accelerate finds the sampler where several processes go on within an epoch.
        self.sampler.set_epoch(epoch)

    def __getitem__(self, key: tuple[int, int, int]) -> dict:
        epoch, number, index = key
        records, refused = self.sets[number], []
        for attempt in range(min(self.most_tries, len(records))):
            index = (key[2] + attempt) % len(records)
            record = None
            try:
                record = records[index]
                sample = self.encode(record, records, (epoch, number, key[2]))
            except (*RECORD_ERRORS, *PICTURE_ERRORS, OSError) as error:
                refused.append(describe(record, records, index, error))
                if self.unreadable == "fail":
                    raise TrainingError(f"{_text(refused[-1])} (`unreadable: skip` goes on without it.)") from error
                continue
            sample["unreadable"] = refused
            return sample
        raise TrainingError(f"{len(refused)} records in turn cannot be used; the last: {_text(refused[-1])}")


class CurriculumSampler(Sampler):
    """
    The order of a curriculum: `(phase, key)`, of each phase's sampler as many keys as the phase has samples, from as
    many of its epochs as it takes.

    Args:
        samplers (`Sequence[MixtureSampler]`):
            One of each phase.
        counts (`Sequence[int]`):
            The samples of each.
    """

    def __init__(self, samplers: Sequence[MixtureSampler], counts: Sequence[int]) -> None:
        self.samplers, self.counts = list(samplers), list(counts)

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        for phase, (sampler, count) in enumerate(zip(self.samplers, self.counts, strict=True)):
            for key in itertools.islice(_epochs(sampler), count):
                yield phase, key


def _epochs(sampler: MixtureSampler) -> Iterator[tuple[int, int, int]]:
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from sampler


class Curriculum(Dataset):
    """The mixtures of a run's phases one after another, by the keys of [`CurriculumSampler`]."""

    def __init__(self, mixtures: Sequence[Mixture], counts: Sequence[int]) -> None:
        self.mixtures = list(mixtures)
        self.sampler = CurriculumSampler([mixture.sampler for mixture in self.mixtures], counts)

    def __len__(self) -> int:
        return len(self.sampler)

    def num_scenes(self, key: tuple[int, tuple[int, int, int]]) -> int:
        return self.mixtures[key[0]].num_scenes(key[1])

    def __getitem__(self, key: tuple[int, tuple[int, int, int]]) -> dict:
        return self.mixtures[key[0]][key[1]]


def describe(record: dict | None, records: RecordSet, index: int, error: Exception) -> dict:
    """What is said of a record that is left out."""
    fields = record if isinstance(record, dict) else {}
    segments = fields.get("segments") if isinstance(fields.get("segments"), (list, tuple)) else []
    files = [item.get("file") for item in segments if isinstance(item, dict)]
    media = fields.get("video") or fields.get("image") or files
    media = media if isinstance(media, (str, list)) else type(media).__name__
    return {
        "set": records.name,
        "record": int(records.indices[index]) + 1,
        "id": str(fields.get("id"))[:200],
        "media": str(media)[:500],
        "reason": f"{type(error).__name__}: {error}"[:1000],
    }


def _text(refused: dict) -> str:
    return f"{refused['set']}, record {refused['record']}, id {refused['id']}, {refused['media']}: {refused['reason']}"


__all__ = [
    "Curriculum",
    "CurriculumSampler",
    "JsonArrays",
    "JsonLines",
    "Mixture",
    "MixtureSampler",
    "RecordSet",
    "SortedSteps",
    "describe",
    "each_configuration",
    "keep_questions",
]
