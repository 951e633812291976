"""Where the chapters of a film lie: parts within which its frames look alike, found along the line of time."""

import numpy as np

SHARE_OF_CHAPTER = 0.02  # of all differences within the film, that one more chapter must take away
MOST_CHAPTERS = 60


def chapter_starts(
    features: np.ndarray, times: np.ndarray, duration: float, count: int | None = None, shortest: float = 10.0
) -> list[int]:
    """
    The first frame of each chapter, the best there are: k-means whose clusters are stretches of time, by dynamic
    programming over all places where chapters may begin. Their number is `count`, or such that each more would take
    away less than `SHARE_OF_CHAPTER` of the squared distances of frames to the mean of their chapter.

    Args:
        features (`np.ndarray` of shape `(num_frames, hidden_size)`): Of frames in the order of time.
        times (`np.ndarray` of shape `(num_frames,)`): Their seconds.
        duration (`float`): Of the film.
        count (`int`, *optional*): Chapters wanted.
        shortest (`float`, *optional*, defaults to 10.0): Seconds that a chapter has at least.

    Raises:
        ValueError: If there is no room for `count` chapters of `shortest` seconds.
    """
    num_frames = len(features)
    values = features.astype(np.float64) - features.mean(axis=0)
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    squares = np.concatenate([[0.0], (values**2).sum(axis=1).cumsum()])
    starts = np.concatenate([[0.0], times[1:], [duration]])  # of each frame, and the end
    most = min(MOST_CHAPTERS if count is None else count, num_frames)

    def costs_until(end: int) -> np.ndarray:
        """Of one chapter from each frame to `end`; infinite where it is too short."""
        sizes = end - np.arange(end)
        cost = squares[end] - squares[:end] - ((sums[end] - sums[:end]) ** 2).sum(axis=1) / sizes
        # A film shorter than a chapter is one.
        cost[(starts[end] - starts[:end] < shortest) & (np.arange(end) + num_frames - end > 0)] = np.inf
        return cost

    best = np.full((most + 1, num_frames + 1), np.inf)
    best[0, 0] = 0.0
    begins = np.zeros((most + 1, num_frames + 1), dtype=int)
    for end in range(1, num_frames + 1):
        totals = best[:most, :end] + costs_until(end)
        begins[1:, end] = totals.argmin(axis=1)
        best[1:, end] = totals.min(axis=1)
    ends = best[1:, num_frames]
    if count is None:
        number = int(np.argmin(ends + SHARE_OF_CHAPTER * ends[0] * np.arange(1, most + 1))) + 1
    elif np.isinf(ends[-1]) or most < count:
        raise ValueError(
            f"There is no room for {count} chapters: the film has {num_frames} candidate frames in {duration:.1f} "
            f"seconds, and a chapter has at least {shortest:g} seconds."
        )
    else:
        number = count
    found, end = [], num_frames
    for chapters in range(number, 0, -1):
        end = int(begins[chapters, end])
        found.append(end)
    return found[::-1]


def cut_between(thumbnails: np.ndarray, times: np.ndarray) -> float:
    """The time of the first frame after the greatest change: `thumbnails` `(num_frames, size)`, two or more."""
    return float(times[1 + int(np.linalg.norm(np.diff(thumbnails, axis=0), axis=1).argmax())])


__all__ = ["chapter_starts", "cut_between"]
