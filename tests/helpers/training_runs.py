"""A tiny repository and tiny sets to train on, made once for all tests, and runs of the trainer on them."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.Image
import yaml
from fila_video.training.settings import load_settings
from fila_video.training.train import train

from helpers.tiny_processor import model_for, tiny_processor
from helpers.video_files import make_video, picture

ALL_RATES = {"vision_tower": 1e-3, "multi_modal_projector": 1e-3, "language_model": 1e-3, "scene_merger": 1e-3}
NUM_VIDEOS, NUM_IMAGES = 6, 4


def turns(*questions_and_answers: str, medium: str = "<image>\n") -> list[dict]:
    """LLaVA's form: the medium stands before the first question."""
    texts = [medium + questions_and_answers[0], *questions_and_answers[1:]]
    return [{"from": "gpt" if number % 2 else "human", "value": text} for number, text in enumerate(texts)]


def video_record(number: int, **changes) -> dict:
    asked = ("What is it?", f"Number {number}.", "How many are there?", "Only one.", "Is it red?", "No, it is gray.")
    return {"id": f"v{number}", "video": f"videos/{number}.mp4", "conversations": turns(*asked), **changes}


def image_record(number: int, **changes) -> dict:
    record = {"id": f"i{number}", "image": f"{number}.png", "conversations": turns("What?", f"Picture {number}.")}
    return {**record, **changes}


@functools.cache
def world() -> Path:
    """A folder with `model`, `videos.jsonl`, `images.json`, `words.jsonl` and their media."""
    folder = Path(tempfile.mkdtemp(prefix="training-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    processor = tiny_processor()
    model_for(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "videos").mkdir()
    for number in range(NUM_VIDEOS):
        draw = lambda frame, width, height, first=40 * number: picture(first + frame, width, height)  # noqa: E731
        make_video(folder / "videos" / f"{number}.mp4", 26 + number, fps=10, draw=draw)
    for number in range(NUM_IMAGES):
        PIL.Image.fromarray(picture(number)).save(folder / f"{number}.png")
    write_lines(folder / "videos.jsonl", [video_record(number) for number in range(NUM_VIDEOS)])
    (folder / "images.json").write_text(json.dumps([image_record(number) for number in range(NUM_IMAGES)]))
    write_lines(folder / "words.jsonl", [{"id": "w", "conversations": turns("Hello?", "Hello.", medium="")}])
    return folder


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def settings_file(output: Path, training: dict | None = None, **changes) -> Path:
    """The YAML of a run of four samples a step over videos and images, beside `output`."""
    values = {
        "model": str(world() / "model"),
        "output": str(output),
        "learning_rates": ALL_RATES,
        "batch_size": 4,
        "data": [{"path": str(world() / "videos.jsonl"), "weight": 4}, {"path": str(world() / "images.json")}],
        "sampling": {"num_scenes": 2},
        "training": {
            "per_device_train_batch_size": 2,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "seed": 1,
            **(training or {}),
        },
        **changes,
    }
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    return path


def run(output: Path, training: dict | None = None, **changes):
    """Trains, and returns the trainer."""
    return train(load_settings(settings_file(output, training, **changes)))


def losses(output: Path) -> dict[int, float]:
    """The loss of each step, from the run's log; of a step that was repeated, the later one."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def in_processes(*arguments: object, processes: int = 0) -> subprocess.CompletedProcess:
    program = [sys.executable]
    if processes:
        program += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    program += [str(Path(__file__).with_name("train_in_processes.py")), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(program, capture_output=True, text=True, timeout=500, env=environment)
