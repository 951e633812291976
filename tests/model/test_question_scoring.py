"""QC-Comp: the attention of a question to frames, against whole attention maps."""

import copy

import pytest
import torch
from fila_video.question_selection_fila_video import LAYERS, score_frames, scoring_layers, windows_of
from helpers.tiny_models import random_frames, tiny_clip_llama_config, tiny_config, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModel,
    BitNetConfig,
    DogeConfig,
    Exaone4Config,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GPT2Config,
    GptOssConfig,
    HunYuanDenseV1Config,
    Lfm2Config,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    NanoChatConfig,
    Olmo2Config,
    OlmoConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
    SmolLM3Config,
    StableLmConfig,
)

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
CONFIGS = {"qwen2": Qwen2Config(**SIZES), "qwen3": Qwen3Config(**SIZES, head_dim=8), "llama": LlamaConfig(**SIZES)}


def language_model(name: str, attention: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModel.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation=attention).eval()


def whole_maps(model, frames, before, after, question, size, stride, layers="middle"):
    """
    The same from the maps of all rows: every window is run through each layer's own attention, without a mask, on the
    hidden states of the ordinary forward.
    """
    num_frames, tokens = frames.shape[:2]
    embeds = torch.cat([before, frames.flatten(0, 1), after])[None]
    hidden_states = model(inputs_embeds=embeds, output_hidden_states=True, use_cache=False).hidden_states
    scores = []
    for index in scoring_layers(len(model.layers), layers):
        layer, total, count = model.layers[index], torch.zeros(num_frames), torch.zeros(num_frames)
        for window in windows_of(num_frames, size, stride):
            places = len(before) + (window[:, None] * tokens + torch.arange(tokens)).flatten()
            last = torch.arange(len(before) + num_frames * tokens, embeds.shape[1])
            states = hidden_states[index][:, torch.cat([torch.arange(len(before)), places, last])]
            positions = torch.arange(states.shape[1])[None]
            _, weights = layer.self_attn(
                hidden_states=layer.input_layernorm(states),
                position_embeddings=model.rotary_emb(states, positions),
                attention_mask=None,
            )
            rows = weights[0].mean(dim=0)[len(before) + len(places) :][question]
            total[window] += rows[:, len(before) : len(before) + len(places)].unflatten(1, (-1, tokens)).mean((0, 2))
            count[window] += 1
        scores.append(total / count)
    return torch.stack(scores)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_frames", [1, 5, 8, 11, 24])
@pytest.mark.parametrize("layers", LAYERS)
def test_the_scores_are_those_of_the_whole_attention_maps(name, num_frames, layers) -> None:
    eager, sdpa = language_model(name, "eager"), language_model(name, "sdpa")
    generator = torch.Generator().manual_seed(num_frames)
    frames, before, after = (torch.randn(*shape, 32, generator=generator) for shape in ((num_frames, 4), (3,), (7,)))
    question = torch.tensor([False, False, True, True, True, True, False])
    with torch.no_grad():
        expected = whole_maps(eager, frames, before, after, question, 8, 4, layers)
    for model in (eager, sdpa):
        scores = score_frames(model, frames, before, after, question, layers=layers, window_size=8, window_stride=4)
        assert scores.shape == (len(scoring_layers(4, layers)), num_frames) and scores.dtype == torch.float32
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_a_long_pool_is_scored_in_chunks_that_do_not_see_each_other() -> None:
    model = language_model("qwen2", "sdpa")
    frames, before, after = torch.randn(20, 2, 32), torch.randn(3, 32), torch.randn(4, 32)
    question, settings = torch.ones(4, dtype=torch.bool), {"window_size": 4, "window_stride": 2}
    scores = score_frames(model, frames, before, after, question, chunk_size=8, **settings)
    # Of about one size: as 8, 8 and 4, the last would share the attention among fewer.
    parts = [score_frames(model, part, before, after, question, **settings) for part in frames.tensor_split(3)]
    torch.testing.assert_close(scores, torch.cat(parts, dim=1))
    # So it is where the context has room for no more: 3 + 8 * 2 + 4 tokens.
    model.config.max_position_embeddings = 23
    torch.testing.assert_close(score_frames(model, frames, before, after, question, **settings), scores)


@pytest.mark.parametrize("num_frames", [9, 10, 17])
def test_equal_frames_score_about_equally_wherever_chunks_end(num_frames) -> None:
    model = language_model("qwen2", "sdpa")
    frames, before, after = torch.randn(1, 2, 32).expand(num_frames, -1, -1), torch.randn(3, 32), torch.randn(4, 32)
    question, settings = torch.ones(4, dtype=torch.bool), {"window_size": 4, "window_stride": 2, "chunk_size": 8}
    scores = score_frames(model, frames, before, after, question, **settings).sum(dim=0)
    assert scores.max() < 1.5 * scores.min()


def test_every_frame_is_in_a_window_and_in_equally_many_where_the_stride_divides_the_pool() -> None:
    assert [window.tolist() for window in windows_of(6, 4, 2)] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]]
    assert torch.cat(windows_of(512, 64, 32)).bincount().tolist() == [2] * 512
    assert torch.cat(windows_of(100, 64, 32)).bincount().min() >= 1


def test_the_layers_are_xcomps_six_to_23_of_28_and_in_proportion_elsewhere() -> None:
    assert scoring_layers(28) == range(6, 24)
    assert scoring_layers(24) == range(5, 21)
    assert [len(scoring_layers(count)) >= 1 for count in (1, 2, 3)] == [True] * 3
    assert scoring_layers(28, "first") == range(1)
    with pytest.raises(ValueError, match="Unknown `question_layers` 'last': use one of middle, first"):
        scoring_layers(28, "last")


@pytest.mark.parametrize(("layers", "num_run"), [("first", 0), ("middle", 2)])
def test_layers_behind_the_last_one_that_counts_are_not_run(layers, num_run) -> None:
    model, run = language_model("qwen2", "sdpa"), []
    for layer in model.layers:
        layer.register_forward_hook(lambda *args: run.append(1))
    score_frames(
        model, torch.randn(3, 2, 32), torch.randn(1, 32), torch.randn(2, 32), torch.ones(2).bool(), layers=layers
    )
    assert len(run) == num_run


@pytest.mark.parametrize(
    "config",
    [
        OlmoConfig(**SIZES, clip_qkv=1.0),
        Olmo2Config(**SIZES),
        Gemma2Config(**SIZES, head_dim=8),
        HunYuanDenseV1Config(**SIZES, head_dim=8),
        SmolLM3Config(**SIZES, no_rope_layers=[0] * 4, pad_token_id=0),
        Exaone4Config(**SIZES, sliding_window=4, layer_types=["sliding_attention", "full_attention"] * 2),
        GptOssConfig(**SIZES, head_dim=8, num_local_experts=2, pad_token_id=0),
        DogeConfig(**SIZES, pad_token_id=0),
        Lfm2Config(**SIZES, layer_types=["full_attention"] * 4, pad_token_id=0),
        Gemma3TextConfig(**SIZES, head_dim=8),
        PhiConfig(**SIZES, pad_token_id=0),
        StableLmConfig(**SIZES, pad_token_id=0),
        NanoChatConfig(**SIZES, final_logit_softcapping=None, pad_token_id=0),
        FalconH1Config(**SIZES, head_dim=8, mamba_d_ssm=16, mamba_n_heads=4, mamba_d_head=4, pad_token_id=0),
        Qwen3NextConfig(**SIZES, head_dim=8, layer_types=["full_attention"] * 4, num_experts=2, pad_token_id=0),
        GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=64),
    ],
    ids=lambda config: config.model_type,
)
def test_another_kind_of_attention_is_refused_by_name(config) -> None:
    model = AutoModel.from_config(config)
    with pytest.raises(ValueError, match=f"cannot be scored with a language model like {type(model).__name__}"):
        score_frames(model, torch.randn(3, 2, 32), torch.randn(1, 32), torch.randn(2, 32), torch.ones(2).bool())


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES),
        GemmaConfig(**SIZES, head_dim=8, pad_token_id=0),
        Glm4Config(**SIZES, head_dim=8, pad_token_id=0),
        Ministral3Config(**SIZES, head_dim=8, pad_token_id=0),
        BitNetConfig(**SIZES, pad_token_id=0),
        SmolLM3Config(**SIZES, no_rope_layers=[1] * 4, pad_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_the_scores_are_the_attentions_of_other_families_of_the_kind(config) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="eager").eval()
    frames, before, after = torch.randn(3, 2, 32), torch.randn(2, 32), torch.randn(3, 32)
    scores = score_frames(model, frames, before, after, torch.tensor([False, False, True]))
    embeds = torch.cat([before, frames.flatten(0, 1), after])[None]
    attentions = model(inputs_embeds=embeds, output_attentions=True, use_cache=False).attentions
    expected = [attentions[layer][0, :, -1, 2:8].unflatten(1, (3, 2)).mean((0, 2)) for layer in scoring_layers(4)]
    torch.testing.assert_close(scores, torch.stack(expected))


@pytest.mark.parametrize("part", ["o_proj", "v_proj"])
def test_a_layer_that_adds_nothing_is_scored_like_any_other(part) -> None:
    """As the layers that LLaMA-Pro puts in between."""
    frames, before, after = torch.randn(3, 2, 32), torch.randn(2, 32), torch.randn(3, 32)
    rows = torch.tensor([False, True, True])
    model = language_model("llama", "sdpa")
    expected = score_frames(model, frames, before, after, rows, layers="first")
    torch.nn.init.zeros_(getattr(model.layers[0].self_attn, part).weight)
    torch.testing.assert_close(score_frames(model, frames, before, after, rows, layers="first"), expected)


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor has that is made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = made if isinstance(made, (tuple, list)) else [made]
        self.size = max([self.size, *(each.numel() for each in tensors if isinstance(each, torch.Tensor))])
        return made


def test_a_long_question_is_scored_in_parts_of_its_rows() -> None:
    model = language_model("qwen2", "eager")
    frames, before, after = torch.randn(3, 2, 32), torch.randn(2, 32), torch.randn(300, 32)
    with LargestTensor() as made:
        scores = score_frames(model, frames, before, after, torch.ones(300).bool(), layers="first")
    assert made.size <= 4 * 128 * 308  # of four heads
    embeds = torch.cat([before, frames.flatten(0, 1), after])[None]
    state = model.layers[0].input_layernorm(embeds)
    angles = model.rotary_emb(state, torch.arange(308)[None])
    whole = model.layers[0].self_attn(state, position_embeddings=angles, attention_mask=None)[1][0, :, 8:, 2:8]
    torch.testing.assert_close(scores[0], whole.mean((0, 1)).unflatten(0, (3, 2)).mean(1))


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model = language_model("qwen2", "sdpa")
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        score_frames(model, torch.randn(3, 2, 16), torch.randn(1, 32), torch.randn(2, 32), torch.ones(2).bool())
    assert not any(layer.self_attn._forward_pre_hooks for layer in model.layers)


@pytest.mark.parametrize(
    ("settings", "question", "message"),
    [
        ({"window_stride": 0}, [True], "at least 1"),
        ({"window_size": 4, "window_stride": 5}, [True], "4, 5 and 512"),
        ({}, [False], "0 tokens of a question"),
    ],
)
def test_settings_and_questions_that_make_no_sense_are_named(settings, question, message) -> None:
    model = language_model("qwen2", "sdpa")
    frames, text = torch.randn(3, 2, 32), torch.randn(1, 32)
    with pytest.raises(ValueError, match=message):
        score_frames(model, frames, text, text, torch.tensor(question), **settings)


@pytest.mark.parametrize("make_config", [tiny_config, tiny_clip_llama_config])
def test_a_model_scores_the_features_of_its_frames(make_config) -> None:
    model = tiny_model(make_config())
    features = model.encode_frames(random_frames(7, model.config)).detach()
    before, after = torch.tensor([11, 12]), torch.tensor([13, 14, 15, 16])
    question = torch.tensor([False, True, True, False])
    tokens = model.tokens_for_scoring(features, 4)
    scores = model.score_tokens(tokens, before, after, question, window_size=4, window_stride=2)
    # A tiny grid of 5 x 5 patches, averaged to 2 x 2.
    grids = model.model.multi_modal_projector(features).unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    frames = torch.nn.functional.adaptive_avg_pool2d(grids, 2).flatten(2).transpose(1, 2)
    embed = model.get_input_embeddings()
    layers = score_frames(
        model.model.language_model, frames, embed(before), embed(after), question, window_size=4, window_stride=2
    )
    torch.testing.assert_close(scores, layers)
    assert scores.shape[1] == 7 and not scores.requires_grad
    for scored in (model, model.model):
        tokens = scored.tokens_for_scoring([features[:4], features[4:]], 4)
        again = scored.score_tokens(tokens, before, after, question, window_size=4, window_stride=2)
        torch.testing.assert_close(again, layers)


def test_a_frame_is_scored_by_no_more_tokens_than_the_model_reads_of_a_scene() -> None:
    model = tiny_model(tiny_config())
    config = model.config
    most = -(-config.patches_per_side // config.pooling_stride)
    features = torch.zeros(2, config.num_patches, config.vision_config.hidden_size)
    assert model.tokens_for_scoring(features, 10**4).shape[1] == most**2


def test_no_tokens_of_a_frame_are_an_error() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="question_tokens"):
        model.tokens_for_scoring(torch.zeros(2, 25, 32), question_tokens=0)
