"""LongVideo: builds on any number of workers and engines, killed at any point; what `datasets` and people see."""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import PIL.Image
import pytest
from fila_video.commands import files
from fila_video.long_video import build as long_video
from fila_video.long_video.annotations import LongVideoError
from fila_video.long_video.build import BAD_INPUTS, add_arguments, build_dataset, run
from fila_video.long_video.engines import TaskError, run_tasks
from fila_video.long_video.statistics import read_records
from filelock import FileLock
from helpers.long_video_set import bytes_of, caption_record, make_set, settings, write_captions


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"), 8)


@pytest.fixture(scope="module")
def built(clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "out"
    build_dataset(settings(clips, output))
    return output


def test_two_workers_write_the_same_bytes_as_one(clips, built, tmp_path) -> None:
    build_dataset(settings(clips, tmp_path / "out", workers=2))
    assert bytes_of(tmp_path / "out") == bytes_of(built)
    assert len(list((built / "data").iterdir())) == 4


@pytest.mark.slow
def test_ray_writes_the_same_bytes_as_the_local_engine(clips, built, tmp_path) -> None:
    build_dataset(settings(clips, tmp_path / "out", engine="ray", workers=2))
    assert bytes_of(tmp_path / "out") == bytes_of(built)


def test_a_folder_that_was_removed_is_built_anew_within_one_process(clips, built, tmp_path) -> None:
    build_dataset(settings(clips, tmp_path / "out", count=3, seed=5))
    shutil.rmtree(tmp_path / "out")
    build_dataset(settings(clips, tmp_path / "out"))
    assert bytes_of(tmp_path / "out") == bytes_of(built)


def test_another_seed_gives_other_records(clips, built, tmp_path) -> None:
    build_dataset(settings(clips, tmp_path / "out", seed=7))
    drawn = [
        [[segment["id"] for segment in r["segments"]] for r in read_records(o)] for o in (built, tmp_path / "out")
    ]
    assert drawn[0] != drawn[1]


def build_and_die(build, moment) -> None:
    """Kills its own process with SIGKILL at the given moment: each file is about to get its name, or just has it."""
    passed = iter(range(10**6))
    replace = os.replace

    def replace_or_die(source, target) -> None:
        for step in (None, lambda: replace(source, target)):
            if step is not None:
                step()
            if next(passed) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die
    build_dataset(build)


def exit_of_build(build, moment):
    # A fork, for the sake of time: nothing else runs in this process, and the child only builds.
    process = multiprocessing.get_context("fork").Process(target=build_and_die, args=(build, moment))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork")
def test_a_build_killed_at_any_file_and_started_again_writes_the_same_bytes(clips, tmp_path) -> None:
    changes = {"count": 4, "shard_size": 2, "materialize": True, "max_duration": 12.0}
    build_dataset(settings(clips, tmp_path / "whole", **changes))
    cache = tmp_path / "whole" / ".build" / "durations.jsonl"
    whole = bytes_of(tmp_path / "whole")
    assert sum(name.endswith(".mp4") for name in whole) == 4
    for moment in range(100):
        build = settings(clips, tmp_path / "killed", durations_cache=cache, **changes)
        if exit_of_build(build, moment) == 0:
            break
        build_dataset(build)
        assert bytes_of(tmp_path / "killed") == whole
        shutil.rmtree(tmp_path / "killed")
    assert moment == 2 * (1 + 1 + 1 + 4 + 2 + 3)  # settings, report, plan, videos, shards, statistics


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork")
def test_a_build_killed_again_and_again_comes_to_its_end_without_doing_things_twice(clips, tmp_path) -> None:
    changes = {"count": 24, "shard_size": 2}
    build_dataset(settings(clips, tmp_path / "whole", **changes))
    kills = 0
    # A start gets four files further, of 3 to begin with, 12 shards and 3 at the end, which are written in one go.
    while exit_of_build(settings(clips, tmp_path / "killed", **changes), 7) != 0:
        kills += 1
        assert kills < 10, "a start does again what was done before"
    assert kills == 4
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def workers_of(process_id):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process_id)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up by ps")
def test_a_command_with_two_workers_killed_amid_its_shards_goes_on(clips, tmp_path) -> None:
    arguments = ["--annotations", clips / "captions.json", "--videos", clips / "videos", "--output", tmp_path / "out"]
    arguments += ["--count", 3000, "--shard-size", 5, "--max-uses", 3000, "--min-duration", 8, "--max-duration", 30]
    command = [sys.executable, "-m", "fila_video.long_video.build", *map(str, arguments), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    shards = tmp_path / "out" / "data"
    deadline = time.monotonic() + 180
    while not any(shards.glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = workers_of(process.pid)
    process.kill()
    process.wait()
    written = len(list(shards.glob("*.jsonl")))
    assert 0 < written < 600, "the kill came too late, or nothing was written"
    while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers), "a worker outlived its parent"
    changes = {"count": 3000, "shard_size": 5, "max_uses": 3000}
    build_dataset(settings(clips, tmp_path / "out", **changes))
    ids = [record["id"] for record in read_records(tmp_path / "out")]
    assert ids == [f"longvideo_{number:08d}" for number in range(3000)]
    build_dataset(settings(clips, tmp_path / "whole", **changes))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_complete_build_is_left_as_it_is(clips, built, monkeypatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.name != "lock"}
    monkeypatch.setattr(long_video, "run_tasks", None)
    statistics, bad = build_dataset(settings(clips, built))
    assert len(statistics.durations) == 20 and bad == []
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.name != "lock"} == before


def test_a_complete_build_that_misses_shards_is_refused_and_completed_without_its_card(clips, built, tmp_path) -> None:
    shutil.copytree(built, tmp_path / "out")
    (tmp_path / "out" / "data" / "train-00002-of-00004.jsonl").unlink()
    with pytest.raises(LongVideoError, match=r"has 3 of its 4 shards .* remove its README.md and start the same"):
        build_dataset(settings(clips, tmp_path / "out"))
    (tmp_path / "out" / "README.md").unlink()
    build_dataset(settings(clips, tmp_path / "out"))
    assert bytes_of(tmp_path / "out") == bytes_of(built)


def test_a_complete_build_that_misses_videos_is_refused_and_completed_without_its_card(clips, tmp_path) -> None:
    own = settings(clips, tmp_path / "out", count=2, max_duration=10.0, materialize=True)
    build_dataset(own)
    before = bytes_of(tmp_path / "out")
    video = next(read_records(tmp_path / "out"))["video"]
    (tmp_path / "out" / video).unlink()
    with pytest.raises(LongVideoError, match=rf"misses 1 of its 2 videos, {video} first"):
        build_dataset(own)
    (tmp_path / "out" / "README.md").unlink()
    build_dataset(own)
    assert bytes_of(tmp_path / "out") == before


def test_every_file_is_on_the_disk_before_it_has_its_name(clips, tmp_path, monkeypatch) -> None:
    synced, named, sync, replace = set(), set(), files.sync_file, os.replace
    monkeypatch.setattr(files, "sync_file", lambda path: synced.add(str(path)) or sync(path))
    monkeypatch.setattr(os, "replace", lambda source, target: named.add(str(source)) or replace(source, target))
    build_dataset(settings(clips, tmp_path / "out", count=2))
    assert {name for name in named - synced if "preparing" not in name} == set()
    assert {name.split("/")[-1] for name in named} >= {".README.md.tmp", ".statistics.png.tmp"}


def test_a_build_goes_on_with_the_videos_it_was_begun_with(clips, built, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(clips / "videos", other / "videos")
    with pytest.raises(LongVideoError, match=r"other settings \(videos: .*set.* there, .*other/videos now\)"):
        build_dataset(settings(other, built, annotations=clips / "captions.json"))
    shutil.copytree(built, tmp_path / "earlier")  # by a version that did not note them
    file = tmp_path / "earlier" / ".build" / "settings.json"
    noted = json.loads(file.read_text())
    del noted["videos"]
    file.write_text(json.dumps(noted))
    build_dataset(settings(other, tmp_path / "earlier", annotations=clips / "captions.json"))


@pytest.mark.parametrize("change", [{"seed": 1}, {"count": 21}, {"materialize": True}, {"max_uses": 5}])
def test_an_output_of_other_settings_is_refused_with_what_differs(clips, built, change) -> None:
    before = bytes_of(built)
    with pytest.raises(LongVideoError, match=rf"other settings \({next(iter(change))}: .* there, .* now\)"):
        build_dataset(settings(clips, built, **change))
    assert bytes_of(built) == before


def test_annotations_changed_since_the_build_are_noticed(clips, tmp_path) -> None:
    records = json.loads((clips / "captions.json").read_text())
    annotations = write_captions(tmp_path, records)
    build_dataset(settings(clips, tmp_path / "out", annotations=annotations))
    write_captions(tmp_path, records[:-1])
    with pytest.raises(LongVideoError, match="other settings"):
        build_dataset(settings(clips, tmp_path / "out", annotations=annotations))


def two_of_one_name(clips, folder):
    """The set's captions in two files of one name."""
    records = json.loads((clips / "captions.json").read_text())
    for name in ("a", "b"):
        (folder / name).mkdir()
    return [write_captions(folder / "a", records[:4]), write_captions(folder / "b", records[4:])], records


def test_each_of_several_annotations_of_one_name_is_told_apart_and_noticed(clips, tmp_path) -> None:
    annotations, records = two_of_one_name(clips, tmp_path)
    records[6]["video"] = "gone.mp4"
    write_captions(tmp_path / "b", records[4:])
    _, (bad,) = build_dataset(settings(clips, tmp_path / "out", annotations=annotations))
    assert bad.where == "captions.json (no. 2), record 3"
    assert "`captions.json (no. 1)`, `captions.json (no. 2)`" in (tmp_path / "out" / "README.md").read_text()
    build_dataset(settings(clips, tmp_path / "out", annotations=annotations))
    for changed in (annotations[::-1], annotations[:1]):
        with pytest.raises(LongVideoError, match="other settings"):
            build_dataset(settings(clips, tmp_path / "out", annotations=changed))
    write_captions(tmp_path / "a", records[:3])
    with pytest.raises(LongVideoError, match="other settings"):
        build_dataset(settings(clips, tmp_path / "out", annotations=annotations))


def test_files_changed_in_a_folder_of_annotations_are_noticed(clips, tmp_path) -> None:
    folder, records = tmp_path / "set", json.loads((clips / "captions.json").read_text())
    (folder / "clips").mkdir(parents=True)
    write_captions(folder, records)
    (folder / "clips" / "a.ts").write_bytes(b"1")
    build = settings(clips, folder / "out", annotations=folder)
    build_dataset(build)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note.json").touch()
    (folder / "clips" / "a.ts").write_bytes(b"2")  # whose bytes may be too many to read
    build_dataset(build)
    for changed in (folder / "captions.json", folder / "more.json", folder / "clips" / "a.ts"):
        before = changed.read_bytes() if changed.exists() else None
        changed.write_bytes(b"[] " + (before or b""))
        with pytest.raises(LongVideoError, match="other settings"):
            build_dataset(build)
        changed.unlink() if before is None else changed.write_bytes(before)
    build_dataset(build)


def noted_by_an_earlier_version(output, annotations) -> None:
    """Its notes: a dictionary of names, the last of those of one name."""
    file = output / ".build" / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": annotations}))


def test_a_build_of_an_earlier_version_goes_on_where_its_notes_tell_the_annotations(clips, tmp_path) -> None:
    build = settings(clips, tmp_path / "out")
    build_dataset(build)
    noted_by_an_earlier_version(tmp_path / "out", dict(build.deciding()["annotations"]))
    (tmp_path / "out" / "README.md").unlink()
    shutil.rmtree(tmp_path / "out" / ".build" / "plan", ignore_errors=True)
    build_dataset(build)

    annotations, _ = two_of_one_name(clips, tmp_path)
    build_dataset(settings(clips, tmp_path / "two", annotations=annotations))
    last = dict(settings(clips, tmp_path / "two", annotations=annotations[1:]).deciding()["annotations"])
    (tmp_path / "folder").mkdir()
    write_captions(tmp_path / "folder", json.loads((clips / "captions.json").read_text()))
    build_dataset(settings(clips, tmp_path / "whole", annotations=tmp_path / "folder"))
    for output, given, noted in (
        ("two", annotations, last),
        ("whole", tmp_path / "folder", {"folder": str(tmp_path / "folder")}),
    ):
        noted_by_an_earlier_version(tmp_path / output, noted)
        before = bytes_of(tmp_path / output)
        with pytest.raises(LongVideoError, match=r"earlier version.*Name a new folder"):
            build_dataset(settings(clips, tmp_path / output, annotations=given))
        assert bytes_of(tmp_path / output) == before


def test_a_folder_with_something_else_in_it_is_not_written_to(clips, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LongVideoError, match="not empty"):
        build_dataset(settings(clips, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_durations_are_not_written_behind_something_else(clips, tmp_path, capsys) -> None:
    captions = tmp_path / "captions.json"
    shutil.copy(clips / "captions.json", captions)
    options = ["--annotations", captions, "--durations-cache", captions]
    assert run(arguments_of(clips, tmp_path / "out", *options)) == 2
    assert "holds no durations: name another file" in capsys.readouterr().err
    assert captions.read_bytes() == (clips / "captions.json").read_bytes()
    cache = tmp_path / "durations.jsonl"
    cache.write_text('\n["torn')
    assert run(arguments_of(clips, tmp_path / "out", "--durations-cache", cache)) == 0


def test_what_cannot_be_read_leaves_no_folder_behind(clips, tmp_path, capsys) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("no records")
    output = tmp_path / "out"
    for mistake in (
        ["--annotations", tmp_path / "no.json"],
        ["--annotations", damaged],
        ["--videos", tmp_path / "no"],
    ):
        assert run(arguments_of(clips, output, *mistake)) == 2
        assert mistake[1].name in capsys.readouterr().err
        assert not output.exists()
    assert run(arguments_of(clips, output)) == 0


def test_a_build_that_came_to_no_plan_can_be_corrected(clips, built, tmp_path) -> None:
    records, output = json.loads((clips / "captions.json").read_text()), tmp_path / "out"
    half, none = tmp_path / "half.json", tmp_path / "none.json"
    half.write_text(json.dumps(records)[:-20])
    none.write_text(json.dumps([caption_record(0, video="gone.mp4")]))
    for mistake in ({"annotations": half}, {"annotations": none}, {"count": 10**6}):
        with pytest.raises(LongVideoError):
            build_dataset(settings(clips, output, **mistake))
    (output / ".bad_inputs.jsonl.tmp").write_text("half a li")  # of one that was killed
    build_dataset(settings(clips, output, strict=True))  # what was left out before is not what is now
    assert bytes_of(output) == bytes_of(built)


def test_two_builds_do_not_write_to_one_folder(clips, tmp_path) -> None:
    (tmp_path / "out" / ".build").mkdir(parents=True)
    with FileLock(tmp_path / "out" / ".build" / "lock"), pytest.raises(LongVideoError, match="Another build"):
        build_dataset(settings(clips, tmp_path / "out"))
    build_dataset(settings(clips, tmp_path / "out"))


def test_datasets_loads_the_output_offline(built, tmp_path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(built), split="train", cache_dir=str(tmp_path))
    records = list(read_records(built))
    assert len(loaded) == len(records) == 20
    assert loaded[7] == records[7]


def test_datasets_loads_a_materialized_output_offline(clips, tmp_path) -> None:
    import datasets

    build_dataset(settings(clips, tmp_path / "out", count=2, max_duration=10.0, materialize=True))
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == list(read_records(tmp_path / "out"))
    assert (tmp_path / "out" / loaded[1]["video"]).is_file()


def test_the_card_and_the_histograms_are_there(built) -> None:
    card = (built / "README.md").read_text()
    assert "| 20 |" in card and "captions.json" in card and "No input was left out" in card
    with PIL.Image.open(built / "statistics.png") as picture:
        assert picture.size == (1800, 675) and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def arguments_of(folder, output, *more):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = ["--annotations", folder / "captions.json", "--videos", folder / "videos", "--output", output]
    given += ["--count", 3, "--min-duration", 8, "--max-duration", 20, "--workers", 1, "--no-progress", *more]
    return parser.parse_args([str(value) for value in given])


def test_the_exit_status_says_whether_inputs_were_left_out(clips, tmp_path, capsys) -> None:
    assert run(arguments_of(clips, tmp_path / "good")) == 0
    assert "num records" in capsys.readouterr().out
    records = json.loads((clips / "captions.json").read_text())
    annotations = write_captions(tmp_path, [*records, caption_record(0, id="gone", video="gone.mp4")])
    with_bad = arguments_of(clips, tmp_path / "bad", "--annotations", annotations)
    assert run(with_bad) == BAD_INPUTS == 3
    assert "1 inputs were left out" in capsys.readouterr().err
    assert run(with_bad) == BAD_INPUTS  # also where the build is complete already
    assert run(arguments_of(clips, tmp_path / "strict", "--annotations", annotations, "--strict")) == 2
    assert "record 9, id 'gone'" in capsys.readouterr().err
    assert run(arguments_of(clips, tmp_path / "few", "--count", 10**6)) == 2
    assert run(arguments_of(tmp_path / "nowhere", tmp_path / "none")) == 2
    assert "does not exist" in capsys.readouterr().err


def test_progress_gives_the_rate_and_the_time_left(clips, tmp_path, capsys) -> None:
    build_dataset(settings(clips, tmp_path / "out", progress=True))
    shown = capsys.readouterr().err
    assert "Writing records" in shown and "records/s" in shown and "20/20" in shown and "<" in shown


def double(number):
    if number == 13:
        raise ValueError("thirteen is refused")
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_give_each_result_once_and_their_errors_by_message(workers) -> None:
    assert dict(run_tasks(double, iter(range(12)), 12, workers=workers)) == {n: 2 * n for n in range(12)}
    with pytest.raises(TaskError, match="thirteen is refused"):
        list(run_tasks(double, range(20), 20, workers=workers))
