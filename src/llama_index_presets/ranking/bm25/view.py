"""One state of an index, whole and unchanging, for as many searches as need to agree with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_index_presets.errors import RankingError
from llama_index_presets.ranking.bm25.impacts import Impacts
from llama_index_presets.ranking.bm25.selection import best_rows

__all__ = ["View"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a search sees; later changes of the index do not reach it.

    Attributes:
        impacts: What each posting adds to a score.
        ids: Id of each row, None for a row whose document is gone; may be longer than `rows`.
        epoch: Counts the renumberings of rows; masks made in one epoch mean nothing in another.
    """

    impacts: Impacts
    ids: Sequence[str | None]
    epoch: int

    @property
    def rows(self) -> int:
        """How many rows there are: the length of a mask."""
        return self.impacts.rows

    @property
    def documents(self) -> int:
        """How many documents are present."""
        return self.impacts.statistics.documents

    def best(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]]:
        """(row, score) pairs of the best documents, best first, ties by id; see `Postings.search`.

        Raises:
            RankingError: k is negative, or the mask's length is not the number of rows.
        """
        if k < 0:
            raise RankingError(f"k is {k}; it must be 0 or more.")
        if allowed is not None and allowed.shape != (self.rows,):
            raise RankingError(
                f"The mask has shape {allowed.shape}, the index {self.rows} rows; give an entry for each row."
            )
        scores = self.impacts.scores(tokens)
        if scores is None or k == 0:
            return []
        if allowed is not None:
            scores *= allowed
        return best_rows(scores, self.ids, k)

    def search(
        self, tokens: Sequence[str], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """(id, score) pairs of the best documents; see `Postings.search`."""
        return [(self.ids[row] or "", score) for row, score in self.best(tokens, k, allowed)]
