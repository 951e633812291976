"""
Density peaks (DPC-KNN): points that are dense and far from any denser one, in any number of sets at once.

Decisions are taken in float64 on rounded values, so that ties go to the earlier point whatever the number of threads.
"""

import torch

NEIGHBORS = 2  # nearest frames that make the density of a frame (C)
DECIMALS = 10  # of values scaled to about 1 that are compared, far above float64's rounding


@torch.no_grad()
def density_peaks(points: torch.Tensor, neighbors: int) -> tuple[torch.LongTensor, torch.Tensor]:
    """
    The points of each set in the order of `density * separation`, where the density is exp(-the mean squared distance
    to the nearest points / dim), and the separation the distance to the nearest denser point, or for the densest to
    the farthest one. Of equally dense points the earlier is denser.

    Args:
        points (`torch.Tensor` of shape `(num_sets, num_points, dim)`): Of a floating dtype.
        neighbors (`int`): How many nearest points make the density, at most all others.

    Returns:
        `tuple`: indices `(num_sets, num_points)`, the best first; and each point's separation `(num_sets,
        num_points)`, 0 where it equals a denser one.
    """
    points = points.double()
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
    points = points.double()
    points = points - points.mean(1, keepdim=True)
    chosen = points.gather(1, centers[..., None].expand(-1, -1, points.shape[2]))
    distances = torch.cdist(points, chosen, compute_mode="donot_use_mm_for_euclid_dist")
    scale = distances.amax((1, 2), keepdim=True).clamp(min=torch.finfo(distances.dtype).tiny)
    labels = (distances / scale).round(decimals=DECIMALS).argmin(2)
    # Of points that are equal each keeps its own cluster, so that none is empty.
    return labels.scatter_(1, centers, torch.arange(count, device=points.device).expand_as(centers))


@torch.no_grad()
def event_prototypes(features: torch.Tensor, count: int) -> torch.LongTensor:
    """
    The frames that stand for the events of a video (DynFocus): the best `count` density peaks
    over time, ascending, on the CPU. Where fewer frames differ, others are spread evenly over the unused ones.

    Args:
        features (`torch.Tensor` of shape `(num_frames, dim)`): One feature per frame.
        count (`int`): At most `num_frames`.
    """
    order, separation = density_peaks(features[None], NEIGHBORS)
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


__all__ = ["DECIMALS", "density_clusters", "density_peaks", "event_prototypes", "fill_evenly"]
