"""Where a conversion writes: nobody's files are lost, whatever kind of place it is, and no old weights stay."""

import json
import os
from pathlib import Path

import fila_video.conversion.convert as converting
import pytest
from fila_video.conversion.convert import convert
from fila_video.convert_weights import main
from helpers.tiny_checkpoints import save_llava_hf, tiny_onevision


@pytest.fixture
def source(tmp_path) -> Path:
    return save_llava_hf(tmp_path / "source", tiny_onevision())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_that_appears_during_the_conversion_is_kept(tmp_path, source, monkeypatch) -> None:
    write = converting.write_shards

    def write_and_wait(*args) -> None:
        write(*args)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years of work")

    monkeypatch.setattr(converting, "write_shards", write_and_wait)
    with pytest.raises(FileExistsError, match="out exists: choose another folder"):
        convert(source, tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == {"thesis.txt"} and names(tmp_path) == {"source", "out"}


def test_the_folder_behind_a_link_is_made_and_replaced_and_the_link_stays(tmp_path, source) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for scene_size in (1, 2):
        convert(source, tmp_path / "link", scene_size=scene_size, overwrite=scene_size == 2, progress=False)
        assert json.loads((tmp_path / "disk" / "config.json").read_text())["scene_size"] == scene_size
    assert (tmp_path / "link").is_symlink() and names(tmp_path) == {"source", "disk", "link"}


def test_a_link_to_nowhere_is_refused_before_the_work(tmp_path, source, monkeypatch) -> None:
    monkeypatch.setattr(converting, "plan_conversion", lambda *_, **__: pytest.fail("it was planned"))
    (tmp_path / "out").symlink_to(tmp_path / "not_mounted")
    with pytest.raises(FileExistsError, match=r"out is a link to .*not_mounted, where nothing is"):
        convert(source, tmp_path / "out", progress=False)
    assert names(tmp_path) == {"source", "out"}


@pytest.mark.parametrize("kind", ["working directory", "mount point"])
def test_a_folder_that_must_stay_the_same_is_filled(tmp_path, source, monkeypatch, kind) -> None:
    place = tmp_path / "place"
    place.mkdir()
    if kind == "working directory":
        monkeypatch.chdir(place)
    else:
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == place)
    number, sizes = place.stat().st_ino, []
    disk_usage = converting.shutil.disk_usage
    monkeypatch.setattr(converting.shutil, "disk_usage", lambda path: sizes.append(path) or disk_usage(path))
    output = "." if kind == "working directory" else place
    convert(source, output, progress=False)
    usual = convert(source, tmp_path / "usual", progress=False)
    assert sizes == [place, tmp_path]
    assert names(place) == names(usual) and place.stat().st_ino == number
    (place / "old.txt").write_text("of the first conversion")
    convert(source, output, scene_size=1, overwrite=True, progress=False)
    assert names(place) == names(usual) and place.stat().st_ino == number
    assert json.loads((place / "config.json").read_text())["scene_size"] == 1


def test_a_failure_while_a_folder_is_filled_keeps_what_was_there(tmp_path, source, monkeypatch) -> None:
    place = convert(source, tmp_path / "place", scene_size=1, progress=False)
    monkeypatch.chdir(place)
    before = names(place)
    rename = Path.rename

    def rename_some(path: Path, target: Path) -> Path:
        if path.name == "model.safetensors" and Path(target).parent == place and "repository" in path.parts:
            raise OSError("disk full")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_some)
    with pytest.raises(OSError, match="disk full"):
        convert(source, place, scene_size=2, overwrite=True, progress=False)
    assert names(place) == before and json.loads((place / "config.json").read_text())["scene_size"] == 1


def test_what_a_killed_conversion_left_in_a_folder_it_filled_is_removed(tmp_path, source, monkeypatch) -> None:
    place = tmp_path / "place"
    (place / ".place.incomplete").mkdir(parents=True)
    (place / ".place.lock").touch()
    monkeypatch.chdir(place)
    convert(source, ".", progress=False)
    assert (place / "model.safetensors").exists() and not {".place.incomplete", ".place.lock"} & names(place)


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, source, capsys) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert main([str(source), str(tmp_path / "out"), "--dtype", "float32"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fila-video: ")]
    assert "model.safetensors cannot be written: " in line and names(tmp_path) == {"source"}


class Hub:
    """A repository of the Hub, with files of these names and this configuration."""

    def __init__(self, folder: Path, files: list[str], model_type: str = "") -> None:
        self.folder, self.files, self.uploads = folder, files, []
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))

    def create_repo(self, name, exist_ok) -> None:
        pass

    def list_repo_files(self, name) -> list[str]:
        return self.files

    def hf_hub_download(self, name, file) -> str:
        return str(self.folder / file)

    def upload_folder(self, **options) -> None:
        self.uploads.append(options)


@pytest.mark.parametrize(
    ("files", "model_type", "taken"),
    [
        ([], "", True),
        ([".gitattributes", "README.md"], "", True),
        (["config.json", "model.safetensors"], "fila_video", True),
        (["config.json", "model.safetensors"], "llava_onevision", False),
        (["data.parquet"], "", False),
    ],
)
def test_a_repository_of_the_hub_that_holds_something_else_is_refused_before_the_work(
    tmp_path, source, monkeypatch, files, model_type, taken
) -> None:
    (tmp_path / "hub").mkdir()
    hub = Hub(tmp_path / "hub", files, model_type)
    monkeypatch.setattr(converting, "HfApi", lambda: hub)
    options = {"push_to_hub": "me/model", "progress": False}
    if not taken:
        with pytest.raises(
            FileExistsError, match=r"me/model is on the Hub and no converted repository.*`--overwrite`"
        ):
            convert(source, tmp_path / "out", **options)
        assert not hub.uploads and names(tmp_path) == {"source", "hub"}
        options["overwrite"] = True
    convert(source, tmp_path / "out", **options)
    (upload,) = hub.uploads
    # Weights that are there already would be loaded, or lie beside those of today.
    assert upload["delete_patterns"] == ["*.safetensors", "*.safetensors.index.json"]
