"""
From patches to what the language model reads: scene merging, then projector and pooling, in either order, and newline.

The frames of a scene, in chronological order, become one frame's worth of tokens (section 3.2, supplement C). Every
merger maps `(num_scenes, scene_size, num_patches, hidden_size)` to `(num_scenes, num_patches, hidden_size)` and
returns the dtype it was given. Weights are made in float32 under any default dtype: steps of 2e-6 vanish in bfloat16,
and 1/3 is off by a percent.
"""

from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_fila_video import FilaVideoConfig, pooled_grid_size


class FilaVideoWeightedMerger(nn.Module):
    """
    A learnable weight per frame, patch and channel (equations 7 and 8): the sum over the frames of `F_i * W_i`, with
    every weight 1 / scene_size at the start. Equation 7 writes `1_D` for one patch's D weights, all equal.
    """

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        shape = (config.scene_size, config.num_patches, config.vision_config.hidden_size)
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # Frame by frame: the whole product at once would hold a float32 copy of every frame.
        merged = sum(features[:, frame] * self.weight[frame] for frame in range(self.weight.shape[0]))
        return merged.to(features.dtype)


class FilaVideoMeanMerger(nn.Module):
    """Temporal averaging, what an untrained weighted merger computes (table 3)."""

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=1)


class FilaVideoAttentionMerger(nn.Module):
    """
    Attention pooling (supplement C.1). The paper writes one product `Q K^T` of whole feature maps but asks for
    "weights for each token" and an element-wise product with them: so the query is a patch of the middle frame, its
    keys are the same patch in every frame, and the softmax runs over the frames. Of an even number of frames the later
    of the two middle ones is taken.
    """

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        self.hidden_size = config.vision_config.hidden_size
        # Parameters of their own rather than `nn.Linear`, whose weights would get the model's normal initialization.
        shape = (self.hidden_size, self.hidden_size)
        self.query_weight = nn.Parameter(torch.empty(shape, dtype=torch.float32))
        self.key_weight = nn.Parameter(torch.empty(shape, dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        frames = features.to(self.query_weight.dtype)
        query = nn.functional.linear(frames[:, frames.shape[1] // 2], self.query_weight)
        keys = nn.functional.linear(frames, self.key_weight)
        scores = (query.unsqueeze(1) * keys).sum(dim=-1, dtype=torch.float32) / self.hidden_size**0.5
        weights = scores.softmax(dim=1).to(features.dtype)
        return (weights.unsqueeze(-1) * features).sum(dim=1)


class FilaVideoBsmMerger(nn.Module):
    """
    Bipartite soft matching (supplement C.2, algorithm 1) over all tokens of a scene, scene_size * num_patches, down to
    num_patches. Where the algorithm is silent or slips (it adds a token to itself and reuses S for three things):

    - every token carries the number of patches in it, so that the result is a true weighted average;
    - one round merges at most half of the tokens, so that several rounds reach num_patches;
    - the metric is computed anew from the merged tokens in each round;
    - the tokens return in the raster order of the patches that they were merged into, the earlier frame first, so that
      the pooling grid still holds.

    The tokens are split frame after frame. Where a frame has an even number of patches (27 * 27 is odd), a patch and
    its copy in the next frame fall into the same half, and merge with other patches instead.
    """

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        self.num_patches = config.num_patches

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        num_scenes, scene_size, num_patches, _ = features.shape
        tokens = features.float().flatten(1, 2)
        sizes = tokens.new_ones(num_scenes, tokens.shape[1])
        # Raster position first, frame second: sorting by it restores the grid.
        raster = torch.arange(num_patches, device=tokens.device) * scene_size
        order = (raster + torch.arange(scene_size, device=tokens.device)[:, None]).flatten().expand(num_scenes, -1)

        while tokens.shape[1] > self.num_patches:
            num_merged = min(tokens.shape[1] - self.num_patches, tokens.shape[1] // 2)
            tokens, sizes, order = merge_most_similar(tokens, sizes, order, num_merged)

        return tokens.take_along_dim(order.argsort(dim=1).unsqueeze(-1), dim=1).to(features.dtype)


def merge_most_similar(
    tokens: torch.Tensor, sizes: torch.Tensor, order: torch.Tensor, num_merged: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    One round of bipartite soft matching: of the tokens at even places, the `num_merged` that are most similar (cosine)
    to any token at an odd place are averaged into it, weighted by size.

    Args:
        tokens (`torch.Tensor` of shape `(batch, num_tokens, hidden_size)`): Tokens to match.
        sizes (`torch.Tensor` of shape `(batch, num_tokens)`): Number of patches already averaged in each token.
        order (`torch.Tensor` of shape `(batch, num_tokens)`): A label of each token; a merged one takes its target's.
        num_merged (`int`): How many tokens disappear, at most half of them.

    Returns:
        The three tensors with `num_tokens - num_merged` tokens: first the unmatched even ones, then the odd ones.
    """
    metric = nn.functional.normalize(tokens, dim=-1)
    similarity, target = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(dim=-1)
    ranking = similarity.argsort(dim=-1, descending=True, stable=True)
    merged, unmerged = ranking[:, :num_merged], ranking[:, num_merged:]
    target = target.gather(1, merged)

    weighted = tokens * sizes.unsqueeze(-1)
    source, destination = weighted[:, ::2], weighted[:, 1::2]
    moved = source.take_along_dim(merged.unsqueeze(-1), dim=1)
    destination = destination.scatter_add(1, target.unsqueeze(-1).expand_as(moved), moved)
    destination_sizes = sizes[:, 1::2].scatter_add(1, target, sizes[:, ::2].gather(1, merged))
    sizes = torch.cat([sizes[:, ::2].gather(1, unmerged), destination_sizes], dim=1)
    tokens = torch.cat([source.take_along_dim(unmerged.unsqueeze(-1), dim=1), destination], dim=1)
    tokens = tokens / sizes.unsqueeze(-1)
    order = torch.cat([order[:, ::2].gather(1, unmerged), order[:, 1::2]], dim=1)
    return tokens, sizes, order


SCENE_MERGERS = {
    "weighted": FilaVideoWeightedMerger,
    "mean": FilaVideoMeanMerger,
    "attention": FilaVideoAttentionMerger,
    "bsm": FilaVideoBsmMerger,
}


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
        # Of quantized weights the bias alone keeps the type that is computed in. An adapter's own weights are float32
        # beside a bfloat16 layer, so the layer that it wraps says the type.
        given = self.linear_1.weight if self.linear_1.bias is None else self.linear_1.bias
        if given.is_floating_point():
            features = features.to(given.dtype)
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


def float64(values: torch.Tensor) -> torch.Tensor:
    """Values in float64, in which frames are compared; on the CPU where an Apple GPU has no such numbers."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def own_parameter(module: nn.Module, name: str, device: torch.device) -> nn.Parameter | None:
    """
    A parameter of a module's own for work on a device outside of its forward, for which alone accelerate brings back
    what it has offloaded.

    Raises:
        ValueError: If nothing brings it.
    """
    value, hook = getattr(module, name), getattr(module, "_hf_hook", None)
    if value is None or value.device.type != "meta" or device.type == "meta":
        return value
    if hook is not None:
        hook.pre_forward(module)
        value = getattr(module, name)
        hook.post_forward(module, None)
    if value.device.type == "meta":
        raise ValueError(
            f"`{name}` is offloaded by itself, and accelerate brings back whole modules alone: give it a device in "
            "`device_map`, such as 'cpu', or the module that it belongs to."
        )
    return value


def compute_device(model: Any) -> torch.device | None:
    """
    Where a model takes its inputs; `None` where it does not say. What accelerate has offloaded is on the meta device
    between two forwards, and the hooks on its parts know where it is brought.

    Raises:
        ValueError: If nothing brings a model from the meta device.
    """
    device = getattr(model, "device", None)
    if device is None or torch.device(device).type != "meta":
        return device
    hooks = (getattr(part, "_hf_hook", None) for part in model.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    device = next((each for each in devices if each is not None), None)
    if device is None:
        raise ValueError("The model is on the meta device, without weights: load it with `from_pretrained`.")
    return torch.device(device)


__all__ = [
    "SCENE_MERGERS",
    "FilaVideoAttentionMerger",
    "FilaVideoBsmMerger",
    "FilaVideoMeanMerger",
    "FilaVideoMultiModalProjector",
    "FilaVideoWeightedMerger",
    "compute_device",
    "float64",
    "merge_most_similar",
    "own_parameter",
    "pool_grids",
    "project_patches",
    "visual_tokens",
]
