"""Pictures: files, URLs, bytes and arrays, as uint8 RGB; they are the frames of a video, or stand alone."""

import base64
import os
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from .video_limits_fila_video import Budget, VideoLimits
from .video_sources_fila_video import is_still, is_url, open_picture

# Files of these kinds hold one picture, unless they are animated.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_FILE_NAME = 255  # characters; what is longer is base64
PICTURE_KEYS = ("bytes", "image", "url", "path", "image_url", "base64")  # of a picture's dictionary


def leaves(item: Any) -> list:
    """What a nested list holds, in order."""
    return [leaf for part in item for leaf in leaves(part)] if isinstance(item, (list, tuple)) else [item]


def open_still_picture(source: Any, limits: VideoLimits | None = None) -> Image.Image | None:
    """
    The picture in a file (path, bytes or a binary file that can seek) that holds a single one, upright; `None` for
    anything else.

    Raises:
        VideoReadError: If it is damaged or over the limits.
    """
    file = BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source
    try:
        with ExitStack() as finally_:
            if hasattr(file, "seekable") and file.seekable():
                finally_.callback(file.seek, file.tell())
            elif not isinstance(file, (str, Path)) or not os.path.isfile(file):
                return None  # Pillow would wait for whoever writes into a pipe; the reader of videos says what it is
            picture = finally_.enter_context(Image.open(file, formats=PICTURE_FORMATS))
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
    A picture from a path, a URL, base64, bytes, a binary file or a dictionary with one of them, with the `access` of
    [`open_picture`]; others are returned as they are.

    Raises:
        ValueError: If a dictionary has none of them. A `VideoReadError` if the picture cannot be read, or is over the
            limits.
    """
    if isinstance(picture, dict):
        source = next((picture[name] for name in PICTURE_KEYS if picture.get(name) is not None), None)
        if source is None:
            raise ValueError(f"A picture's dictionary has {', '.join(PICTURE_KEYS)}; this one has {sorted(picture)}.")
        return load_picture(source, **access)
    if not isinstance(picture, (str, Path, bytes, bytearray, memoryview)) and not hasattr(picture, "read"):
        return picture
    if isinstance(picture, str) and not is_url(picture) and not os.path.isfile(picture):
        head, _, text = picture.rpartition(",") if picture[:5].lower() == "data:" else ("", "", picture)
        with suppress(ValueError):
            data = bytes_of_base64(text)
            # Many a name is base64 too, `pics/dog` for one: it is one where a picture comes out.
            picture = data if head or len(text) > _MAX_FILE_NAME or _is_picture(data) else picture
    return open_picture(picture, **access)


def bytes_of_base64(text: str) -> bytes:
    """What is written in base64; its lines may be broken, as `base64.encodebytes` does. Raises `ValueError`."""
    return base64.b64decode("".join(map(str.strip, text.split("\n"))), validate=True)


def _is_picture(data: bytes) -> bool:
    """Whether Pillow knows the format of a file, of which it reads the header alone."""
    try:
        with Image.open(BytesIO(data)):
            return True
    except Image.DecompressionBombError:
        return True  # `open_picture` says so
    except (OSError, ValueError, SyntaxError, EOFError):
        return False


def load_images(images: Any, do_rescale: bool = True, **access: Any) -> list:
    """
    The images of a nested list, each a uint8 RGB tensor `(3, height, width)`, or as given where it is an array that is
    not to be rescaled.
    """
    found = []
    for image in leaves(images):
        image = load_picture(image, **access)
        found += to_uint8_rgb(image) if do_rescale or isinstance(image, Image.Image) else [image]
    return found


def images_of_rows(images: Any, num_rows: int) -> list[int] | None:
    """How many images each prompt has, where they are nested that way."""
    nested = isinstance(images, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in images)
    return [len(leaves(row)) for row in images] if nested and len(images) == num_rows else None


def are_pictures(video: Any) -> bool:
    """Whether it is a list of pictures and files, each one frame, which are counted without loading them."""
    kinds = (str, Path, bytes, Image.Image)
    return isinstance(video, (list, tuple)) and all(isinstance(item, kinds) for item in video)


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
        # One video has one budget, however many files it is.
        access["limits"] = Budget(access.get("limits"), f"the video of {len(video)} pictures")
        pictures = [to_uint8_rgb(load_picture(item, **access), input_data_format, do_convert_rgb) for item in video]
        sizes = sorted({tuple(picture.shape[1:]) for picture in pictures})
        if len(sizes) != 1:
            named = " and ".join("x".join(map(str, size[1:])) for size in sizes[:2])
            raise ValueError(f"The frames of a video must have one size (height x width), got {named}.")
        end = sum(map(len, pictures))
        frames = pictures[0].new_empty(end, *sizes[0])
        while pictures:  # each is freed before the next is copied: together they would take the memory twice
            part = pictures.pop()
            frames[end - len(part) : end] = part
            end -= len(part)
        return frames
    if isinstance(video, Image.Image) and video.mode == "I" and video.format == "PPM":
        video = video.convert("I;16")  # as `open_picture` does
    if isinstance(video, Image.Image) and video.mode in ("I", "F"):
        video = np.array(video)  # numbers of any range, for which the rules of arrays hold
    if isinstance(video, Image.Image):
        if video.mode.startswith("I;16"):  # gray of 16 bits, which Pillow would clip to 8
            shades, clear = np.array(video.convert("I")), video.info.get("transparency")
            video = Image.fromarray(((shades + 128) // 257).astype(np.uint8))
            if clear is not None:
                video.putalpha(Image.fromarray(shades != clear))
        if video.mode not in ("L", "RGB") or video.has_transparency_data:
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
    "are_pictures",
    "bytes_of_base64",
    "images_of_rows",
    "leaves",
    "load_images",
    "load_picture",
    "open_still_picture",
    "to_uint8_rgb",
]
