"""Ingest estimate: documents, chunks and tokens, counted before anything is sent."""

from __future__ import annotations

import hashlib
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llama_index.core.schema import ImageNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.chunking.cut import Contextualiser, cut_stream
from llama_index_presets.ingest.failures import blame
from llama_index_presets.ingest.pipeline import FailedSource, failed_source, work_of
from llama_index_presets.ingest.progress import Progress
from llama_index_presets.ingest.sources.source import Source
from llama_index_presets.ingest.stored_nodes import stored_vectors

__all__ = ["Work", "count_work"]

_BATCH = 512  # chunks counted together
_HELD = 512  # chunks of a document that are cut before the first is counted
_KEPT = 64  # texts kept to measure the model with
_KEPT_IMAGES = 8
_COUNTS = (
    "documents", "chunks", "embedded", "repeated", "images", "tokens", "repeated_tokens", "text_bytes",
)  # fmt: skip
_CONFIDENCE = 1.96  # of a normal distribution, for 95 %


@dataclass(slots=True, kw_only=True)
class Work:
    """Work of an ingest, counted.

    Attributes:
        documents: Documents that are new or changed and can be read.
        unchanged: Documents that are in the index already.
        failed: Documents that would be left out, and why.
        chunks: Their chunks.
        embedded: Chunks that the model would be asked for: without those that are cached, come with a vector, or
            repeat another one where a cache would notice.
        repeated: Chunks whose text repeats one that the model would be asked for, and that the cache then answers.
        tokens: Tokens of the embedded, as the model counts them.
        repeated_tokens: Tokens of the repeated, which are not sent.
        text_bytes: Size of all chunks in UTF-8.
        read: Documents that were read to find this; fewer than `documents` when it is a sample.
        margin: Relative error of `tokens`, at 95 %; 0 when every document was read.
        texts: Some of the texts to embed, spread over the documents.
        images: How many of the embedded are images, which have no tokens.
        pictures: The first of these.
    """

    documents: int = 0
    unchanged: int = 0
    failed: list[FailedSource] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    repeated: int = 0
    tokens: int = 0
    repeated_tokens: int = 0
    text_bytes: int = 0
    read: int = 0
    margin: float = 0.0
    texts: list[str] = field(default_factory=list)
    images: int = 0
    pictures: list[ImageNode] = field(default_factory=list)


def count_work(
    sources: Sequence[Source],
    *,
    known: Mapping[str, str],
    chunker: SentenceChunker,
    count_tokens: Callable[[Sequence[str]], list[int]],
    missing: Callable[[Sequence[str]], list[int]] | None,
    progress: Progress,
    sample: int | None = None,
    images: bool = False,
    contextualiser: Contextualiser | None = None,
    store: BasePydanticVectorStore | None = None,
) -> Work:
    """Read and cut what is new, and count; nothing is embedded, sent or stored.

    Args:
        sources: What should be in the index.
        known: What is there: see `Manifest.hashes`.
        chunker: As the ingest cuts.
        count_tokens: Texts to the tokens that the model bills for each.
        missing: Places of the texts that a cache does not hold; None without a cache.
        progress: Told of each document.
        sample: Read only so many documents, spread evenly, and extrapolate; None reads all of them.
        images: Whether the model embeds images as images.
        contextualiser: Counts, too, what a language model would be asked about each chunk.
        store: Asked for the vectors of documents that are read again; None counts without them.

    Returns:
        The counts; exact without `sample`.
    """
    changed, unchanged = work_of(sources, known)
    chosen = _spread(changed, sample)
    counter = _Counter(count_tokens, missing, images)
    work, per_document = counter.work, list[int]()
    work.unchanged = len(unchanged)
    progress.start(len(chosen))
    for source in chosen:
        try:
            nodes = cut_stream(source, chunker, contextualiser)
            first = list(itertools.islice(nodes, _HELD))  # most errors show here, before anything is counted
            kept = stored_vectors(store, [source.doc_id]) if source.again and store is not None else {}
            per_document.append(counter.add(itertools.chain(first, nodes), kept))
            work.documents += 1
        except Exception as error:  # as the ingest does
            if blame(error) == "run":
                raise
            work.failed.append(failed_source(source, error))
        progress.advance()
    counter.flush()
    work.embedded += work.images
    work.read = work.documents
    if len(chosen) < len(changed):
        _extrapolate(work, per_document, len(changed) / len(chosen), len(changed))
    return work


class _Counter:
    """Counter of chunks in batches; remembers texts that a cache would answer the second time."""

    def __init__(
        self,
        count_tokens: Callable[[Sequence[str]], list[int]],
        missing: Callable[[Sequence[str]], list[int]] | None,
        images: bool,
    ) -> None:
        self.work = Work()
        self._images = images
        self._count, self._missing = count_tokens, missing
        self._asked: dict[bytes, int] = {}  # digest of a text -> its tokens; 0 where the cache has it
        self._waiting: list[str] = []
        self._every = 1

    def add(self, nodes: Iterable[TextNode], kept: Collection[str] = ()) -> int:
        """Count the chunks of a document, of which the texts that are kept need no model; gives its characters."""
        characters = 0
        for node in nodes:
            characters += len(node.text)
            self.work.chunks += 1
            self.work.text_bytes += len(node.text.encode("utf-8", "surrogatepass"))
            if node.embedding is None and self._images and isinstance(node, ImageNode):
                self.work.images += 1
                self.work.pictures += [node] if self.work.images <= _KEPT_IMAGES else []
            elif node.embedding is None and (text := node.get_content(MetadataMode.EMBED)) not in kept:
                self._waiting.append(text)
            if len(self._waiting) >= _BATCH:
                self.flush()
        return characters

    def flush(self) -> None:
        texts, self._waiting = self._waiting, []
        if self._missing is None:
            asked, tokens = texts, self._count(texts)
        else:
            asked, tokens = self._through_cache(texts, self._missing)
        self.work.tokens += sum(tokens)
        self._keep(asked)
        self.work.embedded += len(asked)

    def _through_cache(
        self, texts: Sequence[str], missing: Callable[[Sequence[str]], list[int]]
    ) -> tuple[list[str], list[int]]:
        """Texts that the model would be asked for, with their tokens; counts those that repeat one of them."""
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts]
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._asked}
        firsts = list(new.values())
        asked = [firsts[place] for place in missing(firsts)]
        tokens = self._count(asked)
        by_text = dict(zip(asked, tokens, strict=True))
        again = Counter(digests)
        again.subtract(new.keys())
        self._asked |= {digest: by_text.get(text, 0) for digest, text in new.items()}
        for digest, times in again.items():
            if self._asked[digest]:
                self.work.repeated += times
                self.work.repeated_tokens += times * self._asked[digest]
        return asked, tokens

    def _keep(self, texts: Sequence[str]) -> None:
        """Keep every n-th text; when there are too many, every second of them, and n doubles."""
        for place, text in enumerate(texts, start=self.work.embedded):
            if place % self._every == 0:
                self.work.texts.append(text)
                if len(self.work.texts) >= _KEPT:
                    self.work.texts[:] = self.work.texts[::2]
                    self._every *= 2


def _spread(sources: Sequence[Source], sample: int | None) -> Sequence[Source]:
    if sample is None or sample >= len(sources):
        return sources
    return [sources[place * len(sources) // sample] for place in range(sample)]


def _extrapolate(work: Work, per_document: Sequence[int], factor: float, documents: int) -> None:
    """Scale what a sample has to the whole; the spread between documents gives the error."""
    mean = statistics.fmean(per_document) if per_document else 0.0
    if mean and len(per_document) > 1:
        rest = 1 - len(per_document) / documents  # a sample of nearly everything has nearly no error
        error = statistics.stdev(per_document) / math.sqrt(len(per_document)) / mean
        work.margin = round(_CONFIDENCE * error * math.sqrt(max(rest, 0.0)), 4)
    for name in _COUNTS:
        setattr(work, name, round(getattr(work, name) * factor))
