"""What a run is made from, kept beside its weights: a run that goes on must be the one that was begun."""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from ..commands.files import replacing
from ..configuration_fila_video import FilaVideoConfig
from ..inference.output import EARLIER_MODEL_FILES, model_mark
from ..processing_fila_video import FilaVideoProcessor
from .data import Curriculum, Mixture
from .optimizers import MuonWithAdamW
from .settings import DataSet, Settings, TrainingError

SAVED_SETTINGS = "settings.yaml"
MOST_NAMED = 8  # differences in a message
# What does not decide the weights: where they and the media lie, what is said and kept of the run, how its data are
# fetched, and what it runs on, which only rounds otherwise. `unreadable` is what a run is told to get past a bad
# record. What is compared in another form is here as well: how a batch is split by its size, the length by its steps,
# and the start by its files.
HARMLESS = re.compile(
    r"output|model|batch_size|unreadable|attn_implementation|(phases\.\d+\.)?data\.\d+\.media|training\.("
    r"dataloader_(?!drop_last|in_order)\w+|disable_tqdm|log_\w+|logging_\w+|report_to|run_name|project|trackio_\w+|hub_\w+|"
    r"push_to_hub|save_(steps|strategy|total_limit|on_each_node)|enable_jit_checkpoint|"
    r"restore_callback_states_from_checkpoint|use_cpu|tf32|torch_compile\w*|ddp_\w+|fsdp\w*|deepspeed|local_rank|debug|"
    r"(gradient|activation)_checkpointing\w*|torch_empty_cache_steps|skip_memory_metrics|"
    r"include_num_input_tokens_seen|per_device_train_batch_size|max_steps|num_train_epochs)(\..+)?"
)
PATH = re.compile(r"(phases\.\d+\.)?data\.\d+\.path")


def run_values(settings: Settings, defaults: dict, arguments: TrainingArguments, data: Mixture | Curriculum) -> dict:
    """All settings of a run, and what follows from them and from its files."""
    values = settings.as_dict()
    values["training"] = {**defaults, **values["training"]}
    del values["training"]["disable_tqdm"]
    values["resolved"] = {
        "processes": arguments.world_size,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "steps_of_an_epoch": _steps_of_an_epoch(len(data), arguments),
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
    if different := what_differs(output, now):
        raise TrainingError(
            f"The run in {output} was begun with others than these ({different}), and it goes on from its checkpoint "
            "with its own rates and order alone. Give what it was begun with, as its settings.yaml has it; name "
            "another `output`; or remove the folder to begin anew. What may change is how long it is, at its end, and "
            "what does not decide its weights."
        )


def what_differs(output: str | Path, now: dict, may_grow: bool = True) -> str:
    """
    What decides the weights of a run and is not what it was begun with, with both values; nothing if the folder does
    not say with what. Unless it `may_grow`, more steps at its end are another run.

    Raises:
        TrainingError: If what the folder says cannot be read.
    """
    file = Path(output) / SAVED_SETTINGS
    try:
        before = yaml.safe_load(file.read_bytes()) if file.is_file() else None
        if not isinstance(before, dict | None):
            raise yaml.YAMLError("it names no settings")
    except yaml.YAMLError as error:
        raise TrainingError(
            f"{file} is not valid YAML, so that nothing can be compared: {error}. Remove it to go on without."
        ) from error
    if not before:
        return ""
    both = _settings(before), _settings(_with_phases_of(before, now) if may_grow else now)
    was, has = _flat(_in_effect(*both)), _flat(_in_effect(*reversed(both)))
    start = _start(now["model"])
    has_marks = "data" in (before.get("resolved") or {})
    different = [
        f"{name}: {was.get(name)} there, {has.get(name)} now"
        for name in {**was, **has}
        if not HARMLESS.fullmatch(name)
        and not (has_marks and PATH.fullmatch(name) and name in was and name in has)
        and was.get(name, _default(name, was, start)) != has.get(name, _default(name, has, start))
    ]
    different += _resolved_differences(before, now, may_grow)
    more = len(different) - MOST_NAMED
    return "; ".join(different[:MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))


def check_is_new(output: str | Path) -> None:
    """
    Raises:
        TrainingError: If a model lies where a run is to begin: nothing says by which settings it could go on.
    """
    found = [path.name for pattern in ("trainer_state.json", "*.safetensors") for path in Path(output).glob(pattern)]
    if found:
        raise TrainingError(
            f"The output {str(output)!r} holds {found[0]} of a model, and no checkpoint from which a run could go on. "
            "To start anew, remove the folder or name another."
        )


def save_values(output: str | Path, values: dict) -> None:
    """Writes what the run is made from beside its weights, whole or not at all."""
    file = Path(output) / SAVED_SETTINGS
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as unfinished:
        unfinished.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _settings(values: dict) -> dict:
    return {name: value for name, value in values.items() if name != "resolved"}


def _resolved_differences(before: dict, now: dict, may_grow: bool) -> list[str]:
    """Of what follows from settings and files, as far as the version that began the run has noted it."""
    was, has = before.get("resolved") or {}, now["resolved"]
    found, sizes = [], ("processes", "per_device_train_batch_size", "gradient_accumulation_steps")
    if all(name in was for name in sizes):
        batch = [one[sizes[0]] * one[sizes[1]] * one[sizes[2]] for one in (was, has)]
        if batch[0] != batch[1]:
            found.append(f"samples of a step: {batch[0]} there, {batch[1]} now")
    elif "batch_size" in before and before["batch_size"] != now["batch_size"]:
        found.append(f"batch_size: {before['batch_size']} there, {now['batch_size']} now")
    if not before.get("phases"):  # whose steps are settings
        steps = [_steps(one.get("training") or {}, has["steps_of_an_epoch"]) for one in (before, now)]
        if steps[0] > steps[1] or (steps[0] < steps[1] and not may_grow):
            found.append(f"steps: {steps[0]} there, {steps[1]} now")
    if "model" in was:
        # A folder may have another name, and earlier versions counted more of its files.
        marks = [has["model"], model_mark(now["model"], EARLIER_MODEL_FILES)]
        if was["model"].split()[-1] not in [mark.split()[-1] for mark in marks]:
            found.append(f"the files of `model`: {was['model']} there, {has['model']} now")
    elif before.get("model") != now["model"]:
        found.append(f"model: {before.get('model')} there, {now['model']} now")
    for there, here in zip(was.get("data") or [], has["data"], strict=False):  # phases may have been appended
        for one, other in zip(there, here, strict=False):
            states = [_state(one), _state(other)]
            if states[0] != states[1]:
                text = f"the set {other['path']}: {states[0]} there, {states[1]} now"
                found += [text] if text not in found else []
        if len(there) != len(here):
            found.append(f"sets: {len(there)} there, {len(here)} now")
    return found


def _state(mark: dict) -> str:
    """Of a set: where files with a digest lie says nothing, and others have no more than their name."""
    return f"{mark['records']} records " + (f"of digest {mark['digest']}" if mark["digest"] else f"of {mark['path']}")


def _steps_of_an_epoch(samples: int, arguments: TrainingArguments) -> int:
    """As the trainer counts them."""
    batch = arguments.per_device_train_batch_size * arguments.world_size
    batches = samples // batch if arguments.dataloader_drop_last else math.ceil(samples / batch)
    return max(1, math.ceil(batches / arguments.gradient_accumulation_steps))


def _steps(training: dict, epoch: int) -> int:
    """Of a whole run of these settings of `training`, with so many steps in an epoch."""
    steps = training.get("max_steps") or -1
    return steps if steps > 0 else math.ceil(training.get("num_train_epochs", 1) * epoch)


def _with_phases_of(before: dict, now: dict) -> dict:
    """The settings of now, with the phases of before where they have only grown at the end."""
    now = {**now, "phases": list(now["phases"])}
    phases = before.get("phases") or []
    if phases and len(now["phases"]) >= len(phases):
        now["phases"] = now["phases"][: len(phases)]
        last = now["phases"][-1]
        now["phases"][-1] = {**last, "steps": min(last["steps"], phases[-1]["steps"])}
    return now


def _in_effect(settings: dict, other: dict) -> dict:
    """
    The settings with the run's sets and sampling written into each phase that has none where its twin of the other
    settings has. Elsewhere they are compared once, as the run's; and not at all where no phase takes them.
    """
    phases, twins = ([dict(phase) for phase in one.get("phases") or []] for one in (settings, other))
    in_effect = {**settings, "phases": phases}
    for name in ("data", "sampling") if phases else ():
        own = [bool(phase.get(name) or twin.get(name)) for phase, twin in zip_longest(phases, twins, fillvalue={})]
        for phase, has_own in zip(phases, own, strict=False):
            if has_own:
                phase[name] = phase.get(name) or settings.get(name)
        if all(own):
            in_effect[name] = None
    return in_effect


def _flat(values: dict | list | tuple, before: str = "") -> dict:
    """Nested settings by names with dots, without those that are not set."""
    flat = {}
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list, tuple)):
            flat |= _flat(value, f"{before}{name}.")
        elif value is not None:
            flat[f"{before}{name}"] = value
    return flat


def _start(model: str) -> dict:
    """What the settings of `config` and `processor` are in the start, as far as these are no collections."""
    processor = FilaVideoProcessor.from_pretrained(model)
    own = {**processor.video_processor.to_dict(), "add_time_instruction": processor.add_time_instruction}
    start = {"config": FilaVideoConfig.from_pretrained(model).to_dict(), "processor": own}
    return {
        part: {name: value for name, value in values.items() if not isinstance(value, (dict, list, tuple))}
        for part, values in start.items()
    }


def _default(name: str, values: dict, start: dict) -> Any:
    """
    What a setting is where it does not stand among these `values`, as in a file of another version or where a default
    is spelled out.
    """
    training = _defaults_of(TrainingArguments)
    training["data_seed"] = values.get("training.seed", training["seed"])
    schedulers = {kind.value: scheduler for kind, scheduler in TYPE_TO_SCHEDULER_FUNCTION.items()}
    if scheduler := schedulers.get(values.get("training.lr_scheduler_type")):
        training["lr_scheduler_kwargs"] = _defaults_of(scheduler)
    known = {**Settings().as_dict(), **start, "dtype": "float32", "training": training}
    known["optimizer_settings"] = _defaults_of(MuonWithAdamW)  # AdamW has the same
    defaults = _flat(known) | _flat({**asdict(DataSet()), "weight": 1}, "data.")
    return defaults.get(re.sub(r"^phases\.\d+\.|(?<=data\.)\d+\.", "", name))


def _defaults_of(made: Callable) -> dict:
    parameters = inspect.signature(made).parameters.values()
    return {item.name: item.default for item in parameters if item.default is not item.empty}


__all__ = ["SAVED_SETTINGS", "check_goes_on", "run_values", "save_values", "what_differs"]
