"""The package: names that load when they are touched, and who knows its classes."""

import re
import subprocess
import sys
from pathlib import Path

import fila_video
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_importing_the_package_loads_no_library() -> None:
    assert (
        run("import fila_video, sys; print({'torch', 'transformers', 'av', 'faiss'} & sys.modules.keys())") == "set()"
    )


def test_every_public_name_is_there_and_listed() -> None:
    for name in fila_video.__all__:
        assert getattr(fila_video, name).__name__ == name
        assert name in dir(fila_video)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fila_video.nothing


def test_the_version_is_that_of_the_metadata() -> None:
    assert f"version = {fila_video.__version__}\n" in (ROOT / "setup.cfg").read_text()


def test_the_map_of_the_repository_names_every_module_of_the_root_and_folders_that_are_there() -> None:
    rows = re.findall(r"^\| `([\w./]+)` \| \w", (ROOT / "docs" / "layout.md").read_text(), re.MULTILINE)
    modules = [name for name in rows if name.endswith(".py")]
    assert sorted(modules) == sorted(path.name for path in ROOT.glob("*.py"))
    folders = [name for name in rows if name.endswith("/")]
    assert len(folders) > 5 and all((ROOT / name).is_dir() for name in folders)


@pytest.mark.parametrize(
    "touch", ["fila_video.register()", "fila_video.select_scenes", "from fila_video import read_frames"]
)
def test_the_auto_classes_know_the_package_once_a_name_is_touched(touch) -> None:
    program = (
        f"import fila_video; {touch}\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model, processor = AutoModel.from_pretrained('.'), AutoProcessor.from_pretrained('.')\n"
        "print(type(model).__module__, type(processor).__module__)"
    )
    assert run(program) == "fila_video.modeling_fila_video fila_video.processing_fila_video"


def test_a_processor_from_its_own_module_loads_without_remote_code() -> None:
    program = (
        "from fila_video.processing_fila_video import FilaVideoProcessor\n"
        "print(type(FilaVideoProcessor.from_pretrained('.').video_processor).__module__)"
    )
    assert run(program) == "fila_video.video_processing_fila_video"


@pytest.mark.slow
def test_remote_code_and_the_package_work_together_in_one_process() -> None:
    """The classes then exist twice: a processor of one binds a model of the other, and takes its frames and clips."""
    program = (
        "import pickle, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "remote = AutoProcessor.from_pretrained('.', trust_remote_code=True)\n"
        "import fila_video\n"
        "model = fila_video.FilaVideoForConditionalGeneration.from_pretrained('.')\n"
        "own = fila_video.FilaVideoProcessor.from_pretrained('.')\n"
        "assert type(remote).__module__.startswith('transformers_modules')\n"
        "read = fila_video.read_frames('examples/shapes.mp4', num_frames=12)\n"
        "segment = [fila_video.VideoSegment('examples/shapes.mp4', 0, 2)]\n"
        "for video in (read, segment):\n"
        "    answers = []\n"
        "    for processor in (own, pickle.loads(pickle.dumps(remote))):\n"
        "        processor.bind(model)\n"
        "        inputs = processor(text='<video>What?', videos=[video], num_scenes=4, return_tensors='pt')\n"
        "        answers.append(model.generate(**inputs, max_new_tokens=4, do_sample=False))\n"
        "    assert torch.equal(*answers)\n"
        "print('equal')"
    )
    assert run(program) == "equal"


@pytest.mark.slow
def test_a_conversation_of_remote_code_takes_what_it_encoded() -> None:
    """Pipeline, processor and video processor are then three copies of this code."""
    program = (
        "from transformers import pipeline\n"
        "pipe = pipeline('video-text-to-text', model='.', trust_remote_code=True, device=-1)\n"
        "question = 'Which object appears right after the white star?'\n"
        "print(pipe.chat('examples/shapes.mp4').ask(question), end=', ')\n"
        "video = pipe.processor.encode_video('examples/shapes.mp4')\n"
        "print(pipe(video, text=question, return_full_text=False)[0]['generated_text'])"
    )
    assert run(program) == "a green ring, a green ring"
