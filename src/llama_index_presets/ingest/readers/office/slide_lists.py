"""Bullets and numbers of paragraphs on slides, which a paragraph has of its own, of its box, or of the layout below."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llama_index_presets.ingest.readers.html.list_markers import counter
from llama_index_presets.ingest.readers.office.packages import attribute, local_name

__all__ = ["paragraph_markers"]

_BULLET: Final = "-"
_MARKS: Final = frozenset(("buNone", "buChar", "buAutoNum", "buBlip"))
_KINDS: Final = {
    "alphaLc": "lower-alpha", "alphaUc": "upper-alpha", "romanLc": "lower-roman", "romanUc": "upper-roman",
}  # fmt: skip
_FORMS: Final = {"ParenBoth": "({})", "ParenR": "{})", "Period": "{}.", "Plain": "{}"}
_TITLES: Final = (1, 3)  # types of placeholders: a title, and one in the middle
_SMALL: Final = (13, 15, 16)  # number of the slide, footer, date
_DEEPEST: Final = 8


def paragraph_markers(shape: Any) -> list[str]:
    """What stands before each paragraph of a shape: a dash, a number as the slide shows it, or nothing.

    Numbers go on over deeper levels, and begin anew after a paragraph without one.
    """
    above = _marks_of(_list_styles(shape))
    counts: dict[int, tuple[tuple[str, int], int]] = {}
    markers: list[str] = []
    for paragraph in shape.text_frame.paragraphs:
        if not any((one.text or "").strip() for one in paragraph._p.iter() if local_name(one.tag) == "t"):
            markers.append("")  # nothing is shown before an empty one
            continue
        own = next((one for one in paragraph._p if local_name(one.tag) == "pPr"), None)
        depth = _number("" if own is None else attribute(own, "lvl"), 0, _DEEPEST)
        mark = _mark(own, depth, above)
        name = "" if mark is None else local_name(mark.tag)
        for below in [one for one in counts if one > depth or (one == depth and name != "buAutoNum")]:
            del counts[below]
        if name == "buAutoNum":
            kind = attribute(mark, "type"), _number(attribute(mark, "startAt"), 1, 32_767)
            before, last = counts.get(depth, (kind, kind[1] - 1))
            counts[depth] = kind, last + 1 if before == kind else kind[1]
            markers.append(_shown(kind[0], counts[depth][1]))
        else:
            seen = name == "buBlip" or (name == "buChar" and attribute(mark, "char").strip())
            markers.append(_BULLET if seen else "")
    return markers


def _shown(kind: str, value: int) -> str:
    """A number in one of PowerPoint's forms; in digits with a full stop where it is in another script."""
    form = next((form for end, form in _FORMS.items() if kind.endswith(end)), "{}.")
    name = next((name for begin, name in _KINDS.items() if kind.startswith(begin)), "decimal")
    return form.format(counter(value, name, doubled=True))


def _mark(own: Any, depth: int, above: Mapping[str, Any]) -> Any:
    """The nearest element that says what stands before a paragraph of a depth; None where none does."""
    for one in own if own is not None else ():
        if local_name(one.tag) in _MARKS:
            return one
    return above.get(f"lvl{depth + 1}pPr")


def _marks_of(styles: Iterable[Any]) -> dict[str, Any]:
    """What styles of lists say of their levels; the first one counts."""
    found: dict[str, Any] = {}
    for level in (level for style in styles for level in style):
        for one in level if local_name(level.tag) not in found else ():
            if local_name(one.tag) in _MARKS:
                found[local_name(level.tag)] = one
                break
    return found


def _list_styles(shape: Any) -> Iterator[Any]:
    """Styles of lists that hold for a shape, the nearest first."""
    yield from _own_styles(shape)
    if not shape.is_placeholder:
        return
    below = shape
    while (below := getattr(below, "_base_placeholder", None)) is not None:
        yield from _own_styles(below)
    kind = shape.placeholder_format.type
    wanted = "titleStyle" if kind in _TITLES else "otherStyle" if kind in _SMALL else "bodyStyle"
    for styles in shape.part.slide.slide_layout.slide_master._element:
        if local_name(styles.tag) == "txStyles":
            yield from (one for one in styles if local_name(one.tag) == wanted)


def _own_styles(shape: Any) -> Iterator[Any]:
    for body in shape._element:
        if local_name(body.tag) == "txBody":
            yield from (one for one in body if local_name(one.tag) == "lstStyle")


def _number(text: str, default: int, most: int) -> int:
    return min(int(text), most) if text.isdecimal() and len(text) < 9 else default
