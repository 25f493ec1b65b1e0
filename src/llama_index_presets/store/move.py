"""Move of an index: copied from one store to another without embedding again."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery

from llama_index_presets._options import strict
from llama_index_presets.errors import FingerprintError, StoreError
from llama_index_presets.store.base import StoreBase

__all__ = ["COPY_ENVIRONMENT", "MoveReport", "NodeReader", "frugal", "move", "returned"]

# -- memory: what one phase has freed goes back to the system before the next takes its own -------------------


_LANCE = {
    "LANCE_DEFAULT_IO_BUFFER_SIZE": str(16 * 2**20),
    "LANCE_DEFAULT_BATCH_SIZE": "2048",
    "LANCE_DEFAULT_FRAGMENT_READAHEAD": "1",
}
"""How many bytes a scan of Lance may read before they are asked for (usually 2 GiB, so a whole table), how many rows
it handles at once (usually 8,192), and how many files it opens ahead."""

_THREADS = 2
_FREED_BUFFERS_BYTES = 256 * 1024

COPY_ENVIRONMENT: Final = {
    **_LANCE,
    "LANCE_CPU_THREADS": str(_THREADS),
    "TOKIO_WORKER_THREADS": str(_THREADS),
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_FREED_BUFFERS_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(_FREED_BUFFERS_BYTES),
}
"""Environment of a process that does nothing but copy; libraries read it when they start.

Lance starts two threads, each with buffers of its own, whatever the number of cores. glibc gives larger buffers back
to the system when they are freed, and all threads take the small ones from one place, so that what one frees serves
all; other systems ignore its variables.
"""


@contextmanager
def frugal() -> Iterator[None]:
    """While in the block, Lance reads little ahead; then Arrow gives back what it keeps. The environment goes first."""
    set_here = {name: value for name, value in _LANCE.items() if name not in os.environ}
    os.environ.update(set_here)
    try:
        yield
    finally:
        for name in set_here:
            os.environ.pop(name, None)
        returned()


def returned() -> None:
    """Return the free memory of Arrow's pool to the system."""
    pyarrow.default_memory_pool().release_unused()


BATCH_NODES = 1_000
EMPTY_EVERY = 5
"""Batches after which the source's cache is emptied: it would hold the whole file."""

SAMPLE = 50
TOP_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReport:
    """Result of a move and of its check.

    Attributes:
        nodes: Nodes of the source.
        copied: Nodes that this call copied; the others were there before.
        missing: Ids of the source that the target lacks.
        extra: Ids that only the target has; they were there before.
        compared: Sampled nodes whose text, metadata, type, relations and vector were compared.
        different: Ids of those that are not equal.
        recall_at_10: Share of the ten exactly nearest nodes that the target gives, over sampled queries, 0 to 1;
            below 1 where it answers from an approximate index. None with extra nodes.
        fingerprint: What made the vectors.
    """

    nodes: int
    copied: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    compared: int
    different: tuple[str, ...]
    recall_at_10: float | None
    fingerprint: str | None

    @property
    def ok(self) -> bool:
        """Whether every node arrived as it was."""
        return not self.missing and not self.different

    def to_json(self) -> str:
        """One JSON object, ids of the first hundred nodes in each list."""
        shown = {
            key: value[:100] if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        return json.dumps({**shown, "ok": self.ok})


@runtime_checkable
class NodeReader(Protocol):
    """Source of a move: any store of this package, or nodes that a stock adapter wrote.

    Attributes:
        fingerprint: What made the vectors; None where that is not kept.
    """

    fingerprint: str | None

    def ids_as_stored(self) -> list[str]:
        """Ids of all nodes, each once, in the order in which they are read fastest."""

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings, in any order."""

    def drop_cache(self) -> None:
        """Give back the memory that holds copies of the files."""

    def frugal_reads(self, threads: int) -> AbstractContextManager[None]:
        """While in the block, read with few threads."""


@strict()
def move(
    source: BasePydanticVectorStore | NodeReader,
    target: BasePydanticVectorStore,
    *,
    batch_nodes: int = BATCH_NODES,
    progress: Callable[[int, int], None] | None = None,
) -> MoveReport:
    """Copy all nodes with their vectors, then check the copy.

    The source is only read. Memory holds the ids and one batch. A move that was interrupted goes on where it
    stopped when it is called again: nodes whose ids the target has are not copied twice. Nodes that change in the
    source meanwhile may arrive in either form.

    Args:
        source: Any store of this package, or what `llama_index_presets.store.adopt.places.open_stock` opens.
        target: Any other store of this package; give it the fingerprint of the source when it is opened.
        batch_nodes: Nodes read and written at once.
        progress: Called with nodes done and nodes in all.

    Returns:
        What was done and found; look at `MoveReport.ok`.

    Raises:
        FingerprintError: The vectors of the two stores are made by different models.
        StoreError: A store fails, or is none that can list its ids.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index_presets.store.lancedb.store import LanceDBVectorStore
        >>> old, new = (LanceDBVectorStore(tempfile.mkdtemp()) for _ in range(2))
        >>> _ = old.add([TextNode(id_="a", text="A.", embedding=[1.0, 0.0])])
        >>> report = move(old, new)
        >>> report.ok, report.copied, report.recall_at_10
        (True, 1, 1.0)
    """
    reader, writer = _readable(source), _own(target)
    fingerprint = _agreed(source, target)
    with frugal(), reader.frugal_reads(_THREADS):
        return _moved(reader, writer, batch_nodes, progress, fingerprint)


def _own(store: BasePydanticVectorStore) -> StoreBase:
    if not isinstance(store, StoreBase):
        raise StoreError(f"{store.class_name()} cannot be moved into. Move to a store of this package.")
    return store


def _readable(store: BasePydanticVectorStore | NodeReader) -> NodeReader:
    if not isinstance(store, NodeReader):
        raise StoreError(
            f"{store.class_name()} cannot list its ids. Open what it wrote with "
            "llama_index_presets.store.adopt.places.open_stock, and move that."
        )
    return store


def _moved(
    source: NodeReader,
    target: StoreBase,
    batch_nodes: int,
    progress: Callable[[int, int], None] | None,
    fingerprint: str | None,
) -> MoveReport:
    wanted = source.ids_as_stored()
    present = set(target.node_ids())
    sample = source.get_nodes(node_ids=random.Random(0).sample(wanted, min(SAMPLE, len(wanted))))
    source.drop_cache()
    nearest = _Nearest(sample)
    copied = 0
    for done, batch in enumerate(_batches(wanted, batch_nodes), start=1):
        copied += _copied(source, target, batch, present, nearest)
        if done % EMPTY_EVERY == 0:
            source.drop_cache()
        if progress:
            progress(min(done * batch_nodes, len(wanted)), len(wanted))
    present.clear()
    source.drop_cache()
    returned()
    target.finish_load()
    returned()
    return _checked(target, wanted, sample, nearest, copied, fingerprint)


def _copied(
    source: NodeReader, target: StoreBase, batch: list[str], present: set[str], nearest: _Nearest
) -> int:
    """Copy the nodes of one batch that the target lacks; they are let go of before the next is read."""
    nodes = source.get_nodes(node_ids=batch)
    nearest.see(nodes)
    new = [node for node in nodes if node.node_id not in present]
    return len(target.add(new, bulk=True)) if new else 0


class _Nearest:
    """The exact nearest nodes of some questions, found while all nodes pass by once.

    Args:
        questions: Nodes whose embeddings are asked for.
    """

    def __init__(self, questions: Sequence[BaseNode]) -> None:
        self._directions = _directions(questions)
        self.best: list[dict[str, float]] = [{} for _ in questions]

    def see(self, nodes: Sequence[BaseNode]) -> None:
        """Take nodes into account."""
        if not nodes:
            return
        cosines = self._directions @ _directions(nodes).T
        for row, best in zip(cosines, self.best, strict=True):
            for place in np.argsort(-row)[:TOP_K]:
                best[nodes[place].node_id] = float(row[place])
            for node_id in sorted(best, key=best.__getitem__, reverse=True)[TOP_K:]:
                del best[node_id]


def _directions(nodes: Sequence[BaseNode]) -> npt.NDArray[np.float64]:
    vectors = np.array([node.embedding for node in nodes], np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if len(nodes) else vectors


def _agreed(source: Any, target: Any) -> str | None:
    made: str | None = source.fingerprint
    expected: str | None = target.fingerprint
    if made and expected and made != expected:
        raise FingerprintError(
            f"The source holds vectors of '{made}', the target is for '{expected}': they cannot be mixed. "
            "Use another target, or embed the documents again.",
            stored=made,
            given=expected,
        )
    if made and not expected:
        raise StoreError(
            f"The target has no fingerprint. Open it with fingerprint='{made}', as the source has."
        )
    return made or expected


def _batches(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _checked(
    target: StoreBase,
    wanted: list[str],
    sample: Sequence[BaseNode],
    nearest: _Nearest,
    copied: int,
    fingerprint: str | None,
) -> MoveReport:
    present = set(target.node_ids())
    missing, extra = set(wanted) - present, present - set(wanted)
    copies = {node.node_id: node for node in target.get_nodes(node_ids=[node.node_id for node in sample])}
    return MoveReport(
        nodes=len(wanted),
        copied=copied,
        missing=tuple(sorted(missing)),
        extra=tuple(sorted(extra)),
        compared=len(sample),
        different=tuple(one.node_id for one in sample if not _same(one, copies.get(one.node_id))),
        recall_at_10=None if extra or not sample else _recall(target, sample, nearest),
        fingerprint=fingerprint,
    )


def _same(original: BaseNode, copy: BaseNode | None) -> bool:
    if copy is None or type(original) is not type(copy):
        return False
    left, right = np.float32(original.embedding), np.float32(copy.embedding)  # type: ignore[arg-type]
    if not np.array_equal(left, right):
        return False
    plain = [node.model_copy(update={"embedding": None}) for node in (original, copy)]
    return plain[0] == plain[1] and list(original.metadata) == list(copy.metadata)


def _recall(target: StoreBase, questions: Sequence[BaseNode], nearest: _Nearest) -> float:
    hits = total = 0
    for node, truth in zip(questions, nearest.best, strict=True):
        query = VectorStoreQuery(query_embedding=node.embedding, similarity_top_k=TOP_K)
        found = target.query(query)
        # Copies of one text are equally near: a node that is as close as the tenth is as good.
        edge = min(truth.values()) - 1e-5
        close = zip(found.ids or [], found.similarities or [], strict=True)
        hits += sum(1 for node_id, score in close if node_id in truth or score >= edge)
        total += len(truth)
    return hits / total
