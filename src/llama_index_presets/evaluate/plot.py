"""Scatter plots of quality against latency and cost in one self-contained HTML page without script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llama_index_presets.evaluate.results import Result
from llama_index_presets.report.charts import render, scatter, write_page

__all__ = ["quality_page", "write_quality_page"]

_QUALITY = ("ndcg_at_10", "citation_recall", "answer_recall", "dont_know_right")
_AXES = (("latency_p50_ms", "median latency", "ms"), ("cost_usd", "cost of a question", "USD"))


def write_quality_page(results: Sequence[Result], path: str | Path) -> Path:
    """Write the page to a file.

    Raises:
        StoreWriteError: It cannot be written.
    """
    return write_page(quality_page(results), path)


def quality_page(results: Sequence[Result]) -> str:
    """The runs as two plots and a table; up and to the left is better.

    Args:
        results: Over the same questions.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    summaries = [(_name(result), result.summary()) for result in results]
    quality = next((name for name in _QUALITY if any(name in summary for _, summary in summaries)), None)
    charts = []
    for key, title, unit in _AXES if quality else ():
        points = [
            (label, float(summary[key] or 0), float(summary[str(quality)] or 0))
            for label, summary in summaries
            if summary.get(key) is not None and summary.get(str(quality)) is not None
        ]
        charts.append(scatter(f"{quality} against {title}", points, x_unit=unit, y_unit=str(quality)))
    columns = list(dict.fromkeys(name for _, summary in summaries for name in summary))
    rows = [
        (_name(result), str(len(result.outcomes)), *(_number(summary.get(name)) for name in columns))
        for result, (_, summary) in zip(results, summaries, strict=True)
    ]
    return render(
        "evaluation.html",
        title="Evaluation",
        charts=charts,
        columns=("run", "questions", *columns),
        rows=rows,
    )


def _name(result: Result) -> str:
    return f"{result.label}, {result.made[:16].replace('T', ' ')}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
