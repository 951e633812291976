"""`fila-video answer`: streams the answer to a question about a video."""

import argparse
import sys

from transformers import TextStreamer

from ..pipeline_fila_video import VideoTextToTextPipeline
from .cli import DEMONSTRATION, call_options
from .loading import Progress, load_model, quiet


def run(args: argparse.Namespace) -> int:
    """Streams the answer to standard output."""
    quiet()
    announce_demonstration(args)
    model, processor = load_model(args.model, args.device, args.dtype)
    options = call_options(args)
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device=model.device)
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    (answer,) = pipe(
        args.video, text=args.question, streamer=streamer, progress=Progress(), return_scenes=True, **options
    )
    if left_out := answer["scenes"][0].get("subtitles_left_out"):
        message = f"{left_out} lines of subtitles found no room and were left out: raise --subtitle-tokens."
        print(f"fila-video: {message}", file=sys.stderr)
    return 0


def announce_demonstration(args: argparse.Namespace) -> None:
    if args.model is None:
        print(DEMONSTRATION, file=sys.stderr)


__all__ = ["announce_demonstration", "run"]
