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
"""What `generate` needs to know of videos: frames that are encoded already, and how copies of a prompt share them."""

import torch
from transformers.generation import GenerationMixin


class FilaVideoGenerationMixin(GenerationMixin):
    """`generate` encodes images and videos once, before the first step, and hands them on as `mm_encoder_outputs`."""

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        inputs = ("pixel_values", "pixel_values_videos", "frame_features", "video_num_scenes")
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
