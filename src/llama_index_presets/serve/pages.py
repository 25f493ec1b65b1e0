"""Pages of documents as pictures, for callers who may see a passage on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_index.core.schema import BaseNode, MetadataMode

from llama_index_presets.errors import IngestError
from llama_index_presets.line_boxes import boxes_within
from llama_index_presets.serve.protocols.problems import Problem

if TYPE_CHECKING:
    from llama_index_presets.ingest.readers.pdf.picture import PagePicture
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["picture_of"]


def picture_of(view: PresetEngine, document: str, page: str) -> PagePicture:
    """Picture of a page.

    The index is asked first: a name that is no document there, or a page on which the caller sees no passage, is never
    looked for on the disk.

    Args:
        view: The engine as the caller sees it.
        document: Id of the document in the index.
        page: Label of the page.

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
        return page_picture(file, page)
    except IngestError as error:
        raise Problem(404, f"The page cannot be drawn. {error}", code="page_not_drawn") from None


def _pages(node: BaseNode) -> set[str]:
    """Labels of the pages on which a passage stands."""
    own = node.metadata.get("page")
    boxes = boxes_within(node.metadata, 0, len(node.get_content(MetadataMode.NONE)))
    return {box.page for box in boxes} | ({str(own)} if own else set())
