"""Estimate of an ingest as a value: what it would count, cost and take, and its refusal above a limit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from llama_index_presets.counting import counted
from llama_index_presets.errors import BudgetExceededError, SettingsError
from llama_index_presets.ingest.pipeline import FailedSource
from llama_index_presets.presets.estimates.answer import AnswerEstimate

__all__ = ["ContextEstimate", "Estimate", "refuse_beyond"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextEstimate:
    """Estimate of the sentences that a language model writes about chunks (`chunk_context` = ``"llm"``).

    Attributes:
        model: Name of the language model.
        calls: Chunks that it would be asked about.
        known: Chunks whose sentence is kept from an earlier ingest, and costs nothing.
        prompt_tokens: Tokens that it would read.
        cached_tokens: Of these, those that the provider has read before and bills at its cached price.
        answer_tokens: Tokens that it would write, without thinking.
        cost_usd: Price, in US dollars; None when the model's price is unknown.
    """

    model: str
    calls: int
    known: int
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    cost_usd: Decimal | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "cost_usd": None if self.cost_usd is None else float(self.cost_usd)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimate of an ingest.

    Attributes:
        documents: Documents that are new or changed.
        unchanged: Documents that are in the index already, and cost nothing.
        failed: Documents that would be left out, and why.
        chunks: Chunks of the new documents.
        cached: Chunks that need no model: cached, repeated, or with a vector of their own.
        repeated: Of these, the chunks whose text repeats another one of this ingest: it is asked for once, unless the
            embedding cache is off.
        tokens: Tokens that the embedding model would be sent, as it bills them.
        repeated_tokens: Tokens of the repeated chunks, which are not sent.
        margin: Relative error of the counts at 95 %; 0 when every document was read.
        cost_usd: Price of these tokens and of the context sentences, in US dollars; None when a price is unknown.
        minutes: How long embedding would take; None when nothing is known about the model's speed.
        minutes_from: What that is based on.
        disk_bytes: What it would take on this machine's disk, about.
        model: The embedding model.
        answer: What one answer costs beside, where the preset is known.
        context: What the context sentences cost, where a language model writes them.
        unpriced_models: Models of the ingest without a known price, as a price book names them.
    """

    documents: int
    unchanged: int
    failed: tuple[FailedSource, ...]
    chunks: int
    cached: int
    repeated: int
    tokens: int
    repeated_tokens: int
    margin: float
    cost_usd: Decimal | None
    minutes: float | None
    minutes_from: str
    disk_bytes: int
    model: str
    answer: AnswerEstimate | None = None
    context: ContextEstimate | None = None
    unpriced_models: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; ``unpriced_models`` only where there are any."""
        answer = None if self.answer is None else self.answer.to_dict()
        cost = None if self.cost_usd is None else float(self.cost_usd)
        context = None if self.context is None else self.context.to_dict()
        values = {**asdict(self), "cost_usd": cost, "answer": answer, "context": context}
        unpriced = [*values.pop("unpriced_models"), *(self.answer.unpriced_models if self.answer else ())]
        return values | ({"unpriced_models": list(dict.fromkeys(unpriced))} if unpriced else {})


def refuse_beyond(estimate: Estimate, max_cost_usd: float | Decimal) -> None:
    """Refuse an ingest that would cost too much; nothing was sent.

    Raises:
        SettingsError: The limit is negative.
        BudgetExceededError: The estimate is above it, or the model's price is unknown.
    """
    limit = Decimal(str(max_cost_usd))
    if limit.is_nan() or limit < 0:
        raise SettingsError(f"The cost limit is {limit}; expected US dollars, 0 or more.")
    if estimate.context is not None and estimate.context.cost_usd is None:
        error = BudgetExceededError(
            f"The price of '{estimate.context.model}' is unknown, so its "
            f"{counted(estimate.context.calls, 'context sentence')} "
            f"cannot be kept below ${limit:f}. Nothing was sent. Choose a model with a price."
        )
    elif estimate.cost_usd is None:
        error = BudgetExceededError(
            f"The price of '{estimate.model}' is unknown, so {counted(estimate.tokens, 'token')} cannot be kept below "
            f"${limit:f}. Nothing was sent. Ingest without a limit, or choose a model with a price."
        )
    elif estimate.cost_usd > limit:
        error = BudgetExceededError(
            f"Embedding {counted(estimate.tokens, 'token')} with '{estimate.model}'{_and_sentences(estimate)} costs "
            f"${estimate.cost_usd:.6f}, more than the limit of ${limit:f}. Nothing was sent. Raise the limit, or "
            "ingest fewer documents."
        )
        error.estimate_usd = estimate.cost_usd
    else:
        return
    error.limit_usd = limit
    raise error


def _and_sentences(estimate: Estimate) -> str:
    context = estimate.context
    return (
        ""
        if context is None
        else f" and writing {counted(context.calls, 'context sentence')} with '{context.model}'"
    )
