"""
`generate` with LP-Comp, case by case as the maintainers test generation: searches, sampling, embeddings, outputs on
demand, caches and drafts. A case that needs equally many tokens in every layer is refused by name.
"""

import pytest
import torch
from fila_video.layer_compression_fila_video import CACHE_ARGUMENT, CompressedCache
from helpers.tiny_models import TEXT_SIZES, VIDEO, prompt, tiny_model, tiny_text_config, video_batch
from transformers.generation.streamers import BaseStreamer

NUM_LAYERS, NEW = 6, 5
GREEDY = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "num_beams": 1}


def compressing(**settings) -> torch.nn.Module:
    """Groups are nine tokens, of which the last of six layers sees one."""
    options = {"layer_compression": "cosine", "text_config": tiny_text_config(num_hidden_layers=NUM_LAYERS)}
    return tiny_model(**options | settings)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return compressing()


@pytest.fixture(scope="module")
def batch(model) -> dict:
    """Two prompts with videos of three scenes and of one, padded on the left."""
    return video_batch(model.config, (3, 1))


def answer(model, inputs: dict, **options) -> torch.Tensor:
    length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    return model.generate(**inputs, **{**GREEDY, **options})[:, length:]


def test_greedy_search_takes_the_most_likely_token_of_each_forward(model, batch) -> None:
    ids = batch["input_ids"]
    mask = batch["attention_mask"]
    for _ in range(NEW):
        logits = model(**{**batch, "input_ids": ids, "attention_mask": mask}).logits[:, -1]
        logits[:, TEXT_SIZES["eos_token_id"]] = -torch.inf  # as `min_new_tokens` does
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    assert answer(model, batch).tolist() == ids[:, -NEW:].tolist()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "top_k": 1}]
)
def test_outputs_on_demand_have_a_step_a_token(model, batch, options, use_cache) -> None:
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = model.generate(**batch, **{**GREEDY, **options}, **wanted, use_cache=use_cache, output_hidden_states=True)
    rows = 2 * options.get("num_beams", 1)
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == NEW
    assert output.logits[0].shape == (rows, model.config.text_config.vocab_size)
    assert torch.equal(output.sequences, model.generate(**batch, **{**GREEDY, **options}))
    for step, states in enumerate(output.hidden_states):
        lengths = [state.shape[1] for state in states]
        assert len(states) == NUM_LAYERS + 1 and all(state.shape[::2] == (rows, 48) for state in states)
        if use_cache and step:
            assert set(lengths) == {1}
        else:
            assert lengths == sorted(lengths, reverse=True) and lengths[-1] < lengths[0]
            assert lengths[0] == batch["input_ids"].shape[1] + (0 if use_cache else step)


def test_sampling_repeats_with_the_seed_and_gives_as_many_answers_as_asked(model, batch) -> None:
    answers = []
    for _ in range(2):
        torch.manual_seed(3)
        answers.append(answer(model, batch, do_sample=True, num_return_sequences=3, temperature=3.0))
    assert torch.equal(*answers) and answers[0].shape == (6, NEW)
    assert len({tuple(row) for row in answers[0].tolist()}) > 2
    torch.manual_seed(3)
    beams = answer(model, batch, do_sample=True, num_beams=2)
    torch.manual_seed(3)
    assert torch.equal(beams, answer(model, batch, do_sample=True, num_beams=2, use_cache=False))


@pytest.mark.parametrize("num_beams", [1, 2])
def test_padding_on_the_left_changes_no_answer(model, batch, num_beams) -> None:
    longer = {name: torch.nn.functional.pad(batch[name], (5, 0)) for name in ("input_ids", "attention_mask")}
    wanted = {**GREEDY, "num_beams": num_beams, "return_dict_in_generate": True, "output_logits": True}
    short, long = (model.generate(**inputs, **wanted) for inputs in (batch, {**batch, **longer}))
    assert torch.equal(short.sequences[:, -NEW:], long.sequences[:, -NEW:])
    for expected, logits in zip(short.logits, long.logits, strict=True):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_eager_attention_answers_as_sdpa_does(model, batch) -> None:
    eager = compressing()
    eager.set_attn_implementation("eager")
    assert torch.equal(answer(model, batch), answer(eager, batch))


@pytest.mark.parametrize("num_beams", [1, 2])
def test_embeddings_of_words_may_be_given_instead_of_their_ids(model, num_beams) -> None:
    ids = torch.tensor([prompt("what is it?", config=model.config)] * 2)
    words = {"inputs_embeds": model.get_input_embeddings()(ids).detach(), "attention_mask": torch.ones_like(ids)}
    expected = answer(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, num_beams=num_beams)
    assert torch.equal(answer(model, words, num_beams=num_beams), expected)


def test_embeddings_with_their_videos_beside_them_answer_as_ids_do(model, batch) -> None:
    """The videos' places in embeddings are found by the embedding of their placeholder."""
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach()
    given = {**batch, "inputs_embeds": embeds}
    del given["input_ids"]
    assert torch.equal(answer(model, given), answer(model, batch))


@pytest.mark.parametrize("implementation", ["dynamic", "static", "offloaded_static", "quantized", "offloaded"])
def test_caches_of_equal_layers_are_refused_by_name(model, batch, implementation) -> None:
    if implementation == "dynamic":
        assert torch.equal(answer(model, batch, cache_implementation="dynamic"), answer(model, batch))
        return
    with pytest.raises(ValueError, match=f"layer_compression.*cache_implementation='{implementation}'"):
        answer(model, batch, cache_implementation=implementation)


def test_each_layer_caches_what_entered_it(model, batch) -> None:
    output = model.generate(**batch, **GREEDY, return_dict_in_generate=True)
    cache = output.get(CACHE_ARGUMENT, output.past_key_values)
    assert isinstance(cache, CompressedCache)
    words = int((batch["input_ids"][0] != VIDEO).sum()) + 1  # the newline embedding of the video never falls away
    # Of a scene's nine tokens all enter the first layer, and then as many as the cosine says.
    for layer, count in enumerate([9, 7, 5, 3, 2, 1]):
        assert cache.layers[layer].keys.shape[-2] == words + 3 * count + NEW - 1


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant": True}])
def test_drafted_tokens_do_not_change_a_greedy_answer(model, options) -> None:
    options = dict(options)
    if options.pop("assistant", False):
        options["assistant_model"] = compressing(seed=1)
    one = video_batch(model.config, (3,))
    assert torch.equal(answer(model, one, **options), answer(model, one))


def test_an_answer_goes_on_from_its_cache(model, batch) -> None:
    first = model.generate(**batch, **{**GREEDY, "max_new_tokens": 3, "min_new_tokens": 3})
    cache = CompressedCache(model.config.text_config)
    said = model.generate(**batch, **{**GREEDY, "max_new_tokens": 2, "min_new_tokens": 2}, **{CACHE_ARGUMENT: cache})
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, 2), value=1)
    rest = {"input_ids": said, "attention_mask": mask, CACHE_ARGUMENT: cache}
    assert torch.equal(model.generate(**rest, **{**GREEDY, "max_new_tokens": 1, "min_new_tokens": 1}), first)


def test_only_the_last_logits_are_computed_while_generating(model, batch, monkeypatch) -> None:
    lengths, head = [], model.lm_head.forward

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        lengths.append(hidden.shape[1])
        return head(hidden)

    monkeypatch.setattr(model.lm_head, "forward", counted)
    answer(model, batch)
    assert lengths == [1] * NEW


def test_a_streamer_sees_every_token(model) -> None:
    class Tokens(BaseStreamer):
        def __init__(self) -> None:
            self.seen = []

        def put(self, value: torch.Tensor) -> None:
            self.seen += value.flatten().tolist()

        def end(self) -> None:
            self.seen.append("end")

    one, tokens = video_batch(model.config, (2,)), Tokens()
    output = model.generate(**one, **GREEDY, streamer=tokens)
    assert tokens.seen == [*output[0].tolist(), "end"]


def test_a_server_with_its_own_attention_and_cache_is_refused_by_name(batch) -> None:
    served = compressing()
    served.model.language_model.config._attn_implementation = "vllm"
    with pytest.raises(ValueError, match=r"vLLM.*`layer_compression`"):
        served(**batch)
