"""Office files as zip packages of XML: checked before they are read, parsed without entities and network."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_properties
from llama_index_presets.packages.extras import require

__all__ = [
    "OLD_OFFICE",
    "attribute",
    "check_package",
    "child_of",
    "core_properties",
    "is_encrypted",
    "local_name",
    "parse_xml",
    "refuse_old",
]

OLD_OFFICE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""First bytes of files of Office before 2007, and of those with a password."""

_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_CONVERT: Final = "Convert it (soffice --headless --convert-to {new} FILE), and ingest the result."


def check_package(path: Path, limit: SizeLimit, program: str) -> None:
    """Refuse a package that is none, has a password, or expands too far.

    Raises:
        IngestError: It is one of these.
    """
    with path.open("rb") as file:
        begin = file.read(8)
    if begin == OLD_OFFICE:
        if is_encrypted(path):
            raise IngestError("The file has a password. Save it without one.")
        raise IngestError(
            f"The file is of a {program} before 2007. {_CONVERT.format(new=path.suffix[1:4].lower() + 'x')}"
        )
    if begin.startswith((b"{\\rtf", b"%PDF", b"<")) or not zipfile.is_zipfile(path):
        raise IngestError(f"The file cannot be read: it is no {program} file, or damaged. Save it again.")
    limit.check_archive(path)


def is_encrypted(path: Path) -> bool:
    """Whether an old Office file holds a new one with a password."""
    return _ENCRYPTED in path.read_bytes()


def refuse_old(path: Path, limit: SizeLimit) -> Any:
    """Reader of formats that no maintained library reads.

    Raises:
        IngestError: Always; it says how to convert the file.
    """
    suffix = path.suffix.lower()
    if new := {".pages": "Word", ".numbers": "Excel", ".key": "PowerPoint"}.get(suffix):
        raise IngestError(
            f"Files of the kind {suffix} are not read. Export it (File, Export To, {new}), and ingest that."
        )
    new = {".doc": "docx", ".dot": "docx", ".ppt": "pptx", ".pps": "pptx"}.get(suffix, "pdf")
    raise IngestError(f"Files of the kind {path.suffix} are not read. {_CONVERT.format(new=new)}")


def parse_xml(raw: bytes) -> Any:
    """Root of an XML document; entities are not resolved, nothing is fetched, a damaged one is read as far as it goes.

    Raises:
        IngestError: It holds no element.
    """
    etree = require("lxml.etree", extra="readers")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        return etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise IngestError(f"The file cannot be read: its XML is damaged ({error}).") from error


def local_name(tag: Any) -> str:
    """Name of an element or attribute without its namespace; empty for what is no element.

    Example:
        >>> local_name("{urn:x}table")
        'table'
    """
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def core_properties(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Title and author of an Office file, as its properties name them."""
    if "docProps/core.xml" not in archive.namelist():
        return {}
    found = {
        local_name(element.tag): " ".join((element.text or "").split())
        for element in parse_xml(archive.read("docProps/core.xml"))
    }
    return about_properties(found.get("title"), found.get("creator"))


def attribute(element: Any, name: str = "val") -> str:
    """Attribute of an element by its name without a namespace; empty where it has none."""
    return next((str(value) for key, value in element.attrib.items() if local_name(key) == name), "")


def child_of(element: Any, name: str) -> Any:
    """First child element by its name without a namespace; None where there is none, or no element."""
    return (
        next((one for one in element if local_name(one.tag) == name), None) if element is not None else None
    )
