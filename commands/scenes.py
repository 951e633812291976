"""`fila-video scenes`: the scenes of a video as a storyboard, as JSON, or both."""

import argparse
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np

from ..video_reading_fila_video import probe_video, read_frames
from .answer import announce_demonstration
from .cli import SELECTIONS, call_options
from .loading import Progress, load_model, quiet
from .storyboard import clock, draw_storyboard


def run(args: argparse.Namespace) -> int:
    """Selects the scenes and writes them."""
    quiet()
    announce_demonstration(args)
    model, processor = load_model(args.model, args.device)
    processor.frame_encoder = model.encode_frames
    options = call_options(args)
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


def save_storyboard(video: str, scenes: dict, selection: str, output: str, frame_width: int = 320) -> None:
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
        subtitle=f"{clock(duration)} · scenes: {num_scenes}, of {scene_size} frames each · {SELECTIONS[selection]}",
        duration=duration,
        frame_width=frame_width,
    )
    # Encoded before it is written: an interrupted command leaves no half picture.
    encoded = BytesIO()
    board.save(encoded, {".png": "PNG", ".webp": "WEBP"}.get(Path(output).suffix.lower(), "JPEG"))
    Path(output).write_bytes(encoded.getvalue())


__all__ = ["describe", "run", "save_storyboard"]
