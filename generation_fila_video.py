"""What `generate` needs beside the forward: visuals encoded once, and a cache that fits."""

from typing import Any

import torch
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.generation import utils as generation_utils

from .layer_compression_fila_video import CACHE_ARGUMENT as CACHE
from .layer_compression_fila_video import CompressedCache


class FilaVideoGenerationMixin(GenerationMixin):
    """For a model with `self.model`, a `FilaVideoModel`, whose answers depend on images and videos."""

    def _maybe_prepare_encoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> dict[str, Any]:
        """Before the first step the whole prompt is known, in chunks or not: the place to refuse a blind answer."""
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        encoded = model_kwargs.get("mm_encoder_outputs") or {}
        given = {name for name, outputs in encoded.items() if outputs is not None}
        cache = model_kwargs.get("cache", model_kwargs.get("past_key_values"))
        past_length = 0 if cache is None else int(cache.get_seq_length())
        # With a cache the prompt is the whole text or what is new in it.
        new = inputs_tensor[:, past_length:] if inputs_tensor.shape[1] > past_length else inputs_tensor
        ids, embeds = (None, new) if model_input_name == "inputs_embeds" else (new, None)
        self.model.refuse_missing_visuals(ids, embeds, given)
        has_slices = hasattr(generation_utils, "_slice_mm_encoder_output")
        if given and generation_config.prefill_chunk_size and not has_slices:
            raise ValueError(
                "This version of transformers drops images and videos where it reads a prompt in chunks: leave out "
                "`prefill_chunk_size`, or use transformers 5.23 or newer."
            )
        return model_kwargs

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """With `layer_compression`, a cache whose layers hold unequally many tokens."""
        # CODEPATH: with XComp's LP-Comp, the layers of a model hold unequally many tokens.
        if self.config.layer_compression is not None:
            for name in ("cache_implementation", "prefill_chunk_size"):
                value = getattr(generation_config, name, None)
                if value not in (None, "dynamic"):
                    raise ValueError(f"With `layer_compression`, `generate` knows no {name}={value!r}: leave it out.")
            if generation_config.use_cache is not False and model_kwargs.get(CACHE) is None:
                model_kwargs[CACHE] = CompressedCache(self.config.text_config)
                return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        inputs = (
            *("pixel_values", "pixel_values_videos", "frame_features"),
            *("video_num_scenes", "video_background_places", "video_question_ids"),
        )
        for name in inputs:
            if name in model_kwargs and model_kwargs[name] is None:
                model_kwargs.pop(name)
        if "frame_features" in model_kwargs:
            # The library looks for pixels only.
            video = {name: model_kwargs.pop(name) for name in inputs[1:] if name in model_kwargs}
            outputs = dict(model_kwargs.get("mm_encoder_outputs") or {})
            outputs["video"] = self.get_video_features(**video, return_dict=True)
            model_kwargs["mm_encoder_outputs"] = outputs
        return super()._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What one step reads. A drafting model's first step is not called the first, and would lose the visuals."""
        if not is_first_iteration and next_sequence_length != 1 and kwargs.get("mm_encoder_outputs"):
            cache = kwargs.get(CACHE)
            is_first_iteration = cache is not None and int(cache.get_seq_length()) == 0
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor | None,
        mm_encoder_output: dict,
        expand_size: int = 1,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> dict:
        """
        Beams and several answers: each copy of a prompt gets the prompt's own images and videos, in their order.
        (transformers 5.18 repeats each one in place, so that a prompt's first video takes the place of its second.)
        """
        if input_ids is not None and input_ids.numel() == 0:
            input_ids = None
        for modality, token_id in (("image", self.config.image_token_id), ("video", self.config.video_token_id)):
            outputs = mm_encoder_output.get(modality)
            if outputs is None:
                continue
            visuals = list(outputs.pooler_output)
            mask = self.model.get_placeholder_mask(input_ids, inputs_embeds, token_id, torch.cat(visuals), modality)
            expanded = []
            for num_tokens in mask.flatten(1).sum(-1).tolist():
                sizes = [len(visual) for visual in visuals]
                count = next((n for n in range(len(sizes) + 1) if sum(sizes[:n]) == num_tokens), None)
                if count is None:
                    raise ValueError(
                        f"A prompt has {num_tokens} {modality} tokens, but the {modality}s from its first one on give "
                        f"{sizes}: no number of them fills it."
                    )
                expanded += visuals[:count] * expand_size
                visuals = visuals[count:]
            outputs.pooler_output = tuple(expanded)
        return mm_encoder_output


__all__ = ["FilaVideoGenerationMixin"]
