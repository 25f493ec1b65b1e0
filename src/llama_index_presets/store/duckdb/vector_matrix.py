"""Vector matrix, searched exactly: a scan of one byte per number finds candidates, float64 decides.

Each vector v is kept as float32 and, where numkong is installed, as int8 codes of v / step. The cosine that
the codes give is off by at most ``r + s * (1 + r)``, with r the largest ``|v - coded v| / |v|`` of the matrix
and s that of the question (Cauchy-Schwarz). So whatever lies further than twice that below the k-th best
estimate cannot be among the k best: the rest is scored again in float32, whose error is bounded likewise, and
what is left of that in float64. The answer is that of a float64 scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "Found", "Matrix", "Positions", "encode", "has_codes"]

Positions = NDArray[np.intp]
Scores = NDArray[np.float64]
Found = tuple[Positions, Scores]
"""Positions and cosines, best first; more than k where the k-th best is a tie, for the caller to break."""

_BLOCK = 64
"""Scores whose maximum stands for them all when the k-th best is bounded from below."""

_GATHERED = 1024
"""Selections up to this many rows are copied out and scored in float32 at once."""

_DENSE = 0.1
"""Selections of a larger share than this are scored with everything else and picked afterwards: reading all
codes in a row is as fast as gathering a tenth of them."""

_MANY_ROWS = 8192
"""Rows of one matrix product of a batch: its scores stay in the cache of the processor."""

_MANY_QUESTIONS = 256
"""Questions of one matrix product of a batch; more would only take memory."""


@cache
def _numkong() -> ModuleType | None:
    try:
        import numkong
    except ImportError:
        return None
    return numkong


def has_codes() -> bool:
    """Whether matrices made here have int8 codes."""
    return _numkong() is not None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What is kept of rows beside the vectors themselves.

    Attributes:
        inverse_norms: 1 / length of each row, float32, shape (n,).
        codes: int8, shape (n, dim); no rows where there are no codes.
        steps: What one of a row's code stands for, divided by the row's length, float32, shape (n,).
        spread: Largest relative error of a coded row.
    """

    inverse_norms: NDArray[np.float32]
    codes: NDArray[np.int8]
    steps: NDArray[np.float32]
    spread: float


def encode(chunk: NDArray[np.float32], *, coded: bool) -> Encoded:
    """Norms and codes of a few thousand vectors, shape (n, dim), none of them zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", chunk, chunk, dtype=np.float64))
    inverse = (1 / norms).astype(np.float32)
    if not coded or not len(chunk):
        return Encoded(inverse, np.empty((0, chunk.shape[1]), np.int8), np.empty(0, np.float32), 0.0)
    steps = np.maximum(np.abs(chunk).max(axis=1), np.finfo(np.float32).tiny) / 127
    off = np.rint(chunk / steps[:, None])
    codes = off.astype(np.int8)
    off *= steps[:, None]
    off -= chunk
    spread = float(np.max(np.sqrt(np.einsum("ij,ij->i", off, off)) / norms))
    return Encoded(inverse, codes, (steps / norms).astype(np.float32), spread)


class _Buffers:
    """Growing buffers of rows; the first `used` are never written again, so readers need no lock."""

    def __init__(self, capacity: int, dim: int) -> None:
        self.used = 0
        self.vectors = np.empty((capacity, dim), np.float32)
        self.inverse_norms = np.empty(capacity, np.float32)
        self.coded = has_codes()
        self.codes = np.empty((capacity if self.coded else 0, dim), np.int8)
        self.steps = np.empty(capacity if self.coded else 0, np.float32)

    @classmethod
    def full(cls, vectors: NDArray[np.float32], encoded: Encoded) -> _Buffers:
        """Buffers over arrays that may be mapped from a file, without room for more."""
        buffers = cls(0, vectors.shape[1])
        buffers.used, buffers.vectors, buffers.inverse_norms = len(vectors), vectors, encoded.inverse_norms
        buffers.coded = buffers.coded and len(encoded.codes) == len(vectors)
        buffers.codes, buffers.steps = encoded.codes, encoded.steps
        return buffers

    def append(self, vectors: NDArray[np.float32]) -> float:
        """Write rows behind the others; gives their largest relative coding error."""
        start, self.used = self.used, self.used + len(vectors)
        worst = 0.0
        for first in range(start, self.used, _MANY_ROWS):
            rows = slice(first, min(first + _MANY_ROWS, self.used))
            chunk = vectors[rows.start - start : rows.stop - start]
            encoded = encode(chunk, coded=self.coded)
            self.vectors[rows] = chunk
            self.inverse_norms[rows] = encoded.inverse_norms
            if self.coded:
                self.codes[rows], self.steps[rows] = encoded.codes, encoded.steps
            worst = max(worst, encoded.spread)
        return worst


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Rows of vectors that never change; `append` and `select` give others.

    Attributes:
        count: How many rows.
        buffers: Where they are.
        spread: Largest relative error of a coded row.
    """

    count: int
    buffers: _Buffers
    spread: float

    @classmethod
    def of(cls, vectors: NDArray[np.float32], capacity: int = 0) -> Matrix:
        """Take vectors, float32 of shape (n, dim), none of them zero."""
        buffers = _Buffers(max(capacity, len(vectors)), vectors.shape[1])
        spread = buffers.append(vectors)
        return cls(len(vectors), buffers, spread)

    @classmethod
    def kept(cls, vectors: NDArray[np.float32], encoded: Encoded) -> Matrix:
        """Take vectors that were encoded before; nothing is copied or read."""
        return cls(len(vectors), _Buffers.full(vectors, encoded), encoded.spread)

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.buffers.vectors.shape[1]

    def vectors(self, positions: Any) -> NDArray[np.float32]:
        """Rows as they were given, shape (len(positions), dim)."""
        found: NDArray[np.float32] = self.buffers.vectors[: self.count][positions]
        return found

    def append(self, vectors: NDArray[np.float32]) -> Matrix:
        """These rows and more behind them. Room is doubled when it runs out; one caller at a time."""
        buffers, needed = self.buffers, self.count + len(vectors)
        spread = self.spread
        if buffers.used != self.count or needed > len(buffers.vectors):
            buffers = self._copied(slice(0, self.count), needed + needed // 4)
        return Matrix(needed, buffers, max(spread, buffers.append(vectors)))

    def select(self, positions: Positions) -> Matrix:
        """Only these rows, in this order."""
        return Matrix(
            len(positions), self._copied(positions, len(positions) + len(positions) // 8), self.spread
        )

    def _copied(self, rows: Any, capacity: int) -> _Buffers:
        old, new = self.buffers, _Buffers(capacity, self.dim)
        new.coded = new.coded and old.coded
        for name in ("vectors", "inverse_norms", *(("codes", "steps") if new.coded else ())):
            kept = getattr(old, name)[: self.count][rows]
            getattr(new, name)[: len(kept)] = kept
            new.used = len(kept)
        return new

    # ---- one question -------------------------------------------------------------------------------------

    def nearest(
        self, question: Scores, k: int, among: Positions | None = None, without: Positions | None = None
    ) -> Found:
        """The rows with the largest cosine.

        Args:
            question: A direction of length 1, float64, shape (dim,).
            k: How many, >= 0.
            among: Ascending positions to choose from; None for all.
            without: Positions that are not there any more; for `among` None only.

        Returns:
            Positions and cosines, best first; all rows that are as good as the k-th.
        """
        rows = self.count if among is None else len(among)
        if not rows or not k:
            return np.empty(0, np.intp), np.empty(0)
        candidates = None
        if self.buffers.coded and rows > _GATHERED:
            candidates = self._by_codes(question, k, among, without)
        if candidates is None:
            candidates = _kept(*self._by_floats(question, among), k, among, without)
        elif len(candidates) > 4 * k:
            candidates = _kept(*self._by_floats(question, candidates), k, candidates, None)
        return self._decided(question, k, candidates)

    def _by_codes(
        self, question: Scores, k: int, among: Positions | None, without: Positions | None
    ) -> Positions | None:
        """Positions that can be among the k best, or None where the codes are too coarse to tell."""
        step = float(np.abs(question).max()) / 127
        coded = np.rint(question / step)
        off = float(np.linalg.norm(question - coded * step))
        estimates = self._estimates(coded.astype(np.int8), np.float32(step), among)
        # The products are exact up to float32's 24 bits; the last term covers those beyond.
        error = self.spread + off * (1 + self.spread) + 1e-6
        kept = _kept(estimates, error, k, among, without)
        return kept if len(kept) <= max(8 * k, len(estimates) // 8) else None

    def _estimates(
        self, code: NDArray[np.int8], step: np.float32, among: Positions | None
    ) -> NDArray[np.float32]:
        codes, steps = self.buffers.codes[: self.count], self.buffers.steps[: self.count]
        dense = among is None or len(among) > _DENSE * self.count
        if among is not None and not dense:
            codes, steps = codes.take(among, axis=0), steps[among]
        numkong = _numkong()
        products = np.asarray(numkong.cdist(code[None], codes, metric="dot", out_dtype="f32"))[0]  # type: ignore[union-attr]
        estimates: NDArray[np.float32] = products * (steps * step)
        return estimates[among] if among is not None and dense else estimates

    def _by_floats(self, question: Scores, among: Positions | None) -> tuple[NDArray[np.float32], float]:
        """Cosines in float32 and how far off they can be."""
        vectors, inverse = self.buffers.vectors[: self.count], self.buffers.inverse_norms[: self.count]
        asked = question.astype(np.float32)
        if among is None:
            scores = vectors @ asked * inverse
        elif len(among) > _DENSE * 2 * self.count:
            scores = (vectors @ asked * inverse)[among]
        else:
            scores = vectors.take(among, axis=0) @ asked * inverse[among]
        return scores, (self.dim + 4) * 2.0**-24

    def _decided(self, question: Scores, k: int, candidates: Positions) -> Found:
        rows = self.buffers.vectors[candidates].astype(np.float64)
        # einsum, not BLAS: equal rows must give equal sums wherever they stand.
        scores = np.einsum("ij,j->i", rows, question) / np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if len(scores) > k:
            best = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
            candidates, scores = candidates[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        return candidates[order], np.clip(scores[order], -1.0, 1.0)

    # ---- many questions -----------------------------------------------------------------------------------

    def nearest_of_many(self, questions: Scores, k: int, without: Positions | None = None) -> list[Found]:
        """`nearest` for each question, shape (m, dim), by products of matrices."""
        found: list[Found] = []
        for first in range(0, len(questions), _MANY_QUESTIONS):
            asked = questions[first : first + _MANY_QUESTIONS]
            coded = self.buffers.coded and self.count > _GATHERED
            scan = self._code_scan(asked) if coded else self._float_scan(asked)
            for question, candidates in zip(asked, _candidates(scan, k, without), strict=True):
                if coded and len(candidates) > max(8 * k, self.count // 8):
                    found.append(self.nearest(question, k, without=without))
                else:
                    found.append(self._decided(question, k, self._narrowed(question, k, candidates)))
        return found

    def _code_scan(self, questions: Scores) -> _Scan:
        """Estimates of cosines from the codes, each in units of its question's step."""
        steps = np.abs(questions).max(axis=1) / 127
        coded = np.rint(questions / steps[:, None])
        off = np.linalg.norm(questions - coded * steps[:, None], axis=1)
        numkong = _numkong()
        packed = numkong.dots_pack(coded.astype(np.int8))  # type: ignore[union-attr]

        def scores(rows: slice) -> NDArray[np.float32]:
            products = np.asarray(numkong.dots_packed(self.buffers.codes[rows], packed))  # type: ignore[union-attr]
            estimates = products.astype(np.float32)
            estimates *= self.buffers.steps[rows, None]
            return estimates

        # The last term covers what float32 rounds away.
        error = self.spread + off * (1 + self.spread) + 1e-6
        return _Scan(self.count, len(questions), scores, (error / steps).astype(np.float32))

    def _float_scan(self, questions: Scores) -> _Scan:
        asked = np.ascontiguousarray(questions.astype(np.float32).T)

        def scores(rows: slice) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self.buffers.vectors[rows] @ asked
            found *= self.buffers.inverse_norms[rows, None]
            return found

        error = np.full(len(questions), (self.dim + 4) * 2.0**-24, np.float32)
        return _Scan(self.count, len(questions), scores, error)

    def _narrowed(self, question: Scores, k: int, candidates: Positions) -> Positions:
        if len(candidates) <= 4 * k:
            return candidates
        return _kept(*self._by_floats(question, candidates), k, candidates, None)


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """Scores of many questions, a slice of the rows at a time.

    Attributes:
        count: How many rows.
        width: How many questions.
        scores: Slice of rows -> float32, shape (rows, width).
        error: How far off a score of each question can be, shape (width,).
    """

    count: int
    width: int
    scores: Callable[[slice], NDArray[np.float32]]
    error: NDArray[np.float32]


def _candidates(scan: _Scan, k: int, without: Positions | None) -> list[Positions]:
    """For each question the ascending positions that can be among its k best."""
    if not k:
        return [np.empty(0, np.intp) for _ in range(scan.width)]
    best = np.full((k, scan.width), -np.inf, np.float32)  # the k largest maxima of blocks so far
    places: list[tuple[Positions, Positions, NDArray[np.float32]]] = []
    for start in range(0, scan.count, _MANY_ROWS):
        scores = scan.scores(slice(start, min(start + _MANY_ROWS, scan.count)))
        if without is not None and len(without):
            scores[without[(without >= start) & (without < start + len(scores))] - start] = -np.inf
        maxima = np.maximum.reduceat(scores, np.arange(0, len(scores), _BLOCK), axis=0)
        best = np.partition(np.concatenate([best, maxima]), len(maxima), axis=0)[len(maxima) :]
        least = best[0] - 2 * scan.error
        blocks, columns = np.nonzero((maxima >= least) & (maxima > -np.inf))
        rows = np.minimum(blocks[:, None] * _BLOCK + np.arange(_BLOCK), len(scores) - 1)
        here = scores[rows, columns[:, None]]
        inside = (here >= least[columns, None]) & (here > -np.inf)
        inside &= blocks[:, None] * _BLOCK + np.arange(_BLOCK) < len(scores)
        places.append(
            (np.broadcast_to(columns[:, None], rows.shape)[inside], rows[inside] + start, here[inside])
        )
    return _by_question(scan.width, best[0] - 2 * scan.error, places)


def _by_question(
    width: int, least: NDArray[np.float32], places: list[tuple[Positions, Positions, NDArray[np.float32]]]
) -> list[Positions]:
    """Cut at the final bounds, and sort by question and position."""
    columns, rows, scores = (np.concatenate(parts) for parts in zip(*places, strict=True))
    kept = scores >= least[columns]
    columns, rows = columns[kept], rows[kept]
    order = np.argsort(columns, kind="stable")  # rows came ascending
    return np.split(rows[order], np.searchsorted(columns[order], np.arange(1, width)))


def _kept(
    scores: NDArray[np.float32], error: float, k: int, among: Positions | None, without: Positions | None
) -> Positions:
    """Positions whose score, off by at most `error`, can be among the k best."""
    if without is not None and len(without):
        scores[without] = -np.inf
    best = np.flatnonzero(scores >= _floor(scores, k) - np.float32(2 * error))
    if without is not None and len(without):
        best = best[scores[best] > -np.inf]
    return best if among is None else among[best]


def _floor(scores: NDArray[np.float32], k: int) -> np.float32:
    """A number that the k-th largest score is not below; -inf where there are no more than k.

    The k-th largest of the maxima of blocks is such a number, and a tenth of the work of a partition.
    """
    blocks = len(scores) // _BLOCK
    if blocks >= 4 * k:
        scores = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    if len(scores) <= k:
        return np.float32(-np.inf)
    return np.float32(np.partition(scores, len(scores) - k)[len(scores) - k])
