"""
Selection by the question: from scores to representatives (QC-Comp of XComp, arXiv 2604.14149, and what goes beyond
it), and a scorer that needs no language model.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from .scene_selection_fila_video import num_selected_scenes, select_scenes

logger = logging.get_logger(__name__)

DIVERSITIES = ("top", "clusters", "coverage")
MORE_CLUSTERS = 2  # clusters per scene, of which the better half is taken


@dataclass(frozen=True)
class AskedVideo:
    """A video on its way through the processor, with the question that its prompt asks."""

    video: Any
    question: str


def asked_videos(
    videos: list, text: list[str] | None, tokenizer: PreTrainedTokenizerBase, placeholders: tuple[str, str]
) -> list:
    """
    Each video with what its prompt asks: the text behind its placeholder up to the end of the turn, which is the next
    special token that is none of the `placeholders`, the video's and the image's. The videos as they are where the
    prompts do not have one placeholder for each.
    """
    if text is None or not all(isinstance(sample, str) for sample in text):
        return videos
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    ends = "|".join(re.escape(token) for token in specials if token not in placeholders)
    questions = []
    for sample in text:
        for placeholder in re.finditer(re.escape(placeholders[0]), sample):
            behind = sample[placeholder.end() :]
            turn = re.split(ends, behind, maxsplit=1)[0] if ends else behind
            questions.append(re.sub("|".join(map(re.escape, placeholders)), " ", turn).strip())
    if len(questions) != len(videos):
        return videos
    return [AskedVideo(video, question) for video, question in zip(videos, questions, strict=True)]


def prompt_of_question(
    question: str, tokenizer: PreTrainedTokenizerBase, video_token: str, render: Callable | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The prompt that asks a question about a pool. It has no sentence with times, so that none of them counts as asked.

    Args:
        question (`str`): What is asked.
        tokenizer (`PreTrainedTokenizerBase`): The language model's.
        video_token (`str`): The placeholder.
        render (`Callable`, *optional*): `apply_chat_template`, where there is a template.

    Returns:
        `tuple`: token ids before the video and behind it, and which of the latter are the question's, bool.

    Raises:
        ValueError: If the chat template changes the question.
    """
    prompt = f"{video_token}\n{question}\n"
    if render is not None:
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        prompt = render(chat, tokenize=False, add_generation_prompt=True)
    before, _, behind = prompt.partition(video_token)
    head, found, tail = behind.partition(question)
    if not found:
        raise ValueError(f"The chat template does not show a question as it is: {question[:80]!r} is not in it.")
    before, head, asked, tail = (
        torch.tensor(tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [], dtype=torch.long)
        for piece in (before, head, question, tail)
    )
    is_question = torch.zeros(len(head) + len(asked) + len(tail), dtype=torch.bool)
    is_question[len(head) : len(head) + len(asked)] = True
    return before, torch.cat([head, asked, tail]), is_question


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
    """

    text: str
    times: torch.Tensor
    prompt: Callable[[str], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] | None = None

    def __getitem__(self, indices: torch.Tensor) -> "Question":
        """The same, of a part of the pool."""
        return replace(self, times=self.times[indices])

    def scores(
        self,
        frames: torch.Tensor,
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
            frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`): uint8, for a scorer.
            features (`Iterable[torch.Tensor]`, *optional*): Patch features of the frames in parts, for the model.
            model (`nn.Module`, *optional*): With `tokens_for_scoring` and `score_tokens`.
            scorer (`Callable`, *optional*): From frames and a question to scores, in place of the model.
            neutral_question (`str`): What every score is compared with, or an empty text.
            question_tokens (`int`): Tokens per frame while the language model scores.
            layers (`str`, *optional*, defaults to `"middle"`): Of the language model, see [`scoring_layers`].

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
        for scores in (asked.double(), neutral.double())
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
        spacing (`float`, *optional*, defaults to 0.0):
            Seconds around a chosen frame from which no other one is taken while there are others.
        context (`float`, *optional*, defaults to 0.0):
            Seconds to look around in. Where it is above 0, each frame brings along the moments right before and after
            it, for questions that name one thing and ask for the next; see [`moments_around`]. Not for `"coverage"`.
        min_rise (`float`, *optional*, defaults to 0.0):
            Makes `num_scenes` a ceiling: a frame whose score rises above the median by less than this share of the
            best one's rise is not taken, nor one within `spacing` of a better one. One peak far above all others
            takes one scene, scores that are about equal take all. 0 for always `num_scenes`. Not for `"coverage"`.
        seed (`int`, *optional*, defaults to 42): Of k-means.

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
    scores, seconds = scores.double().cpu(), times.tolist()
    count = num_selected_scenes(len(scores), num_scenes)
    ranked = scores.argsort(descending=True, stable=True).tolist()

    if diversity == "coverage":
        # Half of the steps by what the scores have above the lowest one, half by time alone.
        shares = scores - scores.min()
        shares = shares + shares.mean().clamp(min=1e-12)
        steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        order = torch.searchsorted((shares / shares.sum()).cumsum(0), steps).clamp(max=len(scores) - 1).tolist()
        order, spacing = [*order, *ranked], 0.0
    elif diversity == "clusters" and count * MORE_CLUSTERS < len(scores):
        centers = select_scenes(features, count * MORE_CLUSTERS, 1, seed=seed).flatten()
        labels = torch.cdist(features.double(), features[centers.to(features.device)].double()).argmin(1).cpu()
        best: dict[int, int] = {}  # frame of each cluster, in the order of their scores
        for frame in ranked:
            best.setdefault(labels[frame].item(), frame)
        order = [*best.values(), *ranked]
    else:
        order = ranked
    if min_rise:
        median = scores.median()
        lowest = median + min_rise * (scores.max() - median)
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
    features = features.double()
    unusual = (features - features.median(dim=0).values).norm(dim=1)
    half = unusual[frame] / 2
    other = ((unusual >= half) & ((features - features[frame]).norm(dim=1) >= half)).tolist()
    moments = []
    for side in (range(frame - 1, -1, -1), range(frame + 1, len(features))):
        run: list[int] = []
        for place in side:
            if other[place] and (not run or (features[place] - features[run[0]]).norm() < half):
                run.append(place)
            elif run or abs(times[place] - times[frame]) > context:
                break
        if run and abs(times[run[0]] - times[frame]) <= context:
            moments.append(max(run, key=lambda place: unusual[place].item()))
    return moments


class ContrastiveScorer:
    """
    Scores frames by how well a text fits to them, with a SigLIP or CLIP of transformers: a scorer for processors that
    have no language model at hand (`processor.question_scorer`).

    Args:
        model (`str`, `Path` or `PreTrainedModel`):
            A checkpoint's name or folder, or a loaded model with `get_image_features` and `get_text_features`.
        image_processor, tokenizer (*optional*): Of a loaded model; by default those of the checkpoint.
        batch_size (`int`, *optional*, defaults to 32): Frames that are encoded at once.

    Raises:
        ValueError: If the model has no features for images and texts.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        image_processor: Callable | None = None,
        tokenizer: Callable | None = None,
        batch_size: int = 32,
    ) -> None:
        if isinstance(model, (str, Path)):
            image_processor = image_processor or AutoImageProcessor.from_pretrained(model)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
            model = AutoModel.from_pretrained(model).eval()
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise ValueError(f"A {type(model).__name__} does not compare texts with images: use a SigLIP or a CLIP.")
        if image_processor is None or tokenizer is None:
            raise ValueError("A loaded model needs its `image_processor` and its `tokenizer`.")
        self.model, self.image_processor, self.tokenizer = model, image_processor, tokenizer
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, frames: torch.Tensor, question: str) -> torch.Tensor:
        """
        Args:
            frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`): uint8.
            question (`str`): What is asked. A text longer than the model's is cut, with a warning.

        Returns:
            `torch.Tensor` of shape `(num_frames,)`, float32: cosines between each frame and the text.
        """
        longest = getattr(self.model.config.text_config, "max_position_embeddings", None)
        length = len(self.tokenizer(question)["input_ids"])
        if longest is not None and length > longest:
            logger.warning_once(
                f"A question of {length} tokens is cut to the {longest} that a {type(self.model).__name__} reads."
            )
        # SigLIP was trained on texts that are padded to their full length.
        text = self.tokenizer(
            question, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.model.device)
        if "siglip" in self.model.config.model_type:
            text.pop("attention_mask", None)
        wanted = nn.functional.normalize(_pooled(self.model.get_text_features(**text)).float(), dim=-1)
        scores = []
        for batch in frames.split(self.batch_size):
            pixels = self.image_processor(list(batch.cpu()), return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.model.device, self.model.dtype)
            seen = _pooled(self.model.get_image_features(pixel_values=pixels)).float()
            scores.append(nn.functional.normalize(seen, dim=-1) @ wanted[0])
        return torch.cat(scores).cpu()


def _pooled(features: torch.Tensor | object) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output


__all__ = [
    "DIVERSITIES",
    "AskedVideo",
    "ContrastiveScorer",
    "Question",
    "asked_videos",
    "moments_around",
    "prompt_of_question",
    "relevance",
    "relevant_frames",
]
