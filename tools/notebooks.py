"""Run the notebooks of docs/notebooks and recipes from top to bottom, and keep what they show.

python tools/notebooks.py [NOTEBOOK ...]

Each runs in a kernel of its own, in its own folder; times of cells and the Python of the machine are not kept.
`make notebooks` runs all of them; without the weights of CLIP, set CLIP_MODEL to a folder that has some.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebooks() -> list[Path]:
    """Every notebook of the repository: one a component, one a recipe."""
    return sorted([*ROOT.glob("docs/notebooks/*.ipynb"), *ROOT.glob("recipes/*/recipe.ipynb")])


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def texts(notebook: nbformat.NotebookNode) -> str:
    """What the cells print and show, without their pictures."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return "\n".join(found)


def pictures(notebook: nbformat.NotebookNode) -> int:
    """Number of pictures that the cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def main(paths: list[Path]) -> None:
    """Run and save."""
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    with tempfile.TemporaryDirectory() as home:
        os.environ["XDG_CONFIG_HOME"] = home  # where an audit key is made
        for path in paths:
            notebook = execute(path)
            nbformat.write(notebook, path)
            print(f"{path.relative_to(ROOT)}: {len(notebook.cells)} cells, {pictures(notebook)} pictures")


if __name__ == "__main__":
    main([Path(name).resolve() for name in sys.argv[1:]] or notebooks())
