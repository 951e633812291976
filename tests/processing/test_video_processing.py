"""The pool of candidate frames: how many, which, at what times, and their pixels."""

import numpy as np
import PIL.Image
import pytest
import torch
from fila_video import video_reading_fila_video
from fila_video.frame_selector_fila_video import SceneSettings
from fila_video.video_pool_fila_video import SpreadPool
from fila_video.video_processing_fila_video import FilaVideoVideoProcessor, stack_videos
from fila_video.video_reading_fila_video import (
    TimedVideoMetadata,
    VideoFrames,
    VideoReadError,
    VideoSegment,
    read_frames,
)
from helpers.hostile_servers import HostileServer, head
from helpers.tiny_processor import SIZE, clip, tiny_video_processor
from helpers.video_files import UNEVEN_TIMES, make_video, number_of
from transformers.video_utils import VideoMetadata


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "two_minutes.mp4", 240, fps=2, width=32, height=32)
    make_video(folder / "short.mp4", 7, fps=7)
    make_video(folder / "variable.mkv", len(UNEVEN_TIMES), times=UNEVEN_TIMES)
    return folder


def pool(path, **settings):
    frames, metadata = FilaVideoVideoProcessor(size={"height": 32, "width": 32}).load_video(path, **settings)
    assert frames.dtype == torch.uint8 and frames.shape[1:] == (3, 32, 32)
    assert len(frames) == len(metadata.frames_indices) == len(metadata.timestamps)
    return frames, metadata


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 120),  # 120 seconds at one candidate a second
        ({"candidate_fps": 0.5}, 96),  # never under `min_candidates`
        ({"candidate_fps": 0.5, "min_candidates": 10}, 96),  # nor under 32 scenes of 3
        ({"candidate_fps": 0.5, "min_candidates": 10, "num_scenes": 4}, 60),
        ({"candidate_fps": 0.05, "min_candidates": 10, "num_scenes": 4}, 12),
        ({"candidate_fps": 0.05, "min_candidates": 14, "num_scenes": 4}, 14),
        ({"candidate_fps": 1.5}, 180),
        ({"candidate_fps": 5}, 240),  # never more than the file has
        ({"candidate_fps": 5, "max_candidates": 200}, 200),
        ({"max_candidates": 100}, 100),
        ({"max_candidates": 40}, 40),  # the limit comes last
        ({"scene_size": 4}, 128),
        ({"num_frames": 17}, 17),
        ({"num_frames": 1000}, 240),
        ({"fps": 0.25}, 30),
    ],
)
def test_the_pool_has_as_many_frames_as_the_rule_says(folder, settings, expected) -> None:
    frames, _ = pool(folder / "two_minutes.mp4", **settings)
    assert len(frames) == expected


@pytest.mark.parametrize("num_candidates", [120, 97, 12])
def test_the_pool_runs_evenly_from_the_first_frame_to_the_last(folder, num_candidates) -> None:
    settings = {"max_candidates": num_candidates, "candidate_fps": num_candidates / 120, "min_candidates": 1}
    settings["seek_mode"] = "exact"
    frames, metadata = pool(folder / "two_minutes.mp4", **settings)
    numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert numbers == list(metadata.frames_indices)
    assert numbers[0] == 0 and numbers[-1] == 239
    assert np.ptp(np.diff(numbers)) <= 1
    assert metadata.timestamps == pytest.approx([number / 2 for number in numbers])


def test_by_default_candidates_are_keyframes_where_they_are_near_and_the_first_and_last_frame_stay(folder) -> None:
    """A keyframe every 12 frames of 0.5 s; candidates 2.5 s apart."""
    settings = {"max_candidates": 49, "candidate_fps": 49 / 120, "min_candidates": 1, "num_scenes": 4}
    frames, metadata = pool(folder / "two_minutes.mp4", **settings)
    _, exact = pool(folder / "two_minutes.mp4", **settings, seek_mode="exact")
    numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert numbers == metadata.frames_indices and len(numbers) == len(exact.frames_indices) == 49
    assert numbers[0] == exact.frames_indices[0] == 0 and numbers[-1] == exact.frames_indices[-1] == 239
    assert numbers != exact.frames_indices
    assert [number for number in numbers[1:-1] if number % 12 == 0] == list(range(12, 239, 12))
    for number, wanted in zip(numbers, exact.frames_indices, strict=True):
        assert number == wanted or (number % 12 == 0 and abs(number - wanted) < 2.5)
    assert metadata.timestamps == pytest.approx([number / 2 for number in numbers])


def test_a_short_file_is_its_own_pool(folder) -> None:
    frames, metadata = pool(folder / "short.mp4")
    assert len(frames) == 7 and metadata.duration == pytest.approx(1.0)


def test_times_of_a_variable_rate_are_true(folder) -> None:
    for settings in ({}, {"num_frames": 5}, {"fps": 1.0}):
        _, metadata = pool(folder / "variable.mkv", **settings)
        true = [UNEVEN_TIMES[index] / 1000 for index in metadata.frames_indices]
        assert metadata.timestamps == pytest.approx(true, abs=1e-3)


def test_segments_and_frames_that_were_read_are_taken(folder) -> None:
    _, metadata = pool(VideoSegment(folder / "two_minutes.mp4", start=10, end=20))
    assert metadata.duration == pytest.approx(10) and len(metadata.frames_indices) == 20
    _, metadata = pool([VideoSegment(folder / "two_minutes.mp4", end=5), VideoSegment(folder / "short.mp4")])
    assert metadata.duration == pytest.approx(6)
    read = read_frames(folder / "two_minutes.mp4", num_frames=9, size=(32, 32))
    frames, metadata = pool(read)
    assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), read.frames)
    assert metadata.timestamps == pytest.approx(read.timestamps.tolist())


def test_files_are_read_at_the_size_of_the_settings(folder) -> None:
    processor = tiny_video_processor()
    assert processor.load_video(folder / "short.mp4")[0].shape[-2:] == (20, 20)
    assert processor.load_video(folder / "short.mp4", size={"height": 8, "width": 12})[0].shape[-2:] == (8, 12)
    assert processor.load_video(folder / "short.mp4", size=10)[0].shape[-2:] == (10, 10)
    assert processor.load_video(folder / "short.mp4", do_resize=False)[0].shape[-2:] == (48, 64)
    edge = tiny_video_processor(size={"shortest_edge": 24})
    assert edge.load_video(folder / "short.mp4")[0].shape[-2:] == (48, 64)
    assert edge(folder / "short.mp4", return_tensors="pt")["pixel_values_videos"].shape[-2:] == (24, 32)


def test_pixels_of_a_file_are_the_readers_normalized(folder) -> None:
    processor = tiny_video_processor()
    pixels = processor(folder / "short.mp4", return_tensors="pt")["pixel_values_videos"]
    frames = read_frames(folder / "short.mp4", num_frames=7, size=(20, 20)).frames
    expected = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    torch.testing.assert_close(pixels[0], expected)


def test_the_video_processor_alone_gives_the_pool_not_scenes(folder) -> None:
    processor = tiny_video_processor()
    output = processor([folder / "two_minutes.mp4", clip(5)], return_metadata=True)
    assert [len(video) for video in output["pixel_values_videos"]] == [24, 5]
    assert [len(metadata.frames_indices) for metadata in output["video_metadata"]] == [24, 5]


# Videos longer than their pool


def frame_of(level, size=(32, 32)):
    return np.full((*size, 3), level, dtype=np.uint8)


def kept_of(levels, capacity):
    """The numbers of those frames, plain gray ones a second apart, that a pool of such a size keeps."""
    spread = SpreadPool(capacity)
    for second, level in enumerate(levels):
        spread.add(second, float(second), frame_of(level))
    metadata = TimedVideoMetadata(len(levels), fps=1.0, duration=float(len(levels)))
    frames, seconds = spread.frames(metadata)
    assert [int(frame[0, 0, 0]) for frame in frames] == [levels[int(second)] for second in seconds]
    assert metadata.frames_indices == seconds.astype(int).tolist()
    return metadata.frames_indices


def test_a_pool_that_is_not_full_keeps_all_frames_in_order() -> None:
    assert kept_of([5, 9, 1], 3) == [0, 1, 2]
    assert kept_of([7], 3) == [0]


def test_short_events_of_a_long_still_video_stay_in_the_pool() -> None:
    levels = [100] * 3000
    events = [17, 470, 471, 472, 1333, 2600, 2998]
    for number in events:
        levels[number] = 200
    kept = kept_of(levels, 40)
    assert len(kept) == 40 and kept[0] == 0 and kept[-1] == 2999
    for event in (17, 1333, 2600, 2998):
        assert event in kept
    assert {470, 471, 472} & set(kept)


def test_a_still_video_is_kept_evenly() -> None:
    gaps = np.diff(kept_of([100] * 1000, 50))
    assert gaps.max() <= 3 * 1000 / 50 and gaps.sum() == 999


def test_the_first_and_the_last_frame_stay_and_the_same_frames_every_time() -> None:
    levels = np.random.default_rng(0).integers(0, 256, 300).tolist()
    kept = kept_of(levels, 20)
    assert kept[0] == 0 and kept[-1] == 299 and len(set(kept)) == 20
    assert kept == sorted(kept) == kept_of(levels, 20)


def test_a_long_file_keeps_what_changes_and_its_true_times(folder) -> None:
    settings = {"max_candidates": 30, "min_candidates": 1, "num_scenes": 4}
    frames, metadata = pool(folder / "two_minutes.mp4", **settings)
    numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert len(numbers) == 30 and numbers == metadata.frames_indices
    assert numbers[0] == 0 and numbers[-1] == 239
    assert metadata.timestamps == pytest.approx([number / 2 for number in numbers])
    assert metadata.duration == pytest.approx(120) and metadata.total_num_frames == 240
    again, _ = pool(folder / "two_minutes.mp4", **settings)
    assert torch.equal(frames, again)


def test_frames_of_a_long_file_of_varying_rate_keep_their_own_numbers(tmp_path) -> None:
    times = np.cumsum([0] + [200, 1800, 500, 1500] * 15)
    path = make_video(tmp_path / "v.mkv", len(times), times=times, width=32, height=32)
    frames, metadata = pool(path, max_candidates=20, min_candidates=1, num_scenes=4)
    numbers = [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]
    assert len(numbers) == 20 and numbers == metadata.frames_indices
    assert metadata.timestamps == pytest.approx((times[numbers] / 1000).tolist())


@pytest.mark.parametrize("selection", ["kmeans", "uniform"])
def test_a_video_longer_than_its_pool_is_downloaded_and_indexed_once(folder, selection, monkeypatch) -> None:
    data = (folder / "two_minutes.mp4").read_bytes()
    indexed = []
    index = video_reading_fila_video.index_video
    monkeypatch.setattr(video_reading_fila_video, "index_video", lambda one: indexed.append(one) or index(one))

    def serve(connection, request, server) -> None:
        server.send(connection, head(content_length=len(data)) + data)

    with HostileServer(serve) as server:
        _, metadata = pool(
            server.url, max_candidates=30, min_candidates=1, num_scenes=4, scene_size=3, selection=selection
        )
        assert len(server.requests) == len(indexed) == 1
    assert len(metadata.frames_indices) == (30 if selection == "kmeans" else 12)


@pytest.mark.parametrize("selection", ["uniform", "bsm"])
def test_selections_by_time_take_evenly_spaced_frames_of_a_long_file(folder, selection) -> None:
    settings = {"max_candidates": 30, "min_candidates": 1, "num_scenes": 4, "selection": selection}
    settings["seek_mode"] = "exact"
    _, metadata = pool(folder / "two_minutes.mp4", **settings)
    assert len(metadata.frames_indices) == (12 if selection == "uniform" else 30)
    assert np.ptp(np.diff(metadata.frames_indices)) <= 1


@pytest.mark.parametrize("num_scenes", [1, 7, 32, 64])
def test_uniform_reads_just_the_frames_that_an_even_index_spacing_names(folder, num_scenes) -> None:
    settings = {"num_scenes": num_scenes, "scene_size": 1, "selection": "uniform", "seek_mode": "exact"}
    _, metadata = pool(folder / "two_minutes.mp4", **settings)
    if num_scenes > 1:  # a single frame is the middle one
        assert metadata.frames_indices == np.linspace(0, 239, num_scenes, dtype=int).tolist()
    assert len(metadata.frames_indices) == num_scenes


def test_a_video_read_before_is_a_pool_thinned_above_its_limit(folder) -> None:
    read = read_frames(folder / "two_minutes.mp4", num_frames=60)
    _, metadata = FilaVideoVideoProcessor().load_video(read, max_candidates=30)
    assert metadata.timestamps == read.timestamps[np.linspace(0, 59, 30).round().astype(int)].tolist()
    assert len(read.metadata.frames_indices) == 60


# Frames given as they are


def test_a_pool_is_not_thinned_below_what_the_scenes_take() -> None:
    settings = SceneSettings(num_scenes=4, scene_size=3, encoded_candidates=5)
    assert (settings.num_thinned(24), settings.num_thinned(8)) == (12, 8)


def test_a_pool_of_two_frames_is_spaced_evenly_since_both_are_the_ends() -> None:
    two, three = (SceneSettings(max_candidates=most, min_candidates=1, num_scenes=1, scene_size=1) for most in (2, 3))
    assert two.num_dense(600.0) is None and three.num_dense(600.0) == 600


def test_arrays_are_the_pool_themselves() -> None:
    frames = clip(200)
    found, metadata = FilaVideoVideoProcessor().load_video(frames)
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), frames)
    assert metadata.frames_indices == list(range(200))
    assert metadata.fps == 1.0 and metadata.duration == 200
    assert FilaVideoVideoProcessor().load_video(frames, num_frames=7)[0].shape[0] == 7
    assert FilaVideoVideoProcessor(do_sample_frames=False).load_video(frames, num_frames=7)[0].shape[0] == 200


def test_without_metadata_frames_count_as_taken_at_the_candidate_rate() -> None:
    _, metadata = FilaVideoVideoProcessor().load_video(clip(6), candidate_fps=2.0)
    assert metadata.timestamps == [0, 0.5, 1, 1.5, 2, 2.5] and metadata.duration == 3


@pytest.mark.parametrize("kind", [dict, VideoMetadata])
@pytest.mark.parametrize(
    ("given", "timestamps", "duration"),
    [
        ({"total_num_frames": 4, "fps": 2.0}, [0, 0.5, 1, 1.5], 2),
        ({"total_num_frames": 4, "duration": 8.0}, [0, 2, 4, 6], 8),
        ({"total_num_frames": 4}, [0, 1, 2, 3], 4),
        ({"total_num_frames": 100, "fps": 10.0, "frames_indices": [0, 33, 66, 99]}, [0, 3.3, 6.6, 9.9], 10),
        (
            {"total_num_frames": 100, "duration": 50.0, "frames_indices": np.array([0, 33, 66, 99])},
            [0, 16.5, 33, 49.5],
            50,
        ),
    ],
)
def test_metadata_gives_frames_their_numbers_and_times(kind, given, timestamps, duration) -> None:
    metadata = kind(**given)
    before = dict(metadata)
    _, found = FilaVideoVideoProcessor().load_video(clip(4), metadata)
    assert found.timestamps == pytest.approx(timestamps) and found.duration == duration
    assert all(np.array_equal(dict(metadata)[name], before[name]) for name in before)  # the caller's stays as it was


def test_metadata_without_a_total_is_completed() -> None:
    _, metadata = FilaVideoVideoProcessor().load_video(clip(3), {"fps": 3.0, "frames_indices": [0, 5, 8]})
    assert metadata.total_num_frames == 9 and metadata.duration == 3
    _, metadata = FilaVideoVideoProcessor().load_video(clip(3), {"fps": 3.0})
    assert metadata.total_num_frames == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 2, 3, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 24, 26, 27, 29]),  # `max_candidates`
        ({"max_candidates": 30}, list(range(30))),
        ({"do_sample_frames": False}, list(range(30))),
        ({"do_sample_frames": False, "num_frames": 4}, list(range(30))),
        ({"do_sample_frames": True, "num_frames": 4}, [0, 10, 19, 29]),
        ({"do_sample_frames": True, "num_frames": 30}, list(range(30))),
        ({"do_sample_frames": True, "fps": 2.0}, [0, 5, 10, 15, 20, 25]),
        ({"do_sample_frames": True, "fps": 100.0}, list(range(30))),
        ({"do_sample_frames": True}, [0, 2, 3, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 24, 26, 27, 29]),
        ({"num_frames": 4}, [0, 10, 19, 29]),
    ],
)
def test_frames_that_are_given_are_thinned_above_the_limit_or_as_asked(settings, expected) -> None:
    processor = tiny_video_processor(max_candidates=18, min_candidates=18)
    frames = clip(30)
    found, metadata = processor.load_video(frames, {"total_num_frames": 30, "fps": 10.0}, **settings)
    assert metadata.frames_indices == expected
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), frames[expected])
    assert metadata.timestamps == pytest.approx([number / 10 for number in expected])


def test_of_many_pictures_those_that_are_thinned_out_are_not_loaded(tmp_path) -> None:
    frames, chosen = clip(30), [0, 10, 19, 29]
    for number, frame in enumerate(frames):
        path = tmp_path / f"{number}.png"
        PIL.Image.fromarray(frame).save(path)
        if number not in chosen:
            path.write_bytes(b"nothing that could be decoded")
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    processor = tiny_video_processor(max_candidates=4, min_candidates=4)
    for pictures in (paths, list(map(str, paths)), [path.read_bytes() for path in paths]):
        found, metadata = processor.load_video(pictures, {"total_num_frames": 30, "fps": 10.0})
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), frames[chosen])
        assert metadata.frames_indices == chosen and metadata.timestamps == pytest.approx([0, 1, 1.9, 2.9])
    with pytest.raises(VideoReadError, match=r"1\.png': it is not a picture that Pillow knows"):
        processor.load_video(paths, do_sample_frames=False)


def test_frames_that_were_sampled_before_are_thinned_by_their_own_times() -> None:
    metadata = {"total_num_frames": 100, "fps": 10.0, "frames_indices": [0, 1, 2, 50, 51, 99]}
    processor = FilaVideoVideoProcessor()
    frames = clip(6)
    found, thinned = processor.load_video(frames, metadata, do_sample_frames=True, num_frames=3)
    assert thinned.frames_indices == [0, 2, 99] and len(found) == 3
    _, thinned = processor.load_video(frames, metadata, do_sample_frames=True, fps=0.2)
    assert thinned.frames_indices == [0, 50]


def test_settings_of_sampling_may_be_the_processors_own(folder) -> None:
    processor = tiny_video_processor(do_sample_frames=True, num_frames=3)
    assert processor.load_video(clip(9))[0].shape[0] == 3
    assert processor.load_video(folder / "two_minutes.mp4")[0].shape[0] == 3
    assert processor.load_video(folder / "two_minutes.mp4", fps=0.1)[0].shape[0] == 12


@pytest.mark.parametrize("given", ["path", "read", "picture"])
def test_metadata_of_what_has_its_own_is_refused(folder, tmp_path, given) -> None:
    path = folder / "two_minutes.mp4"
    PIL.Image.fromarray(clip(1)[0]).save(tmp_path / "a.png")
    video = {"path": path, "read": read_frames(path, num_frames=2), "picture": tmp_path / "a.png"}[given]
    with pytest.raises(ValueError, match="`video_metadata` is of frames that are given"):
        tiny_video_processor().load_video(video, {"fps": 5.0})


@pytest.mark.parametrize(
    ("video", "metadata", "settings", "message"),
    [
        (clip(3), {"total_num_frames": 5}, {}, "has 5 frames in all, but 3 were passed"),
        (clip(3), {"total_num_frames": 5, "frames_indices": [0, 1]}, {}, "has 2 `frames_indices`, but 3 frames were"),
        (clip(3), {"frame_rate": 5}, {}, "knows no frame_rate"),
        (clip(3), {"fps": 0.0}, {}, "positive `fps`, got 0.0"),
        (clip(3), {"fps": -1.0}, {}, "positive `fps`, got -1.0"),
        (clip(3), {"fps": "2"}, {}, "a finite number as `fps`, got '2'"),
        (clip(3), {"fps": True}, {}, "a finite number as `fps`, got True"),
        (clip(3), {"fps": 2, "duration": float("nan")}, {}, "a finite number as `duration`, got nan"),
        (clip(3), {"fps": 2, "total_num_frames": "3"}, {}, "a finite number as `total_num_frames`, got '3'"),
        (clip(3), {"fps": 2, "frames_indices": ["a", 1, 2]}, {}, "whole numbers as `frames_indices`, got .'a', 1, 2"),
        (clip(3), {"fps": 5}, {"do_sample_frames": True, "num_frames": 4}, "Cannot take 4 frames of a video of 3"),
        (clip(3), None, {"do_sample_frames": True, "fps": 4}, "pass `video_metadata` with the `fps`"),
        (clip(3), {"frames_indices": [9, 2, 5]}, {}, "ascending `frames_indices`, from 0, got 2 behind 9"),
        (clip(2), {"frames_indices": [-1, 2]}, {}, "ascending `frames_indices`, from 0, got -1"),
        (clip(2), {"total_num_frames": 4, "frames_indices": [1, 4]}, {}, "has 4 frames in all.*but the number 4"),
        (clip(3)[..., 0], None, {}, "may be 3 gray frames or one picture of 3 channels: give it four dimensions"),
        (clip(3), None, {"do_sample_frames": True, "fps": 4, "num_frames": 2}, "exactly one of num_frames, fps"),
        (["a.png", "b.png"], None, {"do_sample_frames": True}, "list of images is not supported"),
        (["a.png", "film.MP4"], None, {}, "holds its pictures, but film.MP4 is a film: pass it alone"),
        (clip(3), None, {"num_scenes": -1}, "`num_scenes` must be at least 1, got -1"),
        (clip(3), None, {"max_candidates": 0}, "`max_candidates` must be at least 1, got 0"),
        (clip(3), None, {"min_candidates": 0}, "`min_candidates` must be at least 1, got 0"),
        (clip(3), None, {"candidate_fps": float("nan")}, "`candidate_fps` must be a positive number, got nan"),
        (clip(3), None, {"candidate_fps": float("inf")}, "`candidate_fps` must be a positive number, got inf"),
        (clip(3), None, {"max_feature_bytes": -1}, "`max_feature_bytes` cannot be negative, got -1"),
        (clip(3), None, {"seek_mode": "fast"}, "Unknown `seek_mode` 'fast': use one of exact, keyframe, auto"),
        (clip(3), {"fps": 1}, {"do_sample_frames": True, "fps": 0}, "fps must be a positive number, got 0"),
        (clip(3), {"fps": 1}, {"do_sample_frames": True, "fps": -2}, "fps must be a positive number, got -2"),
        (clip(3), None, {"do_sample_frames": True, "num_frames": 0}, "num_frames must be an integer of at least 1"),
        (clip(3), None, {"do_sample_frames": True, "num_frames": True}, "num_frames must be an integer of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(video, metadata, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        FilaVideoVideoProcessor().load_video(video, metadata, **settings)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("frames", "has 6 `frames_indices`, but 5 frames"),
        ("timestamps", "have 5 `timestamps`, but 6 frames"),
        ("metadata", "has 5 `frames_indices`, but 6 frames"),
        ("frame_times", "the `frame_times` of 5 of its 6 `frames_indices`"),
    ],
)
def test_frames_that_were_read_are_refused_where_one_part_of_them_was_thinned(folder, part, message) -> None:
    read = read_frames(folder / "two_minutes.mp4", num_frames=6)
    if part == "metadata":
        read.metadata.frames_indices = read.metadata.frames_indices[:-1]
    elif part == "frame_times":
        read.metadata.frame_times = dict([*read.metadata.frame_times.items()][:-1])
    else:
        setattr(read, part, getattr(read, part)[:-1])
    given = (read.frames, read.metadata) if part == "frame_times" else (read, None)
    with pytest.raises(ValueError, match=message):
        tiny_video_processor().load_video(*given)


@pytest.mark.parametrize("content", [None, b"", b"this is no video", b"\x89PNG\r\n\x1a\n broken"])
def test_files_that_are_no_video_are_refused_by_name(tmp_path, content) -> None:
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        tiny_video_processor()(path)


@pytest.mark.parametrize("videos", [[], [[]], ()])
def test_an_empty_batch_is_refused(videos) -> None:
    with pytest.raises(ValueError, match=r"empty"):
        tiny_video_processor()(videos)


def test_one_read_of_a_file_is_at_most_the_pool_in_memory(folder, monkeypatch) -> None:
    made = []
    real = np.empty
    monkeypatch.setattr(np, "empty", lambda shape, *args, **kwargs: made.append(shape) or real(shape, *args, **kwargs))
    tiny_video_processor().load_video(folder / "two_minutes.mp4")
    assert (24, *SIZE.values(), 3) in made


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_frames_of_another_kind_are_no_black_film(kind) -> None:
    frames = VideoFrames(np.ones((4, 8, 8, 3), kind), np.arange(4.0), VideoMetadata(total_num_frames=4, fps=1))
    with pytest.raises(ValueError, match=r"`frames` of `VideoFrames` are uint8 of shape .*, got (float32|uint16)"):
        tiny_video_processor()(videos=[frames])


def test_features_of_several_places_meet_on_the_device_that_computes() -> None:
    saved, fresh = torch.zeros(2, 3, 4), torch.zeros(1, 3, 4, device="meta")
    for videos in ([saved, fresh], [fresh, saved]):
        stacked = stack_videos(videos)["frame_features"]
        assert [(each.shape[0], each.device.type) for each in stacked] == [(2, "meta")] * 2
