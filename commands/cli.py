"""The command line: `fila-video answer VIDEO QUESTION`, `fila-video scenes VIDEO --output board.png`, and others."""

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import TextStreamer
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..pipeline_fila_video import VideoTextToTextPipeline
from ..processing_fila_video import FilaVideoProcessor
from ..scene_selection_fila_video import METHODS
from ..video_reading_fila_video import probe_video, read_frames
from .storyboard import clock, draw_storyboard

DEFAULT_MODEL = Path(__file__).resolve().parent.parent
METHOD_NAMES = {
    "kmeans": "k-means, similar frames of the past",
    "kmeans_dissimilar": "k-means, dissimilar frames of the past",
    "uniform": "evenly spread",
    "bsm": "bipartite matching",
}
# Commands of other modules: each offers `add_arguments(parser)` and `run(args) -> int`. They are imported when called.
MODULES = {
    "convert": ("convert_weights", "convert other checkpoints to this layout"),
    "converted": ("conversion.cached", "list or remove source checkpoints that were converted on first use"),
    "make-videos": ("toy_world.make_videos", "film procedural videos with exact annotations"),
    "build-dataset": ("long_video.build", "build long training videos out of short captioned ones"),
}


class Progress:
    """Shows a bar on the terminal for each stage that takes longer than two seconds."""

    def __init__(self):
        self.stage = self.bar = None

    def __call__(self, stage: str, done: int, total: int):
        if stage != self.stage:
            # `disable=None`: none where the messages do not go to a terminal.
            self.bar = tqdm(desc=f"{stage} frames".capitalize(), total=total, delay=2, leave=False, disable=None)
            self.stage = stage
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
            self.stage = None


def add_common_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("video", metavar="VIDEO", help="path or URL of the video")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="folder or Hub name (default: the embedded model)")
    parser.add_argument("--device", help="such as cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument("--num-scenes", type=int, help="scenes to select (default: the model's setting, 32)")
    parser.add_argument("--selection", choices=METHODS, help="how (default: the model's setting, kmeans)")


def add_answer_arguments(parser: argparse.ArgumentParser):
    add_common_arguments(parser)
    parser.add_argument("question", metavar="QUESTION", help="what to answer about the video")
    parser.add_argument("--max-new-tokens", type=int, help="length of the answer at most (default: the model's, 64)")


def add_scenes_arguments(parser: argparse.ArgumentParser):
    add_common_arguments(parser)
    parser.add_argument("--output", metavar="IMAGE", help="draw a storyboard and save it here, such as board.png")
    parser.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="write the scenes as JSON (default: to standard output)"
    )


def run_answer(args: argparse.Namespace) -> int:
    """Streams the answer to standard output."""
    model, processor = load(args)
    options = selection_options(args)
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device=model.device)
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    pipe(args.video, text=args.question, streamer=streamer, progress=Progress(), **options)
    return 0


def run_scenes(args: argparse.Namespace) -> int:
    """Selects the scenes and writes them as a storyboard, as JSON, or both."""
    if args.output is None and args.json is None:
        raise ValueError("There is nothing to write: pass --output board.png, --json, or both.")
    if args.output is not None and Path(args.output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output {args.output} is no kind of picture: name a .png, .jpg or .webp file.")
    model, processor = load(args)
    processor.frame_encoder = model.encode_frames
    options = selection_options(args)
    outputs = processor(videos=[args.video], return_scenes=True, progress=Progress(), **options)
    scenes, selection = outputs["scenes"][0], options.get("selection", processor.selection)
    if args.json is not None:
        text = json.dumps(describe(args.video, scenes, selection), indent=2, ensure_ascii=False) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.output is not None:
        save_storyboard(args.video, scenes, selection, args.output)
    return 0


def load(args: argparse.Namespace) -> tuple[FilaVideoForConditionalGeneration, FilaVideoProcessor]:
    """
    The model, on its device and ready to answer, and its processor. Both are built by this package: code that lies in
    the model's repository is never run.

    Raises:
        ValueError: If the model is of another type, or the device cannot be used. `OSError` where there is no model.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = find_device(args.device)
    model_type = PreTrainedConfig.get_config_dict(args.model)[0].get("model_type")
    if model_type != "fila_video":
        from ..conversion.cached import convert_once

        args.model = convert_once(args.model, progress=sys.stderr.isatty())
    model = FilaVideoForConditionalGeneration.from_pretrained(args.model)
    return model.to(device).eval(), FilaVideoProcessor.from_pretrained(args.model)


def find_device(name: str | None) -> torch.device:
    """
    The device of that name, or the best there is.

    Raises:
        ValueError: If it cannot be used here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


def selection_options(args: argparse.Namespace) -> dict:
    options = {"num_scenes": args.num_scenes, "selection": args.selection}
    return {name: value for name, value in options.items() if value is not None}


def describe(video: str, scenes: dict, selection: str) -> dict:
    """The scenes in plain numbers; times in seconds."""
    indices, times = scenes["indices"].tolist(), scenes["timestamps"].tolist()
    return {
        "video": video,
        "duration": round(float(scenes["duration"]), 3),
        "selection": selection,
        "num_scenes": len(indices),
        "scene_size": len(indices[0]),
        "scenes": [
            {
                "indices": frames,
                "timestamps": [round(seconds, 3) for seconds in when],
                "representative": {"index": frames[-1], "timestamp": round(when[-1], 3)},
            }
            for frames, when in zip(indices, times, strict=True)
        ],
    }


def save_storyboard(video: str, scenes: dict, selection: str, output: str, frame_width: int = 320):
    """Reads the chosen frames once more, large enough to look at, and saves the board."""
    indices, first, positions = np.unique(scenes["indices"].numpy(), return_index=True, return_inverse=True)
    shape, progress = probe_video(video), Progress()
    read = read_frames(
        video,
        times=scenes["timestamps"].numpy().ravel()[first],
        size=(max(round(frame_width * shape.height / shape.width), 1), frame_width),
        progress=lambda done, total: progress("reading", done, total),
    )
    if list(read.metadata.frames_indices) != indices.tolist():
        raise ValueError(f"{video} changed while it was read: its chosen frames are no longer the same.")
    num_scenes, scene_size = scenes["indices"].shape
    duration = float(scenes["duration"])
    board = draw_storyboard(
        read.frames,
        positions.reshape(num_scenes, scene_size),
        read.timestamps,
        title=Path(video).name,
        subtitle=f"{clock(duration)} · scenes: {num_scenes}, of {scene_size} frames each · {METHOD_NAMES[selection]}",
        duration=duration,
        frame_width=frame_width,
    )
    board.save(output)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; of the commands of other modules, only `command` gets its arguments."""
    parser = argparse.ArgumentParser(prog="fila-video", description="Answers questions about long videos.")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    own = {
        "answer": (add_answer_arguments, run_answer, "answer a question about a video"),
        "scenes": (add_scenes_arguments, run_scenes, "show the scenes that are selected from a video"),
    }
    for name, (add_arguments, run, text) in own.items():
        subparser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        add_arguments(subparser)
        subparser.set_defaults(run=run)
    for name, (module_name, text) in MODULES.items():
        module_name = f"{__package__.rpartition('.')[0]}.{module_name}"
        if importlib.util.find_spec(module_name) is None:
            continue
        subparser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        if name == command:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs a command. Exit status 0, or 2 with one line on standard error for wrong input."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(next(iter(argv), None)).parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError, torch.OutOfMemoryError) as error:
        print(f"fila-video: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
