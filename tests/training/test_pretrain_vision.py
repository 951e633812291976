"""The vision tower's own training: it learns, goes on after a break, and leaves a repository and its losses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.toy_world.make_videos import make_videos
from fila_video.toy_world.sets import Settings
from fila_video.toy_world.world import COLORS, SHAPES, UNSEEN_PAIRS
from fila_video.training.tiny import pretrain_vision as program
from fila_video.training.tiny.make_initial_checkpoint import make_initial_checkpoint
from transformers import TrainingArguments, set_seed
from transformers.modeling_outputs import ImageClassifierOutput


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    make_initial_checkpoint(folder / "initial")
    make_videos(folder, Settings("picture", side=64), count=40)
    return folder


def trained(world, output, **changes):
    set_seed(1)
    model = FilaVideoForConditionalGeneration.from_pretrained(world / "initial")
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=3,
        learning_rate=2e-3,
        save_steps=1,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
        **{"per_device_train_batch_size": 10, **changes},
    )
    processor = FilaVideoProcessor.from_pretrained(world / "initial")
    figures = program.pretrain_vision(model, processor, [world / "train_picture.jsonl"], arguments)
    return model.model.vision_tower.state_dict(), [line["loss"] for line in figures["log"] if "loss" in line]


def test_from_a_checkpoint_the_tower_ends_as_without_a_break(world, tmp_path) -> None:
    expected, losses = trained(world, tmp_path / "whole")
    assert losses[-1] < 0.9 * losses[0] and len(losses) == 6
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "again" / "checkpoint-3")
    found, again = trained(world, tmp_path / "again")
    assert again == pytest.approx(losses, abs=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_a_step_of_several_batches_has_the_loss_of_one(world, tmp_path) -> None:
    _, losses = trained(world, tmp_path / "one")
    _, split = trained(world, tmp_path / "two", per_device_train_batch_size=5, gradient_accumulation_steps=2)
    assert split[0] == pytest.approx(losses[0], rel=1e-3)  # later ones differ by rounding


def test_the_command_leaves_a_repository_its_losses_and_no_checkpoints(world, tmp_path, monkeypatch) -> None:
    output = tmp_path / "seeing"
    arguments = [str(world / "initial"), str(world / "train_picture.jsonl"), str(output), "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["pretrain_vision", *arguments, "--batch-size", "10"])
    program.main()
    before, after = (FilaVideoForConditionalGeneration.from_pretrained(at) for at in (world / "initial", output))
    moved = {
        name.split(".")[1] for name, value in after.state_dict().items() if not value.equal(before.state_dict()[name])
    }
    assert moved == {"vision_tower"}
    assert not (output / "checkpoints").exists()
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["eval_right"] <= 1 and 0 <= lines[-1]["eval_off"] < 0.5


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--learning-rate", "--seed", "records", "model"])
def test_a_run_that_was_broken_off_goes_on_with_the_same_arguments_alone(
    world, tmp_path, monkeypatch, capsys, option
) -> None:
    for name in ("initial", "train_picture.jsonl"):
        (shutil.copytree if (world / name).is_dir() else shutil.copy)(world / name, tmp_path / name)
    given = ["pretrain_vision", *(str(tmp_path / name) for name in ("initial", "train_picture.jsonl", "seeing"))]
    begun = []

    def break_off(model, processor, records, arguments) -> dict:
        checkpoint = Path(arguments.output_dir) / "checkpoint-1"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        begun.append(arguments.learning_rate)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "pretrain_vision", break_off)
    monkeypatch.setattr("sys.argv", given)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            program.main()
    if option.startswith("--"):
        given += [option, "1"]
    else:
        changed = tmp_path / {"records": "train_picture.jsonl", "model": "initial/config.json"}[option]
        changed.write_text(changed.read_text() + "\n")
    with pytest.raises(SystemExit, match="2"):
        program.main()
    said, name = capsys.readouterr().err, option.strip("-").replace("-", "_")
    assert f"was begun with others than these ({name}: " in said and "remove that folder to begin anew" in said
    assert begun == [2e-3, 2e-3]


def test_the_tower_is_taught_the_color_the_shape_and_the_place_of_a_thing(world) -> None:
    processor = FilaVideoProcessor.from_pretrained(world / "initial")
    records = [json.loads(line) for line in (world / "train_picture.jsonl").read_text().splitlines()]
    pictures, empty = program.PictureSet(world / "train_picture.jsonl", processor.image_processor), 0
    for record, sample in zip(records, pictures, strict=True):
        labels = dict(zip(program.LABELS, sample["labels"].tolist(), strict=True))
        place = labels.pop("x"), labels.pop("y")
        caption = record["conversations"][1]["value"].lower()
        assert {word for word, value in labels.items() if value > 0} == labels.keys() & set(caption.strip(".").split())
        if record["things"]:
            assert place == pytest.approx([record["things"][0][name] for name in ("x", "y")])
        else:
            assert place == (0.5, 0.5)
            empty += 1
    assert 0 < empty < len(records) / 2


def labels_of(folder, **settings) -> list[tuple[dict, dict]]:
    path = make_videos(folder, Settings("picture", side=64, **settings), count=30)
    pictures = program.PictureSet(path, FilaVideoProcessor.from_pretrained(folder.parent / "initial").image_processor)
    return [
        (record["things"][0], dict(zip(program.LABELS, pictures[index]["labels"].tolist(), strict=True)))
        for index, record in enumerate(map(json.loads, path.read_text().splitlines()))
        if record["things"]
    ]


@pytest.mark.parametrize(
    ("compositions", "named", "nameless"), [("shapes", SHAPES, COLORS), ("colors", COLORS, SHAPES)]
)
def test_of_what_has_no_name_the_tower_learns_the_rest(world, compositions, named, nameless) -> None:
    for thing, labels in labels_of(world / compositions, compositions=compositions):
        assert {labels[word] for word in nameless} == {program.NOTHING}
        assert [word for word in named if labels[word]] == [thing["shape"] or thing["color"]]


def test_that_a_shape_never_has_a_color_is_not_taught(world) -> None:
    untaught = set()
    for thing, labels in labels_of(world / "pairs", compositions="train"):
        color, shape = thing["color"], thing["shape"]
        never = {word for word in labels if (color, word) in UNSEEN_PAIRS or (word, shape) in UNSEEN_PAIRS}
        assert {word for word, value in labels.items() if value == program.NOTHING} == never
        untaught |= never
    assert len(untaught) > 5
    for thing, labels in labels_of(world / "held_out", compositions="held-out"):
        assert labels[thing["color"]] == labels[thing["shape"]] == 1


def test_a_label_that_says_nothing_costs_nothing() -> None:
    logits, labels = torch.tensor([[4.0, -4.0, 2.0]]), torch.tensor([[1.0, 0.0, program.NOTHING]])
    loss = program.loss_of_what_shows(ImageClassifierOutput(logits=logits), labels)
    torch.testing.assert_close(loss, torch.tensor(4.0).neg().exp().log1p())
    of_a_step = program.loss_of_what_shows(ImageClassifierOutput(logits=logits), labels, num_items_in_batch=6)
    torch.testing.assert_close(of_a_step, loss / 3)


@pytest.mark.parametrize("things", [None, [{}, {}]])
def test_a_picture_of_several_things_or_without_annotation_is_refused(world, tmp_path, things) -> None:
    record = json.loads((world / "train_picture.jsonl").read_text().splitlines()[0]) | {"things": things}
    if things is None:
        del record["things"]
    (tmp_path / "train_picture.jsonl").write_text(json.dumps(record) + "\n")
    processor = FilaVideoProcessor.from_pretrained(world / "initial")
    with pytest.raises(
        ValueError, match=r"train_picture_000000 is no picture of one thing .*: film the kind `picture`"
    ):
        program.PictureSet(tmp_path / "train_picture.jsonl", processor.image_processor)[0]


def test_one_picture_is_too_few(world, tmp_path) -> None:
    path = make_videos(tmp_path, Settings("picture", side=64), count=1)
    with pytest.raises(ValueError, match="has one picture"):
        program.pretrain_vision(
            FilaVideoForConditionalGeneration.from_pretrained(world / "initial"),
            FilaVideoProcessor.from_pretrained(world / "initial"),
            [path],
            TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
        )
