"""The settings of a training run, and what of them cannot be."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .parsing import TrainingError, known, parse_yaml

PARTS = ("vision_tower", "multi_modal_projector", "language_model", "scene_merger")


@dataclass
class DataSet:
    """One set of the mixture. `training/README.md` describes every field."""

    path: str = ""
    media: str | None = None
    weight: float | None = None
    count: int | None = None
    subset: int | float | None = None
    questions: dict[str, list] | None = None
    split: str = "train"
    name: str | None = None


@dataclass
class Sampling:
    """
    Which frames of a video are trained on. How the paper's "multi-rate uniform frame sampling" is read here: frames
    are taken uniformly at scene_size times the rate that the language model sees (96), every scene_size consecutive
    ones are a scene, and merging brings them back to the normal rate (32). `num_scenes` may be a list, from which
    each sample draws, or a range of `min` and `max`, in which small numbers are as likely as twice as large ones.
    """

    num_scenes: int | list[int] | dict[str, int] | None = None
    selection: str | list[str] = "uniform"
    candidate_fps: float | None = None
    min_candidates: int | None = None
    max_candidates: int | None = None


@dataclass
class AnswerNoise:
    """
    That share of these words is another of them where the model reads what it has said, though not where it learns to
    say it: what it says next must come from what it sees, and not from which words it has met together.
    """

    share: float = 0.0
    words: list[str] = field(default_factory=list)


@dataclass
class Phase:
    """A part of a run's curriculum: so many steps, and what they are trained on, where it is not the run's own."""

    steps: int = 0
    data: list[DataSet] = field(default_factory=list)
    sampling: Sampling | None = None
    questions: dict[str, list] | None = None


@dataclass
class Settings:
    """A whole run. `training/README.md` describes every field."""

    model: str = ""
    output: str = ""
    config: dict = field(default_factory=dict)
    processor: dict = field(default_factory=dict)
    new_merger: bool = False
    learning_rates: dict[str, float] = field(default_factory=dict)
    optimizer: Literal["adamw", "muon"] = "adamw"
    optimizer_settings: dict = field(default_factory=dict)
    batch_size: int | None = None
    data: list[DataSet] = field(default_factory=list)
    sampling: Sampling = field(default_factory=Sampling)
    phases: list[Phase] = field(default_factory=list)
    answer_noise: AnswerNoise = field(default_factory=AnswerNoise)
    unseen_pairs: list[list[str]] = field(default_factory=list)
    isolate_turns: bool = False
    unreadable: Literal["fail", "skip"] = "fail"
    attn_implementation: str | None = None
    dtype: str | None = None
    lora: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self) -> None:
        """What the types do not say."""
        parts = {"": self} | {f"phases.{place}.": phase for place, phase in enumerate(self.phases)}
        sources = {f"{where}data.{n}": source for where, part in parts.items() for n, source in enumerate(part.data)}
        missing = [name for name in ("model", "output", "learning_rates") if not getattr(self, name)]
        missing += ["data"] if not self.data and not all(phase.data for phase in self.phases or [self]) else []
        missing += [f"{where}.path" for where, source in sources.items() if not source.path]
        if missing:
            raise TrainingError(f"The settings have no `{missing[0]}`.")
        numbers = {f"learning_rates.{part}": rate for part, rate in self.learning_rates.items()}
        numbers["batch_size"] = self.batch_size
        numbers |= {f"phases.{place}.steps": phase.steps for place, phase in enumerate(self.phases)}
        for where, source in sources.items():
            numbers |= {f"{where}.{name}": getattr(source, name) for name in ("weight", "count", "subset")}
            if isinstance(source.subset, float) and source.subset > 1:
                raise TrainingError(f"`{where}.subset` is a whole number or a share up to 1, got {source.subset}.")
            if source.weight is not None and source.count is not None:
                raise TrainingError(f"`{where}` has both `weight` and `count`: give one of them.")
        for where, part in parts.items():
            numbers |= _check_sampling(f"{where}sampling", part.sampling) if part.sampling is not None else {}
        for name, number in numbers.items():
            if number is not None and not number > 0:
                raise TrainingError(f"`{name}` must be a positive number, got {number!r}.")
        noise = self.answer_noise
        if not 0 <= noise.share <= 1 or (noise.share > 0 and len(set(noise.words)) < 2):
            raise TrainingError(
                f"`answer_noise` needs a `share` from 0 to 1, got {noise.share}, and at least two `words`, got "
                f"{len(set(noise.words))}."
            )
        for pair in self.unseen_pairs:
            if len(pair) != 2 or any(len(word.split()) != 1 for word in pair):
                raise TrainingError(f"`unseen_pairs` has pairs of two words each, such as [red, ring], got {pair}.")
        for part in self.learning_rates:
            known(part, PARTS, "`learning_rates`")
        for name in ("max_steps", "num_train_epochs"):
            if self.phases and name in self.training:
                raise TrainingError(f"The `phases` say how long training is: leave out `training.{name}`.")
        momentum = ["momentum"] if self.optimizer == "muon" else []
        for name in self.optimizer_settings:
            known(name, ["betas", "eps", *momentum], f"`optimizer_settings` of {self.optimizer}")


def _check_sampling(where: str, sampling: Sampling) -> dict[str, int | None]:
    """The numbers of it that must be positive."""
    if not sampling.selection:
        raise TrainingError(f"`{where}.selection` must not be empty.")
    scenes = sampling.num_scenes
    if isinstance(scenes, dict):
        for name in scenes:
            known(name, ("min", "max"), f"`{where}.num_scenes`")
        fewest, most = scenes.get("min", 0), scenes.get("max", 0)
        if most < fewest:
            raise TrainingError(f"`{where}.num_scenes` has min {fewest} above max {most}: give both.")
        return {f"{where}.num_scenes.min": fewest}
    return {f"{where}.num_scenes": min(scenes, default=0) if isinstance(scenes, list) else scenes}


def load_settings(path: str | os.PathLike, overrides: Iterable[str] = ()) -> Settings:
    """The checked settings of a YAML file; see [`parse_yaml`] for the arguments and errors."""
    settings = parse_yaml(Settings, path, overrides)
    settings.check()
    return settings


__all__ = [
    "PARTS",
    "AnswerNoise",
    "DataSet",
    "Phase",
    "Sampling",
    "Settings",
    "TrainingError",
    "known",
    "load_settings",
]
