"""Frames, times and metadata of real videos, in many containers and codecs, against a straight decode by PyAV."""

import copy
import gc
import io
import os
import pickle
from fractions import Fraction
from functools import partial
from typing import Never

import av
import numpy as np
import PIL.Image
import pytest
from fila_video.subtitles_fila_video import read_subtitles
from fila_video.video_reading_fila_video import VideoReadError, VideoSegment, iter_frames, probe_video, read_frames
from fila_video.video_sources_fila_video import OpenedSource
from helpers.video_files import make_video, number_of, picture, straight_decode
from transformers.video_utils import VideoMetadata

FORMATS = {
    "h264.mp4": {"codec": "libx264"},
    "h264.mkv": {"codec": "libx264"},
    "h264.mov": {"codec": "libx264"},
    "h264.avi": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264"},
    "h264.flv": {"codec": "libx264"},
    "h264.h264": {"codec": "libx264"},
    "fragmented.mp4": {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "faststart.mp4": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "long_group.mp4": {"codec": "libx264", "options": {"preset": "medium", "g": "1000", "bf": "3"}},
    "open_group.mp4": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "open_group.ts": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "refresh.mp4": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=15"}},
    "hevc.mp4": {"codec": "libx265"},
    "hevc.mkv": {"codec": "libx265"},
    "hevc.ts": {"codec": "libx265"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9_altref.webm": {"codec": "libvpx-vp9", "options": {"g": "30", "lag-in-frames": "16", "auto-alt-ref": "1"}},
    "vp8.webm": {"codec": "libvpx"},
    "vp8_altref.webm": {"codec": "libvpx", "options": {"lag-in-frames": "16", "auto-alt-ref": "1", "b": "200k"}},
    "av1.mp4": {"codec": "libsvtav1"},
    "av1.webm": {"codec": "libsvtav1"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "qmax": "4"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1.mkv": {"codec": "ffv1"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "apng.apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "odd.mp4": {"codec": "libx264", "width": 66, "height": 50},
    "odd_444.mkv": {"codec": "libx264", "pix_fmt": "yuv444p", "width": 67, "height": 49},
    "gray.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "ten_bit.mkv": {"codec": "libx264", "pix_fmt": "yuv420p10le"},
    "sound.mp4": {"codec": "libx264", "audio": True},
    "sound.mkv": {"codec": "libx264", "audio": True},
}
NO_TIMES = {"h264.avi", "h264.h264"}  # PyAV alone gives their frames no times, or wrong ones


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """The path of one of FORMATS, 50 frames at 25 a second, made once."""
    folder, made = tmp_path_factory.mktemp("videos"), {}

    def make(name):
        if name not in made:
            made[name] = make_video(folder / name, 50, **FORMATS[name])
        return made[name]

    return make


def rgb(frame):
    """A frame as RGB at its own size, by the library's own scaler: bicubic, full chroma, accurate rounding."""
    scaler = av.video.reformatter.VideoReformatter()
    return scaler.reformat(frame, format="rgb24", interpolation=0x4 | 0x2000 | 0x4000 | 0x40000).to_ndarray()


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_of_every_format_is_read_with_its_time(video, name) -> None:
    frames = read_frames(video(name), num_frames=10**6)
    assert [number_of(frame) for frame in frames.frames] == list(range(50))
    np.testing.assert_allclose(frames.timestamps, np.arange(50) / 25, atol=2e-3)
    assert frames.metadata.total_num_frames == 50
    assert frames.metadata.duration == pytest.approx(2.0, abs=0.01)
    assert frames.metadata.fps == pytest.approx(25, rel=0.01)
    assert frames.metadata.frames_indices == list(range(50))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in NO_TIMES])
def test_sparse_frames_equal_a_straight_decode_bit_by_bit(video, name) -> None:
    straight = straight_decode(video(name))
    for number in (3, 10):
        frames = read_frames(video(name), num_frames=number)
        for index, seconds, pixels in zip(
            frames.metadata.frames_indices, frames.timestamps, frames.frames, strict=True
        ):
            assert seconds == pytest.approx(straight[index][0])
            if name not in ("gif.gif",):  # transparent pixels are laid over black
                np.testing.assert_array_equal(pixels, rgb(straight[index][1]))


@pytest.mark.parametrize("name", FORMATS)
def test_the_frame_shown_at_a_time_is_read_wherever_it_lies(video, name) -> None:
    times = [0, 0.041, 0.5, 0.5, 0.79, 1.99, 7.0]
    frames = read_frames(video(name), times=times)
    assert [number_of(frame) for frame in frames.frames] == [0, 1, 12, 12, 19, 49, 49]


@pytest.mark.parametrize("name", FORMATS)
def test_keyframe_mode_gives_keyframes_with_their_own_times(video, name) -> None:
    frames = read_frames(video(name), num_frames=5, seek_mode="keyframe")
    assert len(set(frames.timestamps)) == len(frames.timestamps) >= 1
    numbers = [number_of(frame) for frame in frames.frames]
    np.testing.assert_allclose(np.array(numbers) / 25, frames.timestamps, atol=2e-3)


def test_keyframe_mode_takes_the_nearest_keyframe(video) -> None:
    frames = read_frames(video("h264.mp4"), times=[0.2, 0.29, 0.9], seek_mode="keyframe")
    assert [number_of(frame) for frame in frames.frames] == [0, 12, 24]
    assert frames.timestamps.tolist() == [0, 0.48, 0.96]


def test_variable_frame_rates_keep_their_times(tmp_path) -> None:
    times = np.cumsum([0] + [20, 20, 500, 40, 1000] * 8)
    path = make_video(tmp_path / "variable.mkv", len(times), times=times)
    frames = read_frames(path, num_frames=100)
    np.testing.assert_allclose(frames.timestamps, times / 1000, atol=1e-3)
    assert [number_of(frame) for frame in frames.frames] == list(range(len(times)))
    shown = read_frames(path, times=[0.03, 0.3, 0.55, 1.0])
    assert [number_of(frame) for frame in shown.frames] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["offset.mkv", "offset.ts", "offset.mp4"])
def test_a_stream_that_starts_late_begins_at_zero(tmp_path, name) -> None:
    path = make_video(tmp_path / name, 30, times=5000 + np.arange(30) * 40)
    frames = read_frames(path, num_frames=4)
    np.testing.assert_allclose(frames.timestamps, [0, 9 * 0.04, 19 * 0.04, 29 * 0.04], atol=2e-3)
    assert [number_of(frame) for frame in frames.frames] == [0, 9, 19, 29]


def test_a_webm_without_duration_as_a_browser_records_it_is_read_to_its_end(tmp_path) -> None:
    class Pipe(io.RawIOBase):  # a muxer that cannot seek back writes neither duration nor cues
        def __init__(self, file) -> None:
            self.file = file

        def writable(self) -> bool:
            return True

        def write(self, data):
            return self.file.write(data)

    with open(tmp_path / "live.webm", "wb") as file:
        make_video(Pipe(file), 40, codec="libvpx-vp9", container="webm", container_options={"live": "1"})
    with av.open(str(tmp_path / "live.webm")) as container:
        assert container.duration is None
    frames = read_frames(tmp_path / "live.webm", num_frames=5)
    assert [number_of(frame) for frame in frames.frames] == [0, 9, 19, 29, 39]
    assert frames.metadata.duration == pytest.approx(1.6, abs=0.01)


def test_recordings_joined_in_one_transport_stream_play_one_after_the_other(tmp_path) -> None:
    first = make_video(tmp_path / "a.ts", 25).read_bytes()
    second = make_video(tmp_path / "b.ts", 25, draw=lambda n, w, h: picture(n + 100, w, h)).read_bytes()
    frames = read_frames(first + second, num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == list(range(25)) + list(range(100, 125))
    np.testing.assert_allclose(frames.timestamps, np.arange(50) / 25, atol=2e-3)
    twice = read_frames(first + first, num_frames=10)  # a seek cannot tell the halves apart
    assert [number_of(frame) for frame in twice.frames] == [0, 5, 10, 16, 21, 2, 7, 13, 18, 24]


def test_an_edit_list_cuts_the_frames_before_it(tmp_path) -> None:
    whole = make_video(tmp_path / "whole.mp4", 50)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        shift = 20 * int(Fraction(1, 25) / source.streams.video[0].time_base)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux(packet)  # times below zero become an edit list
    straight = straight_decode(tmp_path / "cut.mp4")
    frames = read_frames(tmp_path / "cut.mp4", num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == [number_of(rgb(frame)) for _, frame in straight]
    np.testing.assert_allclose(frames.timestamps, [seconds for seconds, _ in straight], atol=1e-6)


def test_one_frame_is_a_video(tmp_path) -> None:
    frames = read_frames(make_video(tmp_path / "one.mp4", 1), num_frames=8)
    assert frames.frames.shape == (1, 48, 64, 3)
    assert frames.timestamps.tolist() == [0]
    assert frames.metadata.duration == pytest.approx(0.04, abs=0.01)


def test_two_hours_are_read_to_the_end(tmp_path) -> None:
    times = np.arange(0, 7200_000, 500)
    path = make_video(tmp_path / "long.mkv", len(times), width=32, height=16, times=times, draw=tiny_picture)
    frames = read_frames(path, num_frames=16)
    wanted = np.arange(16) * (len(times) - 1) // 15
    assert frames.metadata.frames_indices == wanted.tolist()
    np.testing.assert_allclose(frames.timestamps, wanted / 2)


def tiny_picture(number, width, height):
    return np.full((height, width, 3), number * 5 % 256, dtype=np.uint8)


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_phone_videos_are_turned_and_mirrored_as_a_player_shows_them(tmp_path, degrees, mirror) -> None:
    path = make_video(tmp_path / "turned.mp4", 3, rotation=degrees, mirror=mirror)
    upright = np.rot90(read_frames(make_video(tmp_path / "flat.mp4", 3), num_frames=1).frames[0], degrees // 90)
    frames = read_frames(path, num_frames=1)
    expected = upright[:, ::-1] if mirror else upright
    np.testing.assert_array_equal(frames.frames[0], expected)
    assert (frames.metadata.height, frames.metadata.width) == expected.shape[:2]
    assert read_frames(path, num_frames=1, size=(20, 30)).frames.shape == (1, 20, 30, 3)


def test_a_matrix_that_leaves_nothing_of_a_picture_does_not_turn_it(tmp_path) -> None:
    data = make_video(tmp_path / "flat.mp4", 3).read_bytes()
    matrix = data.index(b"tkhd") + 4 + 40
    for kept in (0, 4):  # none of its numbers, or the first alone
        flat = data[: matrix + kept] + bytes(36 - kept) + data[matrix + 36 :]
        np.testing.assert_array_equal(read_frames(flat, num_frames=3).frames, read_frames(data, num_frames=3).frames)


def test_non_square_pixels_are_made_square(tmp_path) -> None:
    path = make_video(tmp_path / "wide.mp4", 3, pixel_aspect=Fraction(4, 3))
    frames = read_frames(path, num_frames=1)
    assert frames.frames.shape == (1, 48, 85, 3)
    assert (frames.metadata.height, frames.metadata.width) == (48, 85)


def test_interlaced_lines_do_not_comb(tmp_path) -> None:
    def moving(number, width, height):  # the two fields show a bar in two places
        image = np.zeros((height, width, 3), dtype=np.uint8)
        image[0::2, 8:24] = 255
        image[1::2, 40:56] = 255
        return image

    options = {"x264-params": "tff=1", "flags": "+ilme+ildct", "g": "12"}
    path = make_video(tmp_path / "interlaced.mkv", 10, options=options, draw=moving)
    frame = read_frames(path, num_frames=1).frames[0].astype(int)
    assert straight_decode(path)[0][1].interlaced_frame
    assert np.abs(np.diff(frame[8:40, 16].mean(-1))).max() < 40  # and not 255, line by line


@pytest.mark.parametrize("name", ["interlaced.mkv", "interlaced.ts"])
def test_sparse_interlaced_frames_equal_those_of_a_full_reading(tmp_path, name) -> None:
    options = {"x264-params": "tff=1:keyint=12:bframes=2", "flags": "+ilme+ildct"}
    path = make_video(tmp_path / name, 50, options=options)
    full = read_frames(path, num_frames=50).frames
    assert [number_of(frame) for frame in full] == list(range(50))
    np.testing.assert_array_equal(read_frames(path, num_frames=6).frames, full[[0, 9, 19, 29, 39, 49]])


def test_high_dynamic_range_gives_a_picture(tmp_path) -> None:
    options = {"x265-params": "keyint=12:log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
    path = make_video(tmp_path / "hdr.mp4", 10, codec="libx265", pix_fmt="yuv420p10le", options=options)
    frames = read_frames(path, num_frames=10)
    assert [number_of(frame) for frame in frames.frames] == list(range(10))


def test_transparency_is_laid_over_black(tmp_path) -> None:
    def see_through(number, width, height):
        return np.full((height, width, 4), 200, dtype=np.uint8) * np.array([1, 1, 1, 0], dtype=np.uint8)

    with av.open(str(tmp_path / "alpha.mov"), "w") as out:
        stream = out.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        frame = av.VideoFrame.from_ndarray(see_through(0, 64, 48), format="rgba").reformat(format="argb")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert read_frames(tmp_path / "alpha.mov", num_frames=1).frames.max() == 0


def test_animated_webp_is_read_with_its_durations(tmp_path) -> None:
    images = [PIL.Image.fromarray(picture(number)) for number in range(8)]
    durations = [40, 40, 200, 40, 40, 40, 100, 40]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=durations, lossless=True)
    frames = read_frames(tmp_path / "a.webp", num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == list(range(8))
    np.testing.assert_allclose(frames.timestamps, np.cumsum([0] + durations[:-1]) / 1000)
    assert frames.metadata.duration == pytest.approx(sum(durations) / 1000)
    assert [number_of(frame) for frame in read_frames(tmp_path / "a.webp", times=[0.1, 0.33]).frames] == [2, 4]


def test_scaling_agrees_with_antialiased_bicubic_of_pillow(tmp_path) -> None:
    path = make_video(tmp_path / "big.mp4", 2, width=640, height=360)
    full = read_frames(path, num_frames=1).frames[0]
    small = read_frames(path, num_frames=1, size=(96, 96)).frames[0]
    expected = np.asarray(PIL.Image.fromarray(full).resize((96, 96), PIL.Image.BICUBIC))
    assert small.shape == (96, 96, 3)
    assert np.abs(small.astype(int) - expected.astype(int)).mean() < 1.5


def test_frames_at_a_rate_are_those_shown_at_each_tick(video) -> None:
    frames = read_frames(video("h264.mp4"), fps=10)
    assert [number_of(frame) for frame in frames.frames] == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22] + [
        25, 27, 30, 32, 35, 37, 40, 42, 45, 47]  # fmt: skip
    assert len(read_frames(video("h264.mp4"), fps=1000).frames) == 50


def test_the_number_of_frames_may_depend_on_the_metadata(video) -> None:
    seen = []

    def choose(metadata):
        seen.append(metadata)
        return round(metadata.duration * 3)

    assert len(read_frames(video("h264.mp4"), num_frames=choose).frames) == 6
    assert seen[0].total_num_frames == 50 and seen[0].duration == pytest.approx(2.0)


def test_iterating_gives_the_same_frames_as_reading(video) -> None:
    frames = read_frames(video("h264.mkv"), num_frames=9, size=(24, 32))
    pairs = list(iter_frames(video("h264.mkv"), num_frames=9, size=(24, 32)))
    assert [seconds for seconds, _ in pairs] == frames.timestamps.tolist()
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in pairs]), frames.frames)
    assert frames.frames.dtype == np.uint8 and frames.frames.shape == (9, 24, 32, 3)


@pytest.mark.parametrize("cores", [1, 3])
def test_a_file_is_opened_once_however_many_threads_decode_it(video, monkeypatch, cores) -> None:
    container, opened = OpenedSource.container, []
    monkeypatch.setattr(
        OpenedSource, "container", lambda source, *device: opened.append(source.name) or container(source)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    read = read_frames(video("h264.mp4"), num_frames=9)
    assert len(opened) == 1
    assert [number_of(frame) for frame in read.frames] == read.metadata.frames_indices


def test_segments_of_several_files_are_one_video(video) -> None:
    segments = [
        VideoSegment(video("h264.mp4"), 1.0, 1.4),
        VideoSegment(video("vp9.webm")),
        VideoSegment(video("h264.mp4"), end=0.2),
    ]
    frames = read_frames(segments, num_frames=1000)
    numbers = [*range(25, 35), *range(50), *range(5)]
    assert [number_of(frame) for frame in frames.frames] == numbers
    np.testing.assert_allclose(frames.timestamps, np.arange(65) / 25, atol=2e-3)
    assert frames.metadata.duration == pytest.approx(2.6, abs=0.01)
    assert frames.metadata.frames_indices == list(range(65))
    late = read_frames(segments, times=[0.39, 0.41, 2.55])
    assert [number_of(frame) for frame in late.frames] == [34, 0, 3]


def test_a_segment_may_start_between_two_frames(video) -> None:
    frames = read_frames(VideoSegment(video("h264.mp4"), 0.5, 0.7), num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == [12, 13, 14, 15, 16, 17]
    np.testing.assert_allclose(frames.timestamps, [0, 0.02, 0.06, 0.10, 0.14, 0.18], atol=1e-9)


def test_probing_says_what_reading_would(video) -> None:
    metadata = probe_video(video("h264.mp4"))
    assert isinstance(metadata, VideoMetadata)
    assert (metadata.total_num_frames, metadata.width, metadata.height) == (50, 64, 48)
    assert metadata.duration == pytest.approx(2.0) and metadata.fps == pytest.approx(25)
    assert metadata.video_backend == "pyav" and metadata.frames_indices is None


def test_metadata_gives_true_times_and_survives_copies_and_thinning(tmp_path) -> None:
    times = np.array([0, 20, 500, 540, 2000])
    metadata = read_frames(make_video(tmp_path / "v.mkv", 5, times=times), num_frames=5).metadata
    assert metadata.timestamps == pytest.approx((times / 1000).tolist())
    for same in (copy.copy(metadata), copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert same.timestamps == metadata.timestamps and dict(same) == dict(metadata)
    metadata.frames_indices = [1, 4]
    assert metadata.timestamps == pytest.approx([0.02, 2.0])
    assert VideoMetadata(**metadata).total_num_frames == 5
    metadata.update({"fps": 2.0})
    assert metadata["fps"] == 2.0


def test_progress_is_reported_to_the_end(video) -> None:
    calls = []
    read_frames(video("h264.mp4"), num_frames=10, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_an_error_in_the_progress_callback_stops_the_reading(video) -> None:
    def stop(done, total) -> Never:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_frames(video("h264.mp4"), num_frames=10, progress=stop)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of"),
        ({"num_frames": 2, "fps": 1}, "exactly one of"),
        ({"num_frames": 0}, "num_frames must be an integer of at least 1, got 0"),
        ({"num_frames": 2.5}, "num_frames must be an integer"),
        ({"num_frames": lambda metadata: 0}, "what num_frames returned"),
        ({"fps": -1}, "fps must be a positive number"),
        ({"fps": float("nan")}, "fps must be a positive number"),
        ({"fps": "2"}, "fps must be a positive number"),
        ({"fps": True}, "fps must be a positive number"),
        ({"times": 1.0}, "times must be a list"),
        ({"times": ["a"]}, "times must be a list"),
        ({"times": iter([0, 1])}, "times must be a list"),
        ({"num_frames": 1, "size": 100}, r"size must be \(height, width\), got 100"),
        ({"num_frames": 1, "limits": {"packets": 5}}, "limits must be a VideoLimits"),
        ({"times": []}, "times must be"),
        ({"times": [1, 0]}, "ascending"),
        ({"times": [-1]}, "from 0 on"),
        ({"num_frames": 1, "size": (0, 5)}, "height in size"),
        ({"num_frames": 1, "seek_mode": "fast"}, "seek_mode must be"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(video, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_frames(video("h264.mp4"), **arguments)


def test_a_segment_outside_its_video_is_an_error(video) -> None:
    with pytest.raises(VideoReadError, match="does not lie within"):
        read_frames(VideoSegment(video("h264.mp4"), 3, 4), num_frames=1)


@pytest.mark.parametrize("times", [(-5, None), (2, 1), (1, 1), (float("nan"), None), (0, float("nan"))])
def test_a_segment_that_is_none_is_an_error_also_of_its_subtitles(video, times) -> None:
    segment = VideoSegment(video("h264.mp4"), *times)
    for read in (
        partial(read_frames, num_frames=1),
        partial(read_subtitles, b"1\n00:00:00,500 --> 00:00:01,000\nHello\n"),
    ):
        with pytest.raises(VideoReadError, match="seconds does not lie within it: a segment starts at 0 or later"):
            read(segment)


def test_a_segment_that_would_end_behind_its_video_is_told_and_read_to_the_end(video, warnings) -> None:
    whole = read_frames(VideoSegment(video("h264.mp4"), 1.0), num_frames=3)
    assert not warnings.text
    cut = read_frames(VideoSegment(video("h264.mp4"), 1.0, 5000), num_frames=3)
    assert np.array_equal(cut.frames, whole.frames)
    assert "its segment would at 5000" in warnings.text


@pytest.mark.parametrize("span", [("0", "1"), (0, "1"), (True, 1), (None, [1])])
def test_times_of_a_segment_that_are_no_numbers_are_named(video, span) -> None:
    with pytest.raises(VideoReadError, match="has no times in seconds; pass numbers"):
        read_frames(VideoSegment(video("h264.mp4"), *span), num_frames=1)


def test_a_segment_without_end_is_read_to_the_end_of_its_video(video, warnings) -> None:
    frames = read_frames(VideoSegment(video("h264.mp4"), 1.0, float("inf")), num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == list(range(25, 50))
    assert warnings.text == ""


def test_keyframe_mode_stays_within_a_segment(video) -> None:
    segments = [VideoSegment(video("h264.mp4"), 0.4, 1.2), VideoSegment(video("h264.mp4"), 1.1, 1.3)]
    frames = read_frames(segments, num_frames=50, seek_mode="keyframe")
    assert [number_of(frame) for frame in frames.frames] == [
        12,
        24,
        27,
    ]  # the last has none, and gives its first frame
    np.testing.assert_allclose(frames.timestamps, [0.08, 0.56, 0.8], atol=1e-6)


def test_decoded_frames_are_freed_without_garbage_collection(video) -> None:
    gc.collect()
    gc.disable()
    try:
        assert len(read_frames(video("h264.mp4"), num_frames=40).timestamps) == 40
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) < 5
    finally:
        gc.enable()


@pytest.mark.parametrize(("before", "expected"), [(1e-7, 10), (1e-4, 9)])
def test_a_time_that_rounding_put_right_before_a_frame_is_that_frames(tmp_path, before, expected) -> None:
    video = make_video(tmp_path / "video.mp4", 30, fps=30)
    assert number_of(read_frames(video, times=[1 / 3 - before]).frames[0]) == expected
