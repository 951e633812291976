"""Conversations: a turn costs its own tokens, says what a fresh prompt would say, and shares nothing with others."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video.chat_session_fila_video import Result, Text
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.tiny_processor import clip, conversation, model_for, tiny_pipeline, tiny_processor
from helpers.video_files import make_video
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

ROOT = Path(__file__).resolve().parent.parent.parent
QUESTIONS = ["What?", "And what is to the left of it, before the end?", "Why?"]
SHORT = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(scope="module")
def compressed():
    return tiny_pipeline(layer_compression="cosine")


class Recorder(LogitsProcessor):
    """Keeps the logits of every token that is written."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits.append(scores.detach().float().clone())
        return scores


class Reads:
    """Counts the tokens that go through the language model."""

    def __init__(self, model) -> None:
        self.lengths: list[int] = []
        layer = model.model.language_model.layers[0]
        self.hook = layer.register_forward_pre_hook(
            lambda _, args, kwargs: self.lengths.append((args[0] if args else kwargs["hidden_states"]).shape[1]),
            with_kwargs=True,
        )

    def __enter__(self) -> "Reads":
        return self

    def __exit__(self, *_) -> None:
        self.hook.remove()


def fresh(pipe, videos: list, messages: list[dict], **options) -> tuple[str, torch.Tensor]:
    """The answer to the last message and its logits, with everything read anew."""
    (first, *rest), recorder = messages, Recorder()
    (block,) = conversation(*videos, first["content"])
    result = pipe([block, *rest], return_full_text=False, logits_processor=[recorder], **{**SHORT, **options})
    return result[0]["generated_text"], torch.cat(recorder.logits)


def ask(chat, question: str, **options) -> tuple[str, torch.Tensor]:
    recorder = Recorder()
    answer = chat.ask(question, logits_processor=[recorder], **{**SHORT, **options})
    return answer, torch.cat(recorder.logits)


@pytest.mark.parametrize("kind", ["pipe", "compressed"])
def test_every_turn_says_what_a_fresh_prompt_says_and_reads_its_own_tokens_alone(kind, file, request) -> None:
    pipe = request.getfixturevalue(kind)
    chat = pipe.chat(file)
    for turn, question in enumerate(QUESTIONS):
        with Reads(pipe.model) as reads:
            answer, logits = ask(chat, question)
        expected, expected_logits = fresh(pipe, [file], chat.messages[:-1])
        assert answer == expected
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
        assert reads.lengths[0] == chat.tokens_read
        assert reads.lengths[0] < 80 if turn else reads.lengths[0] > 80
        assert set(reads.lengths[1:]) <= {1}
    assert chat.rebuilds == 0 and len(chat.messages) == 6


class Spelling(LogitsProcessor):
    """Makes the model write a text, a letter a token."""

    def __init__(self, tokenizer, text: str) -> None:
        self.ids = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in text]
        self.ids.append(tokenizer.eos_token_id)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -1e9)
        forced[:, self.ids.pop(0)] = 0
        return forced


@pytest.mark.parametrize("text", ["<video>", "a <image> or <video>", "<|im_end|>"])
def test_a_chat_goes_on_behind_an_answer_that_spells_a_control_token(pipe, file, text, tmp_path) -> None:
    chat = pipe.chat(file)
    options = {"max_new_tokens": 30, "logits_processor": [Spelling(pipe.tokenizer, text)]}
    assert chat.ask("What?", **options) == text == chat.messages[1]["content"]
    chat.save(tmp_path / "chat")
    answer = chat.ask("And now?", **SHORT)
    assert chat.rebuilds == 0
    resumed = pipe.resume_chat(tmp_path / "chat")
    assert resumed.messages[1]["content"] == text and resumed.ask("And now?", **SHORT) == answer
    with pytest.raises(ValueError, match="is a control token of the model and not for users"):
        chat.ask(text)


@pytest.mark.parametrize("kind", ["pipe", "compressed"])
def test_a_turn_with_other_scenes_reads_the_prompt_anew_and_is_counted(kind, file, request) -> None:
    pipe = request.getfixturevalue(kind)
    chat = pipe.chat(file)
    ask(chat, "What?")
    answer, logits = ask(chat, "And now?", num_scenes=2)
    expected, expected_logits = fresh(pipe, [file], chat.messages[:-1], num_scenes=2)
    assert answer == expected and chat.rebuilds == 1
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    assert [tuple(scenes["indices"].shape) for scenes in chat.scenes] == [(2, 3)]
    ask(chat, "And then?", num_scenes=2)
    assert chat.rebuilds == 1 and chat.tokens_read < 40


def test_other_scenes_are_noticed_where_the_prompt_does_not_name_their_times(pipe) -> None:
    video = pipe.processor.encode_video(clip(30))
    chat = pipe.chat(video, time_marks="none")
    ask(chat, "What?", selection="uniform")
    answer, logits = ask(chat, "What?", selection="kmeans")
    assert chat.rebuilds == 1
    expected, expected_logits = fresh(pipe, [video], chat.messages[:-1], time_marks="none", selection="kmeans")
    assert answer == expected
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_a_question_that_chooses_other_scenes_reads_the_prompt_anew_and_is_counted(pipe, file) -> None:
    """The questions are so different that a random model's attention to the frames is, too."""
    chat = pipe.chat(file, selection="question", num_scenes=2, max_candidates=24, question_spacing=0.0)
    seen = []
    for question in (*QUESTIONS, QUESTIONS[-1]):
        answer, logits = ask(chat, question)
        expected, expected_logits = fresh(
            pipe, [chat.videos[0]], chat.messages[:-1], selection="question", num_scenes=2, question_spacing=0.0
        )
        assert answer == expected and chat.scenes[0]["scores"]["question"] == question
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
        seen.append(chat.scenes[0]["indices"].tolist())
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert chat.rebuilds == changes > 0


def test_a_question_that_changes_the_visual_tokens_reads_the_prompt_anew(file) -> None:
    settings = {"frame_encoding": "cooperative", "scene_size": 1, "background_tokens": 2}
    settings |= {"num_prototypes": 6, "key_frames": 0.5}
    processor = tiny_processor(**settings)
    pipe = VideoTextToTextPipeline(model_for(processor, **settings), processor=processor)
    chat = pipe.chat(file)
    for question in (*QUESTIONS, QUESTIONS[-1]):
        answer, logits = ask(chat, question)
        expected, expected_logits = fresh(pipe, [file], chat.messages[:-1])
        assert answer == expected
        torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    assert chat.rebuilds == 2  # the last question repeats the one before


def test_the_file_is_read_and_encoded_once(pipe, file, tmp_path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(file.read_bytes())
    steps = []
    chat = pipe.chat(copy, progress=lambda *step: steps.append(step))
    copy.unlink()
    assert {stage for stage, *_ in steps} == {"reading", "encoding"}
    ask(chat, "What?")
    ask(chat, "And?", num_scenes=3)
    assert chat.scenes[0]["pictures"].shape == (3, 3, 15, 20, 3)


@pytest.mark.parametrize(
    ("system", "message"),
    [({"role": "system"}, "`system` is the text of a system message, got dict"), ("Hi<|im_end|>", "a control token")],
)
def test_a_wrong_system_message_is_told_before_a_video_is_read(pipe, system, message) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.chat("missing.mp4", system=system)


def test_several_videos_or_none_and_a_system_message(pipe, file) -> None:
    videos = [file, pipe.processor.encode_video(clip(20))]
    chat = pipe.chat(videos, system="Answer in one word.", num_scenes=2)
    for question in QUESTIONS[:2]:
        answer, logits = ask(chat, question)
        system, *messages = chat.messages[:-1]
        (block,) = conversation(*videos, messages[0]["content"])
        recorder = Recorder()
        result = pipe(
            [system, block, *messages[1:]], logits_processor=[recorder], return_full_text=False, num_scenes=2, **SHORT
        )
        assert answer == result[0]["generated_text"]
        torch.testing.assert_close(logits, torch.cat(recorder.logits), atol=1e-5, rtol=1e-5)
    assert len(chat.scenes) == 2
    alone = pipe.chat()
    assert ask(alone, "What?")[0] == fresh(pipe, [], [{"role": "user", "content": "What?"}])[0]
    assert alone.scenes is None


def test_many_at_once_share_the_model_and_nothing_else(pipe, file) -> None:
    video = pipe.processor.encode_video(file)
    talks = [[f"{question} {number}" for question in QUESTIONS] for number in range(4)]
    expected = [[pipe_chat.ask(q, **SHORT) for q in talk] for talk in talks for pipe_chat in [pipe.chat(video)]]
    chats, said = [pipe.chat(video) for _ in talks], [[] for _ in talks]
    start = threading.Barrier(len(talks))

    def run(number: int) -> None:
        start.wait()
        for question in talks[number]:
            said[number].append(chats[number].ask(question, **SHORT))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(talks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == expected
    assert [chat.rebuilds for chat in chats] == [0] * 4


def test_an_answer_can_be_streamed_and_its_pieces_are_the_answer(pipe, file) -> None:
    chat, other = pipe.chat(file), pipe.chat(file)
    for question in QUESTIONS:
        *pieces, result = chat.stream(question, **SHORT)
        assert all(isinstance(piece, Text) for piece in pieces) and isinstance(result, Result)
        assert "".join(piece.piece for piece in pieces) == result.answer == other.ask(question, **SHORT)
        assert torch.equal(result.scenes[0]["indices"], chat.scenes[0]["indices"])


def test_a_stream_that_is_closed_ends_at_the_next_token_and_counts_as_not_asked(pipe, file) -> None:
    chat = pipe.chat(file)
    ask(chat, "What?")
    with Reads(pipe.model) as reads:
        stream = chat.stream("Tell me all.", max_new_tokens=3000, min_new_tokens=3000)
        next(stream)
        stream.close()
        answer, logits = ask(chat, "And then?")  # waits until the other has ended
    assert len(reads.lengths) < 1000
    assert [message["content"] for message in chat.messages[::2]] == ["What?", "And then?"]
    expected, expected_logits = fresh(pipe, [file], chat.messages[:-1])
    assert answer == expected and chat.rebuilds == 0
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_an_error_while_answering_costs_the_cache_but_not_the_conversation(pipe, file) -> None:
    class Broken(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of luck")

    chat = pipe.chat(file)
    ask(chat, "What?")
    with pytest.raises(RuntimeError, match="out of luck"):
        chat.ask("And?", logits_processor=[Broken()])
    with pytest.raises(RuntimeError, match="out of luck"):
        list(chat.stream("And?", logits_processor=[Broken()]))
    assert len(chat.messages) == 2
    answer, _ = ask(chat, "And then?")
    assert answer == fresh(pipe, [file], chat.messages[:-1])[0]


@pytest.mark.parametrize("where", ["question", "generate_kwargs", "conversation", "pipeline"])
@pytest.mark.parametrize("wrong", [{"nothing": 1}, {"num_beams": 2}, {"stopping_criteria": StoppingCriteriaList([5])}])
def test_an_error_lets_go_whoever_waits_for_the_text_of_an_answer(pipe, file, where, wrong) -> None:
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, timeout=10)
    given = {"streamer": streamer}
    given = {"generate_kwargs": given} if where == "generate_kwargs" else given
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **given if where == "pipeline" else {})
    chat = other.chat(file, **given if where == "conversation" else {})
    with pytest.raises((ValueError, TypeError)):
        chat.ask("What?", **wrong, **given if where in ("question", "generate_kwargs") else {})
    assert "".join(streamer) == ""


@pytest.mark.parametrize("form", ["ask", "stream"])
def test_a_turn_behind_an_error_counts_as_one_that_read_the_whole_prompt(pipe, file, form) -> None:
    class Broken(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
            raise RuntimeError("out of luck")

    def fail() -> None:
        with pytest.raises(RuntimeError, match="out of luck"):
            options = {"stopping_criteria": StoppingCriteriaList([Broken()]), **SHORT}
            chat.ask("And?", **options) if form == "ask" else list(chat.stream("And?", **options))

    chat = pipe.chat(file)
    fail()
    ask(chat, "What?")
    assert chat.rebuilds == 0  # the first answer has to read it
    fail()
    ask(chat, "And then?")
    assert chat.rebuilds == 1
    ask(chat, "Why?")
    assert chat.rebuilds == 1


@pytest.mark.parametrize("where", ["the question", "the conversation", "the pipeline"])
@pytest.mark.parametrize(
    "setting",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
        {"prompt_lookup_num_tokens": 3},
        {"num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"use_cache": False},
        {"use_mtp": True},
        {"assistant_early_exit": 1},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_a_conversation_cannot_do_is_refused_in_a_whole_configuration_too(pipe, file, setting, where) -> None:
    given = {"generation_config": GenerationConfig(max_new_tokens=4, **setting)}
    own, options, asked = (
        given if where == f"the {name}" else {} for name in ("pipeline", "conversation", "question")
    )
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **own)
    with pytest.raises(ValueError, match=f"it knows no `{next(iter(setting))}="):
        other.chat(file, **options).ask("What?", **asked)
    assert pipe.chat(file).ask("What?", generation_config=GenerationConfig(max_new_tokens=4)) is not None


def test_a_question_may_be_asked_while_frames_go_by_another(pipe, file) -> None:
    chat = pipe.chat(file, **SHORT)
    options = {"question": "a red square", "selection": "question", "num_scenes": 2}
    chat.ask("What?", **options)
    assert chat.scenes[0]["scores"]["question"] == "a red square"
    list(chat.stream("And then?", **options))
    assert chat.messages[2]["content"] == "And then?"
    assert chat.scenes[0]["scores"]["question"] == "a red square"


def test_the_length_of_the_whole_conversation_can_be_set(pipe, file) -> None:
    first = pipe.chat(file, **SHORT)
    first.ask("What?")
    chat, recorder = pipe.chat(file, max_new_tokens=9), Recorder()
    chat.ask("What?", max_length=first.tokens_read + 3, eos_token_id=-1, logits_processor=[recorder])
    assert len(torch.cat(recorder.logits)) == 3


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("", {}, "question is empty"),
        ("<video>", {}, "control token"),
        ([{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}], {}, "is text, got list: pictures"),
        ("What?", {"num_beams": 2}, "one answer a turn, so it knows no `num_beams=2`"),
        ("What?", {"num_return_sequences": 2, "do_sample": True}, "num_return_sequences=2"),
        ("What?", {"use_cache": False}, "use_cache=False"),
        ("What?", {"cache_implementation": "static"}, "cache_implementation=static"),
        ("What?", {"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens"),
        ("What?", {"return_full_text": False}, "no results to shape: leave out 'return_full_text'"),
        ("What?", {"return_tensors": True}, "leave out 'return_tensors'"),
        ("What?", {"skip_special_tokens": True, "return_type": 0}, "leave out 'return_type', 'skip_special_tokens'"),
        ("What?", {"on_error": "record"}, "no results to shape"),
        ("What?", {"nothing": 1}, "`nothing` is an option neither"),
        ("What?", {"candidate_fps": 7.0}, "needs another reading"),
        ("word " * 5000, {}, "the model's context has"),
    ],
)
def test_a_question_that_cannot_be_answered_leaves_the_conversation_as_it_was(
    pipe, file, question, options, message
) -> None:
    chat = pipe.chat(file)
    first, _ = ask(chat, "What?")
    with pytest.raises(ValueError, match=message):
        chat.ask(question, **options)
    assert [one["content"] for one in chat.messages] == ["What?", first]
    ask(chat, "And then?")
    assert chat.rebuilds == 0


def test_pictures_stand_before_the_first_question(pipe, file, tmp_path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(picture)
    chat = pipe.chat([file, picture])
    ask(chat, "What?")
    answer, logits = ask(chat, "And then?")
    assert [len(scenes["indices"]) for scenes in chat.scenes] == [4, 1]
    expected, expected_logits = fresh(pipe, [file, picture], chat.messages[:-1])
    assert answer == expected
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_options_of_the_session_hold_for_every_question(pipe, file) -> None:
    chat = pipe.chat(file, num_scenes=2, candidate_fps=5.0, **SHORT)
    chat.ask("What?")
    assert chat.scenes[0]["indices"].shape == (2, 3) and len(chat.videos[0]) == 15
    with pytest.raises(ValueError, match="neither of `generate`"):
        pipe.chat(file, nothing=1)
    with pytest.raises(ValueError, match="num_beams=3"):
        pipe.chat(file, num_beams=3)


def test_the_videos_are_read_for_the_scenes_that_are_asked_for(pipe, tmp_path) -> None:
    """A pool of other settings would have too few frames, or others than `uniform` selection shows."""
    film = make_video(tmp_path / "film.mp4", 240, fps=10)
    for own, options in (
        ({}, {"num_scenes": 9, "max_candidates": 40}),
        ({}, {"processor_kwargs": {"num_scenes": 9, "max_candidates": 40}}),
        ({"num_scenes": 9}, {"max_candidates": 40}),
        ({}, {"selection": "uniform", "candidate_fps": 5.0}),
        ({"selection": "uniform", "candidate_fps": 5.0}, {}),
        ({}, {"selection": "uniform", "even_frames": "middles"}),
    ):
        other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **own)
        chat = other.chat(film, **options)
        chat.ask("What?", **SHORT)
        (record,) = other(film, text="What?", return_scenes=True, **options, **SHORT)
        assert torch.equal(chat.scenes[0]["indices"], record["scenes"][0]["indices"])


def test_a_questions_options_go_over_the_sessions_and_these_over_the_pipelines(pipe, file) -> None:
    own = {"processor_kwargs": {"num_scenes": 2}, "generate_kwargs": {"max_new_tokens": 3}, "return_full_text": False}
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, **own)
    chat = other.chat(file, seed=3, processor_kwargs={"init": "random"}, do_sample=False)
    expected = {"num_scenes": 2, "seed": 3, "init": "random", "max_new_tokens": 3, "do_sample": False}
    for options in ({}, {"processor_kwargs": {"num_scenes": 3}}, {"num_scenes": 4, "max_new_tokens": 6}):
        answer = chat.ask("What?", **options)
        expected |= options.get("processor_kwargs", options)
        assert answer == fresh(pipe, chat.videos, chat.messages[:-1], **expected)[0]
        assert len(chat.scenes[0]["indices"]) == expected["num_scenes"]
        expected |= {"num_scenes": 2, "max_new_tokens": 3}


def test_what_ends_every_answer_ends_a_streamed_one_too(pipe, file) -> None:
    class AfterTwo(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
            written.append(input_ids.shape[1])
            return torch.full((len(input_ids),), len(written) >= 2)

    criteria = StoppingCriteriaList([AfterTwo()])
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, stopping_criteria=criteria)
    for stream in (
        pipe.chat(file, stopping_criteria=criteria).stream,
        other.chat(file).stream,
        lambda text, **options: other.stream(file, text=text, **options),
    ):
        written = []
        list(stream("What?", max_new_tokens=6, min_new_tokens=6))
        assert len(written) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_does_not_decode_is_an_error_of_reading(pipe, file) -> None:
    with pytest.raises(ValueError, match="hwaccel"):
        pipe.chat(file, hwaccel="cuda")


def test_an_unknown_option_is_said_before_the_video_is_read(pipe, file) -> None:
    steps = []
    with pytest.raises(ValueError, match="`nothing` is an option neither"):
        pipe.chat(file, progress=lambda *step: steps.append(step), nothing=1)
    assert not steps


def test_a_pipeline_that_reaches_no_private_hosts_does_not_in_a_chat(pipe) -> None:
    other = VideoTextToTextPipeline(pipe.model, processor=pipe.processor, allow_private_hosts=False)
    with pytest.raises(ValueError, match="allow_private_hosts"):
        other.chat("http://127.0.0.1:1/video.mp4")


def test_a_chat_about_frames_takes_their_metadata(pipe) -> None:
    frames = clip(20)
    for metadata in ({"fps": 2.0}, [{"fps": 2.0}]):
        chat = pipe.chat(frames, video_metadata=metadata)
        assert chat.videos[0].metadata.duration == 10.0 and isinstance(chat.ask("What?", **SHORT), str)
    with pytest.raises(ValueError, match="describes 2 videos, but 1 were passed"):
        pipe.chat(frames, video_metadata=[{"fps": 2.0}, None])


def test_a_saved_conversation_goes_on(pipe, file, tmp_path) -> None:
    chat = pipe.chat(file, system="Be short.", num_scenes=np.int64(3), processor_kwargs={"fps": np.float64(2)})
    ask(chat, "What?")
    chat.save(tmp_path / "talk")
    resumed = pipe.resume_chat(tmp_path / "talk")
    assert resumed.messages == chat.messages and resumed.options == chat.options
    ours, theirs = ask(resumed, "And then?"), ask(chat, "And then?")
    assert ours[0] == theirs[0]
    torch.testing.assert_close(ours[1], theirs[1], atol=1e-5, rtol=1e-5)
    chat.save(tmp_path / "talk")
    assert len(pipe.resume_chat(tmp_path / "talk").messages) == 5
    assert sorted(path.name for path in (tmp_path / "talk").iterdir()) == ["chat.json", "video_0.safetensors"]
    with pytest.raises(ValueError, match="options of this chat cannot be saved"):
        pipe.chat(file, logits_processor=[Recorder()]).save(tmp_path / "other")
    (tmp_path / "talk" / "chat.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match=r"chat.json is no chat of this version"):
        pipe.resume_chat(tmp_path / "talk")
    with pytest.raises(ValueError, match="holds no chat that was saved"):
        pipe.resume_chat(tmp_path)


def test_a_conversation_is_saved_into_a_new_folder_or_over_another_and_nowhere_else(pipe, file, tmp_path) -> None:
    two, one, folder = pipe.chat([file, file]), pipe.chat(file), tmp_path / "talk"
    for name, text in (("notes.txt", "mine"), ("chat.json", '{"messages": []}'), ("chat.json", "no JSON")):
        other = tmp_path / "other"
        other.mkdir()
        (other / name).write_text(text)
        with pytest.raises(ValueError, match=rf"Nothing is saved: name a new or an empty folder.* {other}"):
            one.save(other)
        assert [(path.name, path.read_text()) for path in other.iterdir()] == [(name, text)]
        (other / name).unlink()
        other.rmdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="Nothing is saved"):
        one.save(tmp_path / "file")
    folder.mkdir()
    two.save(folder)
    (folder / "board.png").write_bytes(b"mine")
    one.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["board.png", "chat.json", "video_0.safetensors"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # that of any new file
    assert len(pipe.resume_chat(folder).videos) == 1
    (folder / "video_1.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"video_1\.safetensors is not of the chat that was saved there"):
        two.save(folder)
    assert (folder / "video_1.safetensors").read_bytes() == b"mine"


def test_a_conversation_that_cannot_be_written_leaves_the_saved_one_whole(pipe, file, tmp_path, monkeypatch) -> None:
    chat, folder = pipe.chat([file, file]), tmp_path / "talk"
    chat.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ask(chat, "What?")
    save = type(chat.videos[0]).save

    def fail(video, path) -> None:
        if path.name == "video_1.safetensors":
            raise OSError("No space left on device")
        save(video, path)

    monkeypatch.setattr(type(chat.videos[0]), "save", fail)
    with pytest.raises(OSError, match="No space"):
        chat.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


class Killed(BaseException):
    """What no handler of errors sees, since the process is gone."""


@pytest.mark.parametrize("moved", [0, 1, 2], ids=["before any file", "after a video", "before the words"])
@pytest.mark.parametrize("is_new", [True, False], ids=["a new folder", "a saved chat"])
def test_a_conversation_whose_saving_was_killed_is_never_a_mixture_and_can_be_saved_again(
    pipe, file, tmp_path, monkeypatch, moved, is_new
) -> None:
    folder, replace, done = tmp_path / "talk", os.replace, []
    if not is_new:
        pipe.chat([clip(20), clip(20), clip(20)]).save(folder)
    chat = pipe.chat([file, file])
    ask(chat, "What?")

    def killed(source, target) -> None:
        if Path(target).parent == folder:
            if len(done) == moved:
                raise Killed
            done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    # Nobody cleans up behind a process that was killed.
    monkeypatch.setattr(
        tempfile.TemporaryDirectory, "__exit__", lambda self, *error: self._finalizer.detach() and None
    )
    with pytest.raises(Killed):
        chat.save(folder)
    monkeypatch.undo()
    assert any(path.name.startswith(".saving-") for path in folder.iterdir())
    with pytest.raises(ValueError, match="holds no chat that was saved"):
        pipe.resume_chat(folder)
    (folder / "video_7.safetensors").write_text("somebody else's")
    chat.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat.json",
        "video_0.safetensors",
        "video_1.safetensors",
        "video_7.safetensors",
    ]
    assert pipe.resume_chat(folder).messages == chat.messages


def test_a_saved_conversation_survives_a_save_that_fails(pipe, file, tmp_path, monkeypatch) -> None:
    folder, replace = tmp_path / "talk", os.replace
    chat = pipe.chat(file)
    chat.save(folder)
    saved = list(chat.messages)
    ask(chat, "What?")

    def in_use(source, target) -> None:  # as Windows says of a file that somebody reads
        if Path(target) == folder / "video_0.safetensors":
            raise PermissionError(13, "in use", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", in_use)
    with pytest.raises(PermissionError):
        chat.save(folder)
    monkeypatch.undo()
    assert pipe.resume_chat(folder).messages == saved
    chat.save(folder)
    assert pipe.resume_chat(folder).messages == chat.messages


@pytest.mark.slow
def test_a_saved_conversation_goes_on_in_another_process(tmp_path) -> None:
    program = (
        "import sys\n"
        "from fila_video import VideoTextToTextPipeline, load_model\n"
        "model, processor = load_model(device='cpu')\n"
        "pipe = VideoTextToTextPipeline(model, processor=processor)\n"
        "resume = sys.argv[1] == 'resume'\n"
        "chat = pipe.resume_chat(sys.argv[2]) if resume else pipe.chat('examples/shapes.mp4')\n"
        "if not resume: chat.ask('What appears at the end?'); chat.save(sys.argv[2])\n"
        "print(chat.ask('What color is the ring?'))\n"
        "print([message['content'] for message in chat.messages])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program, what, str(tmp_path / "talk")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
        for what in ("begin", "resume")
    ]
    assert said[0].stdout and said[0].stdout == said[1].stdout, said[1].stderr[-3000:]
