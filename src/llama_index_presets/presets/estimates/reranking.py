"""Estimate of re-ranking: what the hits of one question cost, and how long a cross-encoder on this machine takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from llama_index_presets.errors import PresetsError
from llama_index_presets.monitor.calls.usage import provider_of
from llama_index_presets.monitor.prices import (
    FREE_PROVIDER,
    Pricer,
    Tokens,
    billed_searches,
    free_here,
    price_key,
)
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.settings import RERANK_CANDIDATES, Settings
from llama_index_presets.providers.names import CLASS, SERVER, ModelName
from llama_index_presets.providers.rerankers import (
    CROSS_ENCODER,
    DEFAULT_RERANKER,
    RERANKER_PROVIDERS,
    read_reranker_name,
    reranker_endpoint,
)

__all__ = ["QUESTION_TOKENS", "RerankEstimate", "estimate_reranking", "local_scorer"]

QUESTION_TOKENS: Final = 20
_BILLS_SEARCHES: Final = ("cohere",)
_QUESTION: Final = "What is written about it, and for whom, and since when does that hold for everybody?"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankEstimate:
    """Estimate of re-ranking for one question.

    Attributes:
        model: Name of the re-ranker.
        pairs: Hits that it scores, at most.
        usd: Price, in US dollars; None when it is unknown.
        ms: How long a cross-encoder takes for them on this machine, in milliseconds; None where it was not timed.
        unpriced_model: The re-ranker, as a price book names it, where its price is unknown; empty otherwise.
    """

    model: str
    pairs: int
    usd: Decimal | None
    ms: float | None = None
    unpriced_model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = {**asdict(self), "usd": None if self.usd is None else float(self.usd)}
        return {name: value for name, value in values.items() if name != "unpriced_model"}


def estimate_reranking(settings: Settings, pricer: Pricer, *, passage_tokens: int) -> RerankEstimate:
    """Estimate what re-ranking costs for one question, by today's prices.

    Args:
        settings: Name the re-ranker, and how many hits it is given.
        pricer: Knows the prices.
        passage_tokens: Tokens of a hit.

    Example:
        >>> estimate_reranking(Settings(), Pricer(), passage_tokens=256).usd
        Decimal('0E-12')
        >>> hosted = Settings(reranker="cohere/rerank-v3.5")
        >>> estimate_reranking(hosted, Pricer(), passage_tokens=256).unpriced_model
        'cohere/rerank-v3.5'
    """
    name = settings.reranker or DEFAULT_RERANKER
    read = read_reranker_name(name)
    pairs = settings.candidates or RERANK_CANDIDATES
    provider = _provider(read, settings, pricer)
    lengths = [QUESTION_TOKENS + passage_tokens] * pairs
    rates = pricer.rates(provider, read.model)
    # a reply bills either searches or tokens, never both
    by_search = provider in _BILLS_SEARCHES or (rates is not None and bool(rates.searches))
    tokens = Tokens(searches=billed_searches(lengths)) if by_search else Tokens(sum(lengths))
    usd, _ = pricer.price(provider, read.model, tokens)
    return RerankEstimate(
        model=name,
        pairs=pairs,
        usd=usd,
        unpriced_model=price_key(provider, read.model) if usd is None else "",
    )


def _provider(name: ModelName, settings: Settings, pricer: Pricer) -> str:
    """Who bills, as the ledger says it."""
    if name.provider == CROSS_ENCODER:
        return FREE_PROVIDER
    if name.provider == CLASS:
        return provider_of(name.model.rpartition(":")[2])
    if name.provider == SERVER:
        address, _ = reranker_endpoint(name, settings.reranker_options or {})
        return FREE_PROVIDER if free_here(pricer, name.model, address) else ""
    return RERANKER_PROVIDERS[name.provider].prices


def local_scorer(settings: Settings) -> Callable[[Sequence[str]], object] | None:
    """What scores passages with the cross-encoder of the settings; None where it is no model of this machine.

    Nothing is downloaded: a cross-encoder whose weights are not here is not timed.
    """
    name = settings.reranker or DEFAULT_RERANKER
    folder = find_reranker(name)
    if read_reranker_name(name).provider != CROSS_ENCODER or folder is None:
        return None

    from llama_index.core.schema import NodeWithScore, TextNode

    from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank

    try:
        reranker = CrossEncoderRerank(folder, local_files_only=True).warm_up()
    except PresetsError:
        return None  # 'build' says what is wrong with it; an estimate goes without the time

    def score(texts: Sequence[str]) -> object:
        return reranker.probabilities(_QUESTION, [NodeWithScore(node=TextNode(text=one)) for one in texts])

    return score
