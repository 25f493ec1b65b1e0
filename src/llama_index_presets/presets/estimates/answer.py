"""Answer estimate of a preset: what one answer re-ranks, reads, writes and costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.monitor.prices import Pricer, Tokens, price_key
from llama_index_presets.presets.estimates.reranking import RerankEstimate, estimate_reranking
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import CATALOGUE, read_embedding_name
from llama_index_presets.providers.language_models import language_model_rates, read_name

__all__ = ["ANSWER_TOKENS", "PROMPT_TOKENS", "AnswerEstimate", "estimate_answer", "passage_tokens"]

PROMPT_TOKENS: Final = 150
"""Of the instructions and the question, around the passages."""
ANSWER_TOKENS: Final = 150
_CHUNK_TOKENS: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEstimate:
    """Estimate of one answer.

    Attributes:
        model: Name of the language model.
        prompt_tokens: Tokens that it reads: as many passages as the preset shows, and the instructions.
        answer_tokens: Tokens that it writes, without those of thinking, which a reasoning model bills as well.
        usd: Price with that of re-ranking, in US dollars; None when a price is unknown.
        read_usd: Price of a million tokens read, in prompts of this length.
        written_usd: Price of a million tokens written.
        reranking: What re-ranks the hits before; None where nothing does.
        unpriced_models: The models, as a price book names them, whose price is unknown.
    """

    model: str
    prompt_tokens: int
    answer_tokens: int
    usd: Decimal | None
    read_usd: Decimal | None
    written_usd: Decimal | None
    reranking: RerankEstimate | None = None
    unpriced_models: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        prices = ("usd", "read_usd", "written_usd")
        floats = {name: None if (price := getattr(self, name)) is None else float(price) for name in prices}
        reranking = None if self.reranking is None else self.reranking.to_dict()
        values = {**asdict(self), **floats, "reranking": reranking}
        return {name: value for name, value in values.items() if name != "unpriced_models"}


def estimate_answer(row: Preset, settings: Settings, pricer: Pricer | None = None) -> AnswerEstimate:
    """Estimate what an answer costs, by today's prices.

    Args:
        row: The row, as the settings choose it.
        settings: How many passages it shows, in how many tokens.
        pricer: Knows the prices.

    Example:
        >>> from llama_index_presets.presets.matrix import preset
        >>> estimate_answer(preset("healthcare"), Settings()).usd
        Decimal('0E-12')
    """
    prices = pricer or Pricer()
    passage = passage_tokens(row, settings)
    prompt = PROMPT_TOKENS + min(settings.context_tokens, settings.top_k * passage)
    reranking = (
        estimate_reranking(settings, prices, passage_tokens=passage) if row.pattern == "advanced" else None
    )
    name = read_name(row.llm)
    provider, rates = language_model_rates(name, prices, local=row.parts()["llm"].local)
    at = rates.at(prompt) if rates is not None else None
    usd = None if rates is None else rates.cost(Tokens(prompt, ANSWER_TOKENS))
    unpriced = [price_key(provider, name.model)] if usd is None else []
    if reranking is not None:
        usd = None if usd is None or reranking.usd is None else usd + reranking.usd
        unpriced += [reranking.unpriced_model] if reranking.unpriced_model else []
    return AnswerEstimate(
        model=row.llm,
        prompt_tokens=prompt,
        answer_tokens=ANSWER_TOKENS,
        usd=usd,
        read_usd=None if at is None else at.input,
        written_usd=None if at is None else at.output,
        reranking=reranking,
        unpriced_models=tuple(unpriced),
    )


def passage_tokens(row: Preset, settings: Settings) -> int:
    """Tokens of a passage, at most: as long as a chunk is cut.

    Example:
        >>> from llama_index_presets.presets.matrix import preset
        >>> passage_tokens(preset("knowledge-base"), Settings(chunk_tokens=128))
        128
    """
    read = read_embedding_name(row.embedding)
    longest = catalogue()[read.model].max_tokens if read.provider == CATALOGUE else _CHUNK_TOKENS
    return min(longest, settings.chunk_tokens or _CHUNK_TOKENS)
