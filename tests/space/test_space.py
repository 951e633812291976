"""The demo for the browser, served for real and asked by Gradio's client. Runs where Gradio is installed."""

import importlib.util
import itertools
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from helpers.video_files import make_video

gr = pytest.importorskip("gradio")
client_of_gradio = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parent.parent.parent
FILM = ROOT / "examples" / "shapes.mp4"
QUESTION = "Which object appears right after the white star?"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("space_app", ROOT / "space" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipe(app):
    return app.load(str(ROOT))


@pytest.fixture(scope="module")
def page(app, pipe) -> Iterator:
    page = app.build(pipe, str(ROOT))
    app.launch(page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield page
    page.close()


@pytest.fixture()
def client(page):
    """A visitor: each has a session of its own."""
    return client_of_gradio.Client(page.local_url, verbose=False)


def ask(client, question: str, film=FILM, selection: str = "kmeans", num_scenes: int = 12, longest: int = 64) -> tuple:
    film = None if film is None else client_of_gradio.handle_file(film)
    return client.predict(film, question, selection, num_scenes, longest, api_name="/ask")


def said(conversation: list[dict]) -> list[str]:
    return [message["content"][0]["text"] for message in conversation]


def times_of_cards(scenes: str) -> list[float]:
    return [float(seconds) for seconds in re.findall(r'<button[^>]* data-seconds="([\d.]+)"', scenes)]


def test_a_question_is_answered_and_its_scenes_stand_on_the_line_of_time(client) -> None:
    conversation, box, stage, scenes = ask(client, QUESTION)
    assert said(conversation) == [QUESTION, "a green ring"]
    assert box == "" and "tokens read" in stage
    times = times_of_cards(scenes)
    assert len(times) == 12 and times == sorted(times) and times[0] >= 0 and times[-1] <= 46.4
    assert "12 scenes out of 96 frames" in scenes
    places = [float(place) for place in re.findall(r'class="representative" style="left:([\d.]+)%', scenes)]
    assert places == pytest.approx([100 * seconds / 46.375 for seconds in times], abs=0.1)
    assert scenes.count("data:image/webp;base64,") >= 12
    assert 'class="scores"' not in scenes


def test_the_stages_of_the_work_are_shown_and_the_answer_is_streamed(client) -> None:
    job = client.submit(client_of_gradio.handle_file(FILM), "Describe the video.", "kmeans", 12, 64, api_name="/ask")
    job.result()
    outputs = job.outputs()
    stages = [stage for _, _, stage, _ in outputs]
    found = [re.sub("<[^>]*>", "", stage) for stage in stages]
    assert any(re.fullmatch(r"Reading frames · \d+ of 96", stage) for stage in found)
    assert "Answering" in found
    whole = said(outputs[-1][0])[-1]
    pieces = [said(conversation)[-1] for conversation, _, stage, _ in outputs if "Answering" in stage]
    assert pieces == sorted(pieces, key=len) and all(whole.startswith(piece.strip()) for piece in pieces)


def test_a_conversation_goes_on_and_questions_bring_their_scores(client) -> None:
    ask(client, QUESTION)
    conversation, _, stage, _ = ask(client, "Which object appears last?")
    assert said(conversation)[:3] == [QUESTION, "a green ring", "Which object appears last?"]
    assert "known from before" in stage
    conversation, _, stage, scenes = ask(client, "What color is the star?", selection="question")
    assert len(conversation) == 6
    assert "anew, with other scenes" in stage
    bars = re.search('class="scores".*?</div>', scenes)[0]
    heights = [float(height) for height in re.findall(r"height:([\d.]+)%", bars)]
    assert len(heights) == 96 and min(heights) == 0 and max(heights) == 100


def test_another_video_begins_another_conversation(client) -> None:
    ask(client, QUESTION)
    conversation, _, _, scenes = ask(client, "Describe the video.", film=ROOT / "examples" / "sample.mp4")
    assert said(conversation)[0] == "Describe the video." and len(conversation) == 2
    assert max(times_of_cards(scenes)) > 47


def test_visitors_at_the_same_time_share_no_conversation(page) -> None:
    questions = ["Which object appears first?", "Which object appears last?", "How many objects appear?"]

    def visit(question: str) -> list[str]:
        visitor = client_of_gradio.Client(page.local_url, verbose=False)
        ask(visitor, question)
        return said(ask(visitor, question)[0])

    alone = [visit(question) for question in questions]
    assert len({conversation[1] for conversation in alone}) == 3
    with ThreadPoolExecutor(3) as threads:
        conversations = list(threads.map(visit, questions))
    for question, conversation in zip(questions, conversations, strict=True):
        assert conversation[::2] == [question, question]
    assert conversations == alone


def test_mistakes_are_said_clearly_and_the_conversation_goes_on(client, tmp_path, app) -> None:
    ask(client, QUESTION)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(FILM.read_bytes()[:3000])
    for message, arguments in (
        ("There is no video", {"question": QUESTION, "film": None}),
        ("There is no question", {"question": "  "}),
        ("at most 1000", {"question": "why " * 300}),
        ("control token", {"question": "What <video> is it?"}),
        ("257", {"question": QUESTION, "longest": 257}),
        ("33", {"question": QUESTION, "num_scenes": 33}),
        ("choices", {"question": QUESTION, "selection": "nonsense"}),
    ):
        with pytest.raises(client_of_gradio.exceptions.AppError, match=message):
            ask(client, **arguments)
    assert len(ask(client, "Which object appears last?")[0]) == 4
    with pytest.raises(client_of_gradio.exceptions.AppError, match=r"'broken\.mp4'") as error:
        ask(client, QUESTION, film=broken)
    assert "gradio" not in str(error.value)  # the folder of uploads
    assert len(ask(client, QUESTION)[0]) == 2


def test_cancelling_ends_the_work_and_the_question_counts_as_not_asked(client, pipe, monkeypatch) -> None:
    ask(client, QUESTION)
    passes = []
    hook = pipe.model.register_forward_pre_hook(lambda *_: passes.append(time.sleep(0.05)))
    monkeypatch.setattr(pipe.model.generation_config, "min_new_tokens", 256)
    try:
        film = client_of_gradio.handle_file(FILM)
        job = client.submit(film, "Describe the video.", "kmeans", 12, 256, api_name="/ask")
        while not passes and not job.done():
            time.sleep(0.05)
        job.cancel()
        reached = -1
        while reached != len(passes):  # until no more tokens are made
            reached = len(passes)
            time.sleep(1)
    finally:
        hook.remove()
    assert 0 < reached < 200
    monkeypatch.undo()
    assert said(ask(client, "Which object appears last?")[0])[::2] == [QUESTION, "Which object appears last?"]


def test_reading_ends_where_nobody_waits_for_it(app, pipe) -> None:
    steps = app.read(pipe, str(ROOT / "examples" / "sample.mp4"), False)
    stage, done, total = next(steps)
    assert stage == "reading" and done < total
    steps.close()
    for thread in threading.enumerate():
        if thread.name == "read a video":
            thread.join(20)
            assert not thread.is_alive()


def test_evenly_spread_scenes_of_a_film_longer_than_the_pool_are_shown(app, pipe, tmp_path) -> None:
    film = str(make_video(tmp_path / "long.mp4", 600, fps=1))
    *_, stage, scenes = list(app.answer(pipe, app.Visit(), film, QUESTION, "uniform", 12, 8))[-1]
    times = times_of_cards(scenes)
    assert "tokens read" in stage and len(times) == 12
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) < 1.2 * min(gaps)


@pytest.mark.parametrize("selection", ["kmeans", "farthest"])
def test_scenes_are_chosen_from_all_frames_by_a_model_that_spreads_them_evenly(app, pipe, selection) -> None:
    own, pipe.processor.video_processor.selection = pipe.processor.video_processor.selection, "uniform"
    try:
        film = str(ROOT / "examples" / "sample.mp4")
        *_, scenes = list(app.answer(pipe, app.Visit(), film, QUESTION, selection, 12, 8))[-1]
    finally:
        pipe.processor.video_processor.selection = own
    frames = int(re.search(r"12 scenes out of (\d+) frames", scenes)[1])
    assert frames > 96


def test_nothing_is_fetched_from_other_hosts_and_nothing_is_counted(page) -> None:
    assert page.analytics_enabled is False
    text = httpx.get(page.local_url).text
    assert "fonts.googleapis" not in text
    assert page.config["css"] is None or "http" not in page.config["css"]


def test_a_model_that_is_not_there_is_an_error_that_names_the_variable(app, tmp_path) -> None:
    with pytest.raises(ValueError, match="FILA_VIDEO_MODEL"):
        app.load(str(tmp_path))
