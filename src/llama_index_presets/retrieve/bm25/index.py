"""BM25 index over nodes: kept on disk, changed node by node, filtered before ranking."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters

from llama_index_presets._options import expect, expect_each, strict
from llama_index_presets.filters import predicate
from llama_index_presets.ranking.bm25 import Analyzer, KeywordQuery, View, parse_query
from llama_index_presets.retrieve.bm25.documents import (
    indexed_text,
    node_tokens,
    serialize_entry,
    serialize_payload,
)
from llama_index_presets.retrieve.bm25.languages import AUTO, in_languages
from llama_index_presets.retrieve.bm25.official import (
    TOKEN_PATTERN,
    nodes_of,
    own_language,
    persisted_top_k,
)
from llama_index_presets.retrieve.bm25.renewal import renew
from llama_index_presets.retrieve.bm25.retriever import KeywordHits, KeywordRetriever
from llama_index_presets.retrieve.bm25.state import KeywordState, Mark
from llama_index_presets.retrieve.bm25.write_ahead_log import LogRecord, NodeEntry
from llama_index_presets.retrieve.node_sources import NodeSource, all_nodes
from llama_index_presets.retrieve.question_filters import question_filters, states_conditions

__all__ = ["BM25Index", "Transaction", "listed"]


class Transaction:
    """Transaction: changes that `BM25Index.transaction` applies at once at its end."""

    def __init__(self) -> None:
        self._nodes: list[BaseNode] = []
        self._ids: list[str] = []
        self._documents: list[str] = []

    def upsert(self, nodes: Iterable[BaseNode]) -> None:
        """Add these nodes, or replace those whose id is there."""
        self._nodes += expect_each("nodes", nodes, BaseNode, "a list of nodes")

    def delete(self, ids: str | Iterable[str] = (), *, documents: str | Iterable[str] = ()) -> None:
        """Delete these nodes, and all nodes of these documents, but for those that this change upserts."""
        self._ids.extend(listed(ids))
        self._documents.extend(listed(documents))

    def record(
        self,
        present: Callable[[Sequence[str], Sequence[str]], list[str]],
        entries: Callable[[Iterable[BaseNode]], list[NodeEntry]],
        documents: Sequence[str],
    ) -> LogRecord:
        """The whole change as one record that also ends the change of `documents`."""
        kept = {node.node_id for node in self._nodes}
        drop = [name for name in present(self._ids, self._documents) if name not in kept]
        return LogRecord(drop=drop, put=entries(self._nodes), end=documents)


def listed(names: str | Iterable[str]) -> list[str]:
    """A list of names, also where one name was given as a string."""
    return (
        [names] if isinstance(names, str) else expect_each("The ids", names, str, "one id, or a list of ids")
    )


@strict()
class BM25Index:
    """Keyword index of nodes, scored with BM25F: weighted fields, word pairs, exact phrases, prefixes.

    Every change is one step: it is on disk when the call returns, or it did not happen. Nodes are known by
    their
    id: adding one that is there replaces it, or does nothing where it is the same. Filters are applied before
    ranking, so no filtered-out node is ever returned. A query that matches nothing gives nothing.

    Queries are words; ``"exact phrase"`` (stemmed, stop words passed over) and ``code-12*`` are understood, see
    `ranking.bm25.parse_query`. Numbers and names such as ``10-K``, ``B12``, ``v2.3.1`` and ``§ 4(a)`` are found whole
    and by their parts.

    Scores are > 0, higher is better, without an upper limit, and equal those of an index built afresh. A folder of an
    earlier version is written afresh when it is opened, from its nodes, with a message in the log.

    Thread safe. One process writes at a time, any number read; each sees the others' finished changes at its
    next call.

    Args:
        path: Folder to keep the index in; made on the first change. None keeps it in memory.
        language: Of stemmer and stop words: see `Analyzer`; ``"auto"`` for that of each node, as its metadata
            ``language`` states it or its text shows. None means what the folder remembers, else english.
        k1: Saturation of repeated words, >= 0. None means what the folder remembers, else 1.2.
        b: How much long nodes are discounted, in [0, 1]. None means what the folder remembers, else 0.75.
        nodes: A vector store, document store or index that holds the nodes; their text is then not stored
            here a second time. None stores it here.
        text: Which text is indexed: that which is embedded (``"embed"``), with the metadata that goes with
            it, or the bare text (``"none"``). None means what the folder remembers, else ``"embed"``.
        fields: Metadata key, or ``"text"``, -> how often its words count, from 0 (not indexed) to 10; metadata that
            is not embedded is indexed when it is named. None means what the folder remembers, else
            ``{"title": 2}``, or nothing where `text` is ``"none"``.
        pairs: Weight of two neighbouring words of the query that are neighbours in a node, >= 0; 0 is off. None
            means what the folder remembers, else 0.3.

    Raises:
        SettingsError: A setting is unknown, or is not the one that the folder was made with.
        StoreCorruptError: The folder's files cannot be read.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> index = BM25Index()
        >>> index.add([TextNode(id_="a", text="Valve AB-17 leaks"), TextNode(id_="b", text="Pump manual")])
        ['a', 'b']
        >>> [hit.node.node_id for hit in index.as_retriever().retrieve("leaking valves")]
        ['a']
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        language: str | None = None,
        k1: float | None = None,
        b: float | None = None,
        nodes: NodeSource | None = None,
        text: str | None = None,
        fields: Mapping[str, int] | None = None,
        pairs: float | None = None,
    ) -> None:
        expect("path", path, (str, os.PathLike, NoneType), "a folder, or None to keep the index in memory")
        self._source = nodes
        wanted = {"language": language, "k1": k1, "b": b, "text": text, "fields": fields, "pairs": pairs}
        self._state = KeywordState(None if path is None else Path(path), wanted)
        if self._state.outdated:
            renew(self._state, nodes)

    @classmethod
    def from_nodes(
        cls, nodes: Sequence[BaseNode], path: str | Path | None = None, **settings: Any
    ) -> BM25Index:
        """Make an index and add nodes to it; settings are those of the constructor."""
        index = cls(path, **settings)
        index.add(nodes)
        return index

    @classmethod
    def from_source(cls, source: NodeSource, path: str | Path | None = None, **settings: Any) -> BM25Index:
        """Index every node of a vector store, document store or index, without storing their text again.

        Raises:
            RetrievalError: The source cannot list its nodes.
        """
        index = cls(path, nodes=source, **settings)
        index.add(all_nodes(source))
        return index

    @classmethod
    @strict()
    def from_defaults(
        cls,
        index: NodeSource | None = None,
        nodes: Sequence[BaseNode] | None = None,
        docstore: NodeSource | None = None,
        stemmer: Any = None,
        language: str | list[str] = "en",
        similarity_top_k: int = 2,
        verbose: bool = False,
        skip_stemming: bool = False,
        token_pattern: str = TOKEN_PATTERN,
        filters: MetadataFilters | None = None,
        tokenizer: Callable[[str], list[str]] | None = None,
    ) -> KeywordRetriever:
        """Make a retriever as `BM25Retriever.from_defaults` does, over an index in memory: its `index`.

        Args:
            index: Gives the nodes, as a vector store or document store does.
            nodes: The nodes themselves.
            docstore: Gives the nodes. One of the three is given.
            stemmer: A Snowball stemmer of `language`; None is that.
            language: Of stemmer and stop words.
            similarity_top_k: How many hits at most.
            verbose: As for every retriever.
            skip_stemming: Has one value here, False, but with ``language="none"``.
            token_pattern: Has one value here.
            filters: What hits must satisfy.
            tokenizer: Has one value here, None.

        Raises:
            SettingsError: Not one source of nodes is given, or a setting cannot be honoured: the message says why.

        Example:
            >>> from llama_index.core.schema import TextNode
            >>> nodes = [TextNode(id_="a", text="Valve AB-17 leaks"), TextNode(id_="b", text="Pump manual")]
            >>> [hit.node.node_id for hit in BM25Index.from_defaults(nodes=nodes).retrieve("leaking")]
            ['a']
        """
        name = own_language(
            language, stemmer, skip_stemming=skip_stemming, token_pattern=token_pattern, tokenizer=tokenizer
        )
        made = cls(language=name)
        made.add(nodes_of(index, nodes, docstore))
        return made.as_retriever(similarity_top_k, filters, verbose=verbose)

    @classmethod
    def from_persist_dir(cls, path: str | Path) -> KeywordRetriever:
        """Open the folder that `KeywordRetriever.persist` wrote, as `BM25Retriever.from_persist_dir` does.

        Raises:
            SettingsError: The folder was written by `BM25Retriever`, or holds no index.
        """
        top_k = persisted_top_k(Path(path))
        return cls(path).as_retriever(top_k)

    # -- a copy is the same index: it would be the same folder, or lose what is in memory ---------------------------

    def __copy__(self) -> BM25Index:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> BM25Index:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle opens the folder again; that of an index in memory holds its nodes."""
        path = self._state.place
        nodes = [] if path is not None else all_nodes(self._source) if self._source else self._state.nodes()
        if path is None and self._source is not None:
            indexed = set(self.digests())
            nodes = [node for node in nodes if node.node_id in indexed]
        return _reopened, (path, self.settings, self._source, nodes)

    # -- what is in it ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of nodes."""
        return self._state.snapshot()[0].documents

    def __contains__(self, node_id: object) -> bool:
        """Whether a node of this id is in the index."""
        self._state.refresh()
        return isinstance(node_id, str) and self._state.head(node_id) is not None

    @property
    def analyzer(self) -> Analyzer:
        """Text analyzer of nodes and queries."""
        return self._state.analyzer

    @property
    def settings(self) -> dict[str, Any]:
        """Current language, k1, b, text, fields and pairs."""
        return dict(self._state.settings)

    @property
    def unfinished(self) -> frozenset[str]:
        """Source documents whose `transaction` was cut short; `check_consistency` repairs them.

        Empty while a living process is in the middle of a change: then nothing can be told yet.
        """
        self._state.refresh()
        return self._state.unfinished

    def mark(self) -> Mark:
        """Version mark: different after every change of the index, by any process."""
        return self._state.mark()

    def digests(self, documents: Iterable[str] | None = None) -> dict[str, str]:
        """Node id -> digest of its text and metadata, of all nodes or of those of some source documents."""
        self._state.refresh()
        if documents is None:
            return {head.id: head.digest for head in self._state.heads()}
        heads = map(self._state.head, self._state.of_documents(documents))
        return {head.id: head.digest for head in heads if head is not None}

    def digest_of(self, node: BaseNode) -> str:
        """The digest that this index would keep of a node; in `digests` where the node is there unchanged."""
        return serialize_entry(node, indexed_text(node, self._state.settings["text"])).digest

    # -- change it ----------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes, or replace those whose id is there; all of them, or none when it raises.

        Nodes that are there unchanged cost nothing. The nodes given are not changed.

        Returns:
            The nodes' ids.

        Raises:
            NodeRejectedError: A node cannot be stored; nothing was written.
            StoreWriteError: The folder cannot be written; nothing was written.
        """
        nodes = expect_each("nodes", nodes, BaseNode, "a list of nodes, such as [TextNode(text=…)]")
        self._commit(LogRecord(put=self._entries(nodes)))
        return [node.node_id for node in nodes]

    upsert = add

    def delete(self, ids: str | Iterable[str] = (), *, documents: str | Iterable[str] = ()) -> int:
        """Delete nodes by id, or all nodes of source documents; what is not there is passed over.

        Returns:
            How many nodes were deleted.
        """
        drop = self._present(ids, documents)
        self._commit(LogRecord(drop=drop))
        return len(drop)

    @contextmanager
    def transaction(self, documents: str | Iterable[str]) -> Iterator[Transaction]:
        """Change documents here and in a vector store together; a crash between the two is detected later.

        The intent is on disk before the block runs; what the block asks of the `Transaction` happens in one step
        when it ends well. When it raises or the process dies, `unfinished` names the documents until
        `check_consistency` has compared them with the store and repaired them.

        Args:
            documents: Ids of the source documents (`ref_doc_id`) that the block touches.

        Example:
            >>> from llama_index.core.schema import TextNode
            >>> index = BM25Index()
            >>> with index.transaction("letter-1") as change:
            ...     # vector_store.add(nodes) comes here
            ...     change.upsert([TextNode(id_="a", text="Dear Sir")])
            >>> "a" in index
            True
        """
        names = listed(documents)
        change = Transaction()
        with self._state.under_way():
            self._commit(LogRecord(begin=names))
            yield change
            self._commit(change.record(self._present, self._entries, names))

    def mark_finished(self, documents: str | Iterable[str]) -> None:
        """Declare the change of documents over; `check_consistency` does it after repairing them."""
        self._commit(LogRecord(end=listed(documents)))

    def compact(self) -> None:
        """Write the index afresh, without what was replaced or deleted; happens by itself when worthwhile."""
        self._state.compact()

    def finish_load(self) -> None:
        """Make the next opening fast, after a load: a long journal is folded into the snapshot.

        The end of the process does it, too.

        Raises:
            StoreWriteError: The folder cannot be written; the index is as it was.
        """
        self._state.finish_load()

    def persist(self, path: str | Path | None = None) -> None:
        """Write the index to a folder; without a path, write its own folder afresh (changes are durable
        anyway).

        Raises:
            SettingsError: The folder holds an index already, or there is no path and the index is in memory.
            StoreWriteError: The folder cannot be written.
        """
        self._state.persist(None if path is None else Path(path))

    # -- ask it -------------------------------------------------------------------------------------------

    def search(
        self, query: str, top_k: int = 10, filters: MetadataFilters | None = None
    ) -> list[tuple[str, float]]:
        """(node id, score) pairs of the best nodes, best first, ties by id.

        Args:
            query: Words, ``"exact phrases"`` and ``prefixes*``; what occurs nowhere is passed over.
            top_k: How many at most, >= 0.
            filters: What nodes must satisfy; nested groups are allowed.

        Raises:
            FilterError: A filter cannot mean anything.
        """
        return self.find(query, top_k, filters).pairs

    def find(self, query: str, top_k: int, filters: MetadataFilters | None = None) -> KeywordHits:
        """Like `search`; the result can also give the nodes, as they were at the time of the search."""
        expect("query", query, str, "a text")
        expect("filters", filters, (MetadataFilters, NoneType), "MetadataFilters")
        view, document_table = self._state.snapshot()
        scores = view.scored(self._parsed(query, view), self._state.settings["pairs"])
        allowed = None
        if filters is not None:
            allowed = document_table.mask(filters.model_dump_json(), predicate(filters), view.rows)
        best = scores.best(top_k, allowed)
        pairs = [(view.ids[row] or "", score) for row, score in best]
        return KeywordHits(pairs, [row for row, _ in best], document_table, self._source, filters, scores)

    def filters_in(self, question: str, filters: MetadataFilters | None = None) -> MetadataFilters | None:
        """Filters that a question states ("in 2023", "by Smith") and some node can satisfy; see `question_filters`.

        Args:
            question: In English.
            filters: What nodes satisfy anyway; only those are looked at, so that no other node decides what is asked.
        """
        if not states_conditions(question):
            return None
        self._state.refresh()
        test = predicate(filters)
        return question_filters(
            question, (head.metadata for head in self._state.heads() if test(head.metadata))
        )

    def as_retriever(
        self, top_k: int = 10, filters: MetadataFilters | None = None, **options: Any
    ) -> KeywordRetriever:
        """A LlamaIndex retriever over this index.

        Args:
            top_k: How many hits at most, >= 0.
            filters: What hits must satisfy; a `FilteredQuery` can narrow them further.
            **options: What `BaseRetriever` takes, such as `callback_manager`.
        """
        return KeywordRetriever(self, top_k=top_k, filters=filters, **options)

    # -- inside -------------------------------------------------------------------------------------------

    def _parsed(self, query: str, view: View) -> KeywordQuery:
        if self._state.settings["language"] == AUTO:
            return in_languages(query, view, self.analyzer)
        return parse_query(query, self.analyzer)

    def _entries(self, nodes: Iterable[BaseNode]) -> list[NodeEntry]:
        """New or changed entries of these nodes, the last of equal ids; tokenised outside of any lock."""
        entries = []
        for node in {node.node_id: node for node in nodes}.values():
            head = serialize_entry(node, indexed_text(node, self._state.settings["text"]))
            known = self._state.head(head.id)
            if known is None or known.digest != head.digest:
                body = serialize_payload(node) if self._source is None else None
                tokens = node_tokens(node, self._state.settings, self.analyzer)
                entries.append(NodeEntry(head.to_json(), tokens, body))
        return entries

    def _present(self, ids: str | Iterable[str], documents: str | Iterable[str]) -> list[str]:
        self._state.refresh()
        named = [name for name in listed(ids) if self._state.head(name) is not None]
        return list(dict.fromkeys([*named, *self._state.of_documents(listed(documents))]))

    def _commit(self, record: LogRecord) -> None:
        if any((record.drop, record.put, record.begin, record.end)):
            self._state.commit(record)


def _reopened(
    path: Path | None, settings: dict[str, Any], source: NodeSource | None, nodes: Sequence[BaseNode]
) -> BM25Index:
    """Open the index of a pickle."""
    index = BM25Index(path, nodes=source, **settings)
    if nodes:
        index.add(nodes)
    return index
