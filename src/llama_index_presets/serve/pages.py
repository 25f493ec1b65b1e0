"""Pages of documents as pictures, for whoever sees a passage on them, with the places of quotes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode, MetadataMode

from llama_index_presets.errors import IngestError
from llama_index_presets.line_boxes import PageBox, boxes_within
from llama_index_presets.serve.problems import Problem

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["drawn_page", "quoted_boxes"]


def drawn_page(view: PresetEngine, document: str, page: str, quotes: Sequence[str]) -> dict[str, Any]:
    """Picture of a page, its size, and the rectangles of quotes on it, as JSON values.

    The index is asked first: a name that is no document there, or a page on which the caller sees no passage, is never
    looked for on the disk.

    Args:
        view: The engine as the caller sees it.
        document: Id of the document in the index.
        page: Label of the page.
        quotes: Words of its passages.

    Returns:
        ``png`` (base64), ``width`` and ``height`` in points, ``boxes`` as x0, y0, x1, y1 in points from the upper left.

    Raises:
        Problem: 404, the caller sees no passage on such a page, or the file is no longer there or cannot be drawn.
    """
    from llama_index_presets.ingest.readers.pdf.picture import page_picture

    file = Path(document)
    nodes = view.document_nodes(document) if file.suffix.lower() == ".pdf" else []
    if page not in {label for node in nodes for label in _pages(node)}:
        raise Problem(404, "There is no such page, or it is not yours.", code="page_not_found")
    if not file.is_file():
        raise Problem(404, "The file is no longer where it was ingested from.", code="file_gone")
    try:
        picture = page_picture(file, page)
    except IngestError as error:
        raise Problem(404, f"The page cannot be drawn. {error}", code="page_not_drawn") from None
    boxes = dict.fromkeys(one.box for one in quoted_boxes(nodes, quotes) if one.page == page)
    return {
        "page": page,
        "width": picture.width,
        "height": picture.height,
        "boxes": [list(box) for box in boxes],
        "png": base64.b64encode(picture.png).decode("ascii"),
    }


def quoted_boxes(nodes: Sequence[BaseNode], quotes: Sequence[str]) -> Iterator[PageBox]:
    """Rectangles of quotes in passages, whatever the blanks between their words.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> node = TextNode(text="Cats\\npurr.", metadata={"boxes": '[[0,10,"1",0,0,100,9]]'})
        >>> next(quoted_boxes([node], ["cats purr", "Cats purr."])).box
        (0.0, 0, 100.0, 9)
    """
    for node in nodes:
        text = node.get_content(MetadataMode.NONE)
        for quote in filter(str.strip, quotes):
            words = r"\s+".join(map(re.escape, quote.split()))
            for match in re.finditer(words, text):
                yield from boxes_within(node.metadata, match.start(), match.end())


def _pages(node: BaseNode) -> set[str]:
    """Labels of the pages on which a passage stands."""
    own = node.metadata.get("page")
    boxes = boxes_within(node.metadata, 0, len(node.get_content(MetadataMode.NONE)))
    return {box.page for box in boxes} | ({str(own)} if own else set())
