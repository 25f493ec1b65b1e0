"""Pages, slides, sheets and chapters that were read apart, as one plain text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText, TableSpan

__all__ = ["joined_parts"]


def joined_parts(parts: Iterable[tuple[str, PlainText]], limit: SizeLimit) -> PlainText:
    """One text of parts, each a page where it has a label.

    Args:
        parts: Label and text; an empty label makes no page.
        limit: What they may come to together.

    Raises:
        IngestError: They are longer.

    Example:
        >>> joined_parts([("1", PlainText("a")), ("2", PlainText("b"))], SizeLimit()).page(3)
        '2'
    """
    texts, length = list[str](), 0
    headings, pages, tables, warnings = list[Mark](), list[Mark](), list[TableSpan](), list[str]()
    for label, plain in parts:
        text = plain.text.strip("\n")
        cut = len(plain.text) - len(plain.text.lstrip("\n"))
        if label:
            pages.append((length, label))
        starts = [(max(0, at - cut), name) for at, name in plain.headings]
        if headings and (not starts or starts[0][0] > 0):
            starts.insert(0, (0, ""))
        headings += [(length + min(at, len(text)), name) for at, name in starts]
        for table in plain.tables:
            name = f"Table {len(tables) + 1}" if table.name.startswith("Table ") else table.name
            start, end = (length + min(max(0, at - cut), len(text)) for at in (table.start, table.end))
            tables.append(replace(table, start=start, end=end, name=name))
        warnings += plain.warnings
        texts.append(text + "\n\n")
        length += len(text) + 2
        limit.check_text(length)
    return PlainText("".join(texts), headings, pages, tables, warnings=tuple(dict.fromkeys(warnings)))
