"""Answers: every way of generating, with videos and images, alone and in batches."""

import pytest
import torch
import transformers
from fila_video.layer_compression_fila_video import CACHE_ARGUMENT as CACHE
from helpers.tiny_models import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    left_padded,
    prompt,
    random_frames,
    random_videos,
    tiny_clip_llama_config,
    tiny_config,
    tiny_model,
    tokens_of,
    video_batch,
)
from transformers import GenerationConfig, StaticCache
from transformers.generation.streamers import BaseStreamer

NEW = 6
GREEDY = {"do_sample": False, "min_new_tokens": NEW, "max_new_tokens": NEW}


def answer(model, inputs: dict, **kwargs) -> torch.Tensor:
    """The new tokens only."""
    output = model.generate(**inputs, **(GREEDY | kwargs))
    return output[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else output


def mixed_batch(config) -> tuple[dict, list[dict]]:
    """
    Four prompts that share their visuals unevenly (two videos, none, a video between images, an image), as a batch and
    one by one.
    """
    parts = [("ab", 2, "cd", 1, "?"), ("just words",), ("image", "e", 3, "fg", "image", "h"), ("q", "image", "?")]
    rows = [prompt(*row, config=config) for row in parts]
    videos = random_videos([2, 1, 3], config)
    images = random_frames(3, config, seed=9)
    batch = left_padded(rows) | videos | {"pixel_values": images}
    singles, next_video, next_image = [], 0, 0
    for row, ids in zip(parts, rows, strict=True):
        single = left_padded([ids])
        scenes = [part for part in row if isinstance(part, int)]
        if scenes:
            chosen = slice(next_video, next_video + len(scenes))
            frames = max(scenes) * config.scene_size
            single["pixel_values_videos"] = videos["pixel_values_videos"][chosen, :frames]
            single["video_num_scenes"] = videos["video_num_scenes"][chosen]
            next_video += len(scenes)
        if "image" in row:
            single["pixel_values"] = images[next_image : next_image + row.count("image")]
            next_image += row.count("image")
        singles.append(single)
    return batch, singles


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_greedy_search_takes_the_most_likely_token_of_each_forward(model) -> None:
    inputs = video_batch(model.config, (2,))
    expected = answer(model, inputs)
    ids = inputs["input_ids"]
    for _ in range(NEW):
        visuals = {name: inputs[name] for name in ("pixel_values_videos", "video_num_scenes")}
        logits = model(input_ids=ids, **visuals).logits[:, -1]
        logits[:, TEXT_SIZES["eos_token_id"]] = -torch.inf  # as `min_new_tokens` does
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    assert ids[:, -NEW:].tolist() == expected.tolist()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 3}])
def test_a_batch_answers_like_each_prompt_alone(model, use_cache, options) -> None:
    """With two videos in one prompt, none in another and images between: every copy of a prompt gets its own."""
    batch, singles = mixed_batch(model.config)
    together = answer(model, batch, use_cache=use_cache, **options)
    alone = torch.cat([answer(model, single, use_cache=use_cache, **options) for single in singles])
    assert together.tolist() == alone.tolist()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "top_k": 1, "num_return_sequences": 2}],
)
def test_visuals_given_to_generate_act_like_embeddings_that_hold_them_already(model, use_cache, options) -> None:
    """The embeddings need no expansion of visuals, so they show where each copy's images and videos belong."""
    batch, _ = mixed_batch(model.config)
    output = model(**batch)
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach()
    embeds[batch["input_ids"] == VIDEO] = torch.cat(output.video_hidden_states).detach()
    embeds[batch["input_ids"] == IMAGE] = torch.cat(output.image_hidden_states).detach()
    ready = {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"]}
    expected = answer(model, ready, use_cache=use_cache, **options)
    assert answer(model, batch, use_cache=use_cache, **options).tolist() == expected.tolist()


def test_sampling_repeats_with_the_seed_and_gives_as_many_answers_as_asked(model) -> None:
    batch, _ = mixed_batch(model.config)
    answers = []
    for _ in range(2):
        transformers.set_seed(3)
        answers.append(answer(model, batch, do_sample=True, num_return_sequences=3))
    assert answers[0].shape == (12, NEW) and torch.equal(*answers)
    assert len({tuple(row) for row in answers[0][:3].tolist()}) > 1


def test_beams_that_sample(model) -> None:
    batch, _ = mixed_batch(model.config)
    assert answer(model, batch, do_sample=True, num_beams=2, num_return_sequences=2).shape == (8, NEW)


def test_features_of_encoded_frames_answer_like_their_pixels(model) -> None:
    inputs = video_batch(model.config, (2, 1, 3))
    pixels = inputs.pop("pixel_values_videos")
    features = model.encode_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    for options in ({}, {"use_cache": False}, {"num_beams": 2, "num_return_sequences": 2}):
        from_pixels = answer(model, inputs | {"pixel_values_videos": pixels}, **options)
        assert from_pixels.tolist() == answer(model, inputs | {"frame_features": features}, **options).tolist()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_videos_are_encoded_once_an_answer(model, use_cache, num_beams, monkeypatch) -> None:
    calls = []
    encode = model.model._encode_frames
    monkeypatch.setattr(model.model, "_encode_frames", lambda *args, **kw: calls.append(1) or encode(*args, **kw))
    answer(model, video_batch(model.config), use_cache=use_cache, num_beams=num_beams)
    assert len(calls) == 1


def test_absent_visuals_may_be_given_as_none(model) -> None:
    inputs = video_batch(model.config)
    none = {"pixel_values": None, "frame_features": None}
    assert answer(model, inputs | none).tolist() == answer(model, inputs).tolist()
    words = left_padded([prompt("hello", config=model.config)])
    none |= {"pixel_values_videos": None, "video_num_scenes": None}
    assert answer(model, words | none).tolist() == answer(model, words).tolist()


@pytest.mark.parametrize("num_beams", [1, 2])
def test_embeddings_instead_of_token_ids(model, num_beams) -> None:
    batch, _ = mixed_batch(model.config)
    expected = answer(model, batch, num_beams=num_beams)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    inputs = {name: value for name, value in batch.items() if name != "input_ids"} | {"inputs_embeds": embeds}
    assert answer(model, inputs, num_beams=num_beams).tolist() == expected.tolist()


@pytest.mark.parametrize("size", [5, 16, 100])
def test_a_prompt_can_be_read_in_chunks(model, size) -> None:
    batch, _ = mixed_batch(model.config)
    if transformers.__version__ < "5.23":
        # It drops images and videos of every model when it reads in chunks.
        with pytest.raises(ValueError, match="drops images and videos"):
            answer(model, batch, prefill_chunk_size=size)
        return
    assert answer(model, batch, prefill_chunk_size=size).tolist() == answer(model, batch).tolist()


@pytest.mark.parametrize("implementation", ["static", "dynamic"])
def test_every_cache_gives_the_same_answer(model, implementation) -> None:
    batch, _ = mixed_batch(model.config)
    options = {"cache_implementation": implementation, "disable_compile": True}
    assert answer(model, batch, **options).tolist() == answer(model, batch).tolist()


def test_a_compiled_static_cache_gives_the_same_answer(model) -> None:
    inputs = video_batch(model.config)
    expected = answer(model, inputs)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=inputs["input_ids"].shape[1] + NEW)
    compiled = torch.compile(model.forward, backend="eager", fullgraph=True)
    with torch.no_grad():
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        logits = model(**inputs, past_key_values=cache).logits[:, -1]
        tokens = []
        for _ in range(NEW):
            logits[:, TEXT_SIZES["eos_token_id"]] = -torch.inf
            ids = logits.argmax(-1, keepdim=True)
            tokens.append(ids)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            position_ids = mask.sum(-1, keepdim=True) - 1
            logits = compiled(
                input_ids=ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache
            ).logits[:, -1]
    assert torch.cat(tokens, dim=1).tolist() == expected.tolist()


def test_an_answer_continues_from_its_cache(model) -> None:
    inputs = video_batch(model.config)
    whole = model.generate(**inputs, **GREEDY)
    three = {"do_sample": False, "min_new_tokens": 3, "max_new_tokens": 3}
    half = model.generate(**inputs, **three, return_dict_in_generate=True)
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], dim=1)
    rest = model.generate(
        input_ids=half.sequences,
        attention_mask=mask,
        **three,
        **{CACHE: half[CACHE]},
    )
    assert rest.tolist() == whole.tolist()


def test_a_second_question_about_the_same_video_uses_the_cache(model) -> None:
    config = model.config
    first = video_batch(config, (2,))
    half = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    more = torch.tensor([prompt("and then?", config=config)])
    ids = torch.cat([half.sequences, more], dim=1)
    continued = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **GREEDY, **{CACHE: half[CACHE]})
    afresh = model.generate(**(first | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}), **GREEDY)
    assert continued.tolist() == afresh.tolist()


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant": True}])
def test_drafted_tokens_do_not_change_a_greedy_answer(model, options) -> None:
    options = dict(options)
    if options.pop("assistant", False):
        options["assistant_model"] = tiny_model(seed=1)
    inputs = video_batch(model.config, (2,))
    assert answer(model, inputs, **options).tolist() == answer(model, inputs).tolist()


def test_scores_and_hidden_states_come_on_demand(model) -> None:
    inputs = video_batch(model.config)
    options = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = model.generate(**inputs, **GREEDY, **options, output_hidden_states=True)
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == NEW
    assert len(output.hidden_states[0]) == 3
    assert output.hidden_states[0][0].shape == (2, inputs["input_ids"].shape[1], 48)
    eager = tiny_model(tiny_config(attn_implementation="eager"))
    eager.set_attn_implementation("eager")
    output = eager.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_attentions=True)
    assert output.attentions[0][0].shape[:2] == (2, 4)


def test_a_streamer_sees_every_token(model) -> None:
    class Tokens(BaseStreamer):
        def __init__(self) -> None:
            self.seen = []

        def put(self, value) -> None:
            self.seen += value.flatten().tolist()

        def end(self) -> None:
            self.seen.append("end")

    inputs, tokens = video_batch(model.config, (2,)), Tokens()
    output = model.generate(**inputs, **GREEDY, streamer=tokens)
    assert tokens.seen == [*output[0].tolist(), "end"]


def test_only_the_last_logits_are_computed_while_generating(model, monkeypatch) -> None:
    lengths = []
    head = model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: lengths.append(hidden.shape[1]) or head(hidden))
    answer(model, video_batch(model.config))
    assert lengths == [1] * NEW


def test_another_tower_and_language_model_generate() -> None:
    model = tiny_model(tiny_clip_llama_config())
    batch, singles = mixed_batch(model.config)
    together = answer(model, batch, num_beams=2)
    assert together.tolist() == torch.cat([answer(model, single, num_beams=2) for single in singles]).tolist()


def test_a_saved_generation_config_comes_back(tmp_path) -> None:
    model = tiny_model()
    model.generation_config = GenerationConfig(max_new_tokens=3, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).generation_config.max_new_tokens == 3


def test_outputs_of_the_encoder_may_be_used_for_several_answers(model) -> None:
    inputs = video_batch(model.config)
    visuals = {name: inputs.pop(name) for name in ("pixel_values_videos", "video_num_scenes")}
    outputs = {"video": model.get_video_features(**visuals)}
    first, second = (
        model.generate(**inputs, mm_encoder_outputs=outputs, num_beams=2, max_new_tokens=3) for _ in range(2)
    )
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("form", ["pixels", "features"])
def test_what_a_caller_gave_of_the_encoder_is_left_as_it_was(model, form) -> None:
    inputs = left_padded([prompt("image", "ask", 2, "what", config=model.config)])
    videos = random_videos([2], model.config)
    if form == "features":
        pixels = videos.pop("pixel_values_videos")
        videos["frame_features"] = model.encode_frames(pixels[0])[None]
    images = random_frames(1, model.config)
    given = {"image": model.get_image_features(images)}
    expected = answer(model, inputs | videos | {"pixel_values": images})
    for _ in range(2):
        assert torch.equal(answer(model, inputs | videos, mm_encoder_outputs=given), expected)
        assert list(given) == ["image"]
    nothing = answer(model, inputs | videos | {"pixel_values": images}, mm_encoder_outputs=None)
    assert torch.equal(nothing, expected)
    both = {"video": model.get_video_features(**videos), **given}
    with pytest.raises(ValueError, match=r"twice|both"):
        answer(model, inputs | videos, mm_encoder_outputs=both)


def test_beams_refuse_a_video_that_is_split_between_prompts(model) -> None:
    config = model.config
    ids = torch.full((2, 15), config.video_token_id)  # videos of 10 and 19 tokens in prompts of 15 and 14
    ids[1, 0] = 50
    with pytest.raises(ValueError, match=r"15 video tokens.*\[10, 19\]"):
        model.generate(input_ids=ids, **random_videos([1, 2], config), num_beams=2, max_new_tokens=1)


def test_beams_refuse_another_number_of_tokens_than_features(model) -> None:
    inputs = video_batch(model.config, (2,))
    inputs["input_ids"][inputs["input_ids"] == model.config.video_token_id] = 50
    with pytest.raises(ValueError, match="tokens: 0, features: 19"):
        model.generate(**inputs, num_beams=2, max_new_tokens=1)


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}, {"prefill_chunk_size": 4}])
def test_a_prompt_about_a_visual_that_never_came_is_refused(model, modality, embedded, options) -> None:
    part, count = ("image", tokens_of(model.config, 1)) if modality == "image" else (2, tokens_of(model.config, 2))
    blind = left_padded([prompt("about this", part, "what?", config=model.config)])
    if embedded:
        blind["inputs_embeds"] = model.get_input_embeddings()(blind.pop("input_ids"))
    with pytest.raises(
        ValueError, match=f"holds {count} {modality} tokens, but no {modality} came.*Pass `pixel_values"
    ):
        answer(model, blind, **options)


def test_a_drafting_model_and_a_follow_up_without_its_video_are_refused_too(model) -> None:
    config = model.config
    first = video_batch(config, (2,))
    half = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    more = torch.tensor([prompt("and", 1, "?", config=config)])
    ids = torch.cat([half.sequences, more], dim=1)
    for given in (ids, more):  # the whole text, or what is new in it
        with pytest.raises(ValueError, match="holds 10 video tokens"):
            model.generate(input_ids=given, attention_mask=torch.ones_like(ids), **GREEDY, **{CACHE: half[CACHE]})
    with pytest.raises(ValueError, match="holds 19 video tokens"):
        model.generate(input_ids=first["input_ids"], assistant_model=tiny_model(seed=1), **GREEDY)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_taken_under_the_old_and_the_new_name(model, name) -> None:
    inputs = video_batch(model.config, (2,))
    for forward in (model, model.model):
        with torch.no_grad():
            cache = forward(**inputs, use_cache=True)[CACHE]
            following = {"input_ids": torch.tensor([[50]]), name: cache, "use_cache": True}
            assert forward(**following)[CACHE].get_seq_length() == inputs["input_ids"].shape[1] + 1
            with pytest.raises(ValueError, match="two names of one argument"):
                forward(input_ids=torch.tensor([[50]]), cache=cache, past_key_values=cache)
