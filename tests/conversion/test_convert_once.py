"""A source checkpoint is a model: it is converted at the first call and found at the next."""

import os
import subprocess
import sys

import pytest
from fila_video.conversion.cached import convert_once, list_converted
from fila_video.conversion.cached import run as run_converted
from helpers.tiny_checkpoints import save_llava_hf, tiny_onevision
from huggingface_hub import constants


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return save_llava_hf(tmp_path / "source", tiny_onevision())


def test_the_second_call_finds_what_the_first_made_and_a_change_makes_another(source):
    first = convert_once(source, progress=False)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert convert_once(source, progress=False) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert convert_once(source, progress=False, as_source=True) != first
    os.utime(source / "config.json", ns=(1, 1))
    assert convert_once(source, progress=False) != first
    assert len(list_converted()) == 3 and all(entry["complete"] for entry in list_converted())


def test_what_was_converted_is_listed_and_removed(source, capsys):
    converted = convert_once(source, progress=False)
    key = converted.parent.name

    class Args:
        remove = None

    assert run_converted(Args()) == 0 and key in capsys.readouterr().out
    Args.remove = ["nobody/knows"]
    assert run_converted(Args()) == 2
    Args.remove = [key]
    assert run_converted(Args()) == 0 and not converted.exists() and list_converted() == []


def test_a_relative_is_refused_and_leaves_nothing(source, tmp_path):
    (source / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ValueError, match="is Qwen2-VL"):
        convert_once(source, progress=False)
    assert not (tmp_path / "assets").exists()


def test_a_hub_name_is_converted_offline_from_the_cache_by_its_commit(source, tmp_path):
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
