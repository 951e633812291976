"""From merged patch features to what the language model reads: projector and pooling, in either order, and newline."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_fila_video import FilaVideoConfig, pooled_grid_size


class FilaVideoMultiModalProjector(nn.Module):
    """
    From the vision tower's width to the language model's, as `config.projector_type` says: two linear layers with an
    activation between them (section 4.1), the same behind a norm, or one linear layer without bias.
    """

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        width, hidden_size = config.vision_config.hidden_size, config.text_config.hidden_size
        if config.pooling_mode == "pixel_shuffle":
            width *= config.pooling_stride**2
        # CODEPATH: InternVL's projector begins with a norm, SmolVLM's is a single matrix.
        self.layer_norm = nn.LayerNorm(width) if config.projector_type == "norm_mlp" else None
        self.linear_1 = nn.Linear(width, hidden_size, bias=config.projector_type != "linear")
        self.act = self.linear_2 = None
        if config.projector_type != "linear":
            self.act = ACT2FN[config.projector_hidden_act]
            self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # Of quantized weights biases and norms alone keep the type that is computed in.
        dtype = next((each.dtype for each in reversed([*self.parameters()]) if each.is_floating_point()), None)
        features = features.to(dtype)
        if self.layer_norm is not None:
            features = self.layer_norm(features)
        features = self.linear_1(features)
        return features if self.linear_2 is None else self.linear_2(self.act(features))


def pool_grids(grids: torch.Tensor, mode: str, stride: int) -> torch.Tensor:
    """
    Shrinks `(num_frames, side, side, hidden_size)` in height and width, to the side of `pooled_grid_size`. A pixel
    shuffle drops nothing: it puts `stride` x `stride` neighbors into one token, their channels one behind the other.
    """
    # CODEPATH: OneVision and LLaVA-Video's defaults pool bilinearly, LLaVA-Video's evaluation by average.
    if mode == "none":
        return grids
    if mode == "pixel_shuffle":
        blocks = grids.unflatten(2, (-1, stride)).unflatten(1, (-1, stride))
        return blocks.transpose(2, 3).flatten(3)
    grids = grids.permute(0, 3, 1, 2)
    if mode == "bilinear":
        side = pooled_grid_size(grids.shape[-1], mode, stride)
        grids = nn.functional.interpolate(grids, size=(side, side), mode="bilinear")
    elif mode == "average":
        grids = nn.functional.avg_pool2d(grids, stride)
    else:
        grids = nn.functional.max_pool2d(grids, stride)
    return grids.permute(0, 2, 3, 1)


def project_patches(features: torch.Tensor, projector: nn.Module, config: FilaVideoConfig) -> torch.Tensor:
    """
    Patch features `(num_frames, num_patches, vision_hidden_size)` at the language model's width, `(num_frames, side,
    side, hidden_size)`: all patches, or where pooling stands before the projector what is left of them.
    """
    grids = features.unflatten(1, (config.patches_per_side, config.patches_per_side))
    # CODEPATH: LLaVA-NeXT-Video averages and SmolVLM and InternVL shuffle patches before they project them.
    if config.pooling_position == "before_projector":
        grids = pool_grids(grids, config.pooling_mode, config.pooling_stride)
    # In three dimensions, which are all that bitsandbytes' 8-bit layers take.
    return projector(grids.flatten(1, 2)).unflatten(1, grids.shape[1:3])


def visual_tokens(
    features: torch.Tensor,
    num_frames_each: list[int],
    projector: nn.Module,
    newline: torch.Tensor | None,
    config: FilaVideoConfig,
) -> tuple[torch.Tensor, ...]:
    """
    Projected and pooled patches in raster order, with the newline where `config.newline_position` says.

    Args:
        features (`torch.Tensor` of shape `(num_frames, num_patches, vision_hidden_size)`):
            Of each image, or of each scene after merging.
        num_frames_each (`list[int]`): How many of them belong to each image or video, in order.
        projector (`nn.Module`): The model's.
        newline (`torch.Tensor` of shape `(hidden_size,)`, *optional*): The newline embedding, where one is used.
        config (`FilaVideoConfig`): The model's settings.

    Returns:
        One `(num_tokens, hidden_size)` tensor an image or video, as many tokens as `num_visual_tokens` counts.
    """
    grids = project_patches(features, projector, config)
    if config.pooling_position == "after_projector":
        grids = pool_grids(grids, config.pooling_mode, config.pooling_stride)
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


__all__ = ["FilaVideoMultiModalProjector", "pool_grids", "project_patches", "visual_tokens"]
