"""A file of any supported kind to a source text; every fault is one error."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Final

from llama_index_presets.errors import IngestError, MissingExtraError
from llama_index_presets.images import SUFFIXES
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.chunking.chunk_context import document_title
from llama_index_presets.ingest.failures import file_problem
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_sidecar, sidecar_of
from llama_index_presets.ingest.readers.ocr import HOW_TO_READ
from llama_index_presets.ingest.readers.registry import reader_for

__all__ = ["file_hash", "read_file"]

_SHEETS: Final = frozenset({".xlsx", ".xlsm", ".xltx", ".xlsb", ".xls", ".ods", ".ots", ".csv", ".tsv"})
_PANIC: Final = "PanicException"
"""What a library in Rust raises where it did not expect a file to be so; no Exception, and of no public class."""


def file_hash(path: Path) -> str:
    """Hash of the raw bytes and the sidecar's: a check for changes must not parse the document."""
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
    try:
        size = path.stat().st_size
    except OSError as error:
        raise IngestError(file_problem(error)) from error
    if size == 0:
        raise IngestError("The file is empty (0 bytes).")
    try:
        plain, own = reader_for(path).load()(path, limit)
        left_out = list[str]()
        about = {**own, **about_sidecar(path, left_out)}
    except (IngestError, MissingExtraError):
        raise
    except RecursionError as error:
        raise IngestError(
            "The file cannot be read: something in it, such as lists, tables or attached mails, stands inside itself "
            "too many times. Flatten it."
        ) from error
    except Exception as error:  # any reader may fail in any way on a damaged file
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.filename in (path, str(path)):
            raise IngestError(file_problem(cause)) from error
        raise IngestError(f"The file cannot be read ({type(cause).__name__}: {_one_line(cause)}).") from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise IngestError(
            f"The file cannot be read: its library stopped at what it holds ({_one_line(error)}). Save it again, or in "
            "another format."
        ) from error
    limit.check_text(plain.length)
    if plain.is_blank:
        raise IngestError(f"The file holds no text ({_reason(path)}).")
    return SourceText(
        doc_id=path.as_posix(),
        plain=plain,
        metadata={**about, "source": path.as_posix(), "file_name": path.name},
        hidden_from_embedding=("file_name", *about),
        content_hash=content_hash,
        left_out=left_out,
        title=str(about.get("title") or document_title(plain, path.name)),
    )


def _reason(path: Path) -> str:
    """Why a file that could be read gave no text, as far as its kind tells."""
    suffix = path.suffix.lower()
    if suffix in _SHEETS:
        return "its sheets are empty"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [Path(name) for name in archive.namelist()]
        pictures = sum(name.suffix.lower() in SUFFIXES and name.stem != "thumbnail" for name in names)
        return (
            f"{pictures} pictures, whose text is not read: save them as files. {HOW_TO_READ}"
            if pictures
            else "it is blank"
        )
    if suffix == ".pdf":
        return "a scan, or images only?"
    return "it is blank, or holds pictures and markup only"


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
