"""The notebook `examples/long_video.ipynb`: it is valid, and its cells run one after the other in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "long_video.ipynb"

# Runs the cells in one namespace, as Jupyter does, and then says what they made.
RUN = """
import json, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
names = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
made = {
    "frames": len(names["loaded"]),
    "answers": [*names["answers"].values(), names["streamed"], names["other"]],
    "rebuilds": names["rebuilds"],
    "refused": names["refused"],
    "scenes": tuple(names["scenes"]["indices"].shape),
    "board": names["board"].size,
    "resumed": [message["content"] for message in names["resumed"].messages],
    "chapters": len(names["description"].chapters),
}
print(json.dumps(made))
"""


@pytest.mark.slow
def test_the_cells_run_from_a_film_to_its_chapters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)],
        cwd=NOTEBOOK.parent,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["frames"] == 96 and made["scenes"] == [12, 3] and made["rebuilds"] == 1
    assert all(made["answers"]) and len(made["resumed"]) == 8
    assert "`candidate_fps=4.0` needs another reading" in made["refused"]
    assert made["board"][0] > 600 and made["chapters"] == 3


def test_the_notebook_is_small_and_well_formed() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert NOTEBOOK.stat().st_size < 20_000
