# Copyright 2026 The FiLA-Video authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The forms in which users pass videos: sources to read and frames as they are, alone, in lists and in chats."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_utils import load_image

from .video_reading_fila_video import VideoFrames, VideoSegment

# Files of these kinds hold one picture, unless they are animated.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def is_frame_sequence(video: Any) -> bool:
    """Whether a video is given as frames rather than as a source to read."""
    if isinstance(video, (np.ndarray, torch.Tensor, Image.Image)):
        return True
    return _is_list(video) and not isinstance(video[0], VideoSegment)


def _is_list(item: Any) -> bool:
    # Segments and what was read are tuples with names.
    return isinstance(item, (list, tuple)) and not isinstance(item, (VideoSegment, VideoFrames))


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
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim in (2, 3, 4):
            return [videos]
        raise ValueError(f"A video array has 2 to 5 dimensions, got one of shape {tuple(videos.shape)}.")
    if isinstance(videos, (str, Path, bytes, bytearray, memoryview, Image.Image, VideoFrames, VideoSegment)):
        return [bytes(videos) if isinstance(videos, (bytearray, memoryview)) else videos]
    if hasattr(videos, "read"):
        return [videos]
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"A {type(videos).__name__} is no video: pass a path, a URL, bytes, a binary file, segments, an array, or "
            "a list of pictures."
        )
    if _is_one_video(videos):
        return [videos]
    if depth == 2 and videos and all(isinstance(item, (str, Path, bytes)) for item in videos):
        return [videos]
    return [video for item in videos for video in flatten_videos(item, depth + 1)]


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

    def flatten(item):
        return [one for part in item for one in flatten(part)] if isinstance(item, (list, tuple)) else [item]

    metadata = flatten(metadata)
    if len(metadata) != num_videos:
        raise ValueError(f"`video_metadata` describes {len(metadata)} videos, but {num_videos} were passed.")
    return metadata


def open_still_picture(source: Any) -> Image.Image | None:
    """The picture in a file (path or bytes) that holds a single one, upright; `None` for anything else."""
    if not isinstance(source, (str, Path, bytes)):
        return None
    try:
        picture = Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURE_FORMATS)
    except (OSError, ValueError):  # no picture, or no file, which the reader of videos explains
        return None
    return None if getattr(picture, "is_animated", False) else ImageOps.exif_transpose(picture)


def load_picture(picture: Any) -> Any:
    """
    A picture from a path, URL or bytes; others are returned as they are.

    Raises:
        ValueError: If it cannot be read.
    """
    if not isinstance(picture, (str, Path, bytes, bytearray, memoryview)):
        return picture
    try:
        if isinstance(picture, (str, Path)) and not Path(picture).is_file():
            return load_image(str(picture))  # a URL, or base64
        opened = Image.open(picture if isinstance(picture, (str, Path)) else BytesIO(picture))
        return ImageOps.exif_transpose(opened)
    except Exception as error:  # the libraries below have no common one
        name = str(picture) if isinstance(picture, (str, Path)) else f"of {len(picture)} bytes"
        raise ValueError(f"Cannot read the picture {name[:200]}: {error}") from error


def load_images(images: Any, do_rescale: bool = True) -> list:
    """
    The images of a nested list, each a uint8 RGB tensor `(3, height, width)`, or as given where it is an array that is
    not to be rescaled.
    """
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in load_images(item, do_rescale)]
    image = load_picture(images)
    return list(to_uint8_rgb(image)) if do_rescale or isinstance(image, Image.Image) else [image]


def images_of_rows(images: Any, num_rows: int) -> list[int] | None:
    """How many images each prompt has, where they are nested that way."""

    def count(item):
        return sum(map(count, item)) if isinstance(item, (list, tuple)) else 1

    nested = isinstance(images, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in images)
    return [count(row) for row in images] if nested and len(images) == num_rows else None


def to_uint8_rgb(video: Any, input_data_format: str | None = None, do_convert_rgb: bool = True) -> torch.Tensor:
    """
    Frames in any of the accepted forms as a uint8 tensor `(num_frames, channels, height, width)`, 3 channels where
    `do_convert_rgb`. Transparent pixels are laid over white.

    Raises:
        ValueError: If there are no frames, frames of different sizes, or values outside of [0, 255] (floats: [0, 1]).
    """
    if isinstance(video, (list, tuple)):
        pictures = [to_uint8_rgb(load_picture(item), input_data_format, do_convert_rgb) for item in video]
        sizes = sorted({tuple(picture.shape[1:]) for picture in pictures})
        if len(sizes) != 1:
            named = " and ".join("x".join(map(str, size[1:])) for size in sizes[:2])
            raise ValueError(f"The frames of a video must have one size (height x width), got {named}.")
        return torch.cat(pictures)
    if isinstance(video, Image.Image):
        frames, channels_last = _from_pil(video), True
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


def _from_pil(picture: Image.Image) -> torch.Tensor:
    if picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None, ..., None] if pixels.ndim == 2 else pixels[None]


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
            "frames in [0, 255] or floats in [0, 1], before any normalisation."
        )
    return (frames * 255).round().to(torch.uint8) if frames.is_floating_point() else frames.to(torch.uint8)


__all__ = [
    "flatten_metadata",
    "flatten_videos",
    "images_of_rows",
    "is_frame_sequence",
    "load_images",
    "load_picture",
    "open_still_picture",
    "to_uint8_rgb",
    "videos_of_rows",
]
