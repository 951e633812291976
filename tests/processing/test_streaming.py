"""`pipe.stream`: what happens while a question is answered, as one stream that can be closed at any time."""

import threading
import time

import pytest
import torch
from fila_video.chat_session_fila_video import Progress, Result, Text
from fila_video.video_reading_fila_video import VideoReadError
from helpers.tiny_processor import conversation
from helpers.video_files import make_video
from transformers import TextStreamer

SHORT = {"max_new_tokens": 6}


def wait_for_workers() -> bool:
    """Whether the threads that answer have all ended, within a minute."""
    until = time.monotonic() + 60
    while any(thread.name == "fila-video answer" for thread in threading.enumerate()):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("as_chat", [True, False])
def test_progress_then_text_then_the_result(pipe, file, as_chat) -> None:
    question = (conversation(file, "What?"),) if as_chat else (file, "What?")
    events = list(pipe.stream(*question, **SHORT))
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Progress, Text, Result].index)
    steps = [event for event in events if isinstance(event, Progress)]
    assert [step.stage for step in steps] == sorted((step.stage for step in steps), reverse=True)
    assert steps[-1].stage == "encoding" and steps[-1].done == steps[-1].total
    answered = pipe(*question, return_full_text=False, return_scenes=True, **SHORT)[0]
    assert events[-1].answer == answered["generated_text"]
    assert events[-1].answer == "".join(event.piece for event in events if isinstance(event, Text))
    assert torch.equal(events[-1].scenes[0]["indices"], answered["scenes"][0]["indices"])
    assert wait_for_workers()


def test_the_pictures_of_the_scenes_come_if_asked_for(pipe, file) -> None:
    *_, result = pipe.stream(file, "What?", return_scenes="pictures", **SHORT)
    assert result.scenes[0]["pictures"].shape[:2] == (4, 3)
    *_, result = pipe.stream(text="What?", **SHORT)
    assert result.scenes is None


def test_closing_it_ends_the_reading(pipe, tmp_path) -> None:
    file = make_video(tmp_path / "long.mp4", 400, fps=10)
    stream = pipe.stream(file, "What?", num_frames=400, **SHORT)
    assert next(stream) == Progress("reading", 1, 400)
    calls = []
    hook = pipe.model.model.vision_tower.register_forward_pre_hook(lambda *args: calls.append(1))
    stream.close()
    assert wait_for_workers() and not calls
    hook.remove()


def test_closing_it_ends_the_generation(pipe, file) -> None:
    steps = []
    hook = pipe.model.register_forward_pre_hook(lambda *args: steps.append(1))
    stream = pipe.stream(file, "What?", max_new_tokens=3000, min_new_tokens=3000)
    for event in stream:
        if isinstance(event, Text):
            break
    stream.close()
    assert wait_for_workers() and len(steps) < 1000
    hook.remove()
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_that_nobody_holds_any_more_ends_too(pipe, file) -> None:
    next(pipe.stream(file, "What?", max_new_tokens=3000, min_new_tokens=3000))
    assert wait_for_workers()


def test_an_error_is_raised_in_it(pipe, tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        list(pipe.stream(broken, "What?", **SHORT))
    with pytest.raises(ValueError, match="beam"):
        list(pipe.stream(text="What?", num_beams=2, **SHORT))
    assert wait_for_workers()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streamer": TextStreamer(None)}, "`streamer` is what a stream is in place of"),
        ({"progress": print}, "`progress` is what a stream is in place of"),
        ({"return_full_text": True}, "leave out `return_full_text`"),
        ({"batch_size": 2}, "leave out `batch_size`"),
        ({"nothing": 2}, "`nothing` is an option neither"),
    ],
)
def test_options_that_make_no_sense_in_a_stream_are_refused(pipe, file, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        list(pipe.stream(file, "What?", **options))


def test_several_questions_are_refused(pipe, file) -> None:
    with pytest.raises(ValueError, match="answers one question"):
        list(pipe.stream([file, file], ["What?", "Why?"]))
    with pytest.raises(ValueError, match="answers one question"):
        list(pipe.stream(iter([file]), "What?"))


def test_streams_run_side_by_side(pipe, file) -> None:
    streams = [pipe.stream(file, question, **SHORT) for question in ("What?", "Why?", "When?")]
    answers = [
        pipe(file, text=q, return_full_text=False, **SHORT)[0]["generated_text"] for q in ("What?", "Why?", "When?")
    ]
    last = {}
    while streams:
        for number, stream in enumerate(list(streams)):
            event = next(stream, None)
            if event is None:
                streams.remove(stream)
            elif isinstance(event, Result):
                last[event.answer] = number
    assert set(last) == set(answers)
