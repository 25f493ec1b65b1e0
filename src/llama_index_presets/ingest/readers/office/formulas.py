"""Formulas of MathML in one line: a fraction is ``(a + b)/c``, a power ``x^2``, a root ``√(x)``."""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.readers.office.packages import parse_xml

__all__ = ["formula_of_page", "formula_text"]

_TOKENS: Final = frozenset({"mi", "mn", "mo", "mtext", "ms"})
_SPACED: Final = frozenset("=+−-±×·÷<>≤≥≈≠∈→⇒≡∝∼")
_SKIPPED: Final = frozenset({"annotation", "annotation-xml", "mphantom"})
_SCRIPTS: Final = {"msup": "^", "mover": "^", "msub": "_", "munder": "_"}
_BOTH: Final = frozenset({"msubsup", "munderover"})


def formula_text(element: Any) -> str:
    """A formula, of an element of lxml.

    Example:
        >>> from lxml import etree
        >>> formula_text(etree.fromstring("<math><msup><mi>x</mi><mn>2</mn></msup><mo>=</mo><mn>4</mn></math>"))
        'x^2 = 4'
    """
    return " ".join(_text(element).split())


def formula_of_page(node: Any, hidden: Set[int]) -> str:
    """A formula of an HTML page; empty where styles may hide parts of it, or it is no XML."""
    if any(
        "style" in part.attributes or "hidden" in part.attributes or part.mem_id in hidden
        for part in node.css("[style], [hidden], [class], [id]")
    ):
        return ""
    try:
        return formula_text(parse_xml(node.html.replace("&nbsp;", " ").encode()))
    except IngestError:
        return ""


def _text(element: Any) -> str:
    name = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else "annotation"
    if name in _SKIPPED:
        return ""
    if name in _TOKENS:
        words = " ".join("".join(element.itertext()).split())
        return f" {words} " if words in _SPACED and name == "mo" else words.strip("\u2061\u2062\u2063\u2064")
    parts = [_text(part) for part in element]
    if name == "mfrac" and len(parts) == 2:
        return f"{_group(parts[0])}/{_group(parts[1])}"
    if name == "msqrt":
        return f"√({''.join(parts).strip()})"
    if name == "mroot" and len(parts) == 2:
        return f"{parts[1].strip()}√({parts[0].strip()})"
    if name in _SCRIPTS and len(parts) == 2:
        return f"{_group(parts[0])}{_SCRIPTS[name]}{_group(parts[1])}"
    if name in _BOTH and len(parts) == 3:
        return f"{_group(parts[0])}_{_group(parts[1])}^{_group(parts[2])}"
    if name == "mfenced":
        return f"({', '.join(part.strip() for part in parts)})"
    return "".join(parts) + (" " if name in ("mtd", "mtr", "mspace") else "")


def _group(text: str) -> str:
    text = text.strip()
    return text if len(text) < 2 or text.isalnum() or (text[0] == "(" and text[-1] == ")") else f"({text})"
