"""`fila-video answer`: streams the answer to a question about a video."""

import argparse
import sys

from transformers import TextStreamer

from ..pipeline_fila_video import VideoTextToTextPipeline
from .loading import Progress, load_model, quiet

DEMONSTRATION = (
    "fila-video: the embedded model is a demonstration that knows films of colored shapes only. For real videos "
    "name a model, such as --model llava-hf/llava-onevision-qwen2-0.5b-ov-hf."
)


def run(args: argparse.Namespace) -> int:
    """Streams the answer to standard output."""
    quiet()
    announce_demonstration(args)
    model, processor = load_model(args.model, args.device)
    options = call_options(args)
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device=model.device)
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    pipe(args.video, text=args.question, streamer=streamer, progress=Progress(), **options)
    return 0


def announce_demonstration(args: argparse.Namespace) -> None:
    if args.model is None:
        print(DEMONSTRATION, file=sys.stderr)


def call_options(args: argparse.Namespace) -> dict:
    """The processor's settings that the arguments name."""
    names = ("num_scenes", "selection", "candidate_fps", "seek_mode", "seed")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


__all__ = ["announce_demonstration", "call_options", "run"]
