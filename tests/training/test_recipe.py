"""The recipe of the default as a whole: a few films and steps of every part, stopped once, from nothing to answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor

TRAINING = Path(__file__).resolve().parent.parent.parent / "training"
PARTS = {"initial", "long", "losses", "seeing", "stage1_align", "stage2_knowledge", "stage3_image", "stage4_video"}
COMMAND = """#!{python}
import sys
from fila_video.commands.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def start(folder: Path, seed: int = 42) -> subprocess.Popen:
    """The script with this Python's package, in a session of its own."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "fila-video").write_text(COMMAND.format(python=sys.executable))
    (programs / "fila-video").chmod(0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    environment = {**os.environ, "SMOKE": "1", "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen(
            ["bash", str(TRAINING / "tiny" / "run.sh"), str(folder / "work"), str(seed)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(folder: Path) -> None:
    process = start(folder)
    assert process.wait(timeout=1500) == 0, (folder / "output.txt").read_text()[-3000:]


@pytest.mark.slow
def test_the_recipe_makes_a_checkpoint_from_nothing_and_goes_on_after_a_kill(tmp_path) -> None:
    work = tmp_path / "work"
    process = start(tmp_path)
    while not (work / "done" / "stage1_align").exists():  # killed while a stage runs or begins
        assert process.poll() is None, (tmp_path / "output.txt").read_text()[-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {
        path: path.stat().st_mtime_ns for path in [*work.rglob("*.jsonl"), *(work / "stage1").glob("*.safetensors")]
    }
    finish(tmp_path)
    assert {path.name for path in (work / "done").iterdir()} == PARTS
    begun = {"stage2", "stage3", "stage4"}
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if not begun & {*path.parts})
    phases = [json.loads(line).get("phase") for line in (work / "stage4" / "log.jsonl").read_text().splitlines()]
    last = len(yaml.safe_load((TRAINING / "tiny" / "stage4_video.yaml").read_text())["phases"]) - 1
    assert [phase for phase in phases if phase is not None] == [*range(last + 1), last]  # two steps of the last one
    assert (work / "losses.png").stat().st_size > 1000

    model = FilaVideoForConditionalGeneration.from_pretrained(work / "stage4")
    pipe = VideoTextToTextPipeline(model=model, processor=FilaVideoProcessor.from_pretrained(work / "stage4"))
    film = str(work / "world" / "videos" / "train_few_000000.mp4")
    answer = pipe(film, text="What shape is the red object?", max_new_tokens=4, return_full_text=False)
    assert isinstance(answer[0]["generated_text"], str)

    other = start(tmp_path, seed=43)
    assert other.wait(timeout=60) == 2
    assert "was begun with seed 42, SMOKE=1: name another folder" in (tmp_path / "output.txt").read_text()

    done = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    finish(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == done
