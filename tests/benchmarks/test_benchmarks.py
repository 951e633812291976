"""Every benchmark runs at its smallest size; a measurement that fails shows why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fila_video.benchmarks import flops
from fila_video.benchmarks.child import run_child
from helpers.tiny_models import tiny_config, tiny_model, tiny_text_config, tiny_vision_config, video_batch

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


def rows_of(*command: str) -> list[list[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_child_that_fails_shows_its_own_error() -> None:
    with pytest.raises(ValueError, match=r"(?s)failed with status 3:.*the reason"):
        run_child([sys.executable, "-c", "import sys; sys.stderr.write('the reason'); sys.exit(3)"])
    assert run_child([sys.executable, "-c", "print(5)"]) == "5\n"


@pytest.mark.slow
def test_inference_runs() -> None:
    cases = ["LLaVA-OneVision, 96 frames", "FiLA-Video, 96 to 32, no pool", "FiLA-Video, pool of 96, model features"]
    cases += ["FiLA-Video, pool of 512 thinned to 96, layers compressed"]
    rows = rows_of("-m", "fila_video.benchmarks.inference", "--size", "smoke", "--rounds", "1", "--cases", *cases)
    assert [row[0] for row in rows[1:]] == cases
    # A token a frame, and the newline at the end: 96 frames, 32 scenes, 32 scenes, 32 scenes.
    assert [row[7] for row in rows[1:]] == ["97", "33", "33", "33"]


@pytest.mark.parametrize("compression", [None, "cosine"])
def test_operations_counted_by_parts_are_those_of_a_real_forward(compression) -> None:
    """With weights, on the processor; scenes of 16 tokens, 4 of them in the last of four layers' groups."""
    config = tiny_config(
        text_config=tiny_text_config(num_hidden_layers=4),
        vision_config=tiny_vision_config(image_size=16),
        pooling_mode="none",
        layer_compression=compression,
        layer_compression_group=16,
    )
    model, batch = tiny_model(config), video_batch(config, (3,))
    model.set_attn_implementation("eager")  # whose products of matrices are counted on processors too
    num_text = batch["input_ids"].shape[1] - 3 * 16 - 1
    frames = 3 * config.scene_size
    case = flops.Case("", frames, config.scene_size, encoded=frames, compressed=compression is not None)
    parts = flops.Counter(config, num_text).parts(case)
    real = flops.counted(model, **batch, logits_to_keep=1)
    by_formula = 3 * 2 * config.scene_size * 16 * config.vision_config.hidden_size  # merging, no product of matrices
    assert sum(parts.values()) - by_formula == pytest.approx(real, rel=0.02)
    assert parts["selection"] == 0


@pytest.mark.parametrize("changes", [{"background_tokens": 1}, {"background_tokens": 2}, {"scene_size": 1}], ids=str)
def test_operations_of_the_tokens_of_other_frames_are_those_of_a_real_forward(changes) -> None:
    """Three scenes of two frames with five more frames; and DynFocus, whose key frames are 20 of 25 prototypes."""
    is_cooperative = changes == {"scene_size": 1}
    config = tiny_config(vision_config=tiny_vision_config(image_size=16), **{"scene_size": 2} | changes)
    frames = torch.randn(1, 30 if is_cooperative else 11, 3, 16, 16)
    model = tiny_model(flops._cooperative(config) if is_cooperative else config)
    model.set_attn_implementation("eager")
    if is_cooperative:
        case = flops.Case("", 30, 1, encoded=30, cooperative=True)
        layout = {"video_question_ids": torch.full((1, flops.QUESTION_TOKENS), 20)}
    else:
        case = flops.Case("", 6, 2, encoded=11, background=config.background_tokens)
        layout = {"video_num_scenes": torch.tensor([3]), "video_background_places": torch.tensor([[0, 1, 1, 2, 3]])}
    with torch.no_grad():
        visual = model.get_video_features(pixel_values_videos=frames, **layout, return_dict=True).pooler_output[0]
    ids = torch.tensor([[20] * (num_text := 9) + [config.video_token_id] * len(visual)])
    parts = flops.Counter(config, num_text).parts(case)
    real = flops.counted(model, input_ids=ids, pixel_values_videos=frames, **layout, logits_to_keep=1)
    merging = 0 if is_cooperative else 3 * 2 * 2 * config.num_patches * config.vision_config.hidden_size
    # Weighted sums over patches, which are no product of matrices.
    summed = 2 * 5 * config.num_patches * config.vision_config.hidden_size * (config.background_tokens == 2)
    assert sum(parts.values()) - merging - summed == pytest.approx(real, rel=0.02)


def test_the_table_of_operations_has_every_case(tmp_path, capsys) -> None:
    tiny_config().save_pretrained(tmp_path)
    options = ["--config", str(tmp_path), "--num-scenes", "4", "--pool", "40", "--thinned", "20", "--text-tokens", "9"]
    flops.main(options)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    names = ["LLaVA-OneVision", *["FiLA-Video"] * 7, *["DynFocus"] * 2, *["FiLA-Video"] * 3]
    assert [row[0].split(",")[0] for row in rows] == names
    shares = {row[0]: float(row[-1]) for row in rows}
    assert rows[0][-1] == "1.000" and len(shares) == len(names)
    features, thinned = (shares[f"FiLA-Video, pool of 40{how}"] for how in (", model features", " thinned to 20"))
    assert thinned < features
    assert all(shares[f"{name}, layers compressed"] < shares[name] for name in list(shares)[1:4])
    alone, one, two = (
        shares[f"FiLA-Video, pool of 40 thinned to 20{how}"] for how in ("", ", background 1", ", background 2")
    )
    assert alone < one < two
    with pytest.raises(ValueError, match="more than are encoded"):
        flops.main([*options, "--thinned", "5"])


@pytest.mark.slow
def test_second_question_runs() -> None:
    rows = rows_of(
        "-m", "fila_video.benchmarks.second_question", "--minutes", "0.2", "--rounds", "1", "--device", "cpu"
    )
    assert [row[0] for row in rows[1:]] == ["first question", "later question", "the same by the pipeline"]
    assert int(rows[1][3]) > 100 > int(rows[2][3])  # the video's tokens are read once


@pytest.mark.slow
def test_scene_selection_runs() -> None:
    pytest.importorskip("sklearn")
    options = ["--num-frames", "64", "--init", "k-means++", "--rounds", "1", "--calls", "1", "--videos", "1"]
    rows = rows_of(str(BENCHMARKS / "scene_selection.py"), *options)
    assert [row[0] for row in rows if row[0] == "64"] == ["64", "64"]  # noise, and simulated videos
    assert any(row[0] == "`kmeans`" for row in rows)


@pytest.mark.slow
def test_long_video_runs(tmp_path) -> None:
    command = [str(BENCHMARKS / "long_video.py"), "--folder", str(tmp_path / "set"), "--smoke"]
    rows = rows_of(*command, "--engines", "local", "--cores", "1")
    assert [row[2] for row in rows[1:]] == ["virtual", "copied", "encoded"]


@pytest.mark.slow
def test_convert_weights_runs(tmp_path) -> None:
    rows = rows_of("-m", "fila_video.benchmarks.convert_weights", "--smoke", "--folder", str(tmp_path))
    output = dict(row[:2] for row in rows)["output"]
    assert output == "1 files of weights, 0 tensors differ from the source"
    assert not list(tmp_path.iterdir())  # twice the checkpoint would be left there


def test_a_conversion_that_fails_shows_its_own_error() -> None:
    run_measured = pytest.importorskip("fila_video.benchmarks.convert_weights").run_measured
    with pytest.raises(ValueError, match=r"(?s)failed with status 3:.*the reason"):
        run_measured([sys.executable, "-c", "import sys; sys.stderr.write('the reason'); sys.exit(3)"])


@pytest.mark.slow
def test_video_reading_runs(tmp_path) -> None:
    rows = rows_of("-m", "fila_video.benchmarks.video_reading", "--folder", str(tmp_path), "--smallest")
    assert [row[:3] for row in rows[1:]] == [["seconds2.mp4", "exact", "8"]]


@pytest.mark.slow
def test_answering_many_runs() -> None:
    rows = rows_of("-m", "fila_video.benchmarks.answer_all", "--records", "12", "--workers", "1")
    assert [row[0] for row in rows] == ["workers", "1"] and float(rows[1][1]) > 0
