"""The two stages of the cooperative encoding: their settings, and a few steps of both by these settings."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.settings import TrainingError, load_settings
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

TRAINING = Path(__file__).resolve().parent.parent.parent / "training"
STAGES = ("dynfocus1_adapters", "dynfocus2_all")
FIRST, SECOND = (yaml.safe_load((TRAINING / f"{name}.yaml").read_text()) for name in STAGES)


def few_steps(stage: dict, model: Path, **changes) -> dict:
    """A stage's settings but for paths, sizes and length, at a rate that shows."""
    return {
        "model": str(model),
        "config": {
            **{name: value for name, value in stage.get("config", {}).items() if name != "background_tokens"},
            **({"num_prototypes": 6, "key_frames": 0.5} if "config" in stage else {}),
        },
        "learning_rates": dict.fromkeys(stage["learning_rates"], 1e-3),
        "sampling": {**stage["sampling"], "candidate_fps": 10.0, "min_candidates": 8, "max_candidates": 12},
        **changes,
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return FilaVideoForConditionalGeneration.from_pretrained(folder).state_dict()


def moved(before: dict, after: dict) -> set[str]:
    names = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    return {name.split(".")[1] for name in names}


def test_both_stages_have_the_papers_rates_batches_and_numbers() -> None:
    for name, rates, batch in zip(STAGES, (1e-3, 2e-5), (8 * 32, 8 * 4 * 4), strict=True):
        settings = load_settings(TRAINING / f"{name}.yaml")
        assert set(settings.learning_rates.values()) == {rates}
        assert settings.batch_size == batch and settings.sampling.candidate_fps == 1.0
        assert f"-m fila_video.training.train training/{name}.yaml" in (TRAINING / f"{name}.yaml").read_text()
    assert (FIRST["config"]["num_prototypes"], FIRST["config"]["key_frames"]) == (25, 0.8)
    assert list(FIRST["learning_rates"]) == ["multi_modal_projector"]
    assert SECOND["model"] == FIRST["output"] and not SECOND.get("isolate_turns")


def test_the_adapters_are_trained_first_and_then_the_language_model_too(tmp_path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, {"max_steps": 3}, **few_steps(FIRST, world() / "model"))
    start, first = weights(world() / "model"), weights(one)
    assert moved(start, first) == {"multi_modal_projector", "image_newline"}
    new = {name.split(".")[1] for name in first.keys() - start.keys()}
    assert new == {"cooperative_encoder"}
    assert {name.split(".")[1] for name in start.keys() - first.keys()} == {"scene_merger"}
    run(two, {"max_steps": 3}, **few_steps(SECOND, one))
    second = weights(two)
    assert second.keys() == first.keys()
    assert moved(first, second) >= {"multi_modal_projector", "cooperative_encoder", "language_model"}
    assert "vision_tower" not in moved(first, second)
    for folder in (one, two):
        assert len(losses(folder)) == 3 and all(map(math.isfinite, losses(folder).values()))
    model = FilaVideoForConditionalGeneration.from_pretrained(two)
    processor = FilaVideoProcessor.from_pretrained(two).bind(model)
    assert (processor.frame_encoding, processor.num_prototypes, processor.background_tokens) == ("cooperative", 6, 2)
    video = str(world() / "videos" / "0.mp4")
    inputs = processor(text="<video>What is it?", videos=[video], return_tensors="pt")
    answer = model.generate(**inputs, min_new_tokens=3, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_background_is_trained_with_scenes_of_a_pool(tmp_path) -> None:
    sampling = {"num_scenes": 2, "candidate_fps": 10.0, "min_candidates": 12, "max_candidates": 12}
    run(tmp_path / "out", {"max_steps": 2}, config={"background_tokens": 2}, sampling=sampling)
    before, after = weights(world() / "model"), weights(tmp_path / "out")
    assert {name.split(".")[1] for name in after.keys() - before.keys()} == {"background_encoder"}
    assert after["model.background_encoder.query"].abs().max() > 0  # it was 0, and is learned
    assert FilaVideoProcessor.from_pretrained(tmp_path / "out").background_tokens == 2


def test_isolated_turns_are_refused_where_tokens_are_one_questions(tmp_path) -> None:
    with pytest.raises(TrainingError, match="`isolate_turns` shares a video's tokens"):
        run(tmp_path / "out", isolate_turns=True, **few_steps(FIRST, world() / "model"))


@pytest.mark.slow
def test_two_processes_train_as_one_also_where_one_or_both_have_images_alone(tmp_path) -> None:
    """
    The choice of key frames draws noise, which two processes draw otherwise than one: where all prototypes are key
    frames there is none. A run with the choice ends, and moves the score net.
    """
    records = [video_record(0), image_record(0), image_record(1), image_record(2), video_record(1), video_record(2)]
    write_lines(tmp_path / "mixed.jsonl", records)
    data = [{"path": str(tmp_path / "mixed.jsonl"), "media": str(world()), "weight": 2}]
    training = {"max_steps": 6, "per_device_train_batch_size": 1}
    changes = few_steps(SECOND, world() / "model", batch_size=2, data=data)
    plain = {**FIRST["config"], "num_prototypes": 6, "key_frames": 6}
    mixed = {**plain, "key_frames": 3}
    files = [
        settings_file(tmp_path / "two", training, **changes | {"config": plain}),
        settings_file(tmp_path / "noisy", {**training, "gradient_checkpointing": True}, **changes | {"config": mixed}),
    ]
    result = in_processes(*files, processes=2)
    assert result.returncode == 0, result.stderr[-4000:]

    trainer = run(tmp_path / "one", training, **changes | {"config": plain})
    kinds = ["image" if "image" in records[index] else "video" for _, _, index in trainer.train_dataset.sampler]
    batches = [tuple(sorted(kinds[at : at + 2])) for at in range(0, len(kinds), 2)]
    assert set(batches) == {("image", "image"), ("image", "video"), ("video", "video")}
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
    expected = weights(tmp_path / "one")
    for key, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3, msg=key)
    noisy, gradients = losses(tmp_path / "noisy"), weights(tmp_path / "noisy")
    assert sorted(noisy) == [1, 2, 3, 4, 5, 6] and all(map(math.isfinite, noisy.values()))
    # Without a choice the score net has no gradient but zero: what moved it was the other run's choice.
    scores = [key for key in expected if "score_net" in key]
    assert scores and any(not torch.equal(expected[key], gradients[key]) for key in scores)
