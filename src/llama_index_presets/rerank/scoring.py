"""Score the texts of one query: each text once, like lengths together, within a deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from llama_index_presets.rerank.batches import length_sorted_batches, next_batch_size
from llama_index_presets.rerank.pair_model import PairModel
from llama_index_presets.rerank.windows import cut_windows

__all__ = ["LongText", "Outcome", "score_texts"]

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
    """What scoring found.

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
