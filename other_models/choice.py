"""Which options each way of choosing frames reads: others are refused, in Python and at the command line."""

from collections.abc import Callable, Iterable
from typing import Any

SEEDED = ("kmeans", "kmeans_dissimilar")  # the others draw nothing


def unread(
    selection: str | Callable[..., Any], options: Iterable[str], are_pictures: bool = False
) -> tuple[str, list[str]]:
    """
    Args:
        selection (`str` or `Callable`): As [`select_frames`] takes it; `"question"` where one is asked.
        options (`Iterable[str]`): Of the candidates and what compares them, as [`select_frames`] calls them.
        are_pictures (`bool`, *optional*, defaults to `False`):
            Whether it chooses from pictures, whose times are counted by `candidate_fps`.

    Returns:
        `tuple`: what the selection goes by, in words, and those of the options that it does not read.
    """
    if callable(selection) or selection == "uniform":
        return "goes by time alone", [name for name in options if name != "candidate_fps" or not are_pictures]
    if selection == "question":
        return "goes by the scorer alone", [name for name in options if name in ("encoder", "seed")]
    return "draws nothing at random", [name for name in options if name == "seed" and selection not in SEEDED]


__all__ = ["unread"]
