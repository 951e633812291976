"""Files of pictures: gray ones of many bits, and base64 of any format that Pillow knows."""

import base64
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from fila_video import VideoReadError
from fila_video.video_limits_fila_video import Budget, VideoLimits
from fila_video.video_pictures_fila_video import (
    MAX_SCANS,
    load_images,
    load_picture,
    open_picture,
    open_still_picture,
    to_uint8_rgb,
)
from fila_video.video_reading_fila_video import read_frames
from helpers.tiny_processor import tiny_video_processor
from PIL import Image, PngImagePlugin, features

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


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
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


needs_avif = pytest.mark.skipif(
    "avif" not in features.modules or not features.check("avif"), reason="the installed Pillow reads no AVIF"
)


def box(name, *content):
    return struct.pack(">I4s", 8 + len(b"".join(content)), name) + b"".join(content)


def avif_of_tiles(colors):
    """An AVIF of 128 x 128 whose four tiles of 64 x 64 are pictures of their own, as cameras write large ones."""
    tiles = [encoded(Image.new("RGB", (64, 64), color), "AVIF", quality=90) for color in colors]
    at = tiles[0].index(b"av1C") - 4
    settings = tiles[0][at : at + int.from_bytes(tiles[0][at : at + 4], "big")]
    parts = [struct.pack(">4BHH", 0, 0, 1, 1, 128, 128), *(tile[tile.index(b"mdat") + 4 :] for tile in tiles)]

    def header(place):
        items = struct.pack(">IBBH", 0, 0x44, 0, 5)
        kinds = struct.pack(">IH", 0, 5)
        for number, part in enumerate(parts, 1):
            items += struct.pack(">HHHII", number, 0, 1, place, len(part))
            place += len(part)
            kinds += box(b"infe", struct.pack(">IHH4sx", 2 << 24, number, 0, b"av01" if number > 1 else b"grid"))
        sizes = [box(b"ispe", struct.pack(">III", 0, side, side)) for side in (128, 64)]
        shapes = box(b"ipco", *sizes, settings, box(b"pixi", struct.pack(">I4B", 0, 3, 8, 8, 8)))
        uses = struct.pack(">IIHBBB", 0, 5, 1, 2, 1, 4)
        uses += b"".join(struct.pack(">HBBBB", number, 3, 2, 0x83, 4) for number in (2, 3, 4, 5))
        inside = [box(b"hdlr", bytes(8), b"pict", bytes(13)), box(b"pitm", struct.pack(">IH", 0, 1))]
        inside += [box(b"iloc", items), box(b"iinf", kinds)]
        inside += [box(b"iref", bytes(4), box(b"dimg", struct.pack(">HH4H", 1, 4, 2, 3, 4, 5)))]
        inside += [box(b"iprp", shapes, box(b"ipma", uses))]
        return box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + box(b"meta", bytes(4), *inside)

    return header(len(header(0)) + 8) + box(b"mdat", *parts)


@needs_avif
def test_an_avif_of_tiles_is_read_whole(tmp_path) -> None:
    data = avif_of_tiles([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])
    (tmp_path / "grid.avif").write_bytes(data)
    for source in (data, io.BytesIO(data), tmp_path / "grid.avif"):
        (frame,), _ = tiny_video_processor().load_video(source)
        assert frame.shape == (3, 128, 128)
        corners = frame[:, 32::64, 32::64].flatten(1).T > 127
        assert corners.tolist() == [
            [True, False, False],
            [False, True, False],
            [False, False, True],
            [True, True, False],
        ]
    assert torch.equal(load_images([data])[0], frame)
    with pytest.raises(VideoReadError, match="it is a still picture, not a video"):
        read_frames(data, num_frames=1)
    with pytest.raises(VideoReadError, match="128 x 128 have 16384 pixels, over the limit of 16383"):
        open_still_picture(data, VideoLimits(frame_pixels=128 * 128 - 1))
    with pytest.raises(VideoReadError, match="the picture given as 200 bytes: it is not a picture that Pillow knows"):
        tiny_video_processor().load_video(data[:200])


@needs_avif
def test_the_transparency_of_an_avif_is_laid_over_white() -> None:
    data = encoded(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "AVIF")
    for brand in (b"avif", b"mif1"):
        data = data[:8] + brand + data[12:]
        assert tiny_video_processor().load_video(data)[0].min() == 255
        assert load_images([data])[0].min() == 255


@needs_avif
def test_an_avif_that_pillow_cannot_read_is_no_video_either(monkeypatch) -> None:
    formats = ("JPEG", "PNG")
    monkeypatch.setattr("fila_video.video_sources_fila_video.PICTURE_FORMATS", formats)
    monkeypatch.setattr("fila_video.video_pictures_fila_video.PICTURE_FORMATS", formats)
    with pytest.raises(
        VideoReadError, match="a picture that Pillow cannot read here: convert it from AVIF to JPEG or"
    ):
        tiny_video_processor().load_video(encoded(Image.new("RGB", (64, 64)), "AVIF"))


@needs_avif
def test_an_animated_avif_is_a_video_of_which_no_more_than_its_head_is_looked_at() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

    shades = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (0, 128, 255)]
    data = encoded(shades[0], "AVIF", save_all=True, append_images=shades[1:])
    file = Counting(data + bytes(1 << 20))
    assert open_still_picture(file) is None and file.taken <= 1024
    assert [round(frame.mean() / 128) for frame in read_frames(data, num_frames=9).frames] == [0, 1, 2]


def jpeg_of_scans(number, between=b"", **options):
    """A progressive JPEG that has its last scan again and again, and something `between` them."""
    data = encoded(Image.fromarray(COLORS), "JPEG", progressive=True, **options)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (between + last) * (number - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch) -> None:
    # Also where markers stand across the ends of what is read at once.
    for between in (
        b"",
        b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533),
        b"\xff\xff\xff",
        b"\xff\xfe\0\2" * 999,
    ):
        assert open_picture(jpeg_of_scans(MAX_SCANS, between)).size == (32, 24)
    decoded = []
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", decoded.append)
    for between in (b"", b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533), b"\xff\xfe\0\2" * 999):
        data = jpeg_of_scans(MAX_SCANS + 1, between)
        (tmp_path / "scans.jpg").write_bytes(data)
        for call in (open_picture, load_images, open_still_picture, to_uint8_rgb, tiny_video_processor().load_video):
            for source in (data, tmp_path / "scans.jpg"):
                with pytest.raises(VideoReadError, match=f"it is a JPEG of more than {MAX_SCANS} scans: save it anew"):
                    call([source] if call is to_uint8_rgb else source)
    assert decoded == []


def test_marks_of_scans_in_a_preview_or_behind_the_picture_are_none_of_it() -> None:
    plain = encoded(Image.fromarray(COLORS), "JPEG")
    marks = b"\xff\xda\0\x08" * 1000
    preview = plain[:2] + b"\xff\xe9" + struct.pack(">H", len(marks) + 2) + marks + plain[2:]
    for data in (preview, plain + marks):
        assert np.array_equal(np.array(open_picture(data)), np.array(open_picture(plain)))
    file = io.BytesIO()
    copies = [Image.new("RGB", size) for size in ((64, 48), (16, 12))]
    copies[0].save(file, "MPO", save_all=True, append_images=copies[1:])
    assert open_picture(file.getvalue()).size == (64, 48)


def test_the_time_that_pillow_took_counts(monkeypatch) -> None:
    budgets = []

    def load(image):
        budgets[0]._deadline = 0.0

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    monkeypatch.setattr(Budget, "check_frame", lambda budget, *size: budgets.append(budget))
    with pytest.raises(VideoReadError, match=r"it took .* seconds, over the limit of 100; VideoLimits\(seconds"):
        open_picture(encoded(Image.fromarray(COLORS)), limits=VideoLimits(seconds=100))


def tiff_of_tiles(size, tile, order="<", is_big=False, more=()):
    """A gray, packed TIFF all of whose tiles are the same."""
    data = zlib.compress(bytes(tile[0] * tile[1]))
    count = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    number, width = ("Q", 20) if is_big else ("I", 12)
    kind = 16 if is_big else 4
    values = [(256, size[0]), (257, size[1]), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile[0]), (323, tile[1])]
    values = sorted([*values, *more])
    header = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if is_big else "HI"), *((43, 8, 0, 16) if is_big else (42, 8))
    )
    end = len(header) + (8 if is_big else 2) + (len(values) + 2) * width + (8 if is_big else 4)
    lists = struct.calcsize(order + number) * count
    entries = [(tag, kind, 1, value) for tag, value in values]
    entries += [
        (324, kind, count, end if count > 1 else end + 2 * lists),
        (325, kind, count, end + lists if count > 1 else len(data)),
    ]
    out = header + struct.pack(order + ("Q" if is_big else "H"), len(entries))
    out += b"".join(struct.pack(order + "HH" + 2 * number, *entry) for entry in entries) + bytes(8 if is_big else 4)
    out += struct.pack(order + number, end + 2 * lists) * count + struct.pack(order + number, len(data)) * count
    return out + data


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_a_tiff_with_tiles_over_the_limit_is_refused_however_small_its_picture_is(order, is_big) -> None:
    data = tiff_of_tiles((16, 16), (64, 96), order, is_big)
    assert load_picture(data).size == (16, 16)
    assert load_picture(data, limits=VideoLimits(frame_pixels=64 * 96)).size == (16, 16)
    for call in (load_picture, open_still_picture):
        with pytest.raises(
            VideoReadError, match=r"1 tiles of 64 x 96 have 6144 pixels, over the limit of 6143; .*frame_pi"
        ):
            call(data, limits=VideoLimits(frame_pixels=6143))
    many = tiff_of_tiles((64, 1), (16, 160), order, is_big)
    assert load_picture(many).size == (64, 1)
    with pytest.raises(VideoReadError, match="its 4 tiles of 16 x 160 have 10240 pixels, over the limit of 10239"):
        load_picture(many, limits=VideoLimits(frame_pixels=10239))


@pytest.mark.parametrize("is_big", [False, True])
def test_a_tiff_that_names_the_size_of_its_tiles_twice_is_refused(is_big) -> None:
    for more in ([(322, 4096)], [(323, 16)]):
        with pytest.raises(VideoReadError, match="the size of its tiles is no number, or named twice"):
            load_picture(tiff_of_tiles((16, 16), (64, 96), is_big=is_big, more=more))
    data = tiff_of_tiles((16, 16), (64, 96))
    for tag, kind in ((322, 17), (323, 5)):  # of kinds that Pillow passes over, or takes for fractions
        with pytest.raises(VideoReadError, match="the size of its tiles is no number, or named twice"):
            load_picture(data.replace(struct.pack("<HH", tag, 4), struct.pack("<HH", tag, kind)))
    with pytest.raises(VideoReadError, match="the size of its tiles is no number, or named twice"):
        load_picture(data.replace(struct.pack("<HH", 323, 4), struct.pack("<HH", 321, 4)))
