"""The paper's tables from the commands at the head of their settings to their figures, with a few films and steps."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from fila_video.commands import cli
from fila_video.evaluation import ablations, motion_probe
from fila_video.evaluation.ablations import main
from fila_video.toy_world.make_videos import Settings, make_videos

FOLDER = Path(ablations.__file__).resolve().parent
RESERVED = {"table2": "615229", "table3": "846013", "table5": "620951"}  # evaluation/seeds.md
FEW = {"clip": "12", "empty": "12"}  # films that are joined; of all others two


def commands(table: str) -> list[list[str]]:
    """The commands at the head of a table's settings, as they stand there."""
    head = (FOLDER / f"{table}.yaml").read_text().split("\ntitle:")[0]
    text = re.sub(r" \\\n# +", " ", head)
    return [shlex.split(line.strip("# ")) for line in text.splitlines() if line.startswith("#     fila-video ")]


def smaller(command: list[str]) -> list[str]:
    """The same for little films of another seed."""
    arguments = command[1:]
    for name, value in {"--count": "2", "--min-duration": "40", "--max-duration": "60", "--seed": "5"}.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
    if "--kind" in arguments and (kind := arguments[arguments.index("--kind") + 1]) in FEW:
        arguments[arguments.index("--count") + 1] = FEW[kind]
    return [*arguments, "--no-progress"]


@pytest.mark.parametrize("table", ["table2", "table3", "table5"])
def test_the_films_of_a_test_have_the_reserved_seed_and_are_those_that_the_table_asks_about(table) -> None:
    settings = yaml.safe_load((FOLDER / f"{table}.yaml").read_text())
    filmed = set()
    for command in commands(table):
        is_test = "--split" in command
        assert (RESERVED[table] in command) == is_test
        if is_test:
            given = {name: command[command.index(f"--{name}") + 1] for name in ("output", "split", "kind")}
            filmed.add(f"{given['output']}/{given['split']}_{given['kind']}.jsonl")
    assert filmed == {one["records"] if isinstance(one, dict) else one for one in settings["sets"].values()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "labels"),
    [
        ("table2", ["Uniform, merged triples", "Largest changes", "By the question", "By the question, first layer"]),
        ("table3", ["Single frames", "Weighted fusion", "Single frames, three times as many"]),
        ("table5", ["No long videos", "50% long"]),
    ],
)
def test_a_table_runs_from_its_films_to_its_figures(table, labels, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("short", "rare"):  # of the recipe
        make_videos("world", Settings(kind, side=64, fps=4, duration=(20, 30)), count=2)
    for name in ("stage3", "stage4", "sixth_default", "third_default"):
        Path(name).symlink_to(FOLDER.parent)
    for command in commands(table):
        assert cli.main(smaller(command)) == 0, command
    if table == "table3":  # what its rows begin with
        few = ["--films", "3", "--test-films", "2", "--epochs", "1", "--batch-size", "4"]
        places = ["--work", "probe", "--save", "taught", "--output", "probe"]
        assert motion_probe.main(["--model", "stage3", "--seeds", "0", *places, *few]) == 0
        capsys.readouterr()
    values = yaml.safe_load((FOLDER / f"{table}.yaml").read_text())
    values["rows"] = [row for row in values["rows"] if row["label"] in labels]
    values["reference"], values["main"] = labels[:1], None
    if "settings" in values:
        few = {"max_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 2, "dataloader_num_workers": 0}
        few |= {"dataloader_persistent_workers": False}
        values["overrides"] |= {f"training.{name}": value for name, value in few.items()} | {"batch_size": 2}
        values |= {"seeds": [0], "settings": str((FOLDER / values["settings"]).resolve())}
    Path("small.yaml").write_text(yaml.safe_dump(values))
    status = main(["small.yaml", "--results", "results", "--limit", "1", "--device", "cpu"])
    logs = [log.read_text()[-3000:] for log in tmp_path.glob("ablations/*/*/training.log")]
    assert status == 0, (capsys.readouterr().err, logs)
    printed = capsys.readouterr().out
    for label in labels:
        assert printed.count(f"| {label} |") >= 2 * len(values["sets"])
    assert f"paper: {values['paper']}" in printed
    saved = json.loads(Path("results/small.json").read_text())
    assert list(saved["sets"]) == list(values["sets"]) and saved["apart"] == (table == "table2")
