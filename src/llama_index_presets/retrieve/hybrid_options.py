"""Options of the hybrid retriever: which legs it has, their weights, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever

from llama_index_presets._options import expect_each
from llama_index_presets.errors import SettingsError
from llama_index_presets.provenance import BM25, KEYWORD, VECTOR
from llama_index_presets.ranking.fusion import FUSIONS
from llama_index_presets.ranking.query_fusion import MODES
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.bm25.retriever import KeywordRetriever
from llama_index_presets.retrieve.legs import Leg
from llama_index_presets.retrieve.query_fusion import stage_names

__all__ = ["check_options", "checked_weights", "index_behind", "named_legs"]


def index_behind(keyword: BaseRetriever | BM25Index) -> BM25Index | None:
    """The keyword index that a retriever asks, None where it is of another kind."""
    index = keyword.index if isinstance(keyword, KeywordRetriever) else keyword
    return index if isinstance(index, BM25Index) else None


def named_legs(
    vector: BaseRetriever | Sequence[BaseRetriever] | None,
    keyword: BaseRetriever | BM25Index | None,
    retrievers: Sequence[BaseRetriever] | None,
) -> dict[str, BaseRetriever]:
    """Stage name -> retriever: of two legs by their part, of a list by their kind."""
    listed = vector if retrievers is None else retrievers
    if keyword is None and isinstance(listed, Sequence) and (vector is None or retrievers is None):
        return stage_names(listed)
    if keyword is None or retrievers is not None or not isinstance(vector, BaseRetriever):
        raise SettingsError(
            "HybridFusionRetriever takes a vector and a keyword retriever, or a list of retrievers alone "
            "(retrievers=[...])."
        )
    by_words = keyword.as_retriever() if isinstance(keyword, BM25Index) else keyword
    return {VECTOR: vector, KEYWORD if index_behind(keyword) is None else BM25: by_words}


def check_options(
    fusion: str, top_k: int, candidates: int | None, on_leg_error: str, timeout_s: float | None
) -> None:
    """Refuse options of `HybridFusionRetriever` that are out of range.

    Raises:
        SettingsError: Names the option and what it may be.
    """
    if fusion not in FUSIONS and fusion not in MODES:
        raise SettingsError(f"There is no fusion '{fusion}'. Choose one of: {', '.join([*FUSIONS, *MODES])}.")
    given: dict[str, Any] = {"top_k": top_k, "candidates": top_k if candidates is None else candidates}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise SettingsError(f"{name} is {value!r}; give a whole number, 1 or more.")
    if on_leg_error not in ("raise", "degrade"):
        raise SettingsError(f"on_leg_error is '{on_leg_error}'; choose 'raise' or 'degrade'.")
    if timeout_s is not None and not timeout_s > 0:
        raise SettingsError(f"timeout_s is {timeout_s}; give a number of seconds above 0, or None.")


def checked_weights(weights: Sequence[float] | None, legs: Sequence[Leg]) -> list[float]:
    """One weight for each leg, 1 where none are given.

    Raises:
        SettingsError: They do not fit the legs, or are negative, or all 0.
    """
    kinds = (Real, Decimal)
    given = (
        [1.0] * len(legs) if weights is None else expect_each("weights", weights, kinds, "a list of numbers")
    )
    names = ", ".join(leg.name for leg in legs)
    if len(given) != len(legs):
        raise SettingsError(f"{len(given)} weights were given for the legs {names}; give one for each.")
    if not all(weight >= 0 for weight in given) or not any(given):
        raise SettingsError(f"The weights of {names} are {given}; none may be below 0, and not all 0.")
    return [float(weight) for weight in given]
