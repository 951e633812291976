"""Kinds of files that are easily read wrong: without presentation times, with wild ones, with palettes or previews."""

import io
import re
import struct
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from fila_video.video_reading_fila_video import iter_frames, probe_video, read_frames
from helpers.video_files import make_video, number_of, picture


def numbers(source, **arguments):
    return [number_of(frame) for frame in read_frames(source, **arguments).frames]


def straight_decode(source):
    with av.open(source if isinstance(source, str) else io.BytesIO(source)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def check_all_and_some(source, total) -> None:
    """All frames are read with their times, and any few of them are the same."""
    everything = read_frames(source, num_frames=10**6)
    assert [number_of(frame) for frame in everything.frames] == list(range(total))
    np.testing.assert_allclose(everything.timestamps, np.arange(total) / 25, atol=1e-6)
    for count in (3, 7, total // 2):
        some = read_frames(source, num_frames=count)
        np.testing.assert_allclose(some.timestamps, [number_of(frame) / 25 for frame in some.frames], atol=1e-6)
        np.testing.assert_array_equal(some.frames, everything.frames[some.metadata.frames_indices])
        assert len(some.frames) == count
    assert numbers(source, times=[0.2, 0.21, 1.0]) == [5, 5, 25]
    assert probe_video(source).total_num_frames == total


def encode(codec, total, **settings):
    """Bytes and presentation numbers of the packets of `total` numbered frames, in the order of decoding."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    for name, value in settings.items():
        setattr(encoder, name, value)
    packets = []
    for number in range(total):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += encoder.encode(frame)
    return [(bytes(packet), packet.pts) for packet in packets + encoder.encode(None)]


def mux(chunks, codec, container, tag=None):
    """A file that holds chunks of bytes, one for each 25th of a second; `None` leaves its place empty."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if tag:
            stream.codec_tag = tag
        for slot, chunk in enumerate(chunks):
            if chunk is not None:
                packet = av.Packet(chunk)
                packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), slot, slot
                packet.is_keyframe = slot == 0
                out.mux(packet)
    return file.getvalue()


VOP = b"\x00\x00\x01\xb6"  # MPEG-4's start of a picture
B_FRAMES = {"max_b_frames": 1, "gop_size": 300, "bit_rate": 4_000_000}
B_FRAMES["options"] = {"b_strategy": "0", "sc_threshold": "1000000000", "q": "2"}


def packed_bitstream(total):
    """As DivX and Xvid wrote MPEG-4 into AVI: a P-frame and the B-frame shown before it in one chunk, and then one
    that says that nothing is coded."""
    packets = encode("mpeg4", total, **B_FRAMES)
    kinds = [data[data.index(VOP) + 4] >> 6 for data, _ in packets]  # 0: I, 1: P, 2: B
    at = packets[0][0].index(VOP)
    packets[0] = (packets[0][0][:at] + b"\x00\x00\x01\xb2DivX503b1393p\x00" + packets[0][0][at:], 0)
    chunks = []
    for (data, shown), kind, following in zip(packets, kinds, [*kinds[1:], 0], strict=True):
        if kind == 2:
            continue
        if following != 2:
            chunks.append(data)
            continue
        bits = f"0101{shown % 25:05b}10"
        bits += "0" + "1" * (-(len(bits) + 1) % 8)
        nothing = VOP + bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)) + b"\x7f"
        chunks += [data + packets[[pts for _, pts in packets].index(shown - 1)][0], nothing]
    return mux(chunks, "mpeg4", "avi", "XVID")


def test_a_packed_bitstream_in_avi_is_counted(warnings) -> None:
    data = packed_bitstream(61)
    assert straight_decode(data) == list(range(61))
    check_all_and_some(data, 61)
    assert warnings.text == ""


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "h264"])
def test_b_frames_in_avi_are_counted(warnings, codec) -> None:
    if codec == "h264":
        data = make_video(io.BytesIO(), 61, container="avi").getvalue()
    else:
        data = mux([data for data, _ in encode(codec, 61, **B_FRAMES)], codec, "avi")
    assert straight_decode(data) == list(range(61))
    check_all_and_some(data, 61)
    assert warnings.text == ""


@pytest.mark.parametrize("name", ["v.m4v", "v.m2v", "v.h264", "v.hevc", "v.mjpeg"])
def test_raw_streams_are_counted(tmp_path, name) -> None:
    codec = {"m4v": "mpeg4", "m2v": "mpeg2video", "h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}[name[2:]]
    settings = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    settings |= {"options": {"bf": "2", "qmax": "4"}} if codec in ("mpeg4", "mpeg2video") else {}
    check_all_and_some(make_video(tmp_path / name, 50, codec=codec, **settings), 50)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("container", ["mpeg", "vob"])
def test_frames_that_share_one_packet_of_a_program_stream_are_all_read(warnings, codec, container) -> None:
    check_all_and_some(make_video(io.BytesIO(), 60, codec=codec, container=container).getvalue(), 60)
    assert warnings.text == ""


def test_between_the_times_that_a_program_stream_has_frames_are_spread_evenly() -> None:
    times = [0, *range(2000, 3200, 20), *range(6000, 10_000, 100)]
    data = make_video(io.BytesIO(), len(times), width=320, height=240, container="mpeg", times=times).getvalue()
    frames = read_frames(data, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(len(times)))
    assert (np.diff(frames.timestamps) > 0).all()
    assert np.median(np.abs(frames.timestamps - np.array(times) / 1000)) < 0.3
    assert frames.metadata.duration == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("container", ["mpeg", "vob"])
def test_frames_of_mpeg2_with_times_that_the_program_stream_lacks_are_all_read(container) -> None:
    """In the small packets of an easy picture, FFmpeg gives two frames one time."""
    options = {"bf": "2", "g": "12", "qmin": "2", "qmax": "4"}
    data = make_video(io.BytesIO(), 60, codec="mpeg2video", container=container, options=options).getvalue()
    check_all_and_some(data, 60)


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="no encoder")
def test_a_gray_video_is_mirrored_as_a_player_shows_it(tmp_path) -> None:
    settings = {"codec": "libx265", "pix_fmt": "gray"}
    flat = read_frames(make_video(tmp_path / "flat.mp4", 3, **settings), num_frames=1).frames[0]
    mirrored = read_frames(make_video(tmp_path / "mirrored.mp4", 3, mirror=True, **settings), num_frames=1).frames[0]
    np.testing.assert_array_equal(mirrored, flat[:, ::-1])
    assert not np.array_equal(mirrored, flat)


@pytest.mark.parametrize("container", ["asf", "mxf"])
def test_h264_is_read_in_the_order_in_which_it_is_shown(warnings, container) -> None:
    check_all_and_some(make_video(io.BytesIO(), 60, container=container).getvalue(), 60)
    without_b_frames = {"preset": "ultrafast", "bf": "0", "g": "12"}
    check_all_and_some(make_video(io.BytesIO(), 60, container=container, options=without_b_frames).getvalue(), 60)
    assert warnings.text == ""


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_b_frames_of_mpeg_in_asf_are_read_in_the_order_in_which_they_are_shown(codec) -> None:
    data = make_video(io.BytesIO(), 60, codec=codec, container="asf", options={"bf": "2", "g": "12", "qmax": "4"})
    check_all_and_some(data.getvalue(), 60)


def remuxed(data, container, change):
    """The packets of a video in another file; `change` is told the number of each, and says what becomes of it."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for number, packet in enumerate(packets):
            if change(number, packet) is not None:
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "hevc.mkv", "mpeg2.ts", "vp8.webm", "vp9.webm"])
def test_a_recording_that_begins_between_two_keyframes_begins_with_the_first_picture(name) -> None:
    codec, kind = name.split(".")
    codec = {"h264": "libx264", "hevc": "libx265", "mpeg2": "mpeg2video", "vp8": "libvpx", "vp9": "libvpx-vp9"}[codec]
    container = {"mkv": "matroska", "ts": "mpegts"}.get(kind, kind)
    options = {"libvpx": {"g": "12"}, "mpeg2video": {"bf": "2", "g": "12", "qmax": "4"}}.get(codec)
    whole = make_video(io.BytesIO(), 60, codec=codec, container=container, options=options).getvalue()
    data = remuxed(whole, container, lambda number, packet: packet if number >= 5 else None)
    frames = read_frames(data, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(12, 60))
    np.testing.assert_allclose(frames.timestamps, np.arange(48) / 25, atol=2e-3)
    assert probe_video(data).total_num_frames == 48
    assert numbers(data, num_frames=1) == numbers(data, times=[0]) == [12]


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_of_mpeg4_that_begins_between_two_keyframes_no_frame_is_shown_before_a_hole(container, warnings) -> None:
    options = {"bf": "2", "g": "12", "qmin": "2", "qmax": "4"}
    whole = make_video(io.BytesIO(), 60, codec="mpeg4", container=container, options=options).getvalue()
    data = remuxed(whole, container, lambda number, packet: packet if number >= 13 else None)
    frames = read_frames(data, num_frames=1000)
    np.testing.assert_allclose(np.diff(frames.timestamps), 0.04, atol=2e-3)
    assert [number_of(frame) for frame in frames.frames][-36:] == list(range(24, 60))
    assert warnings.text == ""


def test_of_frames_with_one_time_the_same_one_is_seen_in_every_reading(warnings) -> None:
    def halved(number, packet):
        packet.pts = packet.dts = packet.pts // 2 // 40 * 40
        return packet

    whole = make_video(io.BytesIO(), 60, codec="libvpx", container="webm", options={"g": "12"}).getvalue()
    data = remuxed(whole, "webm", halved)
    frames = read_frames(data, num_frames=1000)
    assert len(frames.frames) == 30 and (np.diff(frames.timestamps) > 0).all()
    for time, frame in zip(frames.timestamps, frames.frames, strict=True):
        np.testing.assert_array_equal(read_frames(data, times=[time]).frames[0], frame)
    assert "shows 30 of its 60 frames at the time of another one" in warnings.text


@pytest.mark.parametrize("late", [0, 39])
def test_a_picture_of_vp8_that_is_never_shown_is_no_frame(warnings, late) -> None:
    whole = make_video(io.BytesIO(), 60, codec="libvpx", container="webm", options={"g": "60"}).getvalue()
    file = io.BytesIO()
    with av.open(io.BytesIO(whole)) as source, av.open(file, "w", format="webm") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.dts is not None):
            data, pts = bytearray(bytes(packet)), packet.pts
            if number in (20, 40):  # as encoders store a picture for reference: at the next one's time or just before
                data[0] &= ~16
                pts += 40 - late
            packet = av.Packet(bytes(data))
            packet.pts = packet.dts = pts
            packet.is_keyframe, packet.time_base, packet.stream = number == 0, Fraction(1, 1000), stream
            out.mux(packet)
    shown = [number for number in range(60) if number not in (20, 40)]
    assert straight_decode(file.getvalue()) == numbers(file.getvalue(), num_frames=1000) == shown
    assert probe_video(file.getvalue()).total_num_frames == 58
    assert warnings.text == ""


@pytest.mark.parametrize("container", ["matroska", "asf"])
def test_times_that_start_late_are_no_sign_of_a_cut(warnings, container) -> None:
    times = 20_000 + np.arange(50) * 40
    codec = "libx264" if container == "matroska" else "wmv2"
    options = None if container == "matroska" else {"qmax": "3"}
    data = make_video(io.BytesIO(), 50, codec=codec, container=container, times=times, options=options).getvalue()
    assert len(read_frames(data, num_frames=100).frames) == 50
    assert warnings.text == ""


def test_a_pause_at_the_end_of_an_avi_of_a_variable_rate_is_no_damage(warnings) -> None:
    times = [*range(0, 400, 40), *range(400, 4400, 400)]
    settings = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
    data = make_video(io.BytesIO(), len(times), container="avi", times=times, **settings).getvalue()
    assert numbers(data, num_frames=100) == list(range(len(times)))
    assert warnings.text == ""


@pytest.mark.parametrize("fps", [1e-3, 1e-5, 1e-7, 1e-12])
def test_at_the_smallest_rate_the_first_frame_is_read(tmp_path, fps) -> None:
    frames = read_frames(make_video(tmp_path / "v.mp4", 30), fps=fps)
    assert [number_of(frame) for frame in frames.frames] == [0] and frames.timestamps.tolist() == [0.0]


def test_an_empty_chunk_in_avi_shows_the_last_picture_again(warnings) -> None:
    packets = [data for data, _ in encode("mpeg4", 20, gop_size=5)]
    slots = [0, 1, 2, 3, 4, *range(6, 60, 4), 60]
    chunks = [None] * 61
    for slot, data in zip(slots, packets, strict=True):
        chunks[slot] = data
    frames = read_frames(mux(chunks, "mpeg4", "avi"), num_frames=100)
    assert [number_of(frame) for frame in frames.frames] == list(range(20))
    np.testing.assert_allclose(frames.timestamps, np.array(slots) / 25)
    assert numbers(mux(chunks, "mpeg4", "avi"), times=[0.16, 0.23, 1.0, 2.3]) == [4, 4, 9, 17]
    assert warnings.text == ""


def test_frames_that_ffmpeg_leaves_out_of_a_gif_are_counted(warnings) -> None:
    file = io.BytesIO()
    pictures = [PIL.Image.fromarray(picture(number)).quantize(64) for number in range(12)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    data = re.sub(rb"\x21\xf9\x04.{5}(?=\x2c)", b"", file.getvalue(), flags=re.DOTALL)  # what says their times
    held = len(read_frames(data, num_frames=100).frames)
    assert held < 12
    assert f"is read in part: FFmpeg gives {held} of its 12 frames" in warnings.text


def test_the_aspect_byte_of_a_gif_is_ignored() -> None:
    file = io.BytesIO()
    pictures = [PIL.Image.fromarray(picture(number)) for number in range(4)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    data = bytearray(file.getvalue())
    data[12] = 1
    assert read_frames(bytes(data), num_frames=4).frames.shape == (4, 48, 64, 3)


def test_a_palette_that_stands_in_the_first_packet_alone_survives_a_seek(tmp_path) -> None:
    path = str(tmp_path / "palette.avi")
    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[:] = np.arange(256)[:, None]
    with av.open(path, "w") as out:
        stream = out.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for number in range(150):
            frame = av.VideoFrame.from_ndarray((picture(number)[..., 0], palette), format="pal8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert straight_decode(path) == list(range(150))
    assert numbers(path, times=[0, 2, 4, 5.5]) == [0, 50, 100, 137]
    assert numbers(path, num_frames=4, seek_mode="keyframe") == [0, 49, 99, 149]


def test_of_two_tracks_the_one_that_moves_is_read(tmp_path) -> None:
    path = tmp_path / "preview.mp4"
    with av.open(str(path), "w") as out:
        preview, film = out.add_stream("mjpeg", rate=25), out.add_stream("libx264", rate=25)
        preview.width, preview.height, preview.pix_fmt = 640, 480, "yuvj420p"
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            if number == 0:
                large = av.VideoFrame.from_ndarray(picture(9, 640, 480), format="rgb24")
                large.pts, large.time_base = 0, Fraction(1, 25)
                out.mux(preview.encode(large))
                out.mux(preview.encode(None))
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
    check_all_and_some(path, 50)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("matroska", "libx264", 30), ("webm", "libvpx-vp9", 24), ("mpegts", "libx264", Fraction(24000, 1001))],
)
def test_at_its_own_rate_every_frame_is_given_however_times_are_rounded(container, codec, rate) -> None:
    data = make_video(io.BytesIO(), 60, codec=codec, container=container, fps=rate).getvalue()
    assert numbers(data, fps=rate) == list(range(60))
    assert numbers(data, fps=rate / 2) == list(range(0, 60, 2))


@pytest.mark.parametrize("container", ["avi", "ivf", "matroska", "mp4"])
def test_where_times_are_not_rounded_the_frame_shown_at_each_is_given(container) -> None:
    codec = "libvpx" if container == "ivf" else "libx264"
    data = make_video(io.BytesIO(), 60, codec=codec, container=container, fps=25).getvalue()
    # At 0.875 s, frame 21 is shown, until 0.88 s.
    assert numbers(data, fps=8) == [int(25 * at / 8) for at in range(20)] == numbers(data, times=np.arange(20) / 8)


def test_where_another_recording_is_a_stream_of_its_own_a_warning_tells_what_is_not_read(warnings) -> None:
    parts = []
    for first, number in ((0, "256"), (40, "512")):
        options = {"output_ts_offset": str(first / 25), "mpegts_start_pid": number}
        file = make_video(io.BytesIO(), 40, codec="mpeg2video", container="mpegts", container_options=options)
        parts.append(file.getvalue())
    assert len(numbers(b"".join(parts), num_frames=99)) == 40
    assert "40 frames from" in warnings.text and "are of another one, and are not read" in warnings.text


def test_a_picture_that_is_shown_for_hours_lasts_as_long(warnings) -> None:
    data = make_video(io.BytesIO(), 2, container="mp4", times=[0, 2 * 3600 * 1000]).getvalue()
    assert probe_video(data).duration > 7000
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture(0), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            packet.duration = round(2 * 3600 / packet.time_base)
            out.mux(packet)
    assert probe_video(file.getvalue()).duration == pytest.approx(7200)
    assert not warnings.text


def wild_ivf(*wild):
    """A file in which the times of the packets in `wild` are damaged: `(packet, time)`."""
    data = bytearray(make_video(io.BytesIO(), 100, codec="libvpx", container="ivf").getvalue())
    position, packet = 32, 0
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        for number, time in wild:
            if packet == number:
                struct.pack_into("<q", data, position + 4, time)
        position, packet = position + 12 + size, packet + 1
    assert packet == 100
    return bytes(data)


@pytest.mark.parametrize(
    ("packet", "time"),  # a few seconds too late at the end may be a pause
    [(packet, time) for packet in (1, 36, 50, 99) for time in (2**40, 10**9, -(2**40))]
    + [(36, 500), (50, 500), (80, 500)],
)
def test_one_wild_time_spoils_neither_the_sampling_nor_the_duration(warnings, packet, time) -> None:
    data = wild_ivf((packet, time))
    frames = read_frames(data, num_frames=1000)
    found = [number_of(frame) for frame in frames.frames]
    assert found == [number for number in range(100) if number != packet]
    np.testing.assert_allclose(frames.timestamps, np.array(found) / 25, atol=1e-6)
    assert frames.metadata.duration == pytest.approx(4, abs=0.1)
    assert "times of 1 of its 100 frames are far from all others" in warnings.text
    some = read_frames(data, num_frames=5)
    np.testing.assert_allclose(some.timestamps, [number_of(frame) / 25 for frame in some.frames], atol=1e-6)
    assert len(some.frames) == 5 and (np.diff(some.timestamps) > 0.5).all()


def test_pauses_are_not_taken_for_damage(tmp_path, warnings) -> None:
    times = [*range(0, 400, 40), *range(7_200_000, 7_200_400, 40), 9_000_000]
    frames = read_frames(make_video(tmp_path / "pauses.mkv", len(times), times=times), num_frames=100)
    np.testing.assert_allclose(frames.timestamps, np.array(times) / 1000, atol=1e-3)
    assert warnings.text == ""


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("later", [33, 100_000])  # a film goes on, or slides follow
def test_the_first_frame_behind_a_pause_is_kept_where_b_frames_come_behind_it(warnings, codec, later) -> None:
    options = {"preset": "medium", "bf": "3", "b_strategy": "0"}
    options = options if codec == "libx264" else {"x265-params": "bframes=3:b-adapt=0:scenecut=0:log-level=none"}
    for before in range(16, 20):  # of one of them, B-frames before the pause come behind the frame after it
        times = [*range(0, 33 * before, 33), *range(100_000, 100_000 + 20 * later, later)]
        data = make_video(io.BytesIO(), len(times), container="matroska", times=times, codec=codec, options=options)
        frames = read_frames(data.getvalue(), num_frames=100)
        assert [number_of(frame) for frame in frames.frames] == list(range(len(times)))
        np.testing.assert_allclose(frames.timestamps, np.array(times) / 1000, atol=1e-3)
    assert warnings.text == ""


def test_frames_of_av1_on_which_no_other_depends_are_read_too(tmp_path) -> None:
    path = make_video(tmp_path / "av1.webm", 100, codec="libsvtav1", options={"preset": "8", "g": "24"})
    for count in (9, 13, 30):
        found, frames = numbers(path, num_frames=count), read_frames(path, num_frames=count)
        assert found == frames.metadata.frames_indices
    assert numbers(path, times=[1.08, 1.3, 2.5, 3.1]) == [27, 32, 62, 77]


def test_auto_takes_the_nearest_keyframe_within_half_the_spacing_and_the_exact_frame_elsewhere(tmp_path) -> None:
    path = make_video(tmp_path / "v.mp4", 50)  # keyframes: 0, 12, 24, 36, 48
    assert numbers(path, num_frames=10) == [0, 5, 10, 16, 21, 27, 32, 38, 43, 49]
    auto = read_frames(path, num_frames=10, seek_mode="auto")
    assert [number_of(frame) for frame in auto.frames] == [0, 5, 12, 16, 21, 27, 32, 36, 43, 49]
    np.testing.assert_allclose(auto.timestamps, [number_of(frame) / 25 for frame in auto.frames], atol=1e-6)
    assert numbers(path, num_frames=5, seek_mode="auto") == [0, 12, 24, 36, 49]
    assert numbers(path, fps=25 / 13, seek_mode="auto") == [0, 12, 24, 39]
    assert numbers(path, times=[0.4, 0.44, 1.0], seek_mode="auto") == [10, 11, 25]
    assert numbers(path, num_frames=1000, seek_mode="auto") == list(range(50))
    given = list(iter_frames(path, num_frames=10, seek_mode="auto"))
    np.testing.assert_array_equal([pixels for _, pixels in given], auto.frames)


def test_auto_is_exact_where_there_is_one_keyframe_only(tmp_path) -> None:
    path = make_video(tmp_path / "v.mp4", 60, options={"preset": "ultrafast", "g": "1000"})
    np.testing.assert_array_equal(
        read_frames(path, num_frames=7, seek_mode="auto").frames, read_frames(path, num_frames=7).frames
    )


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_motion_jpeg_with_exif_is_read_and_turned_upright(orientation) -> None:
    """The decoder hands EXIF on as a kind of data of its own, which PyAV may not know."""
    data = b""
    for number in range(5):
        exif, file = PIL.Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        PIL.Image.fromarray(picture(number)).save(file, "JPEG", exif=exif, quality=95)
        data += file.getvalue()
    frames = read_frames(data, num_frames=5).frames
    turned = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    assert frames.shape[1:3] == ((64, 48) if turned % 2 else (48, 64))
    assert [number_of(np.rot90(frame, -turned)) for frame in frames] == list(range(5))
