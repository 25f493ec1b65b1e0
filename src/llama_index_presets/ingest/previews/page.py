"""Preview as a page: the source of each document beside what was read of it. Everything in it is escaped.

Documents are hostile: the page has no script, asks for nothing, and its policy would not let it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.ingest.previews.preview import ChunkPreview, FilePreview
from llama_index_presets.packages.extras import require

__all__ = ["preview_page"]

_MOST_PAGES: Final = 30  # of a PDF that are drawn
_LONGEST_SIDE: Final = 1000  # pixels
_MOST_CHARACTERS: Final = 60_000  # of a source that is shown as text
_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preview of an ingest</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; overflow-wrap: anywhere; }
table.facts td { padding: 0 .8rem .1rem 0; vertical-align: top; overflow-wrap: anywhere; }
table.facts td:first-child { color: #666; white-space: nowrap; }
.beside { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; align-items: start; }
.beside > div { max-height: 85vh; overflow: auto; border: 1px solid #ddd; padding: .6rem; }
.beside img { max-width: 100%; display: block; margin-bottom: .6rem; border: 1px solid #eee; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13px/1.4 ui-monospace, monospace; }
.chunk { border-left: 3px solid #8ab; padding-left: .6rem; margin-bottom: .8rem; }
.chunk p { margin: 0 0 .2rem; color: #567; font-size: .85rem; }
.error { color: #a00; } .warning { color: #850; } section { margin-bottom: 2.5rem; }
@media (max-width: 800px) { .beside { grid-template-columns: 1fr; } }
</style>
</head>
<body>
"""


def preview_page(found: Sequence[FilePreview]) -> str:
    """HTML of a preview, complete in one file.

    Example:
        >>> page = preview_page([FilePreview(source="<b>.txt", error="It is <empty>.")])
        >>> "&lt;b&gt;.txt" in page, "<empty>" in page
        (True, False)
    """
    chunks = sum(len(one.chunks) for one in found)
    failed = sum(one.error is not None for one in found)
    summary = f"{counted(len(found), 'document')}, {counted(chunks, 'chunk')}, {failed:,} left out"
    return "".join((_HEAD, f"<h1>{summary}</h1>\n", *map(_section, found), "</body>\n</html>\n"))


def _section(one: FilePreview) -> str:
    head = f"<section>\n<h2>{escape(one.source)}</h2>\n"
    if one.error is not None:
        return f'{head}<p class="error">{escape(one.error)}</p>\n</section>\n'
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>\n' for warning in one.warnings)
    right = "".join(map(_chunk, one.chunks))
    return (
        f"{head}{_facts(one)}{warnings}"
        f'<div class="beside">\n<div>{_left(one)}</div>\n<div>{right}</div>\n</div>\n</section>\n'
    )


def _facts(one: FilePreview) -> str:
    tables = (table.name or table.columns or "without a name" for table in one.tables)
    rows = [
        ("Language", one.language or "not told by the text"),
        ("Encoding", one.encoding or "that of its format"),
        ("Pages", str(len(one.pages)) if one.pages else "none"),
        ("Headings", _listed(one.headings)),
        ("Tables", _listed(list(tables))),
        ("Chunks", f"{len(one.chunks):,}, {counted(one.characters, 'character')}"),
        *((str(key), str(value)) for key, value in one.metadata.items()),
    ]
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in rows)
    return f'<table class="facts">\n{cells}</table>\n'


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{len(names):,}: {'; '.join(names[:most])}{more}" if names else "none"


def _chunk(chunk: ChunkPreview) -> str:
    place = [f"{counted(chunk.tokens, 'token')}"]
    place += [f"page {chunk.page}"] if chunk.page else []
    place += [chunk.heading] if chunk.heading else []
    return f'<div class="chunk"><p>{escape(" · ".join(place))}</p><pre>{escape(chunk.text)}</pre></div>\n'


def _left(one: FilePreview) -> str:
    """The source as it looks: pages of a PDF, characters of a text; else the text in one piece."""
    path = Path(one.source)
    if path.suffix.lower() == ".pdf" and path.is_file():
        try:
            return "".join(_drawn(path))
        except Exception as error:  # a damaged page; the text was read
            return f'<p class="warning">Its pages cannot be drawn ({escape(type(error).__name__)}).</p>'
    raw, note = one.text, "The text as it was read; this format is not drawn."
    if one.encoding and path.is_file():
        with path.open("rb") as file:
            raw = file.read(4 * _MOST_CHARACTERS).decode(one.encoding, "replace")
        note = "The file."
    cut = " Only its beginning is shown." if len(raw) > _MOST_CHARACTERS else ""
    return f"<p>{note}{cut}</p><pre>{escape(raw[:_MOST_CHARACTERS])}</pre>"


def _drawn(path: Path) -> Iterator[str]:
    from llama_index_presets.ingest.readers.pdf.reader import PDFIUM_LOCK, open_pdf

    pdfium = require("pypdfium2", extra="readers")
    with PDFIUM_LOCK:
        document = open_pdf(pdfium, path)
        try:
            for number in range(min(len(document), _MOST_PAGES)):
                image = base64.b64encode(_png(document[number])).decode()
                yield f'<img alt="page {number + 1}" src="data:image/png;base64,{image}">'
            if len(document) > _MOST_PAGES:
                yield f"<p>{counted(len(document) - _MOST_PAGES, 'more page', 'are')} not drawn.</p>"
        finally:
            document.close()


def _png(page: Any) -> bytes:
    """A page as PNG in grey, written here: Pillow is no part of the extra that reads PDFs."""
    width, height = page.get_size()
    scale = min(_LONGEST_SIDE / max(width, height, 1), 2.0)
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        pixels = bitmap.to_numpy()
        rows = pixels.reshape(pixels.shape[0], -1)[:, : pixels.shape[1]]
        raw = b"".join(b"\0" + row.tobytes() for row in rows)
        return _png_file(rows.shape[1], rows.shape[0], raw)
    finally:
        bitmap.close()


def _png_file(width: int, height: int, raw: bytes) -> bytes:
    """PNG of 8-bit grey rows, each behind the number of its filter."""
    parts: Iterable[tuple[bytes, bytes]] = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw, 6)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
