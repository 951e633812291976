"""A small set of captioned videos: every frame of every video carries a number of its own."""

import hashlib
import json
from pathlib import Path

from fila_video.long_video.build import BuildSettings
from fila_video.long_video.plan import JoiningRules

from helpers.video_files import make_video, picture

FPS = 10


def frame_number(video: int, frame: int) -> int:
    return 1 + video * 64 + frame


def make_clip(path, video: int, frames: int, **arguments):
    arguments = {"fps": FPS, **arguments}
    draw = lambda frame, width, height: picture(frame_number(video, frame), width, height)  # noqa: E731
    return make_video(path, frames, draw=draw, **arguments)


def caption_record(video: int, /, **changes) -> dict:
    turns = [
        {"from": "human", "value": "<image>\nDescribe the video."},
        {"from": "gpt", "value": f"Number {video} appears" + " and moves" * video + "."},
    ]
    name = f"clips/{video:02d}.mp4"
    return {"id": f"clip-{video}", "data_source": "made", "video": name, "conversations": turns, **changes}


def make_set(folder: Path, count: int = 12) -> Path:
    """`folder/videos/clips/*.mp4` of 2.0 to 5.1 seconds, and `folder/captions.json`."""
    (folder / "videos" / "clips").mkdir(parents=True)
    for video in range(count):
        make_clip(folder / "videos" / "clips" / f"{video:02d}.mp4", video, 20 + video * 31 // max(count - 1, 1))
    write_captions(folder, [caption_record(video) for video in range(count)])
    return folder


def write_captions(folder: Path, records) -> Path:
    path = folder / "captions.json"
    path.write_text(json.dumps(records))
    return path


def settings(folder: Path, output: Path, **changes) -> BuildSettings:
    rules = {"count": 20, "max_uses": 12, "min_duration": 8.0, "max_duration": 30.0}
    rules.update({name: changes.pop(name) for name in list(changes) if name in (*rules, "seed")})
    arguments = {"shard_size": 6, "workers": 1, "progress": False, "annotations": folder / "captions.json"}
    arguments.update(changes)
    return BuildSettings(videos=folder / "videos", output=output, rules=JoiningRules(**rules), **arguments)


def bytes_of(output: Path) -> dict[str, str]:
    "Every file of a build, but its working folder, with its digest."
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }
