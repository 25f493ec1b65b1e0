"""Charts of the report pages: SVG by matplotlib, made fit for HTML, and jinja2 templates (extra ``report``)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree  # nosec B405

from llama_index_presets.errors import StoreWriteError
from llama_index_presets.packages.extras import require

__all__ = ["Chart", "bars", "intervals", "lines", "render", "scatter", "standalone", "write_page"]

_WIDTH, _HEIGHT = 520, 220
_COLOURS: Final = ("#3b6fb6", "#d98032", "#4f9d69", "#b6504f", "#7b62a8", "#8c6d56", "#c26fa5", "#7f7f7f")
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE: Final = (
    "text{fill:#57606a!important;font-family:system-ui,sans-serif!important}.grid path{stroke:#d5dae0!important}"
    "@media(prefers-color-scheme:dark){text{fill:#a9b3c0!important}.grid path{stroke:#3a424d!important}}"
)
Series = Mapping[str, Sequence[float]]
_GAP, _ZERO = "#7f7f7f22", "#7f7f7f"
_NOTHING: Final = "nothing recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart for a template.

    Attributes:
        title: Caption, and alternative text for screen readers.
        svg: Inline SVG, escaped; each mark has its value as a tooltip.
        legend: Colour and name of each series, and of shaded days where there are some.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...]


def bars(title: str, days: Sequence[str], series: Series, unit: str, *, empty: Sequence[int] = ()) -> Chart:
    """Draw stacked bars, one a day; a day whose values are all 0 is a line at 0.

    Args:
        title: Caption of the chart.
        days: Labels of the x axis, `n` of them.
        series: Name -> `n` values >= 0.
        unit: Label of the y axis.
        empty: Places of the days of which nothing is known: they are shaded, and not drawn as 0.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.

    Example:
        >>> bars("Cost", ["Mon"], {"m": [2.0]}, "USD").svg.count("Mon m: 2 USD")
        1
    """
    drawing = _Drawing(y_label=unit)
    drawing.label_days(days)
    base = [0.0] * len(days)
    for number, (name, values) in enumerate(series.items()):
        for day, value in enumerate(values):
            if value:
                hint = drawing.hint(f"{days[day]} {name}: {value:.6g} {unit}")
                drawing.axes.bar(day, value, bottom=base[day], color=_colour(number), clip_on=False, gid=hint)
                base[day] += value
    drawing.shade(days, empty)
    for day in set(range(len(days))) - set(empty):
        if not base[day]:
            zero = drawing.hint(f"{days[day]}: 0 {unit}")
            drawing.axes.plot(
                [day - 0.35, day + 0.35], [0, 0], color=_ZERO, linewidth=1.5, clip_on=False, gid=zero
            )
    return drawing.chart(title, list(series))


def lines(title: str, days: Sequence[str], series: Series, unit: str, *, empty: Sequence[int] = ()) -> Chart:
    """Draw one line a series, interrupted on the days of `empty`; arguments as for `bars`.

    Example:
        >>> lines("Latency", ["Mon", "Tue"], {"p50": [1.0, 2.0]}, "ms").svg.count(" p50: ")
        2
    """
    drawing = _Drawing(y_label=unit)
    drawing.label_days(days)
    for number, (name, values) in enumerate(series.items()):
        known = [math.nan if day in empty else value for day, value in enumerate(values)]
        drawing.axes.plot(range(len(known)), known, color=_colour(number), linewidth=2, clip_on=False)
        for day, value in enumerate(known):
            if not math.isnan(value):
                drawing.dot(day, value, number, f"{days[day]} {name}: {value:.6g} {unit}", size=5)
    drawing.shade(days, empty)
    return drawing.chart(title, list(series))


def scatter(title: str, points: Sequence[tuple[str, float, float]], *, x_unit: str, y_unit: str) -> Chart:
    """Draw one dot a point, each in its own colour.

    Args:
        title: Caption of the chart.
        points: Name, x and y, both >= 0.
        x_unit: Label of the x axis.
        y_unit: Label of the y axis.

    Example:
        >>> scatter("Quality", [("a", 20.0, 0.5)], x_unit="ms", y_unit="nDCG").legend
        (('#3b6fb6', 'a'),)
    """
    drawing = _Drawing(x_label=x_unit, y_label=y_unit)
    for number, (name, x, y) in enumerate(points):
        drawing.dot(x, y, number, f"{name}: {x:.4g} {x_unit}, {y:.4g} {y_unit}", size=11)
    drawing.axes.set_xlim(0, max((x for _, x, _ in points), default=0.0) * 1.1 or 1.0)
    return drawing.chart(title, [name for name, _, _ in points])


def intervals(
    title: str, points: Sequence[tuple[str, float, float, float, float]], *, x_unit: str, y_unit: str
) -> Chart:
    """Draw one dot a point with the interval of its y, each numbered from 1 and in its own colour.

    Args:
        title: Caption of the chart.
        points: Name, x, y, and the ends of the interval of y; all >= 0.
        x_unit: Label of the x axis.
        y_unit: Label of the y axis.

    Example:
        >>> intervals("Front", [("a", 20.0, 0.5, 0.4, 0.6)], x_unit="ms", y_unit="nDCG").svg.count("0.4 to 0.6")
        1
    """
    drawing = _Drawing(x_label=x_unit, y_label=y_unit)
    for number, (name, x, y, low, high) in enumerate(points):
        text = f"{name}: {x:.4g} {x_unit}, {y:.3g} {y_unit}, 95 % {low:.3g} to {high:.3g}"
        drawing.axes.plot([x, x], [low, high], color=_colour(number), linewidth=2, alpha=0.5)
        drawing.dot(x, y, number, text, size=9)
        drawing.axes.annotate(
            str(number + 1), (x, y), xytext=(8, -4), textcoords="offset points", fontsize=11
        )
    drawing.axes.set_xlim(0, max((point[1] for point in points), default=0.0) * 1.1 or 1.0)
    drawing.bottom = max(0.0, min((point[3] for point in points), default=0.0) - 0.05)
    return drawing.chart(title, [f"{number} {point[0]}" for number, point in enumerate(points, start=1)])


def standalone(chart: Chart) -> str:
    """A chart as a file of its own: its colours follow dark or light, its title is there for screen readers."""
    title = ElementTree.Element("title")
    title.text = chart.title
    head = f"{ElementTree.tostring(title, encoding='unicode')}<style>{_STYLE}</style>"
    opening, _, rest = chart.svg.partition(">")
    size = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
    return f"{opening.replace('<svg', f'<svg {size}', 1)}>{head}{rest}\n"


def render(template: str, **values: Any) -> str:
    """Fill a page of ``templates/``: self-contained, no script, nothing fetched; values are escaped.

    Args:
        template: File name.
        **values: Names of the template.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llama_index_presets.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page: str = environment.get_template(template).render(**values)
    return page


def write_page(page: str, path: str | Path) -> Path:
    """Write a page to a file; one that is there is replaced.

    Raises:
        StoreWriteError: It cannot be written.
    """
    target = Path(path)
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreWriteError(f"'{target}' cannot be written ({error.strerror}).") from error
    return target


class _Drawing:
    """One figure with y from `bottom`, 0 where nothing else is said, and a tooltip for each mark."""

    def __init__(self, *, x_label: str = "", y_label: str = "") -> None:
        figure = require("matplotlib.figure", extra="report").Figure
        self._figure = figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72, layout="constrained")
        # Browsers draw the page's font wider and higher than matplotlib measures its own.
        self._figure.get_layout_engine().set(w_pad=0.11, h_pad=0.11)
        self._hints: dict[str, str] = {}
        self._further_keys: tuple[tuple[str, str], ...] = ()
        self.bottom = 0.0
        self.axes = self._figure.add_subplot()
        self.axes.set_xlabel(x_label, fontsize=11, labelpad=14)
        self.axes.set_ylabel(y_label, fontsize=11, labelpad=16)
        self.axes.tick_params(labelsize=11, length=0, pad=8)
        self.axes.tick_params(axis="x", pad=15)
        self.axes.spines[:].set_visible(False)
        self.axes.grid(axis="y", clip_on=False, gid="grid")
        self.axes.set_axisbelow(True)

    def label_days(self, days: Sequence[str]) -> None:
        """Label every `k`-th day, so that at most 8 labels stand side by side."""
        places = range(0, len(days), -(-len(days) // 8) or 1)
        self.axes.set_xticks(places, [days[place] for place in places])
        self.axes.set_xlim(-0.6, max(len(days), 1) - 0.4)

    def shade(self, days: Sequence[str], empty: Sequence[int]) -> None:
        """Shade days of which nothing is known over the whole height."""
        if empty:
            self._further_keys = ((_GAP, _NOTHING),)
        for day in empty:
            shade = self.hint(f"{days[day]}: {_NOTHING}")
            self.axes.axvspan(
                day - 0.45, day + 0.45, facecolor=_GAP, linewidth=0, zorder=0, clip_on=False, gid=shade
            )

    def hint(self, text: str) -> str:
        """Register a tooltip; its name goes to the mark as ``gid``."""
        name = f"hint-{len(self._hints)}"
        self._hints[name] = text
        return name

    def dot(self, x: float, y: float, number: int, text: str, *, size: float) -> None:
        """Draw a dot in the colour of a series."""
        marks = {"marker": "o", "markersize": size, "color": _colour(number), "markeredgewidth": 0}
        self.axes.plot([x], [y], clip_on=False, gid=self.hint(text), **marks)

    def chart(self, title: str, names: Sequence[str]) -> Chart:
        """Finish the figure."""
        legend = tuple((_colour(number), name) for number, name in enumerate(names))
        self.axes.set_ylim(bottom=self.bottom, top=None if self._has_height() else 1)
        return Chart(title=title, svg=self._svg(title), legend=legend + self._further_keys)

    def _has_height(self) -> bool:
        return bool(self.axes.dataLim.y1 > 0)

    def _svg(self, title: str) -> str:
        buffer = io.StringIO()
        # Text stays text, in the page's font; ids do not change from run to run.
        options = {"svg.fonttype": "none", "svg.hashsalt": "llama-index-presets"}
        with require("matplotlib", extra="report").rc_context(options):
            self._figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
        return _inlined(buffer.getvalue(), title, self._hints)


def _inlined(text: str, title: str, hints: Mapping[str, str]) -> str:
    """SVG for inside HTML: no namespaces, no fixed size, ids only where one is referred to."""
    # Written by matplotlib a moment ago: nothing from outside.
    root = ElementTree.fromstring(text)  # nosec B314
    size = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": size, "role": "img", "aria-label": title})
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
    used = {element.get("href", "")[1:] for element in root.iter()}
    for element in list(root.iter()):
        name = element.get("id", "")
        if name and name not in used:
            del element.attrib["id"]
        if name == "grid":
            element.set("class", name)
        if name in hints:
            hint = ElementTree.Element("title")
            hint.text = hints[name]
            element.insert(0, hint)
    return ElementTree.tostring(root, encoding="unicode")


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
