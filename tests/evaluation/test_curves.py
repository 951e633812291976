"""The curves by length and by visual tokens: both commands on small films with small models, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video.commands.files import lock_file
from fila_video.evaluation import charts, curves, needle, token_curve
from fila_video.evaluation.curves import Watcher
from fila_video.evaluation.token_curve import COMPRESSED, visual_tokens
from helpers.tiny_processor import model_for, tiny_processor
from PIL import Image


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """Tiny models by name, of which the commands load those that are asked for; by name the model's settings."""
    known = {"tiny": {}}

    def load(name: str, device: str | None) -> tuple:
        processor = tiny_processor(candidate_fps=2.0, max_candidates=24, seek_mode="exact")
        settings = dict(known[name])
        processor.time_marks = settings.pop("time_marks", processor.time_marks)
        processor.pooling_stride = settings.get("pooling_stride", processor.pooling_stride)
        processor.video_processor.background_tokens = settings.get("background_tokens", 0)
        model = model_for(processor, **settings)
        model.get_output_embeddings().weight.data += 0.01 * len(name)
        model.generation_config.max_new_tokens = 3
        return model, processor

    monkeypatch.setattr(curves, "load_model", load)
    return known


def options(folder: Path, *more: str) -> list[str]:
    return ["--model", "tiny", "--work", str(folder), "--output", str(folder / "out"), "--questions", "2", *more]


def test_the_needle_curve_is_measured_drawn_and_gone_on_with(tmp_path, watch, monkeypatch, capsys) -> None:
    given = options(tmp_path, "--minutes", "0.5", "1", "--films", "1")
    assert needle.main(given) == 0
    text = (tmp_path / "out/needle.md").read_text()
    assert capsys.readouterr().out == text
    assert text.count("| uniform frames |") == 2 and text.count("| all of the adaptive pool |") == 1
    saved = (tmp_path / "out/needle.json").read_text()
    assert str(tmp_path) not in saved and "tiny" not in saved  # results are published, folders are not
    results = json.loads(saved)["minutes"]
    assert list(results) == ["0.5", "1.0"] and all(len(films) == 1 for films in results.values())
    for films in results.values():
        for name, way in needle.WAYS.items():
            counts, pool = films[0][name], films[0][way[2]]
            assert 0 <= counts["found"][0] <= pool["found"][0] <= pool["found"][1]  # nothing that the pool lacks
            assert counts["right"][1] == 2
    assert (tmp_path / "out/needle.png").read_bytes().startswith(b"\x89PNG")

    videos = sorted(tmp_path.glob("films/*/videos/*.mp4"))
    asked = []
    monkeypatch.setattr(
        Watcher,
        "pools",
        lambda self, record, count, pools=Watcher.pools: asked.append(record.id) or pools(self, record, count),
    )
    assert needle.main(given) == 0 and asked == []
    assert needle.main(options(tmp_path, "--minutes", "1", "--films", "2")) == 0 and len(asked) == 1
    assert len(sorted(tmp_path.glob("films/*/videos/*.mp4"))) == len(videos) + 1


def test_two_curves_do_not_film_the_same_films_at_once(tmp_path, watch, capsys) -> None:
    pytest.importorskip("fcntl")
    given = options(tmp_path, "--minutes", "0.5", "--films", "1")
    assert needle.main(given) == 0
    (films,) = tmp_path.glob("films/*")
    with open(films / ".lock", "a") as file:
        lock_file(file, films)
        assert needle.main([*given[:-4], "--minutes", "0.5", "--films", "2"]) == 2
    assert f"Another run is writing to {films}" in capsys.readouterr().err


def test_pools_are_one_where_the_film_is_short_and_two_of_one_size_where_it_is_long(
    tmp_path, watch, monkeypatch
) -> None:
    seen = {}

    def pools(self, record, count, pools=Watcher.pools) -> dict:
        seen[record.duration] = pools(self, record, count)
        return seen[record.duration]

    monkeypatch.setattr(Watcher, "pools", pools)
    given = options(tmp_path, "--long-seconds", "30", "--films", "1", "--num-scenes", "2", "--ways", "uniform")
    assert token_curve.main(given) == 0
    long = seen.pop(30.0)
    assert long["even"] is not long["adaptive"]
    assert [len(pool) for pool in long.values()] == [24, 24]
    gaps = torch.tensor(long["even"].timestamps, dtype=torch.float64).diff()
    assert gaps.max() - gaps.min() < 0.6 < torch.tensor(long["adaptive"].timestamps).diff().max()
    (short,) = seen.values()
    assert (short["even"] is short["adaptive"]) is (short["even"].metadata.duration * 2 <= 24)


def test_tokens_are_counted_for_every_model_and_with_lp_comp_where_it_drops_some(tmp_path, watch, capsys) -> None:
    watch |= {"one": {"pooling_stride": 5}, "background": {"background_tokens": 1}}
    given = options(tmp_path, "--long-seconds", "30", "--films", "1", "--num-scenes", "2", "3")
    given[1:2] = ["tiny", "one", "background"]
    assert token_curve.main(given) == 0
    assert (tmp_path / "out/token_curve.png").is_file()
    films = json.loads((tmp_path / "out/token_curve.json").read_text())["films"]
    tokens = {
        label: {column: counts["tokens"][0] / counts["tokens"][1] for column, counts in sets["long"][0].items()}
        for label, sets in films.items()
    }
    ways = [f"{way}, {count}" for way in token_curve.WAYS for count in (2, 3)]
    assert set(tokens["one"]) == set(tokens["background"]) == set(ways)
    assert all(tokens["one"][column] < tokens["background"][column] for column in ways)
    for column in ways:
        way, count = column.split(", ")
        assert tokens["tiny"][f"{way}{COMPRESSED}, {count}"] < tokens["tiny"][column]
    assert tokens["tiny"]["kmeans, 2"] == tokens["tiny"]["farthest, 2"] < tokens["tiny"]["kmeans, 3"]
    text = capsys.readouterr().out
    assert text.count("| by the question (tiny), LP-Comp |") == 0 and "| by the question, LP-Comp (tiny) |" in text


def test_ways_that_have_no_place_beside_others_are_drawn_by_themselves(tmp_path, watch) -> None:
    given = options(tmp_path, "--long-seconds", "30", "--films", "1", "--num-scenes", "2", "--ways", "bsm")
    assert token_curve.main(given) == 0
    picture = np.asarray(Image.open(tmp_path / "out/token_curve.png").convert("HSV"))
    assert (picture[..., 1] > 150).any()  # a line or point in full color


def test_tokens_that_fall_away_count_in_the_layers_that_they_enter() -> None:
    processor = tiny_processor()
    config = model_for(processor, layer_compression="cosine").config
    layers = config.text_config.num_hidden_layers
    side = config.patches_per_side
    plain = model_for(processor).config
    assert visual_tokens(plain, 2 * side**2) == 2 * side**2
    # All enter the first layer and one of a scene the last.
    assert 2 * (side**2 + layers - 1) / layers <= visual_tokens(config, 2 * side**2) < 2 * side**2


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        (needle, ["--ways", "nearest"], "no way 'nearest'"),
        (token_curve, ["--ways", "nearest"], "no way 'nearest'"),
        (needle, ["--films", "0"], "--films must be at least 1"),
        (needle, ["--questions", "0"], "--questions must be at least 1"),
        (needle, ["--minutes", "0.01"], "at least 5 seconds"),
        (token_curve, ["--num-scenes", "0"], "at least 1"),
        (token_curve, ["--label", "a", "b"], "1 models need as many"),
    ],
)
def test_what_cannot_be_is_one_line_on_standard_error(tmp_path, watch, capsys, command, more, message) -> None:
    assert command.main(options(tmp_path, *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and error.startswith(("needle: ", "token_curve: "))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_the_answers_of_another_model_is_refused(tmp_path, watch, capsys) -> None:
    watch["other"] = {}
    given = options(tmp_path, "--minutes", "0.5", "--films", "1", "--ways", "uniform")
    assert needle.main(given) == 0
    given[1] = "other"
    assert needle.main(given) == 2
    assert "holds the answers of tiny with other weights than those of other" in capsys.readouterr().err
    given[1] = "tiny"
    assert needle.main([*given[:-1], "kmeans-even"]) == 2
    assert "with other ways" in capsys.readouterr().err
    watch["tiny"] = {"time_marks": "none"}
    assert needle.main(given) == 2
    assert "with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("command", [needle, token_curve])
def test_without_what_draws_nothing_is_measured(tmp_path, watch, monkeypatch, capsys, command) -> None:
    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    assert command.main(options(tmp_path)) == 2
    assert "Drawing needs matplotlib: pip install 'fila-video[dataset]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "work").exists()


def test_a_model_that_chooses_its_frames_itself_is_refused(tmp_path, monkeypatch, capsys) -> None:
    processor = tiny_processor()
    processor.video_processor.frame_encoding = "cooperative"
    monkeypatch.setattr(curves, "load_model", lambda name, device: (None, processor))
    assert needle.main(options(tmp_path)) == 2
    assert "chooses its frames itself" in capsys.readouterr().err
