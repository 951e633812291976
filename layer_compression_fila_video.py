"""
LP-Comp of XComp (arXiv 2604.14149): visual tokens fall away on their way through the language model's layers.

The tokens of a scene form groups. A group of G tokens enters layer l of L with

    N(l) = floor((G - 1) / 2 * cos(pi * l / L) + (G + 1) / 2 + 1 / 2)

of them, down to one in the last; the first layer sees all G. What has fallen away still counts: later tokens attended
to it in the layers before. Text, newlines and images stay. For G = 4 and L = 6, two groups and a text token `t`:

    layer   N   what enters it
      1     4   a1 a2 a3 a4 b1 b2 b3 b4 t
      2     3      a2 a3 a4    b2 b3 b4 t
      3     3      a2 a3 a4    b2 b3 b4 t
      4     2         a3 a4       b3 b4 t
      5     1            a4          b4 t
      6     1            a4          b4 t

Layers between two such steps see the same tokens: a *stage*. Positions count anew from 0 in every stage, and each
layer caches what entered it, so the cache is shorter in deeper layers. There are no parameters.
"""

import inspect
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask

# The name of the cache's argument: `past_key_values` before transformers 5.24.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"


def tokens_per_layer(group_size: int, num_layers: int, rounding: str = "round") -> list[int]:
    """
    N(l) for l from 1 to `num_layers`: how many tokens of a group of `group_size` enter each layer.

    Args:
        group_size (`int`): G.
        num_layers (`int`): L.
        rounding (`str`, *optional*, defaults to `"round"`):
            `"round"` is what XComp's released code trained with, `"ceil"` what its paper prints.
    """
    middle, swing = (group_size + 1) / 2, (group_size - 1) / 2
    counts = []
    for layer in range(1, num_layers + 1):
        exact = swing * math.cos(math.pi * layer / num_layers) + middle
        counts.append(math.floor(exact + 0.5 + 1e-9) if rounding == "round" else math.ceil(exact - 1e-9))
    return counts


def removal_order(group_size: int, keep: str = "suffix") -> list[int]:
    """
    In which order the tokens of a group fall away, by their 0-based places; the last one never does.

    Args:
        group_size (`int`): G.
        keep (`str`, *optional*, defaults to `"suffix"`):
            `"suffix"` drops from the front: causal attention has let the last tokens see the others. `"uniform"` (an
            ablation) drops one after another the token without which the others are spread most evenly.
    """
    if keep == "suffix":
        return list(range(group_size - 1))
    kept, order = list(range(1, group_size + 1)), []
    while len(kept) > 1:
        count = len(kept) - 1

        def unevenness(index: int, count: int = count) -> float:
            rest = kept[:index] + kept[index + 1 :]
            return sum((group_size * place / count - rest[place - 1]) ** 2 for place in range(1, count))

        order.append(kept.pop(min(range(count), key=unevenness)) - 1)  # the last token, `count`, stays
    return order


@lru_cache(maxsize=64)
def last_layers(group_size: int, num_layers: int, rounding: str = "round", keep: str = "suffix") -> tuple[int, ...]:
    """The last layer, counted from 1, that each token of a group enters."""
    counts = tokens_per_layer(group_size, num_layers, rounding)
    last = [num_layers] * group_size
    for dropped, place in enumerate(removal_order(group_size, keep)):
        # Gone once fewer than `group_size - dropped` enter.
        last[place] = sum(count >= group_size - dropped for count in counts)
    return tuple(max(layer, 1) for layer in last)


@dataclass(frozen=True)
class CompressionSchedule:
    """
    The settings of a model's layer compression, and what follows from them.

    Args:
        num_layers (`int`): Layers of the language model.
        group_size (`int`): Tokens of a group.
        rounding (`str`): `"round"` or `"ceil"`; see [`tokens_per_layer`].
        keep (`str`): `"suffix"` or `"uniform"`; see [`removal_order`].
    """

    num_layers: int
    group_size: int
    rounding: str = "round"
    keep: str = "suffix"

    def scene(self, num_tokens: int) -> list[int]:
        """The last layer that each of a scene's `num_tokens` tokens enters; its last group may be a smaller one."""
        layers = []
        while len(layers) < num_tokens:
            size = min(self.group_size, num_tokens - len(layers))
            layers += last_layers(size, self.num_layers, self.rounding, self.keep)
        return layers

    def boundaries(self, num_tokens: int) -> list[int]:
        """After which layers, counted from 1, tokens of such a scene fall away."""
        return sorted(set(self.scene(num_tokens)) - {self.num_layers})


class CompressedCache(DynamicCache):
    """
    A cache whose deeper layers hold fewer tokens. `valid[stage]`, `(batch_size, cached)` bool, is false where what the
    layers of a stage hold is padding: rows that lost more tokens than others have it on their left.
    """

    def __init__(self, config):
        super().__init__(config=config)
        self.valid: list[torch.Tensor] = []

    def reset(self):
        super().reset()
        self.valid = []

    def reorder_cache(self, beam_idx: torch.LongTensor):
        super().reorder_cache(beam_idx)
        self.valid = [valid.index_select(0, beam_idx.to(valid.device)) for valid in self.valid]

    def batch_repeat_interleave(self, repeats: int):
        super().batch_repeat_interleave(repeats)
        self.valid = [valid.repeat_interleave(repeats, dim=0) for valid in self.valid]

    def batch_select_indices(self, indices: torch.Tensor):
        super().batch_select_indices(indices)
        self.valid = [valid[indices] for valid in self.valid]

    def crop(self, tokens_to_remove: int):
        # The last tokens are text, which every layer holds.
        super().crop(tokens_to_remove)
        if tokens_to_remove < 0:
            self.valid = [valid[:, :tokens_to_remove] for valid in self.valid]


def check_decoder(language_model: nn.Module):
    """
    Raises:
        ValueError: If the language model is not of the usual shape: embedding, layers of full attention that take
        `position_embeddings`, norm, rotary embedding (Qwen2, Qwen3, Llama, Mistral and their like).
    """
    name = type(language_model).__name__
    missing = [part for part in ("layers", "norm", "rotary_emb") if not hasattr(language_model, part)]
    if missing:
        raise ValueError(f"`layer_compression` knows no language model like {name}: it has no {', '.join(missing)}.")
    taken = inspect.signature(language_model.layers[0].forward).parameters
    if not {"position_embeddings", CACHE_ARGUMENT} <= taken.keys():
        raise ValueError(
            f"`layer_compression` knows no language model like {name}: its layers take {', '.join(taken)}."
        )
    kinds = set(getattr(language_model.config, "layer_types", None) or ["full_attention"])
    window = getattr(language_model.config, "sliding_window", None)
    if kinds != {"full_attention"} or (window is not None and not getattr(language_model.config, "layer_types", None)):
        raise ValueError(
            f"`layer_compression` needs full attention in every layer, but {name} has {', '.join(sorted(kinds))} and "
            f"sliding_window={window}: set `sliding_window` to None, or `layer_compression` to None."
        )


def compressed_forward(
    language_model: nn.Module,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    last_layer: torch.Tensor | None,
    boundaries: list[int],
    cache: Cache | None = None,
    output_hidden_states: bool = False,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, tuple[torch.Tensor, ...] | None]:
    """
    The language model's layers, with tokens falling away between them.

    Args:
        language_model (`nn.Module`): A decoder; see [`check_decoder`].
        inputs_embeds (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): What enters the first layer.
        attention_mask (`torch.Tensor` of shape `(batch_size, cached + num_tokens)`, *optional*):
            0 at padding, on either side.
        last_layer (`torch.Tensor` of shape `(batch_size, num_tokens)`, *optional*):
            The last layer, counted from 1, that each token enters. Without it nothing falls away, as in decoding.
        boundaries (`list[int]`): After which layers tokens fall away, here or in an earlier call with the same cache.
        cache (`CompressedCache`, *optional*): What earlier calls left; this one adds to it.
        output_hidden_states (`bool`, *optional*, defaults to `False`): Also return what entered each layer.

    Returns:
        `tuple`: the last hidden state `(batch_size, num_left, hidden_size)`; for each of its tokens the place it came
        from `(batch_size, num_left)`, or `None` where none fell away; which are no padding `(batch_size, num_left)`;
        and the hidden states, where asked for.

    Raises:
        ValueError: If the cache was filled by a model without layer compression, or the mask is not 2-D.
    """
    batch_size, num_tokens = inputs_embeds.shape[:2]
    if cache is not None and not isinstance(cache, CompressedCache):
        raise ValueError(
            f"With `layer_compression` the cache must be a CompressedCache, got a {type(cache).__name__}. Leave it to "
            "`generate`, without `cache_implementation`."
        )
    if attention_mask is None:
        valid = torch.ones(batch_size, num_tokens, dtype=torch.bool, device=inputs_embeds.device)
    elif attention_mask.ndim == 2:
        valid = attention_mask[:, -num_tokens:].bool()
    else:
        raise ValueError(
            f"With `layer_compression` the attention mask must be 2-D, got {attention_mask.ndim}-D: a mask of pairs "
            "of tokens cannot follow tokens that fall away."
        )
    has_past = cache is not None and len(cache.valid) > 0
    hidden, places, states, seen = inputs_embeds, None, [], []
    first_layers = [0, *boundaries]
    for stage, first in enumerate(first_layers):
        if stage and last_layer is not None:
            stays = (last_layer > first) & valid
            num_left = int(stays.sum(dim=1).max())
            # What stays, in its order, behind as much of what does not as makes the rows equally long.
            order = stays.int().argsort(dim=1, stable=True)[:, -num_left:]
            hidden = hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[-1]))
            last_layer, valid = last_layer.gather(1, order), stays.gather(1, order)
            places = order if places is None else places.gather(1, order)
        past = cache.valid[stage] if has_past else valid.new_zeros(batch_size, 0)
        seen.append(torch.cat([past, valid], dim=1))
        position_ids = (past.sum(dim=1, keepdim=True) + valid.cumsum(dim=1) - 1).clamp(min=0)
        mask = create_causal_mask(
            config=language_model.config,
            inputs_embeds=hidden,
            attention_mask=seen[-1],
            position_ids=position_ids,
            layer_idx=first,
            **{CACHE_ARGUMENT: cache},
        )
        position_embeddings = language_model.rotary_emb(hidden, position_ids)
        stop = first_layers[stage + 1] if stage + 1 < len(first_layers) else len(language_model.layers)
        for layer in language_model.layers[first:stop]:
            if output_hidden_states:
                states.append(hidden)
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=position_ids,
                position_embeddings=position_embeddings,
                use_cache=cache is not None,
                **{CACHE_ARGUMENT: cache},
                **kwargs,
            )
    if cache is not None:
        cache.valid = seen
    hidden = language_model.norm(hidden)
    return hidden, places, valid, (*states, hidden) if output_hidden_states else None


__all__ = ["CompressedCache", "CompressionSchedule", "check_decoder", "compressed_forward", "tokens_per_layer"]
