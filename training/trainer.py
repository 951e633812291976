"""`transformers.Trainer` with the mixture's order, a rate a part, a log, and a note of what could not be read."""

import bisect
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.utils import ModelOutput

from ..long_video.json_records import append_lines, read_own_lines
from .data import SortedSteps
from .optimizers import make_optimizer
from .samples import IGNORED
from .settings import Settings

LOG = "log.jsonl"
UNREADABLE = "unreadable"


class FilaVideoTrainer(Trainer):
    """
    Args:
        settings (`Settings`):
            The settings of the run.
        **kwargs: of `transformers.Trainer`; `train_dataset` is a [`Mixture`] or [`Curriculum`].
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        self.settings = settings
        config = kwargs["model"].config.to_dict()
        super().__init__(**kwargs, compute_loss_func=_loss_without if settings.unseen_pairs else None)
        if "use_cache" not in config:  # Trainer sets it for its own runs, but it would be saved
            del self.model.config.use_cache
        self.add_callback(_Log(self))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        data = self.train_dataset if train_dataset is None else train_dataset
        step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return SortedSteps(data.sampler, step, data.num_scenes)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(
                self.model if model is None else model,
                self.settings.optimizer,
                self.settings.learning_rates,
                self.args.weight_decay,
                self.settings.optimizer_settings,
            )
        return self.optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple:
        # The head works on what is learned alone: the rest is most of the tokens, each with the whole vocabulary.
        targets = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
        learned = targets != IGNORED
        inputs = {**inputs, "logits_to_keep": learned, "use_cache": False}
        if "left_out" in inputs:
            row, position, token = inputs.pop("left_out").unbind(1)
            order = learned.flatten().cumsum(0).view_as(learned) - 1
            inputs["labels"] = targets[learned], order[row, position - 1], token
        else:
            inputs["shift_labels"] = targets[learned]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def rates(self) -> dict[str, float]:
        """The learning rate of each part as it is now."""
        return {group["part"]: group["lr"] for group in self.optimizer.param_groups}

    def phase(self) -> int | None:
        """Which of the run's phases the last step was of, from 0."""
        ends = list(itertools.accumulate(phase.steps for phase in self.settings.phases))
        return min(bisect.bisect_left(ends, self.state.global_step), len(ends) - 1) if ends else None

    def _prepare_inputs(self, inputs: dict) -> dict:
        refused = inputs.pop("unreadable", None)
        if refused:
            self._note(refused)
        return super()._prepare_inputs(inputs)

    def _note(self, refused: list[dict]) -> None:
        # When a batch is used, not when a worker reads it ahead: a run that goes on counts nothing twice but the steps
        # that it repeats, and those by their number.
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        step = {"step": self.state.global_step}
        append_lines(folder / f"{UNREADABLE}.{self.args.process_index}.jsonl", [step | item for item in refused])


def _loss_without(
    outputs: ModelOutput,
    labels: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The loss of `(num_true,)` targets, where at so many places a token is no choice."""
    targets, places, tokens = labels
    logits = outputs.logits.float().index_put((places, tokens), torch.tensor(-torch.inf, device=targets.device))
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return loss / (len(targets) if num_items_in_batch is None else num_items_in_batch)


class _Log(TrainerCallback):
    """Writes `log.jsonl`: a line each time the trainer logs."""

    def __init__(self, trainer: FilaVideoTrainer) -> None:
        self.trainer, self.start = trainer, None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.start = time.monotonic()
        state.compute_steps(args, state.max_steps)  # of a run that goes on, the trainer takes its checkpoint's

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or self.start is None:
            return
        line = {"step": state.global_step, **(logs or {}), "seconds": round(time.monotonic() - self.start, 2)}
        if "learning_rate" in line:
            line["learning_rate"] = self.trainer.rates()
            line |= {} if self.trainer.phase() is None else {"phase": self.trainer.phase()}
        append_lines(Path(args.output_dir) / LOG, [line])


def unreadable_of(folder: str | Path) -> list[dict]:
    """
    What was left out in a run, over all processes, each record once.

    Raises:
        ValueError: If a line, other than a torn last one, is not valid JSON; with its file and number.
    """
    seen = {}
    for path in sorted(Path(folder).glob(f"{UNREADABLE}.*.jsonl")):
        for item in read_own_lines(path, may_be_torn=True):
            seen.setdefault((item["set"], item["record"]), item)
    return list(seen.values())


__all__ = ["FilaVideoTrainer", "unreadable_of"]
