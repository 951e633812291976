"""
What the first question about a video costs in a conversation, and what the later ones do.

```bash
python -m fila_video.benchmarks.second_question --minutes 10
```

A film of that length is made first. The first question includes reading and encoding it, the later ones their own
tokens only; all answers have the same number of tokens. The last row is one of these questions asked outside of the
conversation. Times are of the processor (on a GPU, of the clock), so that other work on the machine counts less.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..chat_session_fila_video import ChatSession
from ..commands.loading import load_model
from ..pipeline_fila_video import VideoTextToTextPipeline
from ..toy_world.make_videos import Settings, make_videos

QUESTIONS = (
    "What appears at the end?",
    "What color is the ring?",
    "How many stars are there?",
    "Which object appears after the ring?",
)


def seconds_of(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """How long a call takes, and what it returns."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    result = call()
    return clock() - start, result


def make_film(folder: Path, minutes: float) -> Path:
    seconds = 60 * minutes
    make_videos(folder, Settings("rare" if minutes >= 1 else "short", duration=(seconds, seconds)), count=1)
    (film,) = folder.rglob("*.mp4")
    return film


def begin(pipe: VideoTextToTextPipeline, video: Path, options: dict[str, Any]) -> ChatSession:
    chat = pipe.chat(video, **options)
    chat.ask(QUESTIONS[0])
    return chat


def measure(video: Path, model_name: str | None, device: str | None, rounds: int, num_tokens: int) -> list[tuple]:
    """Rows of what was asked, median seconds, their share of the first question's, and tokens of the prompt read."""
    model, processor = load_model(model_name, device)
    pipe = VideoTextToTextPipeline(model, processor=processor, device=model.device)
    options = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False}
    pipe(text="Hello?", **options)  # the first forward of a process costs more
    first, later, alone, read = [], [], [], []
    for _ in range(rounds):
        seconds, chat = seconds_of(lambda: begin(pipe, video, options), model.device)
        first.append(seconds)
        read.append(chat.tokens_read)
        for question in QUESTIONS[1:]:
            later.append(seconds_of(partial(chat.ask, question), model.device)[0])
            read.append(chat.tokens_read)
        alone.append(seconds_of(lambda: pipe(video, text=QUESTIONS[1], **options), model.device)[0])
    whole = statistics.median(first)
    rows = [("first question", whole, read[0])]
    rows += [("later question", statistics.median(later), statistics.median(read[1 : len(QUESTIONS)]))]
    rows += [("the same by the pipeline", statistics.median(alone), "all")]
    return [(name, seconds, seconds / whole, tokens) for name, seconds, tokens in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the film")
    parser.add_argument("--video", type=Path, help="a film of your own instead")
    parser.add_argument("--model", help="folder or Hub name (default: the embedded demonstration)")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-tokens", type=int, default=4, help="tokens of each answer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = args.video
        if video is None:
            video = make_film(Path(folder), args.minutes)
        rows = measure(video, args.model, args.device, args.rounds, args.num_tokens)
    print("| | seconds | share of the first | tokens of the prompt read |")
    print("| --- | --- | --- | --- |")
    for name, seconds, share, tokens in rows:
        print(f"| {name} | {seconds:.3f} | {100 * share:.1f}% | {tokens} |")


if __name__ == "__main__":
    main()
