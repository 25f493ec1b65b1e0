"""Validation of a batch's vectors before anything is written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from numpy.typing import NDArray

from llama_index_presets.counting import counted
from llama_index_presets.errors import NodeRejectedError, QueryError
from llama_index_presets.text.utf8 import printable

__all__ = ["checked_question", "checked_vectors"]

# Below and above, squares leave the range of float32 and a cosine means nothing.
_SHORTEST, _LONGEST = 1e-15, 1e15


def checked_vectors(nodes: Sequence[BaseNode], dim: int | None) -> NDArray[np.float32]:
    """Collect the embeddings of nodes.

    Args:
        nodes: At least one.
        dim: The length that the store keeps; None where it keeps nothing yet, then the first node's.

    Returns:
        float32, shape (len(nodes), dim), not normalised.

    Raises:
        NodeRejectedError: Nodes without an embedding, of another length, with NaN or infinity, or without a
            direction; all of them are named.
    """
    embeddings = [node.embedding for node in nodes]
    missing = [node.node_id for node, one in zip(nodes, embeddings, strict=True) if one is None]
    if missing:
        raise _rejected(missing, "no embedding", "Embed the nodes before adding them")
    given = [one for one in embeddings if one is not None]
    dim = len(given[0]) if dim is None else dim
    if set(map(len, given)) != {dim} or not dim:
        raise _other_lengths(nodes, given, dim)
    vectors = _as_array(nodes, given, dim)
    _check_directions(nodes, vectors)
    return vectors


def _other_lengths(nodes: Sequence[BaseNode], embeddings: list[list[float]], dim: int) -> NodeRejectedError:
    other = [node for node, one in zip(nodes, embeddings, strict=True) if len(one) != dim or not dim]
    found = sorted({len(one) for one in embeddings if len(one) != dim or not dim})
    return _rejected(
        [node.node_id for node in other],
        f"an embedding of {', '.join(map(str, found))} numbers; the store keeps {dim}",
        "Embed with the model of the index, or open another table",
    )


def _as_array(nodes: Sequence[BaseNode], embeddings: list[list[float]], dim: int) -> NDArray[np.float32]:
    pack = struct.Struct(f"{dim}f").pack  # three times as fast as numpy is with lists
    try:
        packed = b"".join([pack(*one) for one in embeddings])
    except OverflowError:
        return _with_overflow(embeddings)
    except struct.error:
        raise _rejected(
            [node.node_id for node, one in zip(nodes, embeddings, strict=True) if not _is_numeric(one)],
            "an embedding that is not a list of numbers",
            "Embed them again",
        ) from None
    return np.frombuffer(packed, np.float32).reshape(len(nodes), dim)


def _with_overflow(embeddings: list[list[float]]) -> NDArray[np.float32]:
    """Numbers beyond float32 become infinite, and are refused as that, by id."""
    with np.errstate(over="ignore"):
        return np.array(embeddings, np.float64).astype(np.float32)


def _is_numeric(embedding: Any) -> bool:
    return all(isinstance(one, (int, float, np.number)) for one in embedding)


def _check_directions(nodes: Sequence[BaseNode], vectors: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    if np.all((squares > _SHORTEST) & (squares < _LONGEST)):
        return  # all is well in float32; whatever is not is looked at closely
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    infinite = ~np.isfinite(norms)
    if infinite.any():
        raise _rejected(
            _ids(nodes, infinite), "an embedding with NaN or infinite numbers", "Embed them again"
        )
    unusable = (norms < _SHORTEST) | (norms > _LONGEST)
    if unusable.any():
        raise _rejected(
            _ids(nodes, unusable),
            f"a zero embedding (or one whose length is not between {_SHORTEST:g} and {_LONGEST:g})",
            "It has no direction to compare; leave out empty texts",
        )


def _ids(nodes: Sequence[BaseNode], which: NDArray[np.bool_]) -> list[str]:
    return [nodes[row].node_id for row in np.flatnonzero(which).tolist()]


def _rejected(node_ids: list[str], what: str, remedy: str) -> NodeRejectedError:
    named = ", ".join(f"'{printable(node_id)}'" for node_id in node_ids[:5]) + (
        " …" if len(node_ids) > 5 else ""
    )
    subject = "Node" if len(node_ids) == 1 else f"{counted(len(node_ids), 'node')},"
    verb = "has" if len(node_ids) == 1 else "have"
    return NodeRejectedError(f"{subject} {named} {verb} {what}. Nothing was written. {remedy}.", node_ids)


def checked_question(embedding: Sequence[float] | None, dim: int | None) -> NDArray[np.float64]:
    """Check the vector of a query.

    Args:
        embedding: Its numbers.
        dim: The length that the store keeps, None where it keeps nothing yet.

    Returns:
        The direction, float64, shape (dim,), of length 1.

    Raises:
        QueryError: There is none, it has another length, is not finite, or is zero.

    Example:
        >>> checked_question([3.0, 4.0], 2).tolist()
        [0.6, 0.8]
    """
    if embedding is None:
        raise QueryError("The query has no embedding. Embed the question, or ask in mode 'text_search'.")
    question = np.asarray(embedding, np.float64)
    if dim is not None and question.shape != (dim,):
        raise QueryError(
            f"The query has {question.size} numbers; the store keeps {dim}. Embed it with the index's model."
        )
    norm = float(np.linalg.norm(question))
    if not np.isfinite(norm):
        raise QueryError("The query's embedding is not finite. Embed the question again.")
    if norm < _SHORTEST:
        raise QueryError("The query's embedding is zero and points nowhere. Embed a question that has words.")
    return question / norm
