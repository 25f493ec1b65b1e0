"""Scoring of the texts of one query: each text once, batches of like length, within a deadline."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from llama_index_presets.errors import RerankError
from llama_index_presets.rerank.pair_model import PairModel

__all__ = [
    "LongText",
    "Outcome",
    "ScoreCache",
    "blended",
    "cut_windows",
    "length_sorted_batches",
    "next_batch_size",
    "normalized",
    "probability",
    "score_texts",
    "window_spans",
]

# -- batches --------------------------------------------------------------------------------------------------


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


# -- windows of a long text -----------------------------------------------------------------------------------


def window_spans(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open token ranges that cover a text; the last is moved back to be full.

    Args:
        tokens: Length of the text, in tokens.
        room: Most tokens of a window, > overlap.
        overlap: Tokens that neighbours share, >= 0.

    Example:
        >>> window_spans(10, room=4, overlap=1)
        [(0, 4), (3, 7), (6, 10)]
        >>> window_spans(11, room=4, overlap=1)
        [(0, 4), (3, 7), (6, 10), (7, 11)]
        >>> window_spans(3, room=4, overlap=1)
        [(0, 3)]
    """
    if tokens <= room:
        return [(0, tokens)]
    starts = range(0, tokens - room, room - overlap)
    return [(start, start + room) for start in starts] + [(tokens - room, tokens)]


def cut_windows(text: str, offsets: Sequence[tuple[int, int]], room: int, overlap: int) -> list[str]:
    """The windows of a text as text, cut at token borders.

    Args:
        text: The whole text.
        offsets: Character range of each token, in order.
        room: Most tokens of a window.
        overlap: Tokens that neighbours share.

    Example:
        >>> cut_windows("ab cd ef", [(0, 2), (3, 5), (6, 8)], room=2, overlap=1)
        ['ab cd', 'cd ef']
    """
    if len(offsets) <= room:
        return [text]
    spans = window_spans(len(offsets), room, overlap)
    return [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in spans]


class ScoreCache:
    """Logits by (model, query, text), the least recently used dropped first. Thread safe.

    Queries and texts are kept as SHA-256 digests only.

    Args:
        size: Most entries; 0 keeps nothing.

    Example:
        >>> cache = ScoreCache(1)
        >>> cache.put("m", "q", "a", 1.5)
        >>> cache.put("m", "q", "b", 2.5)
        >>> cache.get("m", "q", "a"), cache.get("m", "q", "b"), len(cache)
        (None, 2.5, 1)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, model: str, query: str, text: str) -> float | None:
        """The logit of a pair, or None when it is not held."""
        if not self.size:
            return None
        key = _key(model, query, text)
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, model: str, query: str, text: str, logit: float) -> None:
        """Remember the logit of a pair."""
        if not self.size:
            return
        key = _key(model, query, text)
        with self._lock:
            self._entries[key] = logit
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)


def _key(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


# -- scores ---------------------------------------------------------------------------------------------------


def probability(logit: float) -> float:
    """The logistic function, without overflow: any finite number becomes one in [0, 1], higher is better.

    Example:
        >>> probability(0.0), probability(-1000.0), probability(1000.0)
        (0.5, 0.0, 1.0)
    """
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    small = math.exp(logit)
    return small / (1.0 + small)


def normalized(scores: Sequence[float | None]) -> list[float]:
    """Stretch the retrieval scores of one candidate list to [0, 1]: worst 0, best 1, all equal 1.

    Raises:
        RerankError: A score is missing or not finite; the message carries its 1-based place.

    Example:
        >>> normalized([0.9, 0.5, 0.7])
        [1.0, 0.0, 0.4999999999999999]
    """
    known = [_finite(score, place) for place, score in enumerate(scores, start=1)]
    if not known:
        return []
    low, high = min(known), max(known)
    if low == high:
        return [1.0] * len(known)
    return [(score - low) / (high - low) for score in known]


def blended(p: float, retrieval: float, blend: float) -> float:
    """``(1 - blend) * p + blend * retrieval``: all in [0, 1], higher is better.

    Example:
        >>> blended(0.25, 0.75, 0.5)
        0.5
    """
    return (1.0 - blend) * p + blend * retrieval


def _finite(score: float | None, place: int) -> float:
    if score is None or not math.isfinite(score):
        raise RerankError(
            f"Candidate {place} has the retrieval score {score}; blending needs a finite number. "
            "Set blend=0, or use a retriever that scores its hits."
        )
    return float(score)


LongText = Literal["truncate", "best_window"]

# Texts that are tokenised together while a deadline runs.
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class _Pair:
    text: str
    passage: str
    tokens: int
    truncated: bool


@dataclass(slots=True)
class Outcome:
    """Result of scoring.

    Attributes:
        logits: Text -> raw score, for the texts that were scored whole.
        pairs: Pairs that the model scored.
        prompt_tokens: Their tokens, after truncation.
        truncated: How many of them were cut to fit.
        cut: Whether the deadline left texts unscored.
    """

    logits: dict[str, float] = field(default_factory=dict)
    pairs: int = 0
    prompt_tokens: int = 0
    truncated: int = 0
    cut: bool = False

    def _count(self, batch: Sequence[_Pair]) -> None:
        self.pairs += len(batch)
        self.prompt_tokens += sum(pair.tokens for pair in batch)
        self.truncated += sum(pair.truncated for pair in batch)


def score_texts(
    model: PairModel,
    query: str,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    deadline_s: float | None = None,
    long_text: LongText = "truncate",
) -> Outcome:
    """Score distinct texts against a query.

    Args:
        model: The loaded cross-encoder.
        query: What was asked.
        texts: Distinct texts, the likeliest first.
        batch_size: Most pairs of a batch.
        deadline_s: Time for the scoring, in seconds from now; None is no limit. Texts are then scored in the
            given order, in batches that are sized by what time is left.
        long_text: ``"truncate"`` reads the start of a text; ``"best_window"`` reads all of it in overlapping
            windows and keeps the best.
    """
    if deadline_s is None:
        pairs = list(_pairs(model, query, texts, long_text, block=max(1, len(texts))))
        return _score_all(model, query, pairs, batch_size)
    stream = _pairs(model, query, texts, long_text, block=_BLOCK)
    return _score_until(model, query, stream, batch_size, time.perf_counter() + deadline_s)


def _score_all(model: PairModel, query: str, pairs: Sequence[_Pair], batch_size: int) -> Outcome:
    outcome = Outcome()
    lengths = [pair.tokens for pair in pairs]
    for places in length_sorted_batches(lengths, batch_size, model.batch_tokens):
        batch = [pairs[place] for place in places]
        _keep_best(outcome.logits, batch, model.logits(query, [pair.passage for pair in batch]))
        outcome._count(batch)
    return outcome


def _score_until(
    model: PairModel, query: str, stream: Iterator[_Pair], batch_size: int, deadline: float
) -> Outcome:
    outcome = Outcome()
    pair_s: float | None = None
    following = next(stream, None)
    while following is not None:
        began = time.perf_counter()
        size = next_batch_size(deadline - began, pair_s, batch_size)
        if not size:
            break
        batch = [following, *islice(stream, size - 1)]
        _keep_best(outcome.logits, batch, model.logits(query, [pair.passage for pair in batch]))
        outcome._count(batch)
        pair_s = (time.perf_counter() - began) / len(batch)
        following = next(stream, None)
    if following is not None:
        outcome.cut = True
        # Windows of this text may be missing, and the best of some is not the best of all.
        outcome.logits.pop(following.text, None)
    return outcome


def _keep_best(logits: dict[str, float], batch: Sequence[_Pair], scores: Iterable[float]) -> None:
    for pair, score in zip(batch, scores, strict=True):
        best = logits.get(pair.text)
        # A NaN must survive, so that it is reported and not hidden behind another window.
        if best is None or math.isnan(score) or score > best:
            logits[pair.text] = score


def _pairs(
    model: PairModel, query: str, texts: Sequence[str], long_text: LongText, *, block: int
) -> Iterator[_Pair]:
    for start in range(0, len(texts), block):
        some = texts[start : start + block]
        for text, tokens in zip(some, model.pair_tokens(query, some), strict=True):
            if tokens <= model.max_tokens:
                yield _Pair(text, text, tokens, False)
            elif long_text == "best_window":
                yield from _windows(model, query, text)
            else:
                yield _Pair(text, text, model.max_tokens, True)


def _windows(model: PairModel, query: str, text: str) -> Iterator[_Pair]:
    # A window that starts inside a word can need a token or two more when it is read on its own.
    room = max(model.room(query) - 4, 1)
    passages = cut_windows(text, model.offsets(text), room, overlap=room // 4)
    for passage, tokens in zip(passages, model.pair_tokens(query, passages), strict=True):
        yield _Pair(text, passage, min(tokens, model.max_tokens), tokens > model.max_tokens)
