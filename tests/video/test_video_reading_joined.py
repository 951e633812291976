"""Recordings that were joined in one transport stream, each with a clock of its own."""

import io
import os
from functools import partial

import av
import numpy as np
import pytest
from fila_video.video_reading_fila_video import read_frames
from fila_video.video_sources_fila_video import OpenedSource
from helpers.video_files import make_video, number_of, picture

OPEN_GROUPS = {
    "mpeg2video": {"bf": "2", "g": "12", "qmax": "4"},
    "libx265": {"x265-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0:log-level=none"},
}


def from_second_keyframe(data):
    """A transport stream cut where the pictures behind the keyframe, shown before it, lean on those cut off."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        second = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        assert packets[second + 1].pts < packets[second].pts
        for packet in packets[second:]:
            packet.stream = stream
            out.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("codec", OPEN_GROUPS)
def test_pictures_that_lean_on_what_was_cut_off_replace_none_of_the_recording_before(codec) -> None:
    settings = {"codec": codec, "container": "mpegts", "options": OPEN_GROUPS[codec]}
    first = make_video(io.BytesIO(), 30, **settings).getvalue()
    second = make_video(io.BytesIO(), 48, draw=lambda n, w, h: picture(n + 100, w, h), **settings).getvalue()
    frames = read_frames(first + from_second_keyframe(second), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == [*range(30), *range(112, 148)]
    np.testing.assert_allclose(frames.timestamps, np.arange(66) / 25, atol=2e-3)


@pytest.mark.parametrize("lengths", [(1, 60), (3, 60), (60, 1), (60, 3), (4, 3, 30, 5)])
@pytest.mark.parametrize(
    "kind", ["libx264.mpegts", "mpeg2video.mpegts", "libx264.matroska", "libvpx-vp9.webm", "mjpeg.matroska"]
)
def test_recordings_of_a_few_frames_lose_none(kind, lengths) -> None:
    codec, container = kind.split(".")
    lengths = lengths if container == "mpegts" else lengths[:2]  # of more, FFmpeg passes over short ones
    settings = {"codec": codec, "container": container, "options": OPEN_GROUPS.get(codec)}
    settings |= {"options": {}, "pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    data, total = b"", 0
    for length in lengths:
        draw = partial(lambda first, number, *size: picture(first + number, *size), total)
        data += make_video(io.BytesIO(), length, draw=draw, **settings).getvalue()
        total += length
    frames = read_frames(data, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(total))
    assert (np.diff(frames.timestamps) > 0).all()
    assert np.median(np.diff(frames.timestamps)) == pytest.approx(0.04, abs=2e-3)


@pytest.mark.parametrize("times", [range(0, 36_000, 3000), [0, *range(3000, 3440, 40)]], ids=["slides", "still first"])
@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_slides_behind_a_short_film_lose_none(container, times) -> None:
    first = make_video(io.BytesIO(), 30, container=container).getvalue()
    settings = {"times": times, "draw": lambda n, w, h: picture(n + 30, w, h)}
    second = make_video(io.BytesIO(), 12, container=container, **settings).getvalue()
    frames = read_frames(first + second, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(42))
    np.testing.assert_allclose(np.diff(frames.timestamps)[30:], np.diff(times) / 1000, atol=2e-3)


@pytest.mark.parametrize("length", [2, 3])
def test_a_slower_recording_behind_a_short_one_loses_none(length) -> None:
    first = make_video(io.BytesIO(), length, container="mpegts", fps=50, options={"bf": "0"}).getvalue()
    settings = {"draw": lambda n, w, h: picture(n + length, w, h), "options": {"bf": "0"}}
    second = make_video(io.BytesIO(), 30, container="mpegts", fps=50 // length, **settings).getvalue()
    frames = read_frames(first + second, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(length + 30))
    np.testing.assert_allclose(np.diff(frames.timestamps)[length:], 1 / (50 // length), atol=2e-3)


@pytest.mark.parametrize("cores", [1, 4])
def test_where_no_seek_leads_back_threads_do_not_read_the_file_again_and_again(monkeypatch, cores) -> None:
    container, opened = OpenedSource.container, []
    monkeypatch.setattr(
        OpenedSource, "container", lambda source, *device: opened.append(source) or container(source, *device)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    data = make_video(io.BytesIO(), 300, container="mpegts").getvalue() * 12  # a seek cannot tell the parts apart
    frames = read_frames(data, num_frames=60)
    assert [number_of(frame) for frame in frames.frames] == [n % 300 for n in frames.metadata.frames_indices]
    # Eight runs may have begun before the first seek failed, and look for their place once more.
    assert len(opened) <= 12
