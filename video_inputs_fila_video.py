"""The forms in which users pass videos: sources to read and frames as they are, alone, in lists and in chats."""

import base64
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from transformers.utils import logging

from .encoded_video_fila_video import EncodedVideo
from .video_limits_fila_video import VideoLimits
from .video_reading_fila_video import TimedVideoMetadata, VideoFrames, VideoSegment
from .video_sources_fila_video import is_still, is_url, open_picture

logger = logging.get_logger(__name__)

# Files of these kinds hold one picture, unless they are animated.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
PICTURE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SOURCE_KEYS = ("bytes", "video", "url", "path", "video_url")  # of a video's dictionary
DECODED_AT_ONCE = 16  # frames of a decoder that stand in memory at full size


class HeldVideo:
    """A video in a chat on its way through transformers, which takes lists, tuples and dataclasses in it apart."""

    def __init__(self, video: Any) -> None:
        self.video = video


def is_frame_sequence(video: Any) -> bool:
    """Whether a video is given as frames rather than as a source to read."""
    if isinstance(video, (np.ndarray, torch.Tensor, Image.Image)):
        return True
    return _is_list(video) and not isinstance(video[0], VideoSegment)


def own_classes(video: Any) -> Any:
    """
    What another copy of this code made, as this one's: there are several where the package and remote code are in one
    process, and for each file of remote code that is loaded from a folder.
    """
    if type(video) in (list, tuple):
        items = [own_classes(item) for item in video]
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
    videos = own_classes(videos.video if isinstance(videos, HeldVideo) else videos)
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim in (2, 3, 4):
            return [videos]
        raise ValueError(f"A video array has 2 to 5 dimensions, got one of shape {tuple(videos.shape)}.")
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
    are_frames = depth == 2 and videos and all(isinstance(item, (str, Path, bytes)) for item in videos)
    if are_frames or _is_one_video(videos):
        return [videos]
    return [video for item in videos for video in flatten_videos(item, depth + 1)]


def check_video_keys(video: dict) -> None:
    """
    Raises:
        ValueError: If a video's dictionary names two sources, or a time under a name that is not read.
    """
    sources = [name for name in SOURCE_KEYS if video.get(name) is not None]
    if len(sources) > 1 and sources != ["bytes", "path"]:  # which `datasets` gives together
        raise ValueError(f"A video has one source, but this one has {' and '.join(f'`{name}`' for name in sources)}.")
    for name in video:
        if name in (*SOURCE_KEYS, "video_start", "video_end", "type") or video[name] is None:
            continue
        if re.search("start|end|strat", name) or get_close_matches(name, ("video_start", "video_end")):
            raise ValueError(f"`{name}` of a video is not read: a clip has `video_start` and `video_end`, in seconds.")
        logger.warning_once(f"`{name}` of a video is not read; options are passed to the processor or the pipeline.")


def clip_of(video: dict) -> Any:
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
    check_video_keys(video)
    sources = [video[name] for name in SOURCE_KEYS if video.get(name) is not None]
    if not sources:
        raise ValueError(f"A video's dictionary has `bytes`, `video`, `url` or `path`; this one has {sorted(video)}.")
    source, start, end = sources[0], video.get("video_start"), video.get("video_end")
    if isinstance(source, dict):
        span = {name: video[name] for name in ("video_start", "video_end") if video.get(name) is not None}
        return clip_of({**source, **span})
    if start is None and end is None:
        return source
    times = [time for time in (start, end) if time is not None]
    numbers = all(isinstance(time, (int, float)) and not isinstance(time, bool) and time >= 0 for time in times)
    if not numbers or (end is not None and end <= (start or 0)):
        raise ValueError(f"A clip has `video_start` < `video_end` in seconds from 0, got {start!r} and {end!r}.")
    readable = isinstance(source, (str, Path, bytes)) or hasattr(source, "read")
    if not readable or (isinstance(source, (str, Path)) and os.path.isdir(source)):
        raise ValueError(
            f"`video_start` and `video_end` cut a file, URL or bytes, not a {type(source).__name__} or a folder: pass "
            "the frames of the clip alone."
        )
    return [VideoSegment(source, start, end)]


def pictures_of_folder(folder: str | Path) -> list[Path]:
    """
    The pictures in a folder as the frames of one video: frame 2 comes before frame 10.

    Raises:
        ValueError: If there is none.
    """
    pictures = [path for path in Path(folder).iterdir() if path.suffix.lower() in PICTURE_ENDINGS]
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
    frames = to_uint8_rgb(batch.data).permute(0, 2, 3, 1).numpy()
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
    Frames of torchcodec's `VideoDecoder`, as `read_frames` gives them of a file; no others are decoded.

    Args:
        decoder (`torchcodec.decoders.VideoDecoder`): An open one.
        num_frames (`int` or a function of the metadata, *optional*):
            So many, evenly from the first to the last; the function may also return an array of frame numbers.
        fps (`float`, *optional*): Those shown at 0, 1 / fps, 2 / fps, ... seconds.
        size (`tuple[int, int]`, *optional*): Height and width to which frames are resized (bicubic).
        progress (`Callable[[int, int], None]`, *optional*): Is called with the frames done and their total.

    Raises:
        ValueError: If the decoder knows of no frames or no duration.
    """
    total, duration = decoder.metadata.num_frames, decoder.metadata.duration_seconds
    if not total or not duration:
        raise ValueError(f"The decoder knows {total} frames and {duration} seconds: pass the video's file instead.")
    if fps is not None:
        numbers = np.arange(0, duration, 1 / fps) * (total / duration)
    else:
        if callable(num_frames):
            num_frames = num_frames(TimedVideoMetadata(total, total / duration, duration=duration))
        # The frame shown at each of the even times, as `read_frames` chooses.
        evenly = not isinstance(num_frames, np.ndarray)
        numbers = np.linspace(0, total - 1, min(num_frames, total)) + 1e-6 if evenly else num_frames
    indices = np.unique(numbers.astype(int).clip(0, total - 1)).tolist()
    frames, times, begin = [], [], getattr(decoder.metadata, "begin_stream_seconds", None) or 0.0
    for at in range(0, len(indices), DECODED_AT_ONCE):
        batch = decoder.get_frames_at(indices[at : at + DECODED_AT_ONCE])
        frames.append(resized(to_uint8_rgb(batch.data), size).permute(0, 2, 3, 1))
        times += [max(float(time) - begin, 0.0) for time in batch.pts_seconds]
        if progress is not None:
            progress(min(at + DECODED_AT_ONCE, len(indices)), len(indices))
    return _timed(torch.cat(frames).numpy(), indices, times, total, float(duration))


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


def flatten_metadata(metadata: Any, num_videos: int) -> list:
    """
    One `VideoMetadata`, dictionary or `None` a video.

    Raises:
        ValueError: If there is not one for each video.
    """
    if metadata is None:
        return [None] * num_videos

    metadata = _leaves(metadata)
    if len(metadata) != num_videos:
        raise ValueError(f"`video_metadata` describes {len(metadata)} videos, but {num_videos} were passed.")
    return metadata


def _leaves(item: Any) -> list:
    """What a nested list holds, in order."""
    return [leaf for part in item for leaf in _leaves(part)] if isinstance(item, (list, tuple)) else [item]


def open_still_picture(source: Any, limits: VideoLimits | None = None) -> Image.Image | None:
    """
    The picture in a file (path or bytes) that holds a single one, upright; `None` for anything else.

    Raises:
        VideoReadError: If it is damaged or over the limits.
    """
    if not isinstance(source, (str, Path, bytes)):
        return None
    file = BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as picture:
            # A photograph may carry smaller copies of itself, which are no animation; frames of raw Motion JPEG are.
            if picture.format not in ("JPEG", "MPO") and getattr(picture, "is_animated", False):
                return None
            if picture.format == "JPEG" and not is_still(picture.fp):
                return None
    except Image.DecompressionBombError:
        pass  # `open_picture` says so
    except (OSError, ValueError):  # no picture, or no file, which the reader of videos explains
        return None
    return open_picture(source, limits=limits, formats=PICTURE_FORMATS)


def load_picture(picture: Any, **access: Any) -> Any:
    """
    A picture from a path, a URL, base64 or bytes, with the `access` of [`open_picture`]; others are returned as they
    are.

    Raises:
        VideoReadError: If it cannot be read, or is over the limits.
    """
    if not isinstance(picture, (str, Path, bytes, bytearray, memoryview)):
        return picture
    if isinstance(picture, str) and not is_url(picture) and not os.path.isfile(picture):
        text = picture.partition(",")[2] if picture.startswith("data:") else picture
        with suppress(ValueError):
            picture = base64.b64decode(text, validate=True) or picture
    return open_picture(picture, **access)


def load_images(images: Any, do_rescale: bool = True, **access: Any) -> list:
    """
    The images of a nested list, each a uint8 RGB tensor `(3, height, width)`, or as given where it is an array that is
    not to be rescaled.
    """
    found = []
    for image in _leaves(images):
        image = load_picture(image, **access)
        found += to_uint8_rgb(image) if do_rescale or isinstance(image, Image.Image) else [image]
    return found


def images_of_rows(images: Any, num_rows: int) -> list[int] | None:
    """How many images each prompt has, where they are nested that way."""
    nested = isinstance(images, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in images)
    return [len(_leaves(row)) for row in images] if nested and len(images) == num_rows else None


def to_uint8_rgb(
    video: Any, input_data_format: str | None = None, do_convert_rgb: bool = True, **access: Any
) -> torch.Tensor:
    """
    Frames in any of the accepted forms as a uint8 tensor `(num_frames, channels, height, width)`, 3 channels where
    `do_convert_rgb`. Transparent pixels are laid over white. Files of pictures are read with the `access` of
    [`open_picture`].

    Raises:
        ValueError: If there are no frames, frames of different sizes, or values outside of [0, 255] (floats: [0, 1]).
    """
    if isinstance(video, (list, tuple)):
        pictures = [to_uint8_rgb(load_picture(item, **access), input_data_format, do_convert_rgb) for item in video]
        sizes = sorted({tuple(picture.shape[1:]) for picture in pictures})
        if len(sizes) != 1:
            named = " and ".join("x".join(map(str, size[1:])) for size in sizes[:2])
            raise ValueError(f"The frames of a video must have one size (height x width), got {named}.")
        return torch.cat(pictures)
    if isinstance(video, Image.Image):
        if video.mode not in ("L", "RGB", "RGBA"):
            video = video.convert("RGBA" if video.has_transparency_data else "RGB")
        frames, channels_last = pil_to_tensor(video)[None], False
    else:
        frames, channels_last = _four_dimensions(_as_tensor(video), input_data_format)
    if frames.numel() == 0:
        raise ValueError(f"A video without frames was passed, of shape {tuple(frames.shape)}.")
    frames = frames.permute(0, 3, 1, 2) if channels_last else frames
    if frames.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"Frames have 1, 3 or 4 channels, got {frames.shape[1]} in a video of shape {tuple(frames.shape)}."
        )
    frames = _to_uint8(frames)
    if do_convert_rgb and frames.shape[1] == 1:
        frames = frames.expand(-1, 3, -1, -1)
    elif do_convert_rgb and frames.shape[1] == 4:
        color, alpha = frames[:, :3].float(), frames[:, 3:].float() / 255
        frames = (color * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return frames


def _as_tensor(video: Any) -> torch.Tensor:
    try:
        # Negative strides (a reversed or flipped array) are unknown to PyTorch.
        return (
            torch.from_numpy(np.ascontiguousarray(video)) if isinstance(video, np.ndarray) else torch.as_tensor(video)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"A {type(video).__name__} cannot be read as frames: {error}") from error


def _four_dimensions(frames: torch.Tensor, input_data_format: str | None) -> tuple[torch.Tensor, bool]:
    """Frames with all four axes, and whether the channels are the last of them."""
    if frames.ndim == 2:
        return frames[None, ..., None], True
    if frames.ndim == 3 and (frames.shape[0] in (1, 3, 4) or frames.shape[-1] in (1, 3, 4)):
        frames = frames[None]  # a still picture
    elif frames.ndim == 3:
        return frames[..., None], True  # gray
    if frames.ndim != 4:
        raise ValueError(f"A video array has 2 to 4 dimensions, got one of shape {tuple(frames.shape)}.")
    if input_data_format is None:
        return frames, frames.shape[-1] in (1, 3, 4)
    return frames, str(getattr(input_data_format, "value", input_data_format)) == "channels_last"


def _to_uint8(frames: torch.Tensor) -> torch.Tensor:
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool or frames.is_complex():
        raise ValueError(f"Frames of dtype {frames.dtype} were passed: use uint8, or floats in [0, 1].")
    if not frames.is_floating_point():
        frames = frames.long()  # PyTorch knows little of unsigned integers
    low, high = frames.amin().item(), frames.amax().item()
    limit = 1 if frames.is_floating_point() else 255
    if not (low >= 0 and high <= limit):  # also where they are NaN
        raise ValueError(
            f"Frames of dtype {frames.dtype} must lie in [0, {limit}], got values from {low} to {high}. Pass uint8 "
            "frames in [0, 255] or floats in [0, 1], before any normalization."
        )
    return (frames * 255).round().to(torch.uint8) if frames.is_floating_point() else frames.to(torch.uint8)


__all__ = [
    "HeldVideo",
    "clip_of",
    "flatten_metadata",
    "flatten_videos",
    "images_of_rows",
    "is_decoder",
    "is_frame_sequence",
    "load_images",
    "load_picture",
    "open_still_picture",
    "read_decoder",
    "resized",
    "to_uint8_rgb",
    "videos_of_rows",
]
