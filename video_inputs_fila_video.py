"""The forms in which users pass videos: sources to read and frames as they are, alone, in lists and in chats."""

import math
import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from .encoded_video_fila_video import EncodedVideo
from .video_index_fila_video import ascending
from .video_pictures_fila_video import bytes_of_base64, check_nesting, leaves, to_uint8_rgb
from .video_reading_fila_video import TimedVideoMetadata, VideoFrames, VideoSegment

logger = logging.get_logger(__name__)


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


# Of a folder's frames, also those that Pillow may not read: then the error names the file.
PICTURE_ENDINGS = _endings(
    "avif bmp dib gif heic heif j2k jfif jp2 jpe jpeg jpg jpx pbm pcx pfm pgm png pnm ppm qoi sgi tga tif tiff webp"
)
# Those of `commands/endings.py`, which the Hub's loader does not put beside this file.
VIDEO_ENDINGS = _endings(
    "3g2 3gp 264 265 asf avi divx dv f4v flv h264 h265 hevc ivf m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mov "
    "mp4 mpe mpeg mpg mpv mts mxf obu ogm ogv qt tod trp ts vob webm wmv y4m"
)
CLIP_KEYS = ("video_start", "video_end")
# What else a column of a clip's times may be called.
CLIP_TIMES = re.compile("(clip|video)?_?(start|begin|end|stop)_?(time|seconds?|secs?|s|ms)?", re.IGNORECASE)
SOURCE_KEYS = ("bytes", "video", "url", "path", "video_url")  # of a video's dictionary
DECODED_AT_ONCE = 16  # frames of a decoder that stand in memory at full size


class HeldVideo:
    """A video in a chat on its way through transformers, which takes lists, tuples and dataclasses in it apart."""

    def __init__(self, video: Any) -> None:
        self.video = video


def is_frame_sequence(video: Any) -> bool:
    """
    Whether a video is given as frames rather than as a source to read.

    Raises:
        ValueError: If it is an empty list.
    """
    if isinstance(video, (np.ndarray, torch.Tensor, Image.Image)):
        return True
    if _is_list(video) and not video:
        raise ValueError("An empty list is not a video: pass at least one frame or segment, or a source to read.")
    return _is_list(video) and not isinstance(video[0], VideoSegment)


def own_classes(video: Any, depth: int = 0) -> Any:
    """
    What another copy of this code made, as this one's: there are several where the package and remote code are in one
    process, and for each file of remote code that is loaded from a folder.
    """
    check_nesting(depth)
    if type(video) in (list, tuple):
        items = [own_classes(item, depth + 1) for item in video]
        return video if all(new is old for new, old in zip(items, video, strict=True)) else items
    for own in (VideoFrames, VideoSegment, EncodedVideo):
        if type(video).__name__ == own.__name__ and not isinstance(video, own):
            return own(**(video._asdict() if hasattr(video, "_asdict") else vars(video)))
    return video


def _is_list(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and not isinstance(item, VideoSegment)  # which is a tuple with names


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def _is_one_video(item: Any) -> bool:
    if not _is_list(item):
        return True
    return bool(item) and (all(map(_is_frame, item)) or all(isinstance(part, VideoSegment) for part in item))


def flatten_videos(videos: Any, depth: int = 0) -> list:
    """
    The videos in a nested list, each as [`FilaVideoVideoProcessor.load_video`] takes it.

    A list of pictures is one video, a list of paths is a list of videos. Chats nest conversations and their videos, so
    a third list, of picture files, is one video again.

    Raises:
        ValueError: If something in it is no video.
    """
    check_nesting(depth)
    videos = own_classes(videos.video if isinstance(videos, HeldVideo) else videos)
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim in (2, 3, 4):
            return [videos]
        raise ValueError(f"A video array has 2 to 5 dimensions, got one of shape {tuple(videos.shape)}.")
    if isinstance(videos, str):
        videos = decoded(videos)
    if isinstance(videos, (str, Path)):
        return [pictures_of_folder(videos) if os.path.isdir(videos) else videos]
    if isinstance(videos, (bytes, bytearray, memoryview, Image.Image, VideoFrames, VideoSegment, EncodedVideo)):
        return [bytes(videos) if isinstance(videos, (bytearray, memoryview)) else videos]
    if isinstance(videos, dict):
        return flatten_videos(clip_of(videos), depth + 1)
    if is_frame_batch(videos):
        return [_frames_of_batch(videos)]
    if hasattr(videos, "read") or is_decoder(videos):
        return [videos]
    if not isinstance(videos, Sequence):
        raise ValueError(
            f"A {type(videos).__name__} is not a video: pass a path, a folder of pictures, a URL, bytes, a binary "
            "file, a dictionary with one of them, segments, a decoder, an array, or a list of pictures."
        )
    if not isinstance(videos, (list, tuple)):
        videos = list(videos)  # a column of `datasets`
    if depth < 2 and len(videos) > 1 and all(map(_is_picture_file, videos)):
        logger.warning_once(
            f"{len(videos)} files of pictures are as many videos of one frame each: pass their folder, or opened "
            "pictures, where they are the frames of one video."
        )
    are_frames = depth == 2 and videos and all(isinstance(item, (str, Path, bytes)) for item in videos)
    if are_frames or _is_one_video(videos):
        return [videos]
    return [video for item in videos for video in flatten_videos(item, depth + 1)]


def _is_picture_file(video: Any) -> bool:
    return isinstance(video, (str, Path)) and Path(video).suffix.lower() in PICTURE_ENDINGS - {".gif"}


def decoded(medium: str, kind: str = "video") -> str | bytes:
    """The bytes in a `data:` URL; other names as they are."""
    if medium[:5].lower() != "data:":
        return medium
    head, comma, data = medium.partition(",")
    try:
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("it is not base64")
        return bytes_of_base64(data)
    except ValueError as error:
        raise ValueError(f"Cannot read the {kind} in the URL {medium[:40]!r}...: {error}.") from error


def check_video_keys(video: dict) -> None:
    """
    Raises:
        ValueError: If a video's dictionary names two sources, or a time under a name that is not read.
    """
    sources = [name for name in SOURCE_KEYS if video.get(name) is not None]
    if len(sources) > 1 and sources != ["bytes", "path"]:  # which `datasets` gives together
        raise ValueError(f"A video has one source, but this one has {' and '.join(f'`{name}`' for name in sources)}.")
    for name in video:
        if name in (*SOURCE_KEYS, *CLIP_KEYS, "type") or video[name] is None:
            continue
        if re.search("start|end|strat", name) or get_close_matches(name, CLIP_KEYS):
            raise ValueError(f"`{name}` of a video is not read: a clip has `video_start` and `video_end`, in seconds.")
        logger.warning_once(f"`{name}` of a video is not read; options are passed to the processor or the pipeline.")


def clip_of(video: dict, depth: int = 0) -> Any:
    """
    The video in a dictionary, as `datasets` and chats hold one.

    Args:
        video (`dict`):
            The source as `bytes`, `video`, `url`, `path` or `video_url` (`bytes` before `path`); and `video_start`,
            `video_end` (seconds, *optional*) of a clip.

    Returns:
        The source, or a list of one `VideoSegment` where a start or an end is given.

    Raises:
        ValueError: If there is no source, the times are not in order, the source has no times of its own, or what is
            said in other words would be lost.
    """
    check_nesting(depth)
    check_video_keys(video)
    sources = [video[name] for name in SOURCE_KEYS if video.get(name) is not None]
    if not sources:
        raise ValueError(f"A video's dictionary has `bytes`, `video`, `url` or `path`; this one has {sorted(video)}.")
    source, start, end = sources[0], video.get("video_start"), video.get("video_end")
    if isinstance(source, dict):
        span = {name: video[name] for name in CLIP_KEYS if video.get(name) is not None}
        return clip_of({**source, **span}, depth + 1)
    source = decoded(source) if isinstance(source, str) else source
    if start is None and end is None:
        return source
    times = [time for time in (start, end) if time is not None]
    numbers = all(isinstance(time, Real) and not isinstance(time, bool) and time >= 0 for time in times)
    if not numbers or (end is not None and end <= (start or 0)):
        raise ValueError(f"A clip has `video_start` < `video_end` in seconds from 0, got {start!r} and {end!r}.")
    readable = isinstance(source, (str, Path, bytes)) or hasattr(source, "read")
    if not readable or (isinstance(source, (str, Path)) and os.path.isdir(source)):
        raise ValueError(
            f"`video_start` and `video_end` cut a file, URL or bytes, not a {type(source).__name__} or a folder: pass "
            "the frames of the clip alone."
        )
    # What a column of a table holds are numbers of NumPy, which cannot be saved as JSON.
    start, end = (time if time is None or isinstance(time, (int, float)) else float(time) for time in (start, end))
    return [VideoSegment(source, start, end)]


def row_of_dataset(row: dict[str, Any]) -> dict[str, Any]:
    """The video, or its clip, the question, and what is said in a row of a `datasets.Dataset`."""
    video = next((row[name] for name in ("videos", "video") if row.get(name) is not None), None)
    span = {name: row[name] for name in CLIP_KEYS if row.get(name) is not None}
    if span and isinstance(video, list) and len(video) == 1:
        (video,) = video
    video = video if video is None or not span else {"video": video, **span}
    return {"videos": video, "text": row["text"], "subtitles": row.get("subtitles")}


def check_columns(columns: Sequence[str]) -> None:
    """
    Raises:
        ValueError: If a dataset lacks a column that is needed, or has a clip's times or subtitles under names that are
            not read.
    """
    if "text" not in columns or not {"videos", "video"} & set(columns):
        raise ValueError(
            f"A dataset needs the columns `video` (or `videos`) and `text`, this has {', '.join(columns)}. "
            "Rename them, or pass `pipe(dataset['...'], text='...')`, a column of chats as `pipe(dataset['...'])`, or "
            "a `KeyDataset` of transformers."
        )
    for name in columns:
        # Not by likeness alone: a dataset has columns of anything, such as `gender` and `video_id`.
        if name not in CLIP_KEYS and (CLIP_TIMES.fullmatch(name) or get_close_matches(name, CLIP_KEYS, cutoff=0.9)):
            raise ValueError(
                f"The column `{name}` of a dataset is not read: a clip has `video_start` and `video_end`, in seconds. "
                "Rename it, or remove it."
            )
        if name != "subtitles" and get_close_matches(name, ("subtitles",), cutoff=0.9):
            raise ValueError(
                f"The column `{name}` of a dataset is not read: what is said stands in `subtitles`, as the option "
                "takes it. Rename it, or remove it."
            )


def pictures_of_folder(folder: str | Path) -> list[Path]:
    """
    The pictures in a folder as the frames of one video: frame 2 comes before frame 10.

    Raises:
        ValueError: If there is none, or a film beside them.
    """
    # A name with a dot before it is of a hidden file, such as macOS puts beside each picture on a foreign disk.
    found = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    if film := next((path for path in found if path.suffix.lower() in VIDEO_ENDINGS), None):
        raise ValueError(
            f"The folder {str(folder)!r} is read as pictures, the frames of one video, but it also holds {film.name}: "
            "name the film itself, or move it out of the folder."
        )
    pictures = [path for path in found if path.suffix.lower() in PICTURE_ENDINGS]
    if not pictures:
        raise ValueError(f"The folder {str(folder)!r} is not a video: it holds no pictures.")
    # The parts are text and number in turns.
    return sorted(
        pictures, key=lambda path: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]
    )


def is_decoder(video: Any) -> bool:
    """Whether it is torchcodec's `VideoDecoder`, which a column of `datasets.Video` holds."""
    return hasattr(video, "get_frames_at") and hasattr(video, "metadata")


def is_frame_batch(video: Any) -> bool:
    """Whether it is torchcodec's `FrameBatch`: frames with their times."""
    return hasattr(video, "pts_seconds") and hasattr(video, "data") and getattr(video.data, "ndim", 0) == 4


def _frames_of_batch(batch: Any) -> VideoFrames:
    frames = to_uint8_rgb(batch.data).permute(0, 2, 3, 1).cpu().numpy()
    times = [float(time) for time in batch.pts_seconds]
    if len(times) != len(frames):
        raise ValueError(f"A FrameBatch has {len(frames)} frames, but {len(times)} times in `pts_seconds`.")
    duration = max(times) + float(batch.duration_seconds[-1])
    return _timed(frames, list(range(len(times))), times, len(times), duration)


def _timed(frames: np.ndarray, indices: list[int], times: list[float], total: int, duration: float) -> VideoFrames:
    fps = total / duration if duration > 0 else None
    metadata = TimedVideoMetadata(total, fps, duration=duration, frames_indices=indices)
    metadata.frame_times = dict(zip(indices, times, strict=True))
    return VideoFrames(frames, np.array(times), metadata)


def read_decoder(
    decoder: Any,
    num_frames: int | Callable[[TimedVideoMetadata], int] | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoFrames:
    """
    Frames of torchcodec's `VideoDecoder`, with their times; no others are decoded.

    Args:
        decoder (`torchcodec.decoders.VideoDecoder`): An open one.
        num_frames (`int` or a function of the metadata, *optional*):
            So many, evenly from the first to the last: by their numbers, as a decoder says no times beforehand, which
            is even in time where the rate is constant. The function may also return an array of frame numbers.
        fps (`float`, *optional*):
            Those shown at 0, 1 / fps, 2 / fps, ... seconds, no frame twice. Their numbers in the metadata are those of
            a constant rate.
        size (`tuple[int, int]`, *optional*): Height and width to which frames are resized (bicubic).
        progress (`Callable[[int, int], None]`, *optional*): Is called with the frames done and their total.

    Raises:
        ValueError: If the decoder knows of no frames or no duration.
    """
    total, duration = decoder.metadata.num_frames, decoder.metadata.duration_seconds
    if not total or not duration:
        raise ValueError(f"The decoder knows {total} frames and {duration} seconds: pass the video's file instead.")
    rate, begin = total / duration, getattr(decoder.metadata, "begin_stream_seconds", None) or 0.0
    by_time = fps is not None and fps < 8 * rate and hasattr(decoder, "get_frames_played_at")
    if fps is not None:
        fps = min(fps, 8 * rate)  # beyond, every frame is shown at one of the times
        seconds = np.arange(max(1, math.ceil(fps * duration - 1e-6))) / fps
        numbers = seconds * rate
    else:
        if callable(num_frames):
            num_frames = num_frames(TimedVideoMetadata(total, rate, duration=duration))
        evenly = not isinstance(num_frames, np.ndarray)
        numbers = np.linspace(0, total - 1, min(num_frames, total)) if evenly else num_frames
    # The frame shown at each of them; a moment before a frame counts as its time, as in `read_frames`.
    if by_time:
        end = getattr(decoder.metadata, "end_stream_seconds", None) or begin + duration
        early = min(1.01e-3, 0.25 / rate)  # it does not say to what the file rounds its times: a millisecond at most
        wanted = torch.from_numpy(np.minimum(begin + seconds + early, end - 1e-9))
    else:
        wanted = np.unique((numbers + 1e-6).astype(int).clip(0, total - 1)).tolist()
    frames, times = [], []
    for at in range(0, len(wanted), DECODED_AT_ONCE):
        part = wanted[at : at + DECODED_AT_ONCE]
        batch = decoder.get_frames_played_at(part) if by_time else decoder.get_frames_at(part)
        shown = [max(float(time) - begin, 0.0) for time in batch.pts_seconds]
        before = [times[-1] if times else -1.0, *shown]
        new = [place for place, time in enumerate(shown) if time > before[place] or not by_time]
        if new:
            frames.append(resized(to_uint8_rgb(batch.data[new]), size).permute(0, 2, 3, 1).cpu())
            times += [shown[place] for place in new]
        if progress is not None:
            progress(min(at + DECODED_AT_ONCE, len(wanted)), len(wanted))
    if by_time:
        wanted = ascending(np.round(np.array(times) * rate).astype(int), max(total, len(times))).tolist()
    return _timed(torch.cat(frames).numpy(), wanted, times, total, float(duration))


def resized(frames: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Frames `(num_frames, 3, height, width)`, uint8, at another height and width (bicubic), where one is given."""
    if size is None or tuple(frames.shape[2:]) == tuple(size):
        return frames
    frames = torch.nn.functional.interpolate(frames.float(), size, mode="bicubic", antialias=True)
    return frames.round().clamp(0, 255).to(torch.uint8)


def videos_of_rows(videos: Any, num_rows: int) -> list[int] | None:
    """How many videos each prompt has, where they are nested that way."""
    if not _is_list(videos) or len(videos) != num_rows or any(map(_is_one_video, videos)):
        return None
    return [len(flatten_videos(row, depth=1)) for row in videos]


def check_rows(text: list[str], counts: list[int] | None, token: str, name: str) -> None:
    """
    Raises:
        ValueError: If a prompt has another number of placeholders than media were passed for it, where `counts` says.
    """
    for row, count in enumerate(counts or []):
        if isinstance(text[row], str) and text[row].count(token) != count:
            raise ValueError(
                f"The number of {token} tokens in the prompts should be the same as the number of {name} passed "
                f"for each: prompt {row} has {text[row].count(token)} {token} tokens and {count} {name}."
            )


def flatten_metadata(metadata: Any, num_videos: int) -> list:
    """
    One `VideoMetadata`, dictionary or `None` a video.

    Raises:
        ValueError: If there is not one for each video.
    """
    if metadata is None:
        return [None] * num_videos

    metadata = leaves(metadata)
    if len(metadata) != num_videos:
        raise ValueError(f"`video_metadata` describes {len(metadata)} videos, but {num_videos} were passed.")
    return metadata


__all__ = [
    "CLIP_KEYS",
    "VIDEO_ENDINGS",
    "HeldVideo",
    "check_columns",
    "check_rows",
    "clip_of",
    "decoded",
    "flatten_metadata",
    "flatten_videos",
    "is_decoder",
    "is_frame_sequence",
    "read_decoder",
    "resized",
    "row_of_dataset",
    "videos_of_rows",
]
