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

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import load_image

from .video_reading_fila_video import VideoFrames, VideoSegment


def is_frame_sequence(video: Any) -> bool:
    """Whether a video is given as frames rather than as a source to read."""
    if isinstance(video, (np.ndarray, torch.Tensor, Image.Image)):
        return True
    return isinstance(video, (list, tuple)) and not isinstance(video[0], VideoSegment)


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


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
        if videos.ndim in (3, 4):
            return [videos]
        raise ValueError(f"A video array has 3 to 5 dimensions, got one of shape {tuple(videos.shape)}.")
    if isinstance(videos, (str, Path, bytes, bytearray, memoryview, Image.Image, VideoFrames, VideoSegment)):
        return [bytes(videos) if isinstance(videos, (bytearray, memoryview)) else videos]
    if hasattr(videos, "read"):
        return [videos]
    if not isinstance(videos, (list, tuple)):
        raise ValueError(
            f"A {type(videos).__name__} is no video: pass a path, a URL, bytes, a binary file, segments, an array, or "
            "a list of pictures."
        )
    if videos and all(isinstance(item, VideoSegment) or _is_frame(item) for item in videos):
        return [videos]
    if depth == 2 and videos and all(isinstance(item, (str, Path, bytes)) for item in videos):
        return [videos]
    return [video for item in videos for video in flatten_videos(item, depth + 1)]


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


def to_uint8_rgb(video: Any, input_data_format: str | None = None, do_convert_rgb: bool = True) -> torch.Tensor:
    """
    Frames in any of the accepted forms as a uint8 tensor `(num_frames, channels, height, width)`, 3 channels where
    `do_convert_rgb`. Transparent pixels are laid over white.

    Raises:
        ValueError: If there are no frames, frames of different sizes, or values outside of [0, 255] (floats: [0, 1]).
    """
    if isinstance(video, (list, tuple)):
        pictures = [_to_array(load_image(item) if isinstance(item, (str, Path, bytes)) else item) for item in video]
        shapes = sorted({tuple(picture.shape) for picture in pictures})
        if len(shapes) != 1:
            raise ValueError(f"The frames of a video must have one size, got {' and '.join(map(str, shapes[:2]))}.")
        frames = torch.stack(pictures)
    else:
        frames = _to_array(video)
        if frames.ndim == 2 or (frames.ndim == 3 and (frames.shape[0] in (1, 3, 4) or frames.shape[-1] in (1, 3, 4))):
            frames = frames[None]  # a still picture
    if frames.ndim == 3:
        frames = frames[..., None]  # gray
    if frames.numel() == 0:
        raise ValueError(f"A video without frames was passed, of shape {tuple(frames.shape)}.")
    if input_data_format is None:
        input_data_format = "channels_last" if frames.shape[-1] in (1, 3, 4) else "channels_first"
    if str(getattr(input_data_format, "value", input_data_format)) == "channels_last":
        frames = frames.permute(0, 3, 1, 2)
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


def _to_array(picture: Any) -> torch.Tensor:
    if isinstance(picture, Image.Image):
        if picture.mode not in ("L", "RGB", "RGBA"):
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        picture = np.array(picture)
        picture = picture[..., None] if picture.ndim == 2 else picture
    return torch.as_tensor(picture)


def _to_uint8(frames: torch.Tensor) -> torch.Tensor:
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool:
        raise ValueError("Frames of booleans were passed: use uint8, or floats in [0, 1].")
    low, high = frames.amin().item(), frames.amax().item()
    limit = 1 if frames.is_floating_point() else 255
    if not (low >= 0 and high <= limit):  # also where they are NaN
        raise ValueError(
            f"Frames of dtype {frames.dtype} must lie in [0, {limit}], got values from {low} to {high}. Pass uint8 frames "
            "in [0, 255] or floats in [0, 1], before any normalisation."
        )
    return (frames * 255).round().to(torch.uint8) if frames.is_floating_point() else frames.to(torch.uint8)


__all__ = ["flatten_metadata", "flatten_videos", "is_frame_sequence", "to_uint8_rgb"]
