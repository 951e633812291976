"""`fila-video scenes`: the scenes of a video as a storyboard, as JSON, or both."""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..video_inputs_fila_video import flatten_videos, is_frame_sequence
from ..video_pictures_fila_video import open_still_picture, to_uint8_rgb
from ..video_reading_fila_video import probe_video, read_frames
from ..video_sources_fila_video import source_name
from .cli import SHOWN_AS, announce_demonstration, call_options
from .loading import Progress, load_model, quiet
from .storyboard import TALLEST, clock, draw_storyboard, write_picture


def run(args: argparse.Namespace) -> int:
    """Selects the scenes and writes them."""
    quiet()
    announce_demonstration(args)
    model, processor = load_model(args.model, args.device, args.dtype)
    processor.frame_encoder = model.encode_frames
    options = call_options(args)
    if args.question is not None:
        options |= {"selection": "question", "question": args.question}
    told = {"return_scenes": True, "return_metadata": True, "progress": Progress()}
    outputs = processor(videos=[args.video], **told, **options)
    settings = processor.video_processor.scene_settings(**options)
    scenes, selection = outputs["scenes"][0], settings.selection
    seen = outputs["video_metadata"][0]
    if args.question is not None and scenes.get("scores") is None:
        print(
            "fila-video: All candidates are taken, so --question scored none of them: lower --num-scenes.",
            file=sys.stderr,
        )
    # Even frames are chosen from the video, others from its pool. What scenes can hold is taken whole.
    if (seen.total_num_frames if selection == "uniform" else len(seen.frames_indices)) <= settings.num_selected_frames:
        selection = "all"
    if processor.frame_encoding == "cooperative":
        scenes, selection = key_frames_of(model, scenes, outputs["frame_features"][0]), None
    if args.json is not None:
        text = json.dumps(describe(args.video, scenes, selection), indent=2, ensure_ascii=False) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.output is not None:
        save_storyboard(args.video, scenes, selection, args.output)
    return 0


@torch.no_grad()
def key_frames_of(model: FilaVideoForConditionalGeneration, frames: dict, features: torch.Tensor) -> dict:
    """
    Of the frames of a video, each a scene, those that the model takes for key frames, and the others as `background`.

    Raises:
        ValueError: If the model has no key frames.
    """
    prototypes, chosen, _ = model.model.cooperative_encoder.choose_key_frames(features)
    if len(chosen) == 0:
        raise ValueError("The model has no key frames (`key_frames` is 0): there is nothing to show.")
    is_key = torch.zeros(len(features), dtype=torch.bool)
    is_key[prototypes[chosen].cpu()] = True
    others = {name: frames[name][~is_key, 0] for name in ("indices", "timestamps")}
    keys = {name: frames[name][is_key] for name in ("indices", "timestamps")}
    return {**frames, **keys, "background": others}


def describe(video: str, scenes: dict, selection: str | None) -> dict:
    """
    The scenes, or without a `selection` the key frames, in plain numbers; times in seconds. The selection is "all"
    where there were no more frames than scenes hold.
    """
    background = scenes.get("background", {"indices": torch.empty(0), "timestamps": torch.empty(0)})
    others = zip(background["indices"].tolist(), background["timestamps"].tolist(), strict=True)
    others = [{"index": index, "timestamp": round(seconds, 3)} for index, seconds in others]
    indices, times = scenes["indices"].tolist(), scenes["timestamps"].tolist()
    return {
        "video": video,
        "duration": round(float(scenes["duration"]), 3),
        **({"frame_encoding": "cooperative"} if selection is None else {"selection": selection}),
        "num_scenes": len(indices),
        "scene_size": len(indices[0]),
        **_scores_in_numbers(scenes.get("scores")),
        "scenes": [
            {
                "indices": frames,
                "timestamps": [round(seconds, 3) for seconds in when],
                "representative": {"index": frames[-1], "timestamp": round(when[-1], 3)},
            }
            for frames, when in zip(indices, times, strict=True)
        ],
        **({"background": others} if others else {}),
    }


def _scores_in_numbers(scores: dict | None) -> dict:
    if scores is None:
        return {}
    pairs = zip(scores["timestamps"].tolist(), scores["values"].tolist(), strict=True)
    rows = [{"timestamp": round(seconds, 3), "score": float(f"{score:.6g}")} for seconds, score in pairs]
    return {"question": scores["question"], "scores": rows}


def save_storyboard(video: str, scenes: dict, selection: str | None, output: str, frame_width: int = 320) -> None:
    """Draws the chosen frames, large enough to look at, and saves the board."""
    shown = [scenes, scenes["background"]] if "background" in scenes else [scenes]
    indices, times = (
        np.concatenate([part[name].numpy().ravel() for part in shown]) for name in ("indices", "timestamps")
    )
    # A frame may stand in a scene twice, where its history was short: it is read once.
    indices, first, positions = np.unique(indices, return_index=True, return_inverse=True)
    times = times[first]
    num_scenes, scene_size = scenes["indices"].shape
    duration, scores = float(scenes["duration"]), scenes.get("scores")
    if selection is None:
        how = f"key frames: {num_scenes}"
    else:
        by = SHOWN_AS[selection] if scores is None else f"by “{scores['question']}”"
        how = f"scenes: {num_scenes}, of {scene_size} frames each · {by}"
    if scores is not None:
        scores = scores["timestamps"].numpy(), scores["values"].cpu().numpy()
    board = draw_storyboard(
        _frames_at(video, indices, times, frame_width),
        positions[: num_scenes * scene_size].reshape(num_scenes, scene_size),
        times,
        title="data: URL" if video[:5].lower() == "data:" else os.path.basename(os.path.abspath(video)),
        subtitle=f"{clock(duration)} · {how}",
        duration=duration,
        scores=scores,
        film=positions[num_scenes * scene_size :],
        frame_width=frame_width,
        noun="Key frame" if selection is None else "Scene",
    )
    write_picture(board, output)


def _frames_at(video: str, indices: np.ndarray, times: np.ndarray, frame_width: int) -> np.ndarray:
    """
    Frames `(num_frames, height, width, 3)`, by their numbers, which ascend, and their times. Of a file they are read
    once more, in the size in which they are shown; pictures are there as they are.
    """
    (source,) = flatten_videos(video)
    pictures = source if is_frame_sequence(source) else open_still_picture(source)
    if pictures is not None:
        chosen = [pictures[index] for index in indices] if isinstance(pictures, list) else pictures
        return to_uint8_rgb(chosen).permute(0, 2, 3, 1).numpy()
    shape, progress = probe_video(source), Progress()
    scale = min(frame_width / shape.width, TALLEST * frame_width / shape.height)
    read = read_frames(
        source,
        times=times,
        size=tuple(max(round(scale * side), 1) for side in (shape.height, shape.width)),
        progress=lambda done, total: progress("reading", done, total),
    )
    if list(read.metadata.frames_indices) != indices.tolist():
        raise ValueError(f"{source_name(video)} changed while it was read: its chosen frames are no longer the same.")
    return read.frames


__all__ = ["describe", "key_frames_of", "run", "save_storyboard"]
