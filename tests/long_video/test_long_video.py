"""LongVideo: which short videos are joined, what a record holds, which inputs are refused."""

import json
import math
import os
from types import SimpleNamespace
from typing import Never

import numpy as np
import pytest
from fila_video.commands.cli import main
from fila_video.long_video.annotations import LongVideoError, load_annotations, path_within, read_annotations
from fila_video.long_video.build import build_dataset
from fila_video.long_video.durations import DurationCache, probe_file, read_durations
from fila_video.long_video.plan import JoiningRules, make_plan, spread_totals
from fila_video.long_video.records import fill_time_instruction, make_record, record_source
from fila_video.long_video.statistics import Statistics, read_records
from fila_video.video_prompt_fila_video import time_instruction
from fila_video.video_reading_fila_video import probe_video, read_frames
from helpers.long_video_set import FPS, caption_record, frame_number, make_clip, make_set, settings, write_captions
from helpers.video_files import number_of


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def built(clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "out"
    build_dataset(settings(clips, output))
    return output


def totals_of(plan, durations):
    return np.array([durations[plan[i]].sum() for i in range(len(plan))])


def some_durations(count=4000, seed=0):
    return np.clip(np.random.default_rng(seed).gamma(1.5, 27, count), 2, 180)


def test_totals_are_spread_evenly_between_the_limits() -> None:
    durations = some_durations()
    totals = totals_of(make_plan(durations, JoiningRules(count=500)), durations)
    assert totals.min() >= 300 and totals.max() <= 1800
    assert np.histogram(totals, 10, (300, 1800))[0].min() >= 45


def test_no_sub_video_is_used_twice_in_a_video_or_more_than_max_uses_times() -> None:
    durations = some_durations(60)
    plan = make_plan(durations, JoiningRules(count=12, max_uses=7))
    assert all(len(set(plan[i])) == len(plan[i]) for i in range(len(plan)))
    assert np.bincount(np.concatenate([plan[i] for i in range(len(plan))])).max() <= 7


def test_uses_of_the_sub_videos_differ_by_little_where_the_set_is_ample() -> None:
    durations = some_durations(2000)
    plan = make_plan(durations, JoiningRules(count=400, max_uses=20))
    uses = np.bincount(np.concatenate([plan[i] for i in range(len(plan))]), minlength=2000)
    assert uses.max() - uses.min() <= 2


def test_a_small_set_gives_shorter_videos_over_the_whole_range_rather_than_fewer() -> None:
    durations = some_durations(1000)
    count = int(3 * durations.sum() / 600)
    totals = totals_of(make_plan(durations, JoiningRules(count=count, max_uses=3)), durations)
    assert len(totals) == count and totals.min() >= 300
    assert totals.max() > 1500 and 540 < totals.mean() < 601


def test_totals_have_the_mean_that_the_supply_affords() -> None:
    rules = JoiningRules(count=5000)
    assert spread_totals(rules, supply=5000 * 667, longest=1e9).mean() == pytest.approx(667, rel=0.002)
    assert spread_totals(rules, supply=1e12, longest=1e9).mean() == pytest.approx(1050, rel=0.002)
    assert spread_totals(rules, supply=1e12, longest=900).max() <= 900


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    durations = some_durations(300)
    first, again, other = (make_plan(durations, JoiningRules(count=10, seed=seed)) for seed in (1, 1, 2))
    assert [first[i].tolist() for i in range(10)] == [again[i].tolist() for i in range(10)]
    assert [first[i].tolist() for i in range(10)] != [other[i].tolist() for i in range(10)]


@pytest.mark.parametrize("durations", [[100.0, 100.0], [400.0] * 3])
def test_a_set_that_is_too_small_is_an_error_with_both_numbers(durations) -> None:
    with pytest.raises(
        LongVideoError, match=rf"{len(durations)} usable videos.*do not make 50 videos.*Raise max_uses"
    ):
        make_plan(np.array(durations), JoiningRules(count=50, max_uses=2))


def test_videos_that_are_enough_but_do_not_pack_are_an_error_that_says_so() -> None:
    with pytest.raises(LongVideoError, match=r"do not pack into so many of 300 to 350 .*Raise max_duration") as info:
        make_plan(np.full(40, 200.0), JoiningRules(count=5, max_duration=350.0))
    assert "at least" not in str(info.value)


@pytest.mark.parametrize("change", [{"count": 0}, {"max_uses": 0}, {"min_duration": 30.0, "max_duration": 20.0}])
def test_rules_that_make_no_sense_are_refused(change) -> None:
    with pytest.raises(LongVideoError):
        JoiningRules(**{"count": 5, **change})


def test_a_record_gives_every_scene_its_span_and_caption_in_order(built, clips) -> None:
    for record in read_records(built):
        at = 0.0
        for segment in record["segments"]:
            lasts = probe_video(str(clips / "videos" / segment["file"])).duration
            assert (segment["start"], segment["end"]) == (0, pytest.approx(lasts, abs=2e-6))
            assert (segment["scene_start"], segment["scene_end"]) == pytest.approx((at, at + lasts), abs=1e-4)
            at += lasts
        assert record["duration"] == pytest.approx(at, abs=1e-4) and 8 <= record["duration"] <= 30
        human, answer = record["conversations"]
        assert (human["from"], answer["from"]) == ("human", "gpt") and human["value"].startswith("<image>\n")
        for paragraph, segment in zip(answer["value"].split("\n\n"), record["segments"], strict=True):
            span = f"From {segment['scene_start']:.1f} to {segment['scene_end']:.1f} seconds: "
            assert paragraph == span + segment["caption"]


def test_the_reader_plays_a_record_frame_by_frame_across_its_seams(built, clips) -> None:
    for number, record in enumerate(read_records(built)):
        source = record_source(record, clips / "videos")
        wanted, times = [], []
        for segment in record["segments"]:
            frames = round((segment["end"] - segment["start"]) * FPS)
            video = int(segment["id"].split("-")[1])
            wanted += [frame_number(video, 0), frame_number(video, frames - 1)]
            times += [segment["scene_start"], segment["scene_start"] + (frames - 1) / FPS]
        read = read_frames(source, times=times)
        assert [number_of(frame) for frame in read.frames] == wanted
        assert read.timestamps == pytest.approx(times, abs=1e-5)
        assert read.metadata.duration == pytest.approx(record["duration"], abs=1e-5)
        if number == 4:
            break


def test_the_frames_at_a_seam_are_those_of_the_sub_videos_themselves(built, clips) -> None:
    record = next(read_records(built))
    source = record_source(record, clips / "videos")
    before, after = record["segments"][:2]
    seam = after["scene_start"]
    joined = read_frames(source, times=[seam - 1e-3, seam, seam + 1e-3])
    alone = [
        read_frames(str(clips / "videos" / before["file"]), times=[1e6]).frames[0],
        read_frames(str(clips / "videos" / after["file"]), times=[0]).frames[0],
    ]
    assert np.array_equal(joined.frames[0], alone[0])
    assert np.array_equal(joined.frames[1], alone[1]) and np.array_equal(joined.frames[2], alone[1])


def test_one_record_serves_any_number_of_frames(built, clips) -> None:
    record = next(read_records(built))
    before = json.dumps(record)
    for count in (3, 8):
        video = read_frames(record_source(record, clips / "videos"), num_frames=count)
        human, answer = fill_time_instruction(record, video.timestamps)
        sentence = time_instruction(video.timestamps.tolist(), record["duration"])
        assert f"samples {count} frames of a {record['duration']:.1f}-second video at 0.0," in human["value"]
        assert human["value"].split("\n")[1] == sentence and "<time_instruction>" not in human["value"]
        assert answer == record["conversations"][1]
    assert json.dumps(record) == before
    assert len(fill_time_instruction(record, None)[0]["value"].split("\n")) == 2


@pytest.mark.parametrize("times", [[], [-1.0], [0.0, 1e9]])
def test_frame_times_outside_of_the_video_are_refused(built, times) -> None:
    with pytest.raises(ValueError, match=r"longvideo_00000000.*must lie within"):
        fill_time_instruction(next(read_records(built)), times)


def test_the_last_moment_of_a_video_is_a_time_of_it() -> None:
    item = {"id": "a", "data_source": "", "file": "a.mp4", "caption": "A caption.", "duration": 4.0}
    record = make_record(0, [item], seed=0)
    assert "at 0.0, 4.0 seconds" in fill_time_instruction(record, [0.0, 4.0])[0]["value"]


def test_a_caption_that_holds_the_placeholders_text_stays_as_it_is() -> None:
    item = {"id": "a", "data_source": "", "file": "a.mp4", "caption": "A caption.", "duration": 2.0}
    record = make_record(0, [item], seed=1)
    record["conversations"][1]["value"] += " <time_instruction>"
    assert fill_time_instruction(record, [0.0])[1]["value"].endswith("<time_instruction>")


def test_json_json_lines_and_datasets_give_the_same_inputs(clips, tmp_path) -> None:
    import datasets

    records = json.loads((clips / "captions.json").read_text())
    lines = tmp_path / "captions.jsonl"
    lines.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    misnamed = tmp_path / "lines.json"
    misnamed.write_bytes(lines.read_bytes())
    table = datasets.Dataset.from_list(records)
    table.to_parquet(tmp_path / "captions.parquet")
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "part.parquet")
    forms = [lines, misnamed, tmp_path / "captions.parquet", tmp_path / "saved", tmp_path / "folder", table, records]
    expected = [without_place(item) for item in read_annotations([clips / "captions.json"], clips / "videos", fail)]
    assert len(expected) == 12
    for form in forms:
        assert [without_place(item) for item in read_annotations([form], clips / "videos", fail)] == expected


def test_a_split_of_what_has_none_is_an_error(clips, tmp_path, capsys) -> None:
    import datasets

    records = json.loads((clips / "captions.json").read_text())
    table = datasets.Dataset.from_list(records)
    table.to_parquet(tmp_path / "captions.parquet")
    table.save_to_disk(tmp_path / "saved")
    for form in (clips / "captions.json", tmp_path / "captions.parquet", tmp_path / "saved", records):
        with pytest.raises(LongVideoError, match=r"`split` 'validation' is of what `datasets` loads.*leave it"):
            list(read_annotations([form], clips / "videos", fail, split="validation"))
    with pytest.raises(LongVideoError, match=r"read whole \(captions\.parquet\): leave it out"):
        load_annotations(tmp_path / "captions.parquet", "validation")
    command = ["build-dataset", "--annotations", str(tmp_path / "captions.parquet"), "--split", "validation"]
    command += ["--videos", str(clips / "videos"), "--output", str(tmp_path / "out"), "--count", "3"]
    assert main(command) == 2
    assert "(captions.parquet): leave it out" in capsys.readouterr().err and not (tmp_path / "out").exists()

    # Beside a set that has the split, files are read whole.
    (tmp_path / "folder").mkdir()
    for name, part in (("validation", records[:3]), ("train", records[3:6])):
        datasets.Dataset.from_list(part).to_parquet(tmp_path / "folder" / f"{name}.parquet")
    datasets.Dataset.from_list(records[6:9]).to_parquet(tmp_path / "more.parquet")
    write_captions(tmp_path, records[9:])
    forms = [tmp_path / name for name in ("folder", "more.parquet", "captions.json")]
    items = list(read_annotations(forms, clips / "videos", fail, split="validation"))
    assert [item["id"] for item in items] == [f"clip-{number}" for number in (0, 1, 2, *range(6, 12))]


def without_place(item):
    return {name: value for name, value in item.items() if name != "where"}


def fail(item) -> Never:
    raise AssertionError(item)


def test_a_csv_file_is_refused_whose_columns_hold_no_conversations(tmp_path) -> None:
    (tmp_path / "captions.csv").write_text('video,conversations\na.mp4,"[]"\n')
    with pytest.raises(LongVideoError, match=r"captions.csv' is a CSV file.*JSON lines \(.jsonl\) or Parquet"):
        list(read_annotations([tmp_path / "captions.csv"], tmp_path, fail))


@pytest.mark.parametrize(
    "text, problem",
    [("[{", "not valid JSON"), ('[{"id": 1}', "not valid JSON"), ("7", "no JSON array"), ("", "no JSON")],
)
def test_a_file_that_is_no_annotation_file_is_an_error(tmp_path, text, problem) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(LongVideoError, match=problem):
        list(read_annotations([tmp_path / "bad.json"], tmp_path, lambda item: None))


def test_a_video_is_also_found_in_the_folder_of_its_data_source(tmp_path) -> None:
    (tmp_path / "made" / "clips").mkdir(parents=True)
    make_clip(tmp_path / "made" / "clips" / "00.mp4", 0, 20)
    (item,) = read_annotations([[caption_record(0)]], tmp_path, fail)
    assert item["file"] == "made/clips/00.mp4"


@pytest.mark.parametrize(
    ("name", "on_windows", "elsewhere"),
    [
        ("clips\\./a.mp4", "clips/a.mp4", "clips/a.mp4"),
        ("clips/../a.mp4", "a.mp4", "a.mp4"),
        ("C:/a.mp4", None, "C:/a.mp4"),
        ("./c:a.mp4", None, "c:a.mp4"),
        ("a/../C:\\a.mp4", None, "C:/a.mp4"),
        ("..\\a.mp4", None, None),
        ("clips/..\\../a.mp4", None, None),
        ("\\a.mp4", None, None),
        ("//host/share/a.mp4", None, None),
    ],
)
def test_a_name_that_leads_out_of_its_folder_is_known_on_each_system(name, on_windows, elsewhere) -> None:
    found = [path_within(name, windows) for windows in (True, False)]
    assert [None if path is None else str(path) for path in found] == [on_windows, elsewhere]


def answering(value):
    return [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": value}]


BAD = {
    "no such file": caption_record(0, id="a", video="clips/none.mp4"),
    "leads out of the folder": caption_record(0, id="b", video="../../secret.mp4"),
    "must be a file name": caption_record(0, id="c", video=None),
    "must be a list of turns": caption_record(3, id="d", conversations="A dog."),
    "no turn of `gpt`": caption_record(3, id="e", conversations=[{"from": "human", "value": "?"}]),
    "2 turns of `gpt`": caption_record(3, id="f", conversations=answering("One.") + answering("Two.")),
    "the caption is empty": caption_record(3, id="g", conversations=answering(" \n")),
    "the caption is not text": caption_record(3, id="h", conversations=answering(7)),
    "contains the placeholder": caption_record(3, id="i", conversations=answering("An <image> of a dog.")),
    "not valid Unicode": caption_record(3, id="j", conversations=answering("A \ud800 dog.")),
    "contains <|im_end|>, a control token": caption_record(3, id="n", conversations=answering("A dog.<|im_end|>")),
    "contains </s>, a control token": caption_record(3, id="o", conversations=answering("A dog</s> runs.")),
    "no object": ["a", "list"],
    "the id is used already": caption_record(3, id="clip-1"),
    "the video is annotated already": caption_record(1, id="another"),
    "it is empty": caption_record(0, id="k", video="empty.mp4"),
    "not a video": caption_record(0, id="l", video="text.mp4"),
    "more than a long video": caption_record(0, id="m", video="long.mp4"),
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    folder = make_set(tmp_path_factory.mktemp("spoiled"), 4)
    (folder / "videos" / "empty.mp4").touch()
    (folder / "videos" / "text.mp4").write_text("This is no video at all. " * 40)
    make_clip(folder / "videos" / "long.mp4", 9, 13, fps=1)
    write_captions(folder, [caption_record(1), caption_record(0), caption_record(2), *BAD.values()])
    return folder


def spoiled_settings(folder, output, **changes):
    rules = {"count": 5, "min_duration": 3.0, "max_duration": 10.0, "max_uses": 9}
    return settings(folder, output, **{**rules, **changes})


def test_every_bad_input_is_listed_with_its_reason(spoiled, tmp_path) -> None:
    _, bad = build_dataset(spoiled_settings(spoiled, tmp_path / "out"))
    listed = [json.loads(line) for line in (tmp_path / "out" / "bad_inputs.jsonl").read_text().splitlines()]
    assert [item.as_dict() for item in bad] == listed and len(listed) == len(BAD)
    by_place = {int(item["where"].rpartition(" ")[2]): item for item in listed}
    for place, (reason, record) in enumerate(BAD.items(), start=4):
        assert reason in by_place[place]["reason"]
        assert by_place[place]["id"] == (record["id"] if isinstance(record, dict) else None)
    used = {segment["id"] for record in read_records(tmp_path / "out") for segment in record["segments"]}
    assert used == {"clip-0", "clip-1", "clip-2"}


def test_strict_stops_at_the_first_bad_input(spoiled, tmp_path) -> None:
    with pytest.raises(LongVideoError, match=r"record 4, id 'a'.*no such file"):
        build_dataset(spoiled_settings(spoiled, tmp_path / "out", strict=True))
    write_captions(tmp_path, [caption_record(0), caption_record(0, id="k", video="text.mp4")])
    with pytest.raises(LongVideoError, match=r"record 2.*text\.mp4.*not a video"):
        annotations = tmp_path / "captions.json"
        build_dataset(spoiled_settings(spoiled, tmp_path / "out2", annotations=annotations, strict=True))
    assert not (tmp_path / "out2" / "README.md").exists()


def test_strict_does_not_stop_at_another_name_of_one_file(tmp_path) -> None:
    """As in a snapshot of the Hub, where equal files are links to one."""
    folder = make_set(tmp_path, 4)
    (folder / "videos" / "link.mp4").symlink_to(next((folder / "videos").rglob("*.mp4")))
    records = [*(caption_record(number) for number in range(4)), caption_record(0, id="again", video="link.mp4")]
    write_captions(folder, records)
    for _ in range(2):  # also where it is complete
        _, bad = build_dataset(spoiled_settings(folder, tmp_path / "out", strict=True))
        assert [item.id for item in bad] == ["again"]


def test_a_set_without_one_usable_input_is_an_error_that_names_the_report(spoiled, tmp_path) -> None:
    write_captions(tmp_path, [BAD["no such file"]])
    with pytest.raises(LongVideoError, match=r"None of the 1 inputs.*bad_inputs\.jsonl"):
        build_dataset(spoiled_settings(spoiled, tmp_path / "out", annotations=tmp_path / "captions.json"))


def test_durations_are_read_once_and_again_where_a_file_has_changed(clips, tmp_path, monkeypatch) -> None:
    files = ["00.mp4", "01.mp4"]
    for video, file in enumerate(files):
        make_clip(tmp_path / file, video, 20 + 10 * video)
    cache = tmp_path / "durations.jsonl"
    assert dict(read_durations(tmp_path, files, DurationCache(cache))) == {0: 2.0, 1: 3.0}
    with open(cache, "a") as file:
        file.write('["torn", 1')  # as a kill may leave it
    probed = []
    probe = "fila_video.long_video.durations.probe_file"
    monkeypatch.setattr(probe, lambda path: probed.append(path.name) or 9.0)
    assert dict(read_durations(tmp_path, files, DurationCache(cache))) == {0: 2.0, 1: 3.0} and not probed
    make_clip(tmp_path / "01.mp4", 1, 25)
    assert dict(read_durations(tmp_path, files, DurationCache(cache))) == {0: 2.0, 1: 9.0} and probed == ["01.mp4"]
    assert dict(read_durations(tmp_path, files, DurationCache(cache))) == {0: 2.0, 1: 9.0} and len(probed) == 1


def test_a_file_that_another_of_its_size_replaced_is_read_again(tmp_path, monkeypatch) -> None:
    probed, file, cache = [], tmp_path / "a.mp4", tmp_path / "durations.jsonl"
    probe = "fila_video.long_video.durations.probe_file"
    monkeypatch.setattr(probe, lambda path: probed.append(path.name) or 9.0)
    file.write_bytes(b"1")
    for moment, times_read in ((10**9, 1), (10**9, 1), (2 * 10**9, 2)):
        os.utime(file, ns=(moment, moment))
        assert dict(read_durations(tmp_path, [file.name], DurationCache(cache))) == {0: 9.0}
        assert probed == [file.name] * times_read


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (2.0000016, 2.000001),
        (3.9999999, 3.999999),
        (9e-7, "no duration"),
        (math.inf, "no duration"),
        (0, "no duration"),
    ],
)
def test_durations_are_rounded_down_so_that_a_segment_ends_within_its_file(seconds, expected, monkeypatch) -> None:
    probe = "fila_video.video_reading_fila_video.probe_video"
    monkeypatch.setattr(probe, lambda path: SimpleNamespace(duration=seconds))
    duration = probe_file("a.mp4")
    assert duration == expected if isinstance(expected, float) else expected in duration


def test_statistics_count_what_was_written(built) -> None:
    records = list(read_records(built))
    summary = json.loads((built / "statistics.json").read_text())
    words = [len(record["conversations"][1]["value"].split()) for record in records]
    seconds = [record["duration"] for record in records]
    assert summary["num_records"] == len(records) == 20
    assert summary["mean_words"] == pytest.approx(np.mean(words), abs=0.06)
    assert summary["mean_duration_seconds"] == pytest.approx(np.mean(seconds), abs=0.06)
    assert summary["total_duration_hours"] == pytest.approx(sum(seconds) / 3600, abs=0.006)
    assert Statistics.of(records).summary() == summary
