"""The notebooks, one a component and one a recipe, run from top to bottom and show what they promise."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from tests.tiny_clip import tiny_clip
from tools.notebooks import ROOT, execute, notebooks, pictures, texts

SHOWN: dict[str, tuple[str, ...]] = {
    "docs/notebooks/bm25-index.ipynb": (
        "How is it treated?",
        "{'insulin-storage.md'}",
        "6 sections after one",
    ),
    "docs/notebooks/clip-embedding.ipynb": (
        "(9, 512) unit length: True",
        "red-circle.png",
        "yellow-triangle.png",
    ),
    "docs/notebooks/cost-tracking.ipynb": ("acme", "query", "1 unpriced"),
    "docs/notebooks/cross-encoder-rerank.ipynb": ("treatment", "the caller's hits are as they were: True"),
    "docs/notebooks/duckdb-vector-store.ipynb": (
        "vectors of 384 numbers",
        "botulism-ward-guide.md",
        "vectors, recipe != healthcare",
        "mean_characters",
    ),
    "docs/notebooks/embeddings.ipynb": ("from the cache", "one more", "pool 0.", "truncate "),
    "docs/notebooks/lancedb-vector-store.ipynb": (
        "19 vectors of 384",
        "recipe != healthcare",
        "Each token attends",
    ),
    "docs/notebooks/postgres-vector-store.ipynb": ("T5", "Alan", "5 tickets"),
    "docs/notebooks/hybrid-fusion-retriever.ipynb": ("bm25", "fusion", "valve", "seal"),
    "recipes/customer-chatbot/recipe.ipynb": (
        "Acme takes parcels back within 30 days of delivery",
        "Globex takes parcels back within 14 days",
        "Kettles and toasters have a warranty of 3 years. [1]",
        "  no source",
        "acme ",
    ),
    "recipes/financial-documents/recipe.ipynb": (
        "offline took:",
        "'all-MiniLM-L6-v2'",
        "'bm25': (1,",
        "page 1: ",
        "3 entries, unbroken",
        "after an edit: ",
    ),
    "recipes/healthcare/recipe.ipynb": (
        "5 documents, 10 chunks; again: 5 unchanged, 0 embedded",
        "Botulism is treated with an antitoxin",
        "I don't know.",
        "tokens, $0.000000",
    ),
    "recipes/high-volume/recipe.ipynb": (
        "6 documents, ",
        "every 4,000 hours",
        "every 9,000 hours",
        "calls, $0.000000",
    ),
    "recipes/knowledge-base/recipe.ipynb": (
        "5 documents, ",
        "remote-work.md",
        "Each parent may take 24 weeks",
        "I don't know.",
        "4 unchanged, 1 removed, 0 embedded",
    ),
    "recipes/multi-modal/recipe.ipynb": (
        "left out: ['damaged.png']",
        "The red circle marks the emergency stop of the press.",
        "Closest images: yellow-triangle.png [1]",
        "calls, $0.000000",
    ),
    "recipes/research-papers/recipe.ipynb": (
        "4 papers, ",
        "it needs 83 percent less memory",
        "Mira Okafor, Jan Lindqvist (2021): Sparse attention for long documents",
        "tokens, $0.000000",
    ),
}
WITHOUT_A_PICTURE = {"recipes/financial-documents/recipe.ipynb", "recipes/healthcare/recipe.ipynb"}


def test_every_notebook_is_held_to_something() -> None:
    """A new notebook needs its lines here."""
    assert {path.relative_to(ROOT).as_posix() for path in notebooks()} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_is_read_without_running_it(name: str) -> None:
    """What it shows is saved with it, pictures included, and names no machine; `make notebooks` renews it."""
    notebook = nbformat.read(ROOT / name, as_version=4)
    shown = texts(notebook)
    assert [line for line in SHOWN[name] if line not in shown] == []
    assert pictures(notebook) >= (name not in WITHOUT_A_PICTURE)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not [place for place in ("/tmp/", "site-packages", str(Path.home())) if place in shown]
    assert (ROOT / name).stat().st_size < 200_000


@pytest.mark.slow("a kernel for each, most of which load LlamaIndex and a model: 10 s of CPU each")
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, in its own folder, in a kernel of its own, with the pictures that were saved."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # where an audit key is made
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("PINECONE_INDEX", raising=False)
    if name.startswith("recipes/multi-modal") or "clip" in name:
        monkeypatch.setenv("CLIP_MODEL", str(tiny_clip()))
    notebook = execute(ROOT / name)
    shown = texts(notebook)
    assert [line for line in SHOWN[name] if line not in shown] == []
    assert pictures(notebook) == pictures(nbformat.read(ROOT / name, as_version=4))
