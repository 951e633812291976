"""The command line, run as a user runs it: answers, scenes, storyboards, and one line for what is wrong."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import fila_video
import numpy as np
import pytest
import torch
from fila_video.commands.cli import DEMONSTRATION, SELECTIONS, main
from fila_video.commands.loading import DEFAULT_MODEL, Progress
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.scene_selection_fila_video import METHODS
from fila_video.training.tiny.make_initial_checkpoint import FILES
from helpers.video_files import make_video, number_of
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "examples" / "sample.mp4"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "a film.mp4"
    make_video(path, 120)
    return str(path)


def copy_of_the_model(folder):
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in FILES or path.name.endswith("_fila_video.py"):
            shutil.copy(path, folder)
    return folder


def refusal(capsys, *argv):
    """The one line that `argv` gets on standard error, besides what is said of the demonstration."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    err = err.removeprefix(DEMONSTRATION + "\n")
    assert err.startswith("fila-video: ") and err.count("\n") == 1
    return err


def test_the_sample_video_is_small_and_plays_everywhere() -> None:
    assert SAMPLE.stat().st_size <= 2_000_000
    with av.open(str(SAMPLE)) as container:
        (picture,), (sound,) = container.streams.video, container.streams.audio
        assert (picture.codec_context.name, picture.codec_context.profile) == ("h264", "High")
        assert (picture.pix_fmt, sound.codec_context.name) == ("yuv420p", "aac")
        assert picture.duration * picture.time_base >= 120 and sound.duration * sound.time_base >= 120
    content = SAMPLE.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "it can play while it loads"


def test_answer_streams_what_the_model_generates(video, capsys) -> None:
    assert main(["answer", video, "Describe the video.", "--num-scenes", "4", "--max-new-tokens", "2"]) == 0
    streamed, messages = capsys.readouterr()

    model = FilaVideoForConditionalGeneration.from_pretrained(ROOT).eval()
    processor = FilaVideoProcessor.from_pretrained(ROOT)
    processor.frame_encoder = model.encode_frames
    content = [{"type": "video", "video": video}, {"type": "text", "text": "Describe the video."}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"num_scenes": 4},
    )
    tokens = model.generate(**inputs, max_new_tokens=2)[0, inputs["input_ids"].shape[1] :]
    assert len(tokens) == 2
    assert streamed == processor.decode(tokens, skip_special_tokens=True) + "\n"
    assert messages == DEMONSTRATION + "\n"


@pytest.mark.parametrize("encoding", ["cooperative", "background"])
def test_both_encodings_answer_and_show_the_frames_beside_those_that_matter(video, tmp_path, capsys, encoding) -> None:
    settings = {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 8, "key_frames": 0.5}
    settings |= {"background_tokens": 2} if encoding == "cooperative" else {}
    settings = settings if encoding == "cooperative" else {"background_tokens": 1}
    FilaVideoForConditionalGeneration.from_pretrained(ROOT, **settings).save_pretrained(tmp_path / "model")
    FilaVideoProcessor.from_pretrained(ROOT, **settings, min_candidates=30).save_pretrained(tmp_path / "model")
    options = ("--model", str(tmp_path / "model"), "--num-scenes", "4")
    assert main(["answer", video, "What is red?", "--max-new-tokens", "2", *options]) == 0
    board = tmp_path / "board.png"
    capsys.readouterr()
    assert main(["scenes", video, "--json", "--output", str(board), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    shown = [index for scene in told["scenes"] for index in scene["indices"]]
    others = [frame["index"] for frame in told["background"]]
    assert told["num_scenes"] == len(told["scenes"]) == 4
    assert ("selection" in told, told.get("frame_encoding")) == (
        (False, "cooperative") if encoding == "cooperative" else (True, None)
    )
    assert not set(shown) & set(others) and others == sorted(others)
    assert len(others) == 30 - (4 if encoding == "cooperative" else 12)
    assert Image.open(board).height > 300


def test_scenes_as_json_are_those_that_the_processor_selects(video, capsys) -> None:
    assert main(["scenes", video, "--num-scenes", "5", "--selection", "uniform", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    processor = FilaVideoProcessor.from_pretrained(ROOT)
    scenes = processor(videos=[video], num_scenes=5, selection="uniform", return_scenes=True)["scenes"][0]
    assert [scene["indices"] for scene in told["scenes"]] == scenes["indices"].tolist()
    np.testing.assert_allclose([scene["timestamps"] for scene in told["scenes"]], scenes["timestamps"], atol=5e-4)
    for scene in told["scenes"]:
        assert scene["representative"] == {"index": scene["indices"][-1], "timestamp": scene["timestamps"][-1]}
    assert (told["num_scenes"], told["scene_size"], told["selection"]) == (5, 3, "uniform")
    assert told["duration"] == pytest.approx(4.8)  # 120 frames at 25 a second
    assert told["video"] == video


def test_by_default_scenes_are_selected_on_the_models_own_features(video, capsys, monkeypatch) -> None:
    encoded = []
    encode = FilaVideoForConditionalGeneration.encode_frames
    monkeypatch.setattr(
        FilaVideoForConditionalGeneration,
        "encode_frames",
        lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels),
    )
    assert main(["scenes", video, "--json"]) == 0
    assert sum(encoded) == 96  # the whole pool


def test_scenes_writes_a_storyboard_and_json_to_files(video, tmp_path, capsys) -> None:
    board, data = tmp_path / "board.png", tmp_path / "scenes.json"
    assert main(["scenes", video, "--num-scenes", "6", "--output", str(board), "--json", str(data)]) == 0
    assert capsys.readouterr() == ("", DEMONSTRATION + "\n")
    assert Image.open(board).width > 900
    assert len(json.loads(data.read_text())["scenes"]) == 6


def test_the_storyboard_shows_the_very_frames_that_were_selected(video, tmp_path, capsys, monkeypatch) -> None:
    boards = []

    def draw(frames, scenes, timestamps, **options):
        boards.append([[(number_of(frames[n]), timestamps[n]) for n in scene] for scene in scenes])
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("fila_video.commands.scenes.draw_storyboard", draw)
    assert main(["scenes", video, "--num-scenes", "6", "--json", "--output", str(tmp_path / "board.png")]) == 0
    told = json.loads(capsys.readouterr().out)["scenes"]
    expected = [list(zip(scene["indices"], scene["timestamps"], strict=True)) for scene in told]
    assert [[number for number, _ in scene] for scene in boards[0]] == [scene["indices"] for scene in told]
    np.testing.assert_allclose(boards[0], expected, atol=5e-4)


def test_a_model_elsewhere_is_run_by_this_packages_code_and_never_by_its_own(video, tmp_path, capsys) -> None:
    model = copy_of_the_model(tmp_path / "model")
    marker = tmp_path / "the code of the repository ran"
    with open(model / "modeling_fila_video.py", "a") as code:
        code.write(f"\n\nopen({str(marker)!r}, 'w').close()\n")
    assert main(["scenes", video, "--num-scenes", "2", "--json", "--model", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["num_scenes"] == 2
    assert not marker.exists()


def test_the_selections_of_the_command_line_are_those_of_the_library() -> None:
    assert set(SELECTIONS) == {*METHODS, "question"}


def test_settings_of_the_selection_reach_the_processor(video, capsys) -> None:
    argv = [
        "scenes",
        video,
        "--json",
        "--num-scenes",
        "3",
        "--seed",
        "7",
        "--candidate-fps",
        "2",
        "--seek-mode",
        "exact",
    ]
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    processor = FilaVideoProcessor.from_pretrained(ROOT)
    model = FilaVideoForConditionalGeneration.from_pretrained(ROOT).eval()
    processor.frame_encoder = model.encode_frames
    settings = {"num_scenes": 3, "seed": 7, "candidate_fps": 2.0, "seek_mode": "exact"}
    scenes = processor(videos=[video], return_scenes=True, **settings)["scenes"][0]
    assert [scene["indices"] for scene in told["scenes"]] == scenes["indices"].tolist()


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


# What is said just before: Python is up, the model is being loaded, and the answer has begun.
STAGES = {
    "imports": "import fila_video.commands.cli as cli, sys; print('now', flush=True); cli.program()",
    "reading": (
        "import fila_video.commands.cli as cli, fila_video.processing_fila_video as processing, sys, time\n"
        "def read(*args, **kwargs): print('now', flush=True); time.sleep(100)\n"
        "processing.FilaVideoProcessor._process_videos = read\n"
        "cli.program()"
    ),
    "code in C": (
        "import fila_video.commands.cli as cli, sys, hashlib\n"
        "def run(args): print('now', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 30)\n"
        "cli.run_answer = run; cli.program()"
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_the_process_with_status_130_at_once(video, stage) -> None:
    """Deadlines are generous: without the handler, the last stage goes on for many minutes."""
    command = [sys.executable, "-c", STAGES[stage], "answer", video, "What?"]
    # A shell's background jobs ignore Ctrl-C, and hand that down.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout.readline() == "now\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in messages


def test_the_module_runs_as_a_program(video) -> None:
    command = [sys.executable, "-m", "fila_video.commands.cli", "scenes", video, "--num-scenes", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_scenes"] == 2


def test_other_modules_commands_are_listed_and_take_their_own_arguments(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--help"])
    assert stop.value.code == 0
    assert "--merger" in capsys.readouterr().out


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


def test_a_question_in_the_place_of_the_video_is_noticed(video, capsys) -> None:
    assert "pass the video first" in refusal(capsys, "answer", "What happens?", video)


@pytest.mark.parametrize("argv", [("answer", "a.mp4", "What \udcff?"), ("scenes", "a\udcff.mp4", "--json")])
def test_arguments_that_are_not_utf8_get_one_line(capsys, argv) -> None:
    assert "UTF-8" in refusal(capsys, *argv)


def test_a_folder_without_a_model_gets_one_line(video, capsys, tmp_path) -> None:
    assert "config.json" in refusal(capsys, "answer", video, "What?", "--model", str(tmp_path))


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


@pytest.mark.parametrize("name", ["board.png", "board.jpg", "board.JPEG", "board.webp"])
def test_a_board_is_the_kind_of_picture_that_its_name_says(video, tmp_path, name) -> None:
    assert main(["scenes", video, "--num-scenes", "2", "--output", str(tmp_path / name)]) == 0
    kind = {".png": "PNG", ".webp": "WEBP"}.get(Path(name).suffix.lower(), "JPEG")
    assert Image.open(tmp_path / name).format == kind


def test_another_kind_of_model_is_refused_and_never_built(video, capsys, tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert str(tmp_path) in refusal(capsys, "answer", video, "What?", "--model", str(tmp_path))


def test_an_unknown_method_gets_the_usage_and_status_2(video, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["scenes", video, "--json", "--selection", "magic"])
    assert stop.value.code == 2
    assert "kmeans" in capsys.readouterr().err


def test_the_default_model_is_the_packages_own_folder() -> None:
    assert DEFAULT_MODEL.resolve() == Path(fila_video.__file__).parent.resolve()
    assert all((DEFAULT_MODEL / name).is_file() for name in FILES)


def test_only_work_of_more_than_two_seconds_shows_a_bar(capsys, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress()
    for stage, seconds in (("reading", 0.3), ("encoding", 1.0)):
        for done in range(1, 6):
            progress(stage, done, 5)
            now[0] += seconds
    err = capsys.readouterr().err
    assert "Encoding frames" in err and "4/5" in err
    assert "Reading frames" not in err


@pytest.mark.parametrize("command", ["answer", "scenes"])
def test_the_model_runs_on_the_device_that_was_asked_for(video, capsys, monkeypatch, command) -> None:
    seen = []
    monkeypatch.setattr(FilaVideoForConditionalGeneration, "to", lambda self, device: seen.append(device) or self)
    argv = {"answer": ["What?", "--max-new-tokens", "1"], "scenes": ["--json"]}[command]
    assert main([command, video, *argv, "--device", "cpu", "--num-scenes", "1"]) == 0
    assert seen[0] == torch.device("cpu")


def test_subtitles_that_find_no_room_are_said(video, tmp_path, capsys) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:00,900\nHello there\n")
    command = ["answer", video, "What?", "--subtitles", str(words), "--max-new-tokens", "1"]
    assert main(command) == 0
    assert capsys.readouterr().err == DEMONSTRATION + "\n"
    assert main([*command, "--subtitle-tokens", "1"]) == 0
    assert "1 lines of subtitles found no room" in capsys.readouterr().err


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
