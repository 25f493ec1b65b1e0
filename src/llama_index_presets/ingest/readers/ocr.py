"""Pictures of text, read by an installed tesseract where the setting ``ocr`` names its languages; off by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.images import MAX_PIXELS, open_image
from llama_index_presets.ingest.clean import plain_from_pages
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.packages.extras import require

__all__ = ["HOW_TO_READ", "read_scan", "recognized"]

HOW_TO_READ: Final = (
    'Set ocr to the languages of its text, such as "eng", run pip install "llama-index-presets[ocr]", and install '
    "tesseract (apt install tesseract-ocr, brew install tesseract)."
)
"""What turns a scan into text."""

_LONGEST_S: Final = 120  # seconds that tesseract may take for a page


def read_scan(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a picture; each frame of a TIFF is a page.

    Raises:
        IngestError: The setting ``ocr`` is empty, the picture is damaged or too large, or tesseract finds no text.
        MissingExtraError: pytesseract or Pillow is not installed.
    """
    if not limit.ocr:
        raise IngestError(f"It is a picture: a binary file without text. {HOW_TO_READ}")
    sequence = require("PIL.ImageSequence", extra="ocr")
    # refuses what is too large before it is decoded
    open_image(path, max_pixels=min(limit.units, MAX_PIXELS))
    with require("PIL.Image", extra="ocr").open(path) as image:
        pages = [
            (str(number), recognized(frame.convert("RGB"), limit.ocr))
            for number, frame in enumerate(sequence.Iterator(image), start=1)
        ]
    if not any(text.strip() for _, text in pages):
        raise IngestError(f"tesseract found no text in the picture (languages: {limit.ocr}).")
    plain = plain_from_pages(pages, limit)
    warning = f"Its text is recognized from a picture ({limit.ocr})."
    return PlainText(plain.text, pages=plain.pages, warnings=(warning,)), {}


def recognized(image: Any, languages: str) -> str:
    """Text of one image.

    Args:
        image: Of Pillow.
        languages: As tesseract names them, such as ``"eng+deu"``.

    Raises:
        IngestError: tesseract is not installed, lacks a language, or takes longer than two minutes.
        MissingExtraError: pytesseract is not installed.
    """
    pytesseract = require("pytesseract", extra="ocr")
    try:
        return str(pytesseract.image_to_string(image, lang=languages, timeout=_LONGEST_S))
    except pytesseract.TesseractNotFoundError as error:
        raise IngestError(
            "The setting ocr is on, and tesseract is not installed. Install it (apt install tesseract-ocr, "
            "brew install tesseract), or set ocr to nothing."
        ) from error
    except pytesseract.TesseractError as error:
        reason = " ".join(str(error.message).split())[:200]
        raise IngestError(
            f"tesseract cannot read the picture ({reason}). Install its language data (apt install tesseract-ocr-deu), "
            f"or correct ocr ({languages})."
        ) from error
    except RuntimeError as error:  # pytesseract's timeout
        raise IngestError(
            f"tesseract took longer than {_LONGEST_S} s for a page. Make the picture smaller."
        ) from error
