"""
DynFocus (arXiv 2411.12355): many tokens for the frames that matter, one or two for every frame.

    pool        . . . . . . . . . . . .     all frames, in the order of time
    prototypes  .   o     o o   o     .     L frames that stand for the video's events (density peaks over time)
    key frames      o       o   o           K of them, by a score net
    tokens      : : D:: : : D:: D:: : : :   D: details of a key frame; `:` its mean and what the question attends to

The released code differs from the paper in places. As the paper: prototypes are frames (the code's are the frames that
its k-means happened to start from), the question attends to all patches, and key frames keep the tokens that every
frame has. As the code: the score net, the perturbed choice, and how patches are clustered. Of its own are three
things: the question is the language model's embedding of it and not a Q-Former's states; all tokens go through
the model's one projector, as each is a mean of patches; and groups of patches are weighted about 1 and not 1 / groups.
"""

import torch
from torch import nn

from .background_frames_fila_video import insert_background
from .configuration_fila_video import FilaVideoConfig, detail_sizes, num_key_frames
from .density_peaks_fila_video import density_clusters, event_prototypes

CLUSTER_NEIGHBORS, GROUP_NEIGHBORS = 8, 3  # nearest patches, and clusters, that make a density


class FilaVideoScoreNet(nn.Module):
    """
    How much each prototype matters beside the others. Half of what is seen of a prototype stays its own, the other
    half is averaged over all of them. Computed in float32 under any dtype.
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
            patches = patches.float()
            seen = torch.cat([patches.amax(dim=1), patches.mean(dim=1)], dim=-1)
            own, shared = nn.functional.gelu(self.view(self.norm(seen))).chunk(2, dim=-1)
            shared = shared.mean(dim=0, keepdim=True).expand_as(own)
            scores = self.layers(torch.cat([own, shared], dim=-1))[:, 0]
            return (scores - scores.min()) / (scores.max() - scores.min() + 1e-5)


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
    noise = torch.randn(num_samples, len(scores), device=scores.device) if noise is None else noise
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
        self.group_weights = nn.Linear(num_groups, num_groups) if config.key_frames else None
        self.question_projection = None
        if config.background_tokens == 2:
            self.question_projection = nn.Linear(config.text_config.hidden_size, hidden_size, bias=False)

    def forward(
        self,
        features: torch.Tensor,
        num_frames_each: list[int],
        questions: list[torch.Tensor | None],
        projector: nn.Module,
        newline: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        """
        Args:
            features (`torch.Tensor` of shape `(num_frames, num_patches, vision_hidden_size)`): Of all videos' frames.
            num_frames_each (`list[int]`): How many of them belong to each video.
            questions (`list[torch.Tensor]`):
                The language model's embeddings of each video's question, `(num_tokens, hidden_size)`; `None` without.
            projector (`nn.Module`): The model's.
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
            return none, none, torch.empty(0, device=frames.device)
        pooled = self._pool(frames.detach()).flatten(1)
        count = min(config.num_prototypes, len(frames))
        prototypes = event_prototypes(pooled, count).to(frames.device)
        scores = self.score_net(frames[prototypes])
        return prototypes, top_k(scores.detach(), num_keys), scores

    def encode_key_frames(self, frames: torch.Tensor) -> tuple[torch.LongTensor, torch.Tensor]:
        """
        The key frames `(K,)` of a pool and their details `(K, num_details, hidden_size)`: pooled patches, then
        clusters of patches. In training, each is a mixture of the prototypes by [`perturbed_top_k`], whose gradient
        goes through the pooled patches alone.
        """
        config = self.config
        prototypes, chosen, scores = self.choose_key_frames(frames)
        if len(chosen) == 0:
            return prototypes, frames.new_empty(0, sum_of_details(config), frames.shape[2])
        is_choice = self.training and len(chosen) < len(prototypes)
        patches = frames[prototypes if is_choice else prototypes[chosen]]
        pooled, clusters = self._pool(patches), self._cluster(patches)
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
            queries = self.question_projection(question.to(self.question_projection.weight.device))
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
        return tokens.gather(1, order.unsqueeze(-1).expand_as(tokens))


def _means(points: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """`(num_sets, count, hidden_size)`: the means of the points of each label."""
    members = nn.functional.one_hot(labels, count).to(torch.float32)
    return ((members / members.sum(dim=1, keepdim=True)).mT @ points.float()).to(points.dtype)


def sum_of_details(config: FilaVideoConfig) -> int:
    """How many tokens a key frame has beside those of every frame."""
    side, clusters, groups = detail_sizes(config.patches_per_side)
    return side**2 + clusters + groups


__all__ = [
    "FilaVideoCooperativeEncoder",
    "FilaVideoScoreNet",
    "perturbed_top_k",
    "top_k",
]
