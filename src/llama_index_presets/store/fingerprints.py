"""One model per index: what a store says when the vectors of two would meet."""

from __future__ import annotations

from llama_index_presets.errors import FingerprintError

__all__ = ["agreed_fingerprint"]


def agreed_fingerprint(stored: str | None, given: str | None, *, place: str, kind: str) -> str | None:
    """Agree on what made the vectors of an index: the first who knows, says it.

    Args:
        stored: What the index remembers; None where nobody said.
        given: What the caller says; None where he does not know.
        place: The index, such as ``"Table 'chunks'"``.
        kind: What to take another one of, such as ``"table"``.

    Raises:
        FingerprintError: Both know, and differ.

    Example:
        >>> agreed_fingerprint(None, "model=a", place="Table 'chunks'", kind="table")
        'model=a'
    """
    if stored and given and stored != given:
        raise FingerprintError(
            f"{place} holds vectors of '{stored}', not of '{given}'. Use the model that made it, or another {kind}.",
            stored=stored,
            given=given,
        )
    return stored or given
