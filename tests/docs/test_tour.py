"""The notebook runs from its first cell to its last: `pytest -m slow`."""

import json
import os
from pathlib import Path

import pytest

import ssdnet_jax

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs_and_shows_its_figures(monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the notebook needs '.[test]'")
    nbformat = pytest.importorskip("nbformat")
    # The kernel is another process; it is to find the package that is tested.
    package = str(Path(ssdnet_jax.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([package, *([known] if known else [])]))
    notebook = nbformat.read(TOUR, as_version=4)

    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert len(figures) == 5
    assert "\nanomalous\n" in printed


def test_the_tour_is_kept_without_outputs():
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
