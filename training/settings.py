"""The settings of a training run: a YAML file, `key=value` from the command line over it, a check of every name."""

import difflib
import os
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

PARTS = ("vision_tower", "multi_modal_projector", "language_model", "scene_merger")


class TrainingError(ValueError):
    """A run cannot start or go on; the message says why and what to do."""


@dataclass
class DataSet:
    """One set of the mixture. `training/README.md` describes every field."""

    path: str = ""
    media: str | None = None
    weight: float | None = None
    count: int | None = None
    subset: float | int | None = None
    questions: dict[str, list[str]] | None = None
    split: str = "train"

    def check(self, where: str):
        if not self.path:
            raise TrainingError(f"{where} has no `path`.")
        if self.weight is not None and self.count is not None:
            raise TrainingError(f"{where} has both `weight` and `count`: give one of them.")
        wanted = self.questions
        if wanted is not None and not (isinstance(wanted, dict) and all(isinstance(v, list) for v in wanted.values())):
            raise TrainingError(f"{where}: `questions` must map names to lists of values, got {wanted!r}.")
        for name in ("weight", "count", "subset"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{where}: `{name}` must be positive, got {value}.")


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

    def check(self):
        counts = self.num_scenes if isinstance(self.num_scenes, list) else [self.num_scenes]
        for count in counts:
            if count is not None and (not isinstance(count, int) or count < 1):
                raise TrainingError(f"`sampling.num_scenes` must be at least 1, got {count}.")
        if not counts or not self.selection:
            raise TrainingError("`sampling.num_scenes` and `sampling.selection` must not be empty lists.")


@dataclass
class Settings:
    """A whole run. `training/README.md` describes every field."""

    model: str = ""
    output: str = ""
    config: dict = field(default_factory=dict)
    processor: dict = field(default_factory=dict)
    learning_rates: dict = field(default_factory=dict)
    optimizer: str = "adamw"
    optimizer_settings: dict = field(default_factory=dict)
    batch_size: int | None = None
    data: list[DataSet] = field(default_factory=list)
    sampling: Sampling = field(default_factory=Sampling)
    isolate_turns: bool = False
    unreadable: str = "fail"
    attn_implementation: str | None = None
    dtype: str | None = None
    lora: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)

    def check(self):
        for name in ("model", "output", "data", "learning_rates"):
            if not getattr(self, name):
                raise TrainingError(f"The settings have no `{name}`.")
        for number, source in enumerate(self.data, start=1):
            source.check(f"`data`, set {number}")
        self.sampling.check()
        one_of("unreadable", self.unreadable, ("fail", "skip"))
        one_of("optimizer", self.optimizer, ("adamw", "muon"))
        for part, rate in self.learning_rates.items():
            known(part, PARTS, "`learning_rates`")
            if not isinstance(rate, (int, float)) or rate <= 0:
                raise TrainingError(f"`learning_rates.{part}` must be a positive number, got {rate!r}.")

    def as_dict(self) -> dict:
        return asdict(self)


def one_of(name: str, value: Any, choices: tuple):
    if value not in choices:
        raise TrainingError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")


def known(name: str, names, where: str):
    """
    Raises:
        TrainingError: If `name` is none of `names`; with the nearest of them.
    """
    names = list(names)
    if name in names:
        return
    nearest = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"It knows {', '.join(sorted(names))}."
    raise TrainingError(f"{where} knows no `{name}`. {hint}")


def load_settings(path: str | os.PathLike, overrides: list[str] | tuple = ()) -> Settings:
    """
    Args:
        path: the YAML file.
        overrides: `key=value`; a key may go deeper with dots and numbers (`training.seed=1`, `data.0.count=500`), and
            a value is read as YAML.

    Raises:
        TrainingError: If the file is missing or no YAML, or a name or value cannot be.
    """
    import yaml

    if not Path(path).is_file():
        raise TrainingError(f"There is no file of settings {str(path)!r}.")
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _loader())
        if not isinstance(values, dict):
            raise TrainingError(f"{path}: the settings must be a mapping of names to values.")
        for override in overrides:
            _set(values, override, lambda text: yaml.load(text, _loader()))
    except yaml.YAMLError as error:
        raise TrainingError(f"{path}: not valid YAML: {error}") from error
    settings = _build(Settings, values, "")
    settings.check()
    return settings


def _loader():
    """YAML 1.1 takes `1e-3` for text; here it is the number that everybody means."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
    return Loader


def _set(values: dict, override: str, parse):
    name, equals, text = override.partition("=")
    if not equals:
        raise TrainingError(f"An override is written key=value, got {override!r}.")
    *path, last = name.split(".")
    at = values
    for key in path:
        if isinstance(at, list):
            at = at[_index(at, key, name)]
        else:
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
        if not isinstance(at, (dict, list)):
            raise TrainingError(f"{override!r}: {key!r} holds one value, nothing lies under it.")
    at[_index(at, last, name) if isinstance(at, list) else last] = parse(text)


def _index(values: list, key: str, name: str) -> int:
    if not key.isdigit() or int(key) >= len(values):
        raise TrainingError(f"{name!r}: {key!r} is no number of the list, which has {len(values)} entries from 0.")
    return int(key)


def _build(kind, values: dict, where: str):
    if not isinstance(values, dict):
        raise TrainingError(f"`{where}` must be a mapping of names to values, got {values!r}.")
    names = {item.name: item for item in fields(kind)}
    built = {}
    for name, value in values.items():
        known(name, names, f"`{where}`" if where else "A file of settings")
        if name == "data":
            if not isinstance(value, list):
                raise TrainingError(f"`data` must be a list of sets, got {value!r}.")
            value = [_build(DataSet, item, f"data.{number}") for number, item in enumerate(value)]
        elif is_dataclass(names[name].type):
            value = _build(names[name].type, value or {}, name)
        elif names[name].type is dict:
            value = {} if value is None else value
            if not isinstance(value, dict):
                raise TrainingError(f"`{name}` must be a mapping of names to values, got {value!r}.")
        built[name] = value
    return kind(**built)


__all__ = ["PARTS", "DataSet", "Sampling", "Settings", "TrainingError", "known", "load_settings", "one_of"]
