"""H.264 whose frames are two field pictures (PAFF), as 1080i is broadcast: FFmpeg gives a packet for each field."""

import io

import av
import numpy as np
import pytest
from fila_video.video_reading_fila_video import read_frames
from helpers.field_pictures import make_fields
from helpers.video_files import number_of

PACKETS = ["two times", "one time", "one"]


@pytest.fixture(scope="module", params=[(packets, reordered) for packets in PACKETS for reordered in (False, True)])
def data(request):
    return make_fields(48, *request.param)


def numbers(source, **arguments):
    return [number_of(frame) for frame in read_frames(source, **arguments).frames]


def test_the_fields_are_pictures_of_their_own(data) -> None:
    with av.open(io.BytesIO(data)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 96
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    assert [number_of(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(48))
    assert frames[0].interlaced_frame


def test_every_frame_of_two_fields_is_read(data, warnings) -> None:
    frames = read_frames(data, num_frames=1000)
    shown = [number_of(frame) for frame in frames.frames]
    assert sorted(set(shown)) == list(range(48)) and shown == sorted(shown)
    np.testing.assert_array_equal(np.floor(frames.timestamps * 25 + 1e-6), shown)
    assert warnings.text == ""


def test_a_few_frames_of_two_fields_are_those_of_their_times(data, warnings) -> None:
    for count in (1, 2, 5, 9):
        frames = read_frames(data, num_frames=count)
        assert len(frames.frames) == count
        shown = [number_of(frame) for frame in frames.frames]
        np.testing.assert_array_equal(np.floor(frames.timestamps * 25 + 1e-6), shown)
    assert numbers(data, times=[0.21, 0.49, 0.5, 0.93, 1.01, 1.9]) == [5, 12, 12, 23, 25, 47]
    assert warnings.text == ""


def test_a_keyframe_is_known_by_its_first_field(data) -> None:
    assert numbers(data, num_frames=4, seek_mode="keyframe") == [0, 12, 36]
