"""Stage 4 and adapters start from every base that can be converted."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fila_video import FilaVideoForConditionalGeneration, FilaVideoProcessor
from fila_video.conversion.convert import convert
from fila_video.training.settings import TrainingError
from helpers.tiny_bases import Base, internvl, llava_next_video, smolvlm
from helpers.training_runs import (
    image_record,
    in_processes,
    losses,
    run,
    settings_file,
    video_record,
    world,
    write_lines,
)
from safetensors.torch import load_file

each_base = pytest.mark.parametrize(
    "make", [smolvlm, internvl, llava_next_video], ids=["smolvlm", "internvl", "llava-next-video"]
)


def start(make: Callable[[], Base], tmp_path: Path) -> str:
    source = make().save(tmp_path / "source")
    return str(convert(source, tmp_path / "start", dtype="float32", progress=False))


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


@each_base
def test_stage_4_moves_every_part_and_leaves_a_model_that_loads(make, tmp_path) -> None:
    model = start(make, tmp_path)
    run(tmp_path / "out", {"max_steps": 3}, model=model)
    assert len(losses(tmp_path / "out")) == 3 and all(map(math.isfinite, losses(tmp_path / "out").values()))
    before, after = weights(model), weights(tmp_path / "out")
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert {"vision_tower", "scene_merger", "multi_modal_projector", "language_model"} <= moved
    marks = [FilaVideoProcessor.from_pretrained(folder).time_marks for folder in (model, tmp_path / "out")]
    assert marks[0] == marks[1]
    FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "out")


@each_base
def test_adapters_on_the_usual_modules_train(make, tmp_path) -> None:
    model = start(make, tmp_path)
    lora = {"r": 4, "target_modules": r".*language_model.*\.(q|v)_proj", "modules_to_save": ["scene_merger"]}
    rates = {"language_model": 1e-2, "scene_merger": 1e-3}
    run(tmp_path / "out", {"max_steps": 2}, model=model, lora=lora, learning_rates=rates)
    before, after = weights(model), weights(tmp_path / "out")
    changed = {name.rsplit(".", 2)[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "v_proj", "scene_merger"}


def test_compression_tuning_starts_from_smolvlm2(tmp_path) -> None:
    model = start(smolvlm, tmp_path)
    config = {"layer_compression": "cosine", "layer_compression_group": 3}
    run(tmp_path / "out", {"max_steps": 2}, model=model, config=config)
    assert all(map(math.isfinite, losses(tmp_path / "out").values()))


def test_a_template_that_marks_no_answers_is_refused(tmp_path) -> None:
    def unmarked() -> Base:
        base = llava_next_video()
        for tag in ("{% generation %}", "{% endgeneration %}"):
            base.processor.chat_template = base.processor.chat_template.replace(tag, "")
        return base

    model = start(unmarked, tmp_path)
    with pytest.raises(TrainingError, match=r"marks no answers of the assistant.*\{% generation %\}"):
        run(tmp_path / "out", {"max_steps": 1}, model=model)


@pytest.mark.slow
def test_two_processes_train_each_base_as_one(tmp_path) -> None:
    mixed = [video_record(0), image_record(0), video_record(1), image_record(1)]
    write_lines(tmp_path / "mixed.jsonl", mixed)
    data = [{"path": str(tmp_path / "mixed.jsonl"), "media": str(world()), "weight": 2}]
    training = {"max_steps": 2, "per_device_train_batch_size": 1}
    changes = {}
    for make in (smolvlm, internvl, llava_next_video):
        model = start(make, tmp_path / make.__name__)
        changes[make.__name__] = {"training": training, "data": data, "batch_size": 2, "model": model}
    files = [settings_file(tmp_path / f"{name}-two", **settings) for name, settings in changes.items()]
    result = in_processes(*files, processes=2)
    assert result.returncode == 0, result.stderr[-4000:]
    for name, settings in changes.items():
        run(tmp_path / f"{name}-one", **settings)
        assert losses(tmp_path / f"{name}-two") == pytest.approx(losses(tmp_path / f"{name}-one"), abs=2e-5), name
