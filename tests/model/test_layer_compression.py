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
from transformers import AutoModel, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
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
SCHEDULE = CompressionSchedule(NUM_LAYERS, group_size=4)
BOUNDARIES = SCHEDULE.boundaries(4)


def language_model(name: str = "qwen2", attention: str = "sdpa") -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModel.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation=attention).eval()


def sequence(num_groups: int, before: int = 3, after: int = 4) -> list[int]:
    """The last layer of each token of `before` words, `num_groups` groups of four and `after` words."""
    return [NUM_LAYERS] * before + SCHEDULE.scene(4) * num_groups + [NUM_LAYERS] * after


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
def test_sixteen_tokens_enter_28_layers_as_xcomp_released_and_printed_it(rounding, expected):
    assert tokens_per_layer(16, 28, rounding) == list(map(int, expected.split()))


def test_tokens_fall_away_after_the_layers_that_xcomp_names():
    assert CompressionSchedule(28, 16).boundaries(16) == [3, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 19, 20, 22, 24]


@pytest.mark.parametrize(
    ("left", "kept"), [(8, {2, 5, 7, 9, 10, 12, 14, 16}), (4, {5, 9, 12, 16}), (2, {5, 16}), (1, {16})]
)
def test_uniform_keeping_leaves_the_places_of_the_ablation(left, kept):
    schedule = CompressionSchedule(28, 16, keep="uniform")
    layer = tokens_per_layer(16, 28).index(left) + 1
    assert {place for place, last in enumerate(schedule.scene(16), start=1) if last >= layer} == kept


@pytest.mark.parametrize("group_size", [1, 2, 3, 16, 49, 196])
@pytest.mark.parametrize("rounding", ["round", "ceil"])
@pytest.mark.parametrize("keep", ["suffix", "uniform"])
def test_as_many_tokens_enter_each_layer_as_the_formula_says(group_size, rounding, keep):
    if keep == "uniform" and group_size > 49:
        pytest.skip("the ablation's search is slow for large groups")
    last = CompressionSchedule(28, group_size, rounding, keep).scene(group_size)
    entering = [sum(layer >= number for layer in last) for number in range(1, 29)]
    assert entering == [group_size, *tokens_per_layer(group_size, 28, rounding)[1:]]  # the first layer sees them all


def test_a_scene_that_its_groups_do_not_fill_ends_in_a_smaller_one():
    schedule = CompressionSchedule(28, 16)
    assert schedule.scene(40) == [*schedule.scene(16), *schedule.scene(16), *CompressionSchedule(28, 8).scene(8)]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_layers_see_what_a_loop_over_them_gives_them(name, attention):
    model, last_layer = language_model(name, attention), sequence(num_groups=3)
    embeds = torch.randn(1, len(last_layer), 32)
    with torch.no_grad():
        hidden, places, valid, _ = compressed_forward(model, embeds, None, torch.tensor([last_layer]), BOUNDARIES)
        expected = looped(model, embeds[0], last_layer)
    assert valid.all()
    assert places[0].tolist() == [place for place, last in enumerate(last_layer) if last == NUM_LAYERS]
    torch.testing.assert_close(hidden[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_where_nothing_falls_away_it_is_the_plain_model(name):
    model, embeds = language_model(name), torch.randn(2, 9, 32)
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    with torch.no_grad():
        expected = model(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        hidden, _, _, _ = compressed_forward(model, embeds, mask, torch.full((2, 9), NUM_LAYERS), [])
        staged, _, _, _ = compressed_forward(model, embeds, mask, None, BOUNDARIES)
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(staged[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_are_what_they_are_alone():
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
def test_going_on_from_a_cache_equals_starting_anew(chunks):
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


def test_a_second_video_falls_away_in_a_later_turn_too():
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


def test_a_cache_that_is_cropped_reordered_and_repeated_goes_on_right():
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


def test_gradients_reach_what_has_fallen_away():
    model, last_layer = language_model().train(), sequence(num_groups=2)
    embeds = torch.randn(1, len(last_layer), 32, requires_grad=True)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    hidden, _, _, _ = compressed_forward(model, embeds, None, torch.tensor([last_layer]), BOUNDARIES)
    hidden[:, -1].sum().backward()
    assert (embeds.grad.abs().sum(-1) > 0).all()


def test_other_caches_masks_and_language_models_are_refused_by_name():
    model = language_model()
    embeds = torch.randn(1, 4, 32)
    with pytest.raises(ValueError, match="CompressedCache, got a DynamicCache"):
        compressed_forward(model, embeds, None, None, BOUNDARIES, DynamicCache(config=model.config))
    with pytest.raises(ValueError, match="2-D, got 4-D"):
        compressed_forward(model, embeds, torch.ones(1, 1, 4, 4), None, BOUNDARIES)
    with pytest.raises(ValueError, match="LayerNorm"):
        check_decoder(torch.nn.LayerNorm(4))
    sliding = AutoModel.from_config(MistralConfig(**SIZES, sliding_window=16))
    with pytest.raises(ValueError, match="sliding_window=16"):
        check_decoder(sliding)
    for name in CONFIGS:
        check_decoder(language_model(name))
    assert CACHE_ARGUMENT in ("cache", "past_key_values")
