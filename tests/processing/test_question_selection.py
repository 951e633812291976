"""Selection by the question: what scores are, and which scenes follow from them."""

import pytest
import torch
from fila_video.question_selection_fila_video import ContrastiveScorer, moments_around, relevance, relevant_frames
from transformers import (
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)


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


def test_coverage_reaches_all_of_the_video_and_is_denser_where_scores_are_high() -> None:
    scores = torch.ones(100)
    scores[50:60] = 10
    frames = pool(100) | {"scores": scores}
    chosen = relevant_frames(**frames, num_scenes=20, diversity="coverage")
    inside = ((chosen >= 50) & (chosen < 60)).sum()
    assert inside >= 8 and chosen[0] < 25 and chosen[-1] > 75


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


def letters(text: str, length: int | None = None):
    ids = [*(ord(letter) % 30 + 1 for letter in text), 39][: length or len(text) + 1]
    return ids if length is None else (ids + [0] * length)[:length]


class LetterTokenizer:
    """A letter a token, with what a scorer asks of a tokenizer."""

    def __call__(self, text, padding=None, truncation=False, max_length=None, return_tensors=None):
        from transformers import BatchEncoding

        ids = letters(text, max_length)
        mask = [int(token > 0) for token in ids]
        values = {"input_ids": ids, "attention_mask": mask}
        if return_tensors == "pt":
            values = {name: torch.tensor([value]) for name, value in values.items()}
        return BatchEncoding(values)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SIZES | {"vocab_size": 40, "max_position_embeddings": 12}
VISION = SIZES | {"image_size": 16, "patch_size": 8}


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_a_contrastive_model_scores_frames_as_it_compares_texts_with_images_itself(kind, caplog) -> None:
    torch.manual_seed(0)
    if kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    else:
        text = TEXT | {"eos_token_id": 39, "bos_token_id": 38, "pad_token_id": 0}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)).eval()
    image_processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    scorer = ContrastiveScorer(model, image_processor, LetterTokenizer(), batch_size=2)
    frames = torch.randint(0, 256, (5, 3, 24, 32), dtype=torch.uint8)
    scores = scorer(frames, "a red star")
    assert scores.shape == (5,) and (scores.abs() <= 1.0001).all()

    pixels = image_processor(list(frames), return_tensors="pt")["pixel_values"]
    text = LetterTokenizer()("a red star", max_length=12, return_tensors="pt")
    if kind == "siglip":
        text.pop("attention_mask")
    with torch.no_grad():
        logits = model(pixel_values=pixels, **text).logits_per_image[:, 0]
    assert scores.argsort().tolist() == logits.argsort().tolist()
    assert not torch.equal(scorer(frames, "a blue ring"), scores)


def test_a_scorer_needs_a_model_that_compares_texts_with_images() -> None:
    with pytest.raises(ValueError, match="Linear does not compare"):
        ContrastiveScorer(torch.nn.Linear(2, 2))
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION))
    with pytest.raises(ValueError, match="image_processor"):
        ContrastiveScorer(model)


def test_a_saved_contrastive_model_is_loaded_from_its_folder(tmp_path) -> None:
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    model.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    scorer = ContrastiveScorer(tmp_path, tokenizer=LetterTokenizer())
    assert scorer(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "what").shape == (2,)
