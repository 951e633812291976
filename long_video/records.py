"""The form of a LongVideo record: one long video made of many short ones, with every scene's time and caption.

A record is one line of JSON with these keys:

- `id` (str): `longvideo_00000000`, numbered through the build.
- `duration` (float): seconds of the whole video, the sum of its segments.
- `segments` (list): the sub-videos in the order in which they play, each
    - `file` (str): path under the folder of videos; `start`, `end` (float): the seconds of that file that are played,
    - `scene_start`, `scene_end` (float): the seconds of the long video in which they are played,
    - `caption` (str): the scene's text; `id`, `data_source` (str): whose annotation it is.
- `conversations` (list): LLaVA's form, one `human` and one `gpt` turn. The human's text is `<image>`,
  `<time_instruction>` and the request, a line each; `<image>` stands for the video, as in LLaVA-Video-178K. The
  answer gives every scene's time span and caption in order.
- `data_source` (str): `longvideo`.
- `video` (str): only where the build wrote video files: the joined file, a path under the build's own folder.

`<time_instruction>` is filled in when frames are sampled, by `fill_time_instruction`, so that the same record serves
any number of frames. The video is `record_source(record, ...)`, which the reader takes like any other.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is needed: the command's help must not wait for torch
    from ..video_reading_fila_video import VideoSegment

VIDEO_PLACEHOLDER = "<image>"
TIME_PLACEHOLDER = "<time_instruction>"
DATA_SOURCE = "longvideo"
REQUESTS = (
    "Describe this video scene by scene, with the start and the end of every scene in seconds.",
    "Go through the video in order. For each scene, give its time span in seconds and describe it in detail.",
    "Write a detailed caption of the whole video, one paragraph a scene, each beginning with its time span.",
    "What happens in this video, and when? Cover every scene from its first to its last second.",
    "Give a complete description of the video with timestamps, in chronological order.",
)


def record_id(number: int) -> str:
    return f"longvideo_{number:08d}"


def video_name(number: int) -> str:
    """Where the build writes the joined file of a record, under its own folder."""
    return f"videos/{number // 1000:05d}/{record_id(number)}.mp4"


def make_record(number: int, inputs: Sequence[dict], seed: int, materialized: bool = False) -> dict:
    """The record of one long video (section 3.3): each sub-video is a scene.

    Args:
        number (`int`):
            The number of the record in the build; with `seed`, it decides the wording of the request.
        inputs (`Sequence[dict]`):
            The sub-videos in the order of play, each with `id`, `data_source`, `file`, `caption` and `duration`
            (seconds).
        materialized (`bool`, *optional*, defaults to `False`):
            Whether the joined file is written, and named in `video`.
    """
    segments, at = [], 0.0
    for item in inputs:
        end = at + item["duration"]
        segments.append(
            {
                "file": item["file"],
                "start": 0.0,
                "end": item["duration"],
                "scene_start": round(at, 6),
                "scene_end": round(end, 6),
                "caption": item["caption"],
                "id": item["id"],
                "data_source": item["data_source"],
            }
        )
        at = end
    request = random.Random(f"{seed} {number}").choice(REQUESTS)
    record = {
        "id": record_id(number),
        "duration": round(at, 6),
        "segments": segments,
        "conversations": [
            {"from": "human", "value": f"{VIDEO_PLACEHOLDER}\n{TIME_PLACEHOLDER}\n{request}"},
            {"from": "gpt", "value": merge_captions(segments)},
        ],
        "data_source": DATA_SOURCE,
    }
    if materialized:
        record["video"] = video_name(number)
    return record


def merge_captions(segments: Sequence[dict]) -> str:
    """One paragraph a scene: its time span in seconds, rounded to a tenth, and its caption."""
    return "\n\n".join(
        f"From {segment['scene_start']:.1f} to {segment['scene_end']:.1f} seconds: {segment['caption']}"
        for segment in segments
    )


def fill_time_instruction(record: dict, timestamps: Sequence[float] | None) -> list[dict]:
    """The record's conversations with the paper's sentence ("This video samples N frames of a T-second video at ...").

    Args:
        record (`dict`):
            As `make_record` gives it; it is not changed.
        timestamps (`Sequence[float]`):
            The sampled frames' times in seconds from the start of the long video. `None` takes the sentence's line
            out: for a processor that writes the sentence itself (`add_time_instruction=True`).

    Raises:
        ValueError: Where a time does not lie within the video.
    """
    from ..video_prompt_fila_video import time_instruction

    if timestamps is None:
        found, filling = TIME_PLACEHOLDER + "\n", ""
    else:
        outside = [time for time in timestamps if not 0 <= time <= record["duration"]]
        if outside or len(timestamps) == 0:
            raise ValueError(
                f"{record['id']}: the sampled frames' times must lie within its {record['duration']} seconds, "
                f"got {outside or 'none'}."
            )
        found, filling = TIME_PLACEHOLDER, time_instruction(list(timestamps), record["duration"])
    return [
        {**turn, "value": turn["value"].replace(found, filling)} if turn["from"] == "human" else dict(turn)
        for turn in record["conversations"]
    ]


def record_source(
    record: dict, videos: str | os.PathLike, output: str | os.PathLike | None = None
) -> "list[VideoSegment] | Path":
    """What to give to the reader: the list of segments, which it plays as one video without a joined file.

    Args:
        videos (`str` or `os.PathLike`):
            The folder that the segments' files lie under.
        output (`str` or `os.PathLike`, *optional*):
            The build's folder; where it is given and the record names a joined file, its path is returned.
    """
    from ..video_reading_fila_video import VideoSegment

    if output is not None and record.get("video") is not None:
        return Path(output) / record["video"]
    return [
        VideoSegment(str(Path(videos) / PurePosixPath(segment["file"])), segment["start"], segment["end"])
        for segment in record["segments"]
    ]


__all__ = [
    "DATA_SOURCE",
    "REQUESTS",
    "TIME_PLACEHOLDER",
    "VIDEO_PLACEHOLDER",
    "fill_time_instruction",
    "make_record",
    "merge_captions",
    "record_id",
    "record_source",
    "video_name",
]
