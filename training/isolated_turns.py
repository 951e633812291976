"""
Attention of questions that share a video: each sees what stands before the first of them, and itself.

A mask of all pairs of a row would do the same for several times the work: of twenty questions, each sees the video and
its own twentieth of the row.
"""

import itertools
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "isolated_turns"


def isolate_turns(model: PreTrainedModel) -> None:
    """Gives a language model this attention. It then takes batches with [`turn_inputs`] alone."""
    model.set_attn_implementation(NAME)


def turn_inputs(lengths: list[int], starts: list[list[int]]) -> dict[str, Any]:
    """
    Args:
        lengths (`list[int]`):
            The length of each row, without padding.
        starts (`list[list[int]]`):
            Where each row's turns begin; what comes before the first is seen by all. A row without any is one turn.

    Returns:
        `position_ids` `(batch, longest)`, in which every turn goes on from the end of the prefix; and `turn_lengths`,
        for each row the tokens of its prefix, of each turn, and of the padding, if any.
    """
    longest = max(lengths)
    positions, rows = torch.arange(longest).repeat(len(lengths), 1), []
    for row, (length, begins) in enumerate(zip(lengths, starts, strict=True)):
        ends = [*begins, length]
        for begin, end in itertools.pairwise(ends):
            positions[row, begin:end] -= begin - begins[0]
        rows.append([ends[0], *(end - begin for begin, end in itertools.pairwise(ends))])
        if length < longest:
            rows[-1].append(longest - length)
    return {"position_ids": positions, "turn_lengths": rows}


def isolated_turns_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    turn_lengths: list[list[int]] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """
    Args:
        query (`torch.Tensor`):
            `(batch, heads, length, head_dim)`; `key` and `value` may have fewer heads.
        turn_lengths (`list[list[int]]`):
            As [`turn_inputs`] gives them. Padding is one more turn.

    Returns:
        `(batch, length, heads, head_dim)`.

    Raises:
        ValueError: Without `turn_lengths`: nothing else says what may be seen.
    """
    if turn_lengths is None:
        raise ValueError(
            "The model has the attention of training with isolated turns, which needs `turn_lengths`: load the model "
            "anew, or call `set_attn_implementation('sdpa')`."
        )
    rows = []
    # `split`, not slices: the gradient of a slice is as large as the whole.
    for lengths, *parts in zip(turn_lengths, query.split(1), key.split(1), value.split(1), strict=True):
        states = [part.split(lengths, dim=2) for part in parts]
        prefix_query, prefix_key, prefix_value = (pieces[0] for pieces in states)
        turns = [sdpa_attention_forward(module, prefix_query, prefix_key, prefix_value, None, **kwargs)[0]]
        for own_query, own_key, own_value in zip(*(pieces[1:] for pieces in states), strict=True):
            keys, values = torch.cat([prefix_key, own_key], dim=2), torch.cat([prefix_value, own_value], dim=2)
            seen = torch.ones(own_query.shape[2], keys.shape[2], dtype=torch.bool, device=query.device)
            seen = seen.tril(lengths[0])  # all of the prefix, and of the turn what comes before
            turns.append(sdpa_attention_forward(module, own_query, keys, values, seen[None, None], **kwargs)[0])
        rows.append(torch.cat(turns, dim=1))
    return torch.cat(rows), None


AttentionInterface.register(NAME, isolated_turns_attention)

__all__ = ["isolate_turns", "isolated_turns_attention", "turn_inputs"]
