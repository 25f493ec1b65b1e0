"""Encoding of text bytes: byte order mark, declaration, UTF-8, then detection, whose guess is never silent.

| order | sign | example |
|---|---|---|
| 1 | byte order mark | UTF-8, UTF-16, UTF-32 |
| 2 | declaration in the file | XML declaration, HTML meta, ``# -*- coding: koi8-r -*-`` |
| 3 | the bytes are UTF-8 | also where a single-byte encoding is declared: such a text is no UTF-8 by chance |
| 4 | zero bytes in every second place | UTF-16 without a mark |
| 5 | detection by chardet | a warning says the guess and how sure it is |
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.packages.extras import require

__all__ = ["Decoded", "declared_encoding", "decode", "read_text_file", "utf8_start"]

_MARKS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARATIONS: Final = (
    re.compile(rb"""\A\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""", re.IGNORECASE),
    re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE),
    re.compile(rb"""\A\s*@charset\s+["']([\w.:-]+)["']""", re.IGNORECASE),
)
_COOKIE: Final = re.compile(rb"^[ \t\f]*(?:#|//|/\*|;|%|--).*?coding[:=][ \t]*([-\w.]+)", re.IGNORECASE)
_HEAD: Final = 4096  # bytes in which a declaration stands
_SAMPLE: Final = 65_536  # bytes that the detector sees; more make it slower, not better
_SURE: Final = 0.3  # chardet's scale: what it is surer of than this was right in every sample of 21 languages
_MOST_BLOCKS: Final = 24  # of 256 characters each, in a text that is not East Asian
_PRINTABLE: Final = bytes([*range(32, 127), 9, 10, 13])
_FEWEST: Final = 16  # characters by which a text without Latin letters can be told from other bytes
_EAST_ASIAN: Final = re.compile("[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff00-\uffef -~\\s]")
_LATIN: Final = (
    "cp1250",
    "cp1252",
    "cp1254",
    "cp1257",
    "cp1258",
    *(f"iso8859-{n}" for n in (2, 3, 4, 10, 13, 14, 15, 16)),
)
_WESTERN: Final = re.compile(  # é beside a letter; a dash, a quotation mark or a sign outside of a word, ’ anywhere
    "(?<=[A-Za-z])[À-ÖØ-öø-ÿŠšŽžŒœŸ]|[À-ÖØ-öø-ÿŠšŽžŒœŸ](?=[A-Za-z])|’|(?<![A-Za-z])[–—“”„‘«»€£§°©®™•…·¿¡\u00a0]"
    "|[–—“”„‘«»€£§°©®™•…·¿¡\u00a0](?![A-Za-z])"
)
_NO_TEXT: Final = frozenset({"Cc", "Cn", "Co", "Cs"})  # Unicode categories
# What browsers read for a label: the wider encoding of the same family, since the narrow label is often wrong.
_WIDER: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-8-i": "iso8859-8",
}
_RENAME: Final = "Give it the ending of its kind."
_UNPACK: Final = "Unpack it, and ingest what it holds."
_TRANSCRIBE: Final = "Ingest a transcript of it."
_EXPORT: Final = "Export its text, and ingest that."
_KINDS: Final = (
    (0, b"\x89PNG", "a PNG image", _RENAME),
    (0, b"\xff\xd8\xff", "a JPEG image", _RENAME),
    (0, b"GIF8", "a GIF image", _RENAME),
    (0, b"II*\0", "a TIFF image", _RENAME),
    (0, b"MM\0*", "a TIFF image", _RENAME),
    (8, b"WEBP", "a WebP image", _RENAME),
    (0, b"%PDF-", "a PDF document", _RENAME),
    (0, b"PK\x03\x04", "a zip archive or an Office document", f"{_RENAME} An archive: unpack it."),
    (0, b"\xd0\xcf\x11\xe0", "an old Office document or an Outlook message", _RENAME),
    (0, b"\x1f\x8b", "packed by gzip", _UNPACK),
    (0, b"BZh", "packed by bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "packed by xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "packed by Zstandard", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x7fELF", "a program", _EXPORT),
    (0, b"MZ\x90", "a program", _EXPORT),
    (0, b"\xca\xfe\xba\xbe", "a program", _EXPORT),
    (0, b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (0, b"PAR1", "a Parquet table", "Read it into a data frame, and ingest that."),
    (0, b"OggS", "an audio file", _TRANSCRIBE),
    (0, b"ID3", "an audio file", _TRANSCRIBE),
    (0, b"\xff\xf1", "an audio file", _TRANSCRIBE),
    (0, b"\xff\xf9", "an audio file", _TRANSCRIBE),
    (0, b"\xff\xfb", "an audio file", _TRANSCRIBE),
    (0, b"fLaC", "an audio file", _TRANSCRIBE),
    (8, b"WAVE", "an audio file", _TRANSCRIBE),
    (8, b"AVI ", "a video", _TRANSCRIBE),
    (4, b"ftyp", "an audio file or a video", _TRANSCRIBE),
    (0, b"\x1aE\xdf\xa3", "a video", _TRANSCRIBE),
)
"""Place and bytes of a signature, what it is of, and what to do."""
_CONTROL: Final = bytes(set(range(32)) - {7, 8, 9, 10, 11, 12, 13, 26, 27})


@dataclass(frozen=True, slots=True)
class Decoded:
    """Characters of a file.

    Attributes:
        text: The characters, without a byte order mark.
        encoding: Python's name of the encoding, such as ``"cp1251"``.
        warnings: What was guessed or could not be decoded; empty where the encoding is certain.
    """

    text: str
    encoding: str
    warnings: Sequence[str] = ()

    def of(self, plain: PlainText) -> PlainText:
        """The plain text that was made of these characters, with the encoding and the warnings."""
        return replace(plain, encoding=self.encoding, warnings=(*self.warnings, *plain.warnings))


def read_text_file(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> Decoded:
    """Characters of a text file in whatever encoding; see `decode`.

    Raises:
        IngestError: It is larger than `limit`, or binary.
    """
    limit.check_file(path)
    return decode(path.read_bytes())


def decode(raw: bytes, declared: str = "") -> Decoded:
    """Text of some bytes.

    Args:
        raw: Bytes of a text.
        declared: Encoding that stands outside of the bytes, such as in a mail's header.

    Raises:
        IngestError: The bytes are no text, or of no encoding that can be told.

    Example:
        >>> decode("Цена".encode("utf-8")), decode(b'<meta charset="windows-1251">\\xd6\\xe5\\xed\\xe0').text[-4:]
        (Decoded(text='Цена', encoding='utf-8', warnings=()), 'Цена')
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return _damaged(raw, name)
    _refuse_binary(raw)
    label = declared or declared_encoding(raw) or _escape_sequences(raw)
    codec = _python_name(label) if label else None
    odd = _has_odd_bytes(raw)
    text = None if odd else _decoded(raw, "utf-8")
    if text is not None and (codec is None or _is_utf8(codec, raw)):
        return Decoded(text, "utf-8", _contradicted(codec, label, raw))
    text = _decoded(raw, codec) if codec else None
    if codec and text is not None:
        return Decoded(text, codec)
    warned = (f"The file declares the encoding {label}, which its bytes contradict.",) if label else ()
    guess = (_utf16(raw) if odd else None) or _nearly_utf8(raw) or _detected(raw)
    return Decoded(guess.text, guess.encoding, (*warned, *guess.warnings))


def utf8_start(path: Path) -> tuple[int, str] | None:
    """Bytes of the byte order mark, and the encoding's name, where `decode` reads a file as UTF-8 if all of it is that.

    None where it names another encoding in its first lines, or is binary.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD + len(codecs.BOM_UTF8))
    begin = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    head = head[begin:]
    if _binary_kind(head) or declared_encoding(head) or _has_odd_bytes(head):
        return None
    return begin, "utf-8-sig" if begin else "utf-8"


def _decoded(raw: bytes, name: str) -> str | None:
    try:
        return raw.decode(name)
    except UnicodeDecodeError:
        return None


def declared_encoding(raw: bytes) -> str | None:
    """Encoding that a file names in its first lines, as written there; None where it names none.

    Example:
        >>> declared_encoding(b'<?xml version="1.0" encoding="koi8-r"?>'), declared_encoding(b"# coding: gbk\\n")
        ('koi8-r', 'gbk')
    """
    head = raw[:_HEAD]
    found = next(filter(None, (pattern.search(head) for pattern in _DECLARATIONS)), None)
    cookies = (_COOKIE.match(line) for line in head.split(b"\n", 2)[:2])
    found = found or next(filter(None, cookies), None)
    return found[1].decode("ascii", "replace") if found else None


def _escape_sequences(raw: bytes) -> str | None:
    """ISO-2022 switches between sets of characters by escape sequences of ASCII bytes."""
    if b"\x1b$)C" in raw:
        return "iso2022_kr"
    return "iso2022_jp_2" if b"\x1b$" in raw and raw.isascii() else None


def _python_name(label: str) -> str | None:
    """Python's codec for a label, widened as browsers do; None for one that is unknown or no text encoding."""
    try:
        codec = codecs.lookup(label.strip())
    except (LookupError, ValueError):
        return None
    if not getattr(codec, "_is_text_encoding", True):
        return None
    return _WIDER.get(codec.name, codec.name)


def _is_utf8(name: str, raw: bytes) -> bool:
    """Whether UTF-8 wins over a declaration: of itself, of UTF-16 (which has zero bytes), of a single-byte encoding."""
    if _escapes(name):
        return False
    return raw.isascii() or name in ("utf-8", "utf-8-sig", "utf-16", "utf-32") or _is_single_byte(name)


def _escapes(name: str) -> bool:
    return name.startswith(("iso2022", "hz", "utf-7"))


def _is_single_byte(name: str) -> bool:
    return len(bytes(range(160, 256)).decode(name, "replace")) == 96


def _contradicted(name: str | None, label: str | None, raw: bytes) -> tuple[str, ...]:
    if name is None or name == "utf-8" or raw.isascii():
        return ()
    return (f"The file declares the encoding {label}, but its bytes are UTF-8; read as UTF-8.",)


def _damaged(raw: bytes, name: str) -> Decoded:
    """Text with a byte order mark; broken places become U+FFFD, and are counted."""
    text = raw.decode(name, "replace").lstrip("\ufeff")
    broken = text.count("\ufffd") - (raw.count(b"\xef\xbf\xbd") if name == "utf-8-sig" else 0)
    return Decoded(text, name, _broken(broken, name))


def _broken(count: int, name: str) -> tuple[str, ...]:
    if count <= 0:
        return ()
    return (f"{count:,} places are not {name} and were read as '\ufffd'.",)


def _utf16(raw: bytes) -> Decoded | None:
    """UTF-16 or UTF-32 without a byte order mark; None where the bytes are no such text.

    The right order has only printable characters, of few blocks of 256, or nearly all of East Asian scripts; the wrong
    one scatters them.
    """
    found: list[tuple[int, str]] = []
    for name, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        text = _strictly(raw[: min(len(raw), _HEAD) // width * width], name)
        odd = sum(unicodedata.category(char) in _NO_TEXT and char not in "\t\n\r\f" for char in text)
        if text and odd <= len(text) // 50:
            blocks = len({ord(char) >> 8 for char in text}) - 1
            east_asian = len(_EAST_ASIAN.findall(text)) > 0.95 * len(text)
            if (blocks > _MOST_BLOCKS and not east_asian) or _is_ascii_in_pairs(raw):
                continue
            found.append((odd + (min(blocks, 3) if east_asian else blocks), name))
    score, name = min(found, default=(0, ""))
    length = min(len(raw), _HEAD) // 2
    if not name or score > max(length // 3, 1):
        return None
    text = raw.decode(name, "replace")
    return Decoded(text, name, (_guess(name, 0.95 if length >= _FEWEST else 0.7),))


def _is_ascii_in_pairs(raw: bytes) -> bool:
    """Whether the bytes are ASCII with a few control characters, such as a library's record: read in pairs they look
    like Chinese."""
    head = raw[:_HEAD]
    return b"\0" not in head and len(head.translate(None, _PRINTABLE)) < len(head) // 10


def _strictly(raw: bytes, name: str) -> str:
    """Decoded bytes; empty where they are of another encoding."""
    try:
        return codecs.getincrementaldecoder(name)("strict").decode(raw)
    except UnicodeDecodeError:
        return ""


def _is_text(text: str) -> bool:
    sample = text[:_HEAD]
    odd = sum(not (char.isprintable() or char.isspace()) or char == "\ufffd" for char in sample)
    return odd <= len(sample) // 50


def _nearly_utf8(raw: bytes) -> Decoded | None:
    """UTF-8 with a few broken places, as in a log that was cut or joined; None where it is something else."""
    if b"\0" in raw[:_HEAD]:
        return None
    text = raw.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    whole = sum(map(len, re.findall("[^\0-\x7f\ufffd]+", text)))
    return Decoded(text, "utf-8", _broken(broken, "UTF-8")) if whole > 8 * broken else None


def _detected(raw: bytes) -> Decoded:
    sample = _sample(raw)
    found = require("chardet", extra="readers").detect(sample)
    name = _python_name(found["encoding"]) if found["encoding"] else None
    confidence = float(found["confidence"] or 0)
    if confidence < _SURE and name not in _LATIN and _looks_western(sample):
        name = "cp1252"
    text = raw.decode(name, "replace") if name else ""
    if not text or not _is_text(text):
        raise IngestError("The file is no text in any known encoding. Convert it to UTF-8.")
    return Decoded(
        text, str(name), (_guess(str(name), confidence), *_broken(text.count("\ufffd"), str(name)))
    )


def _looks_western(raw: bytes) -> bool:
    """Whether the bytes beyond ASCII stand where Western texts have them; a lone © or é is too little for chardet."""
    text = raw.decode("cp1252", "replace")
    return len(_WESTERN.findall(text)) == sum(not char.isascii() for char in text)


def _sample(raw: bytes) -> bytes:
    """Lines with bytes beyond ASCII: the rest says nothing, and a long English head would hide them."""
    if len(raw) <= _SAMPLE:
        return raw
    lines = (match[0] for match in re.finditer(rb"[^\n]*[\x80-\xff][^\n]*\n?", raw))
    sample = bytearray()
    for line in lines:
        sample += line[:_HEAD]
        if len(sample) >= _SAMPLE:
            break
    return bytes(sample)


def _guess(name: str, confidence: float) -> str:
    unsure = "" if confidence >= _SURE else "; look at the text, and convert the file to UTF-8 if it is wrong"
    return (
        f"The encoding is not declared; read as {name}, a guess (confidence {confidence:.2f} of 1){unsure}."
    )


def _refuse_binary(raw: bytes) -> None:
    if found := _binary_kind(raw):
        kind, advice = found
        raise IngestError(f"The file is binary, not text: it is {kind}. {advice}")
    if _has_odd_bytes(raw) and _utf16(raw) is None:
        raise IngestError("The file is binary, not text.")


def _binary_kind(raw: bytes) -> tuple[str, str] | None:
    """What a signature says that a file is, and what to do with it.

    Signatures that are short, or words, count only where the bytes are no text.
    """
    for place, signature, kind, advice in _KINDS:
        if raw.startswith(signature, place):
            alone = place == 0 and len(signature) > 3 and not signature.isalnum()
            if alone or _has_odd_bytes(raw):
                return kind, advice
    return None


def _has_odd_bytes(raw: bytes) -> bool:
    """Whether there are zero bytes or many control characters: half of a character of UTF-16, or no text at all."""
    head = raw[:_HEAD]
    return b"\0" in head or len(head) - len(head.translate(None, _CONTROL)) > len(head) // 50
