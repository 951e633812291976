"""What records mean, and which are refused: keys that would be lost in silence, and what a folder holds."""

import json
import logging
import os
from decimal import Decimal

import pytest
from fila_video.inference.questions import VideoQuestions, WorkList
from helpers.answer_runs import QUESTION, answer, rows_of, write_records
from helpers.video_files import make_video


def asked_of(folder, *records) -> list[VideoQuestions]:
    return list(WorkList(write_records(folder, *records), QUESTION))


TIMES = "of a record is not read: a clip has `video_start` and `video_end`"


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"start": 60, "end": 90}, f"`start` {TIMES}"),
        ({"end_time": 90}, f"`end_time` {TIMES}"),
        ({"clip_start": 60.0}, f"`clip_start` {TIMES}"),
        ({"startTime": 60}, f"`startTime` {TIMES}"),
        ({"video_begin": 60}, f"`video_begin` {TIMES}"),
        ({"video_start_time": 60}, f"`video_start_time` {TIMES}"),
        ({"video_strat": 60}, "`video_strat` of a record is not read: name it `video_start`"),
        ({"subtitle": "a.srt"}, "`subtitle` of a record is not read: name it `subtitles`"),
        ({"Question": "What?"}, "`Question` of a record is not read: name it `question`"),
        ({"url": "b.mp4"}, "more than one video, `video` and `url`"),
        ({"path": "a.mp4", "url": "b.mp4"}, "`video` and `url` and `path`"),
        ({"video": {"path": "a.mp4", "start": 60}}, "`start` of its video is not read"),
        ({"video": {"path": "a.mp4", "video_start": 60}}, "`video_start` of its video is not read"),
        ({"questions": [{"question": "What?", "video_start": 60}]}, "`video_start` of a question is not read"),
        ({"questions": [{"question": "What?", "end": 60}]}, "`end` of a question is not read"),
    ],
)
def test_what_would_be_lost_in_silence_is_the_error_of_its_record_alone(tmp_path, record, error) -> None:
    broken, good = asked_of(tmp_path, {"video": "a.mp4", **record}, {"video": "c.mp4"})
    assert error in broken.asked[0].error
    assert good.asked[0].error is None and good.asked[0].question == QUESTION


@pytest.mark.parametrize(
    "url", ["https://example.com/a.mp4", "data:video/mp4;base64,AAAA", "Data:video/mp4;base64,AAAA"]
)
def test_a_url_is_not_looked_for_beside_the_records(tmp_path, url) -> None:
    (video,) = asked_of(tmp_path, {"video": url})
    assert video.video == url


def test_a_question_that_names_a_clip_leaves_the_others_of_its_record(tmp_path) -> None:
    questions = ["What?", {"question": "Where?", "start": 3}, {"question": "Who?", "id": "who", "type": "open"}]
    (video,) = asked_of(tmp_path, {"video": "a.mp4", "questions": questions})
    assert [(asked.id, asked.error is None) for asked in video.asked] == [
        ("a.mp4#1", True),
        ("a.mp4#2", False),
        ("a.mp4#who", True),
    ]


USUAL = """gender duration video_id videoID question_id question_type qid uid idx task options answer candidates
category timestamp fps width height title event_start subtitle_path video_length video_name
calendar starring conversations"""


def test_other_keys_are_passed_over_but_not_those_that_mean_what_is_read(tmp_path) -> None:
    others = dict.fromkeys(USUAL.split(), 1) | {"start": None, "url": None}
    record = {"video": "a.mp4", "video_start": 2, "video_end": 5, **others}
    good, broken = asked_of(tmp_path, record, record | {"id": "broken", "end": 5})
    assert good.settings == {"video_start": 2, "video_end": 5} and good.asked[0].error is None
    assert f"`end` {TIMES}" in broken.asked[0].error


BAD_QUESTIONS = [
    {"id": "bad", "video": "0.mp4", "question": ""},
    {"id": "bad", "video": "0.mp4", "question": "a \ud800"},
    {"id": "bad", "video": "0.mp4", "questions": [{"question": ["What?"]}]},
    {"id": "bad", "video": "0.mp4", "questions": [{"id": "\ud800", "question": "What?"}]},
    {"id": "bad", "video": "0.mp4", "questions": [{"question": "What?", "\ud800_end": 3, "end": 3}]},
]


@pytest.mark.parametrize("bad", BAD_QUESTIONS)
def test_a_bad_question_leaves_its_video_to_the_others(videos, pipe, tmp_path, bad) -> None:
    records = write_records(videos, bad, {"id": "good", "video": "0.mp4", "question": "What?"})
    assert answer(pipe, records, tmp_path / "out.jsonl", None).failed == 1
    broken, good = rows_of(tmp_path / "out.jsonl").values()
    assert broken["error"] and broken["answer"] is None and good["answer"] is not None
    assert broken["video"] == good["video"] == str(videos / "0.mp4")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"id": "a \ud800", "video": "0.mp4"}, r"its `id` is not valid Unicode text, 'a \ud800': give it another"),
        ({"video": "caf\udce9.mp4"}, r"its `video` is not valid Unicode text, 'caf\udce9.mp4': rename the file"),
        ({"id": "a", "video": "0.mp4", "subtitle\ud800": "a.srt"}, r"`subtitle\ud800` of a record is not read"),
        ({"id": "a", "video": "0.mp4", "video_start": [1]}, "its `video_start` is of the type list: give seconds"),
        ({"id": "a", "video": "0.mp4", "subtitles": {}}, "its `subtitles` is of the type dict: give a file"),
    ],
)
def test_what_no_row_can_hold_is_the_error_of_its_record_alone(videos, pipe, tmp_path, bad, error) -> None:
    records = write_records(videos, bad, {"id": "good", "video": "0.mp4"})
    for added in (2, 0):  # what is written is known again
        assert answer(pipe, records, tmp_path / "out.jsonl").answered == added
    broken, good = rows_of(tmp_path / "out.jsonl").values()
    assert error in broken["error"] and good["answer"] is not None
    json.dumps(broken, ensure_ascii=False).encode()


def test_a_film_whose_name_is_not_utf_8_is_a_row_with_its_error(videos, pipe, tmp_path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in (b"a.mp4", b"caf\xe9.mp4"):
        (folder / os.fsdecode(name)).write_bytes((videos / "0.mp4").read_bytes())
    assert answer(pipe, folder, tmp_path / "out.jsonl").failed == 1
    rows = rows_of(tmp_path / "out.jsonl")
    assert rows["a.mp4"]["answer"] is not None and "rename the file" in rows[r"caf\udce9.mp4"]["error"]


def test_values_of_a_table_that_cannot_be_read_are_the_error_of_their_record_alone(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = tmp_path / "records.parquet"
    latin = pyarrow.array([b"a.mp4", b"caf\xe9.mp4"], pyarrow.binary()).view(pyarrow.string())
    late = pyarrow.array([None, 2**62], pyarrow.timestamp("us"))
    exact = pyarrow.array([None, Decimal("1.5")], pyarrow.decimal128(5, 2))
    for column, error in {
        "video": "record 2: it cannot be read ('utf-8' codec can't decode byte 0xe9",
        "video_end": "record 2: it cannot be read (date value out of range)",
        "video_start": "record 2: its `video_start` is of the type Decimal: give seconds, a float or integer",
    }.items():
        columns = {"id": ["0", "1"], "video": ["a.mp4", "a.mp4"]}
        columns[column] = {"video": latin, "video_end": late, "video_start": exact}[column]
        parquet.write_table(pyarrow.table(columns), table)
        good, broken = WorkList(table, QUESTION)
        assert good.asked[0].error is None and error in broken.asked[0].error


def test_columns_of_a_table_are_checked_by_their_names(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = tmp_path / "records.parquet"
    usual = {"video": "a.mp4", "gender": "f", "question_id": 3}
    parquet.write_table(pyarrow.Table.from_pylist([usual]), table)
    assert len(WorkList(table, QUESTION)) == 1
    parquet.write_table(pyarrow.Table.from_pylist([usual | {"start": 60, "end": 90}]), table)
    with pytest.raises(ValueError, match=f"records.parquet: `start` {TIMES}"):
        WorkList(table, QUESTION)
    parquet.write_table(pyarrow.Table.from_pylist([{"video": "a.mp4", "url": "b.mp4"}, {"url": "b.mp4"}]), table)
    both, one = WorkList(table, QUESTION)
    assert "more than one video" in both.asked[0].error and one.asked[0].error is None


def test_a_folder_gives_videos_of_every_form_that_can_be_read(pipe, tmp_path) -> None:
    folder = tmp_path / "films"
    (folder / "deeper").mkdir(parents=True)
    disc = {"codec": "mpeg2video", "fps": 25, "width": 128, "height": 96}
    make_video(folder / "a.mp4", 10)
    make_video(folder / "b.M2TS", 10, container="mpegts")
    make_video(folder / "c.vob", 10, container="vob", **disc)
    make_video(folder / "d.mxf", 10, container="mxf", **disc)
    make_video(folder / "deeper" / "e.asf", 10, container="asf", codec="mpeg4")
    assert answer(pipe, folder, tmp_path / "out.jsonl").failed == 0
    names = ["a.mp4", "b.M2TS", "c.vob", "d.mxf", os.path.join("deeper", "e.asf")]
    assert list(rows_of(tmp_path / "out.jsonl")) == names


def test_what_a_folder_holds_beside_videos_is_counted_unless_it_is_usual_there(tmp_path, caplog) -> None:
    folder, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    usual = ["a.mp4", "a.srt", "a.jpg", "readme.txt", "records.jsonl", "a.mp3", ".DS_Store"]
    for name in usual:
        (folder / name).touch()
    with caplog.at_level(logging.WARNING, "fila_video"):
        assert len(WorkList(folder, QUESTION)) == 1
        assert not caplog.messages
        for name in ("b.rmvb", "c.rmvb", "d.mp4.part", "film"):
            (folder / name).touch()
        (folder / "link").symlink_to(elsewhere)
        assert len(WorkList(folder, QUESTION)) == 1
    (message,) = caplog.messages
    assert f"2 .rmvb, 1 without an ending, the linked folder {folder / 'link'}" in message and "1 .part" in message
    assert not any(os.path.splitext(name)[1] in message.split(":")[1] for name in usual[1:-1])


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "a.mp4").touch()
    scandir = os.scandir

    def refuse(path):  # permissions do not keep the administrator out
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"The folder .*closed cannot be read \(Permission denied\)"):
        WorkList(tmp_path, QUESTION)


def test_a_misnamed_clip_is_a_row_with_its_error(videos, pipe, tmp_path) -> None:
    records = tmp_path / "records.jsonl"
    film = str(videos / "0.mp4")
    lines = [{"id": "bad", "video": film, "start": 0.2}, {"id": "good", "video": film, "video_start": 0.2}]
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert answer(pipe, records, tmp_path / "out.jsonl").failed == 1
    rows = rows_of(tmp_path / "out.jsonl")
    assert f"`start` {TIMES}" in rows["bad"]["error"] and rows["bad"]["answer"] is None
    assert rows["good"]["answer"] is not None
