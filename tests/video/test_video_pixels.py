"""Decoded frames become RGB as a player shows it: HDR, transparency, interlaced lines, WebP and pictures."""

import io

import av
import numpy as np
import PIL.Image
import pytest
from fila_video.video_decoding_fila_video import FrameConverter, webp_frames
from fila_video.video_limits_fila_video import VideoLimits, VideoReadError
from fila_video.video_pictures_fila_video import open_picture
from fila_video.video_sources_fila_video import OpenedSource
from helpers.video_files import make_video, number_of, picture

# Of the patches that `hdr_ramp` draws, row by row, what FFmpeg 5.1 makes of them:
#     zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv
# (without `npl` and `tonemap` for the third, which is no HDR), then yuv444p and rgb24.
EXPECTED = {
    16: (  # PQ
        "0000000a0a0a1616162525253838384e4e4e6a6a6a898989abababcbcbcbe7e7e7fcfcfcffffffffffffffffffffffff"
        "0000000b00021b00042e00044500025f00007f0000a20101c40000e10000f80000ff0001ff0001ff0000ff0001ff0000"
        "000000010b00001700012700013a00005300006f00008f0100b20000d00000eb0001fe0000ff0000ff0000ff0000ff00"
        "00000000030b00061900062700093b00085101086f0000900000af0100cf0100eb0100ff0001ff0000ff0000ff0100ff"
    ),
    18: (  # HLG
        "000000111111232323343434464646565656666666767676858585959595a9a9a9bdbdbdd0d0d0e3e3e3f3f3f3ffffff"
        "0000001500032b000540000a55000c6800117b01138d00159d0018af0018c20018d40015e70010f60000ff0000ff0000"
        "000000001200002400003700004900005a00006b01007a00008a00009b0000ae0000c20001d70000e70000f80000ff00"
        "000000010413000824000c37000f4900135a01176b011a7b001c8a00209a0021ad0122c30120d6001de80118f6000fff"
    ),
    14: (  # BT.2020 in SDR
        "0000001111112222223333334545455555556666667878788888889a9a9aabababbbbbbbcdcdcddededeefefefffffff"
        "0000001500032a00053e000a53000c6800117d0013920016a8001bbd001dd20020e70022fb0027ff002aff002cff0431"
        "000000001200012400013500004801005a01006b01007d00008f0001a10000b30000c50000d70000e90000fb0000ff00"
        "000000000310000824000b3600104700135a00186b001b7d001f8e0022a10027b2002ac4012ed80032e80036fb003aff"
    ),
}
TINTS = ((1, 1, 1), (1, 0.25, 0.25), (0.25, 1, 0.25), (0.25, 0.25, 1))


def hdr_ramp(transfer: int) -> av.VideoFrame:
    """16 levels of gray, red, green and blue in patches of 16 x 16, in 10 bits, with BT.2020's primaries."""
    patches = np.array([[[level / 15 * part for part in tint] for level in range(16)] for tint in TINTS])
    codes = (patches * 65535).astype(np.uint16).repeat(16, axis=0).repeat(16, axis=1)
    frame = av.VideoFrame.from_ndarray(codes, format="rgb48le")
    frame = frame.reformat(format="yuv444p10le", dst_colorspace=9, dst_color_range=1)
    return label(frame, transfer)


def label(frame, transfer, primaries=9, colorspace=9):
    frame.color_trc, frame.color_primaries, frame.colorspace = transfer, primaries, colorspace
    return frame


def convert(frame, size=None):
    return FrameConverter(size or (frame.height, frame.width))(frame)


@pytest.mark.parametrize("transfer", EXPECTED)
def test_wide_colors_and_hdr_look_as_ffmpegs_filters_make_them(transfer) -> None:
    expected = np.frombuffer(bytes.fromhex(EXPECTED[transfer]), dtype=np.uint8).reshape(4, 16, 3)
    found = convert(hdr_ramp(transfer))
    assert found.shape == (64, 256, 3) and found.dtype == np.uint8
    assert np.abs(found[8::16, 8::16].astype(int) - expected).mean() <= 6
    half = convert(hdr_ramp(transfer), (32, 128))  # patches of 8 x 8
    assert np.abs(half[4::8, 4::8].astype(int) - expected).mean() <= 6


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_keeps_its_order_of_brightness_and_gray_stays_gray(transfer) -> None:
    gray = convert(hdr_ramp(transfer))[8, 8::16].astype(int)
    assert (np.diff(gray[:, 1]) >= 0).all() and gray[0, 1] <= 2 and gray[-1, 1] == 255
    assert np.abs(gray - gray[:, 1:2]).max() <= 2


@pytest.mark.parametrize("labels", [(1, 1, 1), (2, 2, 2), (6, 6, 5), (13, 1, 1)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "rgb24"])
def test_frames_that_are_not_wide_are_scaled_and_nothing_else(labels, pixel_format) -> None:
    frame = av.VideoFrame.from_ndarray(picture(21), format="rgb24").reformat(format=pixel_format)
    frame.color_trc, frame.color_primaries, frame.colorspace = labels
    scaler = av.video.reformatter.VideoReformatter()
    plain = scaler.reformat(frame, 32, 24, "rgb24", interpolation=0x4 | 0x2000 | 0x4000 | 0x40000).to_ndarray()
    np.testing.assert_array_equal(convert(frame, (24, 32)), plain)


def test_transparency_is_laid_over_black() -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[..., 0], pixels[:, :4, 3], pixels[:, 4:, 3] = 200, 255, 51
    shown = convert(av.VideoFrame.from_ndarray(pixels, format="rgba"))
    assert shown[0, 0].tolist() == [200, 0, 0] and shown[0, 7].tolist() == [40, 0, 0]


def test_lines_of_an_interlaced_frame_are_blended_also_across_the_rows_that_are_blended_at_a_time() -> None:
    def stripes(number, width, height):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[1::2] = 200
        return pixels

    options = {"preset": "ultrafast", "qp": "0"}
    for interlaced, expected in (("0", {0, 200}), ("1", {100})):
        settings = {**options, "x264-params": f"tff={interlaced}"}
        video = {"container": "matroska", "height": 608, "pix_fmt": "yuv444p", "options": settings, "draw": stripes}
        file = io.BytesIO(make_video(io.BytesIO(), 2, **video).getvalue())
        with av.open(file) as container:
            found = set(convert(next(container.decode(video=0)))[1:-1].ravel().tolist())
        assert all(min(abs(value - wanted) for wanted in expected) <= 3 for value in found)


def make_webp(count=5, size=(64, 48), durations=None):
    images = [PIL.Image.fromarray(picture(number, *size)) for number in range(count)]
    file = io.BytesIO()
    images[0].save(
        file, "WEBP", save_all=True, append_images=images[1:], duration=durations or [40] * count, lossless=True
    )
    return file.getvalue()


def test_an_animated_webp_is_read_with_its_own_times() -> None:
    with OpenedSource(make_webp(durations=[40, 50, 0, 70, 80])) as source:
        assert source.is_webp
        shown = [(number_of(convert(frame)), frame.pts, frame.duration) for frame in webp_frames(source)]
    assert shown == [(0, 0, 40), (1, 40, 50), (2, 90, 100), (3, 190, 70), (4, 260, 80)]


def test_a_webp_that_breaks_off_is_an_error_and_one_picture_no_video() -> None:
    data = make_webp()
    with OpenedSource(data[: len(data) // 2]) as source, pytest.raises(VideoReadError, match="is damaged"):
        list(webp_frames(source))
    still = io.BytesIO()
    PIL.Image.new("RGB", (8, 6)).save(still, "WEBP")
    with OpenedSource(still.getvalue()) as source, pytest.raises(VideoReadError, match="still picture"):
        list(webp_frames(source))


def test_an_animation_that_repaints_a_large_canvas_for_ever_is_refused() -> None:
    limits = VideoLimits(animation_pixels=4 * 128 * 128)  # a small frame counts as one of 128 x 128
    with OpenedSource(make_webp(), limits=limits) as source, pytest.raises(VideoReadError, match="animation_pixels"):
        list(webp_frames(source))
    for kind in ("GIF", "PNG", "WEBP"):
        images = [PIL.Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
        file = io.BytesIO()
        images[0].save(file, kind, save_all=True, append_images=images[1:])
        with pytest.raises(VideoReadError, match=r"64 x 48 have 3072 pixels, over the limit of 3000; .*canvas"):
            OpenedSource(file.getvalue(), limits=VideoLimits(canvas_pixels=3000))


def test_a_picture_is_turned_upright_and_one_over_the_limits_is_refused_unopened(tmp_path) -> None:
    image = PIL.Image.new("RGB", (8, 6))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (6, 8)
    bomb = io.BytesIO()
    PIL.Image.new("1", (16384, 16384)).save(bomb, "PNG")
    for source in (bomb.getvalue(), bomb.getvalue()[:60]):
        with pytest.raises(VideoReadError, match="268435456 pixels"):
            open_picture(source)
    with pytest.raises(VideoReadError, match=r"cannot be decoded|not a picture"):
        open_picture((tmp_path / "turned.jpg").read_bytes()[:300])
    with pytest.raises(VideoReadError, match=r"nowhere\.png'.*no such file"):
        open_picture(tmp_path / "nowhere.png")
