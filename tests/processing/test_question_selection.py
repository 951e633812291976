"""Selection by the question: what scores are, and which scenes follow from them."""

import pytest
import torch
from fila_video.frame_selector_fila_video import SceneSettings
from fila_video.question_selection_fila_video import moments_around, relevance, relevant_frames


def pool(num_frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "scores": torch.rand(num_frames, generator=generator),
        "times": torch.arange(num_frames, dtype=torch.float64),
        "features": torch.randn(num_frames, 8, generator=generator),
    }


def test_the_highest_scores_are_taken_in_the_order_of_time() -> None:
    frames = pool(20)
    chosen = relevant_frames(**frames, num_scenes=5)
    assert chosen.tolist() == sorted(frames["scores"].topk(5).indices.tolist())


def test_equal_scores_go_to_the_earlier_frames() -> None:
    frames = pool(20) | {"scores": torch.zeros(20)}
    assert relevant_frames(**frames, num_scenes=3).tolist() == [0, 1, 2]


def test_no_second_frame_is_taken_near_a_better_one() -> None:
    frames = pool(30) | {"scores": torch.linspace(1, 0, 30)}
    assert relevant_frames(**frames, num_scenes=4, spacing=3.0).tolist() == [0, 3, 6, 9]


def test_where_too_few_frames_keep_their_distance_the_best_others_fill_the_scenes() -> None:
    frames = pool(8) | {"scores": torch.linspace(1, 0, 8)}
    assert relevant_frames(**frames, num_scenes=5, spacing=4.0).tolist() == [0, 1, 2, 3, 4]


def test_clusters_give_frames_that_differ() -> None:
    """One event fills the best scores; its frames are one cluster, so the others are seen too."""
    features = torch.eye(10).repeat_interleave(4, 0)
    scores = torch.linspace(1, 0, 40)
    frames = {"scores": scores, "times": torch.arange(40.0), "features": features}
    assert relevant_frames(**frames, num_scenes=4).tolist() == [0, 1, 2, 3]
    assert relevant_frames(**frames, num_scenes=4, diversity="clusters").tolist() == [0, 4, 8, 12]


def test_clusters_begin_with_the_centers_that_are_asked_for() -> None:
    with pytest.raises(ValueError, match="'other'"):
        relevant_frames(**pool(40), num_scenes=6, diversity="clusters", init="other")


def test_coverage_reaches_all_of_the_video_and_is_denser_where_scores_are_high() -> None:
    scores = torch.ones(100)
    scores[50:60] = 10
    frames = pool(100) | {"scores": scores}
    chosen = relevant_frames(**frames, num_scenes=20, diversity="coverage")
    inside = ((chosen >= 50) & (chosen < 60)).sum()
    assert inside >= 8 and chosen[0] < 25 and chosen[-1] > 75


def test_coverage_takes_its_frames_whatever_the_spacing() -> None:
    frames = pool(40) | {"scores": torch.zeros(40)}
    frames["scores"][30:34] = 10
    plain, spaced = (
        relevant_frames(**frames, num_scenes=10, diversity="coverage", spacing=spacing) for spacing in (0.0, 3.0)
    )
    assert plain.tolist() == spaced.tolist()


def film_of_events(events: dict[int, int], num_frames: int = 60) -> dict[str, torch.Tensor]:
    """A film that mostly shows nothing, with a thing of its own at each start, for as many seconds."""
    frames = pool(num_frames) | {"scores": torch.zeros(num_frames)}
    frames["features"] = 0.05 * frames["features"]
    for number, (start, length) in enumerate(events.items()):
        frames["features"][start : start + length, number] += 4.0
    return frames


def test_the_moments_around_a_frame_are_what_comes_right_before_and_after_it() -> None:
    frames = film_of_events({5: 2, 20: 2, 30: 3, 44: 2, 50: 1})
    around = moments_around(frames["features"], frames["times"], 31, context=30.0)
    assert len(around) == 2 and around[0] in (20, 21) and around[1] in (44, 45)
    assert moments_around(frames["features"], frames["times"], 31, context=12.0) == [around[0]]
    assert moments_around(frames["features"], frames["times"], 31, context=5.0) == []
    # The first thing has nothing before it, the last nothing after it.
    assert moments_around(frames["features"], frames["times"], 5, context=60.0)[0] in (20, 21)
    assert len(moments_around(frames["features"], frames["times"], 50, context=60.0)) == 1


def test_with_context_a_frame_brings_along_what_comes_before_and_after_it() -> None:
    frames = film_of_events({5: 2, 20: 2, 30: 3, 44: 2})
    frames["scores"][[31, 5]] = torch.tensor([1.0, 0.5])
    assert relevant_frames(**frames, num_scenes=2).tolist() == [5, 31]
    chosen = relevant_frames(**frames, num_scenes=4, context=30.0).tolist()
    assert {5, 31} < set(chosen) and chosen[1] in (20, 21) and chosen[3] in (44, 45)
    assert len(relevant_frames(**frames, num_scenes=2, context=30.0)) == 2


def test_a_peaked_score_takes_fewer_scenes_than_it_may_and_a_flat_one_takes_all() -> None:
    frames = pool(60) | {"scores": torch.zeros(60)}
    frames["scores"][[10, 30, 31, 50]] = torch.tensor([10.0, 4.0, 3.5, 2.0])
    for least, expected in ((0.0, 8), (0.2, 3), (0.3, 2), (0.5, 1), (1.0, 1)):
        assert len(relevant_frames(**frames, num_scenes=8, spacing=3.0, min_rise=least)) == expected
    assert relevant_frames(**frames, num_scenes=8, spacing=3.0, min_rise=0.3).tolist() == [10, 30]
    assert relevant_frames(**frames, num_scenes=2, min_rise=0.3).tolist() == [10, 30]
    equal = frames | {"scores": torch.ones(60)}
    assert len(relevant_frames(**equal, num_scenes=8, min_rise=0.9)) == 8


def test_the_best_frame_is_taken_whatever_rise_is_asked_for() -> None:
    for seed in range(50):
        frames = pool(9) | {"scores": torch.randn(9, generator=torch.Generator().manual_seed(seed))}
        frames["scores"] = frames["scores"].double() / 3
        assert relevant_frames(**frames, num_scenes=8, min_rise=1.0).tolist() == [int(frames["scores"].argmax())]


@pytest.mark.parametrize("setting", ["context", "min_rise"])
def test_coverage_of_the_whole_video_goes_with_no_setting_that_narrows_it(setting) -> None:
    with pytest.raises(ValueError, match=f"question_{setting}"):
        relevant_frames(**pool(20), num_scenes=4, diversity="coverage", **{setting: 0.5})


@pytest.mark.parametrize("diversity", ["top", "clusters", "coverage"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("num_scenes", [1, 4, 40])
@pytest.mark.parametrize("equal", [False, True])
def test_the_number_of_scenes_follows_from_the_number_of_frames_alone(
    diversity, num_frames, num_scenes, equal
) -> None:
    frames = pool(num_frames)
    if equal:
        frames |= {"scores": torch.ones(num_frames), "features": torch.ones(num_frames, 8)}
    context = {} if diversity == "coverage" else {"context": 10.0}
    for options in ({}, {"spacing": 3.0} | context):
        chosen = relevant_frames(**frames, num_scenes=num_scenes, diversity=diversity, **options).tolist()
        assert len(set(chosen)) == len(chosen) == min(num_scenes, num_frames) and chosen == sorted(chosen)
        again = relevant_frames(**frames, num_scenes=num_scenes, diversity=diversity, **options).tolist()
        assert again == chosen


def test_what_draws_attention_whatever_is_asked_falls_away() -> None:
    asked = torch.tensor([[9.0, 2.0, 1.0, 1.0], [8.0, 2.0, 1.0, 1.0]])
    neutral = torch.tensor([[9.0, 1.0, 1.0, 1.0], [8.0, 1.0, 1.0, 1.0]])
    assert relevance(asked).argmax() == 0
    assert relevance(asked, neutral).argmax() == 1
    assert relevance(torch.ones(2, 4), torch.ones(2, 4)).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diversity": "best"}, "question_diversity"),
        ({"scores": torch.rand(3)}, r"8 frames need as many"),
        ({"scores": torch.full((8,), torch.nan)}, "finite"),
    ],
)
def test_arguments_out_of_range_are_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        relevant_frames(**pool(8) | {"num_scenes": 2} | change)


def test_xcomps_own_way_to_ask_holds_whatever_the_other_settings_say() -> None:
    others = {"question_min_rise": 0.5, "question_spacing": 9.0, "question_context": 2.0, "question_tokens": 4}
    others |= {"neutral_question": "What?", "question_layers": "first"}
    asking = SceneSettings(question_diversity="xcomp", **others).asking
    assert asking == SceneSettings(question_diversity="top", question_spacing=0.0)


def test_the_least_rise_may_be_all_of_it() -> None:
    assert SceneSettings(question_min_rise=1.0).question_min_rise == 1.0
