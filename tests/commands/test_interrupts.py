"""
Ctrl-C at every stage of the installed program, and what else ends it: a status of 128 and the signal's number, no
traceback, and nothing left behind.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.video_files import make_video

ROOT = Path(__file__).parent.parent.parent
SAMPLE = str(ROOT / "examples" / "shapes.mp4")

# A job in the background may have been started deaf to Ctrl-C, or to the end of its terminal: hear them again.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
{stage}
from fila_video.commands.cli import program
program()
"""
# Each says "here" once the command has come so far, and then waits or works on.
HOLD = "print('here', flush=True); import time; time.sleep(300)"
STAGES = {
    "while torch is imported": f"""
class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            {HOLD}
sys.meta_path.insert(0, Hold())
""",
    "within an import that takes every error for a missing module": f"""
class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            try:
                {HOLD}
            except BaseException:
                raise ImportError("not here")
sys.meta_path.insert(0, Hold())
""",
    "while frames are encoded": f"""
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
def encode(self, pixels):
    {HOLD}
FilaVideoForConditionalGeneration.encode_frames = encode
""",
    "while scenes are selected": f"""
from fila_video.frame_selector_fila_video import FrameSelector
def select(self, *args, **options):
    {HOLD}
FrameSelector.select = select
""",
    "while it generates": f"""
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
def generate(self, *args, **options):
    {HOLD}
FilaVideoForConditionalGeneration.generate = generate
""",
    "within a long operation that is not Python's": """
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
def generate(self, *args, **options):
    import torch
    print('here', flush=True)
    a = torch.rand(3000, 3000, dtype=torch.float64)
    for _ in range(300):
        a = a @ a
FilaVideoForConditionalGeneration.generate = generate
""",
}


def interrupt(program, argv, tmp_path, ready, number=signal.SIGINT):
    """
    Sends SIGINT, or another signal, once `ready(process)` returns; the exit status, both outputs, and what lies in its
    temp folder.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        ready(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err, [path.name for path in temporary.iterdir() if "fila-video" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_the_command_at_once_at_every_stage(stage, tmp_path) -> None:
    reached = []
    status, out, err, left = interrupt(
        INTERRUPTIBLE.format(stage=STAGES[stage]),
        ["answer", SAMPLE, "What?"],
        tmp_path,
        lambda process: reached.append(process.stdout.readline()),
    )
    assert reached == ["here\n"] and (status, out, left) == (130, "", [])
    assert "Traceback" not in err and "KeyboardInterrupt" not in err


@pytest.mark.slow
def test_ctrl_c_ends_a_download_that_stalls_and_removes_what_it_wrote(tmp_path) -> None:
    content = make_video(tmp_path / "video.mp4", 60).read_bytes()
    asked = threading.Event()
    finished = threading.Event()

    class Stalls(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            asked.set()
            finished.wait(120)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/video.mp4"

        def ready(process) -> None:
            assert asked.wait(120)
            time.sleep(1)  # it reads what has come

        status, _, err, left = interrupt(
            INTERRUPTIBLE.format(stage=""), ["scenes", address, "--json"], tmp_path, ready
        )
    finally:
        finished.set()
        server.shutdown()
        server.server_close()
    assert (status, left) == (130, [])
    assert "Traceback" not in err


@pytest.mark.slow
def test_ctrl_c_ends_a_storyboard_without_half_a_picture(tmp_path) -> None:
    stage = f"""
import fila_video.commands.storyboard as storyboard
def draw(*args, **options):
    {HOLD}
storyboard.draw_storyboard = draw
"""
    board = tmp_path / "board.png"
    status, _, _, left = interrupt(
        INTERRUPTIBLE.format(stage=stage),
        ["scenes", SAMPLE, "--output", str(board)],
        tmp_path,
        lambda process: process.stdout.readline(),
    )
    assert (status, left) == (130, []) and not board.exists()


def test_a_job_in_the_background_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path) -> None:
    program = INTERRUPTIBLE.format(stage="").replace("signal.default_int_handler", "signal.SIG_IGN")
    held = "class Hold:\n    def find_spec(self, name, path=None, target=None):\n        if name == 'torch':\n"
    held += "            print('here', flush=True); import time; time.sleep(3); print('on', flush=True); import os\n"
    held += "            os._exit(7)\nsys.meta_path.insert(0, Hold())\n"
    program = program.replace("from fila_video.commands.cli", held + "from fila_video.commands.cli")
    status, out, _, _ = interrupt(
        program, ["answer", SAMPLE, "What?"], tmp_path, lambda process: process.stdout.readline()
    )
    assert (status, out) == (7, "on\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_else_ends_a_command_leaves_nothing_behind_either(name, tmp_path) -> None:
    if os.name == "nt":
        pytest.skip("there signals end a process without asking it")
    number = getattr(signal, name)
    program = INTERRUPTIBLE.format(stage=STAGES["while torch is imported"])
    found = []

    def ready(process) -> None:
        process.stdout.readline()
        found.extend(path.name for path in (tmp_path / "tmp").glob("fila-video-*"))

    status, out, err, left = interrupt(program, ["answer", SAMPLE, "What?"], tmp_path, ready, number)
    assert len(found) == 1 and (status, out, left) == (128 + number, "", [])
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_chat_that_is_ended_leaves_nothing_behind_either(tmp_path) -> None:
    if os.name == "nt":
        pytest.skip("there signals end a process without asking it")
    stage = f"""
import fila_video.commands.chat as chat
def converse(*args):
    {HOLD}
chat.converse = converse
"""
    status, _, _, left = interrupt(
        INTERRUPTIBLE.format(stage=stage),
        ["chat", SAMPLE, "--num-scenes", "2"],
        tmp_path,
        lambda process: process.stdout.readline(),
        signal.SIGTERM,
    )
    assert (status, left) == (128 + signal.SIGTERM, [])


def test_a_job_that_goes_on_without_its_terminal_ignores_its_end(tmp_path) -> None:
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("there is no such signal")
    held = "class Hold:\n    def find_spec(self, name, path=None, target=None):\n        if name == 'torch':\n"
    held += "            print('here', flush=True); import time; time.sleep(2); import os; os._exit(7)\n"
    held += "sys.meta_path.insert(0, Hold())\n"
    program = INTERRUPTIBLE.format(stage=held).replace("signal.SIG_DFL", "signal.SIG_IGN")
    status, _, _, _ = interrupt(
        program, ["answer", SAMPLE, "What?"], tmp_path, lambda process: process.stdout.readline(), signal.SIGHUP
    )
    assert status == 7
