"""Each notebook runs from its first cell to its last, at a small size, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebooks' is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra 'notebooks' is not installed")

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {
    "1": "HOSPITALS, ROUNDS, IMAGES, WIDTH = 3, 2, 200, 4\nOUTPUT = 'runs/notebook-1'",
    "2": "SWEEP, SMALL_SWEEP = 'none', 'runs/2'\nIMAGES, ROUNDS, HOSPITALS = 200, 1, 3\nEPSILONS = [4, 16]",
    "3": "HOSPITALS, SIZE = 3, 32",
}


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def executed(path: Path, folder: Path) -> Any:
    """The notebook with its outputs, after a run with small parameters."""
    notebook = read(path)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    names = {line.split("=")[0].strip() for line in parameters.source.splitlines()}
    parameters.source = SMALL[path.name[0]]
    told = {name.strip() for line in names for name in line.split(",")}
    given = {name.strip() for line in parameters.source.splitlines() for name in line.split("=")[0].split(",")}
    assert given == told, "the test sets every parameter, and no other"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def texts(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_three_and_they_are_kept_without_outputs() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3"]
    for path in NOTEBOOKS:
        notebook = read(path)
        nbformat.validate(notebook)
        assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "said", "drawn"),
    [(0, "plain", 2), (1, "| record |", 2), (2, "survivors (0, 1, 2)", 3)],
    ids=["federation", "epsilon", "secagg"],
)
def test_a_notebook_runs_to_its_end(tmp_path: Path, number: int, said: str, drawn: int) -> None:
    notebook = executed(NOTEBOOKS[number], tmp_path)
    assert said in texts(notebook)
    assert pictures(notebook) == drawn
