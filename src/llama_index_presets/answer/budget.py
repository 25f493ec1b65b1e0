"""Keep the context within a token budget: whole passages, whole sentences. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama_index_presets.errors import AnswerError

__all__ = ["fit"]


def fit(
    texts: Sequence[str],
    budget_tokens: int,
    *,
    count: Callable[[str], int],
    sentences: Callable[[str], Sequence[str]],
) -> list[str]:
    """Keep the most relevant passages that fit together.

    The least relevant passage is dropped first. When even the best one alone is too long, its first sentences
    that fit are kept; a sentence is never cut.

    Args:
        texts: Passages, most relevant first.
        budget_tokens: Upper bound of their tokens together.
        count: Tokens of a text. It is not called where the texts have fewer bytes than the budget has tokens,
            since no token is shorter than a byte.
        sentences: Cuts a text into sentences that keep the white space behind them.

    Returns:
        The first texts, as many as fit; the last may be shortened when it is the only one.

    Raises:
        AnswerError: Not even one sentence fits.

    Example:
        >>> fit(["a b", "c d", "e f"], 5, count=lambda text: len(text.split()), sentences=lambda text: [text])
        ['a b', 'c d']
    """
    if sum(len(text.encode()) for text in texts) <= budget_tokens:
        return list(texts)
    kept, used = [], 0
    for text in texts:
        used += count(text)
        if used > budget_tokens:
            break
        kept.append(text)
    if kept or not texts:
        return kept
    return [_first_sentences(texts[0], budget_tokens, count, sentences)]


def _first_sentences(
    text: str, budget_tokens: int, count: Callable[[str], int], sentences: Callable[[str], Sequence[str]]
) -> str:
    kept = ""
    for sentence in sentences(text):
        if count(kept + sentence) > budget_tokens:
            break
        kept += sentence
    if not kept.strip():
        raise AnswerError(
            f"The token budget of {budget_tokens} does not hold one sentence of the best passage. Raise context_tokens."
        )
    return kept.strip()
