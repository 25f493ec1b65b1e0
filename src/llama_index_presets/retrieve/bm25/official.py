"""Options and files of `BM25Retriever` (llama-index-retrievers-bm25), as far as a `BM25Index` can honour them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import Stemmer
from llama_index.core.schema import BaseNode

from llama_index_presets._options import refuse_values
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.retrieve.node_sources import NodeSource, all_nodes

__all__ = ["TOKEN_PATTERN", "nodes_of", "own_language", "persist_retriever", "persisted_top_k"]

TOKEN_PATTERN: Final = r"(?u)\b\w\w+\b"
"""The official default of ``token_pattern``."""

_OWNER = "BM25Index.from_defaults"
_FILE = "retriever.json"
_PROBES = (
    "running", "connections", "generously", "nationalization", "Häuser", "gegangen", "laufenden", "nationalités",
    "parlerons", "cantabile", "propagavano", "corriendo", "nacionales", "sprekende", "løbende", "löpande",
    "juoksevat", "futó", "alergând", "бегущий", "koşuyorlar",
)  # fmt: skip


def nodes_of(
    index: NodeSource | None, nodes: Sequence[BaseNode] | None, docstore: NodeSource | None
) -> Sequence[BaseNode]:
    """The nodes of the one source that is given.

    Raises:
        SettingsError: None or several are given.
        RetrievalError: The source cannot list its nodes.
    """
    given = [source for source in (index, nodes, docstore) if source is not None]
    if len(given) != 1:
        raise SettingsError(
            f"{counted(len(given), 'source')} of nodes were given; give one of index, nodes and docstore."
        )
    return nodes if nodes is not None else all_nodes(given[0])  # type: ignore[arg-type]  # the other two are sources


def own_language(
    language: Any, stemmer: Any, *, skip_stemming: bool, token_pattern: str, tokenizer: Any
) -> str:
    """The language of an index that does what these official options say.

    Raises:
        SettingsError: One cannot be honoured; the message says why, and what to do.

    Example:
        >>> own_language("de", None, skip_stemming=False, token_pattern=TOKEN_PATTERN, tokenizer=None)
        'german'
    """
    if not isinstance(language, str):
        raise SettingsError(
            f"{_OWNER} cannot honour a list of stop words: they come with the language. Give its name, such as 'en', "
            "or 'none' for an index without stop words and stemming."
        )
    name = Analyzer(language=language).language
    given = {"skip_stemming": skip_stemming, "token_pattern": token_pattern, "tokenizer": tokenizer}
    stems = "an index stems as its language says; language='none' has neither stemmer nor stop words."
    refuse_values(
        _OWNER,
        given,
        {
            "skip_stemming": ((True, False) if name in ("none", "cjk") else (False,), stems),
            "token_pattern": ((TOKEN_PATTERN,), "words, numbers and identifiers are found by fixed rules."),
            "tokenizer": ((None,), "the official class ignores it, too. Choose the language."),
        },
    )
    if stemmer is not None and name not in ("none", "cjk") and not _stems_as(stemmer, name):
        raise SettingsError(
            f"{_OWNER} cannot honour this stemmer: it is not that of '{name}', whose stop words are used. Give "
            "language= the language of the stemmer, and leave the stemmer out."
        )
    return name


def _stems_as(stemmer: Any, language: str) -> bool:
    """Whether a stemmer does what that of a language does; PyStemmer's do not say which they are."""
    words = [word.lower() for word in _PROBES]
    try:
        return list(stemmer.stemWords(words)) == list(Stemmer.Stemmer(language).stemWords(words))
    except AttributeError:
        return False


def persist_retriever(index: Any, top_k: int, folder: Path) -> None:
    """Write an index with the number of hits of its retriever.

    Raises:
        SettingsError: The index cannot be written out, or the folder holds one already.
        StoreWriteError: The folder cannot be written.
    """
    if not hasattr(index, "persist"):
        raise SettingsError(f"A {type(index).__name__} cannot be written to a folder. Use a BM25Index.")
    index.persist(folder)
    try:
        (folder / _FILE).write_text(json.dumps({"similarity_top_k": top_k}), encoding="utf-8")
    except OSError as error:
        raise StoreWriteError(f"'{folder / _FILE}' cannot be written ({error.strerror}).") from error


def persisted_top_k(folder: Path) -> int:
    """Number of hits that `persist_retriever` wrote.

    Raises:
        SettingsError: The folder holds an index of bm25s, or none.
    """
    try:
        written = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SettingsError(
            f"'{folder}' holds no retriever. Give the folder of KeywordRetriever.persist; BM25Index(folder) "
            "opens an index."
        ) from None
    if any(folder.glob("*.csc.index.npy")):
        raise SettingsError(
            f"'{folder}' was written by BM25Retriever, whose index does not say its language. Make a new one: "
            "BM25Index.from_defaults(nodes=...)."
        )
    return int(written["similarity_top_k"])
