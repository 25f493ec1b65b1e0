"""Page of an estimate: bars of what the model is sent and of what that costs, one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index_presets.presets.estimates.estimate import Estimate
from llama_index_presets.report.charts import Chart, bars, render

__all__ = ["estimate_page"]

_ANSWERS = (100, 1_000, 10_000)


def estimate_page(estimate: Estimate, rows: Sequence[tuple[str, str]]) -> str:
    """Draw an estimate.

    Args:
        estimate: The estimate.
        rows: Names and figures of the table below the bars.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    costs = _costs(estimate)
    return render(
        "estimate.html",
        title=f"Estimate of an ingest with {estimate.model}",
        charts=[chart for chart in (_work(estimate), costs) if chart is not None],
        unpriced=costs is None,
        rows=rows,
    )


def _work(estimate: Estimate) -> Chart | None:
    """Documents, chunks and tokens, each as shares of their own total; those without any are left out."""
    known = estimate.cached - estimate.repeated
    counts = {
        "documents": (estimate.documents, 0, estimate.unchanged, len(estimate.failed)),
        "chunks": (estimate.chunks - estimate.cached, estimate.repeated, known, 0),
        "tokens": (estimate.tokens, estimate.repeated_tokens, 0, 0),
    }
    totals = {name: sum(parts) for name, parts in counts.items() if sum(parts)}
    if not totals:
        return None
    names = ("new", "repeats another, not sent", "known already", "left out")
    series = {
        part: [100 * counts[name][place] / total for name, total in totals.items()]
        for place, part in enumerate(names)
    }
    title = f"What the model is sent, of {', '.join(f'{total:,} {name}' for name, total in totals.items())}"
    return bars(title, list(totals), series, "%")


def _costs(estimate: Estimate) -> Chart | None:
    """Dollars of the ingest beside those of answers; None when no price is known."""
    dollars: dict[str, tuple[float, float]] = {}
    if estimate.cost_usd is not None:
        dollars["ingest"] = (float(estimate.cost_usd), 0.0)
    if estimate.answer is not None and estimate.answer.usd is not None:
        one = float(estimate.answer.usd)
        dollars |= {f"{count:,}": (0.0, one * count) for count in _ANSWERS}
    if not dollars:
        return None
    series = {
        name: [costs[place] for costs in dollars.values()]
        for place, name in enumerate(("embedding model", _who_answers(estimate)))
    }
    return bars("What the ingest costs, and 100 to 10,000 answers", list(dollars), series, "USD")


def _who_answers(estimate: Estimate) -> str:
    """Which models the dollars of an answer go to."""
    reranking = estimate.answer.reranking if estimate.answer is not None else None
    return "language model and re-ranker" if reranking is not None and reranking.usd else "language model"
