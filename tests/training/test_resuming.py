"""A run that goes on is the one that was begun: other settings, sets or starts are refused, and more steps are not."""

import dataclasses
import json
import shutil

import pytest
import yaml
from fila_video.inference.output import EARLIER_MODEL_FILES, model_mark
from fila_video.long_video.json_records import append_lines
from fila_video.training.settings import TrainingError, load_settings
from fila_video.training.train import train, training_arguments
from fila_video.training.trainer import unreadable_of
from helpers.training_runs import losses, run, settings_file, video_record, world, write_lines
from transformers import TrainingArguments

KEPT = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of phases with a set of its own, and its file of settings."""
    folder = tmp_path_factory.mktemp("begun")
    write_lines(folder / "some.jsonl", [video_record(number) for number in range(4)])
    data = [{"path": str(folder / "some.jsonl"), "media": str(world())}]
    file = settings_file(folder / "out", {**KEPT, "max_steps": None}, data=data, phases=[{"steps": 1}, {"steps": 1}])
    values = yaml.safe_load(file.read_text())
    del values["training"]["max_steps"]
    file.write_text(yaml.safe_dump(values))
    train(load_settings(file))
    return file


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("learning_rates.scene_merger=1e-5", "learning_rates.scene_merger: 0.001 there, 1e-05 now"),
        ("learning_rates={vision_tower: 1e-3}", "learning_rates.multi_modal_projector: 0.001 there, None now"),
        ("optimizer=muon", "optimizer: adamw there, muon now"),
        ("optimizer_settings.eps=1e-6", "optimizer_settings.eps: None there, 1e-06 now"),
        ("batch_size=2", "samples of a step: 4 there, 2 now"),
        ("data.0.weight=2", r"data.0.weight: None there, 2(\.0)? now"),
        ("training.seed=2", "training.seed: 1 there, 2 now"),
        ("training.weight_decay=0.1", "training.weight_decay: None there, 0.1 now"),
        ("training.data_seed=2", "training.data_seed: None there, 2 now"),
        ("training.lr_scheduler_kwargs={num_cycles: 1}", "lr_scheduler_kwargs.num_cycles: None there, 1 now"),
        ("config.scene_size=2", "config.scene_size: None there, 2 now"),
        ("unseen_pairs=[[red, ring]]", "unseen_pairs.0.0: None there, red now"),
        ("sampling.num_scenes=1", r"\(sampling.num_scenes: 2 there, 1 now\)"),
        ("phases.1.sampling={selection: uniform}", "phases.1.sampling.num_scenes: 2 there, None now"),
        ("phases.1.sampling={num_scenes: 2, selection: kmeans}", "phases.1.sampling.selection: uniform there, kmeans"),
        ("phases.0.steps=2", "phases.0.steps: 1 there, 2 now"),
        ("phases=[{steps: 2}]", "phases.0.steps: 1 there, 2 now; phases.1.steps: 1 there, None now"),
    ],
)
def test_what_decides_a_run_cannot_change_where_it_goes_on(begun, override, named) -> None:
    kept = (begun.parent / "out" / "settings.yaml").read_bytes()
    with pytest.raises(TrainingError, match=rf"(?s)begun with others.*{named}.*or remove the folder to begin anew"):
        train(load_settings(begun, [override]))
    assert (begun.parent / "out" / "settings.yaml").read_bytes() == kept


def test_a_run_may_become_longer_and_say_other_things(begun) -> None:
    output = begun.parent / "out"
    harmless = ["training.logging_steps=2", "training.save_steps=5", "training.dataloader_num_workers=1"]
    harmless += ["training.weight_decay=0.0", "unreadable=skip"]
    harmless += ["batch_size=null", "training.per_device_train_batch_size=4"]  # of as many samples
    train(load_settings(begun, [*harmless, "phases=[{steps: 1}, {steps: 2}, {steps: 1}]"]))
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 4
    assert [phase["steps"] for phase in yaml.safe_load((output / "settings.yaml").read_text())["phases"]] == [1, 2, 1]
    assert list(losses(output)) == [1, 2, 4] and not (output / "checkpoint-3").exists()


def test_defaults_may_be_spelled_out_and_what_a_run_is_on_may_change(begun) -> None:
    kept = yaml.safe_load((begun.parent / "out" / "settings.yaml").read_text())
    own = {name: kept[name] for name in ("data", "sampling")}
    phases = [{"steps": phase["steps"], **(own if place else {})} for place, phase in enumerate(kept["phases"])]
    spelled = ["data.0.weight=1", "dtype=float32", "training.data_seed=1", "config.scene_size=3", "processor.seed=42"]
    spelled += ["optimizer_settings={eps: 1e-8, betas: [0.9, 0.999]}", "training.lr_scheduler_kwargs.num_cycles=0.5"]
    harmless = ["activation_checkpointing=true", "debug=underflow_overflow"]
    harmless += ["dataloader_num_workers=1", "dataloader_multiprocessing_context=fork"]
    harmless = [*harmless, "tf32=false", "local_rank=0"]
    known = {field.name for field in dataclasses.fields(TrainingArguments)}  # of this version
    harmless = [f"training.{each}" for each in harmless if each.partition("=")[0] in known]
    train(load_settings(begun, [*spelled, *harmless, f"phases={json.dumps(phases)}"]))


EPOCHS = {**KEPT, "max_steps": -1}


@pytest.mark.parametrize(
    ("first", "then", "steps"),
    [
        (KEPT, {**EPOCHS, "num_train_epochs": 1}, 7),
        ({**EPOCHS, "num_train_epochs": 0.25}, {**KEPT, "max_steps": 3}, 3),
        ({**EPOCHS, "num_train_epochs": 0.25}, {**EPOCHS, "num_train_epochs": 0.5}, 4),
        (KEPT, {**EPOCHS, "num_train_epochs": 0.1}, None),
        ({**EPOCHS, "num_train_epochs": 0.25}, {**KEPT, "max_steps": 1}, None),
    ],
)
def test_a_run_may_become_longer_in_the_other_unit_but_not_shorter(tmp_path, first, then, steps) -> None:
    run(tmp_path / "out", first)
    if steps is None:
        with pytest.raises(TrainingError, match=r"\(steps: 2 there, 1 now\)"):
            run(tmp_path / "out", then)
    else:
        assert run(tmp_path / "out", then).state.global_step == steps


def test_steps_can_be_added_to_a_run_of_an_earlier_version_but_not_taken(tmp_path) -> None:
    run(tmp_path / "out", KEPT)
    file = tmp_path / "out" / "settings.yaml"
    values = yaml.safe_load(file.read_text())
    for name in ("model", "data"):  # which it did not note
        del values["resolved"][name]
    del values["answer_noise"], values["data"][0]["split"]  # settings that it may not have had
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(TrainingError, match=r"steps: 2 there, 1 now"):
        run(tmp_path / "out", {**KEPT, "max_steps": 1})
    file.write_text(yaml.safe_dump({name: value for name, value in values.items() if name != "resolved"}))
    with pytest.raises(TrainingError, match=r"batch_size: 4 there, 2 now"):
        run(tmp_path / "out", {**KEPT, "max_steps": 3}, batch_size=2)
    run(tmp_path / "out", {**KEPT, "max_steps": 3})
    assert list(losses(tmp_path / "out")) == [1, 2, 3]


@pytest.mark.parametrize("change", ["more", "other"])
def test_a_set_that_has_changed_since_is_named(tmp_path, change) -> None:
    records = [video_record(number) for number in range(4)]
    path = write_lines(tmp_path / "some.jsonl", records)
    data = [{"path": str(path), "media": str(world())}]
    run(tmp_path / "out", KEPT, data=data)
    records = [*records, video_record(4)] if change == "more" else [*records[:3], video_record(5)]
    write_lines(path, records)
    with pytest.raises(TrainingError, match=rf"the set .*some\.jsonl: 4 records.* there, {len(records)} records"):
        run(tmp_path / "out", {**KEPT, "max_steps": 3}, data=data)


def test_another_start_is_refused_and_one_that_was_moved_is_not(tmp_path) -> None:
    shutil.copytree(world() / "model", tmp_path / "model")
    run(tmp_path / "out", KEPT, model=str(tmp_path / "model"))
    (tmp_path / "moved").mkdir()
    model = shutil.move(tmp_path / "model", tmp_path / "moved" / "model")
    run(tmp_path / "out", {**KEPT, "max_steps": 3}, model=str(model))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "note": 1}))
    with pytest.raises(TrainingError, match="the files of `model`"):
        run(tmp_path / "out", {**KEPT, "max_steps": 4}, model=str(model))


def test_data_and_start_may_lie_elsewhere_and_be_written_otherwise(tmp_path, monkeypatch) -> None:
    first = shutil.copytree(world(), tmp_path / "first")
    files = ("videos.jsonl", "images.json")
    run(tmp_path / "out", KEPT, model=str(first / "model"), data=[{"path": str(first / file)} for file in files])
    second = first.rename(tmp_path / "second")
    start = (second / "model").rename(second / "start")
    (start / "trainer_state.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    data = [{"path": f"./second/{file}", "media": str(second)} for file in files]
    run(tmp_path / "out", {**KEPT, "max_steps": 3}, model="second/start", data=data)
    with pytest.raises(TrainingError, match=r"the set second/words\.jsonl: 6 records .* there, 1 records .* now"):
        run(tmp_path / "out", {**KEPT, "max_steps": 3}, data=[{"path": "second/words.jsonl"}, data[1]])


def test_a_set_that_has_no_digest_is_told_by_its_name(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        datasets.Dataset.from_list([video_record(0)] * 4).to_parquet(tmp_path / name / "train.parquet")
    data = [{"path": str(tmp_path / "first"), "media": str(world())}]
    run(tmp_path / "out", KEPT, data=data)
    run(tmp_path / "out", {**KEPT, "max_steps": 3}, data=data)
    with pytest.raises(TrainingError, match=r"4 records of \S*first there, 4 records of \S*second now"):
        run(tmp_path / "out", {**KEPT, "max_steps": 3}, data=[{**data[0], "path": str(tmp_path / "second")}])


OLD_SETTINGS = """
model: {model}
output: {output}
config: {{}}
processor: {{}}
new_merger: false
learning_rates: {{language_model: 0.001, multi_modal_projector: 0.001, scene_merger: 0.001, vision_tower: 0.001}}
optimizer: adamw
optimizer_settings: {{}}
batch_size: 4
data:
- {{path: {data}, media: null, weight: 4, count: null, subset: null, questions: null, split: train, name: null}}
sampling: {{num_scenes: 2, selection: uniform, candidate_fps: null, min_candidates: null, max_candidates: null}}
phases: []
answer_noise: {{share: 0.0, words: []}}
isolate_turns: false
unreadable: fail
attn_implementation: null
dtype: null
lora: {{}}
training:
  num_train_epochs: 1
  lr_scheduler_type: cosine
  logging_steps: 1
  save_steps: 1
  report_to: none
  max_steps: 2
  per_device_train_batch_size: 2
  save_strategy: steps
  seed: 1
  use_cpu: true
resolved:
  processes: 1
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
  model: {mark}
  data:
  - - path: {data}
      records: 6
      digest: b43568b025361070
"""


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path) -> None:
    start = shutil.copytree(world() / "model", tmp_path / "start")
    changes = {"model": str(start), "data": [{"path": str(world() / "videos.jsonl"), "weight": 4}]}
    run(tmp_path / "out", KEPT, **changes)
    (start / "trainer_state.json").write_text("{}")  # which the mark of now is not of
    mark = model_mark(str(start), EARLIER_MODEL_FILES)
    names = {"model": start, "output": tmp_path / "out", "data": world() / "videos.jsonl", "mark": mark}
    (tmp_path / "out" / "settings.yaml").write_text(OLD_SETTINGS.format(**names))
    with pytest.raises(TrainingError, match=r"learning_rates\.scene_merger"):
        run(tmp_path / "out", KEPT, **changes, learning_rates={"scene_merger": 1e-4})
    run(tmp_path / "out", {**KEPT, "max_steps": 3}, **changes)


def test_a_start_s_mark_is_of_what_decides_the_model(tmp_path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    texts = {"config.json": "{}", "tokenizer.json": "[]", "chat_template.jinja": "{{ text }}"}
    for name, text in texts.items():
        (start / name).write_text(text)
    (start / "model.safetensors").write_bytes(bytes(range(256)) * 1500)
    mark = "start 60b85450e1a42ffe"  # as earlier versions wrote it
    assert model_mark(str(start)) == mark
    for name in ("trainer_state.json", "train_results.json", "settings.yaml", "log.jsonl"):
        (start / name).write_text("{}")
    assert model_mark(str(start)) == mark
    assert model_mark(str(start), EARLIER_MODEL_FILES) == "start 9f1c7cbcbd1af554"
    marks = {mark}
    for name in (*texts, "generation_config.json", "model.safetensors"):
        with open(start / name, "a") as file:
            file.write(" ")
        marks.add(model_mark(str(start)))
    assert len(marks) == 6


@pytest.mark.parametrize("text", ["- a\n", "model\n", "model: [\n"])
def test_settings_beside_the_weights_that_are_none_are_refused(tmp_path, text) -> None:
    run(tmp_path / "out", KEPT)
    (tmp_path / "out" / "settings.yaml").write_text(text)
    with pytest.raises(TrainingError, match=r"(?s)settings\.yaml is not valid YAML.*Remove it to go on without"):
        run(tmp_path / "out", KEPT)


def test_a_worker_s_error_is_what_is_wrong_and_no_traceback(tmp_path) -> None:
    write_lines(tmp_path / "some.jsonl", [video_record(0, video="gone.mp4")] * 4)
    data = [{"path": str(tmp_path / "some.jsonl"), "media": str(world())}]
    with pytest.raises(
        TrainingError, match=r"^\S*some\.jsonl, record \d, id v0, gone\.mp4: .*goes on without it\.\)$"
    ):
        run(tmp_path / "out", {"max_steps": 1, "dataloader_num_workers": 1}, data=data)


@pytest.mark.parametrize(
    "wrong",
    [{"split_batches": True}, {"gradient_accumulation_kwargs": {"num_steps": 3}}],
)
def test_what_would_change_the_samples_of_a_step_is_refused(tmp_path, wrong) -> None:
    settings = load_settings(settings_file(tmp_path / "out", {"accelerator_config": wrong}))
    with pytest.raises(TrainingError, match=r"`training\.accelerator_config`.*Leave them out"):
        training_arguments(settings)


def test_a_torn_last_line_is_passed_over_and_goes_with_the_next_one(tmp_path) -> None:
    path = tmp_path / "unreadable.0.jsonl"
    whole = {"step": 1, "set": "a", "record": 1, "id": "\x85 \u2028 \u2029"}
    path.write_text(json.dumps(whole, ensure_ascii=False) + '\n{"step": 1, "se', encoding="utf-8")
    assert unreadable_of(tmp_path) == [whole]
    append_lines(path, [{"step": 2, "set": "a", "record": 2}])
    assert [item["record"] for item in unreadable_of(tmp_path)] == [1, 2]
    path.write_text('{"step": 1, "se\n' + json.dumps(whole) + "\n")
    with pytest.raises(ValueError, match=r"unreadable\.0\.jsonl, line 1: .*Remove that line"):
        unreadable_of(tmp_path)
