"""LP-Comp: which tokens enter which layer, and that caches, batches and padding change nothing."""

import copy

import pytest
import torch
from fila_video.layer_compression_fila_video import (
    CACHE_ARGUMENT,
    CompressedCache,
    CompressionSchedule,
    check_decoder,
    compressed_forward,
    tokens_per_layer,
)
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from helpers.tiny_models import (
    VIDEO,
    prompt,
    random_videos,
    tiny_model,
    tiny_text_config,
    tiny_vision_config,
    video_batch,
)
from huggingface_hub.errors import StrictDataclassError
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AfmoeConfig,
    AutoModel,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    NanoChatConfig,
    OlmoConfig,
    Qwen2Config,
    Qwen3Config,
    Starcoder2Config,
)
from transformers.cache_utils import DynamicCache

NUM_LAYERS = 6
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
}
SCHEDULE = CompressionSchedule(NUM_LAYERS, side=2)
BOUNDARIES = SCHEDULE.boundaries()


def language_model(name: str = "qwen2", attention: str = "sdpa") -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModel.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation=attention).eval()


def sequence(num_groups: int, before: int = 3, after: int = 4) -> list[int]:
    """The last layer of each token of `before` words, `num_groups` groups of four and `after` words."""
    return [NUM_LAYERS] * before + SCHEDULE.scene() * num_groups + [NUM_LAYERS] * after


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of last layers, padded on the left, and their mask."""
    longest = max(map(len, rows))
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return torch.tensor([[NUM_LAYERS] * (longest - len(row)) + row for row in rows]), mask


def looped(model: torch.nn.Module, embeds: torch.Tensor, last_layer: list[int]) -> torch.Tensor:
    """One row, layer by layer, each with the tokens that enter it, at positions from 0: `(num_left, hidden)`."""
    hidden, layers = embeds, torch.tensor(last_layer)
    for number, layer in enumerate(model.layers, start=1):
        stays = layers >= number
        hidden, layers = hidden[stays], layers[stays]
        count = len(hidden)
        positions = torch.arange(count)[None]
        mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
        cosines = model.rotary_emb(hidden[None], positions)
        hidden = layer(hidden[None], attention_mask=mask, position_ids=positions, position_embeddings=cosines)[0]
    return model.norm(hidden)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("round", "16 16 16 15 15 14 14 13 12 12 11 10 9 9 8 7 6 5 5 4 3 3 2 2 1 1 1 1"),
        ("ceil", "16 16 16 16 15 15 14 14 13 12 11 11 10 9 8 7 7 6 5 4 4 3 3 2 2 2 2 1"),
    ],
)
def test_sixteen_tokens_enter_28_layers_as_xcomp_released_and_printed_it(rounding, expected) -> None:
    assert tokens_per_layer(16, 28, rounding) == list(map(int, expected.split()))


def test_where_the_cosine_vanishes_a_half_is_rounded_up() -> None:
    assert tokens_per_layer(4, 26)[12] == 3  # 1.5 * 0 + 2.5, of which floats make a little less


def test_tokens_fall_away_after_the_layers_that_xcomp_names() -> None:
    assert CompressionSchedule(28, side=4).boundaries() == [3, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 19, 20, 22, 24]


@pytest.mark.parametrize(
    ("left", "kept"), [(8, {2, 5, 7, 9, 10, 12, 14, 16}), (4, {5, 9, 12, 16}), (2, {5, 16}), (1, {16})]
)
def test_uniform_keeping_leaves_the_places_of_the_ablation(left, kept) -> None:
    schedule = CompressionSchedule(28, side=4, keep="uniform")
    layer = tokens_per_layer(16, 28).index(left) + 1
    assert {place for place, last in enumerate(schedule.scene(), start=1) if last >= layer} == kept


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 14])
@pytest.mark.parametrize("rounding", ["round", "ceil"])
@pytest.mark.parametrize("keep", ["suffix", "uniform"])
def test_as_many_tokens_enter_each_layer_as_the_formula_says(side, rounding, keep) -> None:
    if keep == "uniform" and side > 7:
        pytest.skip("the ablation's search is slow for large groups")
    last = CompressionSchedule(28, side, rounding=rounding, keep=keep).scene()
    entering = [sum(layer >= number for layer in last) for number in range(1, 29)]
    assert entering == [side**2, *tokens_per_layer(side**2, 28, rounding)[1:]]  # the first layer sees them all


def test_a_scene_that_its_groups_do_not_fill_ends_in_a_smaller_one() -> None:
    sixteen, nine = CompressionSchedule(28, 4).scene(), CompressionSchedule(28, 3).scene()
    assert CompressionSchedule(28, 5, group_size=16).scene() == [*sixteen, *nine]


@pytest.mark.parametrize(
    ("newline_position", "expected"),
    [
        ("none", [1, 3, 4, 6, 1, 3, 4, 6]),
        ("video", [1, 3, 4, 6, 1, 3, 4, 6, 6]),
        ("frame", [1, 3, 4, 6, 6, 1, 3, 4, 6, 6]),
        ("grid", [1, 3, 6, 4, 6, 6, 1, 3, 6, 4, 6, 6]),
    ],
)
def test_newlines_never_fall_away(newline_position, expected) -> None:
    assert CompressionSchedule(6, 2, newline_position).video(len(expected)) == expected


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_layers_see_what_a_loop_over_them_gives_them(name, attention) -> None:
    model, last_layer = language_model(name, attention), sequence(num_groups=3)
    embeds = torch.randn(1, len(last_layer), 32)
    with torch.no_grad():
        hidden, places, valid, _ = compressed_forward(model, embeds, None, torch.tensor([last_layer]), BOUNDARIES)
        expected = looped(model, embeds[0], last_layer)
    assert valid.all()
    assert places[0].tolist() == [place for place, last in enumerate(last_layer) if last == NUM_LAYERS]
    torch.testing.assert_close(hidden[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_where_nothing_falls_away_it_is_the_plain_model(name) -> None:
    model, embeds = language_model(name), torch.randn(2, 9, 32)
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    with torch.no_grad():
        expected = model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        hidden, _, _, _ = compressed_forward(model, embeds, mask, torch.full((2, 9), NUM_LAYERS), [])
        staged, _, _, _ = compressed_forward(model, embeds, mask, None, BOUNDARIES)
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(staged[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_are_what_they_are_alone() -> None:
    model = language_model()
    rows = [sequence(num_groups=count, before=before) for count, before in ((1, 2), (3, 1), (2, 7), (5, 0))]
    embeds = [torch.randn(1, len(row), 32) for row in rows]
    last_layer, mask = padded(rows)
    batch = torch.zeros(4, mask.shape[1], 32)
    for row, embed in enumerate(embeds):
        batch[row, -embed.shape[1] :] = embed[0]
    with torch.no_grad():
        hidden, _, valid, _ = compressed_forward(model, batch, mask, last_layer, BOUNDARIES)
        for row, embed in enumerate(embeds):
            alone, _, _, _ = compressed_forward(model, embed, None, torch.tensor([rows[row]]), BOUNDARIES)
            torch.testing.assert_close(hidden[row][valid[row]], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [(1, 1, 1), (3,), (2, 1)])
def test_going_on_from_a_cache_equals_starting_anew(chunks) -> None:
    model = language_model()
    rows = [sequence(num_groups=2), sequence(num_groups=4, before=1)]
    last_layer, mask = padded(rows)
    more = sum(chunks)
    embeds = torch.randn(2, mask.shape[1] + more, 32)
    whole_mask = torch.cat([mask, torch.ones(2, more, dtype=mask.dtype)], dim=1)
    whole_last = torch.cat([last_layer, torch.full((2, more), NUM_LAYERS)], dim=1)
    cache, done = CompressedCache(model.config), mask.shape[1]
    with torch.no_grad():
        expected = compressed_forward(model, embeds, whole_mask, whole_last, BOUNDARIES)[0]
        compressed_forward(model, embeds[:, :done], mask, last_layer, BOUNDARIES, cache)
        for size in chunks:
            step = embeds[:, done : done + size]
            done += size
            hidden, _, _, _ = compressed_forward(model, step, whole_mask[:, :done], None, BOUNDARIES, cache)
    torch.testing.assert_close(hidden, expected[:, -chunks[-1] :], atol=1e-5, rtol=1e-5)


def test_a_second_video_falls_away_in_a_later_turn_too() -> None:
    model = language_model()
    first, second = sequence(num_groups=2), sequence(num_groups=3)
    embeds = torch.randn(1, len(first) + len(second), 32)
    cache = CompressedCache(model.config)
    with torch.no_grad():
        compressed_forward(model, embeds[:, : len(first)], None, torch.tensor([first]), BOUNDARIES, cache)
        mask = torch.ones(1, embeds.shape[1])
        hidden, _, _, _ = compressed_forward(
            model, embeds[:, len(first) :], mask, torch.tensor([second]), BOUNDARIES, cache
        )
    # Layers cache what entered them: words, and of each of five groups as many tokens as the formula says.
    counts = [14 + 5 * count for count in tokens_per_layer(4, NUM_LAYERS)]
    assert [layer.keys.shape[2] for layer in cache.layers] == counts
    assert hidden.shape[1] == counts[-1] - (7 + 2)


def test_a_cache_that_is_cropped_reordered_and_repeated_goes_on_right() -> None:
    model = language_model()
    last_layer, mask = padded([sequence(num_groups=1), sequence(num_groups=3)])
    embeds, steps = torch.randn(2, mask.shape[1], 32), torch.randn(2, 3, 32)
    ones = torch.ones(2, 3, dtype=mask.dtype)

    def prefilled() -> CompressedCache:
        cache = CompressedCache(model.config)
        compressed_forward(model, embeds, mask, last_layer, BOUNDARIES, cache)
        return cache

    with torch.no_grad():
        cache = prefilled()
        one = torch.cat([mask, ones[:, :1]], dim=1)
        expected = compressed_forward(model, steps[:, :1], one, None, BOUNDARIES, cache)[0]
        cropped = prefilled()
        wrong = torch.cat([mask, ones], dim=1)
        compressed_forward(model, torch.randn(2, 3, 32), wrong, None, BOUNDARIES, cropped)
        cropped.crop(-3)
        torch.testing.assert_close(
            compressed_forward(model, steps[:, :1], one, None, BOUNDARIES, cropped)[0], expected, atol=1e-5, rtol=1e-5
        )
        swapped = prefilled()
        swapped.reorder_cache(torch.tensor([1, 0]))
        hidden = compressed_forward(model, steps[:, :1].flip(0), one.flip(0), None, BOUNDARIES, swapped)[0]
        torch.testing.assert_close(hidden.flip(0), expected, atol=1e-5, rtol=1e-5)
        repeated = prefilled()
        repeated.batch_repeat_interleave(2)
        repeated.batch_select_indices(torch.tensor([0, 3]))
        hidden = compressed_forward(model, steps[:, :1], one, None, BOUNDARIES, repeated)[0]
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


def test_a_cache_that_was_reset_knows_nothing_of_the_padding_before() -> None:
    model, cache = language_model(), CompressedCache(CONFIGS["qwen2"])
    last_layer, mask = padded([sequence(num_groups=1), sequence(num_groups=3)])
    embeds = torch.randn(2, mask.shape[1], 32)
    with torch.no_grad():
        compressed_forward(model, embeds, mask, last_layer, BOUNDARIES, cache)
        cache.reset()
        turned = (embeds.flip(0), mask.flip(0), last_layer.flip(0), BOUNDARIES)
        hidden, _, valid, _ = compressed_forward(model, *turned, cache)
        expected, _, same, _ = compressed_forward(model, *turned)
    assert torch.equal(valid, same)
    torch.testing.assert_close(hidden[valid], expected[valid], atol=1e-5, rtol=1e-5)


def test_gradients_reach_what_has_fallen_away() -> None:
    model, last_layer = language_model().train(), sequence(num_groups=2)
    embeds = torch.randn(1, len(last_layer), 32, requires_grad=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    hidden, _, _, _ = compressed_forward(model, embeds, None, torch.tensor([last_layer]), BOUNDARIES)
    hidden[:, -1].sum().backward()
    assert (embeds.grad.abs().sum(-1) > 0).all()


def test_other_caches_masks_and_language_models_are_refused_by_name() -> None:
    model = language_model()
    embeds = torch.randn(1, 4, 32)
    with pytest.raises(ValueError, match="CompressedCache, got DynamicCache"):
        compressed_forward(model, embeds, None, None, BOUNDARIES, DynamicCache(config=model.config))
    with pytest.raises(ValueError, match="2-D, got 4-D"):
        compressed_forward(model, embeds, torch.ones(1, 1, 4, 4), None, BOUNDARIES)
    with pytest.raises(ValueError, match="LayerNorm"):
        check_decoder(torch.nn.LayerNorm(4))
    sliding = AutoModel.from_config(MistralConfig(**SIZES, sliding_window=16))
    with pytest.raises(ValueError, match="sliding_window=16"):
        check_decoder(sliding)
    scaled = AutoModel.from_config(GraniteConfig(**SIZES, embedding_multiplier=12.0))
    with pytest.raises(ValueError, match=r"multiplies embeddings by 12\.0"):
        check_decoder(scaled)
    for name in CONFIGS:
        check_decoder(language_model(name))


def test_language_models_that_do_more_than_run_their_layers_are_refused_by_name() -> None:
    turned = AutoModel.from_config(Gemma3TextConfig(**SIZES, head_dim=8, layer_types=["full_attention"] * NUM_LAYERS))
    with pytest.raises(
        ValueError, match="Gemma3TextModel, since its rotary embedding takes x, position_ids, layer_type"
    ):
        check_decoder(turned)
    normed = AutoModel.from_config(NanoChatConfig(**SIZES, final_logit_softcapping=None, pad_token_id=0))
    with pytest.raises(ValueError, match="NanoChatModel, since its norm does not stand behind the layers alone"):
        check_decoder(normed)
    factor = AutoModel.from_config(AfmoeConfig(**SIZES, layer_types=["full_attention"] * NUM_LAYERS, num_experts=2))
    with pytest.raises(ValueError, match="AfmoeModel, since its forward also takes hidden_size, mup_enabled"):
        check_decoder(factor)
    dropping = AutoModel.from_config(Starcoder2Config(**SIZES))
    with pytest.raises(ValueError, match="Starcoder2Model, since its forward also takes dropout, embedding_dropout"):
        check_decoder(dropping)
    with_more = language_model()
    with_more.embed_images = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match="Qwen2Model, since it also has embed_images"):
        check_decoder(with_more)


def compressing(**kwargs) -> FilaVideoForConditionalGeneration:
    """A whole model of six layers; its scenes have nine tokens each and a newline ends a video."""
    text_config = tiny_text_config(num_hidden_layers=6)
    return tiny_model(text_config=text_config, **({"layer_compression": "cosine"} | kwargs))


def test_groups_of_one_token_are_the_plain_model() -> None:
    batch = video_batch(compressing().config)
    plain = compressing(layer_compression=None)(**batch).logits
    outputs = compressing(layer_compression_group=1)(**batch)
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(outputs.logits[mask], plain[mask], atol=1e-5, rtol=1e-5)
    assert outputs.kept_tokens is None


def test_a_language_model_whose_norm_has_no_weight_is_compressed() -> None:
    sizes = {**SIZES, "num_hidden_layers": 6, "vocab_size": tiny_text_config().vocab_size}
    config, plain = OlmoConfig(**sizes), tiny_model(text_config=OlmoConfig(**sizes))
    grouped, compressed = (
        tiny_model(text_config=config, layer_compression="cosine", **group)
        for group in ({"layer_compression_group": 1}, {})
    )
    batch = video_batch(plain.config)
    mask, expected = batch["attention_mask"].bool(), plain(**batch).logits
    torch.testing.assert_close(grouped(**batch).logits[mask], expected[mask], atol=1e-5, rtol=1e-5)
    assert compressed(**batch).kept_tokens.shape[1] < mask.shape[1]


def test_a_cache_is_kept_without_being_asked_for_where_the_model_is_not_trained() -> None:
    model = compressing()
    batch = video_batch(model.config)
    assert isinstance(model.eval()(**batch).past_key_values, CompressedCache)
    model.train()
    assert model(**batch).past_key_values is None
    assert isinstance(model(**batch, use_cache=True).past_key_values, CompressedCache)


@pytest.mark.slow
def test_a_compiled_model_computes_what_the_plain_one_does() -> None:
    """With breaks in the graph: how many tokens stay depends on the mask, so one whole graph cannot be had."""
    model = compressing()
    batch = video_batch(model.config, (3, 1))
    torch.compiler.reset()
    with torch.no_grad():
        plain, compiled = model(**batch), torch.compile(model, backend="eager")(**batch)
    torch.compiler.reset()
    mask = plain.kept_tokens >= 0
    assert torch.equal(compiled.kept_tokens, plain.kept_tokens)
    torch.testing.assert_close(compiled.logits[mask], plain.logits[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("newline_position", ["video", "grid", "frame", "none"])
@pytest.mark.parametrize("group", [None, 4])
def test_of_every_scene_one_token_a_group_is_left_and_all_newlines(newline_position, group) -> None:
    model = compressing(newline_position=newline_position, layer_compression_group=group)
    batch = video_batch(model.config, (3, 1))
    outputs = model(**batch)
    assert outputs.logits.shape[:2] == outputs.kept_tokens.shape
    groups = 1 if group is None else 3  # of 4, 4 and 1 tokens
    newlines = {"video": (1, 1), "grid": (9, 3), "frame": (3, 1), "none": (0, 0)}[newline_position]
    for row, num_scenes in enumerate((3, 1)):
        kept = outputs.kept_tokens[row][outputs.kept_tokens[row] >= 0]
        left = batch["input_ids"][row][kept]
        assert (left == VIDEO).sum() == num_scenes * groups + newlines[row]
        assert (kept[1:] > kept[:-1]).all()
        words = batch["attention_mask"][row].bool() & (batch["input_ids"][row] != VIDEO)
        assert set(words.nonzero().flatten().tolist()) <= set(kept.tolist())


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"prompt_lookup_num_tokens": 2}]
)
def test_generate_answers_with_a_cache_as_without_and_a_batch_as_its_rows(options) -> None:
    model = compressing()
    batch = video_batch(model.config, (3, 1, 4))
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, **options}
    rows = []
    for row, count in enumerate((3, 1, 4)):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        mask = one["attention_mask"].bool()
        one |= {"input_ids": one["input_ids"][mask][None], "attention_mask": one["attention_mask"][mask][None]}
        one["pixel_values_videos"] = one["pixel_values_videos"][:, : count * model.config.scene_size]
        rows.append(model.generate(**one, **settings)[:, one["input_ids"].shape[1] :])
    if "prompt_lookup_num_tokens" in options:  # one prompt at a time
        single = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
        assert rows[-1].tolist() == model.generate(**one, **single)[:, one["input_ids"].shape[1] :].tolist()
        return
    answers = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
    assert answers.tolist() == torch.cat(rows).tolist()
    if not options:
        assert answers.tolist() == model.generate(**batch, **settings, use_cache=False)[:, -6:].tolist()


def test_a_later_turn_goes_on_from_the_cache() -> None:
    model = compressing()
    batch = video_batch(model.config, (3,))
    cache = CompressedCache(model.config.text_config)
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    said = model.generate(**batch, **settings, **{CACHE_ARGUMENT: cache})
    asked = torch.cat([said, torch.tensor([prompt("and then?", config=model.config)])], dim=1)
    going_on = model.generate(input_ids=asked, **settings, **{CACHE_ARGUMENT: cache})
    batch |= {"input_ids": asked, "attention_mask": torch.ones_like(asked)}
    assert going_on.tolist() == model.generate(**batch, **settings).tolist()


def test_a_cache_that_is_given_is_read_also_where_none_is_made() -> None:
    model = compressing()
    batch = video_batch(model.config, (3,))
    with torch.no_grad():
        cache = model(**batch, use_cache=True)[CACHE_ARGUMENT]
    word = torch.tensor([prompt("w", config=model.config)])
    whole = torch.cat([batch["input_ids"], word], dim=1)
    expected = model(**batch | {"input_ids": whole, "attention_mask": torch.ones_like(whole)}).logits[:, -1]
    for training in (False, True):
        model.train(training)
        found = model(input_ids=word, use_cache=False, **{CACHE_ARGUMENT: copy.deepcopy(cache)}).logits[:, -1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_positions_that_compression_would_not_use_are_refused() -> None:
    model = compressing()
    batch = video_batch(model.config, (2, 3))
    counted = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    torch.testing.assert_close(model(**batch, position_ids=counted).logits, model(**batch).logits)
    with pytest.raises((ValueError, RuntimeError), match="Several texts in one row"):
        model(**batch, position_ids=counted % 5)


def test_labels_that_are_shifted_already_give_the_same_loss() -> None:
    model = compressing()
    batch = video_batch(model.config, (3, 3))
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == VIDEO, -100)
    shifted = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    found = model(**batch, labels=labels, shift_labels=shifted).loss
    torch.testing.assert_close(found, model(**batch, labels=labels).loss)


def test_the_loss_is_of_the_words_that_follow() -> None:
    model = compressing()
    batch = video_batch(model.config, (2, 3))
    labels = batch["input_ids"].masked_fill((batch["input_ids"] == VIDEO) | (batch["attention_mask"] == 0), -100)
    outputs = model(**batch, labels=labels)
    told = [
        (outputs.logits[row, place - 1], labels[row, token])
        for row in range(2)
        for place, token in enumerate(outputs.kept_tokens[row].tolist())
        if place > 0 and outputs.kept_tokens[row, place - 1] >= 0 and token >= 0 and labels[row, token] != -100
    ]
    logits, words = (torch.stack(column) for column in zip(*told, strict=True))
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(logits, words), atol=1e-5, rtol=1e-5)


def test_a_longer_row_of_the_batch_changes_no_loss() -> None:
    """Both rows have 35 tokens, so that none is padding; more of the second one's are left."""
    model = compressing()
    config = model.config
    shorter = prompt("ask", 3, "what", config=config)
    longer = prompt("ask", 1, "x" * (len(shorter) - 3 - len(prompt(1, config=config))), config=config)
    batch = {"input_ids": torch.tensor([shorter, longer])} | random_videos([3, 1], config)
    batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] == VIDEO, -100)
    rows = [{name: values[row : row + 1] for name, values in batch.items()} for row in range(2)]
    counts = (batch["labels"][:, 1:] != -100).sum(dim=1)
    losses = torch.stack([model(**row).loss for row in rows])
    torch.testing.assert_close(model(**batch).loss, (losses * counts).sum() / counts.sum())


def test_training_with_checkpoints_reaches_every_part() -> None:
    model = compressing().train()
    model.gradient_checkpointing_enable()
    batch = video_batch(model.config, (2, 3))
    model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] == VIDEO, -100)).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_logits_of_words_can_be_named_and_of_tokens_that_fall_away_not() -> None:
    model = compressing()
    batch = video_batch(model.config, (2, 3))
    words = (batch["input_ids"] != VIDEO) & batch["attention_mask"].bool()
    outputs = model(**batch)
    kept = outputs.kept_tokens
    expected = outputs.logits[(kept >= 0) & words.gather(1, kept.clamp(min=0))]
    torch.testing.assert_close(model(**batch, logits_to_keep=words).logits, expected)
    torch.testing.assert_close(model(**batch, logits_to_keep=2).logits, outputs.logits[:, -2:])
    with pytest.raises((ValueError, RuntimeError), match="fall away"):
        model(**batch, logits_to_keep=batch["attention_mask"].bool())
    with pytest.raises(ValueError, match="2-D mask"):
        model(**batch, logits_to_keep=torch.tensor([0, 1]))


def test_the_settings_are_saved_and_loaded(tmp_path) -> None:
    model = compressing(layer_compression_group=4, layer_compression_rounding="ceil", layer_compression_keep="uniform")
    model.save_pretrained(tmp_path)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(tmp_path)
    batch = video_batch(model.config)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    assert (loaded.config.layer_compression_group, loaded.config.layer_compression_keep) == (4, "uniform")


@pytest.mark.parametrize(
    ("options", "named"),
    [({"cache_implementation": "static"}, "static"), ({"prefill_chunk_size": 4}, "prefill_chunk_size")],
)
def test_generate_refuses_by_name_what_needs_equal_layers(options, named) -> None:
    model = compressing()
    with pytest.raises(ValueError, match=named):
        model.generate(**video_batch(model.config, (2,)), max_new_tokens=2, **options)
    with pytest.raises(ValueError, match="attentions"):
        model(**video_batch(model.config, (2,)), output_attentions=True)
    with pytest.raises(StrictDataclassError, match="layer_compression_group"):
        compressing(layer_compression_group=0)


def test_the_language_model_computes_and_caches_what_the_schedule_says() -> None:
    """At 28 layers and groups of 16: products of weights, which are in proportion to tokens, and the cache's bytes."""
    text_config = tiny_text_config(num_hidden_layers=28)
    vision_config = tiny_vision_config(image_size=16)  # 4 x 4 tokens a scene
    settings = {"text_config": text_config, "vision_config": vision_config, "pooling_mode": "none"}
    num_scenes, flops, size = 24, {}, {}
    for compression in (None, "cosine"):
        model = tiny_model(layer_compression=compression, **settings)
        batch = video_batch(model.config, (num_scenes,))
        videos = model.get_video_features(batch["pixel_values_videos"], return_dict=True)
        batch = {"input_ids": batch["input_ids"], "mm_encoder_outputs": {"video": videos}, "use_cache": True}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            cache = model.model(**batch)[CACHE_ARGUMENT]
        linear = counter.get_flop_counts()["Global"]
        flops[compression] = linear[torch.ops.aten.mm] + linear[torch.ops.aten.addmm]
        size[compression] = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    words = batch["input_ids"].shape[1] - 16 * num_scenes
    expected = sum(words + num_scenes * count for count in tokens_per_layer(16, 28)) / (28 * (words + 16 * num_scenes))
    assert abs(flops["cosine"] / flops[None] - expected) < 0.01
    assert size["cosine"] / size[None] == pytest.approx(expected)
