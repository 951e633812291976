"""What the Hub reads of the demo: the metadata of its card, and what it installs."""

import ast
import re
import sys
from pathlib import Path

from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
SPACE = ROOT / "space"
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")  # those the Hub knows


def requirements() -> dict[str, Requirement]:
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {each.name.replace("_", "-"): each for each in found}


def test_the_card_has_what_a_space_needs() -> None:
    card = SpaceCard.load(SPACE / "README.md").data
    assert card.sdk == "gradio" and re.fullmatch(r"\d+\.\d+\.\d+", card.sdk_version)
    assert (SPACE / card.app_file).is_file()
    assert card.models and all("/" in name for name in card.models)
    assert {card.colorFrom, card.colorTo} <= set(COLORS)
    assert len(card.get("short_description")) <= 60
    assert "fila-video" in (ROOT / "setup.cfg").read_text(encoding="utf-8") and card.license == "apache-2.0"


def test_the_space_installs_what_its_program_and_the_models_code_import() -> None:
    tree = ast.parse((SPACE / "app.py").read_text(encoding="utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    packages = {{"PIL": "pillow"}.get(name, name).replace("_", "-") for name in imported - sys.stdlib_module_names}
    assert packages - {"gradio"} <= set(requirements())
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    needed = re.search(r"install_requires =\n((?:    .*\n)+)", text)[1].split()
    for each in map(Requirement, needed):
        found = requirements()[each.name.replace("_", "-")]
        assert {str(bound) for bound in each.specifier} <= {str(bound) for bound in found.specifier}, each
