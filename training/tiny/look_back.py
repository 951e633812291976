"""
Gives the language model of a small checkpoint heads that look back: to the token before, to the one before that, and
to the nearest dozen.

What comes right before or after a thing is found in two steps: each scene takes note of the scenes before it, and the
question then finds the one that noted the thing it names. A model that reads language has heads for the first step; a
small one that learns from questions alone has no use for either step without the other.
"""

import torch

from ...modeling_fila_video import FilaVideoForConditionalGeneration

# What a query and a key score per frequency at the distance sought, before the scaling by the head's size: with 16
# frequencies, the token before gets 0.95 of the attention.
STRENGTH = 30.25
WIDE = 0.15  # radians a token: frequencies below tell near from far, and not a token from the next


def look_back(model: FilaVideoForConditionalGeneration) -> None:
    """
    Makes the heads of the first key-value group in the language model's first layer attend by distance alone, in
    place: the first to the token before, the second to the one before that, the others to the nearest dozen. They do
    so by constant queries and keys, the biases, which the rotary embedding turns by position; their weights become 0.
    All of it can be learned further.

    Raises:
        ValueError: If queries and keys of the language model have no biases.
    """
    language_model = model.model.language_model
    attention = language_model.layers[0].self_attn
    query, key = attention.q_proj, attention.k_proj
    if getattr(query, "bias", None) is None or getattr(key, "bias", None) is None:
        raise ValueError(
            f"Heads look back by biases of queries and keys, which {type(attention).__name__} has not: take a "
            "language model that has them, such as Qwen2."
        )
    size, heads = attention.head_dim, attention.num_key_value_groups
    frequencies = language_model.rotary_emb.inv_freq
    # At a distance of d tokens, a query e^(-i a f) and a key 1 score cos((d - a) f) for the frequency f: most at a.
    patterns = [torch.polar(torch.ones_like(frequencies), -distance * frequencies) for distance in (1, 2)]
    patterns += [(frequencies < WIDE) + 0j] * max(heads - 2, 0)
    with torch.no_grad():
        query.weight[: heads * size] = key.weight[:size] = 0
        key.bias[:size] = STRENGTH**0.5 * torch.cat([torch.ones_like(frequencies), torch.zeros_like(frequencies)])
        for head, pattern in enumerate(patterns[:heads]):
            query.bias[head * size : (head + 1) * size] = STRENGTH**0.5 * torch.cat([pattern.real, pattern.imag])
