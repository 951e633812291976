"""The command line as a user meets it."""

import shutil
from pathlib import Path

import pytest
from fila_video.commands.cli import DEMONSTRATION, main
from fila_video.training.tiny.make_initial_checkpoint import FILES

ROOT = Path(__file__).parent.parent.parent


SAMPLE = ROOT / "examples" / "sample.mp4"


def copy_of_the_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in FILES or path.name.endswith("_fila_video.py"):
            shutil.copy(path, folder)
    return folder


def refusal(capsys: pytest.CaptureFixture, *argv: str) -> str:
    """The one line that `argv` gets on standard error, besides what is said of the demonstration."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    err = err.removeprefix(DEMONSTRATION + "\n")
    assert err.startswith("fila-video: ") and err.count("\n") == 1
    return err
