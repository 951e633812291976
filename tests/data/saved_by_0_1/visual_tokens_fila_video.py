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
"""Pooling and newlines: the grids of projected patches become what the language model reads."""

import torch
from torch import nn

from .configuration_fila_video import FilaVideoConfig, pooled_grid_size


def pool_grids(grids: torch.Tensor, mode: str, stride: int) -> torch.Tensor:
    """Shrinks `(num_frames, side, side, hidden_size)` in height and width, to the side of `pooled_grid_size`."""
    # CODEPATH: OneVision and LLaVA-Video's defaults pool bilinearly, LLaVA-Video's evaluation by average.
    if mode == "none":
        return grids
    grids = grids.permute(0, 3, 1, 2)
    if mode == "bilinear":
        side = pooled_grid_size(grids.shape[-1], mode, stride)
        grids = nn.functional.interpolate(grids, size=(side, side), mode="bilinear")
    elif mode == "average":
        grids = nn.functional.avg_pool2d(grids, stride)
    else:
        grids = nn.functional.max_pool2d(grids, stride)
    return grids.permute(0, 2, 3, 1)


def visual_tokens(
    features: torch.Tensor, num_frames_each: list[int], config: FilaVideoConfig, newline: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """
    Pooled patches in raster order, with the newline where `config.newline_position` says.

    Args:
        features (`torch.Tensor` of shape `(num_frames, num_patches, hidden_size)`):
            One projected feature map an image, or a scene after merging.
        num_frames_each (`list[int]`): How many of them belong to each image or video, in order.
        config (`FilaVideoConfig`): The model's settings.
        newline (`torch.Tensor` of shape `(hidden_size,)`, *optional*): The newline embedding, where one is used.

    Returns:
        One `(num_tokens, hidden_size)` tensor an image or video, as many tokens as `num_visual_tokens` counts.
    """
    side = config.patches_per_side
    grids = pool_grids(features.unflatten(1, (side, side)), config.pooling_mode, config.pooling_stride)
    position = config.newline_position
    newline = None if newline is None else newline.to(grids)
    # CODEPATH: LLaVA-Video ends every row of the grid with a newline, OneVision every video.
    if position == "grid":
        grids = torch.cat([grids, newline.expand(*grids.shape[:2], 1, -1)], dim=2)
    tokens = grids.flatten(1, 2)
    if position == "frame":
        tokens = torch.cat([tokens, newline.expand(tokens.shape[0], 1, -1)], dim=1)
    visuals = [frames.flatten(0, 1) for frames in tokens.split(num_frames_each)]
    if position == "video":
        visuals = [torch.cat([visual, newline[None]]) for visual in visuals]
    return tuple(visuals)


__all__ = ["pool_grids", "visual_tokens"]
