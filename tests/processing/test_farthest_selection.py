"""Farthest-point selection and the thinning of a pool: what is rare is found, black and broken frames give way."""

import numpy as np
import pytest
import torch
from fila_video import scene_selection_fila_video as scene_selection
from fila_video.scene_selection_fila_video import (
    frame_weights,
    select_scenes,
    thin_pool,
)
from fila_video.video_pool_fila_video import thumbnails
from helpers.features import groups_of, noise, video


def naive_farthest(features, count, alone):
    """Greedy max-min, a frame at a time."""
    points = features.double().numpy()
    points = points - points.mean(0)
    chosen = [int(np.linalg.norm(points, axis=1).argmin())]
    while len(chosen) < count:
        distances = [min(np.linalg.norm(point - points[other]) for other in chosen) for point in points]
        padded = [0, *distances, 0]
        scores = []
        for frame, distance in enumerate(distances):
            company = min(distance, max(padded[frame], padded[frame + 2]))
            scores.append(alone * distance + (1 - alone) * company)
        chosen.append(int(np.argmax(scores)))
    return sorted(chosen)


def test_farthest_point_selection_equals_a_loop_over_all_distances() -> None:
    for seed, make in enumerate((noise, video, noise, video)):
        features = make(90, seed=seed)
        expected = naive_farthest(features, 14, scene_selection.ALONE)
        assert select_scenes(features, 14, 3, "farthest")[:, -1].tolist() == expected


def test_farthest_point_selection_finds_a_rare_pair_of_frames_before_common_ones() -> None:
    features, _ = groups_of([200, 150, 100])
    features[61:63] = 30 * torch.eye(16)[10]
    assert {61, 62} & set(select_scenes(features, 4, 1, "farthest")[:, 0].tolist())


def test_a_single_frame_gives_way_to_two_frames_that_are_almost_as_far_but_is_found_after_them() -> None:
    features = 0.01 * noise(100, 8)
    features[30] = 10 * torch.eye(8)[0]
    features[60:62] = 8 * torch.eye(8)[1]
    two, three = (set(select_scenes(features, count, 1, "farthest")[:, 0].tolist()) for count in (2, 3))
    assert two & {60, 61} and 30 not in two
    assert 30 in three


def test_black_frames_take_one_scene_of_farthest_point_selection() -> None:
    features = video(200) + 5
    black = torch.arange(4, 200, 20)
    features[black] = 0
    assert len(set(select_scenes(features, 16, 1, "farthest")[:, 0].tolist()) & set(black.tolist())) == 1


def test_a_frame_counts_as_much_as_its_colors_spread_against_the_median_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(9, 3, 8, 8, generator=generator)
    pictures[2] = 0.0
    pictures[4] = 0.25 * pictures[4] + 0.7
    pictures[6] = torch.tensor([0.1, 0.9, 0.5])[:, None, None]  # of one color
    weights = frame_weights(pictures.flatten(1))
    assert weights.shape == (9,) and weights[[2, 6]].tolist() == [0.0, 0.0] and 0.2 < weights[4] < 0.3
    assert (weights[[0, 1, 3, 5, 7, 8]] > 0.8).all() and weights.max() <= 1
    # Where most frames are of one color, that is what the video shows.
    assert frame_weights(torch.linspace(0, 1, 9)[:, None].expand(9, 192)).tolist() == [1.0] * 9


def test_frames_without_detail_take_no_scene_of_farthest_point_selection() -> None:
    """Black and white frames are farthest from everything; with their weights they give way to all that is shown."""
    pictures = 0.3 + 0.4 * torch.rand(120, 192, generator=torch.Generator().manual_seed(1))
    junk = torch.arange(5, 120, 10)
    pictures[junk[::2]], pictures[junk[1::2]] = 0.0, 1.0
    chosen = [
        set(select_scenes(pictures, 12, 1, "farthest", weights=weights)[:, 0].tolist()) & set(junk.tolist())
        for weights in (None, frame_weights(pictures))
    ]
    assert len(chosen[0]) == 2 and not chosen[1]


@pytest.mark.parametrize("weights", [torch.ones(9), torch.full((20,), 1.5), torch.full((20,), torch.nan)])
def test_a_weight_is_a_share_for_each_frame(weights) -> None:
    with pytest.raises(ValueError, match="`weights` must hold 20 numbers"):
        select_scenes(noise(20, 4), 4, 1, "farthest", weights=weights)


def broken(frame, way, other):
    """A frame `(3, 128, 128)` as a decoder leaves it that has lost a part of it; `other` is from elsewhere."""
    torn = frame.clone()
    if way == "shifted":
        torn[:, 53:] = frame[:, 53:].roll(50, dims=2)
    elif way == "another frame above":
        torn[:, :70] = other[:, :70]
    elif way == "another frame, a part of the width":
        torn[:, 61:, 40:] = other[:, 61:, 40:]
    elif way == "green in a slice":
        torn[:, 45:91] = torch.tensor([0.0, 0.53, 0.0])[:, None, None]
    elif way == "smeared":
        torn[:, 50:] = frame[:, 49:50]
        torn[:, 50:58, :30] = frame[:, 50:58, :30]
    else:
        blocks = torch.rand(3, 9, 16, generator=torch.Generator().manual_seed(0))
        torn[:, 56:] = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    return torn


BROKEN = (
    *("shifted", "another frame above", "another frame, a part of the width"),
    *("green in a slice", "smeared", "blocks"),
)
CUTAWAY, OBJECT = 50, 95


@pytest.fixture(scope="module")
def film():
    """Four shots that pan slowly, a cutaway in one frame and an object in two: `(120, 3, 128, 128)`; another view."""
    generator = torch.Generator().manual_seed(5)
    views = torch.rand(6, 3, 9, 12, generator=generator)
    views = torch.nn.functional.interpolate(views, (128, 170), mode="bicubic", align_corners=True).clamp(0, 1)
    frames = torch.stack([views[number // 30, :, :, number % 30 // 10 :][:, :, :128] for number in range(120)])
    frames[CUTAWAY] = views[4, :, :, :128]
    frames[OBJECT : OBJECT + 2, :, 30:80, 40:90] = 1 - frames[OBJECT : OBJECT + 2, :, 30:80, 40:90]
    return frames, views[5, :, :, :128]


@pytest.mark.parametrize("way", BROKEN)
def test_torn_frames_take_no_scene_and_events_keep_theirs(film, way) -> None:
    frames, other = film
    frames, torn = frames.clone(), (20, 72, 111)
    for number in torn:
        frames[number] = broken(frames[number], way, other)
    small = thumbnails((255 * frames).byte())
    weights = frame_weights(small)
    guarded, plain = (
        set(select_scenes(small, 7, 1, "farthest", weights=given)[:, 0].tolist()) for given in (weights, None)
    )
    assert weights[list(torn)].max() < 0.5
    assert not guarded & set(torn) and CUTAWAY in guarded and {OBJECT, OBJECT + 1} & guarded
    assert plain & set(torn)


@pytest.mark.parametrize("bars", [0, 16])
def test_all_frames_of_a_film_without_torn_ones_count_whole(film, bars) -> None:
    """A cutaway between black bars is new in all rows but theirs: no cut through the frame."""
    frames = film[0].clone()
    frames[:, :, :bars] = 0
    frames[:, :, 128 - bars :] = 0
    small = thumbnails((255 * frames).byte())
    weights = frame_weights(small)
    assert weights.min() > 0.9
    chosen = set(select_scenes(small, 8, 3, "farthest", weights=weights)[:, -1].tolist())
    assert CUTAWAY in chosen and {OBJECT, OBJECT + 1} & chosen


def test_an_object_of_half_the_width_is_no_torn_part(film) -> None:
    frames = film[0].clone()
    frames[70, :, 60:, 20:84] = 1 - frames[70, :, 60:, 20:84]
    assert frame_weights(thumbnails((255 * frames).byte()))[70] > 0.9


def test_where_everything_moves_no_frame_counts_less() -> None:
    """Frames that have nothing in common are all as torn as is usual."""
    small = torch.rand(60, 3 * 16 * 16, generator=torch.Generator().manual_seed(2))
    assert frame_weights(small).min() > 0.9


@pytest.mark.parametrize(
    ("usual", "torn", "weight"),
    [(0.0, 0.55, 1.0), (0.0, 0.8, (0.6 / 0.8) ** 4), (0.4, 0.75, 1.0), (0.4, 1.2, (0.8 / 1.2) ** 4)],
)
def test_a_cut_counts_from_three_fifths_of_what_is_new_and_from_twice_what_is_usual_on(usual, torn, weight) -> None:
    """Brightness steps to and fro between frames, by more below the middle, and by more yet at one of the frames."""

    def step(tornness: float) -> torch.Tensor:
        """By how much each row changes, so that the frames look torn by that much."""
        more = tornness * (0.1 + 1 / 255) / (1 - tornness / 2)
        return 0.1 + more * (torch.arange(16) >= 8)[:, None]

    scene = 0.2 + 0.4 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([scene + step(usual) * (number % 2) for number in range(41)])
    frames[20] = scene + step(usual) - step(torn)
    weights = frame_weights(frames.flatten(1))
    assert weights[20] == pytest.approx(weight, abs=0.05) and weights[:20].min() > 0.9


@pytest.mark.parametrize("length", [1, 2, 3])
def test_frames_of_the_shortest_pools_count_too(film, length) -> None:
    small = thumbnails((255 * film[0][29 : 29 + length]).byte())
    assert frame_weights(small).min() > 0.5


def test_a_thinned_pool_keeps_what_is_rare() -> None:
    features, _ = groups_of([300, 150, 60])
    features[100] = 30 * torch.eye(16)[9]
    features[401:403] = 30 * torch.eye(16)[12]
    kept = thin_pool(features, 32)
    assert len(kept) == 32 and (kept.diff() > 0).all()
    assert 100 in kept and {401, 402} & set(kept.tolist())
    assert thin_pool(features[:10], 32).tolist() == list(range(10))
    assert thin_pool(torch.ones(100, 4), 4).tolist() == [0, 17, 50, 83]


def test_a_frame_that_stands_alone_counts_whole_where_a_pool_is_thinned() -> None:
    features = torch.zeros(100, 2)
    features[30, 0], features[60:62, 1] = 10, 6
    assert 30 in thin_pool(features, 2)


def test_a_pool_is_not_thinned_to_no_frames() -> None:
    with pytest.raises(ValueError, match="`num_frames` must be a whole number of at least 1, but is 0"):
        thin_pool(noise(9), 0)
    with pytest.raises(ValueError, match=r"NaN.*frame 0"):
        thin_pool(torch.full((3, 2), float("nan")), 2)
