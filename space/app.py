"""
Ask about a video in the browser, and see the scenes that the answer was given on: a Space of Hugging Face, or
`python space/app.py` in a clone. `FILA_VIDEO_MODEL` names the model, a folder or a repository on the Hub.
"""

import html
import os
import queue
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from PIL import Image
from transformers import Pipeline, pipeline

HERE = Path(__file__).resolve().parent
FILM = "examples/shapes.mp4"
QUESTIONS = [
    "Which object appears right after the white star?",
    "Which object appears last?",
    "How many objects appear?",
    "Describe the video.",
]
SELECTIONS = [
    ("Similar frames grouped into scenes", "kmeans"),
    ("What differs most", "farthest"),
    ("What the question is about", "question"),
    ("Evenly spread", "uniform"),
]
# What a visitor of a public page may cost.
LARGEST_FILE = "300mb"
LONGEST_QUESTION = 1000  # characters
LONGEST_ANSWER = 256  # tokens
LONGEST_TALK = 40  # turns
FEATURE_BYTES = 1 << 28  # of a visitor's video, which is kept between questions
READING_SECONDS = 300.0
AT_ONCE = 2  # answers that are written at the same time
WAITING = 32  # visitors in the queue
VISITORS = 24  # whose videos and conversations are kept
KEPT_SECONDS = 3600

# A click on a scene, or on its mark, shows that moment of the video.
SHOW_MOMENT = """
element.addEventListener("click", (event) => {
    const scene = event.target.closest("[data-seconds]");
    const video = document.querySelector("#video video");
    if (scene && video) {
        video.pause();
        video.currentTime = Number(scene.dataset.seconds);
    }
});
"""


class Visit:
    """What one visitor has, and nobody else: a video that was read, and the conversation about it."""

    def __init__(self) -> None:
        self.chat = None
        self.video: str | None = None
        self.is_even = False  # how the video's frames were read
        self.question = ""  # the one that is being answered

    @property
    def messages(self) -> list[dict[str, str]]:
        return [] if self.chat is None else list(self.chat.messages)

    def has(self, video: str | None) -> bool:
        return self.chat is not None and self.video == video


def load(model: str) -> Pipeline:
    """
    The pipeline of a model, whose repository brings its own code: name only models that you trust.

    Raises:
        ValueError: If there is no such model, or it is not one of FiLA-Video.
    """
    # Many CPUs compute in two bytes several times more slowly.
    device, dtype = (0, "auto") if torch.cuda.is_available() else (-1, "float32")
    try:
        pipe = pipeline("video-text-to-text", model=model, trust_remote_code=True, device=device, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ValueError(f"Set FILA_VIDEO_MODEL to a folder or to a repository on the Hub: {error}") from error
    if not hasattr(pipe, "chat"):
        raise ValueError(
            f"{model} is no FiLA-Video model, but a {type(pipe.model).__name__}: convert it first, by "
            f"`fila-video convert {model} FOLDER`, and name that folder."
        )
    return pipe


def example_film(model: str) -> str | None:
    """The film of colored shapes: of this clone, of the model's folder, or of its repository on the Hub."""
    for folder in (HERE, HERE.parent, Path(model)):
        if (folder / FILM).is_file():
            return str(folder / FILM)
    if Path(model).exists():
        return None
    try:
        return hf_hub_download(model, FILM)
    except (EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled):  # a demo without an example is still a demo
        return None


def read(pipe: Pipeline, video: str, is_even: bool) -> Iterator[tuple[str, int, int] | Any]:
    """
    Reads and encodes a video in a thread of its own. Gives `(stage, done, total)` on the way, and last the chat about
    it. Closing it ends the work at its next frame.
    """
    steps: queue.SimpleQueue = queue.SimpleQueue()
    is_closed = threading.Event()
    # Frames that were read for evenly spread scenes leave nothing to choose. Otherwise, those of a long video are the
    # ones that differ most, which are not evenly spread.
    options = {"selection": "uniform" if is_even else "kmeans"}
    options |= {"limits": {"seconds": READING_SECONDS}, "allow_private_hosts": False}

    def progress(stage: str, done: int, total: int) -> None:
        if is_closed.is_set():
            raise InterruptedError("Nobody waits for this video any more.")
        steps.put((stage, done, total))

    def work() -> None:
        try:
            steps.put(pipe.chat(video, progress=progress, max_feature_bytes=FEATURE_BYTES, **options))
        except BaseException as error:
            steps.put(error)

    threading.Thread(target=work, daemon=True, name="read a video").start()
    try:
        while isinstance(step := steps.get(), tuple):
            yield step
        if isinstance(step, BaseException):
            raise step
        yield step
    finally:
        is_closed.set()


def clock(seconds: float) -> str:
    """`1:02.5`, or from an hour on `1:00:02.5`."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, f"{tenths // 10 % 60:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def show_stage(text: str, done: int = 0, total: int = 0) -> str:
    bar = f'<progress value="{done}" max="{total}"></progress>' if total else ""
    return f'<div class="stage"><span>{html.escape(text)}</span>{bar}</div>'


def show_scenes(scenes: dict[str, Any], looked_at: int, selection: str) -> str:
    """
    The scenes of a video on a line of its time: a mark for each frame, what the question gave every candidate, where
    there are scores, and a card for each scene with its representative and the frames that are fused with it.

    Args:
        scenes (`dict`): Of one video, as `chat.scenes` has them with pictures.
        looked_at (`int`): Candidate frames that they were chosen from.
        selection (`str`): How.
    """
    times, duration = scenes["timestamps"], max(float(scenes["duration"]), 1e-6)

    def place(seconds: float) -> float:
        return 100 * min(max(float(seconds), 0.0) / duration, 1.0)

    marks = [
        f'<i style="left:{place(seconds):.2f}%"></i>' for seconds in sorted(set(times[:, :-1].flatten().tolist()))
    ]
    cards = []
    for number, (seconds, pictures) in enumerate(
        zip(times.tolist(), scenes["pictures"].cpu().numpy(), strict=True), 1
    ):
        at = clock(seconds[-1])
        name = f"Scene {number} at {at}"
        marks.append(
            f'<i class="representative" style="left:{place(seconds[-1]):.2f}%" data-seconds="{seconds[-1]:.3f}" '
            f'title="{name}"></i>'
        )
        # A scene without enough of a past repeats its representative.
        others = [
            f'<img src="{_data_url(picture)}" title="{clock(other)}" alt="with a frame at {clock(other)}">'
            for other, picture in zip(seconds[:-1], pictures[:-1], strict=True)
            if other != seconds[-1]
        ]
        cards.append(
            f'<button type="button" data-seconds="{seconds[-1]:.3f}" title="Show this moment">'
            f'<img src="{_data_url(pictures[-1])}" alt="{name}">'
            f'<div class="below"><span>{at}</span>{"".join(others)}</div></button>'
        )
    bars = ""
    if scenes.get("scores") is not None:
        values, at = scenes["scores"]["values"].flatten().float().cpu(), scenes["scores"]["timestamps"].flatten()
        heights = 100 * (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
        wide = 70 / max(len(values), 1)
        bars = "".join(
            f'<b style="left:{max(place(seconds) - wide / 2, 0):.2f}%;width:{wide:.3f}%;height:{height:.1f}%"></b>'
            for seconds, height in zip(at.tolist(), heights.tolist(), strict=True)
        )
        bars = f'<div class="scores" title="How much each frame has to do with the question">{bars}</div>'
    how = {value: name for name, value in SELECTIONS}.get(selection, selection)
    keys = "".join(
        f'<span class="key {kind}"></span>{text}'
        for kind, text in (("representative", "representative"), ("supplement", "frames fused with it"))
    )
    return (
        f'<div class="scenes"><h3>What the answer was given on</h3><p class="how">{len(times)} scenes out of '
        f"{looked_at} frames. {html.escape(how)}.{keys}</p>"
        f'{bars}<div class="line">{"".join(marks)}</div>'
        f'<div class="ends"><span>{clock(0)}</span><span>{clock(duration)}</span></div>'
        f'<div class="cards">{"".join(cards)}</div></div>'
    )


def _data_url(picture: Any) -> str:
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "WEBP", quality=82)
    return f"data:image/webp;base64,{b64encode(encoded.getvalue()).decode()}"


Page = tuple[list[dict[str, str]], str, str, Any]  # the conversation, the box to type in, the stage, the scenes


def answer(
    pipe: Pipeline, visit: Visit, video: str | None, question: str, selection: str, num_scenes: int, longest: int
) -> Iterator[Page]:
    """
    What the page shows while a question is read and answered.

    Raises:
        gr.Error: With what the visitor can do about it.
    """
    question = (question or "").strip()
    if not video:
        raise complaint("There is no video: upload one, or take the example.")
    if not question:
        raise complaint("There is no question: type what you want to know about the video.")
    if len(question) > LONGEST_QUESTION:
        raise complaint(f"The question has {len(question)} characters; at most {LONGEST_QUESTION} are read.")
    if not visit.has(video):
        visit.chat = None
    if len(visit.messages) >= 2 * LONGEST_TALK:
        raise complaint(f"This conversation has {LONGEST_TALK} questions, and no more are kept: clear it.")
    visit.question, begun = question, time.monotonic()
    asked = [*visit.messages, {"role": "user", "content": question}]
    try:
        is_even = selection == "uniform"
        if visit.chat is None or visit.is_even != is_even:
            yield asked, "", show_stage("Opening the video"), gr.skip()
            shown = 0.0
            with closing(read(pipe, video, is_even)) as steps:
                for step in steps:
                    if isinstance(step, tuple) and time.monotonic() > shown + 0.1:
                        shown, (stage, done, total) = time.monotonic(), step
                        text = f"{stage.capitalize()} frames · {done} of {total}"
                        yield asked, "", show_stage(text, done, total), gr.skip()
            step.messages = visit.messages
            visit.chat, visit.video, visit.is_even = step, video, is_even
        yield asked, "", show_stage("Thinking"), gr.skip()
        said, chat, rebuilds = "", visit.chat, visit.chat.rebuilds
        options = {"selection": selection, "num_scenes": int(num_scenes), "max_new_tokens": int(longest)}
        with closing(chat.stream(question, **options)) as events:
            for event in events:
                if type(event).__name__ == "Text":  # a class of the model's own code
                    said += event.piece
                    yield [*asked, {"role": "assistant", "content": said}], "", show_stage("Answering"), gr.skip()
    except (ValueError, OSError) as error:
        yield visit.messages, question, "", gr.skip()
        # By the name that the file was uploaded with, not by its place on this server.
        raise complaint(str(error).replace(video, Path(video).name)) from None
    took = f"{time.monotonic() - begun:.1f} s · {chat.tokens_read} tokens read"
    if len(chat.messages) > 2:
        took += " anew, with other scenes" if chat.rebuilds > rebuilds else ", the others were known from before"
    yield visit.messages, "", show_stage(took), show_scenes(chat.scenes[0], len(chat.videos[0]), selection)


def complaint(message: str) -> gr.Error:
    return gr.Error(html.escape(message, quote=False), print_exception=False)


def build(pipe: Pipeline, model: str) -> gr.Blocks:
    """The page of a model, which all visitors share."""
    film, own = example_film(model), pipe.processor.video_processor
    most_scenes = own.num_scenes  # a pool of frames is read for so many
    few_scenes = min(12, most_scenes) if film else most_scenes
    size = pipe.model.num_parameters()
    about = f"{size / 1e9:.1f} billion" if size > 5e8 else f"{size / 1e6:.1f} million"
    about = f"{Path(model).name if Path(model).exists() else model}, {about} parameters."
    if size < 1e7:
        about = f"A demonstration of {size / 1e6:.1f} million parameters, which knows films of colored shapes only."

    with gr.Blocks(title="FiLA-Video", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        visit = gr.State(Visit(), time_to_live=KEPT_SECONDS)
        gr.HTML(
            "<h1>FiLA-Video</h1><p>Ask about a long video. The model looks at many frames, keeps a few scenes, and "
            f'shows which.</p><p class="note">{html.escape(about)}</p>',
            elem_id="title",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=340):
                video = gr.Video(film, label="Video", sources=["upload"], height=340, elem_id="video", buttons=[])
                with gr.Group():
                    selection = gr.Radio(SELECTIONS, value=own.selection, label="How scenes are chosen")
                    num_scenes = gr.Slider(1, most_scenes, few_scenes, step=1, label="Scenes", buttons=[])
                    longest = gr.Slider(8, LONGEST_ANSWER, 64, step=8, label="Longest answer, in tokens", buttons=[])
            with gr.Column(scale=6, min_width=340):
                talk = gr.Chatbot(
                    label="Conversation",
                    height=424,
                    layout="bubble",
                    buttons=[],
                    feedback_options=None,
                    placeholder="Ask what happens, when, or in which order.",
                )
                stage = gr.HTML(show_stage(""), label="Stage", elem_id="stage")
                with gr.Row():
                    question = gr.Textbox(
                        QUESTIONS[0] if film else "",
                        placeholder="Ask about the video",
                        show_label=False,
                        label="Question",
                        container=False,
                        scale=6,
                        max_length=LONGEST_QUESTION,
                        elem_id="question",
                    )
                    ask = gr.Button("Ask", variant="primary", scale=1, min_width=90, elem_id="ask")
                    stop = gr.Button("Stop", variant="stop", scale=1, min_width=90, visible=False, elem_id="stop")
                if film:
                    gr.Examples(
                        [[film, text] for text in QUESTIONS],
                        [video, question],
                        example_labels=QUESTIONS,
                        label="Questions about the example",
                    )
        scenes = gr.HTML(label="Scenes", elem_id="scenes", js_on_load=SHOW_MOMENT)

        shown = [talk, question, stage, scenes]
        buttons = [ask, stop]

        def on_ask(
            visit: Visit, video: str | None, question: str, selection: str, num_scenes: int, longest: int
        ) -> Iterator[Page]:
            yield from answer(pipe, visit, video, question, selection, num_scenes, longest)

        def on_stop(visit: Visit) -> tuple:
            return visit.messages, visit.question, show_stage("Stopped. The question counts as not asked."), gr.skip()

        def on_new(visit: Visit) -> tuple:
            if visit.chat is not None:
                visit.chat = pipe.chat(visit.chat.videos, **visit.chat.options)
            return [], gr.skip(), "", ""

        def on_video(visit: Visit, video: str | None) -> tuple:
            return tuple(gr.skip() for _ in shown) if visit.has(video) else ([], gr.skip(), "", "")

        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        busy = gr.on(
            [ask.click, question.submit],
            lambda: (gr.update(visible=False), gr.update(visible=True)),
            outputs=buttons,
            **quick,
        )
        asking = busy.then(
            on_ask,
            [visit, video, question, selection, num_scenes, longest],
            shown,
            api_name="ask",
            show_progress="hidden",
            show_progress_on=stage,  # and the mark of an error
            concurrency_limit=AT_ONCE,
        )
        stopped = stop.click(on_stop, visit, shown, cancels=[asking], **quick)
        cleared = talk.clear(on_new, visit, shown, cancels=[asking], **quick)
        for ended in (asking.success, asking.failure, stopped.then, cleared.then):
            ended(lambda: (gr.update(visible=True), gr.update(visible=False)), outputs=buttons, **quick)
        video.change(on_video, [visit, video], shown, **quick)
        video.upload(lambda: most_scenes, outputs=num_scenes, **quick)
    return page.queue(api_open=False, max_size=WAITING)


def launch(page: gr.Blocks, **options: Any) -> None:
    """Serves the page, as a Space does. `options` are those of `Blocks.launch`."""
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]  # of the visitor's machine: none is fetched
    theme = gr.themes.Soft(
        primary_hue="orange", neutral_hue="stone", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    page.launch(
        **{
            "theme": theme,
            "css_paths": HERE / "look.css",
            "max_file_size": LARGEST_FILE,
            "state_session_capacity": VISITORS,
            "footer_links": ["api"],
            "ssr_mode": False,
            **options,
        }
    )


if __name__ == "__main__":
    MODEL = os.environ.get("FILA_VIDEO_MODEL") or str(HERE.parent)
    launch(build(load(MODEL), MODEL))
