"""Which frames are chosen, and how they are reached: pure functions on packet times."""

from fractions import Fraction

import numpy as np
import pytest
from fila_video.video_plan_fila_video import (
    NO_TIME,
    PacketIndex,
    nearest_keyframes,
    plan_runs,
    sample_at_rate,
    shown_at,
    spread_evenly,
)


def make_index(pts, keys, hidden=None, end=None, **settings):
    pts = np.array(pts, dtype=np.int64)
    return PacketIndex(
        pts=pts,
        sizes=np.arange(len(pts)) + 1,
        keys=np.isin(np.arange(len(pts)), keys),
        hidden=np.zeros(len(pts), dtype=bool) if hidden is None else np.isin(np.arange(len(pts)), hidden),
        time_base=Fraction(1, 25),
        end=int(pts.max()) + 1 if end is None else end,
        **settings,
    )


def test_even_spread_runs_from_the_first_frame_to_the_last():
    assert spread_evenly(np.arange(100) / 25, 4).tolist() == [0, 33, 66, 99]
    assert spread_evenly(np.arange(100) / 25, 1).tolist() == [0]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 99, 100, 101, 10**6])
def test_even_spread_never_repeats_a_frame_nor_gives_more_than_there_are(count):
    indices = spread_evenly(np.arange(100) * 0.0417, count)
    assert len(indices) == min(count, 100)
    assert (np.diff(indices) > 0).all()
    assert indices[0] == 0 and (count == 1 or indices[-1] == 99)


def test_even_spread_follows_time_where_the_frame_rate_varies():
    seconds = np.concatenate([np.arange(10) * 0.1, 1 + np.arange(90) * 0.01, [10.0]])
    assert spread_evenly(seconds, 3).tolist() == [0, 99, 100]  # at 5 s the frame of 1.89 s is still shown


def test_even_spread_keeps_the_number_where_one_frame_is_shown_at_several_of_the_times():
    seconds = np.array([0.0, 0.1, 0.2, 0.3, 100.0])
    assert spread_evenly(seconds, 4).tolist() == [0, 2, 3, 4]


def test_sampling_at_a_rate_takes_the_frame_shown_at_each_tick_once():
    seconds = np.arange(100) / 25
    assert sample_at_rate(seconds, 4.0, 1).tolist() == [0, 25, 50, 75]
    assert sample_at_rate(seconds, 4.0, 25).tolist() == list(range(100))
    assert sample_at_rate(seconds, 4.0, 1e9).tolist() == list(range(100))
    assert sample_at_rate(np.array([0.0, 0.9, 2.1]), 3.0, 1).tolist() == [0, 1]


def test_the_frame_shown_at_a_time_is_the_last_that_began():
    seconds = np.array([0.0, 0.5, 2.0])
    assert shown_at(seconds, [0, 0.49, 0.5, 1.99, 2.0, 50]).tolist() == [0, 0, 1, 1, 2, 2]


def test_frames_are_ordered_by_presentation_and_hidden_or_timeless_packets_are_not_frames():
    index = make_index([0, 3, 1, 2, NO_TIME, 4], keys=[0], hidden=[5])
    assert index.times.tolist() == [0, 1, 2, 3]
    assert index.packets.tolist() == [0, 2, 3, 1]
    assert index.duration == pytest.approx(5 / 25)


def test_recordings_joined_with_clocks_of_their_own_follow_one_another():
    index = make_index([100, 101, 102, 100, 101, 102], keys=[0, 3])
    assert index.times.tolist() == [100, 101, 102, 103, 104, 105]
    assert index.end == 106


def test_frames_far_apart_are_reached_by_seeking_to_their_keyframes():
    index = make_index(range(1000), keys=range(0, 1000, 250))
    runs = plan_runs(index, np.array([10, 600]))
    assert [(run.start, run.stop, run.frames) for run in runs] == [(0, 10, [10]), (500, 600, [600])]


def test_frames_of_one_group_share_a_run():
    index = make_index(range(1000), keys=range(0, 1000, 250))
    runs = plan_runs(index, np.array([510, 520, 749]))
    assert [(run.start, run.stop, run.frames) for run in runs] == [(500, 749, [510, 520, 749])]


def test_neighbouring_short_groups_are_decoded_on_and_not_sought():
    index = make_index(range(100), keys=range(100))
    runs = plan_runs(index, np.arange(100))
    assert len(runs) == 3
    assert [frame for run in runs for frame in run.frames] == list(range(100))
    assert len(plan_runs(index, np.array([0, 50, 99]))) == 3


def test_a_frame_shown_before_its_keyframe_is_decoded_from_the_keyframe_before():
    index = make_index([0, 3, 1, 2, 8, 6, 7, 11], keys=[0, 4])  # frames of 6 and 7 lean on both sides of the keyframe
    runs = plan_runs(index, np.array([np.searchsorted(index.times, 6)]))
    assert (runs[0].start, runs[0].stop) == (0, 5)
    runs = plan_runs(index, np.array([np.searchsorted(index.times, 8)]))
    assert (runs[0].start, runs[0].stop) == (4, 4)


def test_a_stream_without_a_keyframe_is_decoded_from_its_start():
    runs = plan_runs(make_index(range(10), keys=[]), np.array([4]))
    assert (runs[0].start, runs[0].stop) == (0, 4)


def test_a_stream_without_presentation_times_is_decoded_in_one_run():
    runs = plan_runs(make_index(range(100), keys=range(0, 100, 10), counted=True), np.array([4, 95]))
    assert [(run.start, run.stop, run.frames) for run in runs] == [(0, 99, [4, 95])]


def test_the_nearest_keyframe_is_before_or_after():
    index = make_index(range(100), keys=[0, 40, 80])
    assert nearest_keyframes(index, np.array([0, 19, 20, 21, 61, 99])).tolist() == [0, 0, 0, 40, 80, 80]


@pytest.mark.parametrize("seed", range(20))
def test_every_plan_reaches_every_frame_from_a_keyframe_at_or_before_it(seed):
    random = np.random.default_rng(seed)
    packets = int(random.integers(1, 300))
    keys = np.unique(np.append(random.integers(0, packets, size=random.integers(1, 20)), 0))
    pts = np.arange(packets)
    for low, high in zip(keys, np.append(keys[1:], packets), strict=True):
        pts[low + 1 : high] = random.permutation(pts[low + 1 : high])  # frames reordered within their group
    index = make_index(pts, keys=keys)
    frames = np.flatnonzero(random.random(packets) < random.random())
    runs = plan_runs(index, frames)
    assert [frame for run in runs for frame in run.frames] == frames.tolist()
    for run in runs:
        assert run.start in keys
        assert all(run.start <= index.packets[frame] <= run.stop for frame in run.frames)
        assert index.pts[run.start] <= index.times[run.frames[0]]
