"""Run by `test_training_runs.py`, alone or under torchrun: trains by one file of settings after another.

Usage: `python train_in_processes.py [--kill-at STEP] [NAME=VALUE ...] SETTINGS.yaml [...]`; `NAME=VALUE` sets the
environment from there on. With `--kill-at`, the process kills itself as soon as that step is done.
"""

import os
import signal
import sys

from fila_video.training.settings import load_settings
from fila_video.training.train import make_trainer, train
from transformers import TrainerCallback


class Kill(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    arguments = sys.argv[1:]
    if arguments[0] == "--kill-at":
        trainer = make_trainer(load_settings(arguments[2]))
        trainer.add_callback(Kill(int(arguments[1])))
        trainer.train()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals:
            os.environ[name] = value
        else:
            train(load_settings(argument))


if __name__ == "__main__":
    main()
