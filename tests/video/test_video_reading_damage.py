"""Damaged, cut, lying and random files: errors and warnings with counts, never a crash, a hang or a leak."""

import io
import resource
import struct
from fractions import Fraction

import av
import fila_video.video_sources_fila_video as sources
import numpy as np
import pytest
from fila_video.video_limits_fila_video import VideoLimits
from fila_video.video_reading_fila_video import VideoReadError, VideoSegment, iter_frames, probe_video, read_frames
from helpers.clocks import Clock
from helpers.video_files import make_video, number_of, picture


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    options = {"preset": "ultrafast", "bf": "2", "g": "12", "crf": "18"}
    return make_video(
        tmp_path_factory.mktemp("damage") / "video.mp4", 120, width=96, height=64, options=options,
        container_options={"movflags": "faststart"},
    )  # fmt: skip


def overwrite(data, low, high, byte=0):
    """The bytes from `low` to `high`, fractions of the whole, overwritten."""
    low, high = int(low * len(data)), int(high * len(data))
    return data[:low] + bytes([byte]) * (high - low) + data[high:]


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts"])
def test_damage_in_the_middle_costs_only_the_frames_there(path, tmp_path, warnings, name) -> None:
    settings = {"container_options": {"cluster_time_limit": "400"}} if name == "mkv" else {}
    whole = make_video(tmp_path / f"video.{name}", 120, width=96, height=64, **settings)
    expected = read_frames(whole, num_frames=1000)
    frames = read_frames(overwrite(whole.read_bytes(), 0.5, 0.55), num_frames=1000)
    by_time = {round(seconds, 4): pixels for seconds, pixels in zip(frames.timestamps, frames.frames, strict=True)}
    same = sum(
        np.array_equal(by_time.get(round(seconds, 4), np.zeros(1)), pixels)
        for seconds, pixels in zip(expected.timestamps, expected.frames, strict=True)
    )
    assert 90 <= same < 120  # all but the group of frames that was hit, and its neighbours
    assert (np.diff(frames.timestamps) > 0).all()
    assert "damaged" in warnings.text


def test_the_warning_counts_what_was_lost(path, warnings) -> None:
    data = path.read_bytes()
    frames = read_frames(overwrite(data, 0.5, 0.6, 255), num_frames=120)
    lost = 120 - len(frames.frames)
    assert lost > 0
    assert f"{lost} of the 120 frames wanted could not be decoded" in warnings.text
    assert "given as" in warnings.text


def test_an_undamaged_file_gives_no_warning(path, warnings) -> None:
    read_frames(path, num_frames=10)
    assert warnings.text == ""


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "avi", "webm"])
def test_a_file_cut_off_gives_the_frames_that_are_left(tmp_path, warnings, name) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(name, "libx264")
    settings = {"container_options": {"movflags": "faststart"}} if name == "mp4" else {}
    whole = make_video(tmp_path / f"video.{name}", 120, codec=codec, **settings)
    data = whole.read_bytes()
    frames = read_frames(data[: int(0.6 * len(data))], num_frames=1000)
    numbers = [number_of(frame) for frame in frames.frames]
    assert 20 < len(numbers) < 119
    assert numbers[:-3] == list(range(len(numbers) - 3))  # of the last few, some lean on frames that were cut off
    np.testing.assert_allclose(frames.timestamps, np.array(numbers) / 25, atol=2e-3)
    if name != "ts":  # a transport stream does not say how long it should be
        assert "cut off" in warnings.text


def test_a_film_cut_off_is_read_also_where_its_sound_has_samples_of_one_size(tmp_path, warnings) -> None:
    path = tmp_path / "film.mov"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        film, sound = out.add_stream("libx264", rate=25), out.add_stream("pcm_s16le", rate=48000)
        film.width, film.height, film.pix_fmt, film.options = 64, 48, "yuv420p", {"bf": "0"}
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(film.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, 1920 * number, Fraction(1, 48000)
            out.mux(sound.encode(silence))
        out.mux(film.encode(None))
        out.mux(sound.encode(None))
    data = path.read_bytes()
    read = [number_of(frame) for frame in read_frames(data[: int(0.7 * len(data))], num_frames=99).frames]
    assert 10 < len(read) < 50 and read == list(range(len(read)))
    assert "cut off" in warnings.text


def test_the_limit_of_a_frame_holds_for_pixels_made_square(tmp_path) -> None:
    wide = make_video(tmp_path / "wide.mp4", 5, width=96, height=96, pixel_aspect=Fraction(10, 1))
    with pytest.raises(VideoReadError, match="its pictures of 960 x 96 have 92160 pixels"):
        read_frames(wide, num_frames=5, limits=VideoLimits(frame_pixels=10_000))
    assert (
        read_frames(wide, num_frames=5, size=(40, 50), limits=VideoLimits(frame_pixels=10_000)).frames.shape[1] == 40
    )


def test_a_header_that_is_missing_is_an_error(path) -> None:
    data = make_video(io.BytesIO(), 30, container="mp4").getvalue()
    with pytest.raises(VideoReadError, match="too damaged to open"):
        read_frames(data[: len(data) // 2], num_frames=1)  # its index was at the end


def test_a_file_without_one_readable_frame_is_an_error(path) -> None:
    data = path.read_bytes()
    media = data.index(b"mdat") + 4
    with pytest.raises(VideoReadError, match="no frame of it can be decoded"):
        read_frames(data[:media] + bytes(len(data) - media), num_frames=4)


def change_number(data, name, offset, value, width=">I"):
    at = data.index(name) + 4 + offset
    return data[:at] + struct.pack(width, value) + data[at + struct.calcsize(width) :]


def test_a_billion_frames_in_a_header_are_refused(path) -> None:
    data = change_number(path.read_bytes(), b"stsz", 8, 10**9)
    with pytest.raises(VideoReadError, match="announces 1000000000 samples in a file of"):
        probe_video(data)
    data = change_number(change_number(path.read_bytes(), b"stsz", 4, 1), b"stsz", 8, 10**9)  # all of one byte
    with pytest.raises(VideoReadError, match="announces 1000000000 samples"):
        probe_video(data)
    fragmented = make_video(
        io.BytesIO(), 30, container="mp4", container_options={"movflags": "frag_keyframe+empty_moov"}
    ).getvalue()
    with pytest.raises(VideoReadError, match="announces 1000000000 samples"):
        probe_video(change_number(fragmented, b"trun", 4, 10**9))


@pytest.mark.parametrize("name", ["mkv", "avi", "mp4"])
def test_a_picture_of_ten_billion_pixels_is_refused(tmp_path, name) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = make_video(tmp_path / f"v.{name}", 5, codec="ffv1").read_bytes()
    if name == "mkv":
        data = data.replace(b"\xb0\x81\x40\xba\x81\x30", b"\xb0\x82\xff\xff\xba\x82\xff\xff")
        at = data.index(b"\xb0\x82\xff\xff") if b"\xb0\x82\xff\xff" in data else None
        if at is None:
            pytest.skip("this muxer writes the size in another way")
    elif name == "avi":
        data = change_number(data, b"strf", 8, 100_000, "<I")
        data = change_number(data, b"strf", 12, 100_000, "<I")
    else:
        at = data.index(b"FFV1") + 4 + 24
        data = data[:at] + struct.pack(">HH", 65535, 65535) + data[at + 4 :]
    with pytest.raises(VideoReadError):
        read_frames(data, num_frames=1)
    # The picture would take 6 GB and more; what else the process took meanwhile is far less.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2 * 1024**2


@pytest.mark.parametrize("name", ["mjpeg.mkv", "png.mov", "vp9.webm", "vp8.ivf"])
def test_pictures_larger_than_their_header_says_are_refused_before_they_are_decoded(name) -> None:
    codec, ending = name.split(".")
    codec, container = (
        {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(codec, codec),
        {"mkv": "matroska"}.get(ending, ending),
    )
    settings = {"codec": codec, "pix_fmt": {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")}
    large = make_video(io.BytesIO(), 1, width=2048, height=1024, container=container, **settings).getvalue()
    file = io.BytesIO()
    with av.open(io.BytesIO(large)) as source, av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, settings["pix_fmt"]
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert (
        read_frames(file.getvalue(), num_frames=1, limits=VideoLimits(frame_pixels=2048 * 1024)).frames.shape[1]
        == 1024
    )
    with pytest.raises(VideoReadError, match=r"2048 x 1024 have 2097152 pixels, over the limit of 2097151;"):
        probe_video(file.getvalue(), limits=VideoLimits(frame_pixels=2048 * 1024 - 1))
    with pytest.raises(VideoReadError, match=r"too many pixels, over the limit of 10000; VideoLimits\(frame_pixels="):
        probe_video(file.getvalue(), limits=VideoLimits(frame_pixels=10_000))


def test_a_webp_of_billions_of_pixels_is_refused(tmp_path) -> None:
    header = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\xff\xff" + b"\x00\x40\x00"
    data = b"RIFF" + struct.pack("<I", len(header) + 4) + b"WEBP" + header
    with pytest.raises(VideoReadError):
        probe_video(data)


def test_a_source_that_stalls_is_given_up(path, monkeypatch) -> None:
    class Slow(io.BytesIO):
        def read(self, size=-1):
            clock.now += 0.3
            return super().read(size)

    clock = Clock(monkeypatch)
    with pytest.raises(VideoReadError, match=r"no progress for \d\.\d seconds, over the limit of 0\.1;"):
        read_frames(Slow(path.read_bytes()), num_frames=3, limits=VideoLimits(stall_seconds=0.1))


def test_the_time_that_a_consumer_takes_is_not_a_stall(path, monkeypatch) -> None:
    clock, numbers = Clock(monkeypatch), []
    for _, pixels in iter_frames(path, num_frames=3, limits=VideoLimits(stall_seconds=0.5)):
        clock.now += 0.8
        numbers.append(number_of(pixels))
    assert numbers == [0, 59, 119]


@pytest.mark.parametrize(
    "limit, message",
    [
        ({"packets": 100}, "packets"),
        ({"total_pixels": 96 * 64 * 20}, "pixels in all"),
        ({"frame_pixels": 99}, "over the limit of 99"),
    ],
)
def test_a_whole_reading_stays_within_its_limits(path, limit, message) -> None:
    with pytest.raises(VideoReadError, match=message):
        read_frames(path, num_frames=120, limits=VideoLimits(**limit))
    with pytest.raises(VideoReadError, match=message):
        list(iter_frames(path, num_frames=120, limits=VideoLimits(**limit)))


def test_an_error_of_the_machine_is_named_and_does_not_shorten_the_video(path) -> None:
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 3 * len(self.getvalue()) // 4:
                raise OSError(5, "Input/output error")
            return super().read(min(size, 2000))

    data = make_video(io.BytesIO(), 200, container="mpegts").getvalue()
    with pytest.raises(VideoReadError, match="Input/output error"):
        read_frames(Failing(data), num_frames=1000)


def test_a_file_that_the_disk_cannot_give_is_not_taken_for_a_damaged_one(path, tmp_path, monkeypatch) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read_frames(cut, num_frames=3)

    class Failing(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(min(1024, size))

    monkeypatch.setattr(sources, "check_boxes", lambda file, budget: None)
    monkeypatch.setattr(sources, "open", lambda name, mode: Failing(name), raising=False)
    with pytest.raises(VideoReadError, match="Input/output error"):
        read_frames(cut, num_frames=3)


def test_segments_of_one_file_open_it_once(path, warnings) -> None:
    cut = path.read_bytes()[: path.stat().st_size // 2]
    frames = read_frames([VideoSegment(cut, 0, 0.5), VideoSegment(cut, 1, 1.5)], num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == [*range(13), *range(25, 38)]
    assert len({id(record) for record in warnings.records if "cut off or damaged" in record.getMessage()}) == 1
