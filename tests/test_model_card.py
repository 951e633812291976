"""The model card: its metadata, its snippets and what it points to."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CARD = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", CARD, re.S | re.M)


def test_the_metadata_is_what_the_hub_needs() -> None:
    metadata = yaml.safe_load(CARD.split("---")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "video-text-to-text"
    assert metadata["license"] == "apache-2.0"


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_every_snippet_runs_in_a_fresh_process(number) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[number]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_there_are_snippets_for_the_notebook_the_pipeline_and_servers() -> None:
    assert [word in "".join(SNIPPETS) for word in ("AutoProcessor", "pipeline(", "FilaVideoModel")] == [True] * 3


def test_the_server_snippet_builds_the_base_model() -> None:
    check = "\nassert type(base_model).__name__ == 'FilaVideoModel', type(base_model)"
    snippet = next(snippet for snippet in SNIPPETS if "FilaVideoModel" in snippet)
    done = subprocess.run([sys.executable, "-c", snippet + check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_two_shell_blocks_are_the_two_commands() -> None:
    blocks = re.findall(r"^```shell\n(.*?)^```", CARD, re.S | re.M)
    assert "fila-video answer examples/shapes.mp4" in blocks[0]
    assert blocks[1].rstrip().endswith("-m pytest -n 2")
    assert all(block.startswith("python3 -m venv") and "pip install" in block for block in blocks[:2])


def test_the_first_command_gives_the_answer_that_the_card_shows() -> None:
    question, answer = re.search(r'answer examples/shapes\.mp4 "(.*?)"\n```\n\nIt answers `(.*?)`', CARD).groups()
    command = [
        sys.executable,
        "-m",
        "fila_video.commands.cli",
        "answer",
        str(ROOT / "examples" / "shapes.mp4"),
        question,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, answer), done.stderr


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the Hub make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_what_the_card_and_the_pages_link_to_is_there() -> None:
    pages = [page for page in ROOT.rglob("*.md") if not {".venv", ".cache", "build"} & {*page.parts}]
    broken, found = [], 0
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            file, _, anchor = link.partition("#")
            target, found = (page.parent / file if file else page), found + 1
            if not target.exists() or (anchor and anchor not in headings(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert found > 100 and broken == []


def test_the_index_of_the_paper_names_real_tests() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "paper.md").read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []
