"""Which pairs to score together. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["length_sorted_batches", "next_batch_size"]


def length_sorted_batches(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> list[list[int]]:
    """Group pairs of like length, longest first, so that little time is spent on padding.

    Args:
        lengths: Tokens of each pair, as the model will read it.
        batch_size: Most pairs of a batch, >= 1.
        batch_tokens: Most tokens of a batch, padding included; a single pair may exceed it.

    Returns:
        Positions into `lengths`; every position is in exactly one batch.

    Example:
        >>> length_sorted_batches([5, 90, 8, 100], batch_size=2, batch_tokens=200)
        [[3, 1], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches: list[list[int]] = []
    for place in order:
        if batches and _fits(len(batches[-1]), lengths[batches[-1][0]], batch_size, batch_tokens):
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _fits(held: int, longest: int, batch_size: int, batch_tokens: int) -> bool:
    return held < batch_size and (held + 1) * longest <= batch_tokens


def next_batch_size(remaining_s: float, pair_s: float | None, batch_size: int) -> int:
    """How many pairs to start when a deadline is near: half of what fits, so that a guess may be off by two.

    Args:
        remaining_s: Time left, in seconds.
        pair_s: Time that a pair took so far, in seconds; None before the first batch.
        batch_size: Most pairs of a batch.

    Returns:
        Pairs to score next; 0 means stop. Before anything is known it is 1.

    Example:
        >>> next_batch_size(0.3, None, 32), next_batch_size(0.3, 0.01, 32), next_batch_size(0.01, 0.01, 32)
        (1, 15, 0)
    """
    if remaining_s <= 0:
        return 0
    if pair_s is None:
        return 1
    return min(batch_size, int(remaining_s / (2 * pair_s))) if pair_s > 0 else batch_size
