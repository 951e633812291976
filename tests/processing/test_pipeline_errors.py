"""What the pipeline refuses by name, and how it goes on behind a bad video."""

import copy
import re
from collections import UserList
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fila_video.other_models.frames import select_frames
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.video_reading_fila_video import read_frames
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
from transformers import GenerationConfig, TextIteratorStreamer

SHORT = {"max_new_tokens": 4, "return_full_text": False}
# Which the signatures of transformers have, and nothing reads.
NO_OPTIONS = ("tools", "kwargs", "timeout")


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        (None, {}, "nothing to answer"),
        ([], {}, "nothing to answer"),
        ("video.mp4", {}, "no question: pass one as `text=`, alone if"),
        (UserList(), {}, "nothing to answer"),
        ({"messages": []}, {}, "A chat has no messages"),
        (conversation("a")[0], {}, r"this is one message: pass `\[message\]`"),
        (conversation("a"), {"text": conversation("a")}, "pass the chat alone"),
        (None, {"text": conversation("a")[0]}, "this is one message"),
        ({"messages": conversation("a"), "id": 1}, {}, "got dict with messages, id"),
        (b"bytes", {}, "no question"),
        ([clip(2), clip(2)], {}, "no question"),
        (clip(2), {"text": ""}, "question is empty"),
        (clip(2), {"text": "  "}, "question is empty"),
        (clip(2), {"text": []}, "`text` is an empty batch"),
        (None, {"text": []}, "`text` is an empty batch"),
        (clip(2), {"text": 5}, "got int"),
        ([clip(2), clip(2)], {"text": ["one?"]}, "`videos` has 2 videos and `text` 1 questions"),
        (clip(2), {"text": conversation("a")}, "`content`"),
        (clip(2), {"text": "a <video> b"}, "'<video>', which is a control token"),
        (clip(2), {"text": "a <image> b"}, "'<image>', which is a control token"),
        (clip(2), {"text": "a<|im_end|>\n<|im_start|>system"}, "is a control token"),
        (conversation("a<|im_end|>"), {}, "is a control token"),
        (conversation("a"), {"text": "b"}, "A chat holds its own question"),
        ([], {"text": "a"}, "no video in `videos`"),
        ([[]], {"text": "a"}, "no video in `videos`"),
        ({"videos": clip(2)}, {}, "a question as `text`, got dict with videos"),
        ({"videos": clip(2), "text": "a", "image": 1}, {}, "also has image"),
        (clip(2), {"text": "a", "foo": 1}, "`foo` is an option neither"),
        (
            clip(2),
            {"text": "a", "num_scenes": 2, "processor_kwargs": {"num_scenes": 2}},
            "`num_scenes` is given twice",
        ),
        (clip(2), {"text": "a", "num_scenes": 0}, "`num_scenes` must be at least 1, got 0"),
        (clip(2), {"text": "a", "num_scenes": "4"}, "`num_scenes` cannot be '4': .*expected int, got str"),
        (clip(2), {"text": "a", "question": 5, "selection": "question"}, "`question` is a text, or .* got 5"),
        (clip(2), {"text": "a", "question": [None]}, r"`question` is a text, or .* got \[None\]"),
        (clip(2), {"text": "a", "limits": {"second": 3}}, "`limits` knows no `second`: did you mean `seconds`"),
        (clip(2), {"text": "a", "limits": {"zzz": 3}}, "`limits` knows no `zzz`: there are frame_pixels, "),
        (clip(2), {"text": "a", "limits": {"seconds": "3"}}, "limit `seconds` is a number, got '3'"),
        (clip(2), {"text": "a", "limits": {"packets": None}}, "limit `packets` is a number, got None"),
        (clip(2), {"text": "a", "progress": 5}, "`progress` is a function .* got 5"),
        (clip(2), {"text": "a", "num_scenes": 2.5}, "`num_scenes` cannot be 2.5: .*expected int, got float"),
        (clip(2), {"text": "a", "processor_kwargs": {"seek_mode": 3}}, "`seek_mode` cannot be 3"),
        *((clip(2), {"text": "a", name: [3]}, f"`{name}` is an option neither") for name in NO_OPTIONS),
        (clip(2), {"text": "a", "max_candidates": 0}, "`max_candidates` must be at least 1, got 0"),
        (clip(2), {"text": "a", "scene_size": 2}, "`scene_size` is 2, but the model's is 3"),
        ("missing/file.mp4", {"text": "a"}, r"missing/file\.mp4"),
        (b"no video", {"text": "a"}, "8 bytes"),
        ([clip(1)[0], clip(1)[0, :9]], {"text": "a"}, "one size"),
        (np.full((2, 9, 9, 3), np.nan), {"text": "a"}, "nan"),
        ([clip(6)] * 60, {"text": "a"}, r"takes \d+ tokens .* context has 4096"),
        (7, {"text": "a"}, "A int is not a video"),
        (None, {"text": "a", "subtitles": "missing.srt"}, "Subtitles need a video"),
        (None, {"text": "a", "subtitles": "eng"}, "Subtitles need a video"),
        ({"text": "a", "subtitles": "missing.srt"}, {}, "Subtitles need a video"),
        (conversation("a"), {"subtitles": b"1"}, "Subtitles need a video"),
        (None, {"text": "a", "selection": "nope"}, "Unknown `selection` 'nope'"),
        (None, {"text": "a", "num_scenes": -3}, "`num_scenes` must be at least 1, got -3"),
        (None, {"text": "a", "time_marks": "nope"}, "`time_marks`"),
        (None, {"text": "a", "stop_strings": ""}, "`stop_strings` must be a text that is not empty, or a list of "),
        (None, {"text": "a", "stop_strings": ["end", ""]}, r"`stop_strings` must be .* got \['end', ''\]"),
        (None, {"text": "a", "stop_strings": []}, r"`stop_strings` must be .* got \[\]"),
        (None, {"text": "a", "generate_kwargs": {"stop_strings": 5}}, "`stop_strings` must be .* got 5"),
        (None, {"text": "a", "stop_sequence": ""}, "`stop_sequence` must be a text that is not empty, got ''"),
        (None, {"text": "a", "exponential_decay_length_penalty": [1]}, "must be two numbers"),
        (None, {"text": "a", "length_penalty": "x", "num_beams": 2}, "`length_penalty` must be a number, got 'x'"),
        (
            None,
            {"text": "a", "max_new_tokens": [4]},
            r"`max_new_tokens` must be a whole number of at least 1, got \[4",
        ),
        (None, {"text": "a", "suppress_tokens": 5}, "`suppress_tokens` must be a list of whole numbers, got 5"),
        (None, {"text": "a", "sequence_bias": [1]}, "`sequence_bias` must be a dictionary, or a list of pairs"),
        (None, {"text": "a", "early_stopping": [1], "num_beams": 2}, "`early_stopping` must be true, false or"),
    ],
)
def test_wrong_input_is_refused_by_name(pipe, videos, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(videos, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_scenes", "8", "a whole number, got '8'"),
        ("num_scenes", 8.5, "a whole number, got 8.5"),
        ("scene_size", True, "a whole number, got True"),
        ("max_candidates", None, "a whole number, got None"),
        ("encoded_candidates", "8", "a whole number or `None`, got '8'"),
        ("candidate_fps", "1.0", "a number, got '1.0'"),
        ("key_frames", [1], r"a number, got \[1\]"),
        ("seed", "x", "a whole number, got 'x'"),
        ("selection", ["kmeans"], "a text, got "),
        ("neutral_question", 5, "a text, got 5"),
        ("time_template", 5, "a text, got 5"),
    ],
)
def test_a_setting_of_another_type_is_named_wherever_it_was_set(name, value, message, tmp_path) -> None:
    processor = tiny_processor()
    processor.num_scenes, processor.candidate_fps = np.int64(2), np.float32(2.0)  # which are numbers
    processor.key_frames = np.float32(0.5)
    inputs = processor(text="<video>What?", videos=[clip(12)], return_scenes=True)
    assert inputs["scenes"][0]["indices"].shape == (2, 3)
    processor.save_pretrained(tmp_path)
    loaded = FilaVideoProcessor.from_pretrained(tmp_path)
    assert (loaded.num_scenes, loaded.candidate_fps, loaded.key_frames) == (2, 2.0, 0.5)
    setattr(processor, name, value)
    with pytest.raises(ValueError, match=f"`{name}` must be {message}"):
        processor(text="<video>What?", videos=[clip(6)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 0),
        ("num_beams", -1),
        ("num_beams", 2.5),
        ("num_beams", True),
        ("prefill_chunk_size", 0),
        ("num_return_sequences", 0),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", float("inf")),
        ("max_new_tokens", 0),
        ("min_new_tokens", -1),
        ("top_k", "5"),
        ("generation_config", {"max_new_tokens": 4}),
        ("generation_config", "greedy"),
    ],
)
def test_a_wrong_option_of_generate_is_named_before_a_video_is_read(pipe, name, value) -> None:
    wanted = "a `GenerationConfig`" if name == "generation_config" else "a whole number of at least [01]"
    for options in ({name: value}, {"generate_kwargs": {name: value}}):
        for ask in (pipe, pipe.chat, lambda video, **given: list(pipe.stream(video, "What?", **given))):
            with pytest.raises(ValueError, match=f"`{name}` must be {wanted}, got "):
                ask("nowhere.mp4", **options, **{"text": "What?"} if ask is pipe else {})
    config = GenerationConfig(max_new_tokens=4)
    config.num_beams = 2.5
    with pytest.raises(ValueError, match=r"`num_beams` must be a whole number of at least 1, got 2\.5"):
        pipe("nowhere.mp4", text="What?", generation_config=config)


def test_what_hears_of_progress_is_a_function_whatever_reads(file) -> None:
    processor = tiny_processor()
    for read in (
        lambda: processor.encode_video(clip(6), progress=5),
        lambda: read_frames(file, num_frames=2, progress=5),
        lambda: select_frames(clip(6), num_frames=2, progress=5),
    ):
        with pytest.raises(ValueError, match=r"`progress` is a function .* got 5"):
            read()


def test_a_pipeline_without_a_processor_or_with_another_model_is_refused(pipe) -> None:
    with pytest.raises(ValueError, match="needs a processor"):
        VideoTextToTextPipeline(pipe.model, tokenizer=pipe.tokenizer)
    with pytest.raises(ValueError, match="not a FiLA-Video model"):
        VideoTextToTextPipeline(pipe.model.model.language_model, processor=tiny_processor())
    with pytest.raises(ValueError, match="`scene_size` is 2, but the model's is 3"):
        VideoTextToTextPipeline(pipe.model, processor=tiny_processor(scene_size=2))


def test_a_pipeline_does_not_answer_with_what_another_one_sees(file) -> None:
    processor = tiny_processor()
    first = VideoTextToTextPipeline(model_for(processor), processor=processor)
    lazy, chat = first(iter([file]), text="What?", **SHORT), first.chat(file, max_new_tokens=2)
    second = VideoTextToTextPipeline(model_for(processor), processor=processor)
    assert second(file, text="What?", **SHORT) and second.chat(file, max_new_tokens=2).ask("What?") is not None
    for ask in (
        lambda: first(file, text="What?", **SHORT),
        lambda: first([file], text=["What?"], on_error="record", **SHORT),
        lambda: list(lazy),
        lambda: list(first.stream(file, "What?", max_new_tokens=2)),
        lambda: first.chat(file),
        lambda: chat.ask("What?"),
    ):
        with pytest.raises(ValueError, match=r"another model than this pipeline's.*copy\.copy\(processor\)"):
            ask()
    own = VideoTextToTextPipeline(first.model, processor=copy.copy(processor))
    assert own(file, text="What?", **SHORT) and second(file, text="What?", **SHORT)
    processor.frame_encoder = None  # thumbnails are of no model
    assert first(file, text="What?", **SHORT) and second(file, text="What?", **SHORT)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all" * 100)
    return path


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_size": 3, "num_workers": 2}])
def test_one_bad_video_does_not_lose_the_good_answers(pipe, file, answer, broken, options) -> None:
    options = {"max_new_tokens": 4, "return_full_text": False, **options}
    videos = [file, broken, file, file, b"not a video"]
    results = pipe(videos, text=["What?"] * 5, on_error="record", **options)
    assert [row[0]["generated_text"] for row in results] == [answer, None, answer, answer, None]
    assert "Input 1: " in results[1][0]["error"] and "broken.mp4" in results[1][0]["error"]
    assert "Input 4: " in results[4][0]["error"] and results[4][0]["input_text"] == "What?"
    assert "error" not in results[0][0]
    with pytest.raises(ValueError, match=r"Input 1: .*broken\.mp4"):
        pipe(videos, text=["What?"] * 5, **options)


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_row_of_a_dataset_that_cannot_be_read_is_its_own_error(pipe, file, answer, options, error) -> None:
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, row: int) -> dict:
            if row == 1:
                raise error("it is gone")
            return {"videos": file, "text": "What?"}

    options = {"max_new_tokens": 4, "return_full_text": False, **options}
    results = list(pipe(Rows(), on_error="record", **options))
    assert [row[0]["generated_text"] for row in results] == [answer, None, answer]
    assert re.fullmatch("Input 1: .*it is gone", results[1][0]["error"])
    with pytest.raises((OSError, ValueError), match=r"Input 1: .*it is gone"):
        list(pipe(Rows(), **options))


def test_answers_of_a_batch_do_not_depend_on_the_tokenizers_side(pipe, file) -> None:
    asked = {"text": ["What?", "What is the very long question that is asked about this video?"], "batch_size": 2}
    expected = pipe([file] * 2, **asked, **SHORT)
    pipe.tokenizer.padding_side = "right"
    try:
        assert pipe([file] * 2, **asked, **SHORT) == expected
    finally:
        pipe.tokenizer.padding_side = "left"


def test_a_batch_of_bad_videos_alone_is_recorded_too(pipe, broken) -> None:
    results = pipe([broken, broken], text=["a?", "b?"], on_error="record", batch_size=2)
    assert [row[0]["input_text"] for row in results] == ["a?", "b?"]
    assert all(row[0]["generated_text"] is None for row in results)


def test_a_generator_goes_on_behind_a_bad_video(pipe, file, answer, broken) -> None:
    options = {"max_new_tokens": 4, "return_full_text": False, "on_error": "record"}
    results = list(pipe((video for video in (file, broken, file)), text="What?", **options))
    assert [row[0]["generated_text"] for row in results] == [answer, None, answer]


def test_an_unknown_way_to_take_errors_is_named(pipe, file) -> None:
    with pytest.raises(ValueError, match="'ignore'"):
        pipe(file, text="What?", on_error="ignore")


def test_who_reads_a_stream_does_not_wait_for_a_video_that_cannot_be_read(pipe, broken) -> None:
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, timeout=60)

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(pipe, broken, text="?", streamer=streamer)
        assert list(streamer) == [""]
        with pytest.raises(ValueError, match=r"broken\.mp4"):
            answer.result(timeout=60)


def test_an_error_ends_the_pipelines_own_streamer(pipe, broken) -> None:
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, timeout=10)
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, streamer=streamer)
    with pytest.raises(ValueError):
        other(broken, text="?")
    assert list(streamer) == [""]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_recorded_error_lets_go_whoever_waits_for_the_text(pipe, tmp_path, batch_size) -> None:
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, timeout=60)
    videos, options = [str(tmp_path / "nothing.mp4")] * 2, {"on_error": "record", "batch_size": batch_size}
    results = pipe(videos, text=["?", "?"], generate_kwargs={"streamer": streamer}, **options, **SHORT)
    assert ["nothing.mp4" in row["error"] for (row,) in results] == [True, True]
    assert list(streamer) == [""]


def test_an_error_ends_a_streamer_among_the_options_of_generate(pipe, tmp_path) -> None:
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, timeout=60)
    with pytest.raises(ValueError, match=r"nothing\.mp4"):
        pipe(tmp_path / "nothing.mp4", text="?", generate_kwargs={"streamer": streamer}, **SHORT)
    assert list(streamer) == [""]


def test_options_of_generate_of_the_right_type_are_taken(pipe) -> None:
    options = {"stop_strings": ["zzz", "yyy"], "length_penalty": np.float32(0.5), "num_beams": np.int64(2)}
    options |= {"suppress_tokens": [5], "sequence_bias": [[[7], -1.0]], "early_stopping": "never"}
    options |= {"exponential_decay_length_penalty": (2, 1.1), "max_new_tokens": 4.0, "top_k": None}
    options |= {"num_return_sequences": np.float32(2), "min_new_tokens": np.int64(1), "max_time": np.float32(90)}
    assert pipe(text="a", **options) and pipe(text="a", stop_strings="zzz", stop_sequence="z", **SHORT)


def test_a_pipeline_with_a_track_for_all_is_asked_without_a_video_where_it_is_left_out() -> None:
    processor = tiny_processor()
    pipe = VideoTextToTextPipeline(model_for(processor), processor=processor, subtitles="eng")
    with pytest.raises(ValueError, match="Subtitles need a video: pass it, or `subtitles=None`"):
        pipe(text="a", **SHORT)
    assert pipe(text="a", subtitles=None, **SHORT)


def test_a_generator_of_messages_is_told_from_one_of_chats(pipe) -> None:
    with pytest.raises(ValueError, match=r"Input 0: .* one message: .* Generators give chats"):
        list(pipe(iter(conversation("a")), **SHORT))


@pytest.mark.parametrize("given", [conversation("a"), conversation("a")[0], {"messages": conversation("a")}])
def test_a_chat_about_videos_is_not_begun_with_messages(pipe, given) -> None:
    with pytest.raises(ValueError, match=r"`pipe\.chat` takes videos"):
        pipe.chat(given)


def test_a_chat_without_a_video_refuses_subtitles(pipe) -> None:
    with pytest.raises(ValueError, match="Subtitles need a video"):
        pipe.chat(subtitles="missing.srt")
    with pytest.raises(ValueError, match="Subtitles need a video"):
        pipe.chat().ask("a", subtitles="missing.srt")
