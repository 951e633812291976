"""
DynFocus (arXiv 2411.12355): many tokens for the frames that matter, one or two for every frame. Models that merge
scenes borrow the latter half of it for the frames that are in no scene, their background.

    pool        . . . . . . . . . . . .     all frames, in the order of time
    prototypes  .   o     o o   o     .     L frames that stand for the video's events (density peaks over time)
    key frames      o       o   o           K of them, by a score net
    tokens      : : D:: : : D:: D:: : : :   D: details of a key frame; `:` its mean and what the question attends to

The released code differs from the paper in places. As the paper: prototypes are frames (the code's are those that its
k-means happened to start from), the question attends to all patches, and key frames keep the tokens that every frame
has. As the code: the score net, the perturbed choice, and how patches are clustered. Of its own are four
things: the question is the language model's embedding of it and not a Q-Former's states; all tokens go through the
model's one projector, as each is a mean of patches; groups of patches are weighted about 1 and not 1 / groups; and a
frame's density is by the mean over channels, as a patch's, and not by their sum.
"""

from collections.abc import Callable

import torch
from torch import nn

from .configuration_fila_video import FilaVideoConfig, detail_sizes, num_detail_tokens, num_key_frames
from .scene_merging_fila_video import float64, pool_grids

EVENT_NEIGHBORS = 2  # nearest frames that make the density of a frame (C)
DECIMALS = 10  # of values scaled to about 1 that are compared, far above float64's rounding
CLUSTER_NEIGHBORS, GROUP_NEIGHBORS = 8, 3  # nearest patches, and clusters, that make a density


def split_frames(
    frames: torch.Tensor,
    video_num_scenes: torch.LongTensor | None,
    video_background_places: torch.LongTensor | None,
    config: FilaVideoConfig,
) -> tuple[torch.Tensor, list[int], torch.Tensor, list[list[int]]]:
    """
    The frames of a batch of videos without its padding: a row of `frames` holds those of a video's scenes, then those
    of its background, then padding. With scenes A, B, C of two frames, background x, y, z, and a newline at the end:

        frames   A A B B C C x y z . .        places   0 2 3        tokens   x AAAA BBBB y CCCC z n

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
    if most and config.frame_encoding == "cooperative":
        raise ValueError(
            f"`video_background_places` has {most} frames beside the scenes of a video, but with the model's "
            "`frame_encoding='cooperative'` every frame is a scene: leave it out. Is the processor's the same?"
        )
    # Where scenes are counted and frames stand beside them, any number is possible: what is left over is padding.
    if (video_num_scenes is None or not most) and any((num_frames - len(row)) % scene_size for row in places):
        raise ValueError(
            f"A video has {num_frames} frames, {most} of them beside its scenes, which leaves no multiple of the "
            f"model's scene_size {scene_size}. Is the processor's `scene_size` the same?"
        )
    counts = [(num_frames - len(row)) // scene_size for row in places]
    if video_num_scenes is not None:
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
    used, other_size = max(counts) * scene_size, num_frames // max(counts)
    # A row of a batch may be shorter than the batch was, by padding.
    is_whole = used < num_frames == max(counts) * other_size and max(counts) > 1
    if is_whole and not most and frames[:, used:].any():
        raise ValueError(
            f"`video_num_scenes` is {counts}, and the {num_frames} frames are scenes of {other_size}, but the model's "
            f"`scene_size` is {scene_size}. Is the processor's the same?"
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

    def forward(self, features: torch.Tensor, projector: Callable) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, vision_hidden_size)`): Of the frames.
            projector (`Callable`): The model's.

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
    A video's tokens `(num_tokens, hidden_size)`, equally many of each scene, with those of its `background`
    `(num_background, background_tokens, hidden_size)` between them: `places` says how many scenes stand before each
    frame of it, `has_end` whether the last token, a newline, belongs to no scene.
    """
    of_scenes = len(video) - has_end
    # By twice the place: the scenes have the odd numbers.
    keys = [2 * scene + 1 for scene in range(num_scenes) for _ in range(of_scenes // num_scenes)]
    keys += [2 * place for place in places for _ in range(background.shape[1])]
    order = torch.tensor([*keys, *[2 * num_scenes + 1] * has_end], device=video.device).argsort(stable=True)
    return torch.cat([video[:of_scenes], background.flatten(0, 1), video[of_scenes:]])[order]


class FilaVideoScoreNet(nn.Module):
    """
    How much each prototype matters beside the others. Half of what is seen of a prototype stays its own, the other
    half is averaged over all of them. Kept and computed in float32, unless a loaded model is cast as a whole.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * hidden_size, dtype=torch.float32)
        self.view = nn.Linear(2 * hidden_size, 2 * hidden_size, dtype=torch.float32)
        self.layers = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size // 2, dtype=torch.float32),
            nn.GELU(),
            nn.Linear(hidden_size // 2, 1, dtype=torch.float32),
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """
        Args:
            patches (`torch.Tensor` of shape `(num_prototypes, num_patches, hidden_size)`): Of the prototypes.

        Returns:
            `torch.Tensor` of shape `(num_prototypes,)`, float32, from 0 to about 1.
        """
        with torch.autocast(patches.device.type, enabled=False):
            patches = patches.to(self.norm.weight.dtype)
            seen = torch.cat([patches.amax(dim=1), patches.mean(dim=1)], dim=-1)
            own, shared = nn.functional.gelu(self.view(self.norm(seen))).chunk(2, dim=-1)
            shared = shared.mean(dim=0, keepdim=True).expand_as(own)
            scores = self.layers(torch.cat([own, shared], dim=-1))[:, 0].float()
            return (scores - scores.min()) / (scores.max() - scores.min() + 1e-5)  # so noise of one size fits all


def top_k(scores: torch.Tensor, count: int) -> torch.LongTensor:
    """The places of the largest `count` scores, ascending; of equal ones the earlier."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count].sort(dim=-1).values


def perturbed_top_k(
    scores: torch.Tensor, count: int, num_samples: int, sigma: float, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """
    The expectation of [`top_k`] under noise, which has a gradient (perturbed maximum).

    Args:
        scores (`torch.Tensor` of shape `(num_scores,)`): float32.
        count (`int`): How many to choose.
        num_samples (`int`): Samples of standard normal noise.
        sigma (`float`): What the noise is multiplied by.
        noise (`torch.Tensor` of shape `(num_samples, num_scores)`, *optional*): By default drawn anew.

    Returns:
        `torch.Tensor` of shape `(count, num_scores)`: P, how often each one is chosen at each place. The gradient of P
        with respect to the scores is E[P Z] / sigma.
    """
    if noise is None:
        noise = torch.randn(num_samples, len(scores), dtype=scores.dtype, device=scores.device)
    chosen = top_k(scores.detach() + sigma * noise, count)
    chosen = nn.functional.one_hot(chosen, len(scores)).to(scores.dtype)  # (num_samples, count, num_scores)
    # Nothing but the gradient: its value is 0.
    along_noise = noise @ (scores - scores.detach()) / sigma
    return chosen.mean(dim=0) + torch.einsum("n,nkl->kl", along_noise, chosen) / len(noise)


class FilaVideoCooperativeEncoder(nn.Module):
    """From the patch features of a pool's frames to what the language model reads of a video."""

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__()
        self.config = config
        hidden_size = config.vision_config.hidden_size
        self.score_net = FilaVideoScoreNet(hidden_size) if config.key_frames else None
        num_groups = detail_sizes(config.patches_per_side)[2]
        has_groups = config.key_frames and config.detail_tokens is None
        self.group_weights = nn.Linear(num_groups, num_groups) if has_groups else None
        self.question_projection = None
        if config.background_tokens == 2:
            self.question_projection = nn.Linear(config.text_config.hidden_size, hidden_size, bias=False)

    def forward(
        self,
        features: torch.Tensor,
        num_frames_each: list[int],
        questions: list[torch.Tensor | None],
        projector: Callable,
        newline: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, vision_hidden_size)`): Of all videos' frames.
            num_frames_each (`list[int]`): How many of them belong to each video.
            questions (`list[torch.Tensor]`):
                The language model's embeddings of each video's question, `(num_tokens, hidden_size)`; `None` without.
            projector (`Callable`): The model's.
            newline (`torch.Tensor` of shape `(hidden_size,)`, *optional*): The newline that ends a video.

        Returns:
            One `(num_tokens, hidden_size)` tensor a video, as many tokens as `num_cooperative_tokens` counts.
        """
        videos = []
        for frames, question in zip(features.split(num_frames_each), questions, strict=True):
            keys, details = self.encode_key_frames(frames)
            everywhere = projector(self.encode_every_frame(frames, question)).flatten(0, 1)
            video = insert_background(everywhere, len(frames), projector(details), keys.tolist(), has_end=False)
            videos.append(video if newline is None else torch.cat([video, newline.to(video)[None]]))
        if self.training:
            # Without details, a question or a choice some weights have no part: DDP waits for every gradient.
            videos[0] = videos[0] + sum(weight.sum() * 0 for weight in self.parameters()).to(videos[0])
        return tuple(videos)

    def choose_key_frames(self, frames: torch.Tensor) -> tuple[torch.LongTensor, torch.LongTensor, torch.Tensor]:
        """
        Dynamic event prototypes: of a pool `(num_frames, num_patches, hidden_size)` the prototypes `(L,)`, ascending,
        which of these are key frames `(K,)`, ascending places among them, and all their scores `(L,)`.
        """
        config = self.config
        num_keys = num_key_frames(len(frames), config.num_prototypes, config.key_frames)
        if num_keys == 0:
            none = torch.empty(0, dtype=torch.long, device=frames.device)
            return none, none, torch.empty(0, dtype=torch.float32, device=frames.device)
        pooled = self._pool(frames.detach()).flatten(1)
        count = min(config.num_prototypes, len(frames))
        prototypes = event_prototypes(pooled, count).to(frames.device)
        scores = self.score_net(frames[prototypes])
        return prototypes, top_k(scores.detach(), num_keys), scores

    def encode_key_frames(self, frames: torch.Tensor) -> tuple[torch.LongTensor, torch.Tensor]:
        """
        The key frames `(K,)` of a pool and their details `(K, num_details, hidden_size)`: pooled patches, then
        clusters of patches; or bands of patches alone. In training, each is a mixture of the prototypes by
        [`perturbed_top_k`], whose gradient goes through the pooled patches alone, or the bands.
        """
        config = self.config
        prototypes, chosen, scores = self.choose_key_frames(frames)
        if len(chosen) == 0:
            num_details = num_detail_tokens(config.patches_per_side, config.detail_tokens)
            return prototypes, frames.new_empty(0, num_details, frames.shape[2])
        # Else nothing is learned from it, and the best are taken.
        is_choice = self.training and torch.is_grad_enabled() and len(chosen) < len(prototypes)
        patches = frames[prototypes if is_choice else prototypes[chosen]]
        if config.detail_tokens is None:
            pooled, clusters = self._pool(patches), self._cluster(patches)
        else:
            pooled = nn.functional.adaptive_avg_pool1d(patches.mT, config.detail_tokens).mT
            clusters = pooled[:, :0]
        if is_choice:
            mixture = perturbed_top_k(scores, len(chosen), config.topk_samples, config.topk_sigma).to(frames.dtype)
            pooled = torch.einsum("kl,lpc->kpc", mixture, pooled)
            clusters = torch.einsum("kl,lpc->kpc", mixture.detach(), clusters)
        return prototypes[chosen], torch.cat([pooled, clusters], dim=1)

    def encode_every_frame(self, frames: torch.Tensor, question: torch.Tensor | None) -> torch.Tensor:
        """
        `(num_frames, background_tokens, hidden_size)`: a frame's mean patch, and the patches that the question's
        tokens attend to, each over the whole frame, in the mean. Without a question this is the mean too.
        """
        tokens = [frames.mean(dim=1)] * self.config.background_tokens
        if self.question_projection is not None and question is not None:
            queries = self.question_projection(question.to(frames.device))
            scores = frames.float() @ queries.float().mT / frames.shape[2] ** 0.5
            weights = scores.softmax(dim=1).mean(dim=2).to(frames.dtype)
            tokens[1] = (weights.unsqueeze(-1) * frames).sum(dim=1)
        return torch.stack(tokens, dim=1) if tokens else frames.new_empty(len(frames), 0, frames.shape[2])

    def _pool(self, patches: torch.Tensor) -> torch.Tensor:
        """The patches of frames averaged to a grid of 4 x 4, `(num_frames, 16, hidden_size)`."""
        side = self.config.patches_per_side
        grids = patches.transpose(1, 2).unflatten(2, (side, side))
        return nn.functional.adaptive_avg_pool2d(grids, detail_sizes(side)[0]).flatten(2).transpose(1, 2)

    def _cluster(self, patches: torch.Tensor) -> torch.Tensor:
        """
        Means of patches that are alike, in two levels: clusters of patches, and groups of clusters. Each group is
        followed by its clusters, and all of them are weighted by what the groups' means say.
        """
        _, num_clusters, num_groups = detail_sizes(self.config.patches_per_side)
        clusters = _means(patches, density_clusters(patches, num_clusters, CLUSTER_NEIGHBORS), num_clusters)
        labels = density_clusters(clusters, num_groups, GROUP_NEIGHBORS)
        groups = _means(clusters, labels, num_groups)
        weights = self.group_weights(groups.mean(dim=2).to(self.group_weights.bias.dtype))
        weights = (weights.float().softmax(dim=1) * num_groups).to(patches.dtype)
        own = torch.arange(num_groups, device=labels.device).expand(len(labels), -1)
        of_group = torch.cat([own, labels], dim=1)
        order = torch.cat([2 * own, 2 * labels + 1], dim=1).argsort(dim=1, stable=True)
        tokens = torch.cat([groups, clusters], dim=1) * weights.gather(1, of_group).unsqueeze(-1)
        return tokens.take_along_dim(order.unsqueeze(-1), dim=1)


def _means(points: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """`(num_sets, count, hidden_size)`: the means of the points of each label."""
    members = nn.functional.one_hot(labels, count).to(torch.float32)
    return ((members / members.sum(dim=1, keepdim=True)).mT @ points.float()).to(points.dtype)


@torch.no_grad()
def density_peaks(points: torch.Tensor, neighbors: int) -> tuple[torch.LongTensor, torch.Tensor]:
    """
    DPC-KNN: the points of each set in the order of `density * separation`, where the density is exp(-the mean squared
    distance to the nearest points / dim), and the separation the distance to the nearest denser point, or for the
    densest to the farthest one. Decisions are taken in float64 on rounded values, and ties go to the earlier point.

    Args:
        points (`torch.Tensor` of shape `(num_sets, num_points, dim)`): Of a floating dtype.
        neighbors (`int`): How many nearest points make the density, at most all others.

    Returns:
        `tuple`: indices `(num_sets, num_points)`, the best first; and each point's separation `(num_sets,
        num_points)`, 0 where it equals a denser one.
    """
    points = float64(points)
    points = points - points.mean(1, keepdim=True)  # what all have in common would cost digits of the distances
    num_points, dim = points.shape[1:]
    norms = points.square().sum(2)
    scale = norms.amax(1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)
    numbers = torch.arange(num_points, device=points.device)
    neighbors = min(neighbors, num_points - 1)

    def squared_distances(rows: torch.Tensor) -> torch.Tensor:
        squared = norms[:, rows, None] + norms[:, None] - 2 * (points[:, rows] @ points.mT)
        return (squared / scale[:, None]).clamp(min=0).round(decimals=DECIMALS)

    # A part of the rows at a time, since a long pool has many pairs; logarithms, since exp would vanish.
    log_density, separation = torch.zeros_like(norms), torch.empty_like(norms)
    if neighbors > 0:
        for rows in numbers.split(1024):
            itself = rows[None, :, None].expand(len(points), -1, 1)
            others = squared_distances(rows).scatter_(2, itself, torch.inf)
            nearest = others.topk(neighbors, largest=False).values
            log_density[:, rows] = -(nearest.mean(2).round(decimals=DECIMALS) * scale / dim)
    order = log_density.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, numbers.expand_as(order))
    for rows in numbers.split(1024):
        squared = squared_distances(rows)
        denser = ranks[:, None] < ranks[:, rows, None]
        to_denser = squared.masked_fill(~denser, torch.inf).amin(2)
        separation[:, rows] = torch.where(ranks[:, rows] == 0, squared.amax(2), to_denser).sqrt()
    score = log_density + separation.log()
    return score.argsort(dim=1, descending=True, stable=True), separation * scale.sqrt()


@torch.no_grad()
def density_clusters(points: torch.Tensor, count: int, neighbors: int) -> torch.LongTensor:
    """
    Clusters around the best `count` points of each set: the cluster of each point, `(num_sets, num_points)`, is that
    of the nearest of them, of equally near ones the earlier. Clusters are numbered in the order of their points.
    """
    centers = density_peaks(points, neighbors)[0][:, :count].sort(dim=1).values
    device, points = points.device, float64(points)
    points = points - points.mean(1, keepdim=True)
    chosen = points.take_along_dim(centers.unsqueeze(-1), dim=1)
    distances = torch.cdist(points, chosen, compute_mode="donot_use_mm_for_euclid_dist")
    scale = distances.amax((1, 2), keepdim=True).clamp(min=torch.finfo(distances.dtype).tiny)
    labels = (distances / scale).round(decimals=DECIMALS).argmin(2)
    # Of points that are equal each keeps its own cluster, so that none is empty.
    return labels.scatter_(1, centers, torch.arange(count, device=points.device).expand_as(centers)).to(device)


@torch.no_grad()
def event_prototypes(features: torch.Tensor, count: int) -> torch.LongTensor:
    """
    The frames that stand for the events of a video (DynFocus): the best `count` density peaks over time, on the CPU,
    ascending. Where fewer frames differ, [`fill_evenly`] adds others.

    Args:
        features (`torch.Tensor` of shape `(num_frames, dim)`): One feature per frame.
        count (`int`): At most `num_frames`.
    """
    order, separation = density_peaks(features[None], EVENT_NEIGHBORS)
    best = order[0, :count]
    found = best[separation[0, best] > 0].tolist()  # a frame that equals a denser one stands for nothing new
    return fill_evenly(found, count, len(features))


def fill_evenly(found: list[int], count: int, num_frames: int) -> torch.LongTensor:
    """The frames `found` and those that are missing to `count`, spread evenly over the unused ones; ascending."""
    used = torch.zeros(num_frames, dtype=torch.bool)
    used[found] = True
    missing = count - len(found)
    if missing:
        unused = (~used).nonzero().flatten()
        used[unused[(2 * torch.arange(missing) + 1) * len(unused) // (2 * missing)]] = True
    return used.nonzero().flatten()


__all__ = [
    "DECIMALS",
    "FilaVideoBackgroundEncoder",
    "FilaVideoCooperativeEncoder",
    "FilaVideoScoreNet",
    "density_clusters",
    "density_peaks",
    "event_prototypes",
    "fill_evenly",
    "insert_background",
    "perturbed_top_k",
    "split_frames",
    "top_k",
]
