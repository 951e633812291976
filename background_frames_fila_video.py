"""
Frames of a video beside its scenes: few tokens for each, where they are in time.

A row of `pixel_values_videos` holds the frames of a video's scenes, then those of its background, then padding.
`video_num_scenes` counts the scenes, and `video_background_places` says of each frame of the background how many
scenes stand before it. With scenes A, B, C of two frames, background frames x, y, z and a newline at the end:

    frames   A A B B C C x y z . .        places   0 2 3        tokens   x AAAA BBBB y CCCC z n
"""

import torch
from torch import nn

from .configuration_fila_video import FilaVideoConfig
from .visual_projection_fila_video import pool_grids


def split_frames(
    frames: torch.Tensor,
    video_num_scenes: torch.LongTensor | None,
    video_background_places: torch.LongTensor | None,
    config: FilaVideoConfig,
) -> tuple[torch.Tensor, list[int], torch.Tensor, list[list[int]]]:
    """
    The frames of a batch of videos without its padding.

    Args:
        frames (`torch.Tensor` of shape `(num_videos, num_frames, ...)`): Pixels or patch features.
        video_num_scenes (`torch.LongTensor` of shape `(num_videos,)`, *optional*):
            Scenes of each video; by default as many as there is room for.
        video_background_places (`torch.LongTensor` of shape `(num_videos, num_background)`, *optional*):
            Of each frame beside the scenes, how many scenes stand before it; -1 is padding.
        config (`FilaVideoConfig`): The model's settings.

    Returns:
        `tuple`: the scenes of all videos `(total_scenes, scene_size, ...)`, and how many each video has; the
        background of all `(total_background, ...)`, and each video's places.

    Raises:
        ValueError: If the numbers do not fit each other or the model.
    """
    num_videos, num_frames = frames.shape[:2]
    scene_size = config.scene_size
    places = [[] for _ in range(num_videos)]
    if video_background_places is not None:
        places = [[place for place in row if place >= 0] for row in video_background_places.tolist()]
    most = max((len(row) for row in places), default=0)
    if most and not config.background_tokens:
        raise ValueError(
            f"`video_background_places` has {most} frames beside the scenes of a video, but the model's "
            "`background_tokens` is 0. Is the processor's the same?"
        )
    if (video_num_scenes is None or not most) and any((num_frames - len(row)) % scene_size for row in places):
        raise ValueError(
            f"A video has {num_frames} frames, {most} of them beside its scenes, which leaves no multiple of the "
            f"model's scene_size {scene_size}. Is the processor's `scene_size` the same?"
        )
    if video_num_scenes is None:
        counts = [(num_frames - len(row)) // scene_size for row in places]
    else:
        counts = video_num_scenes.tolist()
    if not len(counts) == len(places) == num_videos:
        raise ValueError(
            f"There are {num_videos} videos, but `video_num_scenes` is {counts} and `video_background_places` of "
            f"{len(places)} videos."
        )
    for count, row in zip(counts, places, strict=True):
        if count < 1 or count * scene_size + len(row) > num_frames or any(place > count for place in row):
            raise ValueError(
                f"`video_num_scenes` is {counts}, but there are {num_videos} videos of {num_frames} frames, at most "
                f"{(num_frames - len(row)) // scene_size} scenes of {scene_size} each beside {len(row)} of the "
                "background. Is the processor's `scene_size` the model's?"
            )
    ends = [count * scene_size for count in counts]
    scenes = torch.cat([video[:end] for video, end in zip(frames, ends, strict=True)])
    background = torch.cat([video[end : end + len(row)] for video, end, row in zip(frames, ends, places, strict=True)])
    return scenes.unflatten(0, (-1, scene_size)), counts, background, places


class FilaVideoBackgroundEncoder(nn.Module):
    """
    One token or two for a frame: its mean patch, and the sum of its patches weighted by their product with a learned
    query. At the start the query is zero, and its token the mean too. The projector does the rest.
    """

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        self.stride = config.pooling_stride if config.pooling_mode == "pixel_shuffle" else 1
        width = config.vision_config.hidden_size * self.stride**2
        self.query = nn.Parameter(torch.empty(width)) if config.background_tokens == 2 else None

    def forward(self, features: torch.Tensor, projector: nn.Module) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, vision_hidden_size)`): Of the frames.
            projector (`nn.Module`): The model's.

        Returns:
            `torch.Tensor` of shape `(num_frames, background_tokens, hidden_size)`.
        """
        if self.stride > 1:  # the projector takes several patches as one
            side = round(features.shape[1] ** 0.5)
            grids = features.unflatten(1, (side, side))
            features = pool_grids(grids, "pixel_shuffle", self.stride).flatten(1, 2)
        tokens = [features.mean(dim=1)]
        if self.query is not None:
            scores = features.float() @ self.query.float() / features.shape[-1] ** 0.5
            weights = scores.softmax(dim=1).to(features.dtype)
            tokens.append((weights.unsqueeze(-1) * features).sum(dim=1))
        return projector(torch.stack(tokens, dim=1))


def insert_background(
    video: torch.Tensor, num_scenes: int, background: torch.Tensor, places: list[int], has_end: bool
) -> torch.Tensor:
    """
    A video's tokens with those of its background between its scenes.

    Args:
        video (`torch.Tensor` of shape `(num_tokens, hidden_size)`): Equally many tokens of each scene.
        num_scenes (`int`): Of the video.
        background (`torch.Tensor` of shape `(num_background, background_tokens, hidden_size)`):
            What [`FilaVideoBackgroundEncoder`] gave of its other frames.
        places (`list[int]`): How many scenes stand before each of them.
        has_end (`bool`): Whether the last token, a newline, belongs to no scene.

    Returns:
        `torch.Tensor` of shape `(num_tokens + num_background * background_tokens, hidden_size)`.
    """
    of_scenes = len(video) - has_end
    # By twice the place: the scenes have the odd numbers.
    keys = [2 * scene + 1 for scene in range(num_scenes) for _ in range(of_scenes // num_scenes)]
    keys += [2 * place for place in places for _ in range(background.shape[1])]
    order = torch.tensor([*keys, *[2 * num_scenes + 1] * has_end], device=video.device).argsort(stable=True)
    return torch.cat([video[:of_scenes], background.flatten(0, 1), video[of_scenes:]])[order]


__all__ = ["FilaVideoBackgroundEncoder", "insert_background", "split_frames"]
