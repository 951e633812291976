"""One bad record does not stop a build, and no annotation leads out of the folder of videos."""

import json

import pytest
from fila_video.long_video import json_records
from fila_video.long_video.annotations import read_annotations
from fila_video.long_video.build import build_dataset
from fila_video.long_video.json_records import JsonRecordError, read_json_lines, read_json_records
from helpers.long_video_set import caption_record, make_set, settings

DEEP = b"[" * 100_000 + b"]" * 100_000
BAD = {
    "name too long": json.dumps(caption_record(0, id="a", video="x" * 300 + ".mp4")).encode(),
    "zero byte in the name": json.dumps(caption_record(0, id="b", video="x\0.mp4")).encode(),
    "half a surrogate pair as id": json.dumps(caption_record(0, id="c \ud800")).encode(),
    "half a surrogate pair as name": json.dumps(caption_record(0, id="d", video="\udcff.mp4")).encode(),
    "half a surrogate pair as source": json.dumps(caption_record(0, id="e", data_source="\udcff")).encode(),
    "nested too deeply": b'{"id": ' + DEEP + b"}",
    "an integer of 5,000 digits": b'{"id": ' + b"7" * 5000 + b"}",
    "one byte that is not UTF-8": b'{"id": "\xff"}',
    "no JSON": b'{"id": nothing, "b": ["x,]"]}',
}


def written(folder, name: str, records: list[bytes]):
    path = folder / name
    text = b"[" + b",\n".join(records) + b"]" if path.suffix == ".json" else b"\n".join(records)
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("name", ["captions.json", "captions.jsonl"])
def test_each_bad_record_is_reported_and_the_others_are_built(tmp_path, name) -> None:
    make_set(tmp_path, 6)
    good = [json.dumps(caption_record(video)).encode() for video in range(6)]
    annotations = written(tmp_path, name, [*good[:3], *BAD.values(), *good[3:]])
    options = {"annotations": annotations, "count": 2, "min_duration": 5.0, "max_duration": 12.0}
    statistics, bad = build_dataset(settings(tmp_path, tmp_path / "out", **options))
    assert len(statistics.durations) == 2
    assert [int(item.where.rpartition(" ")[2]) for item in bad] == list(range(4, 4 + len(BAD)))
    lines = (tmp_path / "out" / "bad_inputs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [item.reason for item in bad]


def test_a_data_source_that_leads_out_of_the_folder_is_refused(tmp_path) -> None:
    make_set(tmp_path, 1)
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "secret.mp4").write_bytes(b"secret")
    bad = []
    for source in (str(outside), "../outside", "deep/../../outside", "\\outside", "C/../../outside"):
        record = caption_record(0, video="secret.mp4", data_source=source)
        assert list(read_annotations([[record]], tmp_path / "videos", bad.append)) == []
    assert all("`data_source` leads out" in item.reason for item in bad) and len(bad) == 5


@pytest.mark.parametrize("chunk", [8, 9, 13, 1 << 20])
def test_records_are_found_whatever_the_pieces_that_are_read(tmp_path, monkeypatch, chunk) -> None:
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    records = [{"a": 'x,]["\\" \\\\', "b": [1, [2, {}]]}, 5, "y", None, [], {"ä": "ü€"}, True]
    path = tmp_path / "records.json"
    for text in (
        json.dumps(records),
        json.dumps(records, indent=1, ensure_ascii=False),
        "\ufeff" + json.dumps(records),
    ):
        path.write_text(text, encoding="utf-8")
        assert list(read_json_records(path)) == list(enumerate(records, 1))
    path.write_text("\n\n".join(json.dumps(record) for record in records[:1] + records[5:]))
    assert [number for number, _ in read_json_lines(path)] == [1, 3, 5]
    assert [record for _, record in read_json_records(path)] == records[:1] + records[5:]


def test_a_bad_line_stands_in_its_records_place(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    (_, first), (line, error), (_, last) = read_json_lines(path)
    assert (first, line, last) == ({"a": 1}, 2, {"a": 3}) and isinstance(error, JsonRecordError)


@pytest.mark.parametrize(("text", "message"), [("[1, 2", "ends within"), ("text", "no JSON array"), ("", "no JSON")])
def test_a_file_that_holds_no_records_is_an_error_with_its_name(tmp_path, text, message) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"records\.json.*{message}"):
        list(read_json_records(path))


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_what_stands_behind_an_array_is_an_error_and_no_record_is_lost(tmp_path, monkeypatch, chunk) -> None:
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    path = tmp_path / "records.json"
    for rest in ('\n[{"id": 2}]\n', ',{"id": 2}]', " " * 20 + "text"):
        path.write_text('[{"id": 1}]' + rest)
        with pytest.raises(ValueError, match=r"records\.json' is not valid JSON: behind the end of its array stands"):
            list(read_json_records(path))
    path.write_text('[{"id": 1}]' + " \n\t" * 20)
    assert list(read_json_records(path)) == [(1, {"id": 1})]


def test_names_with_breaks_that_json_allows_do_not_stop_a_build_that_is_there(tmp_path) -> None:
    """U+0085, U+2028 and U+2029 are line breaks for `str.splitlines`, and none for JSON lines."""
    make_set(tmp_path, 6)
    odd = [caption_record(0, id=f"a{mark}b", video=f"gone{mark}.mp4") for mark in "\x85\u2028\u2029"]
    records = [json.dumps(record).encode() for record in [*map(caption_record, range(6)), *odd]]
    annotations = written(tmp_path, "captions.jsonl", records)
    options = {"annotations": annotations, "count": 2, "min_duration": 5.0, "max_duration": 12.0}
    for _ in range(2):
        _, bad = build_dataset(settings(tmp_path, tmp_path / "out", **options))
        assert [item.id for item in bad] == [record["id"] for record in odd]


def test_annotations_of_a_generator_are_not_used_up_by_their_fingerprint(tmp_path) -> None:
    make_set(tmp_path, 6)
    annotations = [(caption_record(number) for number in range(6))]
    options = {"annotations": annotations, "count": 2, "min_duration": 5.0, "max_duration": 12.0}
    statistics, bad = build_dataset(settings(tmp_path, tmp_path / "out", **options))
    assert len(statistics.durations) == 2 and bad == []


def test_one_video_under_two_names_is_annotated_once(tmp_path) -> None:
    make_set(tmp_path, 1)
    (name,) = [path.name for path in (tmp_path / "videos").rglob("*.mp4")]
    file = next((tmp_path / "videos").rglob("*.mp4"))
    (tmp_path / "videos" / "link.mp4").symlink_to(file)
    records = [caption_record(0), caption_record(0, id="again", video="link.mp4")]
    bad = []
    assert len(list(read_annotations([records], tmp_path / "videos", bad.append))) == 1
    assert [item.id for item in bad] == ["again"] and "annotated already" in bad[0].reason
    assert f"one file with 'clips/{name}'" in bad[0].reason and "(a link)" in bad[0].reason


def test_a_mark_before_an_empty_first_line_is_no_record(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf\r\n{"a": 1}\n')
    assert list(read_json_lines(tmp_path / "a.jsonl")) == [(2, {"a": 1})]
