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

import dis
import inspect
import math
import sys
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import MistralModel, Qwen2Model
from transformers.cache_utils import Cache, DynamicCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import torch_compilable_check

from .configuration_fila_video import FilaVideoConfig, pooled_grid_size

# The name of the cache's argument: `past_key_values` before transformers 5.24.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
DECODER_PARTS = ("layers", "norm", "rotary_emb")  # beside the embedding
HARMLESS = {"set", "copy", "embedding_multiplier"}  # in the code of a forward; the last is looked at by its value
# What makes the weights of an attention, and what stands behind them.
ATTENTION_PARTS = {"q_proj", "k_proj", "q_norm", "k_norm"} | {"v_proj", "gate_proj", "attn_sub_norm", "o_proj"}


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

        # In Python's floats, as the released code: where tokens are equal in exact arithmetic, rounding decides. It is
        # the same on every processor.
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
    Which layers the tokens of a video enter.

    Args:
        num_layers (`int`): Layers of the language model.
        side (`int`): Tokens along one side of a scene's grid.
        newline_position (`str`, *optional*, defaults to `"none"`): Where newlines stand; they never fall away.
        group_size (`int`, *optional*): Tokens of a group; by default all of a scene's grid.
        rounding (`str`, *optional*, defaults to `"round"`): `"round"` or `"ceil"`; see [`tokens_per_layer`].
        keep (`str`, *optional*, defaults to `"suffix"`): `"suffix"` or `"uniform"`; see [`removal_order`].
    """

    num_layers: int
    side: int
    newline_position: str = "none"
    group_size: int | None = None
    rounding: str = "round"
    keep: str = "suffix"

    def scene(self) -> list[int]:
        """
        The last layer that each token of a scene enters, newlines among them. Groups are consecutive tokens of the
        grid; where they do not fill it, the last one is smaller.
        """
        grid = []
        while len(grid) < self.side**2:
            size = min(self.group_size or self.side**2, self.side**2 - len(grid))
            grid += last_layers(size, self.num_layers, self.rounding, self.keep)
        if self.newline_position == "grid":
            rows = [grid[start : start + self.side] for start in range(0, len(grid), self.side)]
            return [layer for row in rows for layer in (*row, self.num_layers)]
        return [*grid, self.num_layers] if self.newline_position == "frame" else grid

    def video(self, num_tokens: int) -> list[int]:
        """The same for all tokens of a video, which has `num_tokens`."""
        scene, end = self.scene(), [self.num_layers] * (self.newline_position == "video")
        return scene * ((num_tokens - len(end)) // len(scene)) + end

    def boundaries(self) -> list[int]:
        """After which layers, counted from 1, tokens fall away."""
        return sorted(set(self.scene()) - {self.num_layers})


class CompressedCache(DynamicCache):
    """
    A cache whose deeper layers hold fewer tokens. `valid[stage]`, `(batch_size, cached)` bool, is false where what the
    layers of a stage hold is padding: rows that lost more tokens than others have it on their left.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.valid: list[torch.Tensor] = []

    def reset(self) -> None:
        super().reset()
        self.valid = []

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        self.valid = [valid.index_select(0, beam_idx.to(valid.device)) for valid in self.valid]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.valid = [valid.repeat_interleave(repeats, dim=0) for valid in self.valid]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.valid = [valid[indices] for valid in self.valid]

    def crop(self, tokens_to_remove: int) -> None:
        # The last tokens are text, which every layer holds.
        super().crop(tokens_to_remove)
        if tokens_to_remove < 0:
            self.valid = [valid[:, :tokens_to_remove] for valid in self.valid]


def unlike_llama(language_model: nn.Module) -> str | None:
    """What sets a language model apart from an embedding, layers that are all turned by the same angles, and norm."""
    parts = {name for name, _ in language_model.named_children()}
    if missing := [name for name in DECODER_PARTS if name not in parts]:
        return f"it has no {', '.join(missing)}"
    if others := sorted(parts - {"embed_tokens", *DECODER_PARTS}):
        return f"it also has {', '.join(others)}"
    taken = inspect.signature(language_model.rotary_emb.forward).parameters
    return None if len(taken) == 2 else f"its rotary embedding takes {', '.join(taken)}"


@lru_cache(maxsize=64)
def names_in_forward(kind: type[nn.Module]) -> Counter[str]:
    """How often the code of a module's forward takes each attribute, global and the like."""
    forward = inspect.unwrap(kind.forward)
    names = forward.__code__.co_names
    return Counter(step.argval for step in dis.get_instructions(forward) if step.argval in names)


def forward_unlike(kind: type[nn.Module]) -> str | None:
    """What a language model's forward does besides Qwen2's and Mistral's, by the names in its code."""
    names = names_in_forward(kind)
    if names["norm"] > 1:  # NanoChat's stands before the layers too
        return "its norm does not stand behind the layers alone"
    # Such as a factor of the embeddings (AFMoE's `mup_enabled`) or their dropout (Starcoder2).
    known = HARMLESS.union(names_in_forward(Qwen2Model), names_in_forward(MistralModel))
    others = sorted(name for name in names.keys() - known if not name.endswith("OutputWithPast"))
    return f"its forward also takes {', '.join(others)}" if others else None


def is_plain_attention(attention: nn.Module | None, config: PreTrainedConfig) -> bool:
    """Whether projections, norms of heads and a rotation make an attention's weights, and nothing else does."""
    parts = dict(() if attention is None else attention.named_children())
    norms = [norm for name, norm in parts.items() if name in ("q_norm", "k_norm")]
    return (
        {"q_proj", "k_proj"} <= parts.keys() <= ATTENTION_PARTS
        and hasattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb")
        and not [*attention.parameters(recurse=False), *attention.buffers(recurse=False)]  # sinks (gpt-oss), scales
        and getattr(attention.q_proj, "out_features", None) == config.num_attention_heads * attention.head_dim
        and getattr(config, "clip_qkv", None) is None  # OLMo
        and getattr(config, "attn_logit_softcapping", None) is None  # Gemma 2
        # Not over all heads (OLMo 2), nor without a weight, as behind a rotation (NanoChat).
        and all(hasattr(norm, "weight") and norm.weight.numel() == attention.head_dim for norm in norms)
    )


def check_decoder(language_model: nn.Module) -> None:
    """
    Raises:
        ValueError: If the language model is not of the usual shape: embedding, layers of full attention that take
        `position_embeddings`, norm, rotary embedding, and nothing else (Qwen2, Qwen3, Llama, Mistral and their like).
    """
    name = type(language_model).__name__
    config = getattr(language_model, "config", None)
    if getattr(config, "_attn_implementation", None) == "vllm":
        # It hands over embeddings that hold the videos already, and would run with nothing falling away.
        raise ValueError(
            "vLLM cannot serve a model with `layer_compression`, since its layers cache equally many tokens: set "
            "`layer_compression` to null in config.json, or answer with transformers."
        )
    unlike = unlike_llama(language_model)
    if unlike is None:
        taken = inspect.signature(language_model.layers[0].forward).parameters
        if not {"position_embeddings", CACHE_ARGUMENT} <= taken.keys():
            unlike = f"its layers take {', '.join(taken)}"
        else:
            unlike = forward_unlike(type(language_model))
    if unlike is not None:
        raise ValueError(
            f"`layer_compression` knows no language model like {name}, since {unlike}: set it to None, or take "
            "Qwen2, Qwen3, Llama, Mistral or the like."
        )
    kinds = set(getattr(language_model.config, "layer_types", None) or ["full_attention"])
    window = getattr(language_model.config, "sliding_window", None)
    if kinds != {"full_attention"} or (window is not None and not getattr(language_model.config, "layer_types", None)):
        raise ValueError(
            f"`layer_compression` needs full attention in every layer, but {name} has {', '.join(sorted(kinds))} and "
            f"sliding_window={window}: set `sliding_window` to None, or `layer_compression` to None."
        )
    scale = getattr(language_model.config, "embedding_multiplier", 1)  # applied before the first layer, not in it
    if scale != 1:
        raise ValueError(
            f"`layer_compression` runs the layers of {name} without what it does before them, and it multiplies "
            f"embeddings by {scale}: set `layer_compression` to None."
        )


def compressed_forward(
    language_model: nn.Module,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    last_layer: torch.Tensor | None,
    boundaries: list[int],
    cache: Cache | None = None,
    output_hidden_states: bool = False,
    position_ids: torch.Tensor | None = None,
    **kwargs: Any,
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
        position_ids (`torch.Tensor` of shape `(batch_size, num_tokens)`, *optional*):
            Those that follow from the mask: no others are taken.

    Returns:
        `tuple`: the last hidden state `(batch_size, num_left, hidden_size)`; for each of its tokens the place it came
        from `(batch_size, num_left)`, or `None` where none fell away; which are no padding `(batch_size, num_left)`;
        and the hidden states, where asked for.

    Raises:
        ValueError: If the cache was filled by a model without layer compression, the mask is not 2-D, or the positions
            are not those of whole rows.
    """
    batch_size, num_tokens = inputs_embeds.shape[:2]
    if cache is not None and not isinstance(cache, CompressedCache):
        raise ValueError(
            f"With `layer_compression` the cache must be a CompressedCache, got {type(cache).__name__}. Leave it to "
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
    firsts, stops = [0, *boundaries], [*boundaries, len(language_model.layers)]
    for stage, (first, stop) in enumerate(zip(firsts, stops, strict=True)):
        # Of a model on several devices, the layers of the stage before have left the tokens on theirs.
        valid, last_layer, places = (
            each if each is None else each.to(hidden.device) for each in (valid, last_layer, places)
        )
        if stage and last_layer is not None:
            stays = (last_layer > first) & valid
            num_left = int(stays.sum(dim=1).max())
            # What stays, in its order, behind as much of what does not as makes the rows equally long.
            order = stays.int().argsort(dim=1, stable=True)[:, -num_left:]
            hidden = hidden.take_along_dim(order.unsqueeze(-1), dim=1)
            last_layer, valid = last_layer.gather(1, order), stays.gather(1, order)
            places = order if places is None else places.gather(1, order)
        # What the layers of this stage can look at: what they cached, which differs in length from stage to stage, and
        # these tokens. Positions count a row's tokens without the padding, so that what fell away leaves no gaps.
        past = cache.valid[stage].to(hidden.device) if has_past else valid.new_zeros(batch_size, 0)
        seen.append(torch.cat([past, valid], dim=1))
        positions = (past.sum(dim=1, keepdim=True) + valid.cumsum(dim=1) - 1).clamp(min=0)
        # A single token, a step of decoding, is not looked at: on an accelerator looking means waiting.
        if stage == 0 and position_ids is not None and num_tokens > 1:
            torch_compilable_check(
                ((position_ids == positions) | ~valid).all(),
                "With `layer_compression` positions are counted anew in each stage, so `position_ids` must be 0, 1, 2 "
                "and so on for the tokens of each row without its padding. Several texts in one row cannot be told "
                "apart: give each a row.",
            )
        mask = create_causal_mask(
            config=language_model.config,
            inputs_embeds=hidden,
            attention_mask=seen[-1],
            position_ids=positions,
            layer_idx=first,  # by whose cache its length is measured
            **{CACHE_ARGUMENT: cache},
        )
        position_embeddings = language_model.rotary_emb(hidden, positions)
        for layer in language_model.layers[first:stop]:
            if output_hidden_states:
                states.append(hidden)
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=positions,
                position_embeddings=position_embeddings,
                use_cache=cache is not None,
                **{CACHE_ARGUMENT: cache},
                **kwargs,
            )
    if cache is not None:
        cache.valid = seen
    hidden = language_model.norm(hidden)
    return hidden, places, valid, (*states, hidden) if output_hidden_states else None


def run_compressed(
    language_model: nn.Module,
    config: FilaVideoConfig,
    inputs_embeds: torch.Tensor,
    videos: tuple[torch.Tensor, ...] | None,
    is_video: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cache: Cache | None,
    use_cache: bool | None,
    output_hidden_states: bool | None = None,
    output_attentions: bool | None = None,
    **kwargs: Any,
) -> tuple[BaseModelOutputWithPast, torch.Tensor | None]:
    """
    What the language model gives with the tokens of the `videos`, `(num_tokens, hidden_size)` each, falling away; they
    stand where `is_video` `(batch_size, num_tokens)` is true. The rest as for [`compressed_forward`] and any model.

    Returns:
        `tuple`: the output; and the places `(batch_size, num_left)` of the tokens that are left, -1 at padding, or
        `None` where none fell away.

    Raises:
        ValueError: If attentions are asked for, or as [`check_decoder`] and [`compressed_forward`] do.
    """
    if output_attentions:
        raise ValueError("With `layer_compression` there are no `attentions`: each layer has another size of them.")
    check_decoder(language_model)
    text_config = config.text_config
    schedule = CompressionSchedule(
        text_config.num_hidden_layers,
        pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride),
        config.newline_position,
        config.layer_compression_group,
        config.layer_compression_rounding,
        config.layer_compression_keep,
    )
    last_layer = None  # in decoding, where only text is new
    if videos is not None:
        # Text and images go through all layers.
        layers = [layer for video in videos for layer in schedule.video(len(video))]
        last_layer = torch.full(is_video.shape, schedule.num_layers, device=inputs_embeds.device)
        last_layer[is_video] = torch.tensor(layers, device=inputs_embeds.device)
    if use_cache is None:
        use_cache = text_config.use_cache and not language_model.training
    if use_cache and cache is None:
        cache = CompressedCache(text_config)
    kwargs.pop("return_dict", None)  # the layers would be handed it
    hidden, places, valid, states = compressed_forward(
        language_model,
        inputs_embeds,
        attention_mask,
        last_layer,
        schedule.boundaries(),
        cache,
        text_config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        position_ids,
        **kwargs,
    )
    # The rows that lost more than others are filled up with tokens that fell away: nobody shall take these for theirs.
    kept_tokens = None if places is None else places.masked_fill(~valid, -1)
    return BaseModelOutputWithPast(hidden, hidden_states=states, **{CACHE_ARGUMENT: cache}), kept_tokens


def follow_kept_tokens(
    kept_tokens: torch.Tensor,
    labels: torch.Tensor | None,
    shift_labels: torch.Tensor | None,
    logits_to_keep: int | torch.Tensor,
) -> tuple[torch.Tensor | None, torch.Tensor | None, int | torch.Tensor]:
    """
    Labels, those that are shifted already, and `logits_to_keep`: of the tokens that came in, for those that are left.

    Raises:
        ValueError: If `logits_to_keep` names tokens that have fallen away, or places by their number.
    """
    places, is_token = kept_tokens.clamp(min=0), kept_tokens >= 0
    if labels is not None:
        # What precedes a row's first token, and would predict it, is there only because other rows are longer.
        follows = torch.nn.functional.pad(is_token[:, :-1], (1, 0), value=True)
        labels = labels.to(places.device).gather(1, places).masked_fill(~(is_token & follows), -100)
    if shift_labels is not None:
        shift_labels = shift_labels.to(places.device).gather(1, places).masked_fill(~is_token, -100)
    if isinstance(logits_to_keep, int):
        return labels, shift_labels, logits_to_keep
    if logits_to_keep.ndim != 2:
        raise ValueError("With `layer_compression`, `logits_to_keep` is a number or a 2-D mask: places move.")
    logits_to_keep = logits_to_keep.to(places.device)
    kept = logits_to_keep.gather(1, places) & is_token
    torch_compilable_check(
        kept.sum() == logits_to_keep.sum(),
        "`logits_to_keep` names tokens of a video that fall away before the last layer: name tokens of text.",
    )
    return labels, shift_labels, kept


__all__ = ["CompressedCache", "CompressionSchedule", "follow_kept_tokens", "run_compressed", "tokens_per_layer"]
