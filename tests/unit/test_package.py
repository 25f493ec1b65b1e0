"""What importing the package promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llama_index_presets
from llama_index_presets import errors
from llama_index_presets.errors import MissingExtraError, PresetsError
from llama_index_presets.packages.extras import installed, require

PUBLIC = {
    "build", "PRESETS", "LocalEmbedding", "BatchedOpenAIEmbedding", "CachedEmbedding", "EmbeddingCache",
    "embed_dataframe",
    "ExtractiveLLM",
    "DuckDBVectorStore", "LanceDBVectorStore", "HybridFusionRetriever",
    "BM25Index", "CrossEncoderRerank", "CostTrackingHandler", "Ledger",
}  # fmt: skip
HEAVY = (
    "torch", "lancedb", "pandas", "openai", "llama_index", "sentence_transformers", "duckdb", "pyarrow",
    "starlette", "uvicorn", "mcp", "prometheus_client",
)  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running some code."""
    report = f"import sys; {code}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    """Neither torch nor a database is loaded before it is used."""
    assert loaded_after("import llama_index_presets") == set()


def test_reading_the_matrix_needs_no_llama_index() -> None:
    """`llama-presets list` and `--help` answer at once."""
    assert loaded_after("import llama_index_presets.cli") == set()
    assert loaded_after("from llama_index_presets import PRESETS, Ledger") == set()
    assert loaded_after("from llama_index_presets.presets.checks import readiness") == set()


def test_the_duckdb_store_works_without_pandas() -> None:
    """Arrow would import pandas with the first array, for a second and more."""
    code = (
        "from llama_index_presets import DuckDBVectorStore as Store; "
        "from llama_index.core.schema import TextNode; "
        "from llama_index.core.vector_stores import MetadataFilter as F, MetadataFilters as Fs, VectorStoreQuery; "
        "store = Store(); store.add([TextNode(id_=i, text='é', metadata={'k': i}, embedding=[1.0]) for i in 'ab']); "
        "store.delete_nodes(['a']); "
        "ask = VectorStoreQuery(query_embedding=[1.0], filters=Fs(filters=[F(key='k', value='b')])); "
        "assert store.query(ask).ids == ['b']"
    )
    assert "pandas" not in loaded_after(code)


def test_every_public_name_is_there() -> None:
    """The names that users rely on, loaded on first use."""
    assert set(llama_index_presets.__all__) >= PUBLIC
    assert all(getattr(llama_index_presets, name) is not None for name in llama_index_presets.__all__)
    assert set(llama_index_presets.__all__) <= set(dir(llama_index_presets))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Typos do not pass as None."""
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        llama_index_presets.biuld  # noqa: B018


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    """Upper and lower case are no difference, and what is asked by machines gets no advice."""
    with pytest.raises(AttributeError, match="'DuckDbVectorStore'. Did you mean 'DuckDBVectorStore'"):
        llama_index_presets.DuckDbVectorStore  # noqa: B018
    with pytest.raises(AttributeError, match="'__wrapped__'$"):
        llama_index_presets.__wrapped__  # noqa: B018


WITHOUT_EXTRAS = """
import pydoc, sys
import llama_index_presets
from llama_index_presets.errors import MissingExtraError

for package in llama_index_presets._NEEDS.values():
    sys.modules[package] = None
for name in llama_index_presets._NEEDS:
    try:
        getattr(llama_index_presets, name)
    except MissingExtraError as error:
        assert "pip install" in str(error), error
    else:
        raise AssertionError(name)
assert "HybridFusionRetriever" in pydoc.render_doc(llama_index_presets)
from llama_index_presets import *
assert build and not llama_index_presets._NEEDS.keys() & globals().keys()
"""


def test_help_works_without_the_extras_and_their_names_carry_the_install_line() -> None:
    """`help`, completion and ``import *`` load every name that is listed; one whose package is missing ended them."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_missing_extra_carries_its_install_line() -> None:
    """The error contains its fix."""
    with pytest.raises(MissingExtraError, match=r'pip install "llama-index-presets\[local\]"') as caught:
        require("surely_not_installed_anywhere", extra="local")
    assert caught.value.extra == "local"
    assert isinstance(caught.value, ImportError)
    assert not installed("surely_not_installed_anywhere") and not installed("surely.not.installed")


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed but cannot import something of its own keeps its own message."""
    (tmp_path / "broken_package.py").write_text("import something_it_lacks")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="something_it_lacks") as caught:
        require("broken_package", extra="local")
    assert not isinstance(caught.value, MissingExtraError)


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """Every error of the tree derives from PresetsError and stands in the drawing."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PresetsError)
        assert name in (errors.__doc__ or "")
