"""A model and its processor by name, for the command line and the evaluation."""

import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from .. import register
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..pipeline_fila_video import VideoTextToTextPipeline
from ..processing_fila_video import FilaVideoProcessor
from .cli import DTYPES

DEFAULT_MODEL = Path(__file__).resolve().parent.parent


def load_model(
    model: str | Path | None = None, device: str | None = None, dtype: str | None = None
) -> tuple[FilaVideoForConditionalGeneration, FilaVideoProcessor]:
    """
    A model on its device, ready to answer, and its processor. Both are built by this package: code that lies in the
    model's repository is never run. A checkpoint of another project is converted on first use.

    Args:
        model (`str` or `Path`, *optional*): Folder or Hub name; by default the embedded demonstration.
        device (`str`, *optional*): Such as `"cuda"` or `"cpu"`; by default the best there is.
        dtype (`str`, *optional*):
            One of `DTYPES`, of the weights. By default `"float32"` on the CPU, since many CPUs compute in two bytes
            several times more slowly, and elsewhere that of the checkpoint.

    Raises:
        ValueError: If there is no such model, it is of another type or broken, or the device cannot be used.
    """
    register()  # the auto classes that build a processor's parts must know this package's
    name = str(DEFAULT_MODEL if model is None else model)
    place = find_device(device)
    if dtype not in (None, *DTYPES):
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    dtype = dtype or ("float32" if place.type == "cpu" else "auto")
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"There is no model in the folder {name}: it has no config.json. Name a model's folder or Hub name."
        )
    try:
        model_type = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
    except Exception as error:  # a broken file raises whatever its reader does
        raise ValueError(f"There is no model {name}, or its config.json is broken: {_first_line(error)}") from error
    if model_type != "fila_video":
        from ..conversion.cached import convert_once

        name = str(convert_once(name, progress=sys.stderr.isatty()))
    try:
        loaded, report = FilaVideoForConditionalGeneration.from_pretrained(name, dtype=dtype, output_loading_info=True)
        if missing := sorted(report["missing_keys"]):
            # transformers would fill them with random numbers, and the answers would look like answers.
            raise ValueError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
        processor = FilaVideoProcessor.from_pretrained(name)
    except Exception as error:
        raise ValueError(f"The model {name} cannot be loaded: {_first_line(error)}") from error
    return loaded.to(place).eval(), processor


def load_pipeline(
    model: str | Path | None = None, device: str | None = None, dtype: str | None = None
) -> VideoTextToTextPipeline:
    """A pipeline with what [`load_model`] gives."""
    loaded, processor = load_model(model, device, dtype)
    return VideoTextToTextPipeline(model=loaded, processor=processor, device=loaded.device)


def quiet() -> None:
    """Of the libraries, a command shows errors only."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def find_device(name: str | None) -> torch.device:
    """
    The device of that name, or the best there is.

    Raises:
        ValueError: If it cannot be used here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(f"--device {name} cannot be used: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


class Progress:
    """Shows a bar on the terminal for each stage that takes longer than two seconds."""

    def __init__(self) -> None:
        self.stage = self.bar = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            what = "chapters" if stage == "describing" else "frames"
            # `disable=None`: none where the messages do not go to a terminal.
            self.bar = tqdm(desc=f"{stage} {what}".capitalize(), total=total, delay=2, leave=False, disable=None)
            self.stage = stage
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
            self.stage = None


__all__ = ["DEFAULT_MODEL", "Progress", "find_device", "load_model", "load_pipeline", "quiet"]
