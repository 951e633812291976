"""Files of pictures: gray ones of many bits, and base64 of any format that Pillow knows."""

import base64
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fila_video import VideoReadError
from fila_video.video_limits_fila_video import VideoLimits
from fila_video.video_pictures_fila_video import load_images, load_picture, to_uint8_rgb
from PIL import Image, PngImagePlugin

# Not `ru_maxrss`, which begins with that of the process that started this one.
PEAK = """
import io, re
from PIL import Image
from fila_video.video_pictures_fila_video import to_uint8_rgb

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

file = io.BytesIO()
Image.new("RGB", (2000, 1500)).save(file, "JPEG")
to_uint8_rgb([file.getvalue()] * 2)
before = kilobytes("VmRSS")
frames = to_uint8_rgb([file.getvalue()] * 20)
print(frames.numel() / 1024, kilobytes("VmHWM") - before)
"""
COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def test_gray_pictures_of_16_bits_keep_their_shades() -> None:
    shades = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)
    for kind in ("PNG", "TIFF"):
        (frames,) = load_images([encoded(Image.fromarray(shades), kind)])
        assert torch.equal(frames[None], expected)


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_gray_pgm_of_10_to_16_bits_is_scaled_by_its_brightest(most) -> None:
    shades = np.arange(256) * most // 255
    data = b"P5\n16 16\n%d\n" % most + shades.astype(">u2").tobytes()
    (frames,) = load_images([data])
    expected = torch.arange(256).reshape(1, 16, 16).expand(3, -1, -1)
    assert frames.dtype == torch.uint8 and (frames.long() - expected).abs().max() <= 1
    assert frames[0, 0, 0] == 0 and frames[0, -1, -1] == 255
    assert torch.equal(to_uint8_rgb(Image.open(io.BytesIO(data)))[0], frames)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_transparent_shades_and_colors_of_png_are_laid_over_white(mode) -> None:
    values = np.zeros((6, 8), np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.new("RGB", (8, 6)) if mode == "RGB" else Image.fromarray(values)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    (frames,) = load_images([file.getvalue()])
    assert frames.min() == 255


def test_frames_of_a_list_stand_in_its_order_however_many_each_item_holds() -> None:
    frames = np.stack([np.roll(COLORS, number, axis=0) for number in range(5)])
    items = [Image.fromarray(frames[0]), encoded(Image.fromarray(frames[1])), frames[2:4], torch.from_numpy(frames[4])]
    assert np.array_equal(to_uint8_rgb(items).permute(0, 2, 3, 1).numpy(), frames)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the memory in use is not known")
def test_pictures_of_a_list_take_their_memory_once() -> None:
    """In a process of its own, whose highest use of memory is seen."""
    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    held, peak = map(float, ran.stdout.split())
    assert held < peak < 1.5 * held


def test_files_of_one_video_share_its_limits() -> None:
    pictures = [encoded(Image.fromarray(COLORS))] * 4
    one = COLORS.shape[0] * COLORS.shape[1]
    assert len(to_uint8_rgb(pictures, limits=VideoLimits(total_pixels=4 * one))) == 4
    with pytest.raises(VideoReadError, match=f"{4 * one} pixels in all or more, over the limit of {3 * one}"):
        to_uint8_rgb(pictures, limits=VideoLimits(total_pixels=3 * one))
    files = [io.BytesIO(picture) for picture in pictures]
    with pytest.raises(VideoReadError, match=r"bytes or more were fetched, over the limit of .*download_bytes"):
        to_uint8_rgb(files, limits=VideoLimits(download_bytes=3 * len(pictures[0])))
    assert len(load_images(pictures, limits=VideoLimits(total_pixels=one))) == 4  # pictures that stand alone
    for wrong, limits in ((pictures, VideoLimits(total_pixels=one)), (files, VideoLimits(download_bytes=1))):
        with pytest.raises(VideoReadError, match="Cannot read the video of 4 pictures: "):
            to_uint8_rgb(wrong, limits=limits)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_a_file_of_several_among_pictures_the_first_is_taken_with_a_warning(warnings, tmp_path, kind) -> None:
    path = tmp_path / f"moving.{kind.lower()}"
    shades = [Image.new("RGB", (32, 24), (shade, shade, shade)) for shade in (0, 100, 200)]
    shades[0].save(path, kind)
    assert to_uint8_rgb([path]).max() == 0
    assert warnings.text == ""
    shades[0].save(path, kind, save_all=True, append_images=shades[1:])
    assert to_uint8_rgb([path, path]).max() == 0
    assert f"{str(path)!r} holds several, of which the first alone is taken" in warnings.text


def test_whatever_pillow_finds_wrong_is_an_error_that_names_the_picture() -> None:
    file, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text("words", "x" * 3_000_000, zip=True)  # more than Pillow unpacks
    Image.fromarray(COLORS).save(file, "PNG", pnginfo=texts)
    for data in (file.getvalue(), b"P6\n3x 2\n255\n" + bytes(18)):
        with pytest.raises(VideoReadError, match=f"the picture given as {len(data)} bytes: it is damaged, or cannot"):
            load_picture(data)


def test_a_picture_over_the_limit_of_pillow_is_refused_by_the_limit_that_it_is_over(monkeypatch) -> None:
    data = encoded(Image.fromarray(COLORS))
    pixels = COLORS.shape[0] * COLORS.shape[1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels // 3)
    with pytest.raises(VideoReadError, match=rf"{pixels} pixels, over the limit of 100; VideoLimits\(frame_pixels="):
        load_picture(data, limits=VideoLimits(frame_pixels=100))
    with pytest.raises(VideoReadError, match=r"Pillow's own limit: set PIL\.Image\.MAX_IMAGE_PIXELS as well"):
        load_picture(data)


@pytest.mark.parametrize("values", [np.full((6, 8), 70_000, np.int32), np.full((6, 8), 2.5, np.float32)])
def test_pictures_of_other_numbers_are_refused_as_arrays_are(values) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, "):
        to_uint8_rgb(Image.fromarray(values))


@pytest.mark.parametrize("head", ["", "data:image/png;base64,", "DATA:image/png;BASE64,"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n  "])
def test_base64_in_lines_is_read(head, line_break) -> None:
    text = base64.encodebytes(encoded(Image.fromarray(COLORS))).decode()
    assert text.count("\n") > 2
    assert load_picture(head + text.replace("\n", line_break)).size == (32, 24)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP"])
def test_base64_of_any_format_that_pillow_knows_is_read(kind) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("the installed Pillow does not write it")
    picture = Image.fromarray(np.tile(COLORS[:16, :16], (2, 2, 1)))
    assert load_picture(base64.b64encode(encoded(picture, kind)).decode()).size == (32, 32)


def test_base64_of_a_tiny_picture_is_read_and_long_text_is_no_file_name() -> None:
    assert load_picture(base64.b64encode(b"P1\n2 1\n1 0\n").decode()).size == (2, 1)
    with pytest.raises(VideoReadError, match=r"given as 300 bytes.*not a picture that Pillow knows"):
        load_picture(base64.b64encode(bytes(300)).decode())
