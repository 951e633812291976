"""`fila-video answer`: streams the answer to a question about a video."""

import argparse
import sys

from transformers import TextStreamer

from .cli import announce_demonstration, call_options
from .loading import Progress, load_pipeline, quiet


def run(args: argparse.Namespace) -> int:
    """Streams the answer to standard output."""
    quiet()
    announce_demonstration(args)
    pipe = load_pipeline(args.model, args.device, args.dtype)
    streamer = TextStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
    shown = {"streamer": streamer, "progress": Progress(), "return_scenes": True}
    (answer,) = pipe(args.video, text=args.question, **shown, **call_options(args))
    if left_out := answer["scenes"][0].get("subtitles_left_out"):
        message = f"{left_out} lines of subtitles found no room and were left out: raise --subtitle-tokens."
        print(f"fila-video: {message}", file=sys.stderr)
    return 0


__all__ = ["run"]
