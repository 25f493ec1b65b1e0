"""Scatter plots of quality against latency and cost in one self-contained HTML page without script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from llama_index_presets.charts import page, scatter
from llama_index_presets.errors import StoreWriteError
from llama_index_presets.evaluate.results import Result

__all__ = ["quality_page", "write_quality_page"]

_QUALITY = ("ndcg_at_10", "citation_recall", "answer_recall", "dont_know_right")
_AXES = (("latency_p50_ms", "median latency", "ms"), ("cost_usd", "cost of a question", "USD"))


def write_quality_page(results: Sequence[Result], path: str | Path) -> Path:
    """Write the page to a file.

    Raises:
        StoreWriteError: It cannot be written.
    """
    target = Path(path)
    try:
        target.write_text(quality_page(results), encoding="utf-8")
    except OSError as error:
        raise StoreWriteError(f"'{target}' cannot be written ({error.strerror}).") from error
    return target


def quality_page(results: Sequence[Result]) -> str:
    """The runs as two plots and a table; up and to the left is better.

    Args:
        results: Over the same questions.
    """
    summaries = [(_name(result), result.summary()) for result in results]
    quality = next((name for name in _QUALITY if any(name in found for _, found in summaries)), None)
    charts = []
    for key, title, unit in _AXES if quality else ():
        points = [
            (label, float(found[key] or 0), float(found[str(quality)] or 0))
            for label, found in summaries
            if found.get(key) is not None and found.get(str(quality)) is not None
        ]
        charts.append(scatter(f"{quality} against {title}", points, x_unit=unit, y_unit=str(quality)))
    body = f'<h1>Quality, latency, cost</h1><div class="charts">{"".join(charts)}</div>{_table(results)}'
    return page("Evaluation", body)


def _name(result: Result) -> str:
    return f"{result.label}, {result.made[:16].replace('T', ' ')}"


def _table(results: Sequence[Result]) -> str:
    columns = list(dict.fromkeys(name for result in results for name in result.summary()))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", "questions", *columns))
    rows = []
    for result in results:
        found = result.summary()
        cells = [_name(result), str(len(result.outcomes)), *(_number(found.get(name)) for name in columns)]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
