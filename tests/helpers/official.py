"""
The tests that transformers' maintainers wrote for their own models, importable: `suite("test_modeling_common")`.

They are unpacked from the source distribution that `tests/fetch_official_tests.py` has fetched, under the package name
`transformers_tests`. What they import and the distribution lacks is replaced by the stand-ins of `STAND_INS`. The
maintainers' tests of generation are among what it lacks: `test_generation.py` tests generation here.
"""

import importlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from fetch_official_tests import source_distribution

PACKAGE = "transformers_tests"
MODULES = (
    "test_configuration_common",
    "test_modeling_common",
    "test_processing_common",
    "test_video_processing_common",
)
STAND_INS = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/generation/__init__.py": "",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    f"{PACKAGE}/exporters/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    f"{PACKAGE}/utils/__init__.py": "",
    f"{PACKAGE}/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    # Beside the package, where the tests look for it.
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


class Missing:
    """Stands for a suite that is not there: a test class that inherits from it has one test, which fails."""

    def __getattr__(self, name: str) -> type:
        def test_the_official_suite_is_here(self) -> None:
            pytest.fail(
                f"The tests of transformers {transformers.__version__} are missing: "
                "fetch them with `python tests/fetch_official_tests.py`."
            )

        return type(name, (), {"test_the_official_suite_is_here": test_the_official_suite_is_here})


def unpack(archive: Path) -> Path:
    """The folder that holds the package, unpacked from the archive on the first call."""
    folder = archive.parent / "suite"
    if folder.is_dir():
        return folder
    # Complete before it gets its name: another process may be doing the same.
    work = Path(tempfile.mkdtemp(dir=archive.parent))
    with tarfile.open(archive) as tar:
        prefix = archive.name.removesuffix(".tar.gz") + "/tests/"
        members = [tar.getmember(f"{prefix}{module}.py") for module in MODULES]
        for member in members:
            member.name = f"{PACKAGE}/{member.name.removeprefix(prefix)}"
        tar.extractall(work, members=members, filter="data")
    for name, text in STAND_INS.items():
        file = work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    try:
        work.rename(folder)
    except OSError:
        shutil.rmtree(work)
    return folder


def suite(module: str) -> ModuleType | Missing:
    """A module of the official tests, for example `test_modeling_common`, or its failing stand-in."""
    archive = source_distribution(transformers.__version__)
    if not archive.is_file():
        return Missing()
    folder = str(unpack(archive))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"{PACKAGE}.{module}")
