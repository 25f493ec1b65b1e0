"""Validation and arithmetic of vectors that a model returned. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from llama_index_presets.counting import counted
from llama_index_presets.errors import ModelError, ModelReplyError

__all__ = ["missing_vectors", "pooled", "read_reply", "unit_vectors"]


def unit_vectors(vectors: Any, *, count: int, dim: int | None, model: str) -> np.ndarray:
    """Check what a model returned, and give every vector unit length.

    Args:
        vectors: What it returned, shape (count, dim).
        count: How many vectors it should have returned.
        dim: How many numbers each should have; None where that is unknown.
        model: Its name, for the message.

    Returns:
        Unit vectors, float32, shape (count, dim).

    Raises:
        ModelError: Another number of vectors, another length, or a vector without direction.

    Example:
        >>> unit_vectors([[3.0, 4.0]], count=1, dim=2, model="m").tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != count:
        raise ModelError(
            f"'{model}' returned {counted(len(vectors), 'vector')} for {counted(count, 'text')}. Try again."
        )
    if len(lengths) > 1 or (dim is not None and lengths - {dim}):
        raise ModelError(
            f"'{model}' returned vectors of {', '.join(map(str, sorted(lengths)))} numbers; expected {dim}. The server "
            "runs another model, or the wrong `dimensions` were asked for."
        )
    array = np.asarray(vectors, dtype=np.float64).reshape(count, -1)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        raise ModelError(
            f"'{model}' returned a vector without direction (zero or not finite). Look at its texts."
        )
    return np.asarray(array / norms, dtype=np.float32)


def read_reply(raw: Any) -> Any:
    """A raw reply as OpenAI's SDK reads it; one without vectors, or that is no JSON, as far as its body tells."""
    with suppress(ValueError, AttributeError):  # the SDK takes the key `data` unseen
        answer = raw.parse()
        if hasattr(answer, "data"):
            return answer
    body: Any = None
    with suppress(ValueError):
        body = json.loads(raw.text)
    told = body if isinstance(body, dict) else {}
    usage = told.get("usage")
    return SimpleNamespace(
        data=[], usage=SimpleNamespace(**usage) if isinstance(usage, dict) else None, error=told.get("error")
    )


def missing_vectors(
    answer: Any, *, count: int, model: str, url: str, clean: Callable[[str], str]
) -> ModelReplyError:
    """The error of a server's reply that has not as many vectors as texts were sent.

    Args:
        answer: Has ``data``, and perhaps ``usage`` and ``error``.
        count: How many vectors it should have.
        model: The model's name.
        url: The server's address; its host is named. Empty where it is the vendor's own.
        clean: Takes keys out of what the server says.

    Example:
        >>> from types import SimpleNamespace
        >>> print(missing_vectors(SimpleNamespace(data=[]), count=2, model="m", url="http://h/v1", clean=str))
        'm' at h returned no vectors of 2. Run it again; if it stays so, the server does not embed with this model.
    """
    error = getattr(answer, "error", None)
    error = error if isinstance(error, dict) else {"message": error}
    text = clean(str(error.get("message") or ""))[:300].rstrip(".")
    said, code = f" It says: {text}." if text else "", error.get("code")
    host = urlsplit(url).netloc.rpartition("@")[2]
    came = counted(len(answer.data), "vector") if answer.data else "no vectors"
    return ModelReplyError(
        f"'{model}'{host and f' at {host}'} returned {came} of "
        f"{count}.{said} Run it again; if it stays so, the server does not embed with this model.",
        model=model,
        usage=getattr(answer, "usage", None),
        status_code=code if isinstance(code, int) else None,
    )


def pooled(vectors: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """One vector for a text that was embedded in pieces: the mean, weighted by tokens, at unit length.

    Args:
        vectors: Of the pieces, shape (pieces, dim).
        tokens: Of each piece, > 0.

    Returns:
        Unit vector, float32, shape (dim,).

    Example:
        >>> pooled(np.array([[1.0, 0.0], [0.0, 1.0]]), [3, 4]).tolist()
        [0.6000000238418579, 0.800000011920929]

    Source: OpenAI cookbook, "Embedding texts that are longer than the model's maximum context length".
    """
    mean = np.average(vectors.astype(np.float64), axis=0, weights=tokens)
    norm = np.linalg.norm(mean)
    if norm == 0:
        raise ModelError(
            "The pieces of a text point in opposite directions: their mean has none. Split the text."
        )
    return np.asarray(mean / norm, dtype=np.float32)
