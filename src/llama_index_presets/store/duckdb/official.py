"""Option names of llama-index-vector-stores-duckdb accepted by `DuckDBVectorStore`."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from llama_index_presets._options import expect, one_value, refuse_unknown
from llama_index_presets.errors import SettingsError
from llama_index_presets.store.duckdb.connect import MEMORY

__all__ = ["OFFICIAL", "own_options", "search_config"]

OFFICIAL = ("database_name", "table_name", "embed_dim", "text_search_config", "persist_dir", "client")
"""Keywords of the official constructor; each is translated, with the official default beside it."""

_SAME = {"table_name": "table", "embed_dim": "dim", "client": "connection"}
_FOLDER, _TABLE = "./storage", "documents"

_TEXT_SEARCH = {
    "stemmer": "english",
    "stopwords": "english",
    "ignore": "(\\.|[^a-z])+",
    "strip_accents": True,
    "lower": True,
    "overwrite": False,
}
"""The official default of ``text_search_config``."""


def own_options(
    own: Mapping[str, Any], official: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Translate official options.

    ``database_name`` is a file in ``persist_dir`` (``./storage`` by default), and a store that is named so has the
    official default table, ``documents``.

    Args:
        own: Options under the names of this package, as the caller gave them.
        official: Options under the official names; None counts as not given.
        usual: What `own` holds where the caller gave nothing.

    Returns:
        `own` with the official options in it.

    Raises:
        SettingsError: The same is said twice, with two values, or ``text_search_config`` cannot be honoured.

    Example:
        >>> usual = {"path": ":memory:", "table": "vectors", "dim": None}
        >>> own_options(usual, {"database_name": "a.duckdb", "embed_dim": 2}, usual)["table"]
        'documents'
    """
    written = {name: value for name, value in official.items() if value is not None}
    options = dict(own)
    for name, ours in _SAME.items():
        if name in written:
            options[ours] = one_value(ours, own[ours], usual[ours], name, written[name])
    if "database_name" in written or "persist_dir" in written:
        options["path"] = _file(own["path"], written)
        if "table_name" not in written and own["table"] == usual["table"]:
            options["table"] = _TABLE
    expect("dim", options["dim"], (Integral, type(None)), "the length of the vectors, or None")
    if "text_search_config" in written:
        options["text_language"] = _language(written["text_search_config"], own["text_language"])
    return options


def search_config(language: str) -> dict[str, Any]:
    """The official setting that describes text search in a language."""
    return {**_TEXT_SEARCH, "stemmer": language, "stopwords": language}


def _file(path: str | Path, written: Mapping[str, Any]) -> str | Path:
    name = one_value("path", str(path), MEMORY, "database_name", str(written.get("database_name", path)))
    return MEMORY if name == MEMORY else Path(written.get("persist_dir", _FOLDER)) / name


def _language(config: Mapping[str, Any], own: str) -> str:
    """The language of text search; everything else of the official setting has one value here."""
    refuse_unknown("text_search_config", config, _TEXT_SEARCH)
    language = str(config.get("stemmer", own))
    fixed = {**_TEXT_SEARCH, "stemmer": language}
    other = [
        name
        for name, value in config.items()
        if value not in (fixed[name], language if name == "stopwords" else None)
    ]
    if other:
        raise SettingsError(
            f"text_search_config sets {', '.join(other)}, which cannot be changed here: text search lowers the case, "
            "folds accents, and has the stop words of its language. Set stemmer alone, or text_language."
        )
    return language
