"""Read a file of any supported kind into plain text; whatever is wrong with it is one error."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.errors import IngestError, MissingExtraError
from llama_index_presets.ingest.about import (
    about_front_matter,
    about_head_lines,
    about_html,
    about_sidecar,
    sidecar_of,
)
from llama_index_presets.ingest.chunk import SourceText
from llama_index_presets.ingest.clean import (
    plain_from_html,
    plain_from_markdown,
    plain_from_pages,
    plain_from_rows,
    plain_from_text,
)
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.pdf import read_pdf
from llama_index_presets.ingest.plain import PlainText

__all__ = ["file_hash", "read_file"]

_PARSED_AS_TEXT: dict[str, Callable[[str, SizeLimit], PlainText]] = {
    ".md": plain_from_markdown,
    ".markdown": plain_from_markdown,
    ".html": plain_from_html,
    ".htm": plain_from_html,
    ".csv": plain_from_rows,
    ".tsv": lambda text, limit: plain_from_rows(text, limit, delimiter="\t"),
}
_ABOUT: dict[str, Callable[[str], dict[str, Any]]] = {
    ".md": about_front_matter,
    ".markdown": about_front_matter,
    ".html": about_html,
    ".htm": about_html,
    ".csv": lambda _: {},
    ".tsv": lambda _: {},
}
_READ_BY_LLAMA_INDEX = {".docx", ".pptx", ".epub", ".ipynb", ".rtf", ".xlsx", ".xls", ".mbox", ".hwp"}


def file_hash(path: Path) -> str:
    """Of the raw bytes, and its sidecar's: telling that nothing changed must not need reading it as a document."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    sidecar = sidecar_of(path)
    if sidecar is not None:
        digest.update(b"\0" + sidecar.read_bytes())
    return digest.hexdigest()


def read_file(path: Path, content_hash: str, limit: SizeLimit = DEFAULT_LIMIT) -> SourceText:
    """Read one file of any supported kind.

    Args:
        path: Absolute path; it becomes the document's id and its ``source``.
        content_hash: See `file_hash`.
        limit: What it may expand to.

    Raises:
        IngestError: It is empty, binary, damaged, or holds no text; it expands too far.
        MissingExtraError: The reader of this kind of file is not installed.
    """
    if path.stat().st_size == 0:
        raise IngestError("The file is empty (0 bytes).")
    try:
        plain, own = _read_plain(path, limit)
        about = {**own, **about_sidecar(path)}
    except (IngestError, MissingExtraError):
        raise
    except Exception as error:  # any reader may fail in any way on a damaged file
        cause = error.__cause__ or error
        raise IngestError(f"The file cannot be read ({type(cause).__name__}: {_one_line(cause)}).") from error
    limit.check_text(len(plain.text))
    if not plain.text.strip():
        raise IngestError("The file holds no text (a scan, or images only?).")
    return SourceText(
        doc_id=path.as_posix(),
        plain=plain,
        metadata={**about, "source": path.as_posix(), "file_name": path.name},
        hidden_from_embedding=("file_name", *about),
        content_hash=content_hash,
    )


def _read_plain(path: Path, limit: SizeLimit) -> tuple[PlainText, dict[str, Any]]:
    """Text of a file, and what it says of itself."""
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return read_pdf(path, limit)
    if suffix in _READ_BY_LLAMA_INDEX:
        limit.check_archive(path)
        return plain_from_pages(_pages(path), limit), {}
    limit.check_file(path)
    text = _decode(path.read_bytes())
    about = _ABOUT.get(suffix, about_head_lines)
    parse = _PARSED_AS_TEXT.get(suffix)
    return parse(text, limit) if parse else plain_from_text(text), about(text)


def _pages(path: Path) -> Iterator[tuple[str, str]]:
    _import_readers()
    from llama_index.core import SimpleDirectoryReader

    try:
        documents = SimpleDirectoryReader.load_file(path, lambda _: {}, {}, raise_on_error=True)
    except ImportError as error:
        raise MissingExtraError(
            f"The reader for {path.suffix} files ({_one_line(error)})", "readers"
        ) from error
    for number, document in enumerate(documents, start=1):
        yield str(document.metadata.get("page_label", number)), document.text


def _import_readers() -> None:
    """Import the readers; one of them configures logging when it is imported, which is the application's to do."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    require("llama_index.readers.file", extra="readers")
    root.handlers[:] = handlers
    root.setLevel(level)


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16")
    if b"\x00" in raw[:8192]:
        raise IngestError("The file is binary, not text.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    if text.count("\ufffd") + sum(not (char.isprintable() or char.isspace()) for char in text[:4096]) > 64:
        raise IngestError("The file is neither UTF-8 nor Western text. Convert it to UTF-8.")
    return text


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
