"""A run's file of settings: what is wrong in it is said before anything is loaded; the stages are the paper's."""

import re
from pathlib import Path

import pytest
import yaml
from fila_video.toy_world.world import UNSEEN_PAIRS
from fila_video.training.parsing import load_yaml
from fila_video.training.settings import Sampling, Settings, TrainingError, load_settings
from fila_video.training.train import training_arguments

TRAINING = Path(__file__).resolve().parent.parent.parent / "training"
# Table 4: rates of vision encoder, projector, language model, merging module; batch size.
TABLE_4 = {
    "stage1_align": ((None, 1e-3, None, None), 32),
    "stage2_knowledge": ((2e-6, 2e-6, 1e-5, None), 64),
    "stage3_image": ((2e-6, 2e-6, 1e-5, None), 128),
    "stage4_video": ((2e-6, 2e-6, 1e-5, 2e-6), 128),
    "stage4_base": ((2e-6, 2e-6, 1e-5, None), 128),
    "stage5_compression": ((None, 1e-5, 1e-5, None), 32),
}


def written(tmp_path, **changes) -> Path:
    values = {"model": "m", "output": "o", "learning_rates": {"scene_merger": 1e-3}, "data": [{"path": "d.jsonl"}]}
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


@pytest.mark.parametrize("stage", TABLE_4)
def test_the_stages_have_the_rates_and_the_batch_of_table_4(stage, monkeypatch, tmp_path) -> None:
    settings = load_settings(TRAINING / f"{stage}.yaml", [f"output={tmp_path}", "training.use_cpu=true"])
    parts = ("vision_tower", "multi_modal_projector", "language_model", "scene_merger")
    assert (tuple(settings.learning_rates.get(part) for part in parts), settings.batch_size) == TABLE_4[stage]
    arguments = training_arguments(settings)
    assert arguments.num_train_epochs == 1 and arguments.lr_scheduler_type == "cosine"
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert batch == settings.batch_size


def test_the_command_in_a_stage_s_header_names_its_file() -> None:
    for stage in TABLE_4:
        header = (TRAINING / f"{stage}.yaml").read_text().split("\nmodel:")[0]
        assert f"-m fila_video.training.train training/{stage}.yaml" in header


def test_stage_4_takes_96_frames_for_32_and_the_baseline_32() -> None:
    video, base = (load_settings(TRAINING / f"{name}.yaml") for name in ("stage4_video", "stage4_base"))
    assert video.sampling.num_scenes * video.config["scene_size"] == 96 and video.config["merger_type"] == "weighted"
    assert base.sampling.num_scenes * base.config["scene_size"] == 32 and base.processor["num_scenes"] == 64
    assert video.sampling.selection == base.sampling.selection == "uniform"


def test_compression_tuning_is_as_long_as_xcomps_and_shows_as_many_tokens() -> None:
    settings = load_settings(TRAINING / "stage5_compression.yaml")
    assert sum(source.count for source in settings.data) == 2247 * settings.batch_size
    tokens = [196 * scenes for scenes in settings.sampling.num_scenes]
    assert min(tokens) <= 128 * 16 < min(tokens) + 196 and max(tokens) <= 1024 * 16 < max(tokens) + 196
    assert settings.config["layer_compression_group"] == 16


def test_overrides_reach_into_the_settings_and_are_read_as_yaml(tmp_path) -> None:
    overrides = ["training.seed=7", "data.0.count=9", "learning_rates.scene_merger=2e-6", "config.merger_type=mean"]
    settings = load_settings(written(tmp_path), overrides)
    assert settings.training == {"seed": 7} and settings.data[0].count == 9
    assert settings.learning_rates == {"scene_merger": 2e-6} and settings.config == {"merger_type": "mean"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": {}}, "no `learning_rate`. Did you mean learning_rates"),
        ({"sampling": {"num_scene": 3}}, "`sampling` knows no `num_scene`. Did you mean num_scenes"),
        ({"data": [{"path": "a", "wieght": 2}]}, "`data.0` knows no `wieght`. Did you mean weight"),
        ({"data": [{"path": "a", "weight": 2, "count": 3}]}, "both `weight` and `count`"),
        ({"data": []}, "no `data`"),
        ({"learning_rates": {"vision": 1}}, "knows no `vision`"),
        ({"learning_rates": {"scene_merger": "fast"}}, "must be a number, got 'fast'"),
        ({"optimizer": "sgd"}, "must be one of adamw, muon, got 'sgd'"),
        ({"unreadable": "ignore"}, "must be one of fail, skip"),
        (
            {"data": [{"path": "a", "questions": {"kind": "when"}}]},
            "`data.0.questions.kind` must be a list, got 'when'",
        ),
        ({"data": [{"path": "a", "count": "many"}]}, "`data.0.count` must be a whole number, got 'many'"),
        ({"data": [{"path": "a"}, {"weight": 1}]}, "no `data.1.path`"),
        ({"sampling": 3}, "`sampling` must be a mapping of names to values, got 3"),
        (
            {"sampling": {"num_scenes": "all"}},
            "must be a whole number or a list or a mapping of names to values, got 'all'",
        ),
        ({"sampling": {"num_scenes": []}}, "must be a positive number, got 0"),
        ({"sampling": {"num_scenes": [4, 0]}}, "must be a positive number, got 0"),
        ({"batch_size": -4}, "`batch_size` must be a positive number, got -4"),
        ({"batch_size": 0}, "`batch_size` must be a positive number, got 0"),
        ({"answer_noise": {"share": 1.5, "words": ["a", "b"]}}, "a `share` from 0 to 1, got 1.5"),
        ({"answer_noise": {"share": 0.5, "words": ["red", "red"]}}, "at least two `words`, got 1"),
        ({"unseen_pairs": [["red", "ring"], ["blue"]]}, r"pairs of two words each, .*, got \['blue'\]"),
        ({"unseen_pairs": [["dark red", "ring"]]}, "pairs of two words each"),
        ({"unseen_pairs": [["red", " "]]}, r"pairs of two words each, .*, got \['red', ' '\]"),
    ],
)
def test_wrong_settings_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(TrainingError, match=message.replace("(", r"\(")):
        load_settings(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "key=value"),
        ("data.3.count=1", "has 1 entries"),
        ("data.²=1", "has 1 entries"),
        ("data.0={path: a, path: b}", "`path` is given twice"),
        ("output=2024-02-30", "'output=2024-02-30' is not valid YAML"),
        ("model.name=x", "one value"),
        ("model=[x", r"The override 'model=\[x' is not valid YAML"),
    ],
)
def test_wrong_overrides_are_named(tmp_path, override, message) -> None:
    with pytest.raises(TrainingError, match=message):
        load_settings(written(tmp_path), [override])


def test_what_a_merge_brings_is_not_given_twice(tmp_path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("x:\n  y: &b\n    <<: &r {a: 1}\n    a: 2\nchild:\n  <<: *b\n")
    assert load_yaml(path.read_text()) == {"x": {"y": {"a": 2}}, "child": {"a": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "settings.yaml' is empty"),
        (b"# nothing\n", "settings.yaml' is empty"),
        (b"model: \xff\n", "settings.yaml: not valid YAML"),
        (b"model: a\noutput: b\nmodel: c\n", "(?s)settings.yaml: not valid YAML: `model` is given twice.*line 3"),
        (b"training:\n  seed: 1\n  seed: 2\n", "(?s)`seed` is given twice.*line 3"),
    ],
)
def test_a_file_without_settings_or_of_no_text_is_named(tmp_path, content, message) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    for overrides in ([], ["model=m"]):
        with pytest.raises(TrainingError, match=message):
            load_settings(path, overrides)


def test_a_file_in_utf_16_is_read(tmp_path) -> None:
    path = written(tmp_path, output="Läufe")
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    assert load_settings(path).output == "Läufe"


def test_a_key_without_a_value_keeps_its_default(tmp_path) -> None:
    settings = load_settings(written(tmp_path, config=None, sampling=None, batch_size=None))
    assert (settings.config, settings.sampling, settings.batch_size) == ({}, Sampling(), None)


def made(**changes) -> Settings:
    changes = {"training": {"use_cpu": True}, **changes}
    return Settings(model="m", output="o", **changes)


def test_a_batch_that_does_not_divide_is_refused_with_both_numbers(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    settings = made(batch_size=128, training={"per_device_train_batch_size": 2, "use_cpu": True})
    with pytest.raises(TrainingError, match="`batch_size` 128 is no multiple of 6, 3 processes"):
        training_arguments(settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learning_rate", "set by `learning_rates`"),
        ("gradient_accumulation_steps", "from which it follows"),
        ("lr_schedular_type", "Did you mean lr_scheduler_type"),
        ("adam_beta1", "`training.adam_beta1` is set by `optimizer_settings.betas`. Leave it out"),
        ("adam_beta2", "set by `optimizer_settings.betas`"),
        ("adam_epsilon", "set by `optimizer_settings.eps`"),
        ("optim_args", "set by `optimizer_settings`"),
        ("train_sampling_strategy", "set by the mixture of `data`"),
        ("label_smoothing_factor", "cannot be used"),
        ("eval_steps", "has no effect: training evaluates nothing"),
        ("metric_for_best_model", "has no effect: training evaluates nothing"),
        ("auto_find_batch_size", "would change the steps of `batch_size`"),
        ("save_only_model", "would begin its optimizer and its rates anew"),
        ("ignore_data_skip", "would begin its data anew"),
        ("resume_from_checkpoint", "goes on from the last checkpoint in `output`"),
    ],
)
def test_training_arguments_that_are_set_elsewhere_unknown_or_without_effect_are_refused(name, message) -> None:
    with pytest.raises(TrainingError, match=message):
        training_arguments(made(training={name: 1}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr_scheduler_type", "cosin", "`training`: cosin is not a valid SchedulerType"),
        ("warmup_steps", -1, "`training`: .*warmup_steps"),
        ("num_train_epochs", -1, "`training.num_train_epochs` must be a positive number, got -1"),
        ("per_device_train_batch_size", 0, "`training.per_device_train_batch_size` must be a positive number, got 0"),
    ],
)
def test_values_of_training_arguments_that_cannot_be_are_an_error_of_training(name, value, message) -> None:
    with pytest.raises(TrainingError, match=message):
        training_arguments(made(batch_size=8, training={"use_cpu": True, name: value}))


def test_the_recipe_is_four_stages_in_a_row_and_films_what_they_train_on() -> None:
    folder = TRAINING / "tiny"
    script = (folder / "run.sh").read_text()
    stages = re.findall(r"^train (\S+)", script, re.M)
    assert stages == sorted(path.stem for path in folder.glob("*.yaml")) and len(stages) == 4
    filmed = set(re.findall(r"^(world\S*) (\S+) \d", (folder / "films.txt").read_text(), re.M))
    assert len(script.splitlines()) <= 42
    before, used = "seeing", {("world", "clip"), *(("world" + part, "picture") for part in ("", "/shapes", "/colors"))}
    for stage in stages:
        settings = load_settings(folder / f"{stage}.yaml")
        training_arguments(settings)
        assert settings.model == before
        assert {tuple(pair) for pair in settings.unseen_pairs} == set(UNSEEN_PAIRS)
        for source in [*settings.data, *(source for phase in settings.phases for source in phase.data)]:
            path = Path(source.path)
            used.add((str(path.parent), path.stem.removeprefix("train_")))
        before = settings.output
    assert before == "stage4" and used - {("world", "long")} == filmed
    assert "--output world/long" in script


def test_the_last_phase_asks_everything_in_four_to_sixty_four_scenes() -> None:
    settings = load_settings(TRAINING / "tiny" / "stage4_video.yaml")
    *narrow, last = settings.phases
    assert len(narrow) == 12 and all(phase.questions for phase in narrow[:6]) and last.questions is None
    assert last.sampling.num_scenes == {"min": 4, "max": 64} and set(last.sampling.selection) == {"uniform", "kmeans"}
    decay = settings.training["lr_scheduler_kwargs"]["num_decay_steps"]
    assert decay < last.steps  # every skill is learned at the full rate
