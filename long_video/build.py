"""The LongVideo dataset (section 3.3): captioned videos of 5 to 30 minutes out of short captioned ones.

    fila-video build-dataset --annotations captions.json --videos VIDEOS --output OUT --count 40000

Beside the shards `OUT/data/train-*.jsonl` (`records.py` gives the form of a record) stand `bad_inputs.jsonl`,
`statistics.json`, `statistics.png` and the data card `README.md`. The exit status is 0, or 3 where inputs were left
out, or 2 where the build stopped. A build that was killed goes on when it is started again.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..commands.files import replacing, sync_file
from .annotations import BadInput, LongVideoError, annotation_names, check_annotations, fingerprint, read_annotations
from .durations import DurationCache, read_durations
from .engines import ENGINES, TaskError, default_workers, run_tasks, running
from .json_records import read_own_lines
from .plan import JoiningPlan, JoiningRules, make_plan
from .records import make_record, record_source, video_name
from .statistics import Statistics, check_complete, draw_histograms, read_records, write_card

BAD_INPUTS = 3  # exit status: built, but inputs were left out
_WORK = ".build"
_REPORT = "bad_inputs.jsonl"
_FORMAT = 1


@dataclass
class BuildSettings:
    """What a build is made from. All fields up to `shard_size` but `output` decide every byte of the output."""

    annotations: Sequence
    videos: str | os.PathLike
    output: str | os.PathLike
    rules: JoiningRules
    split: str = "train"
    materialize: bool = False
    shard_size: int = 100
    strict: bool = False
    engine: str = "local"
    workers: int | None = None
    durations_cache: str | os.PathLike | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.annotations, (str, os.PathLike)):
            self.annotations = [self.annotations]
        # Their fingerprint is taken before they are read: a generator would be used up by it.
        self.annotations = [list(each) if isinstance(each, Iterator) else each for each in self.annotations]
        self.videos, self.output = Path(self.videos), Path(self.output)
        if not self.annotations:
            raise LongVideoError("There must be at least one annotation file.")
        if not self.videos.is_dir():
            raise LongVideoError(f"The folder of videos {str(self.videos)!r} does not exist.")
        if self.output.exists() and not self.output.is_dir():
            raise LongVideoError(f"The output {str(self.output)!r} is a file, not a folder.")
        if self.engine not in ENGINES:
            raise LongVideoError(f"engine must be one of {ENGINES}, got {self.engine!r}.")
        if self.workers is None:
            self.workers = 0 if self.engine == "ray" else default_workers()
        lowest = {"shard_size": 1, "workers": 0 if self.engine == "ray" else 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise LongVideoError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    def deciding(self) -> dict:
        names = annotation_names(self.annotations)
        prints = [fingerprint(annotation, self.output) for annotation in self.annotations]
        return {
            "format": _FORMAT,
            # In their order, which is that of the inputs.
            "annotations": [list(pair) for pair in zip(names, prints, strict=True)],
            "videos": str(self.videos.resolve()),
            "split": self.split,
            **asdict(self.rules),
            "materialize": self.materialize,
            "shard_size": self.shard_size,
        }


def build_dataset(settings: BuildSettings) -> tuple[Statistics, list[BadInput]]:
    """Builds the dataset, or goes on with it; one that is complete is left as it is.

    Returns:
        The statistics, and the inputs that were left out.

    Raises:
        LongVideoError: Where the set is too small, the output belongs to another build, or, with `strict`, at
    the first input that cannot be used; [`TaskError`] where a record cannot be written.
    """
    _check_matplotlib()
    output, work = settings.output, settings.output / _WORK
    if not (work / "settings.json").exists():  # a mistake in what is given leaves nothing behind
        check_annotations(settings.annotations, settings.split)
        _check_empty(output)
    deciding = settings.deciding()
    work.mkdir(parents=True, exist_ok=True)
    with _only_build(work), running(settings.engine):
        if _check_begun(settings, deciding) and settings.strict:
            _stop_at(_read_bad(output))
        if (output / "README.md").exists():
            check_complete(output)
            if settings.materialize:
                _check_videos(settings)
            shutil.rmtree(work / "plan", ignore_errors=True)
            from transformers.utils import logging  # here: --help needs no transformers

            logging.get_logger(__name__).info("The build in %s is complete.", output)
            return Statistics.of(read_records(output)), _read_bad(output)
        if not (work / "plan").is_dir():
            _prepare(settings, deciding)
        if settings.materialize:
            _write_videos(settings)
        _write_shards(settings, deciding)
        statistics = _finish(settings, deciding)
        shutil.rmtree(work / "plan")
        return statistics, _read_bad(output)


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LongVideoError(
            "The histograms take the package matplotlib: pip install 'fila-video[dataset]'."
        ) from error


@contextlib.contextmanager
def _only_build(work: Path) -> Iterator[None]:
    """Keeps a second build out of the folder, for as long as this process lives."""
    try:
        held = FileLock(work / "lock").acquire(blocking=False)
    except Timeout as error:
        raise LongVideoError(f"Another build is writing to {str(work.parent)!r}.") from error
    with held:
        yield


def _others(output: Path) -> list[Path]:
    """What an output holds beside the work and what was said of bad inputs."""
    children = output.iterdir() if output.is_dir() else ()
    names = (_WORK, _REPORT, f".{_REPORT}.tmp")  # the last of a build that was killed
    return [child for child in children if child.name not in names]


def _check_empty(output: Path) -> None:
    if _others(output):
        raise LongVideoError(f"The output {str(output)!r} is not empty; name a new folder.")


def _check_videos(settings: BuildSettings) -> None:
    names = map(video_name, range(settings.rules.count))
    missing = [name for name in names if not (settings.output / name).is_file()]
    if missing:
        raise LongVideoError(
            f"The build in {str(settings.output)!r} misses {len(missing)} of its {settings.rules.count} videos, "
            f"{missing[0]} first: copy them there, or remove its README.md and start it again, which writes them."
        )


def _check_begun(settings: BuildSettings, deciding: dict) -> bool:
    """Whether the build came to a plan before; raises where the output is another build's, or something else."""
    output, work = settings.output, settings.output / _WORK
    if not (work / "settings.json").exists():
        _check_empty(output)
    if not _others(output) and not (work / "plan").is_dir():  # its settings bind nobody
        return False
    kept = json.loads((work / "settings.json").read_text())
    kept.setdefault("videos", deciding["videos"])  # earlier versions did not note it
    # Earlier versions kept a fingerprint a name: of several of one name the last, and of a folder none of its files.
    earlier = isinstance(kept.get("annotations"), dict)
    if earlier:
        kept["annotations"] = [list(pair) for pair in kept["annotations"].items()]
    different = [name for name in {**deciding, **kept} if deciding.get(name) != kept.get(name)]
    if earlier and different == ["annotations"]:
        raise LongVideoError(
            f"The build in {str(output)!r} was begun by an earlier version of FiLA-Video, whose notes do not say that "
            "its annotations are these. Name a new folder, or go on with that version."
        )
    if different:
        pairs = "; ".join(f"{name}: {kept.get(name)} there, {deciding.get(name)} now" for name in different)
        raise LongVideoError(
            f"The output {str(settings.output)!r} holds a build with other settings ({pairs}). "
            "Name a new folder, or give the settings it was begun with."
        )
    return True


def _write_whole(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


# Preparing: which inputs, which durations, which videos. It all appears at once, as the folder `plan`.


def _prepare(settings: BuildSettings, deciding: dict) -> None:
    output, work = settings.output, settings.output / _WORK
    bad: list[BadInput] = []

    def report(item: BadInput) -> None:
        bad.append(item)
        if settings.strict:
            _stop_at(bad)

    # In a folder of another name, which takes its own at the end: a plan that is there is whole.
    for leftover in work.glob("preparing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = work / f"preparing-{os.getpid()}"  # not by `tempfile`, whose folders only their owner may read
    folder.mkdir()
    # Captions go through files, not through memory: sets have hundreds of thousands of them.
    files, wheres = [], []
    with open(folder / "found.jsonl", "w", encoding="utf-8") as found:
        for item in read_annotations(settings.annotations, settings.videos, report, settings.split):
            files.append(item["file"])
            wheres.append(item.pop("where"))
            found.write(json.dumps(item, ensure_ascii=False) + "\n")
    durations, offsets = array("d"), array("q")
    with open(folder / "found.jsonl", encoding="utf-8") as found, open(folder / "inputs.jsonl", "wb") as inputs:
        for line, where, duration in zip(found, wheres, _durations(settings, files, wheres), strict=True):
            item = json.loads(line)
            if isinstance(duration, float) and duration > settings.rules.max_duration:
                duration = f"it lasts {duration:g} seconds, more than a long video ({settings.rules.max_duration:g})"
            if isinstance(duration, str):
                report(BadInput(where, item["id"], item["file"], duration))
                continue
            durations.append(duration)
            offsets.append(inputs.tell())
            inputs.write(json.dumps({**item, "duration": duration}, ensure_ascii=False).encode() + b"\n")
    (folder / "found.jsonl").unlink()
    _write_whole(output / _REPORT, "".join(json.dumps(item.as_dict(), ensure_ascii=False) + "\n" for item in bad))
    if not durations:
        raise LongVideoError(
            f"None of the {len(bad)} inputs can be used; {str(output / _REPORT)!r} gives the reasons."
        )
    with _bar(settings, "Drawing", settings.rules.count, "videos") as bar:
        make_plan(durations, settings.rules, progress=lambda done: bar.update(done - bar.n)).save(folder / "plan.npy")
    np.save(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64))
    for path in folder.iterdir():
        sync_file(path)
    _write_whole(work / "settings.json", json.dumps(deciding, indent=1))  # only now is there anything to hold to them
    os.replace(folder, work / "plan")


def _durations(settings: BuildSettings, files: list[str], wheres: list[str]) -> list[float | str]:
    cache = DurationCache(settings.durations_cache or settings.output / _WORK / "durations.jsonl")
    durations: list[float | str] = [""] * len(files)
    with _bar(settings, "Reading durations", len(files), "files") as bar:
        found = read_durations(
            settings.videos, files, cache, engine=settings.engine, workers=settings.workers, progress=bar.update
        )
        for number, duration in found:
            durations[number] = duration
            if settings.strict and isinstance(duration, str):
                _stop_at([BadInput(wheres[number], None, files[number], duration)])
    return durations


def _stop_at(bad: list[BadInput]) -> None:
    for item in bad:
        if not item.is_other_name:
            raise LongVideoError(f"Stopped at an input that cannot be used: {item}")


def _read_bad(output: Path) -> list[BadInput]:
    path = output / _REPORT
    return [BadInput(**item) for item in read_own_lines(path)] if path.exists() else []


def _bar(settings: BuildSettings, title: str, total: int, unit: str, initial: int = 0) -> tqdm:
    return tqdm(
        desc=title, total=total, unit=f" {unit}", initial=initial, disable=not settings.progress, file=sys.stderr
    )


# Writing: each file under another name first, so that what has its name is whole.


def _open_plan(folder: str) -> tuple[JoiningPlan, np.ndarray]:
    return JoiningPlan.load(Path(folder) / "plan.npy"), np.load(Path(folder) / "offsets.npy", mmap_mode="r")


def _records(folder: str, numbers: Iterable[int], seed: int, materialized: bool) -> Iterator[dict]:
    plan, offsets = _open_plan(folder)
    with open(Path(folder) / "inputs.jsonl", "rb") as inputs:
        for number in numbers:
            items = []
            for place in plan[number]:
                inputs.seek(int(offsets[place]))
                items.append(json.loads(inputs.readline()))
            yield make_record(number, items, seed, materialized)


def _write_shard(output: str, settings: dict, shard: int) -> int:
    """Writes one shard and returns the number of its records."""
    first = shard * settings["shard_size"]
    numbers = range(first, min(first + settings["shard_size"], settings["count"]))
    folder = str(Path(output) / _WORK / "plan")
    records = _records(folder, numbers, settings["seed"], settings["materialize"])
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    _write_whole(_shard_path(output, settings, shard), "".join(lines))
    return len(numbers)


def _write_joined(output: str, videos: str, seed: int, number: int) -> str:
    """Writes the joined file of one record and returns how: `copied` or `encoded`."""
    from .files import write_video

    (record,) = _records(str(Path(output) / _WORK / "plan"), [number], seed, True)
    return write_video(record_source(record, videos), Path(output) / record["video"])


def _num_shards(settings: dict) -> int:
    return -(-settings["count"] // settings["shard_size"])


def _shard_path(output: str | Path, settings: dict, shard: int) -> Path:
    return Path(output) / "data" / f"train-{shard:05d}-of-{_num_shards(settings):05d}.jsonl"


def _write_shards(settings: BuildSettings, deciding: dict) -> None:
    output, folder = settings.output, settings.output / "data"
    folder.mkdir(exist_ok=True)
    _remove_unfinished(folder)
    missing = [shard for shard in range(_num_shards(deciding)) if not _shard_path(output, deciding, shard).exists()]
    task = functools.partial(_write_shard, str(output), deciding)
    done = deciding["count"] - sum(
        min(deciding["shard_size"], deciding["count"] - shard * deciding["shard_size"]) for shard in missing
    )
    with _bar(settings, "Writing records", deciding["count"], "records", done) as bar:
        for _, count in run_tasks(task, missing, len(missing), engine=settings.engine, workers=settings.workers):
            bar.update(count)


def _write_videos(settings: BuildSettings) -> None:
    count = settings.rules.count
    for folder in (settings.output / "videos").glob("*"):
        _remove_unfinished(folder)
    missing = [number for number in range(count) if not (settings.output / video_name(number)).exists()]
    task = functools.partial(_write_joined, str(settings.output), str(settings.videos), settings.rules.seed)
    with _bar(settings, "Writing videos", count, "videos", count - len(missing)) as bar:
        ways = {"copied": 0, "encoded": 0}
        for _, how in run_tasks(task, missing, len(missing), engine=settings.engine, workers=settings.workers):
            ways[how] += 1
            bar.set_postfix(ways, refresh=False)
            bar.update()


def _remove_unfinished(folder: Path) -> None:
    """What a kill left behind; no other build writes here now."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


def _finish(settings: BuildSettings, deciding: dict) -> Statistics:
    """Statistics from what was written; the card comes last and says that the build is complete."""
    output = settings.output
    _remove_unfinished(output)
    with _bar(settings, "Counting", settings.rules.count, "records") as bar:
        statistics = Statistics.of(_counted(read_records(output), bar))
    if len(statistics.durations) != settings.rules.count:
        raise LongVideoError(
            f"{len(statistics.durations)} records were found in {str(output / 'data')!r} instead of "
            f"{settings.rules.count}; remove that folder and build again."
        )
    _write_whole(output / "statistics.json", json.dumps(statistics.summary(), indent=1) + "\n")
    with replacing(output / "statistics.png") as unfinished:
        draw_histograms(statistics, unfinished)
    with replacing(output / "README.md") as unfinished:
        write_card(statistics, deciding, len(_read_bad(output)), unfinished)
    return statistics


def _counted(records: Iterable[dict], bar: tqdm) -> Iterator[dict]:
    for record in records:
        yield record
        bar.update()


# The command.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", nargs="+", required=True, help="JSON or JSONL files of captions, or what `datasets` loads"
    )
    parser.add_argument("--videos", required=True, help="folder of the short videos")
    parser.add_argument("--output", required=True, help="folder of the dataset; a build begun there goes on")
    parser.add_argument("--count", type=int, required=True, help="number of long videos")
    parser.add_argument("--max-uses", type=int, default=6, help="times a short video is used at most (default: 6)")
    parser.add_argument("--min-duration", type=float, default=300, help="seconds of the shortest (default: 300)")
    parser.add_argument("--max-duration", type=float, default=1800, help="seconds of the longest (default: 1800)")
    parser.add_argument("--seed", type=int, default=42, help="of the draw (default: 42)")
    parser.add_argument("--split", default="train", help="of what `datasets` loads (default: train)")
    parser.add_argument("--materialize", action="store_true", help="also write every long video as an mp4 file")
    parser.add_argument("--strict", action="store_true", help="stop at the first input that cannot be used")
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="this machine, or a cluster through Ray Data"
    )
    parser.add_argument(
        "--workers", type=int, help="processes (default: one a core; with Ray, as many as the cluster has room for)"
    )
    parser.add_argument("--shard-size", type=int, default=100, help="records in a file (default: 100)")
    parser.add_argument("--durations-cache", help="file of known durations, to share among builds")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")


def run(args: argparse.Namespace) -> int:
    """Exit status: 0; 3 where inputs were left out; 2 where the build stopped, with the reason on stderr."""
    rules = ("count", "seed", "max_uses", "min_duration", "max_duration")
    others = (
        "annotations",
        "videos",
        "output",
        "split",
        "materialize",
        "shard_size",
        "strict",
        "engine",
        "workers",
        "durations_cache",
    )
    try:
        settings = BuildSettings(
            rules=JoiningRules(**{name: getattr(args, name) for name in rules}),
            progress=not args.no_progress,
            **{name: getattr(args, name) for name in others},
        )
        statistics, bad = build_dataset(settings)
    except (LongVideoError, TaskError, OSError) as error:
        print(f"fila-video: {error}", file=sys.stderr)
        return 2
    for name, value in statistics.summary().items():
        print(f"{name.replace('_', ' '):24} {value:,}")
    if bad:
        print(f"{len(bad)} inputs were left out; {settings.output / _REPORT} says why.", file=sys.stderr)
        return BAD_INPUTS
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fila_video.long_video.build", description=__doc__.split("\n")[0])
    add_arguments(parser)
    return run(parser.parse_args())


__all__ = ["BAD_INPUTS", "BuildSettings", "add_arguments", "build_dataset", "run"]


if __name__ == "__main__":
    # Workers look tasks up by the module's own name, which `python -m` does not give them.
    from fila_video.long_video import build

    sys.exit(build.main())
