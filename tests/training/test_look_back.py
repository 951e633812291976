"""Heads that look back: how their attention falls over the tokens before."""

import pytest
import torch
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.training.tiny.look_back import look_back
from fila_video.training.tiny.make_initial_checkpoint import (
    build_config,
    build_model,
    make_initial_checkpoint,
    train_tokenizer,
)
from helpers.tiny_models import tiny_clip_llama_config, tiny_model


@pytest.fixture(scope="module")
def model():
    model = build_model(build_config(train_tokenizer())).eval()
    look_back(model)
    return model


def attention(model) -> torch.Tensor:
    """Of the first layer's heads, (heads, tokens, tokens)."""
    model.set_attn_implementation("eager")
    tokens = torch.randint(10, 2000, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=tokens, output_attentions=True).attentions[0][0]


def test_two_heads_attend_to_the_token_one_and_two_before(model) -> None:
    heads = attention(model)
    for head, distance in ((0, 1), (1, 2)):
        assert heads[head].diagonal(-distance)[5:].min() > 0.9


def test_a_third_attends_to_the_nearest_dozen_and_less_to_the_farther(model) -> None:
    by_distance = attention(model)[2, -1].flip(0)
    assert by_distance[:12].sum() > 0.95 and by_distance[:12].diff().max() < 0


def test_the_other_heads_are_as_they_were(model) -> None:
    untouched = build_model(model.config).eval()
    assert torch.equal(attention(model)[3:], attention(untouched)[3:])


def test_a_language_model_without_biases_is_refused() -> None:
    with pytest.raises(ValueError, match="which LlamaAttention has not"):
        look_back(tiny_model(tiny_clip_llama_config()))


def test_the_untrained_checkpoint_has_such_heads_where_they_are_asked_for(tmp_path) -> None:
    make_initial_checkpoint(tmp_path / "plain")
    make_initial_checkpoint(tmp_path / "looking", looks_back=True)
    plain, looking = (
        FilaVideoForConditionalGeneration.from_pretrained(tmp_path / name).eval() for name in ("plain", "looking")
    )
    assert attention(looking)[0].diagonal(-1)[5:].min() > 0.9
    look_back(plain)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, looking.state_dict()[name]), name
