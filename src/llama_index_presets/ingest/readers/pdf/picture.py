"""Picture of one page of a PDF, beside which a citation's rectangles can be drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.readers.pdf.reader import PDFIUM_LOCK, open_pdf
from llama_index_presets.packages.extras import require

__all__ = ["PagePicture", "page_picture"]

_WIDTH: Final = 1_240  # pixels: A4 at 150 dots an inch
_MOST_PIXELS: Final = 6_000_000


@dataclass(frozen=True, slots=True)
class PagePicture:
    """A page as it is shown.

    Attributes:
        png: The picture.
        width: Of the page, in points; the unit of `PageBox`.
        height: Likewise.
    """

    png: bytes
    width: float
    height: float


def page_picture(path: Path, label: str) -> PagePicture:
    """Draw the page of a label.

    Args:
        path: The PDF.
        label: As the metadata ``page`` of a chunk has it: the page's own label, or its number from 1.

    Raises:
        IngestError: The file is damaged or locked by a password, or has no such page.
        MissingExtraError: The extra ``readers`` is not installed.
    """
    pdfium = require("pypdfium2", extra="readers")
    with PDFIUM_LOCK:
        document = open_pdf(pdfium, path)
        try:
            return _drawn(document[_place(document, label)])
        except pdfium.PdfiumError as error:
            raise IngestError(f"Page {label} cannot be drawn ({error}).") from error
        finally:
            document.close()


def _place(document: Any, label: str) -> int:
    for place in range(len(document)):
        if (document.get_page_label(place) or str(place + 1)) == label:
            return place
    raise IngestError(f"The PDF has no page '{label[:40]}'. It has {counted(len(document), 'page')}.")


def _drawn(page: Any) -> PagePicture:
    width, height = page.get_size()
    scale = min(_WIDTH / max(width, 1), (_MOST_PIXELS / max(width * height, 1)) ** 0.5)
    file = io.BytesIO()
    page.render(scale=scale).to_pil().save(file, "PNG")
    return PagePicture(file.getvalue(), width, height)
