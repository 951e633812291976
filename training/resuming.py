"""What a run is made from, kept beside its weights: a run that goes on must be the one that was begun."""

import os
import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from ..inference.output import model_mark
from .data import Curriculum, Mixture
from .settings import DataSet, Settings, TrainingError

SAVED_SETTINGS = "settings.yaml"
MOST_NAMED = 8  # differences in a message
# What does not decide the weights: where they lie, what is said and kept of the run, how its data are fetched, and
# what it runs on. How a batch is split is here since its size is compared. `unreadable` is what a run is told to get
# past a bad record; and of the start, its files are compared, not its place.
HARMLESS = re.compile(
    r"output|model|unreadable|attn_implementation|training\.(dataloader_(num_workers|pin_memory|persistent_workers|"
    r"prefetch_factor)|disable_tqdm|log_\w+|logging_\w+|report_to|run_name|project|trackio_\w+|hub_\w+|push_to_hub|"
    r"save_(steps|strategy|total_limit|on_each_node)|enable_jit_checkpoint|restore_callback_states_from_checkpoint|"
    r"use_cpu|ddp_\w+|fsdp\w*|deepspeed|gradient_checkpointing\w*|torch_empty_cache_steps|skip_memory_metrics|"
    r"include_num_input_tokens_seen|per_device_train_batch_size)(\..+)?"
)
LENGTHS = ("max_steps", "num_train_epochs")  # of `training`


def run_values(settings: Settings, defaults: dict, arguments: TrainingArguments, data: Mixture | Curriculum) -> dict:
    """All settings of a run, and what follows from them and from its files."""
    values = settings.as_dict()
    values["training"] = {**defaults, **values["training"]}
    del values["training"]["disable_tqdm"]
    values["resolved"] = {
        "processes": arguments.world_size,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "model": model_mark(settings.model),
        "data": [[records.mark() for records in mixture.sets] for mixture in getattr(data, "mixtures", [data])],
    }
    return values


def check_goes_on(output: str | Path, now: dict) -> None:
    """
    Compares with what a run was begun with; more steps at its end may be asked of it.

    Raises:
        TrainingError: If anything that decides its weights is another; with both values.
    """
    file = Path(output) / SAVED_SETTINGS
    try:
        before = yaml.safe_load(file.read_bytes()) if file.is_file() else None
    except yaml.YAMLError as error:
        raise TrainingError(
            f"{file} is not valid YAML, so that nothing can be compared: {error}. Remove it to go on without."
        ) from error
    if not before:
        return
    was, has = _flat(_settings(before)), _flat(_with_length_of(before, _settings(now)))
    different = [
        f"{name}: {was.get(name)} there, {has.get(name)} now"
        for name in {**was, **has}
        if not HARMLESS.fullmatch(name) and was.get(name, _default(name)) != has.get(name, _default(name))
    ]
    different += _resolved_differences(before, now)
    if different:
        more = len(different) - MOST_NAMED
        shown = "; ".join(different[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))
        raise TrainingError(
            f"The run in {output} was begun with others than these ({shown}), and it goes on from its checkpoint with "
            "its own rates and order alone. Give what it was begun with, as its settings.yaml has it; name another "
            "`output`; or remove the folder to begin anew. What may change is how long it is, at its end, and what "
            "does not decide its weights."
        )


def save_values(output: str | Path, values: dict) -> None:
    """Writes what the run is made from beside its weights, whole or not at all."""
    file = Path(output) / SAVED_SETTINGS
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.tmp")
    unfinished.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(unfinished, file)


def _settings(values: dict) -> dict:
    return {name: value for name, value in values.items() if name != "resolved"}


def _resolved_differences(before: dict, now: dict) -> list[str]:
    """Of what follows from settings and files, as far as the version that began the run has noted it."""
    was, has = before.get("resolved") or {}, now["resolved"]
    found, sizes = [], ("processes", "per_device_train_batch_size", "gradient_accumulation_steps")
    if all(name in was for name in sizes):
        batch = [one[sizes[0]] * one[sizes[1]] * one[sizes[2]] for one in (was, has)]
        if batch[0] != batch[1]:
            found.append(f"samples of a step: {batch[0]} there, {batch[1]} now")
    if was.get("model", has["model"]) != has["model"]:
        found.append(f"the files of `model`: {was['model']} there, {has['model']} now")
    elif "model" not in was and before.get("model") != now["model"]:
        found.append(f"model: {before.get('model')} there, {now['model']} now")
    for there, here in zip(was.get("data") or [], has["data"], strict=False):  # phases may have been appended
        for one, other in zip(there, here, strict=False):
            if one != other:
                counts = [f"{item['records']} records, digest {item['digest']}" for item in (one, other)]
                text = f"the set {other['path']}: {counts[0]} there, {counts[1]} now"
                found += [text] if text not in found else []
        if len(there) != len(here):
            found.append(f"sets: {len(there)} there, {len(here)} now")
    return found


def _with_length_of(before: dict, now: dict) -> dict:
    """The settings of now, as long as before where they have only grown at the end: by steps, epochs or phases."""
    now = {**now, "training": dict(now["training"]), "phases": list(now["phases"])}
    training, phases = before.get("training") or {}, before.get("phases") or []
    for name in LENGTHS:
        was, has = training.get(name), now["training"].get(name)
        if isinstance(was, (int, float)) and isinstance(has, (int, float)) and 0 < was < has:
            now["training"][name] = was
    if phases and len(now["phases"]) >= len(phases):
        now["phases"] = now["phases"][: len(phases)]
        last = now["phases"][-1]
        now["phases"][-1] = {**last, "steps": min(last["steps"], phases[-1]["steps"])}
    return now


def _flat(values: dict | list, before: str = "") -> dict:
    """Nested settings by names with dots, without those that are not set."""
    flat = {}
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list)):
            flat |= _flat(value, f"{before}{name}.")
        elif value is not None:
            flat[f"{before}{name}"] = value
    return flat


def _default(name: str) -> Any:
    """What a setting is where it does not stand, as in a file of another version or where a default is spelled out."""
    if name.startswith("training."):
        defaults = {f"training.{item.name}": item.default for item in fields(TrainingArguments)}
        return None if (value := defaults.get(name)) is MISSING else value
    defaults = _flat(Settings().as_dict()) | _flat(asdict(DataSet()), "data.")
    return defaults.get(re.sub(r"^phases\.\d+\.|(?<=data\.)\d+\.", "", name))


__all__ = ["SAVED_SETTINGS", "check_goes_on", "run_values", "save_values"]
