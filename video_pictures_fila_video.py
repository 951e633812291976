"""Pictures: files, URLs, bytes and arrays, as uint8 RGB; they are the frames of a video, or stand alone."""

import base64
import os
import re
import struct
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor
from transformers.utils import logging

from .video_limits_fila_video import Budget, VideoLimits
from .video_sources_fila_video import PICTURE_FORMATS, OpenedSource, is_still, is_url, pillow_errors, still_of_mp4

logger = logging.get_logger(__name__)

MAX_SCANS = 100  # of a JPEG: each goes over the whole picture, in a few bytes; encoders write some ten
MAX_NESTED = 32  # lists and dictionaries in one another
_MAX_FILE_NAME = 255  # characters; what is longer is base64
PICTURE_KEYS = ("bytes", "image", "url", "path", "image_url", "base64")  # of a picture's dictionary
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # of JPEG, with something behind it


def check_nesting(depth: int) -> None:
    """Raises `ValueError` for what lies so deep in lists and dictionaries, as in a list that holds itself."""
    if depth > MAX_NESTED:
        raise ValueError(
            f"Lists or dictionaries lie more than {MAX_NESTED} deep in one another or in themselves: pass a flat list."
        )


def leaves(item: Any, depth: int = 0) -> list:
    """What a nested list holds, in order."""
    check_nesting(depth)
    if not isinstance(item, (list, tuple)):
        return [item]
    return [leaf for part in item for leaf in leaves(part, depth + 1)]


def open_picture(
    source: str | os.PathLike | bytes, *, formats: tuple[str, ...] | None = None, **access: Any
) -> Image.Image:
    """
    A still picture, upright, decoded within limits.

    Args:
        source (`str`, `os.PathLike` or `bytes`): A path, an `http(s)://` URL or the bytes of a file.
        formats (`tuple[str, ...]`, *optional*): Pillow's names of the formats to try; all by default.
        **access: `limits` (`frame_pixels`, and for a URL those of a download) and `allow_private_hosts`, as for
            [`OpenedSource`].

    Raises:
        VideoReadError: If it cannot be read, or is too large.
    """
    with OpenedSource(source, kind="picture", **access) as opened, opened.open() as file, pillow_errors(opened):
        image = Image.open(file, formats=formats)
        if image.format == "EPS":
            raise opened.error("it is a program in PostScript, which is not run: convert it to PNG")
        if image.format in ("BLP", "FPX", "IPTC", "MIC"):
            raise opened.error("it holds a file of another format, which is not looked into: convert it to PNG")
        opened.budget.spend(frame=image.size)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, opened)
        elif image.format == "TIFF":
            _check_tiles(file, image, opened)
        image.load()
        opened.budget.spend()  # Pillow has no limit of time, and cannot be interrupted
        if image.format == "PPM" and image.mode == "I":  # gray of more than 8 bits, which Pillow scales to 16
            image = image.convert("I;16")
        upright = ImageOps.exif_transpose(image)
        with suppress(Exception):  # of the pictures behind the first
            # A photograph may carry smaller copies of itself.
            if image.format not in ("JPEG", "MPO") and image.is_animated:
                logger.warning_once(
                    f"The picture {opened.name} holds several, of which the first alone is taken: pass an animation "
                    "by itself as a video, and pages as pictures of their own."
                )
        return upright


def _check_scans(file: BinaryIO, opened: OpenedSource) -> None:
    """Refuses a JPEG that goes over its picture again and again. What stands in its segments, such as a preview, is
    passed over; in the data of a picture no marker can occur."""
    scans, place, begin, data = 0, 2, 0, b""
    while True:
        if not begin <= place <= begin + len(data) - 4:
            opened.budget.spend()
            file.seek(place)
            begin, data = place, file.read(1 << 18)
            if len(data) < 4:
                return
        found = _MARKER.search(data, place - begin)
        if found is None:
            place = begin + len(data) - 1  # where one may begin
        elif found.end() + 2 > len(data):
            place = begin + found.start()
        elif found[0] == b"\xff\xd9":  # the end of the picture
            return
        else:
            place = begin + found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
            scans += found[0] == b"\xff\xda"
            if scans > MAX_SCANS:
                raise opened.error(f"it is a JPEG of more than {MAX_SCANS} scans: save it anew")


def _check_tiles(file: BinaryIO, image: Image.Image, opened: OpenedSource) -> None:
    """Refuses a TIFF whose tiles are larger than the limit, however small its picture is; and one that names their
    size in ways in which Pillow and libtiff may read two."""
    file.seek(0)
    head = file.read(4)
    order = ">" if head.startswith(b"MM") else "<"
    number, width = ("Q", 20) if head[2] == 43 else ("H", 12)  # of BigTIFF
    file.seek(image.tag_v2.offset)
    (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
    entries = file.read(min(count, 1 << 16) * width)
    entries = entries[: len(entries) // width * width]
    named = [tag for (tag,) in struct.iter_unpack(f"{order}H{width - 2}x", entries) if tag in (322, 323)]
    sides = [image.tag_v2.get(tag) for tag in (322, 323)]
    if not named and sides == [None, None]:
        return
    if sorted(named) != [322, 323] or not all(isinstance(side, int) and side > 0 for side in sides):
        raise opened.error("it is damaged: the size of its tiles is no number, or named twice")
    across, down = (-(-image.tag_v2[tag] // side) for tag, side in zip((256, 257), sides, strict=True))
    pixels = across * sides[0] * down * sides[1]
    if pixels > opened.budget.frame_pixels:
        raise opened.budget.refuse(
            f"its {across * down} tiles of {sides[0]} x {sides[1]} have {pixels} pixels", opened.budget.frame_field
        )


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
            else:
                file = finally_.enter_context(open(file, "rb"))
            file.seek(0)
            if (head := file.read(1024))[4:8] == b"ftyp":  # of which Pillow would read all, however long the film is
                if still_of_mp4(head) not in PICTURE_FORMATS:
                    return None
            else:
                picture = finally_.enter_context(Image.open(file, formats=PICTURE_FORMATS))
                # A photograph may carry smaller copies of itself, which are no animation; pictures of raw Motion JPEG
                # are one.
                if picture.format not in ("JPEG", "MPO") and getattr(picture, "is_animated", False):
                    return None
                if picture.format == "JPEG" and not is_still(picture.fp):
                    return None
    except Image.DecompressionBombError:
        pass  # `open_picture` says so
    except Exception:  # no picture, or no file, or one that fails, which the reader of videos explains
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
    depth = 0
    while isinstance(picture, dict):
        source = next((picture[name] for name in PICTURE_KEYS if picture.get(name) is not None), None)
        if source is None:
            raise ValueError(f"A picture's dictionary has {', '.join(PICTURE_KEYS)}; this one has {sorted(picture)}.")
        picture, depth = source, depth + 1
        check_nesting(depth)
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
    video: Any, input_data_format: str | None = None, do_convert_rgb: bool = True, depth: int = 0, **access: Any
) -> torch.Tensor:
    """
    Frames in any of the accepted forms as a uint8 tensor `(num_frames, channels, height, width)`, 3 channels where
    `do_convert_rgb`. Transparent pixels are laid over white. Files of pictures are read with the `access` of
    [`open_picture`].

    Raises:
        ValueError: If there are no frames, frames of different sizes, or values outside of [0, 255] (floats: [0, 1]).
    """
    check_nesting(depth)
    if isinstance(video, (list, tuple)):
        # One video has one budget, however many files it is.
        access["limits"] = Budget(access.get("limits"), f"the video of {len(video)} pictures")
        pictures = [
            to_uint8_rgb(load_picture(item, **access), input_data_format, do_convert_rgb, depth + 1) for item in video
        ]
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
    "check_nesting",
    "images_of_rows",
    "leaves",
    "load_images",
    "load_picture",
    "open_picture",
    "open_still_picture",
    "to_uint8_rgb",
]
