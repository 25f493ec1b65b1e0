"""Option names of `QueryFusionRetriever` accepted by `HybridFusionRetriever`, and its generated queries."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.llms.utils import LLMType, resolve_llm
from llama_index.core.prompts.default_prompts import HYDE_TMPL
from llama_index.core.retrievers.fusion_retriever import QUERY_GEN_PROMPT
from llama_index.core.schema import QueryBundle
from llama_index.core.settings import Settings

from llama_index_presets._options import one_value
from llama_index_presets.errors import SettingsError
from llama_index_presets.provenance import BM25, KEYWORD, VECTOR
from llama_index_presets.retrieve.bm25.index import BM25Index
from llama_index_presets.retrieve.bm25.retriever import KeywordRetriever
from llama_index_presets.retrieve.node_scores import query_mode

__all__ = ["OFFICIAL", "QueryGeneration", "own_options", "own_top_k", "stage_names"]

OFFICIAL = (
    "retrievers",
    "llm",
    "query_gen_prompt",
    "mode",
    "similarity_top_k",
    "num_queries",
    "use_async",
    "retriever_weights",
)
"""Keywords of the official constructor beside those that both have."""

_SAME = {"similarity_top_k": "top_k", "retriever_weights": "weights", "mode": "fusion"}
_UNLIMITED = 1_000_000


def own_options(
    own: Mapping[str, Any], official: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Translate official options.

    Args:
        own: Options under the names of this package, as the caller gave them.
        official: Options under the official names; None counts as not given.
        usual: What `own` holds where the caller gave nothing.

    Returns:
        `own` with the official options in it.

    Raises:
        SettingsError: The same is said twice, with two values.

    Example:
        >>> own_options({"top_k": 10}, {"similarity_top_k": 2}, {"top_k": 10})
        {'top_k': 2}
    """
    options = dict(own)
    for name, ours in _SAME.items():
        value = official.get(name)
        if value is not None:
            value = value.value if isinstance(value, Enum) else value
            options[ours] = one_value(ours, own[ours], usual[ours], name, value)
    return options


def stage_names(retrievers: Sequence[BaseRetriever]) -> dict[str, BaseRetriever]:
    """Name each retriever of a list by its kind, numbered from the second of a kind on.

    Raises:
        SettingsError: The list is empty, or holds something else.
    """
    if not retrievers:
        raise SettingsError("retrievers is empty; give at least one.")
    named: dict[str, BaseRetriever] = {}
    for retriever in retrievers:
        one = retriever.as_retriever() if isinstance(retriever, BM25Index) else retriever
        if not isinstance(one, BaseRetriever):
            raise SettingsError(
                f"A retriever of the list is a {type(one).__name__}. Give LlamaIndex retrievers, or a BM25Index."
            )
        kind, number = _kind(one), 2
        name = kind
        while name in named:
            name, number = f"{kind} {number}", number + 1
        named[name] = one
    return named


def _kind(retriever: BaseRetriever) -> str:
    if isinstance(retriever, KeywordRetriever):
        return BM25 if isinstance(retriever.index, BM25Index) else KEYWORD
    if isinstance(retriever, VectorIndexRetriever):
        return VECTOR if query_mode(retriever) == "default" else str(query_mode(retriever).value)
    return type(retriever).__name__


def own_top_k(retriever: BaseRetriever) -> int:
    """How many hits a retriever gives by itself; a large number where that is not known."""
    for name in ("similarity_top_k", "_similarity_top_k", "top_k"):
        value = getattr(retriever, name, None)
        if isinstance(value, int):
            return max(value, 1)
    return _UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryGeneration:
    """Generation of more queries from one, by a language model.

    Attributes:
        num_queries: How many queries are asked altogether, the caller's own included; 1 generates none.
        prompt: Template with ``{num_queries}`` and ``{query}``; None is the official one.
        llm: Writes them; None takes LlamaIndex's ``Settings.llm`` when it is needed.
        hyde: Whether it also writes a passage that would answer the question, whose vector is averaged with the
            question's (HyDE); words are searched for as the caller wrote them.
    """

    num_queries: int = 1
    prompt: str | None = None
    llm: Any = None
    hyde: bool = False

    @classmethod
    def of(
        cls, official: Mapping[str, Any], callback_manager: CallbackManager | None, *, hyde: bool = False
    ) -> QueryGeneration:
        """Read the official options.

        Raises:
            SettingsError: `num_queries` is below 1.
        """
        count = official.get("num_queries")
        if count is not None and count < 1:
            raise SettingsError(f"num_queries is {count}; it must be 1 (the query as it is) or more.")
        llm: LLMType = official.get("llm")
        return cls(
            num_queries=1 if count is None else count,
            prompt=official.get("query_gen_prompt"),
            llm=resolve_llm(llm, callback_manager=callback_manager) if llm else None,
            hyde=hyde,
        )

    @property
    def template(self) -> str:
        """The prompt in use."""
        return self.prompt or QUERY_GEN_PROMPT

    def queries(self, query: QueryBundle) -> list[QueryBundle]:
        """The query itself, then those that the model generates from it."""
        passage = self._model.complete(self._hypothetical(query)).text if self.hyde else ""
        more = self._model.complete(self._written(query)).text if self.num_queries > 1 else ""
        return [_with_passage(query, passage), *self._read(more)]

    async def aqueries(self, query: QueryBundle) -> list[QueryBundle]:
        """`queries`, without blocking the event loop."""
        passage = (await self._model.acomplete(self._hypothetical(query))).text if self.hyde else ""
        more = (await self._model.acomplete(self._written(query))).text if self.num_queries > 1 else ""
        return [_with_passage(query, passage), *self._read(more)]

    @property
    def _model(self) -> Any:
        return self.llm or Settings.llm

    def _written(self, query: QueryBundle) -> str:
        return self.template.format(num_queries=self.num_queries - 1, query=query.query_str)

    def _hypothetical(self, query: QueryBundle) -> str:
        return str(HYDE_TMPL.format(context_str=query.query_str))

    def _read(self, text: str) -> list[QueryBundle]:
        """One query a line, code fences left out; no more than were asked for."""
        lines = [line.strip() for line in text.strip("`").split("\n")]
        return [QueryBundle(line) for line in lines if line][: self.num_queries - 1]


def _with_passage(query: QueryBundle, passage: str) -> QueryBundle:
    """The query, to be embedded together with a passage; an embedding that it carries is of the question alone."""
    if not passage.strip():
        return query
    found = copy.copy(query)
    found.custom_embedding_strs, found.embedding = [query.query_str, passage.strip()], None
    return found
