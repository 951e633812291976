"""What a set of films or pictures is like: its kind, and everything else that its maker may choose."""

import math
from dataclasses import dataclass

from .looks import CODECS
from .questions import FILM_KINDS, MORE_KINDS
from .wordings import SETS, STYLES
from .world import COLORS, COMPOSITIONS, NAMELESS

SPLITS = ("train", "validation", "test")
KINDS = {
    "picture": "one thing or none, with its caption",
    "picture-questions": "one or two things, with a caption and questions",
    "clip": "one thing in 5 to 15 seconds, with its caption: what long videos are made of",
    "few": "1 to 3 things in 5 to 12 seconds, seen for a 7th of the video at least",
    "pair": "2 or 3 things in 5 to 12 seconds, seen for a 6th of the video at least",
    "row": "3 to 8 things in 5 to 8 seconds, one soon after another",
    "travel": "3 or 4 things that move to one side, each seen by three in a row of 24 even frames of 12 to 18 seconds",
    "short": "2 to 5 things in 5 to 60 seconds, seen for a 20th of the video at least",
    "rare": "4 to 6 things, each seen for 2 to 3 seconds, in 5 to 30 minutes",
    "crowded": "30 things, each seen for 2 to 3 seconds, in 10 minutes",
    "empty": "nothing but backgrounds, in 5 to 30 seconds",
}
DURATIONS = {
    "clip": (5.0, 15.0),
    "few": (5.0, 12.0),
    "pair": (5.0, 12.0),
    "row": (5.0, 8.0),
    "travel": (12.0, 18.0),
    "short": (5.0, 60.0),
    "rare": (300.0, 1800.0),
    "crowded": (600.0, 600.0),
    "empty": (5.0, 30.0),
}
ROW = (3, 8)  # things
CROWD = 30  # things
GRID = 8  # runs of three frames in a film of things that travel
TRAVEL_FRAMES = 6 * GRID  # of a film, so that each of 24 even ones is no further from its place than half the next one
# Kinds of question that can be chosen, where not all can. Pictures and clips have their own, or none but a caption.
ASKED_OF = {"picture": (), "picture-questions": (), "clip": (), "empty": ("count", "there")}
CAPTIONED = ("picture", "clip")  # kinds about which nothing is asked
MOST_THINGS = {"row": ROW[1], "travel": 4, "crowded": CROWD, "rare": 6, "short": 5, "few": 3, "pair": 3}


@dataclass(frozen=True)
class Settings:
    """
    What a set is like. What the last ten add leaves the things, times and answers of a set as they are, but for
    `compositions`, `moving`, `ask` and `rates`.

    Args:
        kind (`str`): One of [`KINDS`].
        split (`str`, *optional*, defaults to `"train"`): One of [`SPLITS`], which share no video.
        seed (`int`, *optional*, defaults to 42): Of everything that is drawn.
        duration (`tuple[float, float]`, *optional*): Shortest and longest, in seconds; by default the kind's.
        questions (`int`, *optional*, defaults to 8): About a video, at most.
        choice_share (`float`, *optional*, defaults to 0.3): Of these, how many offer lettered options.
        side (`int`, *optional*, defaults to 96): Of the square picture, in pixels.
        fps (`float`, *optional*, defaults to 8): Frames a second.
        colors (`int`, *optional*, defaults to 8):
            How many the things of one video have at most: the fewer, the more of them only their shape tells apart.
        ask (`tuple[str, ...]`, *optional*):
            The kinds of question about a film. Pictures and clips have no choice, and films without things two kinds.
        wordings (`str`, *optional*, defaults to `"plain"`): Which of a kind's wordings; see [`Wordings`].
        style (`str`, *optional*, defaults to `"plain"`): How they are typed; see [`Wordings`].
        refusals (`int`, *optional*, defaults to 0): Questions that cannot be answered, beside the others.
        compositions (`str`, *optional*, defaults to `"all"`): Which pairs of color and shape there are; of
                `"shapes"`, the colors have no name, and of `"colors"`, the shapes.
        boxed (`float`, *optional*, defaults to 0): Share of the videos and pictures between black bars.
        light (`tuple[float, float]`, *optional*, defaults to (1, 1)): What a video is darkened or brightened by.
        moving (`float`, *optional*, defaults to 0): Share of the videos with fast cameras and changing backgrounds.
        codecs (`tuple[str, ...]`, *optional*, defaults to `("h264",)`): Of which each video has one.
        rates (`tuple[float, ...]`, *optional*): Frames a second of which each video has one, instead of `fps`.

    Raises:
        ValueError: For what cannot be.
    """

    kind: str
    split: str = "train"
    seed: int = 42
    duration: tuple[float, float] | None = None
    questions: int = 8
    choice_share: float = 0.3
    side: int = 96
    fps: float = 8.0
    colors: int = len(COLORS)
    ask: tuple[str, ...] = FILM_KINDS
    wordings: str = "plain"
    style: str = "plain"
    refusals: int = 0
    compositions: str = "all"
    boxed: float = 0.0
    light: tuple[float, float] = (1.0, 1.0)
    moving: float = 0.0
    codecs: tuple[str, ...] = ("h264",)
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        chosen = [
            ("kind", self.kind, KINDS),
            ("split", self.split, SPLITS),
            ("wordings", self.wordings, SETS),
            ("style", self.style, STYLES),
            ("compositions", self.compositions, COMPOSITIONS),
            *(("ask", kind, (*FILM_KINDS, *MORE_KINDS)) for kind in self.ask),
            *(("codecs", codec, CODECS) for codec in self.codecs),
        ]
        for name, value, known in chosen:
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}.")
        for name in ("ask", "codecs"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must name at least one.")
        # By default, all kinds are asked that the subject allows; one that is named must be among them.
        allowed = ASKED_OF.get(self.kind, self.ask)
        others = [] if self.ask == FILM_KINDS else [kind for kind in self.ask if kind not in allowed]
        if others:
            raise ValueError(
                f"`ask` names {', '.join(others)}, but for the kind {self.kind} "
                + (f"only {' and '.join(allowed)} can be chosen." if allowed else "none can be chosen: leave it out.")
            )
        if self.duration is not None and not 5 <= self.duration[0] <= self.duration[1] < math.inf:
            raise ValueError(f"Durations must be at least 5 seconds and the longest no shorter, got {self.duration}.")
        if self.is_picture and self.duration is not None:
            raise ValueError(f"`duration` has no effect for the kind {self.kind}, got {self.duration}: leave it out.")
        if self.side < 32 or self.side % 2:
            raise ValueError(f"`side` must be an even number of at least 32 pixels, got {self.side}.")
        for rate in (self.fps, *self.rates):
            if not 1 <= rate <= 60:
                raise ValueError(f"`fps` and `rates` must be from 1 to 60, got {rate}.")
        rate, shortest = min(self.rates or (self.fps,)), (self.duration or DURATIONS.get(self.kind, (0.0,)))[0]
        if self.kind == "travel" and rate * shortest < TRAVEL_FRAMES:
            raise ValueError(
                "A film of the kind travel shows a thing's way in three of 24 even frames, for which it must have at "
                f"least {TRAVEL_FRAMES}: of films of {shortest:g} s, `fps` and `rates` must be "
                f"{TRAVEL_FRAMES / shortest:g} or more, got {rate:g}."
            )
        if not 1 <= self.colors <= len(COLORS):
            raise ValueError(f"`colors` must be from 1 to {len(COLORS)}, got {self.colors}.")
        if self.questions < 0 or not 0 <= self.choice_share <= 1:
            raise ValueError(
                f"`questions` must be 0 or more and `choice_share` from 0 to 1, got {self.questions} and "
                f"{self.choice_share}."
            )
        if self.refusals < 0:
            raise ValueError(f"`refusals` must be 0 or more, got {self.refusals}.")
        if self.refusals and self.compositions in ("shapes", "colors"):
            raise ValueError(
                f"Of `compositions` {self.compositions!r}, half of what is there has no name: no `refusals`."
            )
        if self.kind in CAPTIONED:
            shares = ("choice_share", (Settings.choice_share,))
            for name, without in (("questions", (0, Settings.questions)), ("refusals", (0,)), shares):
                if getattr(self, name) not in without:
                    raise ValueError(
                        f"`{name}` has no effect for the kind {self.kind}, which has a caption and no questions, got "
                        f"{getattr(self, name)}: leave it out."
                    )
        if self.compositions == "shapes" and self.colors != Settings.colors:
            raise ValueError(
                f"`colors` has no effect with `compositions` 'shapes', whose colors have no name, got {self.colors}: "
                "leave it out."
            )
        for name in ("boxed", "moving"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be a share from 0 to 1, got {getattr(self, name)}.")
        if not 0 < self.light[0] <= self.light[1] < math.inf:
            raise ValueError(f"`light` must be above 0 and the brightest no darker, got {self.light}.")
        self._check_things()

    def _check_things(self) -> None:
        """Whether there are as many different things as a film of the kind may show, whatever its colors are."""
        pairs = COMPOSITIONS[self.compositions]
        counts = sorted(sum(other == color for other, _ in pairs) for color in COLORS)
        things = sum(counts[: self.colors]) + sum(color == NAMELESS for color, _ in pairs)
        needed = MOST_THINGS.get(self.kind, 1)
        if things < needed:
            enough = next((some for some in range(1, len(COLORS) + 1) if sum(counts[:some]) >= needed), None)
            raise ValueError(
                f"A film of the kind {self.kind} has up to {needed} different things, and there are {things} in "
                f"{self.colors} colors: "
                + (
                    f"it needs `colors` {enough} or more, got {self.colors}."
                    if enough
                    else f"`compositions` {self.compositions!r} has too few of them."
                )
            )

    @property
    def is_picture(self) -> bool:
        return self.kind.startswith("picture")


__all__ = ["CROWD", "DURATIONS", "GRID", "KINDS", "ROW", "SPLITS", "Settings"]
