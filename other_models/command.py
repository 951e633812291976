"""
`fila-video select VIDEO --num-frames 32 --output frames/`: the frames worth showing to any video model, as pictures.

The folder gets a picture a frame, named by its place and its time, `frames.json` with their numbers and times in the
video, and `contact_sheet.jpg` for people.
"""

import argparse
import glob
import json
import os
import re
import shutil
import sys
from pathlib import Path

from ..commands.cli import SELECTIONS, SHOWN_AS, check_video, check_writable
from .choice import unread

_WRITTEN = re.compile(r"\d{4,}_\d+\.\d{3}s\.png|frames\.json|contact_sheet\.jpg")


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
    parser.add_argument("--candidate-fps", type=float, help="candidates a second (default: 1)")
    parser.add_argument("--max-candidates", type=int, help="candidates at most (default: 512)")
    parser.add_argument("--seed", type=int, help="of --selection kmeans and kmeans_dissimilar (default: 42)")


def run(args: argparse.Namespace) -> int:
    """
    Chooses the frames and writes the folder, whole or not at all. A folder that is there stays the same one, so that
    it may be the one where the command was started, or where a disk is mounted.
    """
    output = Path(os.path.abspath(args.output))
    _check_free(output, args.output)
    check_writable("--output", os.path.normpath(args.output) if not output.exists() else str(output / "frames.json"))
    check_video(args.video)
    if (args.question is None) != (args.scorer is None):
        raise ValueError("--question and --scorer belong together: name what will be asked and a SigLIP or a CLIP.")
    if args.question is not None and args.selection is not None:
        raise ValueError(f"--question chooses the frames by itself: leave out --selection {args.selection}.")
    if args.device is not None and args.model is None and args.scorer is None:
        raise ValueError(f"--device {args.device} is of --model or --scorer: name one of them, or leave it out.")
    how = "question" if args.question is not None else args.selection or "farthest"
    _check_read(args, how)  # before a model is loaded for nothing

    import numpy as np
    from PIL import Image

    from ..commands.loading import Progress, find_device, quiet
    from ..commands.storyboard import clock, draw_storyboard
    from .contrastive_scorer import ContrastiveScorer
    from .frames import select_frames

    quiet()
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
    # Beside its place, or in it: there alone it is sure to be on the same disk, and a place that may be written.
    is_there = output.is_dir()
    home = output if is_there else output.parent
    for folder in _left_over(home, output.name):
        shutil.rmtree(folder, ignore_errors=True)
    # The process's number keeps two commands with the same output from writing into one folder.
    part = home / f"{output.name}.{os.getpid()}.part"
    part.mkdir()
    moved = []
    try:
        for name, frame in zip(names, frames, strict=True):
            Image.fromarray(frame).save(part / name)
        (part / "frames.json").write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", "utf-8")
        board.save(part / "contact_sheet.jpg")
        if not is_there:
            part.rename(output)
            return 0
        _check_free(output, args.output)  # again: the work took its time
        for name in (*names, "contact_sheet.jpg", "frames.json"):
            moved.append(output / name)
            (part / name).rename(moved[-1])
        part.rmdir()
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        raise
    return 0


def _check_free(output: Path, given: str) -> None:
    if output.exists() and (not output.is_dir() or set(output.iterdir()) != set(_left_over(output, output.name))):
        raise ValueError(f"--output {given} is there already and not an empty folder: name a new one.")


def _left_over(home: Path, name: str) -> list[Path]:
    """What commands with this output leave of their work when killed: folders of such names, of nothing but it."""
    named = re.compile(rf"{re.escape(name)}\.\d+\.part")
    return [
        path
        for path in home.glob(f"{glob.escape(name)}.*.part")
        if named.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        if all(_WRITTEN.fullmatch(child.name) for child in path.iterdir())
    ]


def _check_read(args: argparse.Namespace, how: str) -> None:
    """Refuses options without an effect, as `select_frames` does, by their names here."""
    named = {
        "encoder": ("--model", args.model),
        "candidate_fps": ("--candidate-fps", args.candidate_fps),
        "max_candidates": ("--max-candidates", args.max_candidates),
        "seed": ("--seed", args.seed),
    }
    given = [name for name, (_, value) in named.items() if value is not None]
    goes_by, names = unread(how, given, are_pictures=os.path.isdir(args.video))
    if names:
        chosen = "--question" if how == "question" else f"--selection {how}"
        raise ValueError(f"{chosen} {goes_by}: leave out {', '.join(named[name][0] for name in names)}.")


def _tower(name: str, device: str | None) -> tuple:
    """A model's vision tower as an encoder of candidates, and the size at which it takes them."""
    from ..commands.loading import load_model

    model, processor = load_model(name, device)
    videos = processor.video_processor
    size = (model.config.frame_side,) * 2
    return (lambda frames: model.encode_frames(videos.pixels(frames, model.device)).cpu()), size


__all__ = ["add_arguments", "run"]
