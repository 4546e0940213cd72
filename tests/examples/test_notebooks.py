"""The notebooks run from the first cell to the last, with small budgets."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
SMALLER = {
    "compare": {"MINUTES = 2": "MINUTES = 0.05", "CAPTIONS = 200": "CAPTIONS = 12"},
    "plugin": {"STEPS = 2000": "STEPS = 20", "CHECKS = ()": 'CHECKS = ("same-seed", "gradients")'},
}


def test_each_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALLER)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plugin", "compare"])
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for old, new in SMALLER[name].items():
        (cell,) = [cell for cell in notebook.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]
    assert any("data:image/png;base64," in page for page in shown)
    assert any("<table>" in page for page in shown)
