"""The time line of a film: chapters where it changes, true spans, words of the model, and work that goes on."""

import io
import json
import logging
import os
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from fila_video import VideoSegment, VideoTextToTextPipeline, describe_video, load_model, probe_video, read_subtitles
from fila_video.commands.cli import DEMONSTRATION, main
from fila_video.inference.chapters import chapter_starts
from fila_video.inference.describe import Chapter, VideoDescription, _summarize
from fila_video.long_video.files import write_video
from fila_video.toy_world.make_videos import Settings, make_videos
from helpers.tiny_processor import model_for, tiny_pipeline, tiny_processor
from helpers.video_files import make_video
from PIL import Image


def places(number, width, height):
    """Frames of one color for 25 frames, then of another."""
    color = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40)][number // 25 % 4]
    return np.broadcast_to(np.array(color, dtype=np.uint8), (height, width, 3)).copy()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(make_video(tmp_path_factory.mktemp("films") / "film.mp4", 100, draw=places))


def describe(pipe, film, **settings):
    return describe_video(film, **{"model": pipe, "shortest": 0.5, "max_new_tokens": 3} | settings)


def spans(description):
    return [(chapter.start, chapter.end) for chapter in description.chapters]


def test_chapters_begin_at_the_very_frames_where_the_film_changes(pipe, film) -> None:
    description = describe(pipe, film)
    assert spans(description) == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)] and description.duration == 4.0
    for chapter in description.chapters:
        (record,) = pipe(
            [VideoSegment(film, chapter.start, chapter.end)],
            text="Describe what happens in this part of the video.",
            max_new_tokens=3,
            return_full_text=False,
        )
        assert chapter.text == record["generated_text"] and chapter.error is None
    assert isinstance(description.summary, str)


def test_chapters_are_found_by_a_model_that_shows_uniform_frames(film) -> None:
    processor = tiny_processor(
        selection="uniform", num_scenes=2, candidate_fps=5.0, min_candidates=6, max_candidates=99
    )
    pipe = VideoTextToTextPipeline(model_for(processor), processor=processor)
    assert spans(describe(pipe, film)) == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]


def test_a_film_is_described_by_its_url_as_by_its_path(pipe, film, tmp_path) -> None:
    by_path, by_url = (describe(pipe, name) for name in (film, Path(film).as_uri()))
    assert by_url.chapters == by_path.chapters and by_url.summary == by_path.summary
    copy = tmp_path / "film.mp4"
    copy.write_bytes(Path(film).read_bytes())
    describe(pipe, copy.as_uri(), work=tmp_path / "work")
    copy.write_bytes(copy.read_bytes() + bytes(8))
    with pytest.raises(ValueError, match="another video or with other settings"):
        describe(pipe, copy.as_uri(), work=tmp_path / "work")


def test_no_chapter_is_too_short_where_the_film_changes_before_a_candidate(pipe, tmp_path) -> None:
    def draw(number, width, height):  # changes at 9.8 and 19.6 seconds; candidates lie at 9, 10.2, 19.2 and 20.4
        return places(25 * min(number // 49, 2), width, height)

    film = make_video(tmp_path / "film.mp4", 200, draw=draw, fps=5)
    pool = {"candidate_fps": 1, "max_candidates": 40, "seek_mode": "exact"}
    assert spans(describe(pipe, film, shortest=9.0, **pool)) == [(0.0, 9.8), (9.8, 19.6), (19.6, 40.0)]
    description = describe(pipe, film, shortest=10.0, **pool)
    assert spans(description) == [(0.0, 10.0), (10.0, 20.0), (20.0, 40.0)]
    assert len(description.to_youtube().splitlines()) == 3


@pytest.mark.parametrize("chapters", [1, 2, 4])
def test_so_many_chapters_as_wanted_cover_the_film_without_a_gap(pipe, film, chapters) -> None:
    found = spans(describe(pipe, film, chapters=chapters))
    assert len(found) == chapters and found[0][0] == 0.0 and found[-1][1] == 4.0
    assert all(before[1] == after[0] and before[0] < before[1] for before, after in pairwise(found))


def test_wrong_arguments_are_named(pipe, film) -> None:
    for part, settings in {
        "no room for 9 chapters": {"chapters": 9},
        "`chapters` must be a whole number of at least 1, got 0": {"chapters": 0},
        "`chapters` must be a whole number of at least 1, got 2.5": {"chapters": 2.5},
        "`max_new_tokens` must be a whole number of at least 1, got 0": {"max_new_tokens": 0},
        "`shortest` must be positive": {"shortest": 0.0},
        "`shortest` must be positive, a number of seconds, got '9'": {"shortest": "9"},
        "`shortest` must be positive, a number of seconds, got nan": {"shortest": float("nan")},
        "`form` is one of text, json, srt, vtt, youtube, got 'html'": {"form": "html"},
        "`question` must be a text, got 5": {"question": 5},
        "`dtype` and `device`.*leave them out": {"dtype": "float32"},
        "`device` are of a model.*leave them out": {"device": "cpu"},
    }.items():
        with pytest.raises(ValueError, match=part):
            describe(pipe, film, **settings)
    with pytest.raises(ValueError, match="`video` must be a path, got 5"):
        describe(pipe, 5)
    with pytest.raises(ValueError, match="this is a `data:` URL: write it to a file"):
        describe(pipe, "data:video/mp4;base64,AAAA")
    with pytest.raises(ValueError, match="`form` is one of text, json, srt, vtt, youtube, got 'html'"):
        VideoDescription(film, 4.0, []).to("html")


def test_numbers_of_numpy_are_numbers_of_chapters(pipe, film, tmp_path) -> None:
    given = {"chapters": np.int64(2), "shortest": np.float32(0.5)}
    for numbers in (given, {name: value.item() for name, value in given.items()}):  # the work goes on
        assert len(describe(pipe, film, work=tmp_path / "work", **numbers).chapters) == 2


def test_what_no_chapter_could_be_asked_is_one_error_before_reading(pipe, film, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pipe.processor, "encode_video", lambda *args, **options: pytest.fail("the film was read"))
    for part, settings in {
        "`question` is empty": {"question": ""},
        "`summary_question` is empty": {"summary_question": "  "},
        "`question` is not valid Unicode: character 0": {"question": "\ud800"},
        "`summary_question` is not valid Unicode: character 2": {"summary_question": "a \udce9"},
        "control token": {"question": "What <video>?"},
        "`num_scenes` must be at least 1, got 0": {"num_scenes": 0},
        "`subtitle_tokens` must be a whole number": {"subtitle_tokens": 0},
        "missing.srt": {"subtitles": str(tmp_path / "missing.srt")},
    }.items():
        with pytest.raises(ValueError, match=part):
            describe(pipe, film, **settings)


def test_pictures_are_no_film_to_describe_and_no_model_is_loaded_for_them(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pytest.fail("a model was loaded"))
    Image.new("RGB", (32, 32)).save(tmp_path / "still.png")
    for path, what in ((tmp_path, "a folder"), (tmp_path / "still.png", "a still picture")):
        assert main(["describe", str(path)]) == 2
        assert f"{path} is {what}, and chapters are parts of a film" in capsys.readouterr().err


def test_a_form_that_contradicts_the_ending_is_refused(film, tmp_path, capsys) -> None:
    output = tmp_path / "d.json"
    assert main(["describe", film, "--output", str(output), "--format", "vtt"]) == 2
    message = f"--format vtt contradicts --output {output}, whose ending says json"
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_best_chapters_are_found_and_none_is_too_short() -> None:
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.normal(size=(5, 8)) * 10, [3, 20, 30, 17, 30], axis=0)
    features, times = levels + rng.normal(size=levels.shape), np.arange(100.0)
    assert chapter_starts(features, times, 100.0, shortest=2.0) == [0, 3, 23, 53, 70]
    assert chapter_starts(features, times, 100.0, 5, shortest=2.0) == [0, 3, 23, 53, 70]
    starts = chapter_starts(features, times, 100.0, shortest=10.0)
    assert min(np.diff([*starts, 100])) >= 10 and {23, 53, 70} <= set(starts)
    assert chapter_starts(features[:1], times[:1], 1.0, shortest=10.0) == [0]
    assert chapter_starts(features, times, 100.0, shortest=500.0) == [0]


def test_work_that_was_broken_off_goes_on(pipe, film, tmp_path, monkeypatch) -> None:
    whole, forward, asked = describe(pipe, film), pipe.forward, []

    def failing(inputs, **kwargs):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return forward(inputs, **kwargs)

    monkeypatch.setattr(pipe, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        describe(pipe, film, work=tmp_path / "work")
    read = []
    monkeypatch.setattr(pipe.processor, "encode_video", lambda *args, **kwargs: read.append(1))
    again = describe(pipe, film, work=tmp_path / "work")
    assert again == whole and len(asked) == 3 + 2 + 1 and not read  # two chapters and the summary were missing
    with pytest.raises(ValueError, match="other settings"):
        describe(pipe, film, work=tmp_path / "work", chapters=2)


def test_work_goes_on_whatever_an_answer_says_and_a_film_was_fetched_to(pipe, film, tmp_path) -> None:
    """U+2028 and its like are line breaks for `str.splitlines`; of a URL, each call reads another temporary file."""
    describe(pipe, film, work=tmp_path / "work")
    file, answered = tmp_path / "work" / "answers.jsonl", "a circle,\x85\u2028\u2029then a star"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    rows = [{**row, "video": "/tmp/gone/fetched", "answer": answered} for row in rows]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert {chapter.text for chapter in describe(pipe, film, work=tmp_path / "work").chapters} == {answered}


def test_work_with_subtitles_that_were_read_goes_on(pipe, film, tmp_path) -> None:
    words = read_subtitles(b"1\n00:00:00,100 --> 00:00:00,900\nHello there\n")
    first, second = (describe(pipe, film, work=tmp_path / "work", subtitles=words) for _ in range(2))
    assert first == second and not any(chapter.error for chapter in first.chapters)


def test_subtitles_after_the_end_of_the_film_are_left_out_and_said(pipe, film, caplog) -> None:
    words = b"1\n00:00:01,000 --> 00:00:02,000\nfirst\n\n2\n00:01:00,000 --> 00:01:01,000\nlate\n"
    with caplog.at_level(logging.WARNING):
        describe(pipe, film, chapters=2, subtitles=words)
    (warning,) = [message for message in caplog.messages if "left out" in message]
    assert warning.startswith("1 of 2 lines of subtitles are left out: they begin after the end of ")
    assert "film.mp4" in warning and "the first at 60.000 seconds, while its duration is 4.000 seconds" in warning


def test_chapters_of_another_model_or_another_pool_are_not_gone_on_with(pipe, film, tmp_path, monkeypatch) -> None:
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    work = tmp_path / "work"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipe, "forward", interrupt)
        describe(pipe, film, work=work)
    for options in ({"candidate_fps": 4}, {"max_candidates": 50}, {"seek_mode": "exact"}):
        (name,) = options
        with pytest.raises(ValueError, match=rf"other settings \({name}: .* there, {options[name]} now\)"):
            describe(pipe, film, work=work, **options)
    coarse = tiny_pipeline()
    coarse.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"\(dtype: torch.float32 there, torch.bfloat16 now\)"):
        describe(coarse, film, work=work)
    with monkeypatch.context() as patch:
        patch.setattr(pipe.model.config, "name_or_path", "other/model")
        with pytest.raises(ValueError, match=r"\(model: .* there, other/model now\)"):
            describe(pipe, film, work=work)
    # What the chapters do not depend on may be another before the first answer.
    again = describe(pipe, film, work=work, question="What is seen?")
    assert len(again.chapters) == 4 and not any(chapter.error for chapter in again.chapters)


def test_a_chapter_that_cannot_be_described_says_why_and_the_others_stand(pipe, film, monkeypatch) -> None:
    forward = pipe.forward

    def failing(inputs, **kwargs):
        if len(seen) == 1:
            seen.append(1)
            raise IndexError("odd")
        seen.append(1)
        return forward(inputs, **kwargs)

    seen = []
    monkeypatch.setattr(pipe, "forward", failing)
    description = describe(pipe, film)
    assert [chapter.error for chapter in description.chapters] == [None, "IndexError: odd", None, None]
    assert "(not described: IndexError: odd)" in description.to_text()


def test_the_same_command_asks_once_more_about_what_could_not_be_described(pipe, film, tmp_path, monkeypatch) -> None:
    forward, asked = pipe.forward, []

    def failing_once(inputs, **kwargs):
        asked.append(1)
        if len(asked) == 2:
            raise IndexError("odd")
        return forward(inputs, **kwargs)

    monkeypatch.setattr(pipe, "forward", failing_once)
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pipe)
    output = tmp_path / "film.txt"
    command = ["describe", film, "--shortest", "0.5", "--chapters", "3", "--max-new-tokens", "3"]
    command += ["--output", str(output)]
    assert main(command) == 3 and "IndexError: odd" in output.read_text()
    before = len(asked)
    assert main(command) == 0 and "IndexError" not in output.read_text()
    assert len(asked) == before + 2  # the chapter, and a summary of all
    assert [path.name for path in tmp_path.iterdir()] == ["film.txt"]


DESCRIPTION = VideoDescription(
    "film.mp4",
    3725.5,
    [
        Chapter(0.0, 12.25, "A <red>\ncircle"),
        Chapter(12.25, 3600.999, None, "it broke"),
        Chapter(3600.999, 3725.5, "B & C"),
    ],
    "A summary.\nIn two lines --> here.",
)


def test_every_form_has_every_span() -> None:
    assert json.loads(DESCRIPTION.to("json"))["chapters"][0] == {
        "start": 0.0, "end": 12.25, "text": "A <red>\ncircle", "error": None,
    }  # fmt: skip
    assert DESCRIPTION.to("text").split("\n\n")[1:3] == [
        "0:00 - 0:12\nA <red> circle",
        "0:12 - 1:00:00\n(not described: it broke)",
    ]
    assert DESCRIPTION.to("youtube").splitlines()[::2] == ["0:00 A <red> circle", "1:00:00 B & C"]
    for form in ("srt", "vtt"):
        lines = read_subtitles(DESCRIPTION.to(form).encode())
        assert [(round(line.start, 3), round(line.end, 3)) for line in lines] == spans(DESCRIPTION)
        assert lines[2].text == "B & C"
        with av.open(io.BytesIO(DESCRIPTION.to(form).encode()), format={"srt": "srt", "vtt": "webvtt"}[form]) as file:
            assert file.streams.subtitles
    assert "circle" in read_subtitles(DESCRIPTION.to("vtt").encode())[0].text


def test_chapters_that_youtube_would_not_take_are_refused() -> None:
    short = VideoDescription("a", 20.0, [Chapter(0.0, 5.0, "a"), Chapter(5.0, 16.0, "b"), Chapter(16.0, 20.0, "c")])
    for description in (short, VideoDescription("a", 20.0, [Chapter(0.0, 20.0, "a")])):
        with pytest.raises(ValueError, match="three chapters"):
            description.to_youtube()


def test_a_summary_of_more_than_the_context_is_one_of_summaries(pipe, monkeypatch) -> None:
    chapters = [Chapter(10.0 * n, 10.0 * n + 10, f"part {n} " + "word " * 40) for n in range(12)]
    asked = []

    def answering(text, **kwargs):
        asked.append(text)
        assert len(pipe.processor.tokenizer(text)["input_ids"]) <= 400
        return [{"generated_text": f"sum {len(asked)}"}]

    class Small:
        processor = pipe.processor
        _sanitize_parameters = pipe._sanitize_parameters

        def __call__(self, text, **kwargs):
            return answering(text, **kwargs)

    monkeypatch.setattr(type(pipe.processor), "context_length", 400)
    summary = _summarize(Small(), chapters, "Summarize.", {"max_new_tokens": 5})
    assert summary == f"sum {len(asked)}" and len(asked) > 2
    assert all(sum(f"part {n} " in text for text in asked) == 1 for n in range(12))
    assert "0:00 - " in asked[-1] and " - 2:00: sum" in asked[-1]


def test_an_answer_may_be_allowed_more_tokens_than_the_context_has(pipe, film) -> None:
    assert pipe.processor.context_length < 5000
    description = describe(pipe, film, chapters=2, max_new_tokens=5000, max_time=0.0)  # each ends at its first token
    assert isinstance(description.summary, str)


def test_a_chapter_that_spells_a_control_token_is_summed_up_too(pipe) -> None:
    token = pipe.tokenizer.eos_token
    assert isinstance(_summarize(pipe, [Chapter(0.0, 9.0, f"a {token} b")], "Summarize.", {"max_new_tokens": 2}), str)


def test_a_question_of_a_summary_that_has_no_room_is_refused_before_reading(pipe, film, monkeypatch) -> None:
    monkeypatch.setattr(pipe.processor, "encode_video", lambda *args, **kwargs: pytest.fail("the film was read"))
    with pytest.raises(
        ValueError, match=r"`summary_question` takes \d+ tokens, and \d+ of the context's \d+ are left"
    ):
        describe(pipe, film, summary_question="What was there? " * 2000)
    # `describe` itself limits the answer, which would hold.
    with pytest.raises(ValueError, match=r"has no room.*or raise `max_length`"):
        describe(pipe, film, max_new_tokens=None, max_length=100)


def test_the_command_writes_the_form_that_its_output_names(film, tmp_path, capsys) -> None:
    output = tmp_path / "film.vtt"
    command = ["describe", film, "--shortest", "0.5", "--max-new-tokens", "4"]
    assert main([*command, "--output", str(output), "--chapters", "2"]) == 0
    assert output.read_text().count(" --> ") == 2 and read_subtitles(output)  # two equal lines are read as one
    assert [path.name for path in tmp_path.iterdir()] == ["film.vtt"]
    assert capsys.readouterr().err == DEMONSTRATION + "\n"
    for arguments in (["--output", str(tmp_path / "film.doc")], ["--output", str(tmp_path / "no" / "film.txt")]):
        assert main([*command, *arguments]) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators")
def test_the_command_leaves_the_link_to_its_output(pipe, film, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pipe)
    (tmp_path / "disk").mkdir()
    output, file = tmp_path / "film.txt", tmp_path / "disk" / "film.txt"
    output.symlink_to(file)
    command = ["describe", film, "--shortest", "0.5", "--chapters", "1", "--max-new-tokens", "4"]
    assert main([*command, "--output", str(output)]) in (0, 3)
    assert output.is_symlink() and file.read_text()
    assert len(list(tmp_path.rglob("*"))) == 3


def test_the_subtitles_beside_a_film_are_not_written_over(film, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pytest.fail("a model was loaded"))
    output = tmp_path / "film.srt"
    output.write_text("mine")
    assert main(["describe", film, "--output", str(output)]) == 2
    assert "film.srt is there already: name another file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["film.srt"] and output.read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "records.jsonl"])
def test_a_folder_of_somebody_else_is_no_place_for_the_work_and_stays(pipe, film, tmp_path, capsys, name) -> None:
    work = tmp_path / "film.txt.work"
    work.mkdir()
    (work / name).write_text("mine")
    assert main(["describe", film, "--shortest", "0.5", "--output", str(tmp_path / "film.txt")]) == 2
    assert f"holds {name}, which is none" in capsys.readouterr().err
    with pytest.raises(ValueError, match=f"holds {name}, which is none: remove it, or name another"):
        describe(pipe, film, work=work)
    assert [(path.name, path.read_text()) for path in work.iterdir()] == [(name, "mine")]


@pytest.mark.slow
def test_chapters_of_the_default_fit_the_annotations_of_toy_films(tmp_path) -> None:
    model, processor = load_model(device="cpu")
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device="cpu")
    near = named = starts = things = 0
    for seed in (1, 2, 3):
        path = make_videos(tmp_path / str(seed), Settings("clip", split="test", seed=seed), 6)
        records = [json.loads(line) for line in path.read_text().splitlines()]
        files = [str(path.parent / record["video"]) for record in records]
        clips = [VideoSegment(file, 0.0, probe_video(file).duration) for file in files]
        write_video(clips, tmp_path / f"{seed}.mp4")
        begins = [0.0, *accumulate(clip.end for clip in clips)]
        events = [
            (begin + event["start"], begin + event["end"], event)
            for begin, record in zip(begins, records, strict=False)
            for event in record["events"]
        ]
        changes = [*begins, *(time for start, end, _ in events for time in (start, end))]
        description = describe_video(
            tmp_path / f"{seed}.mp4", model=pipe, shortest=3.0, question="What happens in this video?"
        )
        for chapter in description.chapters[1:]:
            starts += 1
            near += min(abs(chapter.start - time) for time in changes) < 0.5
        for start, end, event in events:
            overlap = lambda each: min(each.end, end) - max(each.start, start)  # noqa: B023, E731
            words = max(description.chapters, key=overlap).text.lower()
            things += 1
            named += f"{event['color']} {event['shape']}" in words
    assert near >= 0.7 * starts, (near, starts)
    assert named >= 0.6 * things, (named, things)


def test_chapters_that_youtube_would_not_take_are_refused_before_they_are_described(
    pipe, film, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(
        "fila_video.inference.describe._describe_chapters", lambda *args: pytest.fail("chapters were described")
    )
    with pytest.raises(ValueError, match=r"YouTube takes three chapters or more .* here are 4, 4 of them shorter"):
        describe(pipe, film, form="youtube")
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pipe)
    command = ["describe", film, "--shortest", "0.5", "--output", str(tmp_path / "film.chapters")]
    assert main(command) == 2 and "here are 4, 4 of them shorter" in capsys.readouterr().err
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pytest.fail("a model was loaded"))
    assert main([*command, "--chapters", "2"]) == 2
    assert "--chapters 2: YouTube takes 3 chapters or more" in capsys.readouterr().err


def test_an_empty_answer_is_the_error_of_its_chapter(pipe, film, monkeypatch, capsys) -> None:
    nothing = pipe.tokenizer.eos_token_id
    description = describe(pipe, film, chapters=2, max_new_tokens=1, suppress_tokens=_all_tokens_but(pipe, nothing))
    assert [(each.text, each.error) for each in description.chapters] == [(None, "the model's answer is empty")] * 2
    assert description.summary is None and "(not described: the model's answer is empty)" in description.to_text()
    monkeypatch.setattr("fila_video.commands.loading.load_pipeline", lambda *args: pipe)
    monkeypatch.setattr(
        "fila_video.commands.cli.call_options",
        lambda args: {"max_new_tokens": 1, "suppress_tokens": _all_tokens_but(pipe, nothing)},
    )
    assert main(["describe", film, "--shortest", "0.5", "--chapters", "2"]) == 3


def _all_tokens_but(pipe, token: int) -> list[int]:
    return [other for other in range(pipe.model.config.text_config.vocab_size) if other != token]


def test_a_film_is_summarized_by_a_pipeline_that_says_a_track_for_all(film, monkeypatch) -> None:
    processor = tiny_processor()
    pipe = VideoTextToTextPipeline(model_for(processor), processor=processor, subtitles="eng")
    monkeypatch.setattr(
        "fila_video.inference.describe._describe_chapters",
        lambda pipe, source, description, *rest: setattr(description.chapters[0], "text", "a circle"),
    )
    assert isinstance(describe(pipe, film, chapters=1, subtitles=None).summary, str)
