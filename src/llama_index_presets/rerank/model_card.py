"""Write what a training measured into the model's card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_measurements"]

_HEADING = "## Measured by llama-index-presets"


def write_measurements(
    folder: Path,
    base_model: str,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    held_out: int,
) -> None:
    """Append training facts and the before/after table to ``README.md`` of a saved model.

    Args:
        folder: The saved model.
        base_model: What training began with.
        settings: The training's settings.
        report: The training's report.
        held_out: Queries behind the table.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "# Reranker\n"
    body = text.split(_HEADING)[0].rstrip()
    facts = [
        f"- trained from `{Path(base_model).name}` on {report['lists']} lists, {report['pairs']} pairs, "
        f"{report['steps']} steps, {report['seconds']:.0f} s",
        f"- settings: {', '.join(f'{name}={value}' for name, value in settings.items())}",
    ]
    lines = [body, "", _HEADING, "", *facts, "", *_table(report["ndcg_by_blend"], held_out)]
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(measured: Mapping[float, float], held_out: int) -> list[str]:
    if not measured:
        return ["Not measured: no held-out queries were given. Do not trust it before it is."]
    before = measured.get(1.0)
    rows = [
        f"| {blend:g} | {value:.4f} | {value - (before or 0):+.4f} |" for blend, value in measured.items()
    ]
    return [
        f"Mean nDCG@10 over {held_out} held-out queries, by `blend` (1 is the retriever's order, before):",
        "",
        "| blend | nDCG@10 | change |",
        "|---|---|---|",
        *rows,
    ]
