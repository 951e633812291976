"""The ablations: trained runs are reused, results are kept, and the tables and the picture come from these alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fila_video.evaluation import ablations
from fila_video.evaluation.ablations import load_ablation, main, model_folders
from fila_video.evaluation.charts import draw
from fila_video.evaluation.tables import Table, pack, unpack
from fila_video.training.optimizers import freeze
from fila_video.training.settings import load_settings
from fila_video.training.train import load_model
from helpers.evaluation_files import make_set
from helpers.evaluation_results import made_up, merging_table, selection_table
from helpers.tiny_processor import model_for, tiny_processor
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(ablations.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a set of questions, and a model."""
    folder = tmp_path_factory.mktemp("world")
    make_set(folder, num_videos=2)
    model_for(tiny_processor()).save_pretrained(folder / "model")
    tiny_processor().save_pretrained(folder / "model")
    return folder


def write_yaml(file, **values):
    file.write_text(yaml.safe_dump(values))
    return str(file)


def settings_of(world, work, **changes):
    rows = [{"label": "Evenly", "selection": "uniform"}, {"label": "By clusters", "selection": "kmeans"}]
    records = str(world / "records.jsonl")
    values = {"title": "Selection", "rows": rows, "sets": {"all": records}, "annotations": records, "work": str(work)}
    return values | {"models": [str(world / "model")]} | changes


def cells(text: str, label: str, number: int = 0) -> list[str]:
    """Of the n-th table row that starts with this label."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in lines[number].strip("|").split("|")]


def test_tables_of_one_name_are_refused(world, tmp_path, capsys) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [write_yaml(tmp_path / each / "table9.yaml", **settings_of(world, tmp_path)) for each in ("a", "b")]
    assert main([*files, "--results", str(tmp_path / "results")]) == 2
    assert "Two of the files have one name" in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_models_are_measured_and_their_table_printed_drawn_and_kept(world, tmp_path, capsys) -> None:
    file = write_yaml(tmp_path / "table9.yaml", **settings_of(world, tmp_path / "work", reference=["Evenly"]))
    results = tmp_path / "results"
    assert main([file, "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert "### Selection" in printed and "all: 3 videos, 5 questions. Chance" in printed
    assert cells(printed, "Evenly")[2] == "-" and cells(printed, "By clusters")[2].startswith("+0.0 (")
    assert Image.open(results / "ablations.png").width > 1000
    answers = json.loads((tmp_path / "work" / "table9_all.json").read_text())
    assert set(answers[str(world / "model")]["questions"][0]["answers"]) == {"uniform", "kmeans", "blind"}
    assert (results / "tables.md").read_text() == printed
    (results / "footage.json").write_text("[]")  # results of another command
    assert str(world) not in (results / "table9.json").read_text()

    (results / "ablations.png").unlink()
    assert main(["--from-results", "--results", str(results)]) == 0
    assert capsys.readouterr().out == printed and (results / "ablations.png").exists()


def training_settings(world, file, **changes):
    data = [{"path": str(world / "records.jsonl")}]
    training = {"max_steps": 1, "per_device_train_batch_size": 1, "use_cpu": True, "dataloader_num_workers": 0}
    values = {"model": str(world / "model"), "output": "set by the ablation", "data": data, "training": training}
    return write_yaml(file, **values | {"learning_rates": {"scene_merger": 1e-3}} | changes)


def test_a_set_may_ask_its_own_kinds_of_question_in_its_own_number_of_scenes(world, tmp_path, capsys) -> None:
    records = str(world / "records.jsonl")
    sets = {"shown first": {"records": records, "kinds": ["what"], "num_scenes": 1}, "every color": records}
    values = settings_of(world, tmp_path / "work", sets=sets, kinds=["color"])
    file = write_yaml(tmp_path / "table9.yaml", **values)
    assert main([file, "--results", str(tmp_path / "results")]) == 0
    printed = capsys.readouterr().out
    assert "shown first: 2 videos, 2 questions." in printed and "every color: 3 videos, 3 questions." in printed
    saved = json.loads((tmp_path / "results" / "table9.json").read_text())["sets"]
    scenes = [saved[label]["recall"]["0 model"]["uniform"] for label in sets]
    few, many = (max(counts[3] for counts in each.values()) for each in scenes)
    assert few <= 1 < many


def test_models_that_are_trained_already_stand_apart_beside_what_the_paper_found(world, tmp_path, capsys) -> None:
    models = [str(world / "model"), str(tmp_path / "second")]
    shutil.copytree(models[0], models[1])
    changes = {"models": models, "paper": "VideoMME", "reference": ["Evenly"], "main": "By clusters"}
    values = settings_of(world, tmp_path / "work", **changes)
    values["rows"][1]["paper"] = "+0.6, +1.6"
    file = write_yaml(tmp_path / "table9.yaml", **values)
    assert main([file, "--results", str(tmp_path / "results"), "--limit", "1"]) == 0
    printed = capsys.readouterr().out
    head = next(line for line in printed.splitlines() if "accuracy" in line)
    columns = ["", "accuracy", "other seeds", "difference", "to By clusters", "paper: VideoMME", "blind"]
    assert [cell.strip() for cell in head.strip("|").split("|")][:7] == columns
    evenly, clusters = cells(printed, "Evenly"), cells(printed, "By clusters")
    assert evenly[3] == evenly[5] == clusters[4] == "-" and clusters[5] == "+0.6, +1.6"
    assert [float(cell.split(" ")[0]) for cell in (evenly[4], clusters[3])] in ([0, 0], [-100, 100], [100, -100])
    assert cells(printed, "Evenly")[2] == cells(printed, "Evenly")[1].split(" ")[0]
    assert main(["--from-results", "--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_what_is_missing_is_trained_once_and_a_row_with_the_same_training_shares_it(world, tmp_path, capsys) -> None:
    changed = {"config.merger_type": "attention"}
    rows = [
        {"label": "Attention pooling", "selection": "uniform", "overrides": changed},
        {"label": "The same, by clusters", "selection": "kmeans", "overrides": changed},
    ]
    settings = training_settings(world, tmp_path / "train.yaml")
    values = settings_of(world, tmp_path / "work", models=[], settings=settings, seeds=[3], rows=rows)
    file = write_yaml(tmp_path / "table9.yaml", **values)
    arguments = [file, "--results", str(tmp_path / "results"), "--limit", "1"]
    assert main([*arguments, "--only-finished"]) == 2
    assert "table9: no training has finished in" in capsys.readouterr().err

    assert main(arguments) == 0, (tmp_path / "work/attention_pooling_3/training.log").read_text()[-2000:]
    folder = tmp_path / "work" / "attention_pooling_3"
    config = json.loads((folder / "config.json").read_text())
    assert config["merger_type"] == "attention"
    assert yaml.safe_load((folder / "settings.yaml").read_text())["training"]["seed"] == 3
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"attention_pooling_3", "table9_all.json"}

    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_rows_that_have_not_been_trained_yet_are_left_out(world, tmp_path, capsys) -> None:
    rows = [{"label": name, "selection": "uniform", "overrides": {"lora.r": name}} for name in ("One", "Two")]
    settings = training_settings(world, tmp_path / "train.yaml")
    work = tmp_path / "work"
    values = settings_of(world, work, models=[], settings=settings, seeds=[0, 1], rows=rows, reference=["One"])
    shutil.copytree(world / "model", work / "two_1")
    (work / "two_1" / ablations.FINISHED).write_text("{}")
    file = write_yaml(tmp_path / "table9.yaml", **values)
    assert main([file, "--results", str(tmp_path / "results"), "--only-finished", "--limit", "1"]) == 0
    printed = capsys.readouterr().out
    assert cells(printed, "Two")[1] == "1" and "| One |" not in printed and "Difference" not in printed


@pytest.mark.slow
def test_a_row_may_have_stages_and_a_row_may_be_what_training_starts_from(world, tmp_path, capsys) -> None:
    cooperative = {"config": {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 5, "key_frames": 2}}
    adapters = {**cooperative, "learning_rates": {"multi_modal_projector": 1e-2}}
    rest = {"learning_rates": {"language_model": 1e-2}, "training.max_steps": 2}
    rows = [
        {"label": "Trained", "selection": "kmeans", "stages": [adapters, rest]},
        {"label": "Before", "selection": "kmeans", "untrained": True, "overrides": adapters},
    ]
    settings = training_settings(world, tmp_path / "train.yaml")
    values = settings_of(world, tmp_path / "work", models=[], settings=settings, seeds=[3], rows=rows)
    file = write_yaml(tmp_path / "table9.yaml", **values, kinds=["what"], reference=["Trained"])
    arguments = [file, "--results", str(tmp_path / "results"), "--limit", "1"]
    assert main(arguments) == 0, (tmp_path / "work/trained_3/training.log").read_text()[-2000:]
    work, printed = tmp_path / "work", capsys.readouterr().out
    assert {path.name for path in work.iterdir() if path.is_dir()} == {"trained_3_stage1", "trained_3", "before_3"}
    second = yaml.safe_load((work / "trained_3" / "settings.yaml").read_text())
    assert (second["model"], second["training"]["max_steps"]) == (str(work / "trained_3_stage1"), 2)
    assert second["learning_rates"] == {"language_model": 1e-2}
    assert cells(printed, "Trained")[1] == cells(printed, "Before")[1] == "1"
    asked = json.loads((work / "table9_all.json").read_text())[str(work / "before_3")]["questions"]
    assert {row["kind"] for row in asked} == {"what"}
    start, first, last = (
        load_file(work / name / "model.safetensors") for name in ("before_3", "trained_3_stage1", "trained_3")
    )
    parts = [
        {key.removeprefix("model.").split(".")[0] for key in one if not torch.equal(one[key], other[key])}
        for one, other in ((start, first), (first, last))
    ]
    # What is new begins alike in both, and the second stage goes on from the first.
    assert parts == [{"cooperative_encoder", "image_newline", "multi_modal_projector"}, {"language_model", "lm_head"}]


@pytest.mark.slow
def test_a_training_that_fails_is_named_with_its_log(world, tmp_path, capsys) -> None:
    data = [{"path": str(tmp_path / "none.jsonl")}]
    settings = training_settings(world, tmp_path / "train.yaml", data=data)
    rows = [{"label": "Weighted", "selection": "uniform"}]
    values = settings_of(world, tmp_path / "work", models=[], settings=settings, seeds=[0], rows=rows)
    assert main([write_yaml(tmp_path / "table9.yaml", **values), "--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "Training 'Weighted', seed 0, failed (2)" in message and "training.log" in message
    assert "There is no file" in (tmp_path / "work" / "weighted_0" / "training.log").read_text()


def start_only(world, tmp_path, given, **changes) -> list[str]:
    """The arguments of a table whose one model is what training starts from, so that nothing is trained."""
    rows = [{"label": "Start", "selection": "uniform", "untrained": True, **changes}]
    settings = training_settings(world, tmp_path / "train.yaml", **given)
    values = settings_of(world, tmp_path / "work", models=[], settings=settings, seeds=[3], rows=rows)
    return [write_yaml(tmp_path / "table9.yaml", **values), "--results", str(tmp_path / "results"), "--limit", "1"]


def test_a_model_of_other_settings_data_or_start_is_not_taken_for_a_rows(world, tmp_path, capsys) -> None:
    start, records = tmp_path / "start", tmp_path / "records.jsonl"
    shutil.copytree(world / "model", start)
    shutil.copy(world / "records.jsonl", records)
    given = {"model": str(start), "data": [{"path": str(records)}]}
    assert main(start_only(world, tmp_path, given)) == 0
    first = capsys.readouterr().out
    assert main(start_only(world, tmp_path, given)) == 0 and capsys.readouterr().out == first

    def refused(*messages: str, **changes) -> None:
        for mode in ([], ["--only-finished"]):
            assert main([*start_only(world, tmp_path, given, **changes), *mode]) == 2
            said = capsys.readouterr().err
            assert f"The run in {tmp_path / 'work' / 'start_3'} was begun with others than the row 'Start' has" in said
            assert "Remove that folder to train it anew" in said
            for message in messages:
                assert message in said

    changed = {"config.merger_type": "mean", "training.max_steps": 600}
    refused("config.merger_type: None there, mean", "steps: 1 there, 600 now", overrides=changed)
    refused("untrained: True there, None now", untrained=False)
    text, config = records.read_text(), (start / "config.json").read_text()
    records.write_text(text + text.splitlines()[0] + "\n")
    refused("records.jsonl: 3 records of digest", "there, 4 records of digest")
    records.write_text(text)
    (start / "config.json").write_text(config + "\n")
    refused("the files of `model`: start ")
    (start / "config.json").write_text(config)
    # What decides no weights may differ, and what another version does not write has its default there.
    file = tmp_path / "work" / "start_3" / "settings.yaml"
    decides = yaml.safe_load(file.read_text())
    del decides["new_merger"], decides["sampling"]["selection"]
    decides["training"]["logging_steps"] = 7
    file.write_text(yaml.safe_dump(decides))
    harmless = start_only(world, tmp_path, given, overrides={"training.dataloader_num_workers": 1})
    assert main(harmless) == 0 and capsys.readouterr().out == first
    # What has finished needs its data no longer.
    records.unlink()
    assert main(harmless) == 0 and capsys.readouterr().out == first
    # One that does not say what decides it is taken as it is.
    file.unlink()
    assert main(start_only(world, tmp_path, given, overrides=changed)) == 0 and capsys.readouterr().out == first


def test_what_would_share_a_folder_or_file_by_its_label_is_refused(world, tmp_path) -> None:
    rows = [{"label": label, "selection": "uniform", "overrides": {"batch_size": len(label)}} for label in ("A", "A+")]
    trained = {"models": [], "settings": training_settings(world, tmp_path / "train.yaml"), "seeds": [0]}
    file = tmp_path / "table9.yaml"
    write_yaml(file, **settings_of(world, tmp_path, rows=rows, **trained))
    with pytest.raises(ValueError, match=r"table9\.yaml: the labels 'A' and 'A\+' .* both be kept as 'a'"):
        load_ablation(file)
    rows[1]["overrides"] = rows[0]["overrides"]  # one training, which both show
    write_yaml(file, **settings_of(world, tmp_path, rows=rows, **trained))
    assert model_folders(load_ablation(file)) == {label: [str(tmp_path / "a_0")] for label in ("A", "A+")}
    sets = {label: str(world / "records.jsonl") for label in ("10 minutes", "10+ minutes")}
    write_yaml(file, **settings_of(world, tmp_path, sets=sets))
    with pytest.raises(ValueError, match=r"the labels '10 minutes' and '10\+ minutes'"):
        load_ablation(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "give either `models`, or `settings` with `seeds`"),
        ({"settings": "train.yaml", "seeds": [0]}, "give either `models`"),
        ({"overrides": {"batch_size": 4}}, "`models` are trained already: `overrides` has no effect"),
        ({"rows": [{"label": "A", "selection": "uniform", "untrained": True}]}, "already: `untrained` has no effect"),
        ({"rows": [{"label": "A"}]}, "a row has `label`, `selection`"),
        ({"rows": [{"label": "A", "selection": "uniform", "seed": 3}]}, "a row has `label`, `selection`"),
        ({"rows": [{"label": "A", "selection": "best"}]}, "Unknown selection 'best'"),
        ({"rows": [{"label": "A", "selection": "uniform", "stages": []}]}, "the row 'A' has `stages`: at least one"),
        ({"rows": [{"label": "A", "selection": "uniform", "paper": "+1.0"}]}, "does not say what `paper` is"),
        ({"sets": {"all": {"file": "a.jsonl"}}}, "the set 'all' has `records` and perhaps `kinds` or `num_scenes`"),
        ({"kinds": ["motion"]}, "has no question of the kinds motion, which 'all' asks"),
        ({"sets": {"all": "RECORDS", "none": "none.jsonl"}}, "none.jsonl"),
        ({"color": "red"}, "it must have rows, sets, title, work"),
        ({"reference": ["C"]}, "the reference 'C' is none of its rows Evenly, By clusters"),
        ({"main": "C"}, "the main row 'C' is none of its rows Evenly, By clusters"),
    ],
)
def test_settings_that_cannot_be_are_named(changes, message, world, tmp_path, capsys) -> None:
    changes = json.loads(json.dumps(changes).replace("RECORDS", str(world / "records.jsonl")))
    file = write_yaml(tmp_path / "table9.yaml", **settings_of(world, tmp_path / "work", **changes))
    assert main([file, "--results", str(tmp_path), "--limit", "1"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()  # said before anything is asked


def test_rows_that_cannot_be_trained_are_named_before_the_first_is(world, tmp_path, capsys) -> None:
    rows = [
        {"label": "Good", "selection": "uniform", "untrained": True},
        {"label": "Bad", "selection": "uniform", "overrides": {"optimizer": "best"}},
    ]
    settings = training_settings(world, tmp_path / "train.yaml")
    values = settings_of(world, tmp_path / "work", models=[], settings=settings, seeds=[0], rows=rows)
    assert main([write_yaml(tmp_path / "table9.yaml", **values), "--results", str(tmp_path)]) == 2
    assert "The row 'Bad': " in capsys.readouterr().err and not (tmp_path / "work").exists()


def test_answers_are_kept_until_their_table_is_saved(world, tmp_path, capsys) -> None:
    file = write_yaml(tmp_path / "table9.yaml", **settings_of(world, tmp_path / "work"))
    (tmp_path / "results").write_text("no folder")
    assert main([file, "--results", str(tmp_path / "results"), "--limit", "1"]) == 2
    assert "results" in capsys.readouterr().err and list((tmp_path / "work").glob("*.part"))


def test_without_results_there_is_nothing_to_draw(tmp_path, capsys) -> None:
    assert main(["--from-results", "--results", str(tmp_path)]) == 2
    assert "holds no results yet" in capsys.readouterr().err
    assert main([]) == 2
    assert "Name the files of settings" in capsys.readouterr().err
    for option in (["--only-finished"], ["--limit", "1"], ["--device", "cpu"]):
        assert main(["--from-results", "--results", str(tmp_path), *option]) == 2
        assert "leave out --only-finished, --limit and --device" in capsys.readouterr().err
    (tmp_path / "table2.json").write_text('{"name": "table2"}')
    assert main(["--from-results", "--results", str(tmp_path)]) == 2
    assert "holds no results of an ablation" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no tables"):
        draw([], tmp_path / "empty.png")


def test_the_files_of_settings_that_come_along_can_be_read() -> None:
    found = {file.stem: load_ablation(file) for file in sorted((ROOT / "evaluation").glob("*.yaml"))}
    assert sorted(found) == ["table2", "table3", "table5", "table_compression", "table_details", "table_frames"]
    for name, runs in (("table_compression", 4 * 3), ("table_details", 4 * 3), ("table_frames", 6 * 3 + 6)):
        assert len({folder for group in model_folders(found[name]).values() for folder in group}) == runs
    assert found["table2"].models == ["stage4", "sixth_default"]
    assert len(found["table3"].seeds) == len(found["table5"].seeds) == 3
    for name, runs in (("table3", 6 * 3), ("table5", 4 * 3)):
        folders = model_folders(found[name])
        assert len({folder for group in folders.values() for folder in group}) == runs


def test_a_table_returns_from_its_file(tmp_path) -> None:
    for table in (selection_table(), merging_table()):
        table.save(tmp_path / "table.json")
        assert (tmp_path / "table.json").stat().st_size < 60_000
        loaded = Table.load(tmp_path / "table.json")
        assert loaded.markdown() == table.markdown()


def test_packed_results_lose_the_answers_alone() -> None:
    results = {"a": made_up({"kmeans": 0.5, "blind": 0.2}, 0, 5)}
    unpacked = unpack(json.loads(json.dumps(pack(results))))["a"]
    for row, one in zip(results["a"]["questions"], unpacked["questions"], strict=True):
        assert one == {name: value for name, value in row.items() if name not in ("expected", "answers")}
    assert unpacked["recall"] == results["a"]["recall"]
    with pytest.raises(ValueError, match="b was asked different questions"):
        pack(results | {"b": made_up({"kmeans": 0.5, "blind": 0.2}, 0, 6)})


def test_accuracy_gain_and_recall_are_what_a_hand_counts() -> None:
    table = selection_table(seeds=2)
    results = list(table.sets["10 minutes"].values())

    def share(column, kinds=("what", "order")):
        return np.mean([row["right"][column] for one in results for row in one["questions"] if row["kind"] in kinds])

    kmeans, single = table.rows[4], table.rows[1]
    assert share("uniform_single") > share("uniform")
    assert table.accuracy(kmeans, "10 minutes")[0] == pytest.approx(share("kmeans"))
    assert table.gain(kmeans, "10 minutes")[0] == pytest.approx(share("kmeans") - share("uniform_single"))
    assert table.gain(single, "10 minutes") is None
    found = sum(recall["found"] for one in results for recall in one["recall"]["kmeans"].values())
    assert table.recall(kmeans, "10 minutes", "found", "events")[0] == pytest.approx(found / (2 * 40 * 4))
    text = table.markdown()
    assert cells(text, "k-means, similar")[2].startswith(f"{100 * share('kmeans'):.1f} (")
    table.groups = {"the first": ["what"]}
    grouped = cells(table.markdown(), "k-means, similar", 1)
    what = [share(name, ("what",)) for name in ("kmeans", "uniform_single")]
    assert grouped[1].startswith(f"{100 * what[0]:.1f} (")
    assert grouped[2].startswith(f"{100 * (what[0] - what[1]):+.1f} (")
    assert cells(text, "k-means, similar", 1)[3] == f"{100 * share('kmeans', ['caption']):.1f}"
    assert cells(text, "Uniform, merged triples, blind")[1] == f"{100 * share('blind', ['what']):.1f}"


def test_the_figures_of_a_table_of_models_apart_are_those_of_the_first() -> None:
    table, first = selection_table(seeds=3), selection_table(seeds=3)
    for row in first.rows:
        row["models"] = row["models"][:1]
    table.apart = True
    for row, alone in zip(table.rows, first.rows, strict=True):
        assert table.accuracy(row, "10 minutes") == first.accuracy(alone, "10 minutes")
        assert table.gain(row, "10 minutes") == first.gain(alone, "10 minutes")
        assert table.recall(row, "10 minutes", "found", "events") == first.recall(
            alone, "10 minutes", "found", "events"
        )
        others = [selection_table(seeds=3) for _ in range(2)]
        for place, other in enumerate(others, 1):
            own = {**row, "models": row["models"][place : place + 1]}
            assert table.other_seeds(row, "10 minutes")[place - 1] == other.accuracy(own, "10 minutes")[0]


def test_rows_with_fewer_seeds_are_compared_over_those_that_both_have() -> None:
    table = selection_table()
    all_seeds = table.gain(table.rows[4], "10 minutes")
    table.rows[4]["models"] = table.rows[4]["models"][:2]
    fewer = selection_table(seeds=2)
    assert table.gain(table.rows[4], "10 minutes") == fewer.gain(fewer.rows[4], "10 minutes") != all_seeds


def test_rows_are_compared_over_the_models_of_the_same_seeds(tmp_path) -> None:
    table = merging_table()
    for row in table.rows:
        row["seeds"] = [0, 1, 2]
    by_place, (base, better, _) = merging_table(), table.rows
    assert table.gain(better, "10 minutes") == by_place.gain(by_place.rows[1], "10 minutes")
    base["models"], base["seeds"] = base["models"][1:], [1, 2]
    better["models"], better["seeds"] = better["models"][:2], [0, 1]
    table.save(tmp_path / "table.json")
    for one in (table, Table.load(tmp_path / "table.json")):
        of_seed_1 = [{**base, "models": base["models"][:1]}, {**better, "models": better["models"][1:]}]
        less, more = (one.accuracy(row, "10 minutes")[0] for row in of_seed_1)
        assert one.gain(one.rows[1], "10 minutes")[0] == pytest.approx(more - less)
    better["models"], better["seeds"] = better["models"][:1], [0]
    assert table.gain(better, "10 minutes") is None and cells(table.markdown(), "Attention pooling")[3] == "-"


def test_what_a_set_does_not_ask_is_a_dash(tmp_path) -> None:
    table = selection_table(seeds=1)
    table.groups = {"shown": ["what", "order"], "moves": ["motion"]}
    grouped = cells(table.markdown(), "k-means, similar", 1)
    assert grouped[1] != "-" and grouped[2] != "-" and grouped[3:] == ["-", "-"]
    for result in table.sets["10 minutes"].values():
        result["questions"] = [row for row in result["questions"] if row["kind"] == "caption"]
    text = table.markdown()
    assert "40 videos, 0 questions" in text and cells(text, "k-means, similar")[2:5] == ["-", "-", "-"]
    assert cells(text, "k-means, similar", 2)[1] != "-"  # captions, among the kinds
    draw([table], tmp_path / "picture.png")


def test_the_picture_shows_the_best_row_and_how_much_it_is(tmp_path) -> None:
    draw([selection_table(), merging_table()], tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    accent = np.abs(picture - (0xD9, 0x60, 0x3F)).sum(-1) < 6
    plain = np.abs(picture - (0x42, 0x7A, 0x94)).sum(-1) < 6
    assert accent.any() and plain.any()
    longest = [
        mask.any(0).nonzero()[0].ptp() if hasattr(np.ndarray, "ptp") else np.ptp(mask.any(0).nonzero()[0])
        for mask in (accent, plain)
    ]
    assert longest[0] > 1.02 * longest[1]


@pytest.mark.parametrize("table", ["table3", "table5"])
def test_every_row_of_the_papers_tables_can_be_trained(table) -> None:
    ablation = load_ablation(ROOT / "evaluation" / f"{table}.yaml")
    for row in ablation.rows:
        values = {**ablation.overrides, **row.get("overrides", {}), "model": str(ROOT)}
        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        settings = load_settings(ablation.settings, overrides)
        model = load_model(settings)[0]
        freeze(model, settings.learning_rates)  # refuses a rate for what has nothing to learn
        learning = {name.split(".")[1] for name, weight in model.named_parameters() if weight.requires_grad}
        if table == "table3":  # what the tokens show, a linear layer has taught
            assert learning == {"language_model"}, row["label"]
        else:
            assert {"language_model", "scene_merger", "vision_tower"} <= learning, row["label"]


def test_what_was_answered_of_a_table_is_kept_until_all_of_it_is(world, tmp_path, capsys, monkeypatch) -> None:
    records = [json.loads(line) for line in (world / "records.jsonl").read_text().splitlines()]
    for record in records:
        record |= {name: str(world / record[name]) for name in ("video", "image") if name in record}
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(map(json.dumps, [records[0], {**records[1], "video": str(broken)}])))
    sets = {"all": str(world / "records.jsonl"), "bad": str(bad)}
    file = write_yaml(tmp_path / "table9.yaml", **settings_of(world, tmp_path / "work", sets=sets))
    arguments = [file, "--results", str(tmp_path / "results")]
    assert main(arguments) == 2
    assert "Record 'test_1': " in (said := capsys.readouterr().err) and "table9_bad.0.part" in said
    broken.write_bytes(Path(records[1]["video"]).read_bytes())
    asked, original = [], ablations.Answerer.read
    spy = lambda self, record, *rest: asked.append(str(record.path)) or original(self, record, *rest)  # noqa: E731
    monkeypatch.setattr(ablations.Answerer, "read", spy)
    assert main(arguments) == 0
    assert set(asked) == {str(broken)}
    assert not list((tmp_path / "work").glob("*.part"))
