"""The notebook `examples/quickstart.ipynb`: it is valid, and its cells run one after the other in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"

# Runs the cells in one namespace, as Jupyter does, and then says what they made.
RUN = """
import json, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
names = {"__name__": "__main__"}
for number, cell in enumerate(cells):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
made = {
    "board": names["board"].size,
    "answer": names["answer"],
    "by the pipeline": names["results"][0]["generated_text"],
    "scenes": tuple(names["scenes"]["indices"].shape),
}
print(json.dumps(made))
"""


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("folder", ["examples", "."])
def test_the_cells_run_from_a_file_to_an_answer_and_a_board(folder, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)],
        cwd=NOTEBOOK.parent.parent / folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["scenes"] == [32, 3]
    assert made["board"][0] > made["board"][1] > 1000
    assert made["answer"] == made["by the pipeline"] == "a green ring"


def test_the_notebook_is_small_and_well_formed(cells) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert NOTEBOOK.stat().st_size < 20_000
