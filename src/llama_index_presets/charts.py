"""Small charts as inline SVG and the HTML page around them. Pure; no library, no script, no font."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

__all__ = ["bars", "lines", "page", "scatter"]

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
_COLOURS: Final = ("#3b6fb6", "#d98032", "#4f9d69", "#b6504f", "#7b62a8", "#8c6d56", "#c26fa5", "#7f7f7f")
# Stands in the head of every page.
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2530; --quiet: #66707d; --line: #dfe3e8; --paper: #fff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --quiet: #98a2b0; --line: #343b45; --paper: #14181d; --card: #1d2229 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1360px; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem } p { color: var(--quiet) }
.cards, .charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)) }
.charts { grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)) }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem
1rem; margin: 0 } .card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums } .card
span, .legend { color: var(--quiet); font-size: .85rem } figcaption { font-weight: 600; margin-bottom: .4rem
} svg text { font-size: 11px; fill: var(--quiet) } .grid { stroke: var(--line) } .key { margin-right: 1rem;
white-space: nowrap } figure > svg { width: 100%; height: auto } table { border-collapse: collapse; width:
100%; font-variant-numeric: tabular-nums } th, td { text-align: right; padding: .3rem .6rem; border-bottom:
1px solid var(--line) } th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere } th {
color: var(--quiet); font-weight: 500 } .warn { border-left: 4px solid #d98032; padding-left: .8rem }
"""
Series = Mapping[str, Sequence[float]]


def bars(title: str, days: Sequence[str], series: Series, unit: str) -> str:
    """Draw stacked bars, one a day.

    Args:
        title: What the chart shows; read out by screen readers.
        days: Labels of the x axis, `n` of them.
        series: Name -> `n` values >= 0.
        unit: Written beside the y axis.

    Example:
        >>> bars("Cost", ["Mon"], {"m": [2.0]}, "USD").count("<rect")
        2
    """
    top = max((sum(values[day] for values in series.values()) for day in range(len(days))), default=0.0)
    scale, step = _Scale(top), (_WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    marks = []
    for day, label in enumerate(days):
        base = 0.0
        for number, (name, values) in enumerate(series.items()):
            if values[day]:
                y, height = scale.y(base + values[day]), scale.y(base) - scale.y(base + values[day])
                x = _LEFT + day * step + step * 0.1
                hint = f"{label} {name}: {values[day]:.6g} {unit}"
                marks.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}" '
                    f'fill="{_colour(number)}"><title>{escape(hint)}</title></rect>'
                )
                base += values[day]
    return _chart(title, days, list(series), unit, scale, marks)


def lines(title: str, days: Sequence[str], series: Series, unit: str) -> str:
    """Draw one line a series; arguments as for `bars`.

    Example:
        >>> lines("Latency", ["Mon", "Tue"], {"p50": [1.0, 2.0]}, "ms").count("<polyline")
        1
    """
    scale = _Scale(max((max(values, default=0.0) for values in series.values()), default=0.0))
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    marks = []
    for number, (name, values) in enumerate(series.items()):
        places = [(_LEFT + (day + 0.5) * step, scale.y(value)) for day, value in enumerate(values)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        marks.append(f'<polyline points="{points}" fill="none" stroke="{_colour(number)}" stroke-width="2"/>')
        for day, (x, y) in enumerate(places):
            hint = f"{days[day]} {name}: {values[day]:.6g} {unit}"
            marks.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_colour(number)}">'
                f"<title>{escape(hint)}</title></circle>"
            )
    return _chart(title, days, list(series), unit, scale, marks)


def scatter(title: str, points: Sequence[tuple[str, float, float]], *, x_unit: str, y_unit: str) -> str:
    """Draw one dot a thing, each in its own colour with its name in the legend.

    Args:
        title: What the chart shows; read out by screen readers.
        points: Name, x and y, both >= 0.
        x_unit: Written under the x axis.
        y_unit: Written beside the y axis.

    Example:
        >>> scatter("Quality", [("a", 20.0, 0.5)], x_unit="ms", y_unit="nDCG").count("<circle")
        1
    """
    scale = _Scale(max((y for _, _, y in points), default=0.0))
    right = _round_up(max((x for _, x, _ in points), default=0.0))
    ticks = [f"{right * (place + 0.5) / 5:.3g}" for place in range(5)]
    marks = []
    for number, (name, x, y) in enumerate(points):
        at = _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / right
        hint = f"{name}: {x:.4g} {x_unit}, {y:.4g} {y_unit}"
        marks.append(
            f'<circle cx="{at:.1f}" cy="{scale.y(y):.1f}" r="6" fill="{_colour(number)}">'
            f"<title>{escape(hint)}</title></circle>"
        )
    return _chart(title, ticks, [name for name, _, _ in points], x_unit, scale, marks)


def page(title: str, body: str) -> str:
    """Put HTML into a whole page that fetches nothing.

    Args:
        title: Of the window, as text.
        body: HTML.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    start = f'<!doctype html><html lang="en"><head><title>{escape(title)}</title>{head}</head>'
    return f"{start}<body>{body}</body></html>"


class _Scale:
    """The y axis: from 0 to a round number above the largest value."""

    def __init__(self, top: float) -> None:
        self.top = _round_up(top)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.top


def _round_up(value: float) -> float:
    """Give the next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(f"{value:.0f}") - 1) if value >= 1 else 1.0
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999)


def _chart(
    title: str, days: Sequence[str], names: Sequence[str], unit: str, scale: _Scale, marks: Sequence[str]
) -> str:
    legend = "".join(
        f'<span class="key"><svg width="10" height="10" aria-hidden="true">'
        f'<rect width="10" height="10" fill="{_colour(number)}"/></svg> {escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{_axes(days, unit, scale)}{"".join(marks)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def _axes(days: Sequence[str], unit: str, scale: _Scale) -> str:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = scale.top * share
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    step, every = (_WIDTH - _LEFT - _RIGHT) / max(len(days), 1), -(-len(days) // 8) or 1
    for day in range(0, len(days), every):
        x = _LEFT + (day + 0.5) * step
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(days[day])}</text>')
    parts.append(f'<text x="4" y="{_HEIGHT - 14}">{escape(unit)}</text>')
    return "".join(parts)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
