"""A scorer of frames that needs no language model: how well a text fits to each, by a SigLIP or a CLIP."""

import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

logger = logging.get_logger(__name__)


class ContrastiveScorer:
    """
    Scores frames by how well a text fits to them, with a SigLIP or CLIP of transformers: a scorer for processors that
    have no language model at hand (`processor.question_scorer`).

    Args:
        model (`str`, `Path` or `PreTrainedModel`):
            A checkpoint's name or folder, or a loaded model with `get_image_features` and `get_text_features`.
        image_processor, tokenizer (*optional*): Of a loaded model; by default those of the checkpoint.
        batch_size (`int`, *optional*, defaults to 32): Frames that are encoded at once.
        device (`str` or `torch.device`, *optional*): Where the model runs; by default, where it is.

    Raises:
        ValueError: If the model has no features for images and texts.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        image_processor: Callable | None = None,
        tokenizer: Callable | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
    ) -> None:
        if isinstance(model, (str, Path)):
            image_processor = image_processor or AutoImageProcessor.from_pretrained(model)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
            model = AutoModel.from_pretrained(model).eval()
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise ValueError(f"{type(model).__name__} does not compare texts with images: use a SigLIP or a CLIP.")
        if image_processor is None or tokenizer is None:
            raise ValueError("A loaded model needs its `image_processor` and its `tokenizer`.")
        self.model, self.image_processor, self.tokenizer = model, image_processor, tokenizer
        if device is not None:
            model.to(device)
        self.batch_size = batch_size
        # Of the frames that were scored last: a neutral question and others about the same video come right after.
        self._last: tuple[weakref.ref, int | None, torch.Tensor] | None = None

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
                f"A question of {length} tokens is cut to the {longest} that {type(self.model).__name__} reads."
            )
        # SigLIP was trained on texts that are padded to their full length.
        text = self.tokenizer(
            question, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.model.device)
        if "siglip" in self.model.config.model_type:
            text.pop("attention_mask", None)
        wanted = nn.functional.normalize(_pooled(self.model.get_text_features(**text)).float(), dim=-1)
        return (self._encode(frames) @ wanted[0]).cpu()

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        """What the model sees in each frame, `(num_frames, dim)`, of length 1."""
        version = None if frames.is_inference() else frames._version  # counts changes in place
        last = self._last  # read once: another thread may put others in its place
        if last is not None and last[0]() is frames and last[1] == version is not None:
            return last[2]
        seen = []
        for batch in frames.split(self.batch_size):
            pixels = self.image_processor(list(batch.cpu()), return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.model.device, self.model.dtype)
            seen.append(_pooled(self.model.get_image_features(pixel_values=pixels)).float())
        features = nn.functional.normalize(torch.cat(seen), dim=-1)
        self._last = weakref.ref(frames), version, features
        return features


def _pooled(features: torch.Tensor | object) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output


__all__ = ["ContrastiveScorer"]
