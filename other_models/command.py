"""
`fila-video select VIDEO --num-frames 32 --output frames/`: the frames worth showing to any video model, as pictures.

The folder gets a picture a frame, named by its place and its time, `frames.json` with their numbers and times in the
video, and `contact_sheet.jpg` for people.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from ..commands.cli import SELECTIONS, SHOWN_AS, check_video, check_writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="path or URL of the video, or a folder of pictures")
    parser.add_argument("--num-frames", type=int, required=True, help="frames to choose")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="new folder for the pictures")
    ways = [name for name in SELECTIONS if name != "question"]
    parser.add_argument("--selection", choices=ways, help="how (default: farthest)")
    parser.add_argument("--question", help="choose by what will be asked; needs --scorer")
    parser.add_argument("--scorer", help="SigLIP or CLIP that compares the question with the candidates")
    parser.add_argument("--model", help="compare the features of this model's vision tower (default: thumbnails)")
    parser.add_argument("--device", help="of model or scorer, such as cuda or cpu (default: the best there is)")
    parser.add_argument("--candidate-fps", type=float, default=1.0, help="candidates a second (default: %(default)s)")
    parser.add_argument("--max-candidates", type=int, default=512, help="candidates at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of k-means (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Chooses the frames and writes the folder, whole or not at all."""
    output = Path(args.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output {args.output} is there already and not an empty folder: name a new one.")
    check_writable("--output", os.path.normpath(args.output) if not output.exists() else str(output / "frames.json"))
    check_video(args.video)
    if (args.question is None) != (args.scorer is None):
        raise ValueError("--question and --scorer belong together: name what will be asked and a SigLIP or a CLIP.")
    if args.question is not None and args.selection is not None:
        raise ValueError(f"--question chooses the frames by itself: leave out --selection {args.selection}.")

    import numpy as np
    from PIL import Image

    from ..commands.loading import Progress, find_device, quiet
    from ..commands.storyboard import clock, draw_storyboard
    from .contrastive_scorer import ContrastiveScorer
    from .frames import select_frames

    quiet()
    how = "question" if args.question is not None else args.selection or "farthest"
    scorer = None if args.scorer is None else ContrastiveScorer(args.scorer, device=find_device(args.device))
    encoder, size = (None, None) if args.model is None else _tower(args.model, args.device)
    frames, metadata = select_frames(
        args.video,
        args.num_frames,
        question=args.question,
        selection=how,
        scorer=scorer,
        encoder=encoder,
        candidates_size=size,
        candidate_fps=args.candidate_fps,
        max_candidates=args.max_candidates,
        seed=args.seed,
        progress=Progress(),
    )
    if len(frames) < args.num_frames:
        how = "all"
        message = f"--num-frames is {args.num_frames}, but {args.video} has only {len(frames)}: all are written."
        print(f"fila-video: {message}", file=sys.stderr)
    times, duration = metadata.timestamps, metadata.duration
    names = [f"{place:04d}_{seconds:.3f}s.png" for place, seconds in enumerate(times, start=1)]
    described = {
        "video": args.video,
        "duration": round(duration, 3),
        "selection": how,
        **({} if args.question is None else {"question": args.question}),
        "fps": metadata.fps,
        "total_num_frames": metadata.total_num_frames,
        "frames": [
            {"picture": name, "index": index, "timestamp": round(seconds, 3)}
            for name, index, seconds in zip(names, metadata.frames_indices, times, strict=True)
        ],
    }
    board = draw_storyboard(
        frames,
        np.arange(len(frames))[:, None],
        np.array(times),
        title=os.path.basename(os.path.abspath(args.video)),
        subtitle=f"{clock(duration)} · frames: {len(frames)} · {SHOWN_AS[how].split(',')[0]}",
        duration=duration,
        noun="Frame",
    )
    part = output.with_name(f"{output.name}.part")
    part.mkdir()
    try:
        for name, frame in zip(names, frames, strict=True):
            Image.fromarray(frame).save(part / name)
        (part / "frames.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")
        board.save(part / "contact_sheet.jpg")
        if output.exists():
            output.rmdir()
        part.rename(output)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return 0


def _tower(name: str, device: str | None) -> tuple:
    """A model's vision tower as an encoder of candidates, and the size at which it takes them."""
    from ..commands.loading import load_model

    model, processor = load_model(name, device)
    videos = processor.video_processor
    size = videos.size["height"], videos.size["width"]
    return (lambda frames: model.encode_frames(videos.pixels(frames, model.device)).cpu()), size


__all__ = ["add_arguments", "run"]
