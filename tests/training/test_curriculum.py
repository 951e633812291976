"""A run whose settings are a list of phases: what each trains on, and that a kill at any step changes nothing."""

import itertools
import json
import shutil
from collections import Counter

import pytest
import torch
import yaml
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.training.settings import Sampling, TrainingError, load_settings
from fila_video.training.train import make_trainer, train
from helpers.training_runs import in_processes, losses, settings_file, video_record, world, write_lines

IMAGES, WORDS = str(world() / "images.json"), str(world() / "words.jsonl")
VIDEOS = str(world() / "videos.jsonl")


def curriculum(*phases: dict, **training) -> dict:
    return {"phases": list(phases), "training": {"max_steps": None, "save_strategy": "no", **training}}


def written(output, *phases: dict, **changes):
    """The file of a run of phases; `max_steps` follows from them."""
    given = curriculum(*phases, **changes.pop("training", {}))
    path = settings_file(output, given["training"], phases=given["phases"], **changes)
    values = yaml.safe_load(path.read_text())
    del values["training"]["max_steps"]
    path.write_text(yaml.safe_dump(values))
    return path


def trained(output, *phases: dict, **changes):
    return train(load_settings(written(output, *phases, **changes)))


def weights(folder) -> dict[str, torch.Tensor]:
    return FilaVideoForConditionalGeneration.from_pretrained(folder).state_dict()


def test_each_phase_takes_its_steps_from_its_own_sets_over_as_many_epochs_as_it_needs(tmp_path) -> None:
    phases = [
        {"steps": 3, "data": [{"path": IMAGES}]},  # 12 samples, of four images
        {"steps": 2},  # the run's own
        {"steps": 5, "data": [{"path": VIDEOS, "weight": 2}, {"path": IMAGES, "count": 3}]},
    ]
    trainer = make_trainer(load_settings(written(tmp_path / "out", *phases)))
    assert trainer.args.max_steps == 10
    keys = list(trainer.train_dataset.sampler)
    assert keys == list(trainer.train_dataset.sampler) and len(keys) == len(trainer.train_dataset) == 40
    by_phase = {phase: [key for _, key in group] for phase, group in itertools.groupby(keys, lambda key: key[0])}
    assert {phase: len(group) for phase, group in by_phase.items()} == {0: 12, 1: 8, 2: 20}
    assert Counter(index for _, _, index in by_phase[0]) == dict.fromkeys(range(4), 3)
    assert {epoch for epoch, _, _ in by_phase[0]} == {0, 1, 2}
    shares = Counter(number for epoch, number, _ in by_phase[2] if epoch == 0)
    assert shares == {0: 12, 1: 3}
    sample = trainer.train_dataset[keys[0]]
    assert "pixel_values" in sample and "pixel_values_videos" not in sample


def test_phases_draw_in_orders_of_their_own(tmp_path) -> None:
    phase = {"steps": 3, "data": [{"path": VIDEOS, "weight": 4}]}
    trainer = make_trainer(load_settings(written(tmp_path / "out", phase, phase)))
    keys = [key for _, key in trainer.train_dataset.sampler]
    assert keys[:12] != keys[12:]


def test_a_phase_has_its_own_scenes_and_kinds_of_question(tmp_path) -> None:
    def asked(number):
        kinds = [{"kind": kind, "form": "free"} for kind in ("what", "count", "color")]
        return video_record(number, questions=kinds)

    path = write_lines(tmp_path / "asked.jsonl", [asked(number) for number in range(4)])
    data = [{"path": str(path), "media": str(world())}]
    phases = [
        {"steps": 1, "sampling": {"num_scenes": 1}, "questions": {"kind": ["count"]}},
        {"steps": 1, "sampling": {"num_scenes": [3]}, "questions": {"kind": ["what", "color"]}},
        {"steps": 1},
    ]
    trainer = make_trainer(load_settings(written(tmp_path / "out", *phases, data=data)))
    found = []
    for phase in range(3):
        sample = trainer.train_dataset[phase, (0, 0, 0)]
        learned = trainer.processing_class.tokenizer.decode(sample["labels"][sample["labels"] != -100])
        found.append((int(sample["video_num_scenes"][0]), learned.count("<|im_end|>")))
    assert found == [(1, 1), (3, 2), (2, 3)]


def test_a_range_of_scenes_gives_every_number_in_it_and_small_ones_as_often_as_large_ones(tmp_path) -> None:
    sampling = {"num_scenes": {"min": 4, "max": 64}, "selection": ["uniform", "kmeans"]}
    trainer = make_trainer(load_settings(settings_file(tmp_path / "out", sampling=sampling)))
    encoder = trainer.train_dataset.encode
    drawn = Counter(encoder.num_scenes((0, 0, number)) for number in range(6000))
    assert set(drawn) == set(range(4, 65))
    low, high = (sum(drawn[number] for number in range(*ends)) for ends in ((4, 16), (16, 65)))
    assert 0.9 < low / high < 1.1


def test_the_batches_of_a_step_are_sorted_by_scenes_and_give_the_step_of_one_batch(tmp_path) -> None:
    data = [{"path": VIDEOS, "weight": 4}]
    phases = [{"steps": steps, "data": data, "sampling": {"num_scenes": {"min": 1, "max": 6}}} for steps in (2, 1)]
    runs = {}
    for each in (1, 4):
        training = {"per_device_train_batch_size": each, "logging_steps": 1}
        runs[each] = trained(tmp_path / str(each), *phases, batch_size=4, training=training)
    trainer = runs[1]
    scenes = [int(batch["video_num_scenes"]) for batch in trainer.get_train_dataloader()]
    steps = [scenes[at : at + 4] for at in range(0, 12, 4)]
    assert [sorted(step) for step in steps] == steps and scenes != sorted(scenes)
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "4"), abs=2e-5)
    expected = weights(tmp_path / "4")
    for key, value in weights(tmp_path / "1").items():
        torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3, msg=key)


def test_the_log_names_the_phase_of_each_step_and_the_loss_falls_through_them(tmp_path) -> None:
    phases = [{"steps": 4, "data": [{"path": VIDEOS}]}, {"steps": 6, "sampling": {"num_scenes": {"min": 1, "max": 3}}}]
    trained(tmp_path / "out", *phases)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    found = {line["step"]: line["phase"] for line in lines if "phase" in line}
    assert found == {step: int(step > 4) for step in range(1, 11)}
    loss = losses(tmp_path / "out")
    assert loss[10] < loss[1] - 0.3
    saved = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())
    assert [phase["steps"] for phase in saved["phases"]] == [4, 6]


PHASES = [
    {"steps": 2, "data": [{"path": VIDEOS, "weight": 2}], "sampling": {"num_scenes": [1, 2]}},
    {"steps": 3, "data": [{"path": IMAGES, "weight": 4}, {"path": VIDEOS}]},
]


@pytest.mark.slow
def test_from_each_of_its_steps_a_run_goes_on_to_the_same_weights(tmp_path) -> None:
    """Before, at and after the change of phases."""
    training = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear", "warmup_steps": 1}
    trained(tmp_path / "whole", *PHASES, training=training, optimizer="muon")
    expected = weights(tmp_path / "whole")
    for step in range(1, 5):
        output = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", output / f"checkpoint-{step}")
        trained(output, *PHASES, training=training, optimizer="muon")
        later = {at: loss for at, loss in losses(tmp_path / "whole").items() if at > step}
        assert losses(output) == pytest.approx(later, abs=1e-6)
        for name, value in weights(output).items():
            torch.testing.assert_close(value, expected[name], msg=f"{step}: {name}")


@pytest.mark.slow
@pytest.mark.parametrize("step", (1, 2, 4))
def test_a_curriculum_that_was_killed_ends_as_an_unbroken_one(tmp_path, step) -> None:
    """With a worker that reads ahead into the next phase, and a checkpoint only at every second step."""
    training = {"save_strategy": "steps", "save_steps": 2, "dataloader_num_workers": 1}
    trained(tmp_path / "whole", *PHASES, training=training)
    file = written(tmp_path / "killed", *PHASES, training=training)
    killed = in_processes("--kill-at", step, file)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    again = in_processes(file)
    assert again.returncode == 0, again.stderr[-3000:]
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "killed").items():
        torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": [{"data": []}]}, "`phases.0.steps` must be a positive number, got 0"),
        ({"phases": [{"steps": 1, "stpes": 2}]}, "`phases.0` knows no `stpes`. Did you mean steps"),
        ({"phases": [{"steps": 1, "data": [{"weight": 1}]}]}, "no `phases.0.data.0.path`"),
        ({"phases": [{"steps": 1}], "data": None}, "no `data`"),
        ({"phases": [{"steps": 1, "sampling": {"num_scenes": 0}}]}, "`phases.0.sampling.num_scenes` must be a posit"),
        ({"phases": [{"steps": 1, "sampling": {"selection": []}}]}, "`phases.0.sampling.selection` must not be empty"),
        ({"phases": [{"steps": 1}], "training": {"max_steps": 3}}, "leave out `training.max_steps`"),
        ({"phases": [{"steps": 1}], "training": {"num_train_epochs": 3}}, "leave out `training.num_train_epochs`"),
        (
            {"data": [{"path": "a.jsonl", "subset": 1.5}]},
            "`data.0.subset` is a whole number or a share up to 1, got 1.5",
        ),
        ({"optimizer_settings": {"weight_decay": 0.1}}, "`optimizer_settings` of adamw knows no `weight_decay`"),
        ({"optimizer_settings": {"momentum": 0.9}}, "`optimizer_settings` of adamw knows no `momentum`"),
        ({"sampling": {"num_scenes": {"min": 8, "max": 4}}}, "has min 8 above max 4"),
        ({"sampling": {"num_scenes": {"min": 8}}}, "has min 8 above max 0: give both"),
        ({"sampling": {"num_scenes": {"max": 8}}}, "`sampling.num_scenes.min` must be a positive number, got 0"),
        ({"sampling": {"num_scenes": {"least": 8}}}, "`sampling.num_scenes` knows no `least`"),
    ],
)
def test_wrong_phases_and_ranges_are_named(tmp_path, changes, message) -> None:
    changes = {"training": {}, **changes}
    path = written(tmp_path / "out")
    values = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    with pytest.raises(TrainingError, match=message):
        load_settings(path)


def test_the_phases_of_a_run_may_have_all_its_data(tmp_path) -> None:
    phases = [{"steps": 1, "data": [{"path": IMAGES}]}, {"steps": 2, "data": [{"path": WORDS}]}]
    settings = load_settings(written(tmp_path / "out", *phases, data=None))
    assert settings.data == [] and settings.sampling == Sampling(num_scenes=2)


def test_a_phase_is_changed_from_the_command_line(tmp_path) -> None:
    path = written(tmp_path / "out", {"steps": 5}, {"steps": 6})
    settings = load_settings(path, ["phases.1.steps=2", "phases.0.sampling.num_scenes={min: 2, max: 3}"])
    assert [phase.steps for phase in settings.phases] == [5, 2]
    assert settings.phases[0].sampling.num_scenes == {"min": 2, "max": 3}
