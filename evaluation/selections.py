"""The ways to choose a video's scenes that are compared, and how much of its events each of them finds."""

import itertools
from dataclasses import asdict, dataclass, fields, replace

import torch

from ..frame_selector_fila_video import SceneSettings
from ..scene_selection_fila_video import INITS, num_selected_scenes, scenes_of, select_scenes


@dataclass(frozen=True)
class Selection:
    """`single`: as many single frames as there are scenes, each repeated so that merging changes nothing."""

    method: str
    init: str = "k-means++"
    single: bool = False

    def scenes(
        self, features: torch.Tensor, num_scenes: int, scene_size: int, seed: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Representative features `(num_candidates, dim)` to indices `(num_scenes, scene_size)`; `weights` as for
        [`select_scenes`].
        """
        size = 1 if self.single else scene_size
        chosen = select_scenes(features, num_scenes, size, self.method, init=self.init, seed=seed, weights=weights)
        return chosen.repeat(1, scene_size) if self.single else chosen


@dataclass(frozen=True)
class Mixture:
    """Half of the scenes by each of two methods, joined by a `+`, in the order of their representatives."""

    method: str

    def scenes(
        self, features: torch.Tensor, num_scenes: int, scene_size: int, seed: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As [`Selection.scenes`]. A frame that both choose stands twice."""
        first, second = self.method.split("+")
        counts = num_scenes - num_scenes // 2, num_scenes // 2
        halves = [
            Selection(method).scenes(features, count, scene_size, seed, weights)
            for method, count in zip((first, second), counts, strict=True)
            if count
        ]
        chosen = torch.cat(halves)
        return chosen[chosen[:, -1].argsort(stable=True)]


@dataclass(frozen=True)
class Changes:
    """
    Shots, as detectors of cuts find them: the largest changes from one frame to the next part them. The middle frame
    of a shot represents it, behind the most similar ones of its history.
    """

    method: str = "changes"

    def scenes(
        self, features: torch.Tensor, num_scenes: int, scene_size: int, seed: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As [`Selection.scenes`]; nothing is drawn."""
        changes = (features[1:].double() - features[:-1].double()).norm(dim=1)
        largest = changes.argsort(descending=True, stable=True)[: num_selected_scenes(len(features), num_scenes) - 1]
        starts = [0, *(largest + 1).sort().values.tolist(), len(features)]
        middles = [(start + end - 1) // 2 for start, end in itertools.pairwise(starts)]
        return scenes_of(features, torch.tensor(middles), scene_size)


@dataclass(frozen=True)
class Precomputed:
    """Scenes that are chosen already."""

    chosen: torch.Tensor
    method: str = "precomputed"

    def scenes(self, *args: object) -> torch.Tensor:
        """The scenes, whatever the features."""
        return self.chosen


@dataclass(frozen=True)
class ByQuestion:
    """
    Each question chooses its own scenes, by the attention that it pays to the frames; the fields are the processor's
    settings of the same names, whose `question_tokens` hold where there are none here. [`Answerer`] makes the scenes,
    since features alone do not.
    """

    question_layers: str = "middle"
    neutral_question: str = ""
    question_spacing: float = 3.0
    question_diversity: str = "top"
    question_context: float = 0.0
    question_min_rise: float = 0.0
    question_tokens: int | None = None
    method: str = "question"


AnySelection = Selection | Mixture | Changes | Precomputed | ByQuestion

# All give the language model the same number of visual tokens.
SELECTIONS = {
    "uniform": Selection("uniform"),
    "uniform_single": Selection("uniform", single=True),
    "bsm": Selection("bsm"),
    "kmeans_dissimilar": Selection("kmeans_dissimilar"),
    "kmeans": Selection("kmeans"),
    "kmeans_random": Selection("kmeans", "random"),
    "farthest": Selection("farthest"),
    "prototypes": Selection("prototypes"),
    "changes": Changes(),
    "question": ByQuestion(),
    "question_first": ByQuestion("first", "What can be seen?"),
}


def own_selection(settings: SceneSettings) -> AnySelection:
    """The selection of a processor that has these settings."""
    if settings.selection != "question":
        return find_selection(settings.selection, settings.init)
    asking = asdict(settings.asking)
    return ByQuestion(**{field.name: asking[field.name] for field in fields(ByQuestion) if field.name in asking})


def find_selection(name: str, init: str | None = None) -> Selection | Changes | ByQuestion:
    """
    The selection of that name, where it clusters with other initial centers if `init` is given.

    Raises:
        ValueError: If there is none.
    """
    if name not in SELECTIONS:
        raise ValueError(f"Unknown selection {name!r}: use one of {', '.join(SELECTIONS)}.")
    if init is not None and init not in INITS:
        raise ValueError(f"Unknown initial centers {init!r}: use one of {', '.join(INITS)}.")
    selection = SELECTIONS[name]
    return replace(selection, init=init) if init is not None and isinstance(selection, Selection) else selection


@dataclass
class Recall:
    """
    Counts for one video: `events`; of these `found` by any chosen frame, and `represented` by a scene's last frame;
    `scenes` whose last frame lies in one; of these `pure`, which hold it at least twice (also where one is repeated:
    what counts is what is merged).
    """

    events: int = 0
    found: int = 0
    represented: int = 0
    scenes: int = 0
    pure: int = 0

    def __add__(self, other: "Recall") -> "Recall":
        return Recall(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Recall)))


def event_recall(events: list[tuple[float, float]], times: torch.Tensor) -> Recall:
    """
    Which events a selection finds.

    Args:
        events (`list[tuple[float, float]]`): Start (inclusive) and end (exclusive) of each, in seconds.
        times (`torch.Tensor` of shape `(num_scenes, scene_size)`): Of the chosen frames; a scene's last one is its
            representative.
    """
    recall = Recall(events=len(events))
    for start, end in events:
        inside = (times >= start) & (times < end)
        recall.found += bool(inside.any())
        represented = inside[:, -1]
        recall.represented += bool(represented.any())
        recall.scenes += int(represented.sum())
        recall.pure += int((inside[represented].sum(dim=1) >= 2).sum())
    return recall


__all__ = [
    "SELECTIONS",
    "AnySelection",
    "ByQuestion",
    "Changes",
    "Mixture",
    "Precomputed",
    "Recall",
    "Selection",
    "event_recall",
    "find_selection",
    "own_selection",
]
