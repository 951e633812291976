"""
QC-Comp of XComp (arXiv 2604.14149), and what goes beyond it: the question chooses the scenes. How much it attends to
each frame of the pool makes the frame's score, and by the scores representatives are chosen.

All frames go through the language model once, in its ordinary causal forward, with a few tokens each. In the middle
layers the attention is computed once more, within overlapping windows of frames and with positions that begin anew in
each: a frame far away from the question is then as near to it as any other.

    the forward      before  f1 f2 f3 f4 f5 f6 f7 f8  after        (hidden states)
    a window         before        f3 f4 f5 f6        after        (attention, positions 0, 1, 2, ...)
                                                      ^^^^^ of these rows, the question's are computed, nothing else

Two things are as in XComp's released code: the last window goes on with the first frames, and a row of the question
also attends to later tokens: all of those behind the video, with the head of the answer that the chat template writes,
which XComp leaves out. No sentence with times stands in this prompt, and the question's rows are its own words.
"""

import math
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers.video_utils import VideoMetadata

from .configuration_fila_video import pooled_grid_size
from .layer_compression_fila_video import is_plain_attention, unlike_llama
from .scene_merging_fila_video import compute_device, float64, project_patches
from .scene_selection_fila_video import num_selected_scenes, select_scenes

LAYERS = ("middle", "first")
DIVERSITIES = ("top", "clusters", "coverage")
MORE_CLUSTERS = 2  # clusters per scene, of which the better half is taken
MOST_ROWS = 128  # of a question at a time: the weights of all rows of a long one would take gigabytes


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
        frames (`torch.Tensor` of shape `(num_frames, tokens_per_frame, hidden_size)`): What it would read of them.
        before (`torch.Tensor` of shape `(num_before, hidden_size)`): Embeddings of the text before the video.
        after (`torch.Tensor` of shape `(num_after, hidden_size)`): Of the text behind it, up to the answer.
        question (`torch.Tensor` of shape `(num_after,)`): Which tokens of `after` are the question, bool.
        layers (`str`, *optional*, defaults to `"middle"`): Whose attention counts, see [`scoring_layers`].
        window_size (`int`, *optional*, defaults to 64): Frames of a window.
        window_stride (`int`, *optional*, defaults to 32): Frames from one window to the next.
        chunk_size (`int`, *optional*, defaults to 512):
            Frames that go through the language model at once, at most; fewer where its context has no more room.

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
    _check_kind(language_model, unlike_llama(language_model) is None)
    counted = scoring_layers(len(language_model.layers), layers)
    attentions = [getattr(language_model.layers[index], "self_attn", None) for index in counted]
    for attention in attentions:
        _check_kind(language_model, is_plain_attention(attention, language_model.config))
    if context := getattr(language_model.config, "max_position_embeddings", None):
        chunk_size = max(1, min(chunk_size, (context - len(before) - len(question)) // frames.shape[1]))
    layout = len(before), frames.shape[1], question
    before, after = before.to(frames.device), after.to(frames.device)
    scores, of_layers, this_thread = [], [], threading.get_ident()

    # The ordinary forward gives each layer's input; a hook on its way in scores the frames by it. Other threads may
    # use the model meanwhile; where one meets this hook while it is removed, torch hands it no `kwargs`.
    def score(attention: nn.Module, args: tuple, kwargs: dict | None = None) -> None:
        if threading.get_ident() != this_thread:
            return
        hidden = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])[0]
        if not scores:
            _check_kind(language_model, _is_turned(language_model, attention, hidden))
        of_layers.append(_score_layer(language_model, attention, hidden, windows, *layout).to(frames.device))
        if len(of_layers) == len(attentions):
            raise _Scored  # the layers behind the last one that counts are not run

    hooks = [attention.register_forward_pre_hook(score, with_kwargs=True) for attention in attentions]
    try:
        # Chunks of about one size: in a short one, fewer tokens would share the same attention.
        for chunk in frames.tensor_split(math.ceil(len(frames) / chunk_size)):
            windows = windows_of(len(chunk), window_size, window_stride)
            of_layers.clear()
            with suppress(_Scored):
                language_model(inputs_embeds=torch.cat([before, chunk.flatten(0, 1), after])[None], use_cache=False)
            scores.append(torch.stack(of_layers))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(scores, dim=1)


def _is_turned(language_model: nn.Module, attention: nn.Module, hidden: torch.Tensor) -> bool:
    """
    Whether positions make a difference in a layer, which in some of SmolLM3 and EXAONE 4 they do not. What gives the
    same to all tokens, as LLaMA-Pro's new layers give zeros, says nothing about it.
    """
    few = hidden[None, -16:]
    places = torch.arange(few.shape[1], device=few.device)[None]
    angles = [_angles(language_model, few, positions) for positions in (places, 7 * places)]
    heads = few.new_zeros(1, 1, few.shape[1], attention.head_dim)
    try:
        _rotate(attention, heads, *angles[0])
    except RuntimeError:  # its own code cuts out the part of a head that is turned (StableLM)
        return False
    rest = {"attention_mask": None, "position_ids": places}
    near, far = (attention.forward(few, position_embeddings=each, **rest)[0] for each in angles)
    return not torch.equal(near, far) or torch.equal(near, near[:, :1].expand_as(near))


def _angles(language_model: nn.Module, hidden: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
    """Cosines and sines of places. Of a model on several devices, they may come from another one."""
    return [angles.to(hidden.device) for angles in language_model.rotary_emb(hidden, positions)]


def _rotate(attention: nn.Module, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys `(1, num_heads, num_tokens, head_dim)` turned by their places."""
    return sys.modules[type(attention).__module__].apply_rotary_pos_emb(states, states, cos, sin)[0]


def _check_kind(language_model: nn.Module, is_known: bool) -> None:
    if not is_known:
        raise ValueError(
            f"Questions cannot be scored with a language model like {type(language_model).__name__}, whose attention "
            "has more than projections, norms of heads and a rotation: use another selection or a `question_scorer`."
        )


def _score_layer(
    language_model: nn.Module,
    attention: nn.Module,
    hidden: torch.Tensor,
    windows: list[torch.Tensor],
    num_before: int,
    tokens_per_frame: int,
    question: torch.Tensor,
) -> torch.Tensor:
    """One layer's scores `(num_frames,)`, from its input `hidden` `(num_tokens, hidden_size)`."""
    num_video = len(hidden) - num_before - len(question)
    num_frames = num_video // tokens_per_frame
    # Queries of the question's rows alone: nobody else's attention is looked at.
    rows = num_before + num_video + question.nonzero().flatten().to(hidden.device)
    queries = attention.q_proj(hidden[rows]).unflatten(-1, (-1, attention.head_dim))
    keys = attention.k_proj(hidden).unflatten(-1, (-1, attention.head_dim))
    if hasattr(attention, "q_norm"):  # Qwen3
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)  # (num_heads, num_tokens, head_dim)
    texts = keys[:, :num_before], keys[:, num_before + num_video :]
    video = keys[:, num_before : num_before + num_video].unflatten(1, (num_frames, tokens_per_frame))

    def turned(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return _rotate(attention, states[None], *_angles(language_model, hidden[None], positions))[0]

    total, count = (hidden.new_zeros(num_frames, dtype=torch.float32) for _ in range(2))
    for window in windows:
        window = window.to(hidden.device)
        inside = torch.cat([texts[0], video[:, window].flatten(1, 2), texts[1]], dim=1)
        positions = torch.arange(inside.shape[1], device=hidden.device)[None]
        # Moved by the frames that the window lacks, a row of the question stands where it stands in the window.
        row_positions = (rows - (num_frames - len(window)) * tokens_per_frame)[None]
        # Queries have other places than keys: each are turned alone.
        inside, asked = turned(inside, positions), turned(queries, row_positions)
        inside = inside.repeat_interleave(len(queries) // len(keys), dim=0)  # several heads share their keys
        inside, paid = inside.float().transpose(1, 2), 0
        for part in asked.float().split(MOST_ROWS, dim=1):
            weights = (part @ inside * attention.scaling).softmax(dim=-1)
            paid = paid + weights.mean(dim=(0, 1)) * (part.shape[1] / len(rows))
        paid = paid[num_before : num_before + len(window) * tokens_per_frame]
        total.index_add_(0, window, paid.unflatten(0, (len(window), tokens_per_frame)).mean(dim=1))
        count.index_add_(0, window, torch.ones_like(window, dtype=count.dtype))
    return total / count


class FrameScoringMixin:
    """What the models offer by it: a pool's frames scored by one question, or by any number of them."""

    @torch.no_grad()
    def tokens_for_scoring(
        self, features: torch.Tensor | Iterable[torch.Tensor], question_tokens: int = 16
    ) -> torch.Tensor:
        """
        What the language model reads of a pool to score it, `(num_frames, side * side, hidden_size)`, from what
        `encode_frames` gave: few tokens of each frame, so that a pool takes few forwards. Its grid is averaged to a
        smaller one of at most `question_tokens`, and never more than it reads of a scene.

        Raises:
            ValueError: If `question_tokens` is under 1.
        """
        if question_tokens < 1:
            raise ValueError(f"`question_tokens` must be at least 1, got {question_tokens}.")
        config, parts = self.config, []
        most = pooled_grid_size(config.patches_per_side, config.pooling_mode, config.pooling_stride)
        side = min(math.isqrt(question_tokens), most)
        # Projected at full size, a pool takes gigabytes.
        for part in features.split(32) if isinstance(features, torch.Tensor) else features:
            grids = project_patches(part.to(compute_device(self)), self.base_model.multi_modal_projector, config)
            smaller = nn.functional.adaptive_avg_pool2d(grids.permute(0, 3, 1, 2), side)
            parts.append(smaller.flatten(2).transpose(1, 2))
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
        """
        The scores `(num_layers, num_frames)` that [`score_frames`] gives the `tokens` of a pool between those of a
        prompt, before the video and behind it; `question` says which of the latter are the question.
        """
        device = compute_device(self)
        before, after = (self.get_input_embeddings()(ids.to(device)) for ids in (before_ids, after_ids))
        return score_frames(self.base_model.language_model, tokens, before, after, question, **options)


@dataclass(frozen=True)
class Question:
    """
    A question that chooses scenes.

    Args:
        text (`str`): What is asked.
        times (`torch.Tensor` of shape `(num_frames,)`): Of the pool's frames, in seconds.
        prompt (`Callable[[str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]`, *optional*):
            From a question to the token ids before the video, those behind it, and which of the latter are its own:
            what the model reads. A scorer needs none.
        metadata (`VideoMetadata`, *optional*): Of the video, in whose shape a scorer sees the frames.
    """

    text: str
    times: torch.Tensor
    prompt: Callable[[str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] | None = None
    metadata: VideoMetadata | None = None

    def __getitem__(self, indices: torch.Tensor) -> "Question":
        """The same, of a part of the pool."""
        return replace(self, times=self.times[indices])

    def scores(
        self,
        frames: torch.Tensor | None,
        features: Iterable[torch.Tensor] | None,
        model: nn.Module | None,
        scorer: Callable[[torch.Tensor, str], torch.Tensor] | None,
        neutral_question: str,
        question_tokens: int,
        layers: str = "middle",
    ) -> torch.Tensor:
        """
        One score per frame, `(num_frames,)`.

        Args:
            frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`, *optional*): uint8, for a scorer.
            features (`Iterable[torch.Tensor]`, *optional*): Patch features of the frames in parts, for the model.
            model (`nn.Module`, *optional*): With what [`FrameScoringMixin`] gives.
            scorer (`Callable`, *optional*): From frames and a question to scores, in place of the model.
            neutral_question (`str`): What every score is compared with, or an empty text.
            question_tokens, layers: As for [`FrameScoringMixin`] and [`scoring_layers`].

        Raises:
            ValueError: If there is neither a scorer nor a model, or the scorer gives no score per frame.
        """
        texts = [self.text, neutral_question] if neutral_question else [self.text]
        if scorer is not None:
            scores = [torch.as_tensor(scorer(frames, text)).float().cpu()[None] for text in texts]
            if scores[0].shape != (1, len(frames)):
                raise ValueError(
                    f"The scorer must give one score per frame, so {len(frames)}, got {tuple(scores[0].shape[1:])}."
                )
            return relevance(*scores)
        if features is None or not hasattr(model, "score_tokens"):
            raise ValueError(
                "`selection='question'` asks the model itself which frames matter: bind the processor to it "
                "(`processor.bind(model)`), or give the processor a scorer (`processor.question_scorer = "
                "ContrastiveScorer(...)`)."
            )
        tokens = model.tokens_for_scoring(features, question_tokens)
        return relevance(*(model.score_tokens(tokens, *self.prompt(text), layers=layers) for text in texts))


def relevance(asked: torch.Tensor, neutral: torch.Tensor | None = None) -> torch.Tensor:
    """
    One score per frame from the scores of the layers `(num_layers, num_frames)`: their sum, as in XComp; or, with the
    scores of a neutral question, the sum of what each layer gives the question more than the neutral one, both in
    standard deviations. What draws attention whatever is asked falls away.
    """
    if neutral is None:
        return asked.sum(dim=0)
    asked, neutral = (
        (scores - scores.mean(dim=1, keepdim=True)) / scores.std(dim=1, keepdim=True, correction=0).clamp(min=1e-12)
        for scores in (float64(asked), float64(neutral))
    )
    return (asked - neutral).sum(dim=0)


@torch.no_grad()
def relevant_frames(
    scores: torch.Tensor,
    times: torch.Tensor,
    features: torch.Tensor,
    num_scenes: int,
    *,
    diversity: str = "top",
    spacing: float = 0.0,
    context: float = 0.0,
    min_rise: float = 0.0,
    init: str = "k-means++",
    seed: int = 42,
) -> torch.LongTensor:
    """
    The representatives of a question's scenes. Equal arguments give equal frames; ties go to the earlier one.

    Args:
        scores (`torch.Tensor` of shape `(num_frames,)`): How much each frame of the pool has to do with the question.
        times (`torch.Tensor` of shape `(num_frames,)`): Their times in seconds, ascending.
        features (`torch.Tensor` of shape `(num_frames, dim)`): What frames are compared by.
        num_scenes (`int`): Representatives wanted, at most; a pool with fewer frames gives all of them.
        diversity (`str`, *optional*, defaults to `"top"`):
            - `"top"`: the highest scores (XComp).
            - `"clusters"`: the best frames of the best clusters, of twice as many clusters as scenes (k-means).
            - `"coverage"`: frames at equal steps of the cumulated scores, to each of which their mean is added, so
              that all the video is covered, more densely where scores are high (inverse transform sampling, BOLT).
        spacing, context, min_rise (`float`, *optional*, default to 0.0):
            As `question_spacing` and so on of [`SceneSettings`]. With `min_rise`, none within `spacing` of a better
            one is taken, even where scenes are left over. None of them is for `"coverage"`: `spacing`, which is 3
            seconds unless another is set, is left out there, and the others are refused.
        init (`str`, *optional*, defaults to `"k-means++"`): Initial centers of k-means, see [`select_scenes`].
        seed (`int`, *optional*, defaults to 42): Of these.

    Returns:
        `torch.LongTensor` of shape `(min(num_scenes, num_frames),)`, or at least one with `min_rise`, on the CPU,
        ascending.

    Raises:
        ValueError: If the diversity is unknown or does not go with another argument, or the scores are not finite or
        not one a frame.
    """
    if diversity not in DIVERSITIES:
        raise ValueError(f"Unknown `question_diversity` {diversity!r}: use one of {', '.join(DIVERSITIES)}.")
    if diversity == "coverage" and (context or min_rise):
        raise ValueError(
            "`question_diversity='coverage'` spreads its frames over the video, so it takes neither "
            f"`question_context` ({context}) nor `question_min_rise` ({min_rise}): set them to 0."
        )
    if scores.shape != (len(features),) or len(times) != len(features) or not scores.isfinite().all():
        raise ValueError(
            f"{len(features)} frames need as many finite scores and times, got scores of shape {tuple(scores.shape)} "
            f"and {len(times)} times."
        )
    scores, seconds = scores.cpu().double(), times.tolist()
    count = num_selected_scenes(len(scores), num_scenes)
    ranked = scores.argsort(descending=True, stable=True).tolist()
    order = ranked

    if diversity == "coverage":
        # Half of the steps by what the scores have above the lowest one, half by time alone.
        shares = scores - scores.min()
        shares = shares + shares.mean().clamp(min=1e-12)
        steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        order = torch.searchsorted((shares / shares.sum()).cumsum(0), steps).clamp(max=len(scores) - 1).tolist()
        order, spacing = [*order, *ranked], 0.0
    elif diversity == "clusters" and count * MORE_CLUSTERS < len(scores):
        # The centers are frames; each frame belongs to the nearest. Behind the best frames of all clusters come the
        # others, for `spacing` may leave too few of those.
        centers = select_scenes(features, count * MORE_CLUSTERS, 1, init=init, seed=seed).flatten()
        points = float64(features)
        labels = torch.cdist(points, points[centers.to(points.device)]).argmin(1).cpu()
        best: dict[int, int] = {}  # frame of each cluster, in the order of their scores
        for frame in ranked:
            best.setdefault(labels[frame].item(), frame)
        order = [*best.values(), *ranked]
    if min_rise:
        # Against the median, since most of a video has nothing to do with a question.
        median = scores.median()
        lowest = torch.minimum(median + min_rise * (scores.max() - median), scores.max())  # the sum may round up
        order = [frame for frame in order if scores[frame].item() >= lowest.item()]

    # First those that keep their distance, then, where all scenes are to be filled, the others.
    chosen: list[int] = []
    for distance in (spacing,) if min_rise else (spacing, 0.0):
        for frame in order:
            if len(chosen) >= count:
                break
            if frame not in chosen and all(abs(seconds[frame] - seconds[other]) >= distance for other in chosen):
                around = moments_around(features, times, frame, context) if context > 0 else []
                chosen += [frame, *(moment for moment in around if moment not in chosen)]
    return torch.tensor(sorted(chosen[:count]))


@torch.no_grad()
def moments_around(features: torch.Tensor, times: torch.Tensor, frame: int, context: float) -> list[int]:
    """
    What happens right before and right after a frame: on either side the nearest run of frames that differ from it,
    and from what the video mostly shows, at least half as much as it does itself. Of a run, the frame that differs
    most from what the video mostly shows, which is the median of the features.

    Args:
        features (`torch.Tensor` of shape `(num_frames, dim)`): What frames are compared by.
        times (`torch.Tensor` of shape `(num_frames,)`): Their times in seconds, ascending.
        frame (`int`): Whose surroundings are wanted.
        context (`float`): Seconds on either side within which a run must begin.

    Returns:
        `list[int]`: At most one frame before it and one after it.
    """
    features = float64(features)
    unusual = (features - features.median(dim=0).values).norm(dim=1)
    half = unusual[frame] / 2
    other = ((unusual >= half) & ((features - features[frame]).norm(dim=1) >= half)).tolist()
    moments = []
    for side in (range(frame - 1, -1, -1), range(frame + 1, len(features))):
        run: list[int] = []
        for place in side:
            # A run goes on for as long as its frames resemble its first one.
            if other[place] and (not run or (features[place] - features[run[0]]).norm() < half):
                run.append(place)
            elif run or abs(times[place] - times[frame]) > context:
                break
        if run and abs(times[run[0]] - times[frame]) <= context:
            moments.append(max(run, key=lambda place: unusual[place].item()))
    return moments


__all__ = ["DIVERSITIES", "LAYERS", "FrameScoringMixin", "Question", "relevance", "relevant_frames", "score_frames"]
