"""`fila-video select`: pictures, their times, and a contact sheet."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from fila_video import select_frames
from fila_video.commands.cli import main
from helpers.video_files import make_video, number_of, picture
from PIL import Image


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    return str(make_video(tmp_path_factory.mktemp("videos") / "a film.mp4", 120))


def test_the_folder_holds_the_chosen_frames_and_their_times(video, tmp_path) -> None:
    output = tmp_path / "frames"
    output.mkdir()  # an empty one is as good as none
    options = ["--num-frames", "5", "--selection", "kmeans", "--seed", "3", "--candidate-fps", "8"]
    assert main(["select", video, *options, "--output", str(output)]) == 0
    frames, metadata = select_frames(video, 5, selection="kmeans", seed=3, candidate_fps=8)
    described = json.loads((output / "frames.json").read_text())
    assert described["video"] == video and described["duration"] == 4.8 and described["selection"] == "kmeans"
    pictures = [np.asarray(Image.open(output / frame["picture"])) for frame in described["frames"]]
    assert np.array_equal(pictures, frames)
    assert [frame["index"] for frame in described["frames"]] == metadata.frames_indices
    assert [frame["timestamp"] for frame in described["frames"]] == pytest.approx(metadata.timestamps, abs=5e-4)
    assert [number_of(picture) for picture in pictures] == metadata.frames_indices
    assert Image.open(output / "contact_sheet.jpg").width > 400
    names = sorted(path.name for path in output.iterdir())
    assert names == sorted(["contact_sheet.jpg", "frames.json", *(frame["picture"] for frame in described["frames"])])
    assert names[: len(pictures)] == [frame["picture"] for frame in described["frames"]]  # in the order of time


def test_a_model_compares_its_own_features(video, tmp_path) -> None:
    assert main(["select", video, "--num-frames", "4", "--model", ".", "--output", str(tmp_path / "a")]) == 0
    assert len(json.loads((tmp_path / "a" / "frames.json").read_text())["frames"]) == 4


def test_a_scorer_runs_on_the_device_that_is_named(video, tmp_path, capsys) -> None:
    options = ["--num-frames", "2", "--question", "Where is it red?", "--scorer", "none", "--device", "nowhere"]
    assert main(["select", video, *options, "--output", str(tmp_path / "a")]) == 2
    assert "--device nowhere cannot be used" in capsys.readouterr().err


ASKED = ["--question", "Where is it red?", "--scorer", "none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--selection", "uniform", "--model", "."], "--selection uniform goes by time alone: leave out --model"),
        (["--selection", "uniform", "--candidate-fps", "1"], "leave out --candidate-fps"),
        (["--selection", "uniform", "--seed", "1", "--max-candidates", "9"], "leave out --max-candidates, --seed"),
        ([*ASKED, "--model", "."], "--question goes by the scorer alone: leave out --model"),
        ([*ASKED, "--seed", "1"], "leave out --seed"),
        (["--seed", "1"], "--selection farthest draws nothing at random: leave out --seed"),
        (["--device", "nowhere"], "--device nowhere is of --model or --scorer"),
    ],
)
def test_options_without_an_effect_are_refused_and_load_no_model(
    video, tmp_path, capsys, monkeypatch, options, message
) -> None:
    loaders = "commands.loading.load_model", "other_models.contrastive_scorer.ContrastiveScorer"
    for loader in loaders:
        monkeypatch.setattr(f"fila_video.{loader}", lambda *args, **settings: pytest.fail("a model was loaded"))
    assert main(["select", video, "--num-frames", "4", *options, "--output", str(tmp_path / "frames")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_rate_of_pictures_gives_their_times_whatever_the_selection(tmp_path, capsys) -> None:
    pictures, output = tmp_path / "pictures", tmp_path / "frames"
    pictures.mkdir()
    for number in range(4):
        Image.fromarray(picture(number)).save(pictures / f"{number}.png")
    options = ["--num-frames", "4", "--selection", "uniform", "--candidate-fps", "2", "--output", str(output)]
    assert main(["select", str(pictures), *options, "--max-candidates", "9"]) == 2
    assert "goes by time alone: leave out --max-candidates." in capsys.readouterr().err
    assert main(["select", str(pictures), *options]) == 0
    frames = json.loads((output / "frames.json").read_text())["frames"]
    assert [frame["timestamp"] for frame in frames] == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("selection", ["farthest", "uniform"])
def test_a_folder_of_pictures_is_chosen_from(tmp_path, selection) -> None:
    pictures, output = tmp_path / "pictures", tmp_path / "frames"
    pictures.mkdir()
    for number in range(6):
        Image.fromarray(picture(number)).save(pictures / f"{number}.png")
    options = ["--num-frames", "3", "--selection", selection, "--output", str(output)]
    assert main(["select", str(pictures), *options]) == 0
    frames = json.loads((output / "frames.json").read_text())["frames"]
    chosen = [number_of(np.asarray(Image.open(output / frame["picture"]))) for frame in frames]
    assert len(chosen) == 3 and chosen == [frame["index"] for frame in frames]


def test_fewer_frames_than_were_asked_for_are_said(tmp_path, capsys) -> None:
    film, output = make_video(tmp_path / "one.mp4", 1), tmp_path / "frames"
    assert main(["select", str(film), "--num-frames", "8", "--output", str(output)]) == 0
    assert f"--num-frames is 8, but {film} has only 1: all are written" in capsys.readouterr().err
    described = json.loads((output / "frames.json").read_text())
    assert described["selection"] == "all" and len(described["frames"]) == 1


def test_what_is_wrong_is_said_in_a_line_and_leaves_nothing(video, tmp_path, capsys) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "note.txt").write_text("mine")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path, count, output, message in (
        (video, "4", full, "not an empty folder"),
        (video, "4", tmp_path / "no" / "folder", "there is no folder"),
        (video, "0", tmp_path / "new", "`num_frames` must be a whole number"),
        (str(broken), "4", tmp_path / "new", "broken.mp4"),
        (str(tmp_path / "missing.mp4"), "4", tmp_path / "new", "no such file"),
    ):
        assert main(["select", path, "--num-frames", count, "--output", str(output)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "full"]
    assert [path.name for path in full.iterdir()] == ["note.txt"]


def test_what_a_killed_command_left_is_no_obstacle_and_goes_but_nothing_else(video, tmp_path) -> None:
    for home in (tmp_path, tmp_path / "there"):
        output = tmp_path / "there" if home != tmp_path else tmp_path / "new"
        left = home / f"{output.name}.7.part"
        left.mkdir(parents=True)
        (left / "0001_0.000s.png").write_bytes(b"half a pict")
    mine = tmp_path / "new.8.part"
    mine.mkdir()
    (mine / "note.txt").write_text("mine")
    (tmp_path / "new.part").mkdir()  # an earlier version's
    for output in ("new", "there"):
        assert main(["select", video, "--num-frames", "2", "--output", str(tmp_path / output)]) == 0
        assert len(list((tmp_path / output).iterdir())) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.8.part", "new.part", "there"]


def test_the_folder_where_the_command_is_started_is_filled_itself(video, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.stat(".").st_ino
    assert main(["select", video, "--num-frames", "2", "--output", "."]) == 0
    assert os.stat(tmp_path).st_ino == before and len(os.listdir(".")) == 4


def test_an_interrupted_command_leaves_no_picture_in_a_folder_that_was_there(video, tmp_path, monkeypatch) -> None:
    rename = Path.rename

    def interrupt(path, target):
        if path.name == "frames.json":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    assert main(["select", video, "--num-frames", "2", "--output", str(tmp_path)]) == 130
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_leaves_no_folder(video, tmp_path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    assert main(["select", video, "--num-frames", "4", "--output", str(tmp_path / "frames")]) == 130
    assert not list(tmp_path.iterdir())
