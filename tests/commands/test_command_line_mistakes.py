"""Mistakes on the command line: one line says what is wrong, before any work that would be lost."""

import argparse
import json
import os
import subprocess
import sys

import pytest
import torch
from fila_video.commands.cli import MODULES, main, program
from helpers.command_line import copy_of_the_model, refusal
from safetensors.torch import load_file, save_file


def loaded_by(*argv: str) -> set[str]:
    """The libraries that a command has imported when it ends."""
    program = (
        "import sys\n"
        "from fila_video.commands.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded', *({'torch', 'transformers', 'av', 'faiss'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "argv",
    [
        ("--help",),
        ("--version",),
        ("answer", "--help"),
        ("convert", "--help"),
        ("converted", "--help"),
        ("answer", "a.mp4"),
        ("answer", "nothing.mp4", "What?"),
        ("scenes", "a.mp4", "--selection", "magic"),
        ("scenes", "a.mp4"),
        ("scenes", "a.mp4", "--output", "board.pdf"),
        ("nothing",),
    ],
)
def test_help_and_mistakes_import_neither_torch_nor_transformers(argv) -> None:
    assert loaded_by(*argv) == set()


@pytest.mark.parametrize("command", ["answer", "chat", "scenes", *MODULES])
def test_the_help_of_every_command_imports_neither_torch_nor_transformers(command) -> None:
    assert not loaded_by(command, "--help") & {"torch", "transformers"}


def test_a_missing_video_gets_one_line(capsys, tmp_path) -> None:
    assert "nothing.mp4" in refusal(capsys, "answer", str(tmp_path / "nothing.mp4"), "What?")


def test_a_file_that_is_no_video_gets_one_line(capsys, tmp_path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video at all\n" * 100)
    assert "notes.mp4" in refusal(capsys, "scenes", str(path), "--json")


@pytest.mark.parametrize("token", ["<video>", "<image>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_a_question_with_a_control_token_gets_one_line(video, capsys, token) -> None:
    assert token in refusal(capsys, "answer", video, f"What {token}?")


def test_an_empty_question_gets_one_line(video, capsys) -> None:
    assert "question" in refusal(capsys, "answer", video, "  ")


def test_too_few_scenes_get_one_line(video, capsys) -> None:
    assert "`num_scenes` must be at least 1, got 0" in refusal(capsys, "answer", video, "What?", "--num-scenes", "0")


def test_a_device_that_is_not_there_gets_one_line(video, capsys) -> None:
    assert "--device cuda:99" in refusal(capsys, "answer", video, "What?", "--device", "cuda:99")
    assert "--device toaster" in refusal(capsys, "answer", video, "What?", "--device", "toaster")


def test_scenes_without_anything_to_write_get_one_line(video, capsys) -> None:
    assert "--output" in refusal(capsys, "scenes", video)


@pytest.mark.parametrize("name", ["board.txt", "board.pdf", "board.gif", "board"])
def test_a_board_that_is_no_picture_is_refused_before_any_work(capsys, name) -> None:
    message = refusal(capsys, "scenes", "nothing.mp4", "--output", name)
    assert name in message and ".png, .jpg or .webp" in message


@pytest.mark.parametrize("option", ["--output", "--json"])
def test_what_cannot_be_written_is_refused_before_any_work(capsys, tmp_path, option) -> None:
    missing = tmp_path / "nowhere" / "board.png"
    assert f"no folder {missing.parent}" in refusal(capsys, "scenes", "nothing.mp4", option, str(missing))
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "cannot be written" in refusal(capsys, "scenes", "nothing.mp4", option, str(folder))


def test_what_is_read_is_not_written_over(tmp_path, capsys) -> None:
    film, records = tmp_path / "film.json", tmp_path / "records.jsonl"  # whatever its name says, it would be lost
    for file in (film, records):
        file.write_bytes(b"kept")
    again = tmp_path / "again.json"
    again.symlink_to(film)
    for command in (
        ("scenes", str(film), "--json", str(film)),
        ("describe", str(film), "--output", str(again)),
        ("describe", "film.mp4", "--subtitles", str(records), "--output", str(records)),
        ("answer-all", "--records", str(records), "--output", f"{tmp_path}/./records.jsonl"),
    ):
        assert "would take the place of what is read" in refusal(capsys, *command)
    assert film.read_bytes() == records.read_bytes() == b"kept"
    assert "is a kind of picture" in refusal(capsys, "scenes", "film.mp4", "--json", str(tmp_path / "board.png"))


def test_a_board_does_not_become_one_of_the_pictures_that_are_read(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for folder, output in (("pictures", "pictures/board.jpg"), (".", "board.png")):
        assert "one of the pictures that are read" in refusal(capsys, "scenes", folder, "--output", output)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_printed_output_that_cannot_be_written_gets_one_line(tmp_path) -> None:
    record = tmp_path / "fila_video" / "name" / "key" / "source.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fila_video.commands.cli", "converted"],
            env=os.environ | {"HF_ASSETS_CACHE": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_where_there_is_no_standard_output_a_command_ends_as_ever(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["converted"]) == 0
    with pytest.raises(SystemExit) as end:
        monkeypatch.setattr(sys, "argv", ["fila-video", "converted"])
        program()
    assert end.value.code == 0


@pytest.mark.parametrize(
    "command",
    [
        ("scenes", "--json", "{}.mp4", "film.mp4", "--num-scenes", "2"),
        ("scenes", "film.mp4", "--json", "{}.srt"),
        ("describe", "film.mp4", "--output", "{}.MKV", "--format", "text"),
        ("describe", "film.mp4", "--output", "{}.jpg", "--format", "json"),
        ("answer-all", "--records", "videos", "--question", "What?", "--output", "{}.flac"),
    ],
)
def test_an_output_never_takes_the_place_of_media_that_it_is_not(tmp_path, capsys, command) -> None:
    command = [part.format(tmp_path / "mine") for part in command]
    (mine,) = [part for part in command if str(tmp_path) in part]
    assert f"{mine} is a kind of" in refusal(capsys, *command) and not list(tmp_path.iterdir())
    (tmp_path / mine).write_bytes(b"kept")
    assert "by its ending" in refusal(capsys, *command)
    assert (tmp_path / mine).read_bytes() == b"kept"


@pytest.mark.parametrize("path", ["-", os.devnull])
def test_an_output_that_is_gone_on_with_must_be_a_file(video, capsys, path) -> None:
    answer_all = ("answer-all", "--records", video, "--question", "What?", "--output", path)
    for command in (answer_all, ("describe", video, "--format", "text", "--output", path)):
        assert f"--output {path} is no file: name one" in refusal(capsys, *command)
    assert not os.path.exists("-")


def test_a_video_that_json_took_for_its_file_is_asked_back(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["scenes", "--json", "film", "--num-scenes", "2"])
    assert "--json took film for its own: put --json behind VIDEO" in capsys.readouterr().err
    for arguments in (["--json"], ["--output", "board.png"]):
        with pytest.raises(SystemExit):
            main(["scenes", *arguments])
        assert "took" not in capsys.readouterr().err


def test_a_question_in_the_place_of_the_video_is_noticed(video, capsys) -> None:
    assert "pass the video first" in refusal(capsys, "answer", "What happens?", video)


@pytest.mark.parametrize("argv", [("answer", "a.mp4", "What \udcff?"), ("scenes", "a\udcff.mp4", "--json")])
def test_arguments_that_are_not_utf8_get_one_line(capsys, argv) -> None:
    assert "UTF-8" in refusal(capsys, *argv)


def test_a_folder_without_a_model_gets_one_line(video, capsys, tmp_path) -> None:
    message = refusal(capsys, "answer", video, "What?", "--model", str(tmp_path))
    assert f"There is no model in the folder {tmp_path}: it has no config.json" in message


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "{",
        "\xff",
        json.dumps({"model_type": "fila_video", "scene_size": 0}),
        json.dumps({"model_type": "fila_video", "text_config": {"model_type": "nobody knows"}}),
        json.dumps({"model_type": "fila_video", "vision_config": {"patch_size": 0}}),
        json.dumps({"model_type": "fila_video", "text_config": 5}),
    ],
)
def test_a_model_with_a_broken_config_is_named_in_one_line(video, capsys, tmp_path, config) -> None:
    (tmp_path / "config.json").write_text(config, encoding="latin-1")
    assert str(tmp_path) in refusal(capsys, "answer", video, "What?", "--model", str(tmp_path))


def test_weights_that_lack_tensors_are_refused_and_never_filled_with_random_numbers(video, capsys, tmp_path) -> None:
    model = copy_of_the_model(tmp_path / "model")
    tensors = {name: tensor for name, tensor in load_file(model / "model.safetensors").items() if "merger" not in name}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensors, such as model.scene_merger" in refusal(
        capsys, "answer", video, "What?", "--model", str(model)
    )


def test_another_kind_of_model_is_refused_and_never_built(video, capsys, tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert str(tmp_path) in refusal(capsys, "answer", video, "What?", "--model", str(tmp_path))


def test_room_for_subtitles_that_are_not_named_is_refused(video, capsys) -> None:
    for argv in (["answer", video, "What?"], ["chat", video], ["describe", video]):
        message = refusal(capsys, *argv, "--subtitle-tokens", "30")
        assert "--subtitle-tokens 30 is the room for subtitles, but none are named" in message


def test_an_unknown_method_gets_the_usage_and_status_2(video, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["scenes", video, "--json", "--selection", "magic"])
    assert stop.value.code == 2
    assert "kmeans" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("a fault within"), TypeError("another"), KeyError("third")])
def test_a_fault_of_the_program_itself_shows_where_it_happened(video, monkeypatch, error) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("fila_video.commands.answer.run", fail)
    with pytest.raises(type(error)) as raised:
        main(["answer", video, "What?"])
    assert raised.value is error


def test_the_program_prints_the_traceback_of_its_own_faults(video) -> None:
    code = (
        "import sys; import fila_video.commands.answer as answer\n"
        "def broken(args): raise RuntimeError('a fault within')\n"
        "answer.run = broken\n"
        "from fila_video.commands.cli import program\n"
        f"sys.argv = ['fila-video', 'answer', {video!r}, 'What?']; program()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "in broken" in done.stderr


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 60, dtype=torch.uint8), lambda: bytearray(1 << 62)])
def test_too_little_memory_gets_one_line(video, capsys, monkeypatch, allocate) -> None:
    monkeypatch.setattr("fila_video.commands.answer.run", lambda args: allocate())
    assert "not enough memory" in refusal(capsys, "answer", video, "What?")
