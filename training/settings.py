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


@dataclass
class Sampling:
    """
    Which frames of a video are trained on. How the paper's "multi-rate uniform frame sampling" is read here: frames
    are taken uniformly at scene_size times the rate that the language model sees (96), every scene_size consecutive
    ones are a scene, and merging brings them back to the normal rate (32). `num_scenes` may be a list, from which
    each sample draws, for training at several lengths.
    """

    num_scenes: int | list[int] | None = None
    selection: str | list[str] = "uniform"
    candidate_fps: float | None = None
    min_candidates: int | None = None
    max_candidates: int | None = None


@dataclass
class Settings:
    """A whole run. `training/README.md` describes every field."""

    model: str = ""
    output: str = ""
    config: dict = field(default_factory=dict)
    processor: dict = field(default_factory=dict)
    learning_rates: dict[str, float] = field(default_factory=dict)
    optimizer: Literal["adamw", "muon"] = "adamw"
    optimizer_settings: dict = field(default_factory=dict)
    batch_size: int | None = None
    data: list[DataSet] = field(default_factory=list)
    sampling: Sampling = field(default_factory=Sampling)
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
        missing = [name for name in ("model", "output", "data", "learning_rates") if not getattr(self, name)]
        missing += [f"data.{place}.path" for place, source in enumerate(self.data) if not source.path]
        if missing:
            raise TrainingError(f"The settings have no `{missing[0]}`.")
        scenes = self.sampling.num_scenes
        numbers = {f"learning_rates.{part}": rate for part, rate in self.learning_rates.items()}
        numbers["sampling.num_scenes"] = min(scenes, default=0) if isinstance(scenes, list) else scenes
        for place, source in enumerate(self.data):
            numbers |= {f"data.{place}.{name}": getattr(source, name) for name in ("weight", "count", "subset")}
            if source.weight is not None and source.count is not None:
                raise TrainingError(f"`data.{place}` has both `weight` and `count`: give one of them.")
        for name, number in numbers.items():
            if number is not None and not number > 0:
                raise TrainingError(f"`{name}` must be a positive number, got {number!r}.")
        for part in self.learning_rates:
            known(part, PARTS, "`learning_rates`")
        if not self.sampling.selection:
            raise TrainingError("`sampling.selection` must not be empty.")


def load_settings(path: str | os.PathLike, overrides: Iterable[str] = ()) -> Settings:
    """The checked settings of a YAML file; see [`parse_yaml`] for the arguments and errors."""
    settings = parse_yaml(Settings, path, overrides)
    settings.check()
    return settings


__all__ = ["PARTS", "DataSet", "Sampling", "Settings", "TrainingError", "known", "load_settings"]
