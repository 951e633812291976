"""Thousands of questions: each answered once, by whatever run, and bad ones as rows of their own."""

import errno
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video import answer_all, describe_video
from fila_video.inference.questions import WorkList
from fila_video.inference.workers import PipelineWorker
from fila_video.long_video.engines import WorkerDied
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.answer_runs import QUESTION, answer, rows_of, write_records
from helpers.tiny_processor import model_for, tiny_processor


def test_answers_are_those_of_the_pipeline_whatever_form_the_records_have(videos, pipe, tmp_path) -> None:
    expected = {}
    for number in range(3):
        (record,) = pipe(str(videos / f"{number}.mp4"), text=QUESTION, max_new_tokens=4, return_full_text=False)
        expected[f"{number}.mp4"] = record["generated_text"]
    records = [{"video": f"{number}.mp4", "other": None} for number in range(3)]
    lines = write_records(videos, *records)
    array = videos / "records.json"
    array.write_text(json.dumps(records))
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), videos / "records.parquet")
    for source in (lines, array, videos / "records.parquet", videos):
        output = tmp_path / f"{source.name}.jsonl"
        done = answer(pipe, source, output)
        rows = rows_of(output)
        assert {name: rows[name]["answer"] for name in expected} == expected
        assert (done.total, done.answered, done.failed) == ((4, 4, 1) if source is videos else (3, 3, 0))


def test_a_video_is_read_once_for_all_its_questions(videos, pipe, tmp_path, monkeypatch) -> None:
    records = write_records(
        tmp_path,
        {"id": "a", "video": str(videos / "0.mp4"), "question": "What is red?"},
        {"id": "b", "video": str(videos / "1.mp4")},
        {"id": "c", "video": str(videos / "0.mp4"), "questions": ["What?", {"id": "last", "question": "Where?"}]},
        {"id": "d", "video": str(videos / "0.mp4"), "video_start": 0.4},
    )
    read, load = [], pipe.processor.video_processor.load_video

    def load_video(video, *args, **kwargs):
        read.append(video)
        return load(video, *args, **kwargs)

    monkeypatch.setattr(pipe.processor.video_processor, "load_video", load_video, raising=False)
    answer(pipe, records, tmp_path / "out.jsonl")
    assert len(read) == 3  # the clip of the same file is another video
    rows = rows_of(tmp_path / "out.jsonl")
    assert list(rows) == ["a", "c#1", "c#last", "b", "d"]
    for name, question in (("a", "What is red?"), ("c#1", "What?"), ("c#last", "Where?"), ("b", QUESTION)):
        (record,) = pipe(rows[name]["video"], text=question, max_new_tokens=4, return_full_text=False)
        assert (rows[name]["question"], rows[name]["answer"]) == (question, record["generated_text"])


def test_as_many_answers_as_a_batch_holds_are_generated_side_by_side(videos, pipe, tmp_path, monkeypatch) -> None:
    asked = [{"id": str(number), "video": str(videos / "0.mp4"), "question": f"What {number}?"} for number in range(5)]
    sizes, forward = [], pipe.forward

    def count(inputs: dict, **options: object) -> dict:
        sizes.append(len(inputs["text"]))
        return forward(inputs, **options)

    monkeypatch.setattr(pipe, "forward", count)
    answered = PipelineWorker(pipe, 2, {"max_new_tokens": 2})(list(WorkList(write_records(tmp_path, *asked))))
    assert sizes == [2, 2, 1]
    assert [row.id for row in answered] == list("01234") and not any(row.error for row in answered)


def test_with_cooperative_encoding_every_question_about_a_video_has_tokens_of_its_own(videos, tmp_path) -> None:
    settings = {"frame_encoding": "cooperative", "scene_size": 1, "background_tokens": 2}
    settings |= {"num_prototypes": 5, "key_frames": 2}
    processor = tiny_processor(**settings)
    model = model_for(processor, **settings)
    torch.nn.init.normal_(model.model.cooperative_encoder.question_projection.weight)  # so that questions matter
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device="cpu")
    questions = ["What is red?", "Where is the large one at the end?", "How many?"]
    records = [
        {"id": str(number), "video": str(videos / f"{number}.mp4"), "questions": questions} for number in (0, 1)
    ]
    seen, generate = [], model.generate

    def generate_and_keep(**inputs):
        seen.extend(inputs["video_question_ids"])
        return generate(**inputs)

    model.generate = generate_and_keep
    answer(pipe, write_records(tmp_path, *records), tmp_path / "out.jsonl", batch_size=4)
    rows = rows_of(tmp_path / "out.jsonl")
    asked = [processor.tokenizer.decode(ids[ids >= 0]).strip() for ids in seen]
    assert sorted(asked) == sorted([question for question in questions for _ in (0, 1)])
    assert len(rows) == 6
    for row in rows.values():
        (alone,) = pipe(row["video"], text=row["question"], max_new_tokens=4, return_full_text=False)
        assert row["error"] is None and row["answer"] == alone["generated_text"]


def test_what_cannot_be_answered_is_a_row_and_its_neighbors_are_answered(videos, pipe, tmp_path) -> None:
    film = str(videos / "0.mp4")
    records = write_records(
        tmp_path,
        {"id": "good", "video": film},
        {"id": "broken", "video": str(videos / "broken.mp4")},
        {"id": "missing", "video": "nowhere.mp4"},
        {"id": "control", "video": film, "question": "What is <video>?"},
        {"id": "empty", "video": film, "question": " "},
        {"id": "long", "video": film, "question": "very " * 5000},
        {"id": "both", "video": film, "question": "a", "questions": ["b"]},
        {"id": "backwards", "video": film, "video_start": 2, "video_end": 1},
        {"id": "without"},
        "[1, 2]",
        '{"id": "cut',
    )
    done = answer(pipe, records, tmp_path / "out.jsonl", batch_size=3)
    rows = rows_of(tmp_path / "out.jsonl")
    errors = {name: row["error"] for name, row in rows.items() if row["error"] is not None}
    assert rows["good"]["answer"] is not None and (done.total, done.failed) == (11, 10) and len(errors) == 10
    parts = {
        "broken": "broken.mp4",
        "missing": "nowhere.mp4",
        "control": "<video>",
        "empty": "empty",
        "long": "tokens",
    }
    parts |= {"both": "both", "backwards": "`video_start` <", "without": "no `video`", "record 10": "record 10"}
    for name, part in (parts | {"record 11": "record 11"}).items():
        assert part in errors[name] and rows[name]["answer"] is None


def test_a_bad_question_keeps_its_error_where_its_video_kills_the_worker(tmp_path, monkeypatch) -> None:
    def all_die(make, items, **settings):
        yield from ((number, None, WorkerDied("it died")) for number, _ in enumerate(items))

    monkeypatch.setattr("fila_video.inference.answer_all.run_workers", all_die)
    records = write_records(tmp_path, {"video": "a.mp4", "questions": ["", "What?"]})
    answer(None, records, tmp_path / "out.jsonl")
    bad, good = rows_of(tmp_path / "out.jsonl").values()
    assert "an empty one" in bad["error"] and good["error"] == "it died"


def test_an_error_may_end_the_run_and_stays_in_its_way(videos, pipe, tmp_path) -> None:
    records = write_records(
        videos, {"video": "0.mp4"}, {"video": "broken.mp4"}, {"video": "1.mp4"}, name="three.jsonl"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=r"broken\.mp4"):
            answer(pipe, records, tmp_path / "out.jsonl", on_error="raise")
        assert list(rows_of(tmp_path / "out.jsonl")) == ["0.mp4"]


def test_a_run_goes_on_from_wherever_its_output_ends(videos, pipe, tmp_path) -> None:
    records = write_records(
        videos,
        *({"id": f"film {n}", "video": f"{n}.mp4", "questions": [f"What {k}?" for k in range(3)]} for n in range(3)),
        {"id": "broken", "video": "broken.mp4"},
        name="many.jsonl",
    )
    whole = tmp_path / "whole.jsonl"
    answer(pipe, records, whole)
    text, settings = whole.read_bytes(), (tmp_path / "whole.jsonl.settings.json").read_bytes()
    assert answer(pipe, records, whole).answered == 0 and whole.read_bytes() == text
    for number, end in enumerate(random.Random(0).sample(range(len(text)), 20) + [0, text.index(b"\n") + 1]):
        output = tmp_path / f"{number}.jsonl"
        output.write_bytes(text[:end])
        # Where it is not there, it was lost, and the whole rows carry its mark.
        if number % 2 or 0 < end <= text.index(b"\n"):
            (tmp_path / f"{number}.jsonl.settings.json").write_bytes(settings)
        done = answer(pipe, records, output)
        assert rows_of(output) == rows_of(whole)
        assert done.answered == 10 - text[:end].count(b"\n")


def test_other_settings_are_refused_and_named(videos, pipe, tmp_path) -> None:
    records, output = write_records(videos, {"video": "0.mp4"}, name="one.jsonl"), tmp_path / "out.jsonl"
    answer(pipe, records, output)
    before = output.read_bytes()
    with pytest.raises(ValueError, match="num_scenes"):
        answer(pipe, records, output, num_scenes=2)
    with pytest.raises(ValueError, match=r"question: What happens\? there, Who\? now"):
        answer(pipe, records, output, question="Who?")
    with pytest.raises(ValueError, match="is there already"):
        answer(pipe, records, output, resume=False)
    (tmp_path / "out.jsonl.settings.json").unlink()
    with pytest.raises(ValueError, match="line 1, was answered with other settings"):
        answer(pipe, records, output, num_scenes=2)
    assert output.read_bytes() == before


def test_settings_that_become_others_in_json_are_the_same_settings(videos, pipe, tmp_path) -> None:
    records, output = write_records(videos, {"video": "0.mp4"}, name="one.jsonl"), tmp_path / "out.jsonl"
    words = tmp_path / "caf\udce9.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:00,900\nHello there\n")
    for number, options in enumerate(({"eos_token_id": (2, 3)}, {"subtitles": str(words)})):
        output = tmp_path / f"{number}.jsonl"
        done = [answer(pipe, records, output, **options) for _ in range(2)]
        assert [(each.answered, each.failed) for each in done] == [(1, 0), (0, 0)]


def test_errors_are_asked_again_where_wanted(videos, pipe, tmp_path) -> None:
    records = write_records(tmp_path, *({"id": name, "video": name} for name in ("late.mp4", "broken.mp4", "0.mp4")))
    for name in ("broken.mp4", "0.mp4"):
        (tmp_path / name).write_bytes((videos / name).read_bytes())
    output = tmp_path / "out.jsonl"
    assert answer(pipe, records, output).failed == 2
    (tmp_path / "late.mp4").write_bytes((videos / "1.mp4").read_bytes())
    assert answer(pipe, records, output).answered == 0
    done = answer(pipe, records, output, retry_errors=True)
    assert (done.answered, done.failed) == (2, 1)
    rows = rows_of(output)
    assert {name for name, row in rows.items() if row["error"]} == {"broken.mp4"} and len(rows) == 3


def test_errors_of_records_that_are_not_asked_stay(videos, pipe, tmp_path) -> None:
    one, other = (
        write_records(tmp_path, {"id": name, "video": str(videos / name)}, name=f"{name}.jsonl")
        for name in ("broken.mp4", "0.mp4")
    )
    output = tmp_path / "out.jsonl"
    assert answer(pipe, one, output).failed == 1
    assert answer(pipe, other, output, retry_errors=True).answered == 1
    assert set(rows_of(output)) == {"broken.mp4", "0.mp4"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_errors_that_are_asked_again_leave_the_link_to_the_output_and_its_permissions(videos, pipe, tmp_path) -> None:
    records = write_records(tmp_path, *({"id": name, "video": str(videos / name)} for name in ("broken.mp4", "0.mp4")))
    (tmp_path / "disk").mkdir()
    output, file = tmp_path / "out.jsonl", tmp_path / "disk" / "answers.jsonl"
    output.symlink_to(file)
    answer(pipe, records, output)
    file.chmod(0o640)
    assert answer(pipe, records, output, retry_errors=True).answered == 1
    assert output.is_symlink() and len(rows_of(file)) == 2 and file.stat().st_mode & 0o777 == 0o640
    assert list((tmp_path / "disk").iterdir()) == [file]


def test_records_may_grow_between_runs(videos, pipe, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    answer(pipe, write_records(videos, {"video": "0.mp4"}, name="grow.jsonl"), output)
    records = write_records(videos, {"video": "1.mp4"}, {"video": "0.mp4"}, name="grow.jsonl")
    assert answer(pipe, records, output).answered == 1
    assert set(rows_of(output)) == {"0.mp4", "1.mp4"}


def test_batches_give_every_row_its_own_answer(videos, pipe, tmp_path) -> None:
    records = write_records(
        videos, *({"id": f"{n}{q}", "video": f"{n}.mp4", "question": q} for q in "abc" for n in range(3))
    )
    answer(pipe, records, tmp_path / "one.jsonl")
    answer(pipe, records, tmp_path / "four.jsonl", batch_size=4)
    one, four = rows_of(tmp_path / "one.jsonl"), rows_of(tmp_path / "four.jsonl")
    assert {name: row["question"] for name, row in one.items()} == {
        name: row["question"] for name, row in four.items()
    }
    assert all(row["error"] is None and row["answer"] is not None for row in four.values())


def test_what_breaks_one_answer_of_a_batch_leaves_the_others(videos, pipe, tmp_path, monkeypatch) -> None:
    records = write_records(videos, *({"id": q, "video": "0.mp4", "question": q} for q in ("a", "odd", "b")))
    forward = pipe.forward

    def failing(inputs, **kwargs):
        if "odd" in inputs["text"]:
            raise IndexError("out of range")
        return forward(inputs, **kwargs)

    monkeypatch.setattr(pipe, "forward", failing)
    answer(pipe, records, tmp_path / "out.jsonl", batch_size=3)
    errors = {name: row["error"] for name, row in rows_of(tmp_path / "out.jsonl").items()}
    assert errors == {"a": None, "odd": "IndexError: out of range", "b": None}


def test_a_lost_device_ends_the_run_and_blames_no_row(videos, pipe, tmp_path, monkeypatch) -> None:
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")

    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(pipe, "forward", lost)
    with pytest.raises(RuntimeError, match="start again"):
        answer(pipe, records, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("records", "part"),
    [
        ([{"id": 1, "video": "0.mp4"}, {"id": "1", "video": "1.mp4"}], "the id '1' occurs twice"),
        ([], "holds no records"),
    ],
)
def test_records_that_cannot_be_told_apart_are_refused_before_the_work(videos, pipe, tmp_path, records, part) -> None:
    with pytest.raises(ValueError, match=part):
        answer(pipe, write_records(videos, *records, name="bad.jsonl"), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("text", ['{"my": "settings"}', "notes", "\n\nnotes", '{"id": 1}\n{"id": '])
def test_a_file_that_is_no_output_stays_as_it_is(videos, pipe, tmp_path, text) -> None:
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match=r"output .*mine\.json.*ame a new file"):
        answer(pipe, records, tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_records_are_no_output_by_whatever_path(videos, pipe, tmp_path) -> None:
    records = write_records(tmp_path, {"video": str(videos / "0.mp4")})
    (tmp_path / "link.jsonl").symlink_to(records)
    before = records.read_text()
    for output in (records, tmp_path / "link.jsonl", tmp_path / ".." / tmp_path.name / "records.jsonl"):
        with pytest.raises(ValueError, match="is the file of the records, which it would spoil: name another"):
            answer(pipe, records, output)
    assert records.read_text() == before


def test_a_second_run_on_the_same_output_is_refused(videos, pipe, tmp_path) -> None:
    pytest.importorskip("fcntl")
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")
    from fila_video.inference.output import Output

    with Output(tmp_path / "out.jsonl", {}, True), pytest.raises(ValueError, match="Another run is writing"):
        answer(pipe, records, tmp_path / "out.jsonl")


def test_on_a_file_system_without_locks_a_run_goes_on(videos, pipe, tmp_path, monkeypatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*args):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")
    assert answer(pipe, records, tmp_path / "out.jsonl").answered == 1


def test_wrong_arguments_are_named(videos, pipe, tmp_path) -> None:
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")
    for part, settings in {
        "`engine`": {"engine": "slurm"},
        "`on_error`": {"on_error": "ignore"},
        "`workers`": {"workers": 0},
        "`workers` must be a whole number of at least 1, got True": {"workers": True},
        "`batch_size` must be a whole number of at least 1, got -1": {"batch_size": -1},
        "`batch_size` must be a whole number of at least 1, got 0": {"batch_size": 0},
        "`batch_size` must be a whole number of at least 1, got 2.5": {"batch_size": 2.5},
        "one worker": {"workers": 2},
        "`dtype` and `device`.*leave them out": {"dtype": "float32"},
        "`device` are of models.*leave them out": {"device": "cpu"},
        "`no_such`": {"no_such": 1},
        "`question` is empty": {"question": " "},
        "`question` is not valid Unicode: character 2": {"question": "a \udce9"},
        "`question` must be a text, got 5": {"question": 5},
    }.items():
        with pytest.raises(ValueError, match=part):
            answer(pipe, records, tmp_path / "out.jsonl", **settings)
    for part, paths in {
        r"`records` must be a path, got \[{'video'": ([{"video": "0.mp4"}], tmp_path / "out.jsonl"),
        "`output` must be a path, got None": (records, None),
    }.items():
        with pytest.raises(ValueError, match=part):
            answer(pipe, *paths)


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("`num_scenes` must be at least 1, got 0", {"num_scenes": 0}),
        ("`candidate_fps` must be a positive number, got 0", {"candidate_fps": 0}),
        ("`candidate_fps` must be a positive number, got nan", {"candidate_fps": float("nan")}),
        ("`seed` must be a whole number of 32 bits", {"seed": 2**31}),
        ("`subtitle_tokens` must be a whole number of at least 1, got 0", {"subtitle_tokens": 0}),
        ("Unknown `selection` 'best'", {"selection": "best"}),
        ("`time_marks` must be one of", {"processor_kwargs": {"time_marks": "all"}}),
        ("`limits` knows no `frame_pixel`", {"limits": {"frame_pixel": 5}}),
        ("limits must be a VideoLimits, got 5", {"limits": 5}),
        ("`num_scenes` cannot be 'many'", {"num_scenes": "many"}),
        ("`resample` must be one of", {"resample": 77}),
        ("num_frames must be an integer of at least 1", {"num_frames": 0}),
        ("`num_beams` must be a whole number of at least 1, got 0", {"num_beams": 0}),
        ("`stop_strings` must be a text that is not empty", {"generate_kwargs": {"stop_strings": ""}}),
        ("`num_scene` is an option neither", {"num_scene": 4}),
    ],
)
def test_options_that_stand_in_the_way_of_every_answer_leave_no_output(
    videos, pipe, tmp_path, part, options, is_loaded
):
    records = write_records(videos, {"video": "0.mp4"}, name="one.jsonl")
    model = pipe if is_loaded else str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=part):
        answer_all(records, tmp_path / "out.jsonl", QUESTION, model=model, **options)
    assert not list(tmp_path.iterdir())


def test_an_option_that_does_not_fit_the_model_is_one_error_and_the_output_may_be_begun_anew(videos, pipe, tmp_path):
    records, output = write_records(videos, {"video": "0.mp4"}, name="one.jsonl"), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="The processor's `scene_size` is 2, but the model's is 3"):
        answer(pipe, records, output, scene_size=2)
    with pytest.raises(ValueError, match="The processor's `scene_size` is 2, but the model's is 3"):
        PipelineWorker(pipe, 1, {"scene_size": 2})
    assert answer(pipe, records, output).failed == 0


def test_numbers_of_numpy_are_numbers_with_which_a_run_goes_on(videos, pipe, tmp_path) -> None:
    records, output = write_records(videos, {"video": "0.mp4"}, name="one.jsonl"), tmp_path / "out.jsonl"
    options = {"num_scenes": np.int64(2), "candidate_fps": np.float64(2), "seed": np.int32(1)}
    options |= {"min_new_tokens": np.int64(1)}
    for given in (options, {name: value.item() for name, value in options.items()}):
        assert answer(pipe, records, output, batch_size=np.int64(1), **given).failed == 0
    assert len(rows_of(output)) == 1
    assert answer(pipe, records, tmp_path / "whole.jsonl", min_new_tokens=1.0).failed == 0  # as JSON may have it


@pytest.mark.parametrize("engine", ["local", "vllm"])
@pytest.mark.parametrize("length", [0, 2.5, True])
def test_a_length_that_is_none_is_refused_before_the_work(tmp_path, engine, length) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=f"`max_new_tokens` must be a whole number of at least 1, got {length}"):
        answer_all("nowhere.jsonl", output, QUESTION, engine=engine, max_new_tokens=length)
    with pytest.raises(ValueError, match="`max_new_tokens` must be a whole number"):
        answer_all("nowhere.jsonl", output, QUESTION, engine=engine, generate_kwargs={"max_new_tokens": length})


@pytest.mark.parametrize(
    "options",
    [
        {"skip_special_tokens": False},
        {"return_full_text": True},
        {"return_tensors": True},
        {"clean_up_tokenization_spaces": True},
        {"continue_final_message": True},
        {"tools": []},
        {"return_scenes": True},
        {"num_return_sequences": 2},
        {"generate_kwargs": {"num_return_sequences": 2}},
    ],
)
def test_options_that_no_answer_would_show_are_refused_before_the_work(pipe, tmp_path, options) -> None:
    name = next(iter(options.get("generate_kwargs", options)))
    for call in (
        lambda: answer(pipe, tmp_path / "nowhere.jsonl", tmp_path / "out.jsonl", **options),
        lambda: describe_video(tmp_path / "nowhere.mp4", model=pipe, **options),
    ):
        with pytest.raises(ValueError, match=f"The answers are text alone, one a question: leave out `{name}`"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_name_goes_on_in_another_folder(videos, pipe, tmp_path, monkeypatch) -> None:
    records, output = write_records(videos, {"video": "0.mp4"}, name="one.jsonl"), tmp_path / "out.jsonl"
    answer(pipe, records, output)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "other")
    assert answer(pipe, records, output).answered == 0


def test_the_command_says_what_is_wrong_before_anything_heavy_is_loaded(tmp_path) -> None:
    code = (
        "import sys; from fila_video.commands.cli import main\n"
        f"status = main(['answer-all', '--records', 'nowhere', '--output', {str(tmp_path / 'o')!r}])\n"
        "try: main(['answer-all', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys(); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "There are no records at 'nowhere'" in done.stderr and "--resume" in done.stdout


def test_with_sampling_an_answer_depends_on_its_question_alone(videos, pipe, tmp_path) -> None:
    records = write_records(videos, *({"id": str(n), "video": f"{n}.mp4"} for n in range(3)), name="sample.jsonl")
    options = {"do_sample": True, "temperature": 5.0}
    answer(pipe, records, tmp_path / "whole.jsonl", **options)
    answer(
        pipe,
        write_records(videos, {"id": "2", "video": "2.mp4"}, name="last.jsonl"),
        tmp_path / "last.jsonl",
        **options,
    )
    assert rows_of(tmp_path / "last.jsonl")["2"] == rows_of(tmp_path / "whole.jsonl")["2"]


def test_records_name_their_subtitles(videos, pipe, tmp_path) -> None:
    (videos / "words.srt").write_text("1\n00:00:00,100 --> 00:00:00,900\nHello there\n")
    (videos / "list.srt").write_text("nothing")
    records = write_records(
        videos,
        {"id": "words", "video": "0.mp4", "subtitles": "words.srt"},
        {"id": "none", "video": "0.mp4"},
        {"id": "broken", "video": "0.mp4", "subtitles": "list.srt"},
        {"id": "track", "video": "0.mp4", "subtitles": "eng"},
        {"id": "number", "video": "0.mp4", "subtitles": "0"},
        {"id": "float", "video": "0.mp4", "subtitles": 0.0},
        name="spoken.jsonl",
    )
    seen, forward = {}, pipe.forward

    def watching(inputs, **kwargs):
        seen[len(seen)] = pipe.processor.tokenizer.decode(inputs["model_inputs"][0]["input_ids"][0])
        return forward(inputs, **kwargs)

    pipe.forward = watching
    try:
        answer(pipe, records, tmp_path / "out.jsonl", subtitle_tokens=40)
        answer(pipe, records, tmp_path / "tight.jsonl", subtitle_tokens=1)
    finally:
        del pipe.forward
    assert ["Hello there" in text for text in seen.values()] == [True, False, False, False]
    rows = rows_of(tmp_path / "out.jsonl")
    assert "list.srt" in rows["broken"]["error"]
    assert all("there are none in it" in rows[name]["error"] for name in ("track", "number", "float"))
    assert "subtitles_left_out" not in rows["words"]
    assert rows_of(tmp_path / "tight.jsonl")["words"]["subtitles_left_out"] == 1


def test_no_question_at_all_is_an_error_of_each_row(videos, pipe) -> None:
    from fila_video.inference.questions import Asked, VideoQuestions

    worker = PipelineWorker(pipe, 1, {"max_new_tokens": 2})
    rows = worker([VideoQuestions(str(videos / "0.mp4"), {}, [Asked("a", None, "It has no `question`.")])])
    assert rows == [("a", None, None, "It has no `question`.", 0)]


CLIP = {"id": "a", "video": "0.mp4", "question": "What?", "video_start": 0, "video_end": 1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"question": "Who?"}, r"question: 'What\?' there, 'Who\?' now"),
        ({"video": "1.mp4"}, "video: .*0.mp4' there, .*1.mp4' now"),
        ({"video": "https://example.org/0.mp4"}, "video: .*0.mp4' there, 'https"),
        ({"video_end": 2}, "video_end: 1 there, 2 now"),
        ({"video_start": None}, "video_start: 0 there, None now"),
        ({"subtitles": "words.srt"}, "subtitles: None there, .*words.srt' now"),
    ],
)
def test_a_record_that_has_changed_is_refused_and_named(videos, pipe, tmp_path, change, named) -> None:
    records, output = write_records(videos, CLIP, name="changing.jsonl"), tmp_path / "out.jsonl"
    answer(pipe, records, output)
    before = output.read_bytes()
    write_records(videos, {**CLIP, **change}, name="changing.jsonl")
    with pytest.raises(ValueError, match=f"out.jsonl, line 1: .*row of the id 'a'.*{named}.*name a new output"):
        answer(pipe, records, output)
    assert output.read_bytes() == before


def test_rows_of_an_earlier_version_go_on_but_not_with_another_question(videos, pipe, tmp_path) -> None:
    records, output = write_records(videos, CLIP, name="earlier.jsonl"), tmp_path / "out.jsonl"
    answer(pipe, records, output)
    (row,) = rows_of(output).values()
    assert row.pop("media") == {"video_start": 0, "video_end": 1}
    output.write_text(json.dumps(row) + "\n")
    assert answer(pipe, records, output).answered == 0
    write_records(videos, {**CLIP, "question": "Who?"}, name="earlier.jsonl")
    with pytest.raises(ValueError, match="its record has changed"):
        answer(pipe, records, output)


def test_records_that_were_moved_with_their_videos_are_the_same(videos, pipe, tmp_path, monkeypatch) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())
    write_records(tmp_path / "before", CLIP)
    monkeypatch.chdir(tmp_path)
    answer(pipe, Path("before/records.jsonl"), tmp_path / "out.jsonl")
    monkeypatch.chdir(tmp_path / "before")
    assert answer(pipe, Path("records.jsonl"), tmp_path / "out.jsonl").answered == 0
    os.rename(tmp_path / "before", tmp_path / "after")
    assert answer(pipe, tmp_path / "after" / "records.jsonl", tmp_path / "out.jsonl").answered == 0
    other = write_records(videos, {**CLIP, "video": str(videos / "1.mp4")}, name="other.jsonl")
    with pytest.raises(ValueError, match="its record has changed"):
        answer(pipe, other, tmp_path / "out.jsonl")


def test_a_copy_of_the_records_and_their_videos_is_the_same_but_other_videos_of_its_names_are_not(
    videos, pipe, tmp_path
) -> None:
    for folder in ("first", "copy"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())
        write_records(tmp_path / folder, CLIP)
    answer(pipe, tmp_path / "first" / "records.jsonl", tmp_path / "out.jsonl")
    assert answer(pipe, tmp_path / "copy" / "records.jsonl", tmp_path / "out.jsonl").answered == 0
    (tmp_path / "copy" / "0.mp4").write_bytes((videos / "1.mp4").read_bytes() + b"0")
    with pytest.raises(ValueError, match="its record has changed"):
        answer(pipe, tmp_path / "copy" / "records.jsonl", tmp_path / "out.jsonl")


def test_what_is_not_a_number_is_not_given(videos, pipe, tmp_path) -> None:
    nothing = {"id": math.nan, "video_start": math.nan, "url": math.nan, "subtitles": math.nan, "questions": math.nan}
    records = write_records(videos, {**CLIP, **nothing}, {"id": math.nan}, {"id": math.nan}, name="nan.jsonl")
    assert answer(pipe, records, tmp_path / "out.jsonl").failed == 2  # of different names
    row = rows_of(tmp_path / "out.jsonl")["0.mp4"]
    assert row["error"] is None and row["media"] == {"video_end": 1}
    # As an earlier version wrote it.
    row["media"]["video_start"] = math.nan
    (tmp_path / "out.jsonl").write_text(json.dumps(row) + "\n")
    assert answer(pipe, records, tmp_path / "out.jsonl").answered == 2


def test_records_that_name_videos_in_another_folder_are_moved_with_it(videos, pipe, tmp_path, monkeypatch) -> None:
    for folder in ("videos", "records"):
        (tmp_path / "before" / folder).mkdir(parents=True)
    (tmp_path / "before" / "videos" / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())
    write_records(tmp_path / "before" / "records", {**CLIP, "video": "../videos/0.mp4"})
    monkeypatch.chdir(tmp_path / "before" / "records")
    answer(pipe, Path("records.jsonl"), tmp_path / "out.jsonl")
    monkeypatch.chdir(tmp_path)
    os.rename(tmp_path / "before", tmp_path / "after")
    records = tmp_path / "after" / "records" / "records.jsonl"
    assert answer(pipe, records, tmp_path / "out.jsonl").answered == 0
    write_records(records.parent, {**CLIP, "video": "../others/0.mp4"})
    with pytest.raises(ValueError, match="its record has changed"):
        answer(pipe, records, tmp_path / "out.jsonl")


def test_videos_that_whole_paths_name_may_move_to_another_disk_with_their_folder(videos, pipe, tmp_path) -> None:
    for disk in ("one", "other"):
        (tmp_path / disk / "films").mkdir(parents=True)
        (tmp_path / disk / "films" / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())
    records = write_records(tmp_path, {**CLIP, "video": str(tmp_path / "one" / "films" / "0.mp4")})
    answer(pipe, records, tmp_path / "out.jsonl")
    write_records(tmp_path, {**CLIP, "video": str(tmp_path / "other" / "films" / "0.mp4")})
    assert answer(pipe, records, tmp_path / "out.jsonl").answered == 0  # a copy
    (tmp_path / "one" / "films" / "0.mp4").write_bytes((videos / "0.mp4").read_bytes()[::-1])
    with pytest.raises(ValueError, match="its record has changed"):  # both are there
        answer(pipe, records, tmp_path / "out.jsonl")
    os.remove(tmp_path / "one" / "films" / "0.mp4")
    assert answer(pipe, records, tmp_path / "out.jsonl").answered == 0
    for changed in ("other/films/1.mp4", "other/others/0.mp4"):
        write_records(tmp_path, {**CLIP, "video": str(tmp_path / changed)})
        with pytest.raises(ValueError, match="its record has changed"):
            answer(pipe, records, tmp_path / "out.jsonl")


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_video_of_the_same_name_in_another_folder_is_another(tmp_path, is_whole) -> None:
    def name(folder: str) -> str:
        return str(tmp_path / folder / "video.mp4") if is_whole else f"{folder}/video.mp4"

    (tmp_path / "id2").mkdir()  # id1 was removed
    (tmp_path / "id2" / "video.mp4").write_bytes(b"another")
    (before,) = WorkList(write_records(tmp_path, {**CLIP, "video": name("id1")}))
    row = {"id": "a", "video": before.video, "media": before.settings, "question": "What?"}
    with pytest.raises(ValueError, match="its record has changed"):
        WorkList(write_records(tmp_path, {**CLIP, "video": name("id2")})).remove(row)


def test_whole_paths_to_files_of_one_name_beside_records_of_their_own_are_of_several_videos(tmp_path) -> None:
    def work(folder: str) -> WorkList:
        return WorkList(write_records(tmp_path / folder, {**CLIP, "video": str(tmp_path / folder / "video.mp4")}))

    for folder in ("id1", "id2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "video.mp4").write_bytes(folder.encode())
    (video,) = work("id1")
    row = {"id": "a", "video": video.video, "media": video.settings, "question": "What?"}
    with pytest.raises(ValueError, match="its record has changed"):
        work("id2").remove(row)
    os.remove(tmp_path / "id1" / "video.mp4")
    with pytest.raises(ValueError, match="its record has changed"):
        work("id2").remove(row)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_folder_may_be_copied_into_that_above_it(tmp_path, is_whole) -> None:
    def work(folder: Path) -> WorkList:
        video = str(folder / "films" / "0.mp4") if is_whole else "films/0.mp4"
        return WorkList(write_records(folder, {**CLIP, "video": video}))

    (tmp_path / "run" / "films").mkdir(parents=True)
    (tmp_path / "run" / "films" / "0.mp4").write_bytes(b"film")
    (video,) = work(tmp_path / "run")
    row = {"id": "a", "video": video.video, "media": video.settings, "question": "What?"}
    shutil.copytree(tmp_path / "run", tmp_path, dirs_exist_ok=True)
    assert work(tmp_path).remove(row)
    for film in (b"film", bytes(2**21) + b"film" * 2**18 + bytes(2**21)):
        for name, content in (("run/films/0.mp4", film), ("films/0.mp4", film.replace(b"film", b"mlif"))):
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="its record has changed"):
            work(tmp_path).remove(row)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_copied_folder_of_pictures_is_the_same_video_while_its_pictures_are(tmp_path, is_whole) -> None:
    def work(folder: Path) -> WorkList:
        return WorkList(write_records(folder, {**CLIP, "video": str(folder / "film") if is_whole else "film"}))

    (tmp_path / "one" / "film").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "one" / "film" / f"{number}.png").write_bytes(b"picture %d" % number)
    (video,) = work(tmp_path / "one")
    row = {"id": "a", "video": video.video, "media": video.settings, "question": "What?"}
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert work(tmp_path / "other").remove(row)
    (tmp_path / "other" / "film" / "3.png").write_bytes(b"picture 3")
    with pytest.raises(ValueError, match="its record has changed"):
        work(tmp_path / "other").remove(row)


@pytest.mark.parametrize("was_whole", [False, True])
@pytest.mark.parametrize("is_whole", [False, True])
def test_paths_of_a_moved_folder_may_be_written_anew(tmp_path, was_whole, is_whole) -> None:
    def work(folder: str, is_whole: bool, name: str) -> WorkList:
        video = str(tmp_path / folder / name) if is_whole else name
        return WorkList(write_records(tmp_path / folder, {**CLIP, "video": video}))

    (tmp_path / "before" / "films").mkdir(parents=True)
    (tmp_path / "before" / "0.mp4").write_bytes(b"film")
    (video,) = work("before", was_whole, "0.mp4")
    row = {"id": "a", "video": video.video, "media": video.settings, "question": "What?"}
    os.rename(tmp_path / "before", tmp_path / "after")
    assert work("after", is_whole, "0.mp4").remove(row)
    for other in ("1.mp4", "films/0.mp4", "../0.mp4"):
        with pytest.raises(ValueError, match="its record has changed"):
            work("after", is_whole, other).remove(row)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_path_that_ends_as_another_in_its_folder_is_of_another_video(tmp_path, is_whole) -> None:
    def work(name: str) -> WorkList:
        video = str(tmp_path / name) if is_whole else name
        return WorkList(write_records(tmp_path, {**CLIP, "video": video}))

    (tmp_path / "films").mkdir()
    for name, content in (("films/0.mp4", b"one"), ("0.mp4", b"two")):
        (tmp_path / name).write_bytes(content)
    (video,) = work("films/0.mp4")
    row = {"id": "a", "video": video.video, "media": video.settings, "question": "What?"}
    with pytest.raises(ValueError, match="its record has changed"):
        work("0.mp4").remove(row)
    os.replace(tmp_path / "films" / "0.mp4", tmp_path / "0.mp4")
    if is_whole:
        with pytest.raises(ValueError, match="its record has changed"):
            work("0.mp4").remove(row)
    else:
        assert work("0.mp4").remove(row)


def test_only_whole_paths_move_by_the_ends_of_their_paths(tmp_path) -> None:
    row = {"id": "a", "video": str(tmp_path / "one" / "id" / "video.mp4"), "question": "What?"}
    asked = {"id": "a", "question": "What?"}
    with pytest.raises(ValueError, match="its record has changed"):
        WorkList(write_records(tmp_path, {**asked, "video": "other/id/video.mp4"})).remove(row)
    assert WorkList(write_records(tmp_path, {**asked, "video": str(tmp_path / "other/id/video.mp4")})).remove(row)
    row |= {"media": {"subtitles": str(tmp_path / "one" / "id" / "words.srt")}}
    record = {**asked, "video": str(tmp_path / "other/id/video.mp4")}
    with pytest.raises(ValueError, match="its record has changed"):
        WorkList(write_records(tmp_path, {**record, "subtitles": "other/id/words.srt"})).remove(row)
    words = str(tmp_path / "other/id/words.srt")
    assert WorkList(write_records(tmp_path, {**record, "subtitles": words})).remove(row)


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ({"video": "https://example.org/0.mp4?sig=1#t=1"}, {"video": "https://example.org/0.mp4?sig=2"}, True),
        ({"video": "https://example.org/0.mp4?sig=1"}, {"video": "https://example.org/1.mp4?sig=1"}, False),
        ({"video": "https://example.org/watch?v=1"}, {"video": "https://example.org/watch?v=2"}, False),
        ({"video": "https://example.org/get.mp4?id=1"}, {"video": "https://example.org/get.mp4?id=2"}, False),
        ({"video": "https://h/video.avi?video=aaa/bbb"}, {"video": "https://h/video.avi?video=aaa/ccc"}, False),
        ({"video": "https://h/get?v=1&X-Amz-Date=1&token=a"}, {"video": "https://h/get?v=1&x-amz-date=2"}, True),
        ({"video": "https://h/0.mp4?Policy=1&Key-Pair-Id=K"}, {"video": "https://h/0.mp4#t=1"}, True),
        ({"video": "https://h/0.mp4?sv=1&skoid=2&sig=3&v=1"}, {"video": "https://h/0.mp4?v=1&sv=2&sig=4"}, True),
        ({"video": "https://h/0.mp4?X-Goog-Signature=1"}, {"video": "https://h/0.mp4?Expires=1&Signature=2"}, True),
        ({"video": "https://h/0.mp4?OSSAccessKeyId=1"}, {"video": "https://h/0.mp4?x-oss-signature=2"}, True),
        ({"video": "https://h/0.mp4?sig=1"}, {"video": "https://h/0.mp4?signal=1"}, False),
        ({"video": "https://h/0.mp4?st=1&sig=1"}, {"video": "https://h/0.mp4?st=2&sig=2"}, True),
        ({"video": "https://h/0.mp4?st=1"}, {"video": "https://h/0.mp4?st=2"}, False),
        ({"video_start": "0.5", "video_end": 1}, {"video_start": 0.5, "video_end": "1.0"}, True),
        ({"video_start": "0.5"}, {"video_start": "0.6"}, False),
        ({"video_start": "nan"}, {"video_start": "nan"}, True),  # no time, but the same record
        ({"question": "1"}, {"question": "1.0"}, False),
    ],
)
def test_signatures_of_urls_and_forms_of_numbers_are_no_change(was, now, same, tmp_path) -> None:
    work = WorkList(write_records(tmp_path, {**CLIP, **was}))
    (video,) = work
    row = {"id": "a", "video": video.video, "media": video.settings, "question": video.asked[0].question}
    changed = WorkList(write_records(tmp_path, {**CLIP, **now}))
    if same:
        assert changed.remove(row)
    else:
        with pytest.raises(ValueError, match="its record has changed"):
            changed.remove(row)


def test_an_error_whose_record_was_mended_is_asked_again(videos, pipe, tmp_path) -> None:
    records = write_records(videos, {**CLIP, "question": " "}, name="mended.jsonl")
    assert answer(pipe, records, tmp_path / "out.jsonl").failed == 1
    write_records(videos, CLIP, name="mended.jsonl")
    with pytest.raises(ValueError, match="ask again with --retry-errors"):
        answer(pipe, records, tmp_path / "out.jsonl")
    assert answer(pipe, records, tmp_path / "out.jsonl", retry_errors=True).answered == 1
