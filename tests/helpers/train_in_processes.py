"""Run by `test_training_runs.py`, alone or under torchrun: trains by one file of settings after another.

Usage: `python train_in_processes.py [--kill-at STEP] [NAME=VALUE ...] SETTINGS.yaml [...]`; `NAME=VALUE` sets the
environment from there on. With `--kill-at`, the process kills itself as soon as that step is done.
"""

import os
import signal
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType
from fila_video.training import train as program
from fila_video.training.settings import load_settings
from transformers import TrainerCallback


class Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train_sharded(settings) -> None:
    """FSDP on processors: accelerate allows it on devices of other kinds only, though torch and gloo can do it."""
    arguments = program.training_arguments

    def as_on_devices(settings):
        made = arguments(settings)
        if made.device.type == "cpu":
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        return made

    program.training_arguments = as_on_devices
    trainer = program.train(settings)
    sharded = [p for p in trainer.model.parameters() if hasattr(p, "placements")]
    if not trainer.is_fsdp_enabled or not sharded:
        raise RuntimeError("The model was not cut up.")


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] == "--kill-at":
        trainer = program.make_trainer(load_settings(arguments[2]))
        trainer.add_callback(Kill(int(arguments[1])))
        trainer.train()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals:
            os.environ[name] = value
        elif "ACCELERATE_USE_FSDP" in os.environ:
            train_sharded(load_settings(argument))
        else:
            program.train(load_settings(argument))


if __name__ == "__main__":
    main()
