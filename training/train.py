r"""Trains FiLA-Video: one stage, one file of settings.

    python -m fila_video.training.train training/stage4_video.yaml [key=value ...]
    torchrun --nproc-per-node 8 -m fila_video.training.train training/stage4_video.yaml
    accelerate launch --config_file training/accelerate/fsdp2.yaml \
        -m fila_video.training.train training/stage4_video.yaml

Started again, it goes on from the last whole checkpoint in `output`. `training/README.md` describes every setting.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import TrainingArguments, set_seed
from transformers.utils import logging

from ..configuration_fila_video import SHARED_WITH_PROCESSOR, SHARED_WITH_SCENES, FilaVideoConfig
from ..frame_selector_fila_video import SceneSettings
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..processing_fila_video import FilaVideoProcessor
from .collator import Collator
from .data import Curriculum, Mixture, RecordSet, each_configuration
from .isolated_turns import isolate_turns
from .optimizers import freeze
from .resuming import check_goes_on, check_is_new, run_values, save_values
from .samples import SampleEncoder
from .settings import Phase, Settings, TrainingError, known, load_settings
from .trainer import LOG, UNREADABLE, FilaVideoTrainer, unreadable_of
from .unseen_pairs import UnseenPairs

logger = logging.get_logger(__name__)

DEFAULTS = {
    "num_train_epochs": 1,
    "lr_scheduler_type": "cosine",
    "logging_steps": 10,
    "save_steps": 500,
    "report_to": "none",
    "disable_tqdm": not sys.stderr.isatty(),
}
# Set elsewhere in the settings, or to the one value that works; others would have no effect.
RESERVED = {
    "output_dir": "is set by `output`",
    "learning_rate": "is set by `learning_rates`",
    "optim": "is set by `optimizer`",
    "adam_beta1": "is set by `optimizer_settings.betas`",
    "adam_beta2": "is set by `optimizer_settings.betas`",
    "adam_epsilon": "is set by `optimizer_settings.eps`",
    "gradient_accumulation_steps": "is set by `batch_size`, from which it follows",
    "auto_find_batch_size": "cannot be used: a batch that it makes smaller would change the steps of `batch_size`",
    "save_only_model": "cannot be used: a run that goes on would begin its optimizer and its rates anew",
    "ignore_data_skip": "cannot be used: a run that goes on would begin its data anew",
    "label_smoothing_factor": "cannot be used: the loss is that of the learned tokens as they are",
    "resume_from_checkpoint": "has no effect: a run goes on from the last checkpoint in `output`",
}
RESERVED |= dict.fromkeys(("optim_args", "optim_target_modules"), "is set by `optimizer_settings`")
RESERVED |= dict.fromkeys(("train_sampling_strategy", "length_column_name"), "is set by the mixture of `data`")
RESERVED |= dict.fromkeys(("remove_unused_columns", "label_names", "use_cache"), "is set by the trainer")
RESERVED |= dict.fromkeys(("do_train", "do_eval", "do_predict"), "has no effect: a run trains, and does nothing else")
EVALUATION = ("per_device_eval_batch_size", "prediction_loss_only", "include_for_metrics", "batch_eval_metrics")
EVALUATION += ("bf16_full_eval", "fp16_full_eval", "metric_for_best_model", "greater_is_better")
EVALUATION += ("load_best_model_at_end",)  # and all that begin with `eval_`
SHARED = SHARED_WITH_PROCESSOR + SHARED_WITH_SCENES


def training_arguments(settings: Settings) -> TrainingArguments:
    """
    Raises:
        TrainingError: If a name is unknown or without effect, a value cannot be, or the global batch does not divide
            among the processes.
    """
    names = [item.name for item in fields(TrainingArguments) if item.init]
    for name in settings.training:
        known(name, names, "`training`")
        why = RESERVED.get(name)
        if name in EVALUATION or name.startswith("eval_"):
            why = "has no effect: training evaluates nothing"
        if why:
            raise TrainingError(f"`training.{name}` {why}. Leave it out.")
    values = {**DEFAULTS, **settings.training}
    for name in ("per_device_train_batch_size", "num_train_epochs"):
        if name in values and not (isinstance(values[name], (int, float)) and values[name] > 0):
            raise TrainingError(f"`training.{name}` must be a positive number, got {values[name]!r}.")
    processes, each = int(os.environ.get("WORLD_SIZE", "1")), values.get("per_device_train_batch_size", 8)
    if settings.batch_size is not None:
        if settings.batch_size % (each * processes):
            raise TrainingError(
                f"`batch_size` {settings.batch_size} is no multiple of {each * processes}, {processes} processes with "
                f"`per_device_train_batch_size` {each}: change one of them."
            )
        values["gradient_accumulation_steps"] = settings.batch_size // (each * processes)
    if settings.phases:
        values["max_steps"] = sum(phase.steps for phase in settings.phases)
    try:
        arguments = TrainingArguments(
            output_dir=settings.output, remove_unused_columns=False, label_names=["labels"], **values
        )
    except (ValueError, TypeError) as error:
        raise TrainingError(f"`training`: {error}") from error
    batches = arguments.accelerator_config
    if batches.split_batches or "num_steps" in (batches.gradient_accumulation_kwargs or {}):
        raise TrainingError(
            "`training.accelerator_config`: `split_batches` and `gradient_accumulation_kwargs.num_steps` cannot be "
            "used: a step would have others than the samples of `batch_size`. Leave them out."
        )
    if arguments.n_gpu > 1:
        raise TrainingError(
            f"One process sees {arguments.n_gpu} GPUs: start with `torchrun --nproc-per-node {arguments.n_gpu}`, or "
            "choose one with CUDA_VISIBLE_DEVICES."
        )
    return arguments


def load_config(settings: Settings) -> FilaVideoConfig:
    """
    That of the model that a stage starts from, with the settings' own in it.

    Raises:
        TrainingError: If there is no such model, or a setting of it cannot be.
    """
    with _naming(f"`model` {settings.model!r}"):
        config = FilaVideoConfig.from_pretrained(settings.model)
    with _naming("`config`"):
        saved = config.to_dict()
        for name in settings.config:
            known(name, [item for item in saved if not item.startswith("_")], "`config`")
        return FilaVideoConfig.from_dict(saved, **settings.config)


def load_processor(settings: Settings, config: FilaVideoConfig) -> FilaVideoProcessor:
    """
    The processor that fits a model of that configuration, with the settings' own in it.

    Raises:
        TrainingError: If there is none, or a setting of it cannot be.
    """
    with _naming(f"`model` {settings.model!r}"):
        processor = FilaVideoProcessor.from_pretrained(settings.model)
    for name in SHARED:
        setattr(processor, name, getattr(config, name))
    for name, value in settings.processor.items():
        if name in SHARED:
            raise TrainingError(f"`processor.{name}` is the model's as well: set `config.{name}` instead.")
        names = [*processor.video_processor.to_dict(), *(field.name for field in fields(SceneSettings))]
        known(name, [*names, "num_frames", "fps", "add_time_instruction"], "`processor`")
        setattr(processor if name == "add_time_instruction" else processor.video_processor, name, value)
    with _naming("`processor`"):
        processor.video_processor.scene_settings()
    return processor


def load_model(settings: Settings) -> tuple[FilaVideoForConditionalGeneration, FilaVideoProcessor]:
    """
    The model that a stage starts from, with the settings' own configuration, and the processor that fits it.

    Raises:
        TrainingError: If there is no such model, a setting of it cannot be, or weights are missing or do not fit, of
            which a stage before this one has some.
    """
    config = load_config(settings)
    options = {"attn_implementation": settings.attn_implementation} if settings.attn_implementation else {}
    with _naming(f"`model` {settings.model!r}, `dtype` or `attn_implementation`"):
        model, info = FilaVideoForConditionalGeneration.from_pretrained(
            settings.model,
            config=config,
            dtype=settings.dtype or torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    new = sorted(mismatched | set(info["missing_keys"]))
    starts_new = ("scene_merger", "background_encoder", "cooperative_encoder", "image_newline")
    wrong = [key for key in new if not any(part in key for part in starts_new)]
    if wrong:
        names = f"{', '.join(wrong[:5])} ({len(wrong)} in all)"
        raise TrainingError(f"{settings.model}: the checkpoint has no fitting {names}.")
    if new:
        logger.warning(f"Newly initialized, since {settings.model} has none that fits: {', '.join(new)}.")
    if settings.new_merger:
        if model.model.scene_merger is None:
            raise TrainingError("`new_merger`: with `frame_encoding: cooperative` there is no merger to begin anew.")
        model.model.scene_merger = type(model.model.scene_merger)(config).apply(model._init_weights)
    return model, load_processor(settings, config)


@contextlib.contextmanager
def _naming(setting: str) -> Iterator[None]:
    """What the libraries say of a value that cannot be becomes a [`TrainingError`] that names the setting."""
    try:
        yield
    except TrainingError:
        raise
    except (OSError, ImportError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise TrainingError(f"{setting}: {error}") from error


def add_adapters(model: FilaVideoForConditionalGeneration, lora: dict) -> torch.nn.Module:
    """
    Raises:
        TrainingError: If a name of `lora` is unknown, or peft is missing.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise TrainingError("`lora` needs the package peft: pip install 'fila-video[train]'.") from error
    for name in lora:
        known(name, [item.name for item in fields(LoraConfig)], "`lora`")
    return get_peft_model(model, LoraConfig(**lora))


def last_checkpoint(output: str | Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state is written last."""
    found = []
    for folder in Path(output).glob("checkpoint-*"):
        try:
            found.append((json.loads((folder / "trainer_state.json").read_text())["global_step"], str(folder)))
        except (OSError, ValueError, KeyError):
            logger.warning(f"{folder} is not whole and is passed over.")
    return max(found)[1] if found else None


def make_trainer(settings: Settings) -> FilaVideoTrainer:
    """Everything of a run, ready for `train()`."""
    arguments = training_arguments(settings)
    set_seed(arguments.seed)  # a newly initialized merger is the same in every process
    model, processor = load_model(settings)
    if settings.isolate_turns:
        if model.config.frame_encoding == "cooperative":
            raise TrainingError(
                "`isolate_turns` shares a video's tokens between questions, but with `frame_encoding: cooperative` "
                "they are one question's: set it to false."
            )
        isolate_turns(model.model.language_model)
    if settings.lora:
        model = add_adapters(model, settings.lora)
    freeze(model, settings.learning_rates, keep_frozen=bool(settings.lora))
    return FilaVideoTrainer(
        settings,
        model=model,
        args=arguments,
        train_dataset=make_data(settings, processor, arguments),
        data_collator=Collator(processor.tokenizer.pad_token_id, settings.isolate_turns),
        processing_class=processor,
    )


def make_data(settings: Settings, processor: FilaVideoProcessor, arguments: TrainingArguments) -> Mixture | Curriculum:
    """The run's mixture, or the phases' one after another, each with a seed of its own."""
    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    unseen_pairs = UnseenPairs(settings.unseen_pairs, processor.tokenizer) if settings.unseen_pairs else None
    mixtures = []
    for place, phase in enumerate(settings.phases or [Phase()]):
        own = seed + 1009 * place
        sampling = phase.sampling or settings.sampling
        encoder = SampleEncoder(processor, sampling, own, settings.isolate_turns, settings.answer_noise, unseen_pairs)
        sources = [
            source if source.questions or not phase.questions else replace(source, questions=phase.questions)
            for entry in phase.data or settings.data
            for source in each_configuration(entry)
        ]
        mixtures.append(Mixture([RecordSet(source) for source in sources], encoder, own, settings.unreadable))
    if not settings.phases:
        return mixtures[0]
    return Curriculum(mixtures, [phase.steps * batch for phase in settings.phases])


def values_of(settings: Settings) -> dict:
    """All that [`run_values`] says of a run of these settings, for which its model need not be loaded."""
    arguments, processor = training_arguments(settings), load_processor(settings, load_config(settings))
    return run_values(settings, DEFAULTS, arguments, make_data(settings, processor, arguments))


def train(settings: Settings) -> FilaVideoTrainer:
    """
    A whole run, from the last checkpoint if there is one, to the model in `settings.output`.

    Raises:
        TrainingError: If the settings, the model or the data do not fit, or are not those that the run was begun with;
            with `unreadable: fail`, at the first record that cannot be used.
    """
    trainer = make_trainer(settings)
    checkpoint = last_checkpoint(settings.output)
    values = run_values(settings, DEFAULTS, trainer.args, trainer.train_dataset)
    if checkpoint:
        check_goes_on(settings.output, values)
    else:
        check_is_new(settings.output)
    trainer.accelerator.wait_for_everyone()  # each process has compared before one writes
    if trainer.is_world_process_zero():
        if not checkpoint:  # a try that came to no checkpoint left notes of steps that are taken anew
            for notes in (Path(settings.output, LOG), *Path(settings.output).glob(f"{UNREADABLE}.*.jsonl")):
                if notes.exists():
                    notes.replace(f"{notes}.before")
                    logger.warning(f"{notes} is of a run without a checkpoint, and is now {notes.name}.before.")
        save_values(settings.output, values)
        if checkpoint:
            logger.warning(f"Going on from {checkpoint}.")
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except TrainingError as error:
        # Of a data loader's worker, its whole traceback is the message: what was meant stands at its end.
        mark = f"{TrainingError.__module__}.{TrainingError.__qualname__}: "
        raise TrainingError(str(error).rpartition(mark)[2].strip()) from error
    save(trainer)
    return trainer


def save(trainer: FilaVideoTrainer) -> None:
    """
    The trained model, its processor, tokenizer and code, and the trainer's state, into the folder of the run. Adapters
    are merged into the model, and lie in `adapter` by themselves; where FSDP holds the model in shards, they alone are
    saved.
    """
    output = Path(trainer.args.output_dir)
    if trainer.settings.lora:
        trainer.save_model(str(output / "adapter"))
        if trainer.is_world_process_zero() and not trainer.is_fsdp_enabled:
            trainer.accelerator.unwrap_model(trainer.model).merge_and_unload().save_pretrained(output)
            trainer.processing_class.save_pretrained(output)
    else:
        trainer.save_model()
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
    try:
        refused = unreadable_of(output) if trainer.is_world_process_zero() else []
    except ValueError as error:  # the model is trained and saved: what cannot be counted does not undo it
        logger.warning(f"The records that could not be used cannot be counted: {error}")
        refused = []
    if refused:
        logger.warning(f"{len(refused)} records could not be used; {output}/unreadable.*.jsonl names each of them.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", help="the YAML file of a stage")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as training.seed=1 or data.0.count=9")
    args = parser.parse_args(arguments)
    if int(os.environ.get("RANK", "0")) == 0:
        logging.set_verbosity_info()
    try:
        train(load_settings(args.settings, args.overrides))
    except TrainingError as error:
        logger.error(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
