"""What merged tokens carry of three frames: the command on small films, and a sign that only their order gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video.evaluation import motion_probe
from fila_video.evaluation.motion_probe import ANSWERS, ROWS, Probe, Scenes, read_scenes, right, train
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.toy_world.make_videos import make_videos
from fila_video.toy_world.sets import Settings
from helpers.tiny_processor import model_for, tiny_processor
from transformers import set_seed


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> tuple:
    processor = tiny_processor()
    model = model_for(processor)
    monkeypatch.setattr(motion_probe, "load_model", lambda name, device: (model, processor))
    return model, processor


def test_the_command_films_measures_every_row_and_writes_no_path(tmp_path: Path, tiny, capsys) -> None:
    given = ["--work", str(tmp_path), "--output", str(tmp_path / "out"), "--films", "3", "--test-films", "2"]
    given += ["--epochs", "1", "--batch-size", "4", "--seeds", "0", "1"]
    assert motion_probe.main(given) == 0
    assert not (tmp_path / "taught").exists()
    text = (tmp_path / "out/motion_probe.md").read_text()
    assert capsys.readouterr().out == text
    assert all(text.count(f"| {row} |") == 1 for row in ROWS)
    saved = (tmp_path / "out/motion_probe.json").read_text()
    assert str(tmp_path) not in saved
    results = json.loads(saved)
    asked = results["asked"]
    for seeds in results["right"].values():
        assert len(seeds) == 2
        for seed in seeds:
            assert all(0 <= hits <= number for kind in ANSWERS for hits, number in zip(seed[kind], asked, strict=True))
    # What was filmed is kept.
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("films/*/videos/*.mp4")}
    assert motion_probe.main(given) == 0
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("films/*/videos/*.mp4")} == made


def test_the_model_of_each_row_is_kept_with_its_merger_and_projector_and_answers(tmp_path: Path, tiny) -> None:
    model, processor = tiny
    model.generation_config.max_new_tokens = 7
    given = ["--work", str(tmp_path), "--output", str(tmp_path / "out"), "--films", "3", "--test-films", "2"]
    given += ["--epochs", "1", "--batch-size", "4", "--seeds", "3", "4", "--save", str(tmp_path / "taught")]
    assert motion_probe.main(given) == 0
    kinds = {"temporal_averaging": "mean", "attention_pooling": "attention", "BSM": "bsm"}
    kinds |= {"weighted_fusion": "weighted"}
    single = {"the_middle_frame_alone": "mean", "all_three_frames_three_times_the_tokens": "mean"}
    assert {path.name for path in (tmp_path / "taught").iterdir()} == {*kinds, *single}
    film = next(tmp_path.glob("films/*/videos/*.mp4"))
    before = model.state_dict()
    for row, merger in (kinds | single).items():
        taught = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "taught" / row)
        assert (taught.config.merger_type, taught.config.scene_size) == (merger, 1 if row in single else 3)
        assert taught.generation_config.max_new_tokens == 7
        for name, weight in taught.state_dict().items():
            is_taught = "scene_merger" in name or "multi_modal_projector" in name
            assert torch.equal(weight, before[name]) != is_taught if name in before else is_taught, name
        reader = FilaVideoProcessor.from_pretrained(tmp_path / "taught" / row)
        inputs = reader(text="<video>What moves?", videos=[str(film)], return_tensors="pt")
        assert torch.isfinite(taught(**inputs).logits).all()
    assert (model.config.merger_type, processor.scene_size) == ("weighted", 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--films", "0"], "--films must be at least 1, got 0"),
        (["--batch-size", "500"], "fewer than --batch-size 500: name more --films"),
        (["--model", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, changes: list[str], message: str, request, capsys) -> None:
    if "--model" not in changes:
        request.getfixturevalue("tiny")
    given = ["--work", str(tmp_path), "--output", str(tmp_path / "out"), "--films", "1", "--test-films", "1", *changes]
    assert motion_probe.main(given) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("motion_probe:")]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_scene_has_the_three_frames_of_one_thing_and_films_of_another_kind_are_refused(tmp_path: Path, tiny) -> None:
    model, processor = tiny
    records = make_videos(tmp_path / "travel", Settings("travel", questions=0, side=64), 2)
    scenes = read_scenes(records, model, processor)
    events = [json.loads(line)["events"] for line in records.read_text().splitlines()]
    assert scenes.features.shape[:2] == (sum(map(len, events)), 3)
    assert scenes.films.tolist() == [0] * len(events[0]) + [1] * len(events[1])
    motions = [event["motion"] for film in events for event in film]
    assert [ANSWERS["motion"][number] for number in scenes.answers["motion"]] == motions
    assert not torch.equal(scenes.features[:, 0], scenes.features[:, 2])  # it moves
    other = make_videos(tmp_path / "row", Settings("row", questions=0, side=64), 1)
    with pytest.raises(ValueError, match="instead of 3"):
        read_scenes(other, model, processor)


def test_weighted_fusion_tells_the_order_of_frames_and_a_mean_or_attention_cannot(tiny) -> None:
    """Four steps in either order: every scene of one has a twin of the other, with the same frames."""
    config = tiny[0].config
    shape = (3, config.num_patches, config.vision_config.hidden_size)
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(shape[1:], generator=generator)
    start = torch.randn((32, 1, *shape[1:]), generator=generator)
    forward = start + torch.arange(3.0)[:, None, None] * step
    features = torch.cat([forward, forward.flip(1)])
    same = torch.zeros(64, dtype=torch.long)
    answers = {"motion": same.clone(), "color": same, "shape": same}
    answers["motion"][32:] = 1
    scenes = Scenes(features, answers, np.arange(64))
    probes = {}
    for merger in ("mean", "attention", "weighted"):
        set_seed(0)
        probes[merger] = Probe(config, merger, 3)
        train(probes[merger], scenes, slice(None), 60, 16, {"merger": 1e-2, "projector": 1e-3, "heads": 1e-3})
    assert sum(right(probes["weighted"], scenes, slice(None))["motion"]) >= 60
    for merger in ("mean", "attention"):  # to these, a scene and its twin are one
        with torch.no_grad():
            scores = probes[merger](features)["motion"]
        torch.testing.assert_close(scores[:32], scores[32:], rtol=1e-3, atol=1e-3)
