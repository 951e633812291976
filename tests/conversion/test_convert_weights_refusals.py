"""What cannot be converted is said in full, and nothing half done is ever left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Never

import fila_video.conversion.convert as converting
import pytest
import torch
from fila_video.conversion.convert import convert
from fila_video.conversion.files import read_checkpoint, write_shards
from fila_video.convert_weights import main
from helpers.tiny_checkpoints import (
    TinyParts,
    llava_hf_tensors,
    llava_next_tensors,
    save_llava_hf,
    save_llava_next,
    tiny_onevision,
)
from safetensors.torch import load_file, save_file


@pytest.fixture
def source(tmp_path) -> Path:
    return save_llava_hf(tmp_path / "source", tiny_onevision())


def only_the_source_is_left(tmp_path: Path) -> bool:
    return {path.name for path in tmp_path.iterdir()} <= {"source", "tower"}


def test_every_tensor_that_does_not_fit_is_listed_and_nothing_is_written(tmp_path) -> None:
    parts = TinyParts()
    tensors = llava_next_tensors(parts)
    for missing in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        del tensors[missing]
    tensors["model.surprise.weight"] = torch.zeros(2)
    tensors["model.vision_resampler.query"] = torch.zeros(3)
    tensors["model.mm_projector.0.weight"] = torch.zeros(32, 17)
    tensors["lm_head.weight"] = torch.zeros(260, 32)
    folder = save_llava_next(tmp_path / "source", parts, tensors)
    with pytest.raises(ValueError) as error:
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert str(error.value).splitlines() == [
        "The checkpoint does not fit its configuration in 6 tensors; nothing was written.",
        "missing: model.language_model.layers.1.mlp.up_proj.weight",
        "missing: model.language_model.norm.weight",
        *sorted(
            [
                "unexpected: model.surprise.weight",
                "unexpected: model.vision_resampler.query",
                "wrong shape: model.mm_projector.0.weight is [32, 17], but must be [32, 16]",
                "wrong shape: lm_head.weight is [260, 32], but must be [264, 32]",
            ],
            key=str(error.value).index,
        ),
    ]
    assert only_the_source_is_left(tmp_path)


def test_a_llava_hf_checkpoint_without_its_newline_is_missing_it(tmp_path) -> None:
    model = tiny_onevision()
    tensors = llava_hf_tensors(model, 4)
    del tensors["image_newline"]
    folder = save_llava_hf(tmp_path / "source", model, tensors=tensors)
    with pytest.raises(ValueError, match=r"missing: model\.image_newline"):
        convert(folder, tmp_path / "out", progress=False)


def test_a_layout_nobody_knows_is_refused_with_its_type(tmp_path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    save_file({"transformer.h.0.weight": torch.zeros(1), "wte.weight": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"is of `model_type` 'gpt2', which cannot be converted"):
        convert(folder, tmp_path / "out", progress=False)


def test_a_converted_checkpoint_is_not_converted_again(tmp_path, source) -> None:
    converted = convert(source, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="FiLA-Video checkpoint already"):
        convert(converted, tmp_path / "again", progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mm_projector_type": "linear"}, "`mm_projector_type` is 'linear'.*only 'mlp2x_gelu'"),
        ({"mm_resampler_type": "spatial_pool"}, "`mm_resampler_type` is 'spatial_pool'"),
        ({"mm_newline_position": "diagonal"}, "only 'one_token', 'grid', 'frame', 'no_token'"),
        ({"mm_spatial_pool_mode": "cubic"}, "only 'bilinear', 'average', 'max'"),
    ],
)
def test_a_way_to_work_that_fila_video_has_not_is_refused(tmp_path, settings, message) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts(), **settings)
    with pytest.raises(ValueError, match=message):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert only_the_source_is_left(tmp_path)


def test_a_vision_tower_that_is_not_so400m_needs_its_configuration(tmp_path) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    with pytest.raises(ValueError, match=r"is not SigLIP so400m/14-384: say with `--vision-tower`"):
        convert(folder, tmp_path / "out", progress=False)


def test_a_head_that_is_not_the_embedding_it_is_tied_to_is_refused(tmp_path) -> None:
    parts = TinyParts(tie=True)
    tensors = llava_next_tensors(parts)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    folder = save_llava_next(tmp_path / "source", parts, tensors)
    with pytest.raises(ValueError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)


def test_values_beyond_float16_are_refused_and_leave_nothing(tmp_path) -> None:
    model = tiny_onevision()
    model.lm_head.weight.data[0, 0] = 1e6
    folder = save_llava_hf(tmp_path / "source", model)
    with pytest.raises(ValueError, match=r"lm_head.weight' has values that torch.float16 cannot hold"):
        convert(folder, tmp_path / "out", dtype="float16", progress=False)
    assert only_the_source_is_left(tmp_path)


def test_a_missing_shard_is_named(tmp_path, source) -> None:
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names shards that are not there: model-00002-of-00002.safetensors"):
        convert(source, tmp_path / "out", progress=False)


def test_a_shard_that_was_cut_off_is_named(tmp_path, source) -> None:
    shard = source / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors is no whole safetensors file"):
        convert(source, tmp_path / "out", progress=False)
    assert only_the_source_is_left(tmp_path)


def test_an_index_that_promises_more_than_the_shards_hold_is_refused(source) -> None:
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["language_model.model.more.weight"] = "model-00001-of-00002.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"1 tensors that the shards do not hold: language_model.model.more.weight"):
        read_checkpoint(source)


def test_a_tensor_in_two_layouts_is_refused(tmp_path) -> None:
    model = tiny_onevision()
    tensors = llava_hf_tensors(model, 4) | {"model.image_newline": torch.zeros(32)}
    folder = save_llava_hf(tmp_path / "source", model, tensors=tensors)
    with pytest.raises(ValueError, match="are the same tensor in two layouts"):
        convert(folder, tmp_path / "out", progress=False)


def test_a_damaged_configuration_is_named(tmp_path, source) -> None:
    (source / "config.json").write_text('{"model_type": "llava_one')
    with pytest.raises(ValueError, match=r"config\.json is no whole JSON file"):
        convert(source, tmp_path / "out", progress=False)


def test_a_tensor_in_two_files_is_refused(source) -> None:
    (source / "model.safetensors.index.json").unlink()
    save_file({"image_newline": torch.zeros(32)}, source / "copy.safetensors")
    with pytest.raises(ValueError, match=r"'image_newline' is in .* and in .*copy\.safetensors"):
        read_checkpoint(source)


def test_a_pickle_that_is_more_than_weights_is_refused(tmp_path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"model.mm_projector.0.weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="read only with `--allow-bin`"):
        read_checkpoint(folder)
    with pytest.raises(ValueError, match=r"pytorch_model.bin cannot be read as a file of weights alone"):
        read_checkpoint(folder, allow_bin=True)
    assert not (tmp_path / "harm").exists()


def test_a_source_that_is_no_folder_and_no_id_is_refused(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "is no folder, and no id of the Hub" in capsys.readouterr().err


def test_a_hub_id_is_downloaded_without_what_is_not_needed(tmp_path, source, monkeypatch) -> None:
    calls = []

    def snapshot_download(name, allow_patterns, ignore_patterns):
        assert ignore_patterns == ["*/*"]  # folders
        calls.append((name, allow_patterns))
        return str(source)

    (source / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Model\n")
    (source / "LICENSE").write_text("the licence")
    monkeypatch.setattr(converting, "snapshot_download", snapshot_download)
    converted = convert("llava-hf/some-model", tmp_path / "out", progress=False)
    (name, small), (again, patterns) = calls
    assert name == again == "llava-hf/some-model" and "*.safetensors" not in small
    assert "*.safetensors" in patterns and "*.json" in patterns and not any("bin" in pattern for pattern in patterns)
    card = (converted / "README.md").read_text()
    assert "base_model:\n- llava-hf/some-model\n" in card and "license: apache-2.0" in card
    assert "checkpoint: llava-hf/some-model, revision source" in card
    assert (converted / "LICENSE").read_text() == "the licence"


def test_a_vision_tower_that_is_not_needed_is_refused_before_weights_are_fetched(
    tmp_path, source, monkeypatch
) -> None:
    def snapshot_download(name, allow_patterns, ignore_patterns):
        assert "*.safetensors" not in allow_patterns
        return str(source)

    monkeypatch.setattr(converting, "snapshot_download", snapshot_download)
    with pytest.raises(ValueError, match="those of llava-hf have its configuration with them"):
        convert("llava-hf/some-model", tmp_path / "out", vision_tower="google/some-tower", progress=False)


def test_pickles_of_the_hub_are_downloaded_when_asked_for_and_needed(tmp_path, monkeypatch) -> None:
    parts = TinyParts()
    folder = save_llava_next(tmp_path / "source", parts)
    for file in folder.glob("model*"):
        file.unlink()
    calls = []

    def snapshot_download(name, allow_patterns, ignore_patterns):
        assert ignore_patterns == ["*/*"]
        calls.append(allow_patterns)
        if "pytorch_model*.bin" in allow_patterns:
            torch.save(llava_next_tensors(parts), folder / "pytorch_model.bin")
        return str(folder)

    monkeypatch.setattr(converting, "snapshot_download", snapshot_download)
    options = {"vision_tower": tmp_path / "tower", "progress": False}
    with pytest.raises(FileNotFoundError, match="holds no"):
        convert("lmms-lab/some-model", tmp_path / "out", **options)
    convert("lmms-lab/some-model", tmp_path / "out", allow_bin=True, **options)
    assert sum("pytorch_model*.bin" in patterns for patterns in calls) == 1


def test_pickles_in_the_place_of_others_are_read_anew_and_let_go_of(tmp_path) -> None:
    parts = TinyParts()
    folder = save_llava_next(tmp_path / "source", parts)
    for file in folder.glob("model*"):
        file.unlink()
    for value in (1, 2):
        tensors = llava_next_tensors(parts)
        tensors["model.norm.weight"].fill_(value)
        torch.save(tensors, tmp_path / "new.bin")
        os.replace(tmp_path / "new.bin", folder / "pytorch_model.bin")
        norm = read_checkpoint(folder, allow_bin=True)["model.norm.weight"].load()
        options = {"vision_tower": tmp_path / "tower", "allow_bin": True, "progress": False}
        converted = convert(folder, tmp_path / str(value), **options)
        written = load_file(converted / "model.safetensors")["model.language_model.norm.weight"]
        assert norm.unique().tolist() == written.unique().tolist() == [value]
        del norm
        maps = Path("/proc/self/maps")
        assert not maps.exists() or "pytorch_model.bin" not in maps.read_text()


def test_the_result_is_pushed_after_an_early_check_of_the_account(tmp_path, source, monkeypatch) -> None:
    calls = []

    class Api:
        def create_repo(self, name, exist_ok) -> None:
            calls.append(("create", name, exist_ok, (tmp_path / "out").exists()))

        def list_repo_files(self, name) -> list[str]:
            return [".gitattributes"]

        def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns) -> None:
            calls.append(("upload", repo_id, folder_path, (Path(folder_path) / "model.safetensors").exists()))

    monkeypatch.setattr(converting, "HfApi", Api)
    assert main([str(source), str(tmp_path / "out"), "--push-to-hub", "me/model"]) == 0
    assert calls == [("create", "me/model", True, False), ("upload", "me/model", tmp_path / "out", True)]


def test_an_existing_output_is_kept_and_replaced_only_when_asked(tmp_path, source) -> None:
    converted = convert(source, tmp_path / "out", scene_size=1, progress=False)
    (converted / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists: choose another folder, or replace it with `--overwrite`"):
        convert(source, converted, progress=False)
    assert (converted / "mine.txt").exists()
    convert(source, converted, overwrite=True, scene_size=2, progress=False)
    assert not (converted / "mine.txt").exists()
    assert json.loads((converted / "config.json").read_text())["scene_size"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


def test_overwriting_replaces_nothing_but_converted_repositories(tmp_path, source) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for output in (tmp_path / "out", source, tmp_path, converting.ROOT):
        with pytest.raises(FileExistsError, match=r"is no converted repository|holds what is to be converted"):
            convert(source, output, overwrite=True, progress=False)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_repository_that_holds_the_source_is_not_replaced(tmp_path, source) -> None:
    converted = convert(source, tmp_path / "out", progress=False)
    inner = converted / "inner"
    source.rename(inner)
    with pytest.raises(FileExistsError, match="holds what is to be converted"):
        convert(inner, converted, overwrite=True, progress=False)
    assert inner.is_dir()


def test_a_failure_while_overwriting_keeps_the_old_repository(tmp_path, source, monkeypatch) -> None:
    converted = convert(source, tmp_path / "out", scene_size=1, progress=False)
    before = load_file(converted / "model.safetensors")

    def fail() -> Never:
        raise OSError("disk full")

    monkeypatch.setattr(converting, "code_files", fail)
    with pytest.raises(OSError, match="disk full"):
        convert(source, converted, overwrite=True, scene_size=2, progress=False)
    after = load_file(converted / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, source, monkeypatch) -> None:
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda path: Free())
    with pytest.raises(OSError, match=r"The weights take [\d,]+ bytes, but .* has 10 bytes free"):
        convert(source, tmp_path / "out", progress=False)
    assert only_the_source_is_left(tmp_path)


def test_options_that_no_model_can_have_are_refused(tmp_path, source, capsys) -> None:
    assert main([str(source), str(tmp_path / "out"), "--scene-size", "0"]) == 2
    assert "`scene_size` must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="merger_type"):
        convert(source, tmp_path / "out", merger="median", progress=False)
    with pytest.raises(ValueError, match="`dtype` must be one of bfloat16, float16, float32, got 'int8'"):
        convert(source, tmp_path / "out", dtype="int8", progress=False)
    with pytest.raises(ValueError, match="those of llava-hf have its configuration"):
        convert(source, tmp_path / "out", vision_tower=source, progress=False)
    with pytest.raises(ValueError, match="not both"):
        convert(source, tmp_path / "out", language_model=source, progress=False)
    assert only_the_source_is_left(tmp_path)


class Free:
    free = 10


INTERRUPTED = """
import sys, time
from pathlib import Path
import fila_video.conversion.convert as converting
from fila_video.convert_weights import main
write = converting.write_shards
def write_and_wait(folder, *args):
    files = write(folder, *args)
    Path(sys.argv[3]).touch()
    time.sleep(60)
converting.write_shards = write_and_wait
sys.exit(main(sys.argv[1:3]))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_conversion_that_is_killed_leaves_no_repository(tmp_path, source, sent) -> None:
    output, reached = tmp_path / "out", tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(source), str(output), str(reached)],
        # A shell's background jobs, and what they start, ignore an interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not reached.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert reached.exists()
    process.send_signal(sent)
    assert process.wait(timeout=60) != 0
    reached.unlink()
    left = {path.name for path in tmp_path.iterdir()} - {"source"}
    if sent == signal.SIGKILL:
        # Nobody can tidy up then, but what is left is hidden and says what it is.
        assert left == {".out.incomplete", ".out.lock"}
    else:
        assert not left
    # And it does not stand in the way, nor stay.
    assert main([str(source), str(output)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}
    assert (output / "model.safetensors").exists()


def test_tensors_of_mixed_types_are_written_as_safetensors_reads_them(tmp_path) -> None:
    values = {
        "odd": torch.arange(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 5),
        "wide": torch.randn(3, 5, 2, dtype=torch.float64),
        "half": torch.randn(5, 3).half(),
    }
    described, written = {name: (tuple(value.shape), value.dtype) for name, value in values.items()}, []
    write_shards(tmp_path, described, values.__getitem__, 100, written.append)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert sum(written) == sum(value.nbytes for value in values.values())
    for name, stored in read_checkpoint(tmp_path).items():
        assert torch.equal(stored.load(), values[name]) and stored.load().dtype == values[name].dtype, name
