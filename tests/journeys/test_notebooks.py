"""The notebooks of the recipes run from top to bottom, and print what they promise."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

RECIPES = Path(__file__).parents[2] / "recipes"
SHOWN = {
    "healthcare": (
        "5 documents, 10 chunks; again: 5 unchanged, 0 embedded",
        "Botulism is treated with an antitoxin",
        "I don't know.",
        "tokens, $0.000000",
    ),
    "financial-documents": (
        "offline took:",
        "'all-MiniLM-L6-v2'",
        "'bm25': (1,",
        "page 1: ",
        "3 entries, unbroken",
        "after an edit: ",
    ),
}


def test_every_notebook_is_held_to_something() -> None:
    """A new notebook needs its lines here."""
    assert {path.parent.name for path in RECIPES.glob("*/*.ipynb")} == set(SHOWN)


@pytest.mark.slow("a kernel that loads torch: 13 s of CPU each")
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in its own folder, in a kernel of its own."""
    monkeypatch.setenv("PYTHONPATH", str(RECIPES.parent / "src"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # where an audit key is made
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(RECIPES / name / "recipe.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(RECIPES / name)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    for line in SHOWN[name]:
        assert line in printed
