"""What happens while a question is answered, as one stream of events that can be closed at any time."""

import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, TextStreamer


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames are through a `stage`, "reading" or "encoding"."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Text:
    """The next piece of the answer."""

    piece: str


@dataclass(frozen=True)
class Result:
    """The whole answer; with `scenes` of each video, as `return_scenes` gives them, where there are any."""

    answer: str
    scenes: list[dict[str, Any]] | None


class Cancelled(Exception):
    """Raised where the work stands when nobody listens any more."""


class Listener(StoppingCriteria):
    """
    The end of a stream where events come in, from another thread.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the model that answers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.is_cancelled = threading.Event()
        self.streamer = _Pieces(tokenizer, self.events)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """Whether `generate` shall stop behind this token."""
        return torch.full((len(input_ids),), self.is_cancelled.is_set(), dtype=torch.bool, device=input_ids.device)

    def check(self) -> None:
        if self.is_cancelled.is_set():
            raise Cancelled

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """
        A call's options with these ears among them.

        Raises:
            ValueError: If the call has ears of its own.
        """
        for name in ("streamer", "progress"):
            if given.get(name) is not None:
                raise ValueError(f"`{name}` is what a stream is in place of: leave it out, its events say the same.")
        criteria = StoppingCriteriaList([*(given.get("stopping_criteria") or []), self])

        def progress(
            stage: str, done: int, total: int
        ) -> None:  # a function, since transformers copies options deeply
            self.check()
            self.events.put(Progress(stage, done, total))

        return {**given, "streamer": self.streamer, "progress": progress, "stopping_criteria": criteria}


class _Pieces(TextStreamer):
    def __init__(self, tokenizer: PreTrainedTokenizerBase, events: queue.SimpleQueue) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.events = events

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.events.put(Text(text))


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def stream_of(
    work: Callable[[Listener], Result], tokenizer: PreTrainedTokenizerBase
) -> Generator[Progress | Text | Result, None, None]:
    """
    Runs `work` in a thread of its own and gives its events as they come, the `Result` that it returns last. An error
    in it is raised here. When the generator is closed, the work ends at its next frame or token.
    """
    listener = Listener(tokenizer)

    def run() -> None:
        try:
            listener.events.put(work(listener))
        except BaseException as error:
            listener.events.put(_Failed(error))

    threading.Thread(target=run, daemon=True, name="fila-video answer").start()
    try:
        while True:
            event = listener.events.get()
            if isinstance(event, _Failed):
                raise event.error
            yield event
            if isinstance(event, Result):
                return
    finally:
        listener.is_cancelled.set()


__all__ = ["Cancelled", "Listener", "Progress", "Result", "Text", "stream_of"]
