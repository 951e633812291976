"""Files that say of their frames what is not so, or once what holds from there on: all that a straight decode gives
is read, in its order, and what is lost is named."""

import io
import re
import struct
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from fila_video.video_decoding_fila_video import Track
from fila_video.video_reading_fila_video import VideoSegment, probe_video, read_frames
from helpers.video_files import DEFAULT_OPTIONS, make_video, number_of, picture

B_FRAMES = {
    "libx264": {"preset": "ultrafast", "bf": "3", "b_strategy": "0", "g": "12"},
    "libx265": {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:b-adapt=0:log-level=none"},
    "mpeg4": {"bf": "2", "g": "12", "qmin": "2", "qmax": "4"},
    "mpeg2video": {"bf": "2", "g": "12", "qmin": "2", "qmax": "4"},
}


def video(total=60, container="mp4", codec="libx264", first=0, **settings):
    settings.setdefault("options", B_FRAMES.get(codec, {}))
    draw = settings.pop("draw", lambda number, width, height: picture(number + first, width, height))
    return make_video(io.BytesIO(), total, container=container, codec=codec, draw=draw, **settings).getvalue()


def check_as_decoded_straight(data, times=None) -> None:
    """All frames and any few of them are, bit for bit, those of a straight decode with the same conversion."""
    with av.open(io.BytesIO(data)) as container:
        expected = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    everything = read_frames(data, num_frames=10**6)
    assert [number_of(frame) for frame in everything.frames] == expected
    times = np.arange(len(expected)) / 25 if times is None else times
    np.testing.assert_allclose(everything.timestamps, times, atol=2e-3)
    assert probe_video(data).total_num_frames == len(expected)
    for count in (2, 3, 7, len(expected) // 2):
        some = read_frames(data, num_frames=count)
        np.testing.assert_array_equal(some.frames, everything.frames[some.metadata.frames_indices])
        assert len(some.frames) == count
    for number in range(0, len(expected), 7):
        alone = read_frames(data, times=[everything.timestamps[number]])
        np.testing.assert_array_equal(alone.frames[0], everything.frames[number])


def remuxed(data, container, change):
    """The packets of a video in another file, each as `change(number, packet)` leaves it."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.dts is not None):
            change(number, packet)
            packet.stream = stream
            out.mux(packet)
    return file.getvalue()


def box_of(name, *parts):
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), name) + data


def tags_of(flv):
    """`[time in milliseconds, bytes]` of the tags of an FLV with pictures."""
    position, tags = 13, []
    while position + 11 <= len(flv):
        end = position + 15 + int.from_bytes(flv[position + 1 : position + 4], "big")
        if flv[position] == 9:
            tags.append([int.from_bytes(flv[position + 4 : position + 7], "big"), bytearray(flv[position:end])])
        position = end
    return tags


def behind_in_flv(first, second, milliseconds):
    """The pictures of one FLV behind those of another, with the header of their decoder."""
    data = first
    for time, tag in tags_of(second):
        tag[4:7] = (time + milliseconds).to_bytes(3, "big")
        data += bytes(tag)
    return data


# A picture that one decodes with the other's parameters is not that of a straight decode.
OTHER = {"preset": "ultrafast", "bf": "2", "g": "12", "x264-params": "cabac=0:ref=1:8x8dct=1:cqm=jvt"}


@pytest.mark.parametrize("size", [(64, 48), (128, 96)])
def test_a_decoder_configuration_that_changes_in_an_flv_holds_behind_a_seek(size) -> None:
    width, height = size
    first = video(120, "flv", options={**DEFAULT_OPTIONS["libx264"], "bf": "0"})
    second = video(120, "flv", first=120, options={**OTHER, "bf": "0"}, width=width, height=height)
    check_as_decoded_straight(behind_in_flv(first, second, 4800))


def test_each_of_several_configurations_holds_for_its_own_part(monkeypatch) -> None:
    first = video(120, "flv", options={**DEFAULT_OPTIONS["libx264"], "bf": "0"})
    second = video(120, "flv", first=120, options={**OTHER, "bf": "0"})
    third = video(120, "flv", first=240, options={**DEFAULT_OPTIONS["libx264"], "bf": "0"})
    data = behind_in_flv(behind_in_flv(first, second, 4800), third, 9600)
    check_as_decoded_straight(data)
    frames = read_frames([VideoSegment(data, 5, 9), VideoSegment(data, 0, 2), VideoSegment(data, 10, 14)], fps=2)
    expected = [*np.arange(5, 9, 0.5), *np.arange(0, 2, 0.5), *np.arange(10, 14, 0.5)]
    assert [number_of(frame) for frame in frames.frames] == [int(time * 25 + 0.01) for time in expected]


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("codec", B_FRAMES)
def test_b_frames_without_times_of_their_own_are_shown_in_their_order(codec, container, warnings) -> None:
    def without_composition(number, packet):
        packet.pts = packet.dts = number * round(Fraction(1, 25) / packet.time_base)

    check_as_decoded_straight(remuxed(video(codec=codec), container, without_composition))
    assert warnings.text == ""


def test_b_frames_in_an_flv_without_composition_times_are_shown_in_their_order() -> None:
    data = bytearray(video(container="flv"))
    for _, tag in tags_of(bytes(data)):
        if tag[12] == 1:
            at = data.index(tag)
            data[at + 13 : at + 16] = bytes(3)
    check_as_decoded_straight(bytes(data))


def test_b_frames_of_mpeg4_in_asf_are_shown_in_their_order() -> None:
    check_as_decoded_straight(video(codec="mpeg4", container="asf"))


def test_b_frames_of_mpeg4_in_asf_keep_the_times_of_a_variable_rate() -> None:
    times = np.cumsum([40, 20, 200, 40, 80] * 12)
    frames = read_frames(video(60, "asf", "mpeg4", times=times.tolist()), num_frames=1000)
    found = [number_of(frame) for frame in frames.frames]
    assert found[:58] == list(range(58))  # the file has no time for the last one
    np.testing.assert_allclose(frames.timestamps[:58], (times[:58] - times[0]) / 1000, atol=2e-3)


@pytest.mark.parametrize(
    "name", ["dvvideo.avi", "mpeg1video.mpegts", "mpeg2video.mpegts", "mpeg2video.mp4", "intra.mxf"]
)
def test_a_video_that_is_not_reordered_is_not_decoded_for_its_times(name, monkeypatch) -> None:
    from fila_video.video_decoding_fila_video import Track

    codec, container = name.split(".")
    settings = {"width": 720, "height": 576} if codec == "dvvideo" else {"options": {"bf": "0", "g": "12"}}
    if codec == "intra":
        codec, settings = "mpeg2video", {"pix_fmt": "yuv422p", "options": {"bf": "0", "g": "1"}}
    data, decode, decoded = video(40, container, codec, **settings), Track.decode, []
    monkeypatch.setattr(
        Track, "decode", lambda track, codec, packet: decoded.append(packet) or decode(track, codec, packet)
    )
    assert probe_video(data).total_num_frames == 40
    assert len(decoded) < 10


def test_a_video_without_b_frames_is_not_decoded_for_its_order(monkeypatch) -> None:
    from fila_video.video_decoding_fila_video import Track

    decode, decoded = Track.decode, []
    monkeypatch.setattr(
        Track, "decode", lambda track, codec, packet: decoded.append(packet) or decode(track, codec, packet)
    )
    for options in ({"preset": "ultrafast", "bf": "0", "g": "12"}, B_FRAMES["libx264"]):
        probe_video(video(120, options=options))
        assert len(decoded) < 8
        decoded.clear()


@pytest.mark.parametrize("codec", ["libx265", "mpeg4", "mpeg2video"])
@pytest.mark.parametrize("b_frames", [True, False])
def test_a_file_that_calls_every_sample_a_keyframe_is_decoded_from_its_start(codec, b_frames, warnings) -> None:
    options = B_FRAMES[codec] | ({} if b_frames or codec == "libx265" else {"bf": "0"})
    if codec == "libx265" and not b_frames:
        options = {"preset": "ultrafast", "x265-params": "keyint=12:bframes=0:log-level=none"}
    data = video(codec=codec, options=options).replace(b"stss", b"free")
    with av.open(io.BytesIO(data)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    check_as_decoded_straight(data)
    assert warnings.text == ""


def test_some_b_frames_that_are_called_keyframes_are_no_new_clocks(warnings) -> None:
    def called_keyframe(number, packet):
        packet.is_keyframe |= number % 12 in (5, 6, 7)

    data = remuxed(video(120, codec="libx265"), "mp4", called_keyframe)
    check_as_decoded_straight(data)
    assert warnings.text == ""


def block_moved(data, number, milliseconds):
    """A Matroska file in which the time of one packet is another."""
    with av.open(io.BytesIO(data)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    moved, at = bytearray(data), 0
    for packet in packets[: number + 1]:
        start = data.index(packet, at)
        at = start + len(packet)
    time = int.from_bytes(moved[start - 3 : start - 1], "big", signed=True) + milliseconds
    moved[start - 3 : start - 1] = time.to_bytes(2, "big", signed=True)
    return bytes(moved)


@pytest.mark.parametrize("late", [500, 2000, 20_000])
@pytest.mark.parametrize("options", [{"bf": "0", "g": "250"}, {"bf": "0", "g": "12"}, {"bf": "3", "b_strategy": "0"}])
def test_a_first_time_that_is_too_late_costs_one_frame_and_is_named(late, options, warnings) -> None:
    options = {"preset": "ultrafast", "sc_threshold": "0", **options}
    data = block_moved(video(100, "matroska", options=options), 0, late)
    frames = read_frames(data, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(1, 100))
    np.testing.assert_allclose(frames.timestamps, np.arange(99) / 25, atol=2e-3)
    assert "the times of 1 of its 100 frames are far from all others" in warnings.text


def test_a_last_time_behind_the_end_that_the_header_names_costs_one_frame_and_is_named(warnings) -> None:
    options = {"preset": "ultrafast", "bf": "0", "g": "12"}
    frames = read_frames(block_moved(video(100, "matroska", options=options), 99, 25_000), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(99))
    assert frames.metadata.duration == pytest.approx(3.96, abs=0.01)
    assert "the times of 1 of its 100 frames are far from all others" in warnings.text


@pytest.mark.parametrize("name", ["libx264.mp4", "libx264.mov", "libx265.mp4", "mpeg4.mp4", "libx264.matroska"])
def test_a_pause_before_the_last_frame_is_no_damage_where_frames_are_reordered(name, warnings) -> None:
    codec, container = name.split(".")
    times = [*range(0, 2000, 40), 5000]
    frames = read_frames(video(51, container, codec, times=times), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(51))
    np.testing.assert_allclose(frames.timestamps, np.array(times) / 1000, atol=2e-3)
    assert frames.metadata.duration >= 5 and warnings.text == ""


def test_a_header_without_a_duration_names_no_end(warnings) -> None:
    times = [*range(0, 400, 40), 5000]
    data = video(11, "matroska", "libvpx", times=times, options={}, container_options={"live": "1"})
    with av.open(io.BytesIO(data)) as container:
        assert not container.duration
    np.testing.assert_allclose(read_frames(data, num_frames=99).timestamps, np.array(times) / 1000, atol=2e-3)
    assert warnings.text == ""


@pytest.mark.parametrize("times", [range(0, 27 * 40, 40), [*range(0, 280, 40), 1500]])
def test_the_number_of_frames_in_the_header_of_an_ivf_is_no_end_of_its_times(times, warnings) -> None:
    frames = read_frames(video(len(times), "ivf", "libvpx", times=times, options={}), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(len(times)))
    np.testing.assert_allclose(frames.timestamps, np.array(times) / 1000, atol=2e-3)
    assert warnings.text == ""


def without_times(data, is_kept):
    """A transport stream in which only the pictures that `is_kept` have a time."""
    data, number = bytearray(data), 0
    for at in range(0, len(data), 188):
        start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if data[at + 1] & 0x40 and data[start : start + 3] == b"\0\0\1" and data[start + 3] & 0xF0 == 0xE0:
            if not is_kept(number):
                length = data[start + 8]
                data[start + 7] &= 0x3F
                data[start + 9 : start + 9 + length] = b"\xff" * length
            number += 1
    return bytes(data)


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("every", [2, 3, 12])
def test_interlaced_frames_of_which_some_have_no_time_are_all_read(every, b_frames) -> None:
    options = {"preset": "ultrafast", "bf": str(b_frames), "b_strategy": "0", "g": "12", "x264-params": "tff=1"}
    data = video(container="mpegts", options=options)
    check_as_decoded_straight(without_times(data, lambda number: number % every == 0))


def with_times(times, codec="mjpeg", container="matroska"):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = video(len(times), container, codec, pix_fmt=pix_fmt, options={} if codec == "mjpeg" else {"g": "1"})

    def change(number, packet):
        packet.pts = packet.dts = times[number]

    return remuxed(whole, container, change)


@pytest.mark.parametrize("codec", ["mjpeg", "ffv1", "libx264"])
def test_equal_times_of_keyframes_do_not_shift_those_behind_them(codec, warnings) -> None:
    times = [40 * (number - number // 10) for number in range(60)]
    frames = read_frames(with_times(times, codec), num_frames=1000)
    np.testing.assert_allclose(frames.timestamps, np.unique(times) / 1000, atol=2e-3)
    assert {times[number_of(frame)] for frame in frames.frames} == set(times)
    assert "shows 5 of its 60 frames at the time of another one" in warnings.text


def test_a_keyframe_slightly_before_the_last_one_is_no_new_clock() -> None:
    data = video(100, "matroska", "mjpeg", pix_fmt="yuvj420p", options={})
    for number in (48, 52, 56):
        data = block_moved(data, number, -60)
    frames = read_frames(data, num_frames=1000)
    assert len(frames.frames) == 100
    moved = {number: number / 25 - 0.06 * (number in (48, 52, 56)) for number in range(100)}
    np.testing.assert_allclose(frames.timestamps, [moved[number_of(frame)] for frame in frames.frames], atol=2e-3)


def with_moved_time(data, number, seconds):
    """A transport stream of which the packet `number` is `seconds` later than it was, or earlier, all others as they
    were."""
    headers = list(re.finditer(rb"\0\0\x01\xe0..[\x80-\x8f][\x80-\xff].", data, re.DOTALL))
    at = headers[number].end()
    first, *rest = data[at : at + 5]
    time = (first >> 1 & 7) << 30 | rest[0] << 22 | rest[1] >> 1 << 15 | rest[2] << 7 | rest[3] >> 1
    time += round(seconds * 90_000)
    moved = (
        first & 0xF1 | time >> 29 & 14,
        time >> 22 & 255,
        time >> 14 & 254 | 1,
        time >> 7 & 255,
        time << 1 & 254 | 1,
    )
    return data[:at] + bytes(moved) + data[at + 5 :]


KEYFRAMES = {"g": "10", "x264-params": "scenecut=0:open-gop=0"}


@pytest.mark.parametrize(("number", "seconds"), [(30, -1), (50, -1), (50, -0.5), (80, -1.8), (80, -0.5)])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "0"}),
        ("libx264", {"bf": "2", "b_strategy": "0"}),
        ("libx264", {"bf": "0", "g": "1"}),
        ("mpeg2video", {"bf": "0"}),
        ("mpeg4", {"bf": "0"}),
    ],
)
def test_one_keyframe_with_a_time_too_early_moves_no_frame(codec, options, number, seconds, warnings) -> None:
    whole = video(100, "mpegts", codec, options=KEYFRAMES | options)
    data = with_moved_time(whole, number, seconds)
    assert data != whole
    frames = read_frames(data, num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(100))
    np.testing.assert_allclose(frames.timestamps, np.arange(100) / 25, atol=2e-3)
    some = read_frames(data, times=[1.2, 2.0, 2.04, 3.2])
    assert [number_of(frame) for frame in some.frames] == [30, 50, 51, 80]
    if options.get("g") != "1":
        keyframes = read_frames(data, times=np.arange(0, 4, 0.4).tolist(), seek_mode="keyframe")
        assert [number_of(frame) for frame in keyframes.frames] == list(range(0, 100, 10))
    assert "the times of 1 of its 100 frames go back; they are put between their neighbors" in warnings.text


def test_one_keyframe_too_early_moves_no_frame_of_a_variable_rate() -> None:
    times = np.cumsum([0, *[40, 40, 80, 40, 120] * 20])[:100]
    data = video(100, "mpegts", times=times.tolist(), options=KEYFRAMES | {"bf": "0"})
    frames = read_frames(with_moved_time(data, 30, -1.5), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(100))
    others = np.arange(100) != 30
    np.testing.assert_allclose(frames.timestamps[others], times[others] / 1000, atol=2e-3)
    assert times[29] < 1000 * frames.timestamps[30] < times[31]


def test_one_keyframe_too_early_before_many_b_frames_moves_no_frame() -> None:
    options = {"g": "20", "bf": "16", "b_strategy": "0", "x264-params": "scenecut=0:b-pyramid=none:open-gop=0"}
    data = video(100, "mpegts", options=options)
    frames = read_frames(with_moved_time(data, 60, -1), num_frames=1000)
    assert [number_of(frame) for frame in frames.frames] == list(range(100))
    np.testing.assert_allclose(frames.timestamps, np.arange(100) / 25, atol=2e-3)


def test_no_seek_leads_to_a_keyframe_with_a_wrong_time(monkeypatch) -> None:
    data, sought = video(400, "mpegts", options=KEYFRAMES | {"bf": "0"}), []
    seek = Track._seek
    monkeypatch.setattr(Track, "_seek", lambda track, target: sought.append(target) or seek(track, target))
    frames = read_frames(with_moved_time(data, 300, -2), times=[12.2])
    assert [number_of(frame) for frame in frames.frames] == [305]
    assert sought == [290]


@pytest.mark.parametrize("keyframes", ["1", "4"])
def test_one_keyframe_with_a_time_too_late_is_no_end_of_a_recording(keyframes, warnings) -> None:
    options = {"bf": "0", "g": keyframes, "x264-params": "scenecut=0"}
    frames = read_frames(with_moved_time(video(100, "mpegts", options=options), 32, 0.2), num_frames=1000)
    numbers = [number_of(frame) for frame in frames.frames]
    assert sorted({*numbers, 32, 37}) == list(range(100))
    expected = [number / 25 + 0.2 * (number == 32) for number in numbers]
    np.testing.assert_allclose(frames.timestamps, expected, atol=2e-3)
    assert "shows 1 of its 100 frames at the time of another one" in warnings.text


@pytest.mark.parametrize("kind", ["matroska", "interlaced matroska", "webm"])
def test_matroska_files_that_were_joined_are_all_read(kind, warnings) -> None:
    container = kind.split()[-1]
    codec = "libx264" if container == "matroska" else "libvpx"
    options = B_FRAMES["libx264"] if container == "matroska" else {"g": "12"}
    options = options | ({"x264-params": "tff=1"} if kind.startswith("interlaced") else {})
    parts = [video(30, container, codec, first, options=options) for first in (0, 30, 60)]
    check_as_decoded_straight(b"".join(parts))
    assert warnings.text == ""


def combs(number, width, height):
    image = np.full((height, width, 3), 30, dtype=np.uint8)
    image[::2, 10:30] = image[1::2, 20:40] = 200
    return image


@pytest.mark.parametrize("primaries", [1, 9])
@pytest.mark.parametrize("transfer", [1, 16, 18])
def test_interlaced_lines_are_blended_in_hdr_too(primaries, transfer) -> None:
    color = {1: "bt709", 9: "bt2020"}[primaries]
    light = {1: "bt709", 16: "smpte2084", 18: "arib-std-b67"}[transfer]
    options = {"preset": "ultrafast", "qp": "0", "x264-params": f"tff=1:colorprim={color}:transfer={light}"}
    data = video(3, options=options, draw=combs, height=64)
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        assert frame.interlaced_frame and (int(frame.color_trc), int(frame.color_primaries)) == (transfer, primaries)
    rows = read_frames(data, num_frames=1).frames[0, 20:40, 15].astype(int)
    assert np.abs(np.diff(rows, axis=0)).max() <= 2


@pytest.mark.parametrize(("duration", "shown"), [(0, 0.1), (1, 0.1), (10, 0.1), (11, 0.011), (40, 0.04)])
def test_the_shortest_pictures_of_an_animation_are_shown_as_long_as_in_browsers(duration, shown) -> None:
    file, pictures = io.BytesIO(), [PIL.Image.fromarray(picture(number)) for number in range(20)]
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], duration=duration, lossless=True)
    assert probe_video(file.getvalue()).duration == pytest.approx(20 * shown)


@pytest.mark.parametrize("fps", [10**400, 1e308, 2e9])
def test_a_rate_beyond_every_clock_is_an_error(fps) -> None:
    with pytest.raises(ValueError, match=r"fps must be a positive number, got .*; the most is 1e\+09"):
        read_frames(video(5), fps=fps)
    assert len(read_frames(video(5), fps=1e9).frames) == 5


def test_segments_between_times_of_any_kind_are_floats() -> None:
    data = video(60)
    times = [(np.float32(0.5), np.float32(1.5)), (Fraction(1, 2), Fraction(3, 2)), (np.float16(0.5), 1.5), (0.5, 1.5)]
    for start, end in times:
        frames = read_frames(VideoSegment(data, start, end), num_frames=5)
        assert type(frames.metadata.duration) is float and frames.metadata.duration == 1.0
        np.testing.assert_array_equal(
            frames.timestamps, read_frames(VideoSegment(data, 0.5, 1.5), num_frames=5).timestamps
        )
