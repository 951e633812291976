"""A source checkpoint is a model: it is converted at the first call and found at the next."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fila_video
import pytest
import torch
from fila_video.commands.cli import main as command_line
from fila_video.conversion.cached import convert_once, list_converted
from filelock import FileLock
from helpers.tiny_checkpoints import (
    TinyParts,
    llava_next_tensors,
    save_llava_hf,
    save_llava_next,
    save_tensors,
    tiny_onevision,
)
from helpers.video_files import make_video
from huggingface_hub import constants
from safetensors.torch import load_file


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return save_llava_hf(tmp_path / "source", tiny_onevision())


def test_the_second_call_finds_what_the_first_made_and_a_change_makes_another(source) -> None:
    first = convert_once(source, progress=False)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert convert_once(source, progress=False) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert convert_once(source, progress=False, as_source=True) != first
    os.utime(source / "config.json", ns=(1, 1))
    assert convert_once(source, progress=False) != first
    assert len(list_converted()) == 3 and all(entry["complete"] for entry in list_converted())


def test_what_was_converted_is_listed_and_removed(source, tmp_path, capsys, monkeypatch) -> None:
    converted = convert_once(source, progress=False)
    other = convert_once(source, progress=False, as_source=True)
    key = converted.parent.name

    assert command_line(["converted"]) == 0
    first, second = sorted(capsys.readouterr().out.splitlines(), key=lambda line: key not in line)
    assert key in first and str(source) in first and second.endswith("as_source=True")
    assert command_line(["converted", "--remove", "nobody/knows"]) == 2
    assert "nothing of the name nobody/knows" in capsys.readouterr().err
    assert command_line(["converted", "--remove", key]) == 0
    assert not converted.parent.exists() and other.exists() and len(list_converted()) == 1
    assert command_line(["converted", "--remove", other.parent.name, "nobody/knows"]) == 2 and other.exists()
    capsys.readouterr()
    monkeypatch.chdir(source.parent)
    assert command_line(["converted", "--remove", f"./{source.name}", str(source)]) == 0
    assert capsys.readouterr().out.count("removed") == 1
    assert command_line(["converted"]) == 0
    assert "nothing was converted yet" in capsys.readouterr().err
    assert list_converted() == [] and not list((tmp_path / "assets").rglob("*/*"))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_record_that_was_half_written_hides_no_other_and_can_be_removed(source, capsys, text) -> None:
    converted, other = convert_once(source, progress=False), convert_once(source, progress=False, as_source=True)
    (converted.parent / "source.json").write_text(text)
    assert command_line(["converted"]) == 0
    broken, whole = sorted(capsys.readouterr().out.splitlines(), key=lambda line: "as_source=True" in line)
    assert broken.startswith(converted.parent.name) and broken.endswith("source  incomplete")
    assert whole.startswith(other.parent.name) and str(source) in whole
    assert command_line(["converted", "--remove", converted.parent.name]) == 0
    assert not converted.parent.exists() and [entry["path"] for entry in list_converted()] == [other]


def test_what_is_being_converted_is_not_removed(source, capsys) -> None:
    converted = convert_once(source, progress=False)
    with FileLock(converted.parent / "lock"):
        assert command_line(["converted", "--remove", str(source)]) == 2
    assert "is being converted by another process" in capsys.readouterr().err
    assert converted.exists()


def test_another_vision_tower_makes_another_model(source, tmp_path, monkeypatch) -> None:
    parts = TinyParts()
    tensors = {name: value for name, value in llava_next_tensors(parts).items() if "vision_tower" not in name}
    folder = save_llava_next(tmp_path / "parts" / "source", parts, tensors)
    places = [tmp_path / "parts", tmp_path / "others"]
    shutil.copytree(places[0] / "tower", places[1] / "tower")

    def save(place: Path, added: float) -> None:
        weights = {name: value + added for name, value in parts.vision.state_dict().items()}
        save_tensors(place / "tower", weights)

    def converted(place: Path) -> torch.Tensor:
        monkeypatch.chdir(place)
        made = convert_once(folder, vision_tower="tower", dtype="float32", progress=False)
        assert made == convert_once(folder, vision_tower=place / "tower", dtype="float32", progress=False)
        return load_file(made / "model.safetensors")["model.vision_tower.embeddings.patch_embedding.bias"]

    save(places[0], 0)
    save(places[1], 1)
    first, other = converted(places[0]), converted(places[1])
    save(places[0], 2)
    changed = converted(places[0])
    torch.testing.assert_close(other, first + 1)
    torch.testing.assert_close(changed, first + 2)


def test_a_progress_bar_makes_no_other_model(source) -> None:
    assert convert_once(source, progress=True) == convert_once(source, progress=False)


@pytest.mark.parametrize("setting", [{"push_to_hub": "me/x"}, {"overwrite": True}])
def test_what_only_a_conversion_of_its_own_does_is_refused(source, tmp_path, setting) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=f"`{next(iter(setting))}` has no effect .*: use `convert`"):
            convert_once(source, progress=False, **setting)
    assert not (tmp_path / "assets").exists()
    assert convert_once(source, progress=False, overwrite=False) == convert_once(source, progress=False)


def files_of(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.slow
def test_a_source_checkpoint_answers_at_the_command_line_and_is_converted_once(source, tmp_path) -> None:
    video = make_video(tmp_path / "video.mp4", 60)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_ASSETS_CACHE": str(tmp_path / "assets")}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "fila_video.commands.cli", *arguments, "--model", str(source)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    question = ["answer", str(video), "What happens?", "--num-scenes", "4", "--max-new-tokens", "5"]
    first = run(*question)
    assert "is converted once" in first.stderr and first.stdout.strip()
    before = files_of(tmp_path / "assets")
    second = run(*question)
    assert second.stdout == first.stdout and "is converted once" not in second.stderr
    scenes = json.loads(run("scenes", str(video), "--num-scenes", "4", "--json").stdout)
    assert (scenes["num_scenes"], scenes["scene_size"]) == (4, 3)
    assert files_of(tmp_path / "assets") == before
    assert len(list_converted()) == 1


def test_a_model_is_loaded_by_the_name_of_a_source_checkpoint(source, tmp_path) -> None:
    model, processor = fila_video.load_model(source, "cpu")
    assert isinstance(model, fila_video.FilaVideoForConditionalGeneration) and not model.training
    assert isinstance(processor, fila_video.FilaVideoProcessor) and processor.scene_size == model.config.scene_size
    before = files_of(tmp_path / "assets")
    again = fila_video.load_model(convert_once(source))[0]
    assert torch.equal(again.lm_head.weight, model.lm_head.weight) and files_of(tmp_path / "assets") == before
    with pytest.raises(ValueError, match=r"There is no model .*nowhere"):
        fila_video.load_model(tmp_path / "nowhere")


def test_weights_of_two_bytes_are_float32_on_the_cpu_unless_another_type_is_named(source) -> None:
    assert fila_video.load_model(source, "cpu")[0].dtype == torch.float32
    assert fila_video.load_model(source, "cpu", "auto")[0].dtype == torch.bfloat16
    assert fila_video.load_model(source, "cpu", dtype="float16")[0].dtype == torch.float16
    with pytest.raises(ValueError, match="`dtype` must be one of auto, float32, bfloat16, float16, got 'int8'"):
        fila_video.load_model(source, "cpu", "int8")


def refusal_of(model: Path, video: Path, capsys: pytest.CaptureFixture) -> str:
    """The one line of `fila-video answer` about a source that cannot be its model."""
    assert command_line(["answer", str(video), "What?", "--model", str(model)]) == 2
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("\n") == 1
    return written.err


def test_answer_says_how_to_convert_a_source_whose_vision_tower_must_be_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    video = make_video(tmp_path / "video.mp4", 10)
    folder = save_llava_next(tmp_path / "source", TinyParts())
    message = refusal_of(folder, video, capsys)
    assert "is not SigLIP so400m/14-384" in message and "fila-video convert SOURCE OUTPUT --vision-tower" in message
    assert not any(entry["complete"] for entry in list_converted())

    # What the message says to do works.
    output = tmp_path / "output"
    assert command_line(["convert", str(folder), str(output), "--vision-tower", str(tmp_path / "tower")]) == 0
    capsys.readouterr()
    answer = ["answer", str(video), "What?", "--model", str(output), "--num-scenes", "4", "--max-new-tokens", "3"]
    assert command_line(answer) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("model_type", ["llava_next", "video_llava", "llava", "qwen2_vl"])
def test_answer_refuses_relatives_by_name(tmp_path, monkeypatch, capsys, model_type) -> None:
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    video = make_video(tmp_path / "video.mp4", 10)
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    message = refusal_of(folder, video, capsys)
    assert f"`model_type` '{model_type}'" in message and "cannot be converted" in message
    assert list_converted() == []


KILLED = """
import sys, time
from pathlib import Path
from fila_video.conversion import convert as converting
from fila_video.conversion.cached import convert_once

written = converting.write_shards


def write_and_wait(folder, *arguments):
    written(folder, *arguments)
    (folder / "model.safetensors").write_bytes(b"half")
    Path(sys.argv[2]).touch()
    time.sleep(300)


converting.write_shards = write_and_wait
convert_once(sys.argv[1], progress=False)
"""


def test_a_conversion_that_is_killed_leaves_nothing_half_and_the_next_call_makes_it_whole(
    source, tmp_path, capsys
) -> None:
    environment = os.environ | {"HF_ASSETS_CACHE": str(tmp_path / "assets")}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(tmp_path / "reached")], env=environment)
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "reached").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "reached").exists()
    finally:
        process.kill()
        process.wait(timeout=60)

    (entry,) = list_converted()
    assert not entry["complete"] and not entry["path"].exists()
    assert command_line(["converted"]) == 0 and "incomplete" in capsys.readouterr().out
    model = fila_video.load_model(source, "cpu")[0]
    assert model.config.model_type == "fila_video"
    (entry,) = list_converted()
    assert entry["complete"]
    assert {path.name for path in entry["path"].parent.iterdir()} == {"lock", "repository", "source.json"}


def test_a_relative_is_refused_and_leaves_nothing(source, tmp_path) -> None:
    (source / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ValueError, match="is Qwen2-VL"):
        convert_once(source, progress=False)
    assert not (tmp_path / "assets").exists()


@pytest.mark.slow
def test_a_hub_name_is_converted_offline_from_the_cache_by_its_commit(source, tmp_path) -> None:
    commit = "c" * 40
    repository = tmp_path / "hub" / "models--llava-hf--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    source.rename(repository / "snapshots" / commit)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    environment["HF_ASSETS_CACHE"] = str(tmp_path / "assets")
    code = "from fila_video.conversion.cached import convert_once as c; print(c('llava-hf/tiny', progress=False))"
    command = [sys.executable, "-c", code]
    # Two at once: one converts, the other waits for it.
    both = [subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and outputs[0] == outputs[1]
    entries = list_converted()
    assert len(entries) == 1 and (entries[0]["source"], entries[0]["state"]) == ("llava-hf/tiny", commit)
    assert entries[0]["complete"]
