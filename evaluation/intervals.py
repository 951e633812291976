"""Accuracies with 95% intervals by the bootstrap over videos, whose questions depend on each other, and over seeds."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

ROUNDS = 4000


@lru_cache(maxsize=8)
def weights(num_seeds: int, num_videos: int, rounds: int = ROUNDS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed `(rounds, num_seeds)` and each video `(rounds, num_videos)` is drawn, with replacement."""
    generator = np.random.default_rng(seed)
    return tuple(
        generator.multinomial(count, np.full(count, 1 / count), size=rounds) for count in (num_seeds, num_videos)
    )


def accuracy(right: np.ndarray, asked: np.ndarray) -> tuple[float, float, float]:
    """
    The share of right answers, and the ends of its interval. Videos are drawn jointly for all seeds.

    Args:
        right (`np.ndarray` of shape `(num_seeds, num_videos)`): Right answers about each video by each trained model.
        asked (`np.ndarray` of shape `(num_videos,)`): Questions about each.
    """
    return _summary(right, asked, lambda shares: shares)


def difference(right: np.ndarray, other: np.ndarray, asked: np.ndarray) -> tuple[float, float, float]:
    """The first share less the second, of the same seeds and videos, and the ends of its interval."""
    stacked = np.stack([right, other])
    return _summary(stacked, asked, lambda shares: shares[0] - shares[1])


def _summary(
    right: np.ndarray, asked: np.ndarray, function: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[float, float, float]:
    right, asked = np.asarray(right, dtype=float), np.asarray(asked, dtype=float)
    kept = asked > 0
    if not kept.any():
        raise ValueError("There are no questions to average over.")
    right, asked = right[..., kept], asked[kept]
    seeds, videos = weights(right.shape[-2], right.shape[-1])
    drawn = np.einsum("bs,...sv,bv->...b", seeds / right.shape[-2], right, videos, optimize=True) / (videos @ asked)
    low, high = np.quantile(function(drawn), [0.025, 0.975])
    return float(function(right.mean(-2).sum(-1) / asked.sum())), float(low), float(high)


__all__ = ["ROUNDS", "accuracy", "difference", "weights"]
