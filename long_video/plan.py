"""Which short videos make up each long one: a draw from a seed, decided before anything is written.

The plan depends on nothing but the durations and the settings; so any number of workers, and a build that goes on
after a kill, write the same records.
"""

import math
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .annotations import LongVideoError

_HAND = 64  # cards among which the one that ends a video is chosen
_SHARES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of the supply, tried one after the other


@dataclass
class JoiningRules:
    """`count` videos of `min_duration` to `max_duration` seconds; no sub-video twice in one, `max_uses` times in
    all."""

    count: int
    seed: int = 42
    max_uses: int = 6
    min_duration: float = 300.0
    max_duration: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("count", "max_uses"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise LongVideoError(f"{name} must be an integer of at least 1, got {value!r}.")
        if not 0 < self.min_duration < self.max_duration < math.inf:
            raise LongVideoError(
                "The shortest and the longest duration must be 0 < shortest < longest seconds, got "
                f"{self.min_duration} and {self.max_duration}."
            )


class JoiningPlan:
    """The sub-videos of each long video. `len(plan)`; `plan[i]` -> (K,) int32 numbers of inputs in the order of
    play."""

    def __init__(self, numbers: np.ndarray, starts: np.ndarray) -> None:
        self._numbers, self._starts = numbers, starts

    @classmethod
    def of(cls, videos: Sequence[Sequence[int]]) -> "JoiningPlan":
        starts = np.cumsum([0] + [len(video) for video in videos], dtype=np.int64)
        numbers = np.fromiter((n for video in videos for n in video), dtype=np.int32, count=int(starts[-1]))
        return cls(numbers, starts)

    @classmethod
    def load(cls, path: Path) -> "JoiningPlan":
        """Mapped, not read: a worker touches only the pages of its own records."""
        flat = np.load(path, mmap_mode="r")
        count = int(flat[0])
        return cls(flat[count + 2 :], flat[1 : count + 2])

    def save(self, path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, np.concatenate([[len(self)], self._starts, self._numbers]).astype(np.int64))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self._numbers[int(self._starts[i]) : int(self._starts[i + 1])]


def make_plan(
    durations: Sequence[float], rules: JoiningRules, progress: Callable[[int], None] | None = None
) -> JoiningPlan:
    """Draws the sub-videos of all long videos.

    The totals wanted are spread evenly from the shortest to the longest; where the set is too small for that, as
    evenly as it allows (`spread_totals`). Sub-videos are dealt from a shuffled deck, and the next deck is opened
    only when one is used up: uses differ by one at most until the last. The last sub-video of each is chosen among
    64 to come near the total.

    Args:
        durations (`Sequence[float]`):
            (N,) seconds of the short videos, each below the longest total.
        progress (`Callable[[int], None]`, *optional*):
            Called with the number of long videos drawn.

    Raises:
        LongVideoError: Where the set is too small, with both numbers, or its videos do not pack into the durations.
    """
    total = float(np.sum(durations))
    uses = min(rules.max_uses, rules.count)
    # Where the deck's end does not pack into whole videos, a somewhat smaller share of it does.
    for share in _SHARES:
        totals = spread_totals(rules, supply=share * uses * total, longest=total)
        if totals is None:
            break
        videos = _deal(durations, totals, uses, rules, progress)
        if len(videos) == rules.count:
            return JoiningPlan.of(videos)
    possible = int(uses * total // rules.min_duration) if total >= rules.min_duration else 0
    if possible >= rules.count:
        raise LongVideoError(
            f"{len(durations)} usable videos of {total:.1f} seconds in all are enough for {rules.count} videos, but "
            f"do not pack into so many of {rules.min_duration:g} to {rules.max_duration:g} seconds. Raise "
            "max_duration or max_uses, lower count or add annotations."
        )
    raise LongVideoError(
        f"{len(durations)} usable videos of {total:.1f} seconds in all, each used at most {rules.max_uses} times and "
        f"once in one video, do not make {rules.count} videos of at least {rules.min_duration:g} seconds"
        f" (at most {possible}). Raise max_uses, lower count or add annotations."
    )


def spread_totals(rules: JoiningRules, supply: float, longest: float) -> np.ndarray | None:
    """(count,) seconds wanted of each long video, in the random order of the build; `None` where none will do.

    One from each of `count` equal slices of probability, of the flattest distribution on [shortest, longest] whose
    mean the supply affords: the uniform one, or the truncated exponential one, which has the largest entropy of a
    given mean.

    Args:
        supply (`float`):
            Seconds that may be used in all.
        longest (`float`):
            Seconds that one video may have at most, none of its sub-videos twice.
    """
    low, high = rules.min_duration, min(rules.max_duration, longest)
    mean = supply / rules.count
    if high < low or mean < low:
        return None
    chance = random.Random(f"totals {rules.seed}")
    shares = np.array([(i + chance.random()) / rules.count for i in range(rules.count)])
    rate = _rate_of_mean((mean - low) / (high - low)) if high > low else 0.0
    if rate > 0:
        shares = -np.log1p(shares * math.expm1(-rate)) / rate
    totals = (low + shares * (high - low)).tolist()
    chance.shuffle(totals)
    return np.array(totals)


def _rate_of_mean(mean: float) -> float:
    """The rate of the exponential distribution cut to [0, 1] that has this mean; 0, the uniform one, from 1/2 on."""
    if mean >= 0.5:
        return 0.0
    low, high = 1e-6, 1e4
    for _ in range(100):
        rate = math.sqrt(low * high)
        if 1 / rate - 1 / math.expm1(min(rate, 700.0)) > mean:
            low = rate
        else:
            high = rate
    return high


class _Deck:
    """Shuffled decks of all inputs, one after the other; `hand` is what may be chosen from."""

    def __init__(self, size: int, decks: int, seed: int) -> None:
        self._chance = random.Random(f"deck {seed}")
        self._size, self._left = size, decks
        self._cards: list[int] = []
        self.hand: list[int] = []

    def fill(self, size: int) -> bool:
        """Whether the hand could be filled."""
        while len(self.hand) < size:
            if not self._cards:
                if self._left == 0:
                    return False
                self._left -= 1
                self._cards = list(range(self._size))
                self._chance.shuffle(self._cards)
            self.hand.append(self._cards.pop())
        return True


def _deal(
    durations: Sequence[float],
    totals: Iterable[float],
    uses: int,
    rules: JoiningRules,
    progress: Callable[[int], None] | None,
) -> list[Sequence[int]]:
    """As many videos as the decks give, in order."""
    deck = _Deck(len(durations), uses, rules.seed)
    durations = [float(duration) for duration in durations]
    videos = []
    for total in totals:
        video = _deal_one(deck, durations, float(total), rules)
        if video is None:
            break
        videos.append(array("i", video))
        if progress is not None:
            progress(len(videos))
    return videos


def _deal_one(deck: "_Deck", durations: Sequence[float], total: float, rules: JoiningRules) -> list[int] | None:
    video, seen, length = [], set(), 0.0
    while True:
        deck.fill(_HAND)
        # The first card that is not in this video yet, as long as it does not lead past the total.
        at = next((i for i, card in enumerate(deck.hand) if card not in seen), None)
        if at is None or length + durations[deck.hand[at]] > total:
            at = _best_end(deck.hand, seen, durations, length, total, rules)
            if at is None and length < rules.min_duration and deck.fill(len(deck.hand) + _HAND):
                continue
        if at is None:
            return video if length >= rules.min_duration else None
        card = deck.hand.pop(at)
        video.append(card)
        seen.add(card)
        length += durations[card]


def _best_end(
    hand: Sequence[int], seen: set[int], durations: Sequence[float], length: float, total: float, rules: JoiningRules
) -> int | None:
    """The place in the hand of the card that brings the length nearest to the total; `None`: leave it as it is."""
    best, error = None, abs(total - length) if length >= rules.min_duration else math.inf
    for at, card in enumerate(hand):
        reached = length + durations[card]
        if card not in seen and reached <= rules.max_duration and abs(total - reached) < error:
            best, error = at, abs(total - reached)
    return best


__all__ = ["JoiningPlan", "JoiningRules", "make_plan", "spread_totals"]
