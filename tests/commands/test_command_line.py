"""The command line, run as a user runs it: answers, scenes, storyboards, and an end at once where it is stopped."""

import base64
import json
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
from helpers.command_line import ROOT, SAMPLE, copy_of_the_model
from helpers.video_files import make_video, number_of, picture
from PIL import Image


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


def test_where_all_candidates_are_taken_a_question_is_said_to_score_none(video, capsys) -> None:
    for num_scenes, said in (("32", "lower --num-scenes"), ("1", "")):
        assert main(["scenes", video, "--num-scenes", num_scenes, "--question", "What?", "--json"]) == 0
        out, err = capsys.readouterr()
        assert said in err and ("scores" in json.loads(out)) != bool(said)


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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of five pictures, whose names are in the order of their numbers."""
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(picture(number, 96, 64)).save(folder / f"{number}.png")
    return folder


def test_a_folder_of_pictures_and_one_picture_have_storyboards(pictures, tmp_path, monkeypatch, capsys) -> None:
    boards = []

    def draw(frames, scenes, timestamps, **options):
        boards.append(([number_of(frames[scene[-1]]) for scene in scenes], options["title"], options["subtitle"]))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("fila_video.commands.scenes.draw_storyboard", draw)
    output = ["--output", str(tmp_path / "board.png"), "--json"]
    assert main(["scenes", str(pictures), "--num-scenes", "2", *output]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["selection"] == "all" and told["num_scenes"] == 2
    assert main(["scenes", str(pictures), "--num-scenes", "1", *output]) == 0
    assert json.loads(capsys.readouterr().out)["selection"] == "kmeans"
    assert main(["scenes", str(pictures / "3.png"), *output]) == 0
    whole, chosen, still = boards
    assert whole[0] == [scene["representative"]["index"] for scene in told["scenes"]]
    assert whole[1] == "my pictures" and whole[2].endswith("all there are")
    assert "k-means" in chosen[2] and still[:2] == ([3], "3.png")


def test_a_film_inside_its_url_has_a_storyboard(tmp_path, monkeypatch) -> None:
    boards = []

    def draw(frames, *args, **options):
        boards.append((len(frames), options["title"]))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("fila_video.commands.scenes.draw_storyboard", draw)
    film = base64.b64encode(make_video(tmp_path / "film.mp4", 12).read_bytes()).decode()
    output = ["--num-scenes", "2", "--output", str(tmp_path / "board.png")]
    assert main(["scenes", f"data:video/mp4;base64,{film}", *output]) == 0
    ((num_frames, title),) = boards
    assert num_frames > 1 and title == "data: URL"


def test_even_frames_are_all_only_where_the_video_has_no_more(video, capsys) -> None:
    for count, selection in (("5", "uniform"), ("40", "all")):
        assert main(["scenes", video, "--num-scenes", count, "--selection", "uniform", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["selection"] == selection


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


@pytest.mark.parametrize("name", ["board.png", "board.jpg", "board.JPEG", "board.webp"])
def test_a_board_is_the_kind_of_picture_that_its_name_says(video, tmp_path, name) -> None:
    assert main(["scenes", video, "--num-scenes", "2", "--output", str(tmp_path / name)]) == 0
    kind = {".png": "PNG", ".webp": "WEBP"}.get(Path(name).suffix.lower(), "JPEG")
    assert Image.open(tmp_path / name).format == kind


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
