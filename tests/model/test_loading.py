"""Every auto class and both forms of the pipeline, in fresh processes, offline, with and without the package."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.fresh_process import load_in_fresh_process
from helpers.tiny_processor import ROOT, model_for, tiny_processor
from helpers.video_files import make_video

CLASSES = (
    ["FilaVideoConfig"]
    + ["FilaVideoForConditionalGeneration"] * 3
    + ["FilaVideoProcessor", "FilaVideoVideoProcessor"]
    + ["VideoTextToTextPipeline"] * 3
)
# What a repository's root holds besides the package.
NO_PACKAGE = (".*", "build", "*.egg-info", "tests", "__pycache__")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("videos") / "video.mp4", 30, fps=10)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder written by `save_pretrained` of the package's own objects, and the answer they give."""
    folder = tmp_path_factory.mktemp("saved") / "once"
    processor = tiny_processor()
    model = model_for(processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_loading_and_answering_say_nothing_on_either_stream(saved, tmp_path) -> None:
    """Complaints about the signatures of custom code go to stdout, where a command's answer goes too."""
    program = (
        "import sys, torch\n"
        "from transformers import AutoModel\n"
        "from transformers.utils.logging import disable_progress_bar\n"
        "disable_progress_bar()\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=2, pad_token_id=0)\n"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    # Python 3.11 to 3.13 and torch have warnings of their own; here only the library's are errors.
    command = [sys.executable, "-W", "error::FutureWarning:transformers", "-c", program, str(saved)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == ""
    ours = [line for line in result.stderr.splitlines() if "torch/" not in line]
    assert not re.search("ERROR|deprecated", "\n".join(ours))


def modules_needed(folder: Path) -> set[str]:
    """Modules that an `auto_map`, a custom pipeline or a relative import of the folder's files names."""
    named = set()

    def read(value, inside=False) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                read(item, inside or key in ("auto_map", "custom_pipelines"))
        elif inside and isinstance(value, str) and "." in value:
            named.add(value.rsplit("--", 1)[-1].split(".")[0])

    for file in folder.glob("*.json"):
        if file.stat().st_size < 1 << 20:
            read(json.loads(file.read_text()))
    # No auto class loads the package's own `__init__` and the command: what they name may lie in folders.
    for file in set(folder.glob("*.py")) - {folder / "convert_weights.py", folder / "__init__.py"}:
        named.update(re.findall(r"^\s*from\s+\.(\S+)\s+import", file.read_text(), flags=re.MULTILINE))
    return named


@pytest.mark.slow
def test_a_saved_folder_and_one_saved_again_from_it_and_a_copy_load_everything(saved, video, tmp_path) -> None:
    processor = tiny_processor()
    expected = VideoTextToTextPipeline(model_for(processor), processor=processor)(
        video, text="What?", max_new_tokens=4, return_full_text=False, num_scenes=3
    )[0]["generated_text"]
    twice, copied = tmp_path / "twice", tmp_path / "copied"
    first = load_in_fresh_process(tmp_path, video, saved, "--save", twice)
    shutil.copytree(twice, copied)
    second = load_in_fresh_process(tmp_path, video, twice, copied)
    reports = [*first["reports"], *second["reports"]]
    for report in reports:
        assert report["classes"] == CLASSES
        assert report["modules"] == ["transformers_modules"]
        assert report["answers"] == [expected] * 3
        assert report["settings"] == reports[0]["settings"]
        assert report["template"] == processor.chat_template
    assert first["package"] is None and second["package"] is None
    for folder in (saved, twice):
        assert {file.stem for file in folder.glob("*.py")} >= modules_needed(folder) > {"pipeline_fila_video"}
        assert json.loads((folder / "processor_config.json").read_text()) == reports[0]["settings"]
    names = [sorted(file.name for file in folder.iterdir()) for folder in (saved, twice)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_the_root_of_a_clone_loads_everything(video, tmp_path) -> None:
    result = load_in_fresh_process(tmp_path, video, ROOT)
    (report,) = result["reports"]
    assert report["classes"] == CLASSES and report["modules"] == ["transformers_modules"]
    assert len(set(report["answers"])) == 1
    assert {file.stem for file in ROOT.glob("*.py")} >= modules_needed(ROOT)


def test_files_for_the_hub_import_only_siblings_that_the_loader_finds() -> None:
    for file in ROOT.glob("*_fila_video.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, (file.name, node.lineno)
                assert (ROOT / f"{node.module}.py").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NO_PACKAGE))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    result = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file_of_the_package(wheel) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    inside = (file.parent for file in ROOT.glob("[a-z]*/**/__init__.py"))
    # `pip install .` leaves a copy of the package in build/.
    packages = [ROOT, *(folder for folder in inside if folder.relative_to(ROOT).parts[0] not in ("build", "tests"))]
    files = [file for package in packages for file in package.glob("*.py")]
    files += [
        ROOT / name for name in ("model.safetensors", "chat_template.jinja", *(f.name for f in ROOT.glob("*.json")))
    ]
    files += [file for kind in ("yaml", "sh", "md") for file in (ROOT / "training").glob(f"**/*.{kind}")]
    missing = {f"fila_video/{file.relative_to(ROOT)}" for file in files} - held
    assert not missing


@pytest.mark.slow
def test_the_installed_wheel_works_like_the_clone(wheel, video, tmp_path) -> None:
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    program = "import sys, runpy, fila_video; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    report = tmp_path / "report.json"
    script = Path(__file__).parent.parent / "helpers" / "load_everything.py"
    command = [
        sys.executable,
        "-c",
        program,
        str(script),
        str(report),
        str(video),
        str(target / "fila_video"),
        "--package",
    ]
    environment = {**os.environ, "PYTHONPATH": str(target), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    result = json.loads(report.read_text())
    assert Path(result["package"]).is_relative_to(target)
    assert result["reports"][0]["classes"] == CLASSES
    assert len(set(result["reports"][0]["answers"])) == 1


@pytest.mark.slow
def test_the_model_alone_imports_no_reader_no_faiss_and_no_pipeline() -> None:
    """A server that passes `frame_features` needs none of them; the package's own `__init__` is left out here."""
    program = (
        "import importlib, sys, types\n"
        "package = types.ModuleType('repository')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['repository'] = package\n"
        "importlib.import_module('repository.modeling_fila_video')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('repository.')))\n"
        "print(*sorted({'av', 'faiss', 'transformers.pipelines'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    own, others = result.stdout.splitlines()
    assert others == ""
    reading = ("processing", "pipeline", "video_", "encoded", "chat", "subtitles", "frame_selector")
    assert not [name for name in own.split() if name.removeprefix("repository.").startswith(reading)]
