"""The picture of a training's losses."""

import json

import pytest
from fila_video.training.loss_curves import draw, main, read_losses
from PIL import Image


def write_log(folder, lines):
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_of_a_step_that_was_repeated_the_later_loss_counts(tmp_path) -> None:
    lines = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 9.0}, {"step": 20, "loss": 1.0}, {"step": 20, "epoch": 1}]
    assert read_losses(write_log(tmp_path / "run", lines)) == ([10, 20], [2.0, 1.0])


def test_each_run_gets_its_plot(tmp_path) -> None:
    runs = [write_log(tmp_path / name, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]) for name in ("a", "b")]
    draw(runs[:1], tmp_path / "one.png")
    draw(runs, tmp_path / "two.png")
    one, two = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "two.png")
    assert two.width == pytest.approx(2 * one.width, rel=0.05)
    assert len(set(two.convert("RGB").resize((200, 80)).getdata())) > 10


def test_a_folder_without_a_run_gets_one_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["loss_curves", str(tmp_path / "o.png"), str(tmp_path / "nowhere")])
    assert main() == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_run_without_a_loss_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"log\.jsonl has no loss"):
        read_losses(write_log(tmp_path / "run", [{"step": 1}]))


def test_a_torn_last_line_is_passed_over_and_another_one_named(tmp_path) -> None:
    whole = '{"step": 1, "loss": 2.0}\n'
    (tmp_path / "log.jsonl").write_text(whole + '{"step": 2, "lo')
    assert read_losses(tmp_path) == ([1], [2.0])
    (tmp_path / "log.jsonl").write_text('{"step": 2, "lo\n' + whole)
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1: .*Remove that line"):
        read_losses(tmp_path)
