"""Small charts as inline SVG text: stacked bars and lines over days. Pure; no library, no script, no font."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

__all__ = ["bars", "lines"]

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34
_COLOURS: Final = ("#3b6fb6", "#d98032", "#4f9d69", "#b6504f", "#7b62a8", "#8c6d56", "#c26fa5", "#7f7f7f")
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
