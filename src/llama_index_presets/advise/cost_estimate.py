"""Cost estimate of a preset: once for the documents, monthly for the questions, with the arithmetic shown."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from llama_index_presets.advise.requirements import Requirements
from llama_index_presets.counting import counted
from llama_index_presets.monitor.prices import FREE_PROVIDER, Pricer, Tokens, free_here
from llama_index_presets.presets.estimates.answer import estimate_answer
from llama_index_presets.presets.estimates.reranking import QUESTION_TOKENS
from llama_index_presets.presets.matrix import STORES, Preset
from llama_index_presets.presets.settings import settings_class
from llama_index_presets.providers.embedding_models import (
    embedding_endpoint,
    embedding_price,
    read_embedding_name,
)

__all__ = ["Bill", "BillLine", "estimate_bill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """One line of an estimate.

    Attributes:
        what: What is paid for.
        per: ``"once"`` or ``"month"``.
        usd: US dollars; None when the price is not known here.
        arithmetic: How the number comes about.
    """

    what: str
    per: Literal["once", "month"]
    usd: Decimal | None
    arithmetic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """An estimate.

    Attributes:
        lines: What it is made of.
    """

    lines: tuple[BillLine, ...]

    def total(self, per: Literal["once", "month"]) -> Decimal:
        """Sum of the lines that have a price, in US dollars."""
        return sum((line.usd for line in self.lines if line.per == per and line.usd is not None), Decimal(0))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Items without a known price; the totals leave them out."""
        return tuple(line.what for line in self.lines if line.usd is None)

    def to_dict(self) -> dict[str, Any]:
        """Estimate as JSON values."""
        lines = [
            {
                "what": line.what,
                "per": line.per,
                "usd": None if line.usd is None else float(line.usd),
                "arithmetic": line.arithmetic,
            }
            for line in self.lines
        ]
        totals = {"once_usd": float(self.total("once")), "month_usd": float(self.total("month"))}
        return {**totals, "unpriced": list(self.unpriced), "lines": lines}


def estimate_bill(row: Preset, needs: Requirements, pricer: Pricer | None = None) -> Bill:
    """Estimate what a row costs.

    A question has 20 tokens; an answer reads as many passages as the preset shows and instructions of 150 tokens, and
    has 150 tokens itself. Prices are those of today, from `genai-prices`.

    Args:
        row: With `offline` applied, where it will be used so.
        needs: How many documents and questions.
        pricer: Knows the prices.
    """
    prices = pricer or Pricer()
    tokens = needs.documents * needs.tokens_per_document
    asked = needs.queries_per_month
    return Bill(
        lines=(
            _embedding(
                prices, row, "embedding the documents", "once",
                tokens, f"{counted(needs.documents, 'document')} x {counted(needs.tokens_per_document, 'token')}",
            ),
            _embedding(
                prices, row, "embedding the questions", "month",
                asked * QUESTION_TOKENS, f"{counted(asked, 'question')} x {QUESTION_TOKENS} tokens",
            ),
            _answers(prices, row, asked),
            _store(row),
        )
    )  # fmt: skip


def _embedding(
    prices: Pricer, row: Preset, what: str, per: Literal["once", "month"], tokens: int, count: str
) -> BillLine:
    read = read_embedding_name(row.embedding)
    provider, model = embedding_price(read)
    address, _ = embedding_endpoint(read, row.options.get("embedding", {}))
    if provider == FREE_PROVIDER or (not provider and free_here(prices, model, address)):
        return BillLine(
            what=what, per=per, usd=Decimal(0), arithmetic=f"{row.embedding} runs on your machine"
        )
    usd, _ = prices.price(provider, model, Tokens(tokens))
    each, _ = prices.price(provider, model, Tokens(1_000_000))
    return BillLine(what=what, per=per, usd=usd, arithmetic=f"{count} x {_dollars(each)} per million")


def _answers(prices: Pricer, row: Preset, asked: int) -> BillLine:
    what: str = "writing the answers"
    answer = estimate_answer(row, settings_class(row.name)(), prices)
    if answer.usd == 0:
        return BillLine(what=what, per="month", usd=Decimal(0), arithmetic=f"{row.llm} runs on your machine")
    arithmetic = (
        f"{counted(asked, 'answer')} x ({counted(answer.prompt_tokens, 'token')} read x {_dollars(answer.read_usd)} "
        f"+ {answer.answer_tokens} written x {_dollars(answer.written_usd)} per million)"
    )
    usd = None if answer.usd is None else answer.usd * asked
    return BillLine(what=what, per="month", usd=usd, arithmetic=arithmetic)


def _store(row: Preset) -> BillLine:
    what = f"keeping the vectors in {row.store}"
    if not STORES[row.store].local:
        return BillLine(
            what=what, per="month", usd=None, arithmetic="billed by use: see the provider's price list"
        )
    where = "your PostgreSQL server" if row.store == "pgvector" else "files on your disk"
    return BillLine(what=what, per="month", usd=Decimal(0), arithmetic=f"{where}, not priced further")


def _dollars(usd: Decimal | None) -> str:
    return "an unknown price" if usd is None else f"${usd.normalize():f}"
