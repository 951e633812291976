"""Selection by the question: from scores to scenes, through the processor, the pipeline and the command line."""

import copy
import re

import numpy as np
import pytest
import torch
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.question_selection_fila_video import ContrastiveScorer, moments_around, relevance, relevant_frames
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor
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


# Through the processor: candidates of one color each, and a scorer that likes the color that is asked for.


def colors(num_frames: int = 24) -> np.ndarray:
    """Frames whose gray is ten times their number."""
    return np.stack([np.full((20, 20, 3), 10 * number, dtype=np.uint8) for number in range(num_frames)])


class GrayScorer:
    """Asked for a number, it likes the frames whose gray is near ten times that number."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, frames, question):
        self.asked.append(question)
        number = int(re.search(r"\d+", question)[0])
        return -(frames.float().mean(dim=(1, 2, 3)) - 10 * number).abs()


PLAIN = {"neutral_question": "", "question_spacing": 0.0}


@pytest.fixture
def processor():
    processor = tiny_processor(num_scenes=2, selection="question", **PLAIN)
    processor.question_scorer = GrayScorer()
    return processor


def representatives(outputs, video: int = 0) -> list[int]:
    return outputs["scenes"][video]["indices"][:, -1].tolist()


def test_the_scenes_are_those_that_the_question_asks_for(processor) -> None:
    outputs = processor(text="<video>\nShow 15.", videos=[colors()], return_scenes=True)
    assert representatives(outputs) == [14, 15]
    scores = outputs["scenes"][0]["scores"]
    assert scores["question"] == "Show 15." and len(scores["values"]) == len(scores["timestamps"]) == 24
    assert int(scores["values"].argmax()) == 15


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("<video>\nShow 15.", ["Show 15."]),
        ("Before 3. <video> Show 15.", ["Show 15."]),
        ("<|im_start|>user\n<video>\nShow 15.<|im_end|>\n<|im_start|>assistant\n", ["Show 15."]),
        ("<video>\n<video>\nShow 15.<|im_end|>", ["Show 15.", "Show 15."]),
        ("<video>Show 3.<video>Show 15.", ["Show 3. Show 15.", "Show 15."]),
        ("<video>\n<image>\nShow 15.", ["Show 15."]),
    ],
)
def test_the_question_is_what_stands_behind_the_video_up_to_the_end_of_the_turn(processor, text, asked) -> None:
    images = [np.zeros((20, 20, 3), dtype=np.uint8)] if "<image>" in text else None
    processor(text=text, videos=[colors()] * len(asked), images=images)
    assert processor.question_scorer.asked == asked


def test_in_a_chat_of_several_turns_the_last_user_asks(processor) -> None:
    chat = conversation(colors(), "Show 3.", answer="Here.")
    chat.append({"role": "user", "content": "Show 15."})
    single = conversation(colors(), "Show 5.")
    outputs = processor.apply_chat_template(
        [chat, single],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        padding=True,
        processor_kwargs={"return_scenes": True},
    )
    assert processor.question_scorer.asked == ["Show 15.", "Show 5."]
    assert representatives(outputs) == [14, 15] and representatives(outputs, 1) == [4, 5]


def test_a_question_can_be_passed_beside_the_prompt(processor) -> None:
    outputs = processor(
        text="<video>\nWhat?", videos=[colors()], question="Show 7.", return_scenes=True, return_tensors="pt"
    )
    assert representatives(outputs) == [6, 7]
    two = processor(text=["<video>\nWhat?"] * 2, videos=[colors()] * 2, question=["Show 7.", "Show 9."], padding=True)
    assert processor.question_scorer.asked[-2:] == ["Show 7.", "Show 9."] and len(two["input_ids"]) == 2
    with pytest.raises(ValueError, match="3 questions for 1 videos"):
        processor(text="<video>\nWhat?", videos=[colors()], question=["a 1", "b 2", "c 3"])


def test_a_peaked_score_leaves_scenes_out_of_the_prompt_and_batches_stay_whole(processor) -> None:
    """Asked for 15, one of the frames is nearest, and with `question_min_rise` near 1 alone worth a scene."""
    options = {"question_min_rise": 0.99, "return_scenes": True, "return_tensors": "pt", "padding": True}
    outputs = processor(text=["<video>\nShow 15."] * 2, videos=[colors(), colors(5)], **options)
    assert representatives(outputs) == [15] and outputs["video_num_scenes"].tolist() == [1, 2]
    placeholders = (outputs["input_ids"] == processor.video_token_id).sum(dim=1)
    assert 0 < placeholders[0] < placeholders[1]


def test_xcomp_is_its_settings_and_nothing_beyond_them(processor) -> None:
    """Whatever else is set: no neutral question, no spacing, no context, no least rise."""
    ours = {"neutral_question": "Show 0.", "question_spacing": 5.0, "question_context": 9.0, "question_min_rise": 0.9}
    processor(text="<video>\nShow 15.", videos=[colors()], **ours)
    assert processor.question_scorer.asked == ["Show 15.", "Show 0."]
    outputs = processor(
        text="<video>\nShow 15.", videos=[colors()], question_diversity="xcomp", return_scenes=True, **ours
    )
    assert processor.question_scorer.asked[2:] == ["Show 15."] and representatives(outputs) == [14, 15]


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_the_least_rise_is_a_share(processor, value) -> None:
    with pytest.raises(ValueError, match="question_min_rise"):
        processor(text="<video>\nShow 15.", videos=[colors()], question_min_rise=value)


def test_without_a_question_the_scenes_are_those_of_kmeans(processor, caplog) -> None:
    frames = clip(24)
    found = processor(videos=[frames], return_scenes=True)
    expected = processor(videos=[frames], selection="kmeans", return_scenes=True)
    assert torch.equal(found["scenes"][0]["indices"], expected["scenes"][0]["indices"])
    assert "scores" not in found["scenes"][0] and not processor.question_scorer.asked


def test_a_pool_that_is_taken_whole_needs_no_question(processor) -> None:
    outputs = processor(text="<video>\nShow 3.", videos=[colors(5)], return_scenes=True)
    assert not processor.question_scorer.asked and "scores" not in outputs["scenes"][0]


def test_the_neutral_question_is_asked_too(processor) -> None:
    processor(text="<video>\nShow 15.", videos=[colors()], neutral_question="Show 0 to all.")
    assert processor.question_scorer.asked == ["Show 15.", "Show 0 to all."]


def test_without_a_model_or_a_scorer_it_says_what_to_do() -> None:
    processor = tiny_processor(num_scenes=2, selection="question")
    with pytest.raises(ValueError, match=r"processor\.bind\(model\)"):
        processor(text="<video>\nWhat?", videos=[colors()])


def test_a_scorer_must_give_one_score_per_frame(processor) -> None:
    processor.question_scorer = lambda frames, question: torch.zeros(3)
    with pytest.raises(ValueError, match=r"so 24, got \(3,\)"):
        processor(text="<video>\nWhat?", videos=[colors()])


def test_servers_that_keep_videos_apart_from_questions_are_refused_by_name(processor) -> None:
    with pytest.raises(ValueError, match="vLLM"):
        processor(text="<video>\nShow 3.", videos=[colors()], return_text_replacement_offsets=True)


def test_saving_and_copying_a_processor_keep_the_settings_and_leave_the_scorer(processor, tmp_path) -> None:
    processor.save_pretrained(tmp_path)
    for other in (FilaVideoProcessor.from_pretrained(tmp_path), copy.deepcopy(processor)):
        assert other.selection == "question" and other.neutral_question == "" and other.question_scorer is None


@pytest.fixture(scope="module")
def bound():
    processor = tiny_processor(num_scenes=3, selection="question")
    model = model_for(processor)
    return processor.bind(model), model


@pytest.mark.parametrize("diversity", ["top", "clusters", "coverage"])
def test_the_bound_model_chooses_and_the_same_question_chooses_the_same(bound, diversity) -> None:
    processor, _ = bound
    options = {"question_diversity": diversity, "return_scenes": True}
    first, again = (processor(text="<video>\nWhat moves?", videos=[clip(24)], **options) for _ in range(2))
    assert torch.equal(first["scenes"][0]["indices"], again["scenes"][0]["indices"])
    assert len(first["scenes"][0]["scores"]["values"]) == 24


@pytest.mark.parametrize("layers", ["middle", "first"])
def test_the_scores_are_those_of_the_models_attention(bound, layers) -> None:
    processor, model = bound
    options = {"return_scenes": True, "question_layers": layers, **PLAIN}
    outputs = processor(text="<video>\nWhat moves?", videos=[clip(24)], **options)
    pixels = processor.video_processor.pixels(torch.from_numpy(clip(24)).permute(0, 3, 1, 2))
    prompt = processor.apply_chat_template(
        conversation(np.zeros((1, 20, 20, 3), np.uint8), "What moves?"), add_generation_prompt=True
    )
    before, behind = prompt.split("<video>")
    question = torch.zeros(len(processor.tokenizer(behind)["input_ids"]), dtype=torch.bool)
    start = len(processor.tokenizer(behind[: behind.index("What")])["input_ids"])
    question[start : start + len(processor.tokenizer("What moves?")["input_ids"])] = True
    before, behind = (torch.tensor(processor.tokenizer(text)["input_ids"]) for text in (before, behind))
    tokens = model.tokens_for_scoring(model.encode_frames(pixels))
    expected = model.score_tokens(tokens, before, behind, question, layers=layers).sum(0)
    torch.testing.assert_close(outputs["scenes"][0]["scores"]["values"].float(), expected, rtol=1e-4, atol=1e-6)


def test_features_that_are_too_large_to_keep_are_encoded_again_and_give_the_same(bound) -> None:
    processor, _ = bound
    kept, again = (
        processor(text="<video>\nWhat?", videos=[clip(24)], return_scenes=True, max_feature_bytes=size)
        for size in (1 << 30, 1)
    )
    assert torch.equal(kept["scenes"][0]["indices"], again["scenes"][0]["indices"])


def test_a_thinned_pool_is_scored_where_it_was_kept(bound) -> None:
    processor, _ = bound
    outputs = processor(text="<video>\nWhat?", videos=[clip(24)], return_scenes=True, encoded_candidates=12)
    scores = outputs["scenes"][0]["scores"]
    assert len(scores["values"]) == len(scores["timestamps"]) == 12


def test_questions_about_an_encoded_video_need_no_second_encoding(bound) -> None:
    processor, model = bound
    encoded = processor.encode_video(clip(24))
    passes = []
    handle = model.model.vision_tower.register_forward_hook(lambda *args: passes.append(1))
    try:
        for text in ("What moves?", "What stands still?"):
            found = processor(text=f"<video>\n{text}", videos=[encoded], return_scenes=True)
            assert found["scenes"][0]["scores"]["question"] == text
    finally:
        handle.remove()
    direct = processor(text="<video>\nWhat stands still?", videos=[clip(24)], return_scenes=True)
    assert not passes and torch.equal(found["scenes"][0]["indices"], direct["scenes"][0]["indices"])


def test_a_batch_gives_what_each_question_gives_alone(bound) -> None:
    processor, model = bound
    pipe = VideoTextToTextPipeline(model, processor=processor)
    videos, texts = [clip(24), clip(30, seed=1)], ["What moves?", "Which one is right before the last?"]
    options = {"max_new_tokens": 3, "return_full_text": False, "return_scenes": True}
    alone = [pipe(video, text=text, **options)[0] for video, text in zip(videos, texts, strict=True)]
    for found, expected in zip(pipe(videos, text=texts, batch_size=2, **options), alone, strict=True):
        assert found[0]["generated_text"] == expected["generated_text"]
        assert torch.equal(found[0]["scenes"][0]["indices"], expected["scenes"][0]["indices"])


def test_xcomp_scores_with_the_middle_layers_whatever_else_is_set(bound) -> None:
    processor, _ = bound
    options = {"text": "<video>\nWhat moves?", "videos": [clip(24)], "return_scenes": True}
    ours = {"question_layers": "first", "neutral_question": "What can be seen?", "question_tokens": 1}
    found = processor(question_diversity="xcomp", **ours, **options)
    plain = processor(question_layers="middle", question_tokens=16, **PLAIN, **options)
    assert torch.equal(found["scenes"][0]["scores"]["values"], plain["scenes"][0]["scores"]["values"])
    assert torch.equal(found["scenes"][0]["indices"], plain["scenes"][0]["indices"])
