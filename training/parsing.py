"""A dataclass from a YAML file and `key=value` over it; every name and type is checked."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

Parsed = TypeVar("Parsed")


class TrainingError(ValueError):
    """A run cannot start or go on; the message says why and what to do."""


def load_yaml(text: str | bytes) -> Any:
    """
    What a text of YAML says; bytes tell their encoding.

    Raises:
        ValueError: If it is not valid YAML, gives a key twice, or has a date that there is not.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def known(name: str, names: Iterable[str], where: str) -> None:
    """Raises a [`TrainingError`] with the nearest of `names` if `name` is none of them."""
    names = sorted(names)
    if name not in names:
        nearest = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"It knows {', '.join(names)}."
        raise TrainingError(f"{where} knows no `{name}`. {hint}")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes `2e-6` for text; here it is the number that everybody means. A key is given once."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key}` is given twice", node.value[place][0].start_mark
                )
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(kind: type[Parsed], path: str | os.PathLike, overrides: Iterable[str] = ()) -> Parsed:
    """
    Args:
        kind (`type`):
            A dataclass. Its fields may be dataclasses, lists, dicts, literals and unions of these.
        path (`str` or `os.PathLike`):
            The YAML file.
        overrides (`Iterable[str]`, *optional*):
            `key=value`; a key may go deeper with dots and numbers (`training.seed=1`, `data.0.count=500`), and a
            value is read as YAML.

    Raises:
        TrainingError: If the file is missing, empty or not YAML, or a name or value cannot be.
    """
    if not Path(path).is_file():
        raise TrainingError(f"There is no file of settings {str(path)!r}.")
    try:
        values = load_yaml(Path(path).read_bytes())
    except ValueError as error:
        raise TrainingError(f"{path}: not valid YAML: {error}") from error
    if values is None:
        raise TrainingError(f"The file of settings {str(path)!r} is empty.")
    for override in overrides:
        _set(values, override)
    return _convert(kind, values, "")


def _set(values: Any, override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        raise TrainingError(f"An override is written key=value, got {override!r}.")
    keys = name.split(".")
    for depth, key in enumerate(keys):
        if isinstance(values, list):
            if not key.isdecimal() or int(key) >= len(values):
                raise TrainingError(f"{name!r}: {key!r} is not in the list, which has {len(values)} entries from 0.")
            key = int(key)
        elif not isinstance(values, dict):
            raise TrainingError(f"{override!r}: {keys[depth - 1]!r} holds one value, nothing lies under it.")
        if depth == len(keys) - 1:
            try:
                values[key] = load_yaml(text)
            except ValueError as error:
                raise TrainingError(f"The override {override!r} is not valid YAML behind its =: {error}") from error
        elif isinstance(values, dict) and values.get(key) is None:
            values[key] = {}
        values = values[key]


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind`; `where` is its key with dots, empty for the whole file."""
    options = get_args(kind) if isinstance(kind, UnionType) else [kind]
    for option in options:
        base, inner = get_origin(option) or option, get_args(option)
        item_kind = inner[-1] if inner else Any  # of a list or the values of a dict
        if is_dataclass(base) and isinstance(value, dict):
            types, given = get_type_hints(base), {}
            for name, item in value.items():
                known(name, types, f"`{where}`" if where else "A file of settings")
                if item is not None:  # a key without a value keeps its default
                    given[name] = _convert(types[name], item, f"{where}.{name}" if where else name)
            return base(**given)
        if base is Literal and value in inner:
            return value
        if base is list and isinstance(value, list):
            return [_convert(item_kind, item, f"{where}.{place}") for place, item in enumerate(value)]
        if base is dict and isinstance(value, dict):
            return {name: _convert(item_kind, item, f"{where}.{name}") for name, item in value.items()}
        if base is Any or type(value) is base or (base is float and type(value) is int):
            return value
    names = [
        f"one of {', '.join(get_args(option))}" if get_origin(option) is Literal else _name_of(option)
        for option in options
        if option is not NoneType
    ]
    raise TrainingError(f"{f'`{where}`' if where else 'The settings'} must be {' or '.join(names)}, got {value!r}.")


def _name_of(kind: Any) -> str:
    """A type as a writer of YAML calls it."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return words.get(get_origin(kind) or kind, "a mapping of names to values")


__all__ = ["TrainingError", "known", "load_yaml", "parse_yaml"]
