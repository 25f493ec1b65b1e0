"""Inverted index in memory, updated document by document, scored exactly as if built afresh."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_presets.counting import counted
from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.bm25.analyzer import EXTRA, GAP
from llama_index_presets.ranking.bm25.pairs import PairTable, TermBlock
from llama_index_presets.ranking.bm25.positions import Positions, in_order, row_starts
from llama_index_presets.ranking.bm25.scores import Impacts, Segment, Statistics
from llama_index_presets.ranking.bm25.view import View

__all__ = ["Postings"]

_BATCH = 8192
"""Documents counted at once: bounds the memory that a large add needs beside the index."""


class Postings:
    """BM25 (Lucene's variant) over token lists, incremental, in memory.

    The score of a document is the sum over the query's tokens of
    ``ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))``
    with N documents, n of them holding the token, f the token's count in the document. N, n and the mean
    length are those of the documents present now: adding or removing gives the scores of an index built
    afresh. Scores are > 0, higher is better, without an upper limit; float32 sums, bit for bit those of
    bm25s.

    A document's place is its row. Rows only grow; `compact` renumbers them, and nothing else does, so a mask
    over the rows stays right until then. Thread safe: searches see a document whole or not at all.

    Args:
        k1: Saturation of repeated tokens, >= 0.
        b: How much long documents are discounted, in [0, 1].
        positions: Whether the order of the tokens is kept, which phrases and word pairs need: 9 bytes a token.

    Raises:
        RankingError: k1 or b is out of range.

    Example:
        >>> postings = Postings()
        >>> postings.add(["x", "y"], [["red", "fish"], ["blue", "fish", "fish"]])
        >>> [name for name, score in postings.search(["fish"], k=10)]
        ['y', 'x']
        >>> postings.remove(["y"])
        1
        >>> [name for name, score in postings.search(["fish"], k=10)]
        ['x']

    Source: Kamphuis et al., "Which BM25 do you mean?", ECIR 2020; Lù, "BM25S", arXiv:2407.03618.
    """

    def __init__(self, *, k1: float = 1.2, b: float = 0.75, positions: bool = False) -> None:
        if not (math.isfinite(k1) and k1 >= 0 and 0 <= b <= 1):
            raise RankingError(f"BM25 has k1={k1} and b={b}; k1 must be >= 0 and b in [0, 1].")
        self.k1, self.b = k1, b
        self._lock = threading.RLock()
        self._vocabulary = _Vocabulary()
        self._ids: list[str | None] = []
        self._by_id: dict[str, int] | None = {}
        self._count = 0
        self._lengths = np.empty(0, np.int32)
        self._alive = np.empty(0, np.bool_)
        self._segments: list[Segment] = []
        self._order: list[TermBlock] | None = [] if positions else None
        self._tokens = 0
        self._view: View | None = None

    # -- what is in it ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    @property
    def _row(self) -> dict[str, int]:
        """Id -> row; after `restore`, made when first asked for: a search does without it."""
        if self._by_id is None:
            with self._lock:
                if self._by_id is None:
                    self._by_id = {name: row for row, name in enumerate(self._ids) if name is not None}
        return self._by_id

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._row))

    @property
    def ids(self) -> Sequence[str | None]:
        """Id of each row; None for a row whose document is gone. Do not change it."""
        return self._ids

    @property
    def rows(self) -> int:
        """Number of rows, those of removed documents included: the length of a mask."""
        return len(self._ids)

    @property
    def waste(self) -> float:
        """Share of rows whose document is gone, in [0, 1]: what `compact` would free."""
        return 1 - self._count / len(self._ids) if self._ids else 0.0

    def row_of(self, name: str) -> int:
        """Row of a document; KeyError where it is not in the index."""
        return self._row[name]

    def mask(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """A mask that allows these documents; names that are not in the index are passed over."""
        with self._lock:
            allowed = np.zeros(self.rows, np.bool_)
            allowed[[self._row[name] for name in names if name in self._row]] = True
            return allowed

    # -- change it ----------------------------------------------------------------------------------------

    def add(self, ids: Sequence[str], token_lists: Sequence[Sequence[str]]) -> None:
        """Add documents; one whose id is present, or comes twice, is replaced by its last version.

        Args:
            ids: Document ids.
            token_lists: Tokens of each document, in order, repeats kept; may be empty. `GAP` marks left-out stop words,
                `EXTRA` a token that counts for nothing in the document's length.

        Raises:
            RankingError: There are not as many token lists as ids.
        """
        if len(ids) != len(token_lists):
            raise RankingError(
                f"{counted(len(ids), 'id')} came with {counted(len(token_lists), 'token list')}; give one list for "
                "each id."
            )
        last = dict(zip(ids, token_lists, strict=True))
        with self._lock:
            self.remove(last)
            names, lists = list(last), list(last.values())
            for start in range(0, len(names), _BATCH):
                self._append(names[start : start + _BATCH], lists[start : start + _BATCH])

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents; ids that are not in the index are passed over.

        Returns:
            How many documents were removed.
        """
        with self._lock:
            gone = [self._row.pop(name) for name in dict.fromkeys(ids) if name in self._row]
            if gone:
                self._count -= len(gone)
                self._forget(gone)
            return len(gone)

    def _forget(self, rows: list[int]) -> None:
        # Copies, because a search that is under way still reads the state before.
        self._ids, self._alive = list(self._ids), self._alive.copy()
        for row in rows:
            self._ids[row] = None
        self._alive[rows] = False
        self._tokens -= int(self._lengths[rows].sum(dtype=np.int64))
        self._view = None

    def compact(self) -> None:
        """Renumber the rows without those of removed documents, and put all postings into one segment."""
        with self._lock:
            renumber = np.where(self._alive, np.cumsum(self._alive) - 1, -1).astype(np.int32)
            merged = Segment.merged(self._segments or [_nothing()], renumber)
            terms = list(self._vocabulary)
            if self._order is not None:
                self._order = list(self._kept_order(merged.terms, len(terms)).blocks)
            self._vocabulary = _Vocabulary((terms[old], new) for new, old in enumerate(merged.terms.tolist()))
            self._segments = [merged.with_terms(np.arange(len(merged.terms), dtype=np.int32))]
            self._ids = [name for name in self._ids if name is not None]
            self._by_id, self._count = None, len(self._ids)
            self._lengths = self._lengths[self._alive]
            self._alive = np.ones(len(self._ids), np.bool_)
            self._view = None

    def _append(self, names: list[str], lists: list[Sequence[str]]) -> None:
        first = len(self._ids)
        lengths = np.fromiter(map(len, lists), np.int32, len(lists))
        number = self._vocabulary.__getitem__
        terms = np.fromiter(
            map(number, chain.from_iterable(lists)), np.int32, int(lengths.sum(dtype=np.int64))
        )
        marks = [self._vocabulary.get(mark) for mark in (GAP, EXTRA)]
        rows = np.repeat(np.arange(first, first + len(lists), dtype=np.int64), lengths)
        ordered, lengths = in_order(terms, lengths, *marks)
        if len(ordered) < len(terms):
            words = ~np.isin(terms, [mark for mark in marks if mark is not None])
            terms, rows = terms[words], rows[words]
        self._segments.append(Segment.of(terms, rows))
        if self._order is not None:
            self._order.append(TermBlock(ordered))
        self._merge_small()
        self._lengths = np.concatenate([self._lengths, lengths])
        self._alive = np.concatenate([self._alive, np.ones(len(lists), np.bool_)])
        self._tokens += len(ordered)
        self._row.update(zip(names, range(first, first + len(names)), strict=True))
        self._count += len(names)
        self._ids.extend(names)
        self._view = None

    def _merge_small(self) -> None:
        """Keep each segment at least twice as large as the next, so that there are few of them."""
        while len(self._segments) > 1 and len(self._segments[-2]) < 2 * len(self._segments[-1]):
            self._segments[-2:] = [Segment.merged(self._segments[-2:])]
        order = self._order or []
        while len(order) > 1 and len(order[-2]) < 2 * len(order[-1]):
            order[-2:] = [TermBlock.joined(order[-2:])]

    def _kept_order(self, terms: NDArray[np.int32], count: int) -> Positions:
        """Positions of the documents present, under the numbers that their terms get."""
        renumber = np.full(count, -1, np.int32)
        renumber[terms] = np.arange(len(terms), dtype=np.int32)
        return Positions(self._order or [], row_starts(self._lengths)).kept(self._alive, renumber)

    # -- ask it -------------------------------------------------------------------------------------------

    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """The best documents that hold at least one of the tokens.

        Args:
            tokens: Tokens of the query; one that comes twice counts twice.
            k: How many documents at most, >= 0.
            allowed: Which rows may be returned, shape (rows,); None allows all. It does not change the
                scores.

        Returns:
            (id, score) pairs, best first, ties by id; empty where nothing matches.

        Raises:
            RankingError: k is negative, or the mask's length is not the number of rows.
        """
        return self.view().search(tokens, k, allowed)

    def scores(self, tokens: Sequence[str], ids: Sequence[str]) -> list[float]:
        """Scores of given documents, 0.0 where none of the tokens occurs; KeyError for an unknown id."""
        with self._lock:
            view, rows = self.view(), [self._row[name] for name in ids]
        found = view.impacts.scores(tokens)
        return [0.0] * len(rows) if found is None else found[rows].tolist()

    def view(self) -> View:
        """The present state, whole, even while another thread changes the index."""
        with self._lock:
            if self._view is None:
                impacts = Impacts(self._statistics(), tuple(self._segments), self._vocabulary)
                order = self._order
                positions = None if order is None else Positions(tuple(order), row_starts(self._lengths))
                self._view = View(impacts, self._ids, positions, lambda name: self._row.get(name))
            return self._view

    def _statistics(self) -> Statistics:
        return Statistics(
            k1=self.k1,
            b=self.b,
            documents=self._count,
            tokens=self._tokens,
            lengths=self._lengths,
            alive=None if self._count == len(self._ids) else self._alive,
        )

    # -- write it down ------------------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """The documents present, as arrays and strings that `restore` reads back; changes nothing here."""
        with self._lock:
            copy = Postings(k1=self.k1, b=self.b)
            for name in ("_vocabulary", "_ids", "_lengths", "_alive", "_segments", "_order"):
                setattr(copy, name, getattr(self, name))
        copy.compact()
        segment = copy._segments[0]
        return {
            "ids": list(copy._ids),
            "vocabulary": list(copy._vocabulary),
            "lengths": copy._lengths,
            "terms": segment.terms,
            "starts": segment.starts,
            "rows": segment.rows,
            "counts": segment.counts,
            **({} if copy._order is None else _exported(copy._order[0])),
        }

    @classmethod
    def restore(cls, exported: Mapping[str, Any], *, k1: float = 1.2, b: float = 0.75) -> Postings:
        """Make the index that `export` wrote down; the arrays may be memory mapped and are not copied."""
        postings = cls(k1=k1, b=b, positions="order" in exported)
        if postings._order is not None:
            pairs = [np.asarray(exported[name]) for name in ("pairs", "buckets") if name in exported]
            postings._order.append(TermBlock(exported["order"], PairTable(*pairs) if pairs else None))
        postings._ids = list(exported["ids"])
        postings._by_id, postings._count = None, len(postings._ids)
        postings._vocabulary.update((term, number) for number, term in enumerate(exported["vocabulary"]))
        postings._lengths = exported["lengths"]
        postings._alive = np.ones(len(postings._ids), np.bool_)
        postings._tokens = int(np.asarray(exported["lengths"]).sum(dtype=np.int64))
        parts = (exported[name] for name in ("terms", "starts", "rows", "counts"))
        postings._segments = [Segment(*parts)]
        return postings


class _Vocabulary(dict[str, int]):
    """term -> its number; a new term gets the next one."""

    def __missing__(self, term: str) -> int:
        number = self[term] = len(self)
        return number


def _exported(block: TermBlock) -> dict[str, NDArray[np.integer]]:
    return {"order": block.terms, "pairs": block.pairs.places, "buckets": block.pairs.starts}


def _nothing() -> Segment:
    return Segment.of(np.empty(0, np.int32), np.empty(0, np.int64))
