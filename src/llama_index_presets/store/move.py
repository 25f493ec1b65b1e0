"""Copy an index from one store to another without embedding anything again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery

from llama_index_presets.errors import FingerprintError, StoreError

__all__ = ["MoveReport", "move"]

BATCH_NODES = 1_000
SAMPLE = 50
TOP_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReport:
    """What a move did and what its check found.

    Attributes:
        nodes: Nodes of the source.
        copied: Nodes that this call copied; the others were there before.
        missing: Ids of the source that the target lacks.
        extra: Ids that only the target has; they were there before.
        compared: Sampled nodes whose text, metadata, type, relations and vector were compared.
        different: Ids of those that are not equal.
        recall_at_10: Share of the source's ten nearest nodes that the target gives too, over sampled queries,
            0 to 1; below 1 where one of the two answers from an approximate index. None with extra nodes.
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


def move(
    source: BasePydanticVectorStore,
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
        source: Any store of this package.
        target: Any other; give it the fingerprint of the source when it is opened.
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
        >>> from llama_index_presets.store.lancedb import LanceDBVectorStore
        >>> old, new = (LanceDBVectorStore(tempfile.mkdtemp()) for _ in range(2))
        >>> _ = old.add([TextNode(id_="a", text="A.", embedding=[1.0, 0.0])])
        >>> report = move(old, new)
        >>> report.ok, report.copied, report.recall_at_10
        (True, 1, 1.0)
    """
    fingerprint = _agreed(source, target)
    wanted = _ids(source)
    present = set(_ids(target))
    todo = [node_id for node_id in wanted if node_id not in present]
    done = len(wanted) - len(todo)
    for batch in _batches(todo, batch_nodes):
        target.add(source.get_nodes(node_ids=batch), bulk=True)
        done += len(batch)
        if progress:
            progress(done, len(wanted))
    if hasattr(target, "finish_load"):
        target.finish_load()
    return _checked(source, target, wanted, len(todo), fingerprint)


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


def _ids(store: Any) -> list[str]:
    if hasattr(store, "node_ids"):
        return list(store.node_ids())
    if store.class_name() == "DuckDBVectorStore":
        if store.dim is None:
            return []
        table = store.table.replace('"', '""')
        found = store.client.cursor().execute(f'SELECT node_id FROM "{table}" ORDER BY node_id')  # noqa: S608 -- quoted
        return [node_id for (node_id,) in found.fetchall()]
    raise StoreError(f"{store.class_name()} cannot list its ids. Move between stores of this package.")


def _batches(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _checked(
    source: BasePydanticVectorStore,
    target: BasePydanticVectorStore,
    wanted: list[str],
    copied: int,
    fingerprint: str | None,
) -> MoveReport:
    present = _ids(target)
    missing, extra = set(wanted) - set(present), set(present) - set(wanted)
    sample = random.Random(0).sample(wanted, min(SAMPLE, len(wanted)))
    originals = source.get_nodes(node_ids=sample)
    copies = {node.node_id: node for node in target.get_nodes(node_ids=sample)}
    return MoveReport(
        nodes=len(wanted),
        copied=copied,
        missing=tuple(sorted(missing)),
        extra=tuple(sorted(extra)),
        compared=len(originals),
        different=tuple(one.node_id for one in originals if not _same(one, copies.get(one.node_id))),
        recall_at_10=None if extra or not originals else _recall(source, target, originals),
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


def _recall(
    source: BasePydanticVectorStore, target: BasePydanticVectorStore, questions: Sequence[BaseNode]
) -> float:
    hits = total = 0
    for node in questions:
        query = VectorStoreQuery(query_embedding=node.embedding, similarity_top_k=TOP_K)
        truth, found = source.query(query), target.query(query)
        scores = dict(zip(truth.ids or [], truth.similarities or [], strict=True))
        # Copies of one text are equally near: a node that is as close as the tenth is as good.
        edge = min(scores.values()) - 1e-6
        close = zip(found.ids or [], found.similarities or [], strict=True)
        hits += sum(1 for node_id, score in close if node_id in scores or score >= edge)
        total += len(scores)
    return hits / total
