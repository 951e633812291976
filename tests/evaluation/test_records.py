"""Records of annotated videos: what is read, and what is refused by its line."""

import math

import pytest
from fila_video.evaluation.records import Question, read_events, read_records
from helpers.evaluation_files import write_lines

GOOD = {"id": "a", "video": "a.mp4", "questions": [{"kind": "what", "question": "What?", "answer": "red"}]}


def asking(**changes) -> dict:
    return {**GOOD, "questions": [{**GOOD["questions"][0], **changes}]}


def test_columns_that_are_null_are_as_if_left_out_and_numbers_are_text(tmp_path) -> None:
    nulls = {"image": None, "events": None, "duration": None}
    line = {**asking(answer=[5, "five"], form=None), "id": 7, **nulls}
    (record,) = read_records(write_lines(tmp_path / "records.jsonl", [line]), check_files=False)
    assert (record.id, record.is_video, record.events, record.duration) == ("7", True, [], None)
    assert record.questions == [Question("What?", "5", "what", "free", ("five",))]


def test_what_has_one_clear_meaning_is_read(tmp_path) -> None:
    times = {"duration": "12.5", "events": [{"start": "1.5", "end": 2, "color": "red", "shape": "ring"}]}
    file = write_lines(tmp_path / "records.jsonl", [{**asking(answer=True, kind=["a", "b"]), **times}])
    (record,) = read_records(file, check_files=False)
    assert (record.duration, record.events) == (12.5, [(1.5, 2.0)])
    assert record.questions == [Question("What?", "yes", "a, b", "free", ("true",))]
    assert read_events(file)[0][0]["start"] == 1.5
    choice = {"form": "choice", "question": "Is it?\nA. True\nB. False", "answer": False, "kind": None}
    (record,) = read_records(write_lines(file, [asking(**choice)]), check_files=False)
    assert record.questions == [Question(choice["question"], "false", "other", "choice")]


def test_what_is_not_a_number_is_not_given(tmp_path) -> None:
    line = {**asking(form=math.nan), "image": math.nan, "duration": math.nan, "events": math.nan}
    file = write_lines(tmp_path / "records.jsonl", [line])
    (record,) = read_records(file, check_files=False)
    assert (record.is_video, record.duration, record.events, record.questions[0].form) == (True, None, [], "free")
    with pytest.raises(ValueError, match="line 1: record 'a' does not say which `events` it shows"):
        read_events(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**GOOD, "questions": []}, r"line 1: record 'a' has no `questions`"),
        ({"id": "a", "video": "a.mp4"}, r"line 1: record 'a' has no `questions`"),
        ({**GOOD, "image": "a.png"}, "either a `video` or an `image`"),
        ({**GOOD, "questions": [{"kind": "what", "question": "What?"}]}, "`answer` is missing"),
        (
            {**GOOD, "questions": [{**GOOD["questions"][0], "form": "essay"}]},
            "'essay' of a question is not one of free",
        ),
        ({**GOOD, "questions": [{**GOOD["questions"][0], "question": " "}]}, "a question or its answer is empty"),
        ([1], r"line 1: a record is an object in braces, not 1"),
        ({**GOOD, "video": None}, r"line 1: a record has an `id` and either a `video` or an `image`"),
        ({**GOOD, "id": None}, r"line 1: a record has an `id` and either"),
        ({**GOOD, "video": 5}, r"line 1: the `video` of record 'a' must be the path of a file, not 5"),
        ({**GOOD, "events": 3}, r"line 1: `events` must be a list of objects in braces, not 3"),
        ({**GOOD, "events": [{"start": 0, "end": None}]}, "the `end` of an event must be a number of seconds, not No"),
        ({**GOOD, "duration": "long"}, "the `duration` must be a number of seconds, not 'long'"),
        ({**GOOD, "questions": ["What?"]}, r"`questions` must be a list of objects in braces"),
        (asking(answer=None), r"line 1: the `answer` to 'What\?' must be a text or a number, not None"),
        (asking(answer={"a": "red"}), "the `answer` to .* not {'a': 'red'}"),
        (asking(answer=["red", None]), "the `answer` to .* not None"),
        (asking(answer=[]), "a question or its answer is empty"),
        (asking(question=None), "a `question` must be a text or a number, not None"),
        (asking(kind=False), "the `kind` of a question must be a text"),
        (asking(form="choice"), r"line 1: the options of the choice 'What\?' cannot be told: put two or more"),
        (asking(form="choice", question="What?\nA. red"), "cannot be told"),
        (asking(form="choice", question="A. vitamin C. B. red C. blue"), "cannot be told.* or give the letter"),
        (asking(form="choice", question="What?\n(A) red\n(B) blue", answer="C"), "'C' is none of the options A, B"),
        (asking(form="choice", question="What?\nA. B\nB. A", answer="A"), "A of .* reads 'B', another's letter"),
        (asking(form="choice", question="What?\nA. red\nB. red"), "two options of .* are 'red': give the letter"),
        (
            asking(form="choice", question="What?\nA. red\nB. blue", answer=1),
            "'1' is none of the options A, B .* its letter: 'B' if it counts them from 0, 'A' if .* from 1",
        ),
    ],
)
def test_a_record_that_cannot_be_asked_about_is_named(line, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        read_records(write_lines(tmp_path / "records.jsonl", [line]), check_files=False)


def test_a_missing_video_is_named_before_anything_is_read(tmp_path) -> None:
    file = write_lines(tmp_path / "records.jsonl", [GOOD])
    with pytest.raises(FileNotFoundError, match=r"line 1: .*a\.mp4 of record 'a' is missing"):
        read_records(file)
    write_lines(file, [GOOD, GOOD])
    with pytest.raises(ValueError, match="'a' occurs twice"):
        read_records(file, check_files=False)
    file.write_text("\n")
    with pytest.raises(ValueError, match="no JSON array of records, and no JSON lines"):
        read_records(file)
