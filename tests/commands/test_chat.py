"""`fila-video chat`, as a person uses it: questions and commands on standard input, answers on standard output."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fila_video import VideoTextToTextPipeline, load_model
from fila_video.chat_session_fila_video import Text
from fila_video.commands.chat import converse, show_scenes
from fila_video.commands.cli import main
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "examples" / "shapes.mp4"
PROGRAM = [sys.executable, "-c", "from fila_video.commands.cli import program; program()"]


def talk(argv: list, lines: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PROGRAM, "chat", *map(str, argv)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=280,
    )


@pytest.mark.slow
def test_questions_are_answered_and_the_conversation_goes_on_where_it_was_saved(tmp_path) -> None:
    film, board, folder = tmp_path / "film.mp4", tmp_path / "board.png", tmp_path / "talk"
    shutil.copy2(SAMPLE, film)
    said = talk(
        [film, "--num-scenes", "8"],
        ["What appears at the end?", "/scenes", f"/scenes {board}", "", f"/save {folder}", "What color is the ring?"],
    )
    assert said.returncode == 0, said.stderr[-3000:]
    first, scenes, second = said.stdout.splitlines()
    assert first and second and scenes.startswith("film.mp4, 8 scenes at 0:")
    assert scenes.count(":") == 8
    assert Image.open(board).width > 600
    assert "film.mp4, 0:46.4: 96 frames looked at" in said.stderr
    film.unlink()
    resumed = talk([folder], ["What color is the ring?", "/quit", "What?"])
    assert (resumed.returncode, resumed.stdout) == (0, second + "\n"), resumed.stderr[-3000:]
    assert f"> What appears at the end?\n  {first}\n" in resumed.stderr


@pytest.fixture(scope="module")
def chat():
    model, processor = load_model(device="cpu")
    return VideoTextToTextPipeline(model, processor=processor).chat(SAMPLE, num_scenes=4)


def said_to(chat, capsys, monkeypatch, *lines: str) -> tuple[str, str]:
    waiting = iter(lines)
    monkeypatch.setattr("builtins.input", lambda prompt="": next(waiting, None) or (_ for _ in ()).throw(EOFError))
    converse(chat)
    return capsys.readouterr()


def test_what_cannot_be_done_is_said_and_the_conversation_goes_on(chat, capsys, monkeypatch, tmp_path) -> None:
    out, err = said_to(
        chat,
        capsys,
        monkeypatch,
        "/scenes",
        "What <video> is it?",
        "/nothing at all",
        "/save",
        "What appears at the end?",
        "/scenes board.txt",
        f"/scenes {tmp_path / 'nowhere' / 'board.png'}",
        "/help",
    )
    assert len(out.splitlines()) == 1
    lines = err.splitlines()
    assert lines[0] == "fila-video: No scenes were shown yet: ask something first."
    assert "control token" in lines[1]
    assert lines[2] == "There is no /nothing; /help lists what there is."
    assert lines[3] == "fila-video: Name a folder: /save FOLDER."
    assert "board.txt is no kind of picture" in lines[4]
    assert "there is no folder" in lines[5]
    assert "/quit             leave" in lines
    assert len(chat.messages) == 2


def test_a_video_that_is_not_there_or_settings_of_a_saved_conversation_get_one_line(chat, capsys, tmp_path) -> None:
    assert main(["chat", str(tmp_path / "nothing.mp4")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    chat.save(tmp_path / "talk")
    assert main(["chat", str(tmp_path / "talk"), "--num-scenes", "3", "--device", "cpu"]) == 2
    assert "a conversation with settings of its own: leave out num_scenes" in capsys.readouterr().err


def test_a_folder_of_pictures_is_called_by_its_name_also_when_it_was_saved(monkeypatch, capsys, tmp_path) -> None:
    pictures, folder = tmp_path / "my pictures", tmp_path / "talk"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(pictures / f"{number}.png")
    for argv in ([str(pictures), "--max-new-tokens", "2"], [str(folder)]):
        waiting = iter([f"/save {folder}", "/quit"])
        monkeypatch.setattr("builtins.input", lambda prompt="", waiting=waiting: next(waiting))
        assert main(["chat", *argv, "--device", "cpu"]) == 0
        assert "my pictures, 0:03.0: 3 frames looked at" in capsys.readouterr().err


# The first answer is long: it says "here" once it has begun.
LONG_ANSWER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration as Model
generate = Model.generate
def once(self, *args, **options):
    Model.generate = generate
    print("here", flush=True)
    return generate(self, *args, **{**options, "max_new_tokens": 3000, "min_new_tokens": 3000})
Model.generate = once
from fila_video.commands.cli import program
program()
"""


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_at_the_prompt_it_leaves(tmp_path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_ANSWER, "chat", str(SAMPLE), "--device", "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        process.stdin.write("Tell me all.\n")
        process.stdin.flush()
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        err = ""
        while "not asked" not in err:
            line = process.stderr.readline()
            assert line, err
            err += line
        process.stdout.readline()  # what was written of the stopped answer
        process.stdin.write("What appears at the end?\n/help\n")
        process.stdin.flush()
        assert process.stdout.readline().strip()
        while "/quit" not in err:
            line = process.stderr.readline()
            assert line, err
            err += line
        time.sleep(1)  # it waits for the next line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in err + rest and "KeyboardInterrupt" not in err + rest
    assert not [path.name for path in tmp_path.iterdir() if "fila-video" in path.name]


def test_the_words_of_a_file_stand_beside_the_scenes_and_are_saved(monkeypatch, capsys, tmp_path) -> None:
    words, folder = tmp_path / "words.srt", tmp_path / "talk"
    words.write_text("1\n00:00:05,000 --> 00:00:07,000\nHere it comes\n", encoding="utf-8")
    waiting = iter(["What appears at the end?", f"/save {folder}", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(waiting))
    command = ["chat", str(SAMPLE), "--device", "cpu", "--num-scenes", "4", "--subtitles"]
    assert main([*command, str(words), "--subtitle-tokens", "300"]) == 0
    options = json.loads((folder / "chat.json").read_text(encoding="utf-8"))["options"]
    assert options["subtitles"] == [[[5.0, 7.0, "Here it comes"]]] and options["subtitle_tokens"] == 300
    capsys.readouterr()
    assert main([*command, "eng"]) == 2
    err = capsys.readouterr().err
    assert "shapes.mp4" in err and "it has no subtitles 'eng'; there are none in it" in err


def test_a_board_does_not_take_the_place_of_the_picture_that_is_talked_about(tmp_path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"kept")
    chat = SimpleNamespace(scenes=[{}], videos=[SimpleNamespace(sources=[{"name": str(picture)}])])
    with pytest.raises(ValueError, match="would take the place of what is read"):
        show_scenes(chat, str(picture))
    assert picture.read_bytes() == b"kept"


def test_the_home_folder_is_meant_where_it_is_written_so(chat, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    lines = iter(["What appears at the end?", "/scenes ~/board.png", "/save ~/my talk", "/save talk"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines, None) or (_ for _ in ()).throw(EOFError))
    assert converse(chat, "a model") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board.png", "my talk", "talk"]
    err = capsys.readouterr().err
    for folder in (tmp_path / "my talk", tmp_path / "talk"):
        assert shlex.join(["fila-video", "chat", str(folder), "--model", "a model"]) in err


def test_lines_that_could_not_be_done_are_counted_and_are_the_status_where_nobody_typed(monkeypatch) -> None:
    def status(*lines, is_terminal=False) -> int:
        waiting = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt="": next(waiting, "/quit"))
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
        return main(["chat", str(SAMPLE), "--device", "cpu", "--num-scenes", "2", "--max-new-tokens", "2"])

    assert status("What <video> is it?", "What?") == status("/nothing") == 3
    assert status("What?") == status("/nothing", is_terminal=True) == 0


def test_a_line_in_another_encoding_is_refused_alone(monkeypatch, capsys) -> None:
    lines = io.BytesIO(b"What?\n" + "Où?\n".encode("latin-1") + b"What?\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines, "utf-8"))
    command = ["chat", str(SAMPLE), "--device", "cpu", "--num-scenes", "2", "--max-new-tokens", "2"]
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and err.count("is not valid Unicode") == 1


def test_nothing_more_is_answered_once_nobody_reads(monkeypatch) -> None:
    class Nobody(io.StringIO):
        def write(self, text) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    asked = []

    def stream(question):
        asked.append(question)
        yield Text("a")

    lines = iter(["What?", "What?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    monkeypatch.setattr("sys.stdout", Nobody())
    with pytest.raises(BrokenPipeError):
        converse(SimpleNamespace(stream=stream))
    assert asked == ["What?"]


def test_a_closed_input_is_noticed_before_the_video_is_read(monkeypatch, capsys) -> None:
    monkeypatch.setattr("fila_video.commands.chat.load_pipeline", lambda *args: pytest.fail("a model was loaded"))
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", str(SAMPLE)]) == 2
    assert "standard input is closed" in capsys.readouterr().err
