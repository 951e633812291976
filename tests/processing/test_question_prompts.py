"""Selection by the question through the processor and the pipeline: which question is asked, and of what."""

import copy
import re
import threading

import numpy as np
import pytest
import torch
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from helpers.tiny_processor import clip, conversation, model_for, tiny_processor


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


VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for block in message['content'] %}"
    "{{ '<video>' if block['type'] == 'video' else block['text'] }}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.mark.parametrize("template", [None, VICUNA])
@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (("Show 15.", colors()), ["Show 15."]),
        (("Before 3.", colors(), "Show 15."), ["Before 3. Show 15."]),
        ((colors(), "Show", " 15."), ["Show 15."]),
        ((colors(), "Show 3.", colors(), "Show 15."), ["Show 3. Show 15."] * 2),
    ],
)
def test_in_a_chat_of_one_turn_all_that_its_user_says_is_the_question(processor, content, asked, template) -> None:
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "chat_template": template}
    processor.apply_chat_template(conversation(*content), **options)
    assert processor.question_scorer.asked == asked
    # Beside another chat, of several turns, it means the same.
    several = [*conversation(colors(), "Show 2.", answer="Here."), {"role": "user", "content": "Show 4."}]
    processor.apply_chat_template(
        [conversation(*content), several], processor_kwargs={"padding": True}, **{**options, "chat_template": None}
    )
    assert processor.question_scorer.asked[len(asked) :] == [*asked, "Show 4."]


@pytest.mark.parametrize("nest", [dict, lambda **options: {"processor_kwargs": options}])
def test_options_of_a_chat_mean_the_same_nested_and_not(processor, nest) -> None:
    chat = [*conversation(colors(), "Show 3.", answer="Here."), {"role": "user", "content": "Show 15."}]
    render = {"tokenize": True, "return_dict": True}
    outputs = processor.apply_chat_template(chat, **render, **nest(return_scenes=True))
    assert outputs["scenes"][0]["scores"]["question"] == "Show 15."
    for given in ({"question": "Show 7."}, {"videos_kwargs": {"question": "Show 7."}}):
        outputs = processor.apply_chat_template(chat, **render, **nest(return_scenes=True, **given))
        assert outputs["scenes"][0]["scores"]["question"] == "Show 7."
    both = {"processor_kwargs": {"num_scenes": 3}, "return_scenes": True}
    (scenes,) = processor.apply_chat_template(chat, **render, **both)["scenes"]
    assert len(scenes["indices"]) == 3 and scenes["scores"]["question"] == "Show 15."


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
    expected = model.score_tokens(tokens, before, behind, question, layers=layers).sum(dim=0)
    torch.testing.assert_close(outputs["scenes"][0]["scores"]["values"].float(), expected, rtol=1e-4, atol=1e-6)


def test_another_thread_may_use_the_model_while_frames_are_scored(bound) -> None:
    processor, model = bound
    inputs = processor(text="<video>\nWhat moves?", videos=[clip(6)], selection="uniform", return_tensors="pt")
    expected = model(**inputs).logits
    found = []
    rotary = model.model.language_model.rotary_emb

    def answer_in_between(*args) -> None:
        handle.remove()
        thread = threading.Thread(target=lambda: found.append(model(**inputs).logits))
        thread.start()
        thread.join()

    alone = processor(text="<video>\nWhat moves?", videos=[clip(24)], return_scenes=True)["scenes"][0]["scores"]
    handle = rotary.register_forward_pre_hook(answer_in_between)
    beside = processor(text="<video>\nWhat moves?", videos=[clip(24)], return_scenes=True)["scenes"][0]["scores"]
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(beside["values"], alone["values"])


def test_the_end_of_scoring_does_not_disturb_a_forward_that_has_begun(bound) -> None:
    processor, model = bound
    inputs = processor(text="<video>\nWhat moves?", videos=[clip(6)], selection="uniform", return_tensors="pt")
    expected, found, begun, scored = model(**inputs).logits, [], threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: found.append(model(**inputs).logits))

    def meet(module, args) -> None:  # the other thread has seen the hooks of scoring, which are gone when it goes on
        if threading.current_thread() is other:
            begun.set()
            scored.wait(60)
        elif not begun.is_set():
            other.start()
            begun.wait(60)

    last = model.model.language_model.layers[-1]
    handles = [layer.self_attn.register_forward_pre_hook(meet) for layer in model.model.language_model.layers]
    try:
        processor(text="<video>\nWhat moves?", videos=[clip(24)], return_scenes=True)
    finally:
        scored.set()
        other.join()
        for handle in handles:
            handle.remove()
    assert not last.self_attn._forward_pre_hooks
    torch.testing.assert_close(found[0], expected)


def test_features_that_are_too_large_to_keep_are_encoded_again_and_give_the_same(bound) -> None:
    processor, _ = bound
    kept, again = (
        processor(text="<video>\nWhat?", videos=[clip(24)], return_scenes=True, max_feature_bytes=size)
        for size in (1 << 30, 1)
    )
    assert torch.equal(kept["scenes"][0]["indices"], again["scenes"][0]["indices"])


@pytest.mark.parametrize("name", ["question", "neutral_question", "prompt"])
def test_a_question_over_the_models_context_is_refused_before_anything_is_read(bound, name) -> None:
    processor, _ = bound
    limit = processor.context_length
    long = "word " * limit
    text = f"<video>\n{long if name == 'prompt' else 'What moves?'}"
    given = {} if name == "prompt" else {name: long}
    num_tokens = len(processor.tokenizer(long.strip() if name == "prompt" else long)["input_ids"])
    with pytest.raises(ValueError, match=f"A question takes {num_tokens} tokens, but the model's context has {limit}"):
        processor(text=text, videos=["no/such/file.mp4"], **given)
    # A scorer reads the question, and not the model.
    if name == "question":
        other = copy.copy(processor)
        other.question_scorer = lambda frames, question: frames.float().mean(dim=(1, 2, 3))
        assert other(text=text, videos=[clip(24)], question=long)["input_ids"]


def test_an_encoded_videos_own_neutral_question_is_refused_before_it_is_scored(bound) -> None:
    processor, _ = bound
    encoded = processor.encode_video(clip(24), neutral_question="word " * processor.context_length)
    with pytest.raises(ValueError, match="A question takes"):
        processor(text="<video>\nWhat moves?", videos=[encoded])


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
