"""LongVideo: joined video files have every frame of their sub-videos, at its time, and the right length."""

import hashlib
import os

import av
import numpy as np
import pytest
from fila_video.long_video.build import build_dataset
from fila_video.long_video.durations import probe_file
from fila_video.long_video.files import write_video
from fila_video.long_video.records import record_source
from fila_video.long_video.statistics import read_records
from fila_video.video_reading_fila_video import VideoReadError, VideoSegment, read_frames
from helpers.long_video_set import bytes_of, frame_number, make_clip, make_set, settings
from helpers.video_files import number_of, straight_decode

CLIPS = {
    "plain": {},
    "more": {},
    "slow": {"fps": 4},
    "large": {"width": 96, "height": 80},
    "odd": {"codec": "libvpx-vp9", "container": "webm", "width": 65, "height": 49},
    "turned": {"rotation": 90},
    "mpeg4": {"codec": "mpeg4", "container": "avi"},
    "uneven": {"times": [0, 100, 250, 300, 700, 720, 1000, 1100, 1110, 1500, 1600, 1700]},
}
FRAMES = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    paths = {}
    for video, (name, arguments) in enumerate(CLIPS.items()):
        paths[name] = str(folder / f"{name}.{arguments.get('container', 'mp4')}".replace("webm", "webm"))
        make_clip(paths[name], video, FRAMES, **arguments)
    return paths


def segments_of(clips, names):
    return [VideoSegment(clips[name], 0.0, probe_file(clips[name])) for name in names]


def test_files_that_agree_are_copied_packet_by_packet(clips, tmp_path) -> None:
    segments = segments_of(clips, ["more", "plain", "more"])
    assert write_video(segments, tmp_path / "joined.mp4") == "copied"
    joined = read_frames(str(tmp_path / "joined.mp4"), num_frames=1000)
    parts = [read_frames(segment.source, num_frames=1000) for segment in segments]
    assert np.array_equal(joined.frames, np.concatenate([part.frames for part in parts]))
    assert joined.timestamps == pytest.approx(np.arange(36) / 10, abs=1e-9)


@pytest.mark.parametrize(
    "names",
    [
        ["plain", "slow", "more"],
        ["large", "plain"],
        ["plain", "odd", "mpeg4"],
        ["odd", "uneven", "plain"],
        ["turned", "plain"],
        ["turned"],
        ["plain", "uneven"],
    ],
)
def test_files_that_differ_are_encoded_with_every_frame_at_its_time(clips, tmp_path, names) -> None:
    segments = segments_of(clips, names)
    assert write_video(segments, tmp_path / "joined.mp4") == "encoded"
    virtual = read_frames(segments, num_frames=1000)
    joined = read_frames(str(tmp_path / "joined.mp4"), num_frames=1000)
    assert len(joined.frames) == FRAMES * len(names)
    assert joined.timestamps == pytest.approx(virtual.timestamps, abs=2e-5)
    if "turned" not in names:  # upright, the number of a turned picture lies elsewhere
        expected = [frame_number(list(CLIPS).index(name), frame) for name in names for frame in range(FRAMES)]
        assert [number_of(frame) for frame in joined.frames] == expected
    size = tuple(side + side % 2 for side in virtual.frames.shape[1:3])
    assert joined.frames.shape[1:3] == size
    shown = read_frames(segments, num_frames=1000, size=size).frames
    assert np.abs(joined.frames.astype(int) - shown).mean() < 8


@pytest.mark.parametrize("names", [["plain", "more"], ["plain", "slow"], ["slow", "plain"], ["plain", "uneven"]])
def test_players_see_h264_with_the_right_total_duration(clips, tmp_path, names) -> None:
    segments = segments_of(clips, names)
    write_video(segments, tmp_path / "joined.mp4")
    total = sum(segment.end for segment in segments)
    with av.open(str(tmp_path / "joined.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration / av.time_base == pytest.approx(total, abs=0.005)
        assert float(stream.duration * stream.time_base) == pytest.approx(total, abs=0.005)
        assert stream.frames == 2 * FRAMES
    times = [seconds for seconds, _ in straight_decode(tmp_path / "joined.mp4")]
    assert times == pytest.approx(read_frames(segments, num_frames=1000).timestamps, abs=2e-5)
    data = (tmp_path / "joined.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_colors_of_encoded_files_are_those_of_the_sub_videos(clips, tmp_path) -> None:
    def red(frame, width, height):
        return np.full((height, width, 3), (200, 60, 30), dtype=np.uint8)

    from helpers.video_files import make_video

    for name, fps in (("a", 10), ("b", 5)):
        make_video(tmp_path / f"{name}.mp4", 6, fps=fps, draw=red)
    segments = [VideoSegment(str(tmp_path / f"{name}.mp4"), 0.0, end) for name, end in (("a", 0.6), ("b", 1.2))]
    assert write_video(segments, tmp_path / "joined.mp4") == "encoded"
    frames = read_frames(str(tmp_path / "joined.mp4"), num_frames=1000).frames
    assert np.abs(frames.astype(int) - [200, 60, 30]).max() <= 4


@pytest.mark.parametrize("names", [["plain", "more"], ["plain", "odd"]])
def test_the_same_files_give_the_same_bytes(clips, tmp_path, names) -> None:
    digests = set()
    for number in range(2):
        write_video(segments_of(clips, names), tmp_path / f"{number}.mp4")
        digests.add(hashlib.sha256((tmp_path / f"{number}.mp4").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_relative_path_with_a_colon_is_no_protocol(clips, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for names, how in ((["more", "plain"], "copied"), (["slow", "plain"], "encoded")):
        assert write_video(segments_of(clips, names), f"a:{how}.mp4") == how
        assert probe_file(tmp_path / f"a:{how}.mp4") > 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_film_is_written_where_a_link_leads_with_the_permissions_of_the_one_before(clips, tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "joined.mp4", tmp_path / "disk" / "film.mp4"
    file.write_bytes(b"before")
    file.chmod(0o640)
    link.symlink_to(file)
    write_video(segments_of(clips, ["plain"]), link)
    assert link.is_symlink() and file.stat().st_size > 6 and file.stat().st_mode & 0o777 == 0o640


def test_a_sub_video_that_is_gone_leaves_nothing_half_written(clips, tmp_path) -> None:
    segments = [*segments_of(clips, ["plain", "slow"]), VideoSegment(str(tmp_path / "gone.mp4"), 0.0, 2.0)]
    with pytest.raises(VideoReadError, match=r"gone\.mp4"):
        write_video(segments, tmp_path / "joined.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_materialized_build_shows_what_its_records_list(tmp_path) -> None:
    folder = make_set(tmp_path / "set", 6)
    make_clip(folder / "videos" / "clips" / "03.mp4", 3, 24, fps=5)
    changes = {"count": 4, "max_duration": 14.0, "materialize": True}
    build_dataset(settings(folder, tmp_path / "out", **changes))
    build_dataset(settings(folder, tmp_path / "again", workers=2, **changes))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "again")
    for record in read_records(tmp_path / "out"):
        joined = read_frames(record_source(record, folder / "videos", tmp_path / "out"), num_frames=1000)
        listed = read_frames(record_source(record, folder / "videos"), num_frames=1000)
        assert [number_of(frame) for frame in joined.frames] == [number_of(frame) for frame in listed.frames]
        assert joined.timestamps == pytest.approx(listed.timestamps, abs=2e-5)
        assert joined.metadata.duration == pytest.approx(record["duration"], abs=1e-4)
