"""
QC-Comp of XComp (arXiv 2604.14149): how much the question attends to each frame of the pool.

All frames go through the language model once, in its ordinary causal forward, with a few tokens each. In the middle
layers the attention is computed once more, within overlapping windows of frames and with positions that begin anew in
each: a frame far away from the question is then as near to it as any other.

    the forward      before  f1 f2 f3 f4 f5 f6 f7 f8  after        (hidden states)
    a window         before        f3 f4 f5 f6        after        (attention, positions 0, 1, 2, ...)
                                                      ^^^^^ of these rows, the question's are computed, nothing else

Two things are as in XComp's released code: the last window goes on with the first frames, and a row of the question
also attends to the question's later tokens. No sentence with times stands in this prompt, so every row between the
video and the end of the user's turn is the question's.
"""

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .configuration_fila_video import pooled_grid_size
from .scene_merging_fila_video import project_patches

LAYERS = ("middle", "first")


def scoring_layers(num_layers: int, which: str = "middle") -> range:
    """
    The layers whose attention counts, from 0: the `"middle"` ones, 6 to 23 of 28 as in XComp, in proportion elsewhere,
    at least one; or only the `"first"`.
    """
    if which not in LAYERS:
        raise ValueError(f"Unknown `question_layers` {which!r}: use one of {', '.join(LAYERS)}.")
    if which == "first":
        return range(1)
    first, stop = round(num_layers * 6 / 28), round(num_layers * 24 / 28)
    return range(min(first, num_layers - 1), max(stop, first + 1))


def windows_of(num_frames: int, size: int, stride: int) -> list[torch.Tensor]:
    """The frames of each window; the last ones go on with the first frames. One window where all frames fit in."""
    if num_frames <= size:
        return [torch.arange(num_frames)]
    return [(torch.arange(size) + start) % num_frames for start in range(0, num_frames, stride)]


class _Scored(Exception):
    """All layers that count were seen."""


@torch.no_grad()
def score_frames(
    language_model: nn.Module,
    frames: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    question: torch.Tensor,
    *,
    layers: str = "middle",
    window_size: int = 64,
    window_stride: int = 32,
    chunk_size: int = 512,
) -> torch.Tensor:
    """
    The attention that the question pays to each frame, layer by layer.

    Args:
        language_model (`nn.Module`):
            A decoder with rotary embeddings whose layers have `self_attn` with `q_proj` and `k_proj`.
        frames (`torch.Tensor` of shape `(num_frames, tokens_per_frame, hidden_size)`):
            What it would read of the frames.
        before (`torch.Tensor` of shape `(num_before, hidden_size)`): Embeddings of the text before the video.
        after (`torch.Tensor` of shape `(num_after, hidden_size)`): Of the text behind it, up to the answer.
        question (`torch.Tensor` of shape `(num_after,)`): Which tokens of `after` are the question, bool.
        layers (`str`, *optional*, defaults to `"middle"`): Whose attention counts, see [`scoring_layers`].
        window_size (`int`, *optional*, defaults to 64): Frames of a window.
        window_stride (`int`, *optional*, defaults to 32): Frames from one window to the next.
        chunk_size (`int`, *optional*, defaults to 512): Frames that go through the language model at once.

    Returns:
        `torch.Tensor` of shape `(num_scoring_layers, num_frames)`, float32: the mean over heads, the question's
        rows, the frame's tokens and the windows that hold the frame.

    Raises:
        ValueError: If there is no frame or no question, a size is under 1, or the language model is of another kind.
    """
    if len(frames) == 0 or not question.any():
        raise ValueError(
            f"There are {len(frames)} frames and {int(question.sum())} tokens of a question: each must be at least 1."
        )
    if min(window_size, window_stride, chunk_size) < 1 or window_stride > window_size:
        raise ValueError(
            f"`window_size`, `window_stride` and `chunk_size` must be at least 1 and the stride at most the size, got "
            f"{window_size}, {window_stride} and {chunk_size}."
        )
    attentions = [
        language_model.layers[index].self_attn for index in scoring_layers(len(language_model.layers), layers)
    ]
    rotate = getattr(sys.modules[type(attentions[0]).__module__], "apply_rotary_pos_emb", None)
    if rotate is None or not hasattr(attentions[0], "q_proj"):
        raise ValueError(f"Questions cannot be scored with a language model like {type(language_model).__name__}.")

    scores = []
    for chunk in frames.split(chunk_size):
        windows = windows_of(len(chunk), window_size, window_stride)
        found = []

        def score(
            attention: nn.Module,
            args: tuple,
            kwargs: dict,
            chunk: torch.Tensor = chunk,
            windows: list[torch.Tensor] = windows,
            found: list[torch.Tensor] = found,
        ) -> None:
            hidden = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])[0]
            found.append(
                _score_layer(language_model, attention, rotate, hidden, chunk, len(before), question, windows)
            )
            if len(found) == len(attentions):
                raise _Scored

        hooks = [attention.register_forward_pre_hook(score, with_kwargs=True) for attention in attentions]
        try:
            embeds = torch.cat([before, chunk.flatten(0, 1), after])[None]
            language_model(inputs_embeds=embeds, use_cache=False)
        except _Scored:  # the layers behind the last one that counts are not run
            pass
        finally:
            for hook in hooks:
                hook.remove()
        scores.append(torch.stack(found))
    return torch.cat(scores, dim=1)


@torch.no_grad()
def pool_for_scoring(projected: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """
    Few tokens of each frame, so that a whole pool fits into one forward: their grid, averaged to a smaller one.

    Args:
        projected (`torch.Tensor` of shape `(num_frames, num_patches, hidden_size)`): A square grid of each frame.
        num_tokens (`int`): Tokens per frame at most; the side of the new grid is the root of it, rounded down.

    Returns:
        `torch.Tensor` of shape `(num_frames, side * side, hidden_size)`.

    Raises:
        ValueError: If `num_tokens` is under 1.
    """
    if num_tokens < 1:
        raise ValueError(f"`question_tokens` must be at least 1, got {num_tokens}.")
    side = math.isqrt(projected.shape[1])
    grids = projected.transpose(1, 2).unflatten(2, (side, side))
    smaller = nn.functional.adaptive_avg_pool2d(grids, min(math.isqrt(num_tokens), side))
    return smaller.flatten(2).transpose(1, 2)


def _score_layer(
    language_model: nn.Module,
    attention: nn.Module,
    rotate: Callable,
    hidden: torch.Tensor,
    chunk: torch.Tensor,
    num_before: int,
    question: torch.Tensor,
    windows: list[torch.Tensor],
) -> torch.Tensor:
    """One layer's scores `(num_frames,)`, from its input `hidden` `(num_tokens, hidden_size)`."""
    num_frames, tokens_per_frame = chunk.shape[:2]
    num_video = num_frames * tokens_per_frame
    rows = num_before + num_video + question.nonzero().flatten().to(hidden.device)
    queries = attention.q_proj(hidden[rows]).unflatten(-1, (-1, attention.head_dim))
    keys = attention.k_proj(hidden).unflatten(-1, (-1, attention.head_dim))
    if hasattr(attention, "q_norm"):  # Qwen3
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)  # (num_heads, num_tokens, head_dim)
    texts = keys[:, :num_before], keys[:, num_before + num_video :]
    video = keys[:, num_before : num_before + num_video].unflatten(1, (num_frames, tokens_per_frame))

    total, count = hidden.new_zeros(num_frames, dtype=torch.float32), torch.zeros(num_frames, device=hidden.device)
    for window in windows:
        window = window.to(hidden.device)
        inside = torch.cat([texts[0], video[:, window].flatten(1, 2), texts[1]], dim=1)
        positions = torch.arange(inside.shape[1], device=hidden.device)[None]
        # Moved by the frames that the window lacks, a row of the question stands where it stands in the window.
        row_positions = (rows - (num_frames - len(window)) * tokens_per_frame)[None]
        cosines, sines = language_model.rotary_emb(hidden[None], positions)
        inside = rotate(inside[None], inside[None], cosines, sines)[1][0]
        asked = rotate(queries[None], queries[None], *language_model.rotary_emb(hidden[None], row_positions))[0][0]
        inside = inside.repeat_interleave(len(queries) // len(keys), dim=0)
        weights = (asked.float() @ inside.float().transpose(1, 2) * attention.scaling).softmax(dim=-1)
        paid = weights.mean(dim=(0, 1))[num_before : num_before + len(window) * tokens_per_frame]
        total.index_add_(0, window, paid.unflatten(0, (len(window), tokens_per_frame)).mean(dim=1))
        count.index_add_(0, window, torch.ones_like(window, dtype=count.dtype))
    return total / count


class FrameScoringMixin:
    """What the models offer by it: a pool's frames scored by a question, in one step or for several questions."""

    @torch.no_grad()
    def score_frames(
        self,
        features: torch.Tensor | Iterable[torch.Tensor],
        before_ids: torch.LongTensor,
        after_ids: torch.LongTensor,
        question: torch.BoolTensor,
        question_tokens: int = 16,
        **options: Any,
    ) -> torch.FloatTensor:
        """
        How relevant each frame of a pool is to a question, `(num_frames,)`: the scores of [`score_frames`], summed
        over the layers. `features` is what `encode_frames` gave of the frames, in one or in parts, `before_ids` and
        `after_ids` the prompt around the video, and `question` says which of `after_ids` are the question.
        """
        tokens = self.tokens_for_scoring(features, question_tokens)
        return self.score_tokens(tokens, before_ids, after_ids, question, **options).sum(dim=0)

    @torch.no_grad()
    def tokens_for_scoring(
        self, features: torch.Tensor | Iterable[torch.Tensor], question_tokens: int = 16
    ) -> torch.Tensor:
        """
        What the language model reads of a pool to score it, `(num_frames, num_tokens, hidden_size)`, for any number of
        questions: at most `question_tokens` of each frame, and never more than it reads of a scene.
        """
        model, config = self.base_model, self.config
        side = pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride)
        question_tokens, parts = min(question_tokens, side * side), []
        # Projected at full size, a pool takes gigabytes.
        for part in features.split(32) if isinstance(features, torch.Tensor) else features:
            grids = project_patches(part.to(self.device), model.multi_modal_projector, config)
            parts.append(pool_for_scoring(grids.flatten(1, 2), question_tokens))
        return torch.cat(parts)

    @torch.no_grad()
    def score_tokens(
        self,
        tokens: torch.Tensor,
        before_ids: torch.LongTensor,
        after_ids: torch.LongTensor,
        question: torch.BoolTensor,
        **options: Any,
    ) -> torch.FloatTensor:
        """The same from what `tokens_for_scoring` gave, layer by layer: `(num_layers, num_frames)`."""
        before, after = (self.get_input_embeddings()(ids.to(self.device)) for ids in (before_ids, after_ids))
        return score_frames(self.base_model.language_model, tokens, before, after, question, **options)


__all__ = ["LAYERS", "FrameScoringMixin", "pool_for_scoring", "score_frames", "scoring_layers", "windows_of"]
