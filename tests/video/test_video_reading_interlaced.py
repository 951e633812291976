"""Interlaced films whose frames are one packet each: a frame is its own, or it is left out."""

import io
from fractions import Fraction

import av
import pytest
from fila_video.video_reading_fila_video import read_frames
from helpers.video_files import number_of, picture


def interlaced(codec, container, pix_fmt="yuv420p", total=40, **options) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, pix_fmt
        stream.options = {"flags": "+ilme+ildct", **options}
        for number in range(total):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 96), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
def test_each_frame_of_mpeg4_with_b_frames_is_found_by_its_time(container, warnings) -> None:
    data = interlaced("mpeg4", container, bf="2")
    wanted = list(range(0, 40, 3))
    assert [number_of(read_frames(data, times=[number / 25]).frames[0]) for number in wanted] == wanted
    assert [number_of(frame) for frame in read_frames(data, num_frames=40).frames] == list(range(40))
    assert not warnings.text


@pytest.mark.parametrize(
    ("codec", "container", "settings"),
    [("prores_ks", "mov", {"pix_fmt": "yuv422p10le"}), ("mpeg2video", "matroska", {"bf": "0", "g": "1"})],
)
def test_a_frame_that_cannot_be_decoded_is_left_out_and_no_other_stands_for_it(
    codec, container, settings, warnings
) -> None:
    data = bytearray(interlaced(codec, container, **settings))
    with av.open(io.BytesIO(bytes(data))) as source:
        packets = {
            round(packet.pts * packet.time_base * 25): bytes(packet) for packet in source.demux() if packet.size
        }
    for number in (20, 21, 22):
        at = data.index(packets[number])
        data[at : at + len(packets[number])] = bytes(len(packets[number]))
    read = read_frames(bytes(data), num_frames=40)
    assert [number_of(frame) for frame in read.frames] == [n for n in range(40) if n not in (20, 21, 22)]
    assert "3 of the 40 frames wanted could not be decoded" in warnings.text
