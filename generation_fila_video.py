# Copyright 2026 The FiLA-Video authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What `generate` needs to know of images and videos: when to drop them, and how copies of a prompt share them."""

import torch
from transformers.generation import GenerationMixin

from .configuration_fila_video import num_visual_tokens

# What carries images and videos; dropped once the cache holds them.
VISUAL_INPUTS = ("pixel_values", "pixel_values_videos", "frame_features", "video_num_scenes")


class FilaVideoGenerationMixin(GenerationMixin):
    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, use_cache=True, **kwargs):
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, use_cache=use_cache, **kwargs
        )
        if use_cache and not is_first_iteration:
            # The cache holds what the visuals gave.
            for name in VISUAL_INPUTS:
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """Beams and several answers: each copy of a prompt gets the prompt's own images and videos, in their order."""
        visuals = {name: model_kwargs.pop(name) for name in VISUAL_INPUTS if model_kwargs.get(name) is not None}
        if expand_size > 1 and visuals:
            text = input_ids if input_ids is not None and input_ids.numel() else None
            embeds = model_kwargs.get("inputs_embeds")
            visuals = self._repeat_visuals(visuals, text, embeds, expand_size)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | visuals

    def _repeat_visuals(self, visuals: dict, input_ids, inputs_embeds, expand_size: int) -> dict:
        if "pixel_values_videos" in visuals:
            # Encoded once for all copies.
            pixels = visuals.pop("pixel_values_videos")
            features = self.encode_frames(pixels.flatten(0, 1))
            visuals["frame_features"] = features.unflatten(0, pixels.shape[:2])
        repeated = {}
        for names, token_id in (
            (("pixel_values",), self.config.image_token_id),
            (("frame_features", "video_num_scenes"), self.config.video_token_id),
        ):
            present = [name for name in names if name in visuals]
            if not present:
                continue
            if input_ids is None:
                token = self.get_input_embeddings()(torch.full((), token_id, device=inputs_embeds.device))
                tokens_each = (inputs_embeds == token).all(-1).sum(-1).tolist()
            else:
                tokens_each = (input_ids == token_id).sum(-1).tolist()
            index = self._visuals_of_each_prompt(visuals, present, tokens_each)
            order = [i for prompt in index for _ in range(expand_size) for i in prompt]
            for name in present:
                repeated[name] = visuals[name][order]
        return repeated

    def _visuals_of_each_prompt(self, visuals: dict, names: list[str], tokens_each: list[int]) -> list[list[int]]:
        """Which images, or videos, stand in each prompt: by the number of placeholder tokens that each one takes."""
        tensor = visuals[names[0]]
        if "pixel_values" in names:
            frames_each = [1] * tensor.shape[0]
        elif "video_num_scenes" in visuals:
            frames_each = visuals["video_num_scenes"].tolist()
        else:
            frames_each = [tensor.shape[1] // self.config.scene_size] * tensor.shape[0]
        sizes = [
            num_visual_tokens(
                frames,
                self.config.patches_per_side,
                self.config.pooling_mode,
                self.config.pooling_stride,
                self.config.newline_position,
            )
            for frames in frames_each
        ]
        prompts, position = [], 0
        for tokens in tokens_each:
            prompt = []
            while tokens > 0 and position < len(sizes):
                prompt.append(position)
                tokens -= sizes[position]
                position += 1
            if tokens != 0:
                raise ValueError(
                    f"The prompts have {tokens_each} placeholder tokens, but the visuals give {sizes} tokens."
                )
            prompts.append(prompt)
        return prompts


__all__ = ["FilaVideoGenerationMixin"]
