"""Outlook messages: strings of any code page, bodies of rich text, messages within messages."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import olefile
import pytest
from oxmsg.storage import Storage, Stream

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.readers.mail.compressed_rtf import decompressed_rtf
from llama_index_presets.ingest.readers.mail.msg import _decoded

SUBJECT, BODY, HTML, RTF, SENDER = 0x0037, 0x1000, 0x1013, 0x1009, 0x0C1A
NAME, METHOD, DATA = 0x3707, 0x3705, 0x3701
CODEPAGE = 0x3FFD
UNICODE, TEXT, BINARY, NUMBER = 0x1F, 0x1E, 0x102, 3
HELLO = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)
"""The first example of MS-OXRTFCP, section 3.1.1."""


def storage(
    values: Mapping[tuple[int, int], bytes | int],
    *,
    path: str = "",
    header: int = 32,
    inside: Sequence[Storage] = (),
) -> Storage:
    """A message or an attachment as its properties and their streams."""
    entries = b"".join(
        struct.pack("<HHIQ", kind, pid, 6, value if isinstance(value, int) else len(value))
        for (pid, kind), value in values.items()
    )
    streams = [
        Stream(f"{path}/__substg1.0_{pid:04X}{kind:04X}", value)
        for (pid, kind), value in values.items()
        if isinstance(value, bytes)
    ]
    head = bytes(header) if header == 8 else struct.pack("<8xIIII", 0, 1, 0, 1).ljust(header, b"\0")
    streams.append(Stream(f"{path}/__properties_version1.0", head + entries))
    return Storage(path=path, streams=tuple(streams), storages=tuple(inside))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Reads a storage as if it were the content of a file."""

    def of(root: Storage) -> SourceText:
        path = tmp_path / "a.msg"
        path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
        monkeypatch.setattr(olefile, "OleFileIO", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(Storage, "from_ole", lambda _: root)
        return read_file(path, "h")

    return of


@pytest.mark.parametrize(
    ("number", "encoding", "text"),
    [
        (950, "cp950", "格式測試"),
        (936, "gb18030", "水泵检查"),
        (1251, "cp1251", "Насос проверен"),
        (932, "cp932", "ポンプの検査"),
        (28592, "iso8859-2", "Pompa została sprawdzona"),
        (65001, "utf-8", "Pumpe geprüft"),
    ],
)
def test_strings_of_bytes_are_decoded_by_the_code_page(
    read: object, number: int, encoding: str, text: str
) -> None:
    """Python knows few of the names that the library makes of the numbers."""
    found = read(  # type: ignore[operator]
        storage(
            {
                (SUBJECT, TEXT): text.encode(encoding) + b"\0",
                (BODY, TEXT): (f"{text} - 1, 2, 3").encode(encoding),
                (CODEPAGE, NUMBER): number,
            }
        )
    )
    assert f"Subject: {text}" in found.plain.text
    assert f"{text} - 1, 2, 3" in found.plain.text


def test_a_subject_of_another_encoding_than_the_body_is_read(read: object) -> None:
    """The code page is that of the body; what it contradicts is detected, and nothing is refused."""
    found = read(  # type: ignore[operator]
        storage(
            {
                (SUBJECT, TEXT): "Prüfung der Ölpumpe".encode("cp1252"),
                (BODY, TEXT): "Насос проверен".encode(),
                (CODEPAGE, NUMBER): 65001,
            }
        )
    )
    assert "Subject: Prüfung der Ölpumpe" in found.plain.text
    assert "Насос проверен" in found.plain.text


def test_a_body_of_rich_text_alone_is_read(read: object) -> None:
    """As Outlook stores what is written in it."""
    found = read(storage({(SUBJECT, UNICODE): "Greeting".encode("utf-16-le"), (RTF, BINARY): HELLO}))  # type: ignore[operator]
    assert "hello world" in found.plain.text
    assert found.plain.warnings == ()


def test_rich_text_that_cannot_be_unpacked_is_a_warning(read: object) -> None:
    """The rest of the message is read."""
    found = read(  # type: ignore[operator]
        storage({(SUBJECT, UNICODE): "Greeting".encode("utf-16-le"), (RTF, BINARY): b"\0" * 30})
    )
    assert "Subject: Greeting" in found.plain.text
    assert found.plain.warnings == (
        "The body is rich text and was not read (its compression 0x0 is not known). Save the message as eml.",
    )


def test_a_message_within_a_message_is_read(read: object) -> None:
    """Forwarded as an attachment, with an attachment of its own."""
    at = "__attach_version1.0_#00000000"
    inner = f"{at}/__substg1.0_3701000D"
    note = storage(
        {
            (NAME, UNICODE): "note.txt".encode("utf-16-le"),
            (METHOD, NUMBER): 1,
            (DATA, BINARY): b"The valve leaks.",
        },
        path=f"{inner}/{at}",
        header=8,
    )
    forwarded = storage(
        {
            (SUBJECT, TEXT): "Старый".encode("cp1251"),
            (BODY, TEXT): b"The pump is dry.",
            (CODEPAGE, NUMBER): 1251,
        },
        path=inner,
        header=24,
        inside=[note],
    )
    attachment = storage(
        {(NAME, UNICODE): "a message".encode("utf-16-le"), (METHOD, NUMBER): 5},
        path=at,
        header=8,
        inside=[forwarded],
    )
    found = read(storage({(SUBJECT, UNICODE): "See below".encode("utf-16-le")}, inside=[attachment]))  # type: ignore[operator]
    order = ["Subject: See below", "Subject: Старый", "The pump is dry.", "The valve leaks."]
    places = [found.plain.text.find(one) for one in order]
    assert places == sorted(places) and -1 not in places
    assert any("Старый > Attachment note.txt" in label for _, label in found.plain.headings)


def test_an_object_that_is_no_file_is_a_warning(read: object) -> None:
    """Such as a drawing of another program."""
    at = "__attach_version1.0_#00000000"
    odd = storage({(NAME, UNICODE): "drawing".encode("utf-16-le"), (METHOD, NUMBER): 6}, path=at, header=8)
    found = read(storage({(BODY, UNICODE): "See it.".encode("utf-16-le")}, inside=[odd]))  # type: ignore[operator]
    assert found.plain.warnings == (
        "Attachment 'drawing' is an object or a link inside the file and was not read.",
    )


def test_an_attachment_without_properties_is_a_warning(read: object) -> None:
    """Damaged files have such; the message is read all the same."""
    lost = Storage(path="__attach_version1.0_#00000000", streams=(), storages=())
    recipient = Storage(path="__recip_version1.0_#00000000", streams=(), storages=())
    found = read(storage({(BODY, UNICODE): "The pump is dry.".encode("utf-16-le")}, inside=[lost, recipient]))  # type: ignore[operator]
    assert "The pump is dry." in found.plain.text
    assert found.plain.warnings == (
        "Attachment 'attachment' is an object or a link inside the file and was not read.",
    )


def test_an_old_office_file_under_the_name_of_a_message_says_so(read: object) -> None:
    """It begins with the same bytes."""
    with pytest.raises(
        IngestError, match="no Outlook message, although its name ends in .msg: it has no properties"
    ):
        read(Storage(path="", streams=(), storages=()))  # type: ignore[operator]


def test_compressed_rich_text_repeats_what_it_is_writing() -> None:
    """The second example of MS-OXRTFCP: a reference that reaches beyond the end; and texts that are only stored."""
    packed = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert decompressed_rtf(packed, SizeLimit()) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"
    stored = struct.pack("<IIII", 22, 10, 0x414C454D, 0) + b"{\\rtf1 a}\n"
    assert decompressed_rtf(stored, SizeLimit()) == b"{\\rtf1 a}\n"
    with pytest.raises(ValueError, match="cut off"):
        decompressed_rtf(b"short", SizeLimit())
    with pytest.raises(IngestError, match="comes to more than 1 MB"):
        decompressed_rtf(struct.pack("<IIII", 22, 2_000_000, 0x75465A4C, 0), SizeLimit(1))


def test_a_string_with_controls_and_without_a_code_page_is_read() -> None:
    """Bytes that look binary are no reason to lose a subject: they are taken for Western letters."""
    assert _decoded(b"Caf\xe9 \0\1\2\3\4\5\6", "").startswith("Café ")
