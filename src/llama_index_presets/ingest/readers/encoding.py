"""Bytes to characters: the encoding that is declared, marked or guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText

__all__ = ["Decoded", "decode", "read_text_file"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Characters of a file.

    Attributes:
        text: The characters.
        encoding: Python's name of the encoding, such as ``"cp1251"``.
        warnings: What is uncertain about it.
    """

    text: str
    encoding: str = ""
    warnings: Sequence[str] = ()

    def of(self, plain: PlainText) -> PlainText:
        """The plain text that was made of these characters, with the encoding and the warnings."""
        return replace(plain, encoding=self.encoding, warnings=(*self.warnings, *plain.warnings))


def read_text_file(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> Decoded:
    """Characters of a text file.

    Raises:
        IngestError: It is larger than `limit`, or binary.
    """
    limit.check_file(path)
    return decode(path.read_bytes())


def decode(raw: bytes, declared: str = "") -> Decoded:
    """Characters of bytes.

    Args:
        raw: The bytes.
        declared: Encoding that the document names, if it does.

    Raises:
        IngestError: They are binary.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Decoded(raw.decode("utf-16"), "utf-16")
    if b"\x00" in raw[:8192]:
        raise IngestError("The file is binary, not text.")
    try:
        return Decoded(raw.decode("utf-8-sig"), "utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    if text.count("\ufffd") + sum(not (char.isprintable() or char.isspace()) for char in text[:4096]) > 64:
        raise IngestError("The file is neither UTF-8 nor Western text. Convert it to UTF-8.")
    return Decoded(text, "cp1252")
