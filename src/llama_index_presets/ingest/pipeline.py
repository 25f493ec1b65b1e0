"""Ingest pipeline: documents read, cut, embedded and stored in batches, each all or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any, Protocol

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.errors import ModelError, PresetsError
from llama_index_presets.events import DocumentEndEvent
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, language_of_nodes
from llama_index_presets.ingest.chunking.cut import Contextualiser, cut
from llama_index_presets.ingest.clean import whole_characters
from llama_index_presets.ingest.failures import UndecidedErrors, blame, file_problem
from llama_index_presets.ingest.manifest import Manifest, ManifestEntry
from llama_index_presets.ingest.progress import Progress
from llama_index_presets.ingest.sources.source import Source
from llama_index_presets.ingest.stored_nodes import stored_nodes, stored_vectors

__all__ = [
    "FailedSource",
    "IngestReport",
    "Pipeline",
    "failed_source",
    "is_unchanged",
    "work_of",
]

dispatcher = get_dispatcher(__name__)

_Cut = tuple[Source, list[TextNode]]
"""A document and its chunks."""


@dataclass(frozen=True, slots=True)
class FailedSource:
    """Document that was left out, and why, in one line."""

    source: str
    error: str


def failed_source(source: Source, error: BaseException) -> FailedSource:
    """A document and its error; one that is not this package's is named by its class."""
    text = " ".join(str(error).split())
    said = text if isinstance(error, PresetsError) else f"{type(error).__name__}: {text[:300]}"
    if isinstance(error, OSError) and source.file is not None:
        said = file_problem(error)  # of a part of a large file, or the place where it was
    return FailedSource(source.doc_id, whole_characters(said))


@dataclass(slots=True, kw_only=True)
class IngestReport:
    """Result of a run.

    Attributes:
        documents: Documents written, new or changed.
        unchanged: Documents that were there already.
        outdated: Of these, the ones that an older version of their reader has read; ``again=True`` reads them anew.
        removed: Documents that vanished and were taken out (`sync`).
        failed: Documents that were left out.
        kept: Of these, and of those below a folder that was left out, the ones that are answered from as they were
            read last.
        chunks: Chunks of the documents written.
        embedded: Chunks that the model was asked for in this run; a cache answered the others.
        tokens: Their tokens.
        warnings: Document -> what its reader was unsure of, such as a guessed encoding; only documents of this run.
        personal_data: Document -> kind -> how often it was found, when `pii` is not ``off``; only documents that were
            read in this run and have any, and never a value.
        cost_usd: What embedding them cost, in US dollars; None when the model's price is unknown.
        unpriced_models: Models without a known price, where `cost_usd` is None for one.
        estimated_tokens: What was expected, when a cost limit was given; None without one.
        estimated_cost_usd: The same, in US dollars.
    """

    documents: int = 0
    unchanged: int = 0
    outdated: int = 0
    removed: int = 0
    failed: list[FailedSource] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    tokens: int = 0
    warnings: dict[str, list[str]] = field(default_factory=dict)
    personal_data: dict[str, dict[str, int]] = field(default_factory=dict)
    cost_usd: float | None = 0.0
    unpriced_models: list[str] = field(default_factory=list)
    estimated_tokens: int | None = None
    estimated_cost_usd: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``unpriced_models`` only where there are any."""
        values = asdict(self)
        return values if self.unpriced_models else {k: v for k, v in values.items() if k != "unpriced_models"}


class KeywordChange(Protocol):
    """Pending changes of the keyword index, applied when the store has committed."""

    def upsert(self, nodes: Sequence[BaseNode], /) -> object:
        """Add nodes, or replace those whose id is there."""

    def delete(self, ids: Sequence[str], /, *, documents: Sequence[str]) -> object:
        """Delete these nodes, and all nodes of these documents, that are not added."""


class KeywordIndex(Protocol):
    """A keyword index that follows the vector store (the hybrid pattern); `BM25Index` is one."""

    def transaction(self, documents: Sequence[str], /) -> AbstractContextManager[KeywordChange]:
        """Log the intent, let the block change the store, then change the index at once."""


def work_of(sources: Sequence[Source], known: Mapping[str, str]) -> tuple[list[Source], list[Source]]:
    """Documents to be read, and those that stay as they are.

    Of the first, ``again`` marks also those that an earlier run was to read again, or was stopped at.

    Args:
        sources: What should be there.
        known: See `Manifest.hashes`.
    """
    wanted, unchanged = list[Source](), list[Source]()
    for source in sources:
        if is_unchanged(source, known):
            unchanged.append(source)
        else:
            unfinished = known.get(source.doc_id) == ""
            wanted.append(replace(source, again=True) if unfinished else source)
    return wanted, unchanged


def is_unchanged(source: Source, known: Mapping[str, str]) -> bool:
    """Whether the index holds a document in its current content, and it is not to be read again.

    Args:
        source: The document.
        known: See `Manifest.hashes`.
    """
    return bool(source.content_hash) and not source.again and known.get(source.doc_id) == source.content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Ingest pipeline from sources to a store.

    Attributes:
        embed_model: Any LlamaIndex embedding.
        chunker: Cuts documents.
        store: Any LlamaIndex vector store; one with ``replace_documents`` swaps a document's chunks atomically.
        manifest: What the store holds.
        keyword: A keyword index to keep in step, or None.
        batch_chunks: Chunks embedded and committed together; what a kill may cost.
        count_tokens: Texts to what the model bills for each, for the report; None counts as the chunker does.
        images: Whether the model embeds images as images; otherwise an image node is embedded by its text.
        contextualiser: Gives each chunk a language model's sentence, or None.
    """

    embed_model: BaseEmbedding
    chunker: SentenceChunker
    store: BasePydanticVectorStore
    manifest: Manifest
    keyword: KeywordIndex | None = None
    batch_chunks: int = 256
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None
    images: bool = False
    contextualiser: Contextualiser | None = None

    def run(
        self,
        sources: Sequence[Source],
        progress: Progress,
        *,
        sync: Callable[[str], bool] | None = None,
        load: Callable[[Sequence[Source], IngestReport, Progress], None] | None = None,
    ) -> IngestReport:
        """Synchronise the store with the sources, remains of a killed run included.

        Args:
            sources: What should be there.
            progress: Told of each document.
            sync: Which of the documents that are stored but not among the sources have vanished and go.
            load: Ingests those that are new or changed in place of `load`, such as on a cluster.
        """
        report, known = IngestReport(), self.manifest.hashes()
        changed, unchanged = work_of(sources, known)
        report.unchanged = len(unchanged)
        report.outdated = len(
            self.manifest.outdated({source.doc_id: source.reader_version for source in unchanged})
        )
        progress.start(len(changed))
        self._begin_again(changed, known)
        self.load([source for source in changed if source.refusal], report, progress)
        (load or self.load)([source for source in changed if not source.refusal], report, progress)
        leftovers = self.manifest.leftovers()  # what is among the sources and can be read is recorded by now
        if sync:
            gone = _gone({*known, *leftovers}, sources)
            report.removed = self.remove(doc_id for doc_id in gone if sync(doc_id))
        self.remove(leftovers)
        self._finish(report)
        return report

    def _begin_again(self, changed: Sequence[Source], known: Mapping[str, str]) -> None:
        """Note what is to be read again, so that after a kill the next run goes on without being asked to."""
        again = [
            source.doc_id
            for source in changed
            if source.again and not source.refusal and known.get(source.doc_id)
        ]
        if again:
            self.manifest.begin_again(again)

    def load(self, sources: Sequence[Source], report: IngestReport, progress: Progress) -> None:
        """Read, cut, embed, store and record documents; `report` is added to.

        A document that cannot be done is left out and reported, and the others go on; see `failures` for the errors
        that end the run instead.
        """
        undecided = UndecidedErrors()
        for batch in self._batches(self._cut(sources, report, progress, undecided)):
            self._commit(batch, report, undecided)
            progress.advance(len(batch))
        undecided.raise_if_none_succeeded()

    def remove(self, doc_ids: Iterable[str]) -> int:
        """Remove documents from the store and the manifest; unknown ids are fine.

        Returns:
            How many were there.
        """
        wanted = dict.fromkeys(doc_ids)
        known = {*self.manifest.hashes(), *self.manifest.leftovers()} if wanted else ()
        there = [doc_id for doc_id in wanted if doc_id in known]
        if there:
            alone = self._without_source(there)
            self.manifest.begin_removal(there)
            self._replace(there, [], alone)
            self.manifest.forget(there)
        return len(there)

    def _without_source(self, doc_ids: Sequence[str]) -> list[str]:
        """Of these documents, those that are single nodes without a source: stores know them by node id alone."""
        return [node.node_id for node in stored_nodes(self.store, doc_ids) if node.ref_doc_id is None]

    def _cut(
        self, sources: Iterable[Source], report: IngestReport, progress: Progress, undecided: UndecidedErrors
    ) -> Iterator[_Cut]:
        for source in sources:
            began = time.perf_counter()
            try:
                nodes = cut(source, self.chunker, report.warnings, self.contextualiser)
            except Exception as error:  # a reader may fail in any way on a damaged or hostile file
                if blame(error) == "run":
                    raise
                report.failed.append(failed_source(source, error))
                if isinstance(error, ModelError):  # a model that cuts by meaning
                    undecided.add(error)
                _tell(source, 0, began, error)
                progress.advance()
                continue
            _tell(source, len(nodes), began)
            yield source, nodes

    def _batches(self, cut: Iterable[_Cut]) -> Iterator[list[_Cut]]:
        batch: list[_Cut] = []
        size = 0
        for source, nodes in cut:
            batch.append((source, nodes))
            size += len(nodes)
            if size >= self.batch_chunks:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _commit(self, batch: list[_Cut], report: IngestReport, undecided: UndecidedErrors) -> None:
        tokens: dict[str, int] = {}

        def embed(members: Sequence[_Cut]) -> None:
            self._keep_vectors(members)
            tokens.update(self._embed(_nodes(members), report))

        def store(members: Sequence[_Cut]) -> None:
            self._store(members, tokens, report)

        embedded = _apart(batch, embed, report, undecided)
        for _ in _apart(embedded, store, report, undecided):
            undecided.success()

    def _store(self, members: Sequence[_Cut], tokens: Mapping[str, int], report: IngestReport) -> None:
        nodes = _nodes(members)
        doc_ids = [source.doc_id for source, _ in members]
        self.manifest.begin(doc_ids)
        self._replace(doc_ids, nodes)
        self.manifest.record(
            ManifestEntry(
                source.doc_id,
                source.content_hash,
                len(own),
                sum(tokens[node.node_id] for node in own),
                source.owner,
                language_of_nodes(own),
                source.reader_version,
            )
            for source, own in members
        )
        report.documents += len(members)
        report.chunks += len(nodes)

    def _keep_vectors(self, members: Sequence[_Cut]) -> None:
        """Of documents that are read again, give chunks whose text stayed the vectors that the store has.

        A cache costs less to ask, and may have been emptied, as `compact` does.
        """
        again = [(source.doc_id, own) for source, own in members if source.again]
        nodes = [
            node
            for _, own in again
            for node in own
            if node.embedding is None and not (self.images and isinstance(node, ImageNode))
        ]
        if not nodes or not self._sent([node.get_content(MetadataMode.EMBED) for node in nodes]):
            return
        vectors = stored_vectors(self.store, [doc_id for doc_id, _ in again])
        for node in nodes:
            node.embedding = vectors.get(node.get_content(MetadataMode.EMBED))

    def _embed(self, nodes: Sequence[TextNode], report: IngestReport) -> dict[str, int]:
        pictures = {node.node_id for node in nodes if self.images and isinstance(node, ImageNode)}
        tokens = {
            node.node_id: 0 if node.node_id in pictures else self.chunker.length(node) for node in nodes
        }
        missing = [node for node in nodes if node.embedding is None]
        texts = [node for node in missing if node.node_id not in pictures]
        contents = [node.get_content(MetadataMode.EMBED) for node in texts]
        sent = self._sent(contents)
        _keep(texts, self.embed_model.get_text_embedding_batch(contents) if texts else [])
        report.embedded += len(sent) + self._embed_images([n for n in missing if n.node_id in pictures])
        report.tokens += sum(sent)
        return tokens

    def _sent(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text that will be sent to the model; a cache answers the others."""
        missing = getattr(self.embed_model, "missing", None)
        asked = texts if missing is None else [texts[place] for place in missing(texts)]
        if self.count_tokens is not None:
            return self.count_tokens(asked)
        return [self.chunker.count(text) for text in asked]

    def _embed_images(self, nodes: Sequence[TextNode]) -> int:
        images = [node.resolve_image() for node in nodes if isinstance(node, ImageNode)]
        if not images:
            return 0
        missing = getattr(self.embed_model, "missing_images", None)
        computed = len(images) if missing is None else len(missing(images))
        _keep(nodes, self.embed_model.get_image_embedding_batch(images))  # type: ignore[attr-defined]
        return computed

    def _replace(
        self, doc_ids: Sequence[str], nodes: Sequence[BaseNode], gone_nodes: Sequence[str] = ()
    ) -> None:
        if self.keyword is None:
            self._replace_in_store(doc_ids, nodes, gone_nodes)
            return
        with self.keyword.transaction(doc_ids) as change:
            self._replace_in_store(doc_ids, nodes, gone_nodes)
            change.delete(gone_nodes, documents=doc_ids)
            change.upsert(nodes)

    def _replace_in_store(
        self, doc_ids: Sequence[str], nodes: Sequence[BaseNode], gone_nodes: Sequence[str]
    ) -> None:
        replace_documents = getattr(self.store, "replace_documents", None)
        if replace_documents is not None:
            replace_documents(doc_ids, nodes)
        else:
            for doc_id in doc_ids:
                self.store.delete(doc_id)
            self.store.add(list(nodes))
        if gone_nodes:
            self.store.delete_nodes(list(gone_nodes))

    def _finish(self, report: IngestReport) -> None:
        """Index and compact once, after the bulk of the load."""
        if not (report.documents or report.removed):
            return
        for part in (self.store, self.keyword):
            finish_load = getattr(part, "finish_load", None)
            if finish_load is not None:
                finish_load()


def _gone(known: Iterable[str], sources: Iterable[Source]) -> set[str]:
    """Documents that are stored and not among the sources; an unreadable path does not count as gone."""
    listed = [source for source in sources if not source.absent]
    there = {source.doc_id for source in listed}
    closed = {source.doc_id for source in listed if source.refusal}
    return {
        doc_id
        for doc_id in set(known) - there
        if not any(parent.as_posix() in closed for parent in PurePath(doc_id).parents)
    }


def _nodes(members: Iterable[_Cut]) -> list[TextNode]:
    return [node for _, own in members for node in own]


def _apart(
    batch: Sequence[_Cut],
    step: Callable[[Sequence[_Cut]], None],
    report: IngestReport,
    undecided: UndecidedErrors,
) -> list[_Cut]:
    """Do a step for a whole batch or, when that fails, for each document alone; returns those that succeeded."""
    failed: list[tuple[Source, Exception]] = []
    done = list(batch)
    try:
        if batch:
            step(batch)
    except Exception as error:
        if blame(error) == "run":
            raise
        done, failed = _one_by_one(batch, step, error)
    if done and failed:
        undecided.success()
    for source, problem in failed:
        report.failed.append(failed_source(source, problem))
        if blame(problem) == "either":
            undecided.add(problem)
    return done


def _one_by_one(
    batch: Sequence[_Cut], step: Callable[[Sequence[_Cut]], None], error: Exception
) -> tuple[list[_Cut], list[tuple[Source, Exception]]]:
    if len(batch) == 1:  # it had its turn
        return [], [(batch[0][0], error)]
    done, failed = list[_Cut](), list[tuple[Source, Exception]]()
    for member in batch:
        try:
            step([member])
            done.append(member)
        except Exception as error:
            if blame(error) == "run":
                raise
            failed.append((member[0], error))
    return done, failed


def _keep(nodes: Sequence[TextNode], vectors: Sequence[list[float]]) -> None:
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector


def _tell(source: Source, chunks: int, began: float, error: Exception | None = None) -> None:
    dispatcher.event(
        DocumentEndEvent(
            document=source.doc_id,
            chunks=chunks,
            latency_ms=(time.perf_counter() - began) * 1000,
            error=type(error).__name__ if error else None,
        )
    )
