"""
Fetches the tests that transformers' maintainers wrote for their own models: `python tests/fetch_official_tests.py`.

They ship in the source distribution of the installed transformers, which goes to an ignored folder of this repository.
Does nothing where it is there already. `tests/helpers/official.py` makes the tests importable.
"""

import logging
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"
# Releases whose content is known: pip refuses any other file of that name.
SHA256 = {
    "5.18.0": "d89c206e42e841af7cd314b3d2b21c03e977d819cdb4aef65ada048769a644df",
    "5.24.0": "906cb8c3cb2123575e263962586a4d21a979ce97feeb95fe6aaf66fe6ae88bf3",
}

logger = logging.getLogger(__name__)


def source_distribution(release: str) -> Path:
    """Where the source distribution of that release lies, or will lie."""
    return CACHE / f"transformers-{release}" / f"transformers-{release}.tar.gz"


def fetch(release: str) -> Path:
    """
    Downloads the source distribution of a transformers release with pip, unless it is there.

    Raises:
        subprocess.CalledProcessError: If pip fails. It has said why.
    """
    target = source_distribution(release)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    requirement = f"transformers=={release}"
    if release in SHA256:
        requirement += f" --hash=sha256:{SHA256[release]}"
    # Into a folder beside it first: what is in place is whole.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(requirement + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*command, "--dest", folder, "--requirement", str(requirements)], check=True)
        Path(folder, target.name).rename(target)
    return target


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("The tests of transformers %s are in %s", version("transformers"), fetch(version("transformers")))
