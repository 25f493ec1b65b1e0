"""Encodings: declared, marked or guessed; a guess is never silent, binary is never text."""

from __future__ import annotations

import random

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.readers.encoding import declared_encoding, decode

RUSSIAN = "Срок хранения вакцины составляет двенадцать месяцев."
CHINESE = "保修期为二十四个月。退货必须在三十天内提出。"
TEXTS = {
    "cp1251": RUSSIAN,
    "koi8-r": RUSSIAN,
    "cp866": RUSSIAN,
    "koi8-u": "Термін зберігання вакцини становить дванадцять місяців.",
    "gbk": CHINESE,
    "big5": "保固期為二十四個月。退貨必須在三十天內提出。",
    "shift_jis": "保証期間は二年です。返品は三十日以内に申し出てください。",
    "euc_jp": "保証期間は二年です。返品は三十日以内に申し出てください。",
    "iso2022_jp": "保証期間は二年です。返品は三十日以内に申し出てください。",
    "euc_kr": "보증 기간은 이십사 개월입니다. 반품은 삼십 일 이내에 신청하십시오.",
    "cp1250": "Termin płatności wynosi czternaście dni.",
    "iso8859-2": "Zarząd zatwierdził sprawozdanie roczne, ponieważ przychody wzrosły.",
    "cp1252": "Die Überweisung für März ist überfällig – größer als früher.",
    "cp1253": "Η προθεσμία πληρωμής είναι δεκατέσσερις ημέρες.",
    "cp1254": "Ödeme süresi on dört gündür; gecikme hâlinde faiz işletilir.",
    "cp1255": "תקופת האחריות היא עשרים וארבעה חודשים.",
    "cp1256": "مدة الضمان أربعة وعشرون شهرا من تاريخ الشراء.",
    "cp1257": "Mokėjimo terminas yra keturiolika dienų, vėliau skaičiuojami delspinigiai.",
    "cp874": "ระยะเวลารับประกันยี่สิบสี่เดือน",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_an_undeclared_encoding_is_guessed_and_the_guess_is_reported(encoding: str) -> None:
    """One sentence is enough; the warning names the encoding and how sure the guess is."""
    decoded = decode(TEXTS[encoding].encode(encoding))
    assert decoded.text == TEXTS[encoding]
    if encoding != "iso2022_jp":  # its escape sequences are no guess
        assert len(decoded.warnings) == 1
        assert f"read as {decoded.encoding}, a guess (confidence 0." in decoded.warnings[0] or (
            "(confidence 1." in decoded.warnings[0]
        )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("language", TEXTS)
def test_wide_characters_without_a_mark_are_read_in_the_right_order(encoding: str, language: str) -> None:
    """Also of scripts whose characters have no zero bytes."""
    assert decode(TEXTS[language].encode(encoding)).text == TEXTS[language]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
def test_a_mark_and_utf8_need_no_warning(encoding: str) -> None:
    """They are certain."""
    decoded = decode(RUSSIAN.encode(encoding))
    assert (decoded.text, tuple(decoded.warnings)) == (RUSSIAN, ())


@pytest.mark.parametrize(
    "head",
    [
        '<?xml version="1.0" encoding="windows-1251"?>',
        '<html><head><meta charset="windows-1251">',
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
        "# -*- coding: windows-1251 -*-\n",
        "#!/usr/bin/env python\n# vim: set fileencoding=windows-1251 :\n",
        '@charset "windows-1251";',
    ],
)
def test_a_declared_encoding_is_taken(head: str) -> None:
    """XML, HTML, the coding line of source code, and CSS declare it in their first lines."""
    decoded = decode((head + "Цена").encode("cp1251"))
    assert decoded.text == head + "Цена"
    assert (decoded.encoding, tuple(decoded.warnings)) == ("cp1251", ())


def test_a_declaration_that_the_bytes_contradict_is_reported() -> None:
    """UTF-8 under a label of Latin-1, and cp1251 under a label of UTF-8: both are read right."""
    as_utf8 = decode(b'<meta charset="iso-8859-1">' + "Überfällig – größer".encode())
    assert as_utf8.text.endswith("Überfällig – größer") and "but its bytes are UTF-8" in as_utf8.warnings[0]
    guessed = decode(b'<meta charset="utf-8">' + RUSSIAN.encode("cp1251"))
    assert guessed.text.endswith(RUSSIAN) and "which its bytes contradict" in guessed.warnings[0]
    assert declared_encoding(b"no declaration") is None


def test_broken_places_in_utf8_are_counted() -> None:
    """A log that was cut in the middle of a character is UTF-8 all the same."""
    decoded = decode(("Größe wächst. " * 20).encode() + b"\xc3(\xff")
    assert decoded.encoding == "utf-8" and decoded.text.count("\ufffd") == 2
    assert decoded.warnings[0].startswith("2 places are not UTF-8")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "an audio file. Ingest a transcript of it"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP image. Give it the ending"),
        (b"\0\0\0\x20ftypM4A \0\0", "an audio file or a video. Ingest a transcript"),
        (b"ID3\4\0\0\0", "an audio file"),
        (b"\x1f\x8b\x08\0", "packed by gzip. Unpack it"),
        (b"notes.txt".ljust(257, b"\0") + b"ustar\00000", "a tar archive. Unpack it"),
    ],
)
def test_binary_files_say_what_they_are(raw: bytes, kind: str) -> None:
    """The reason is the true one, whatever the ending says."""
    with pytest.raises(IngestError, match=f"is binary, not text: it is {kind}"):
        decode(raw)


@pytest.mark.parametrize("text", ["ID3 tags are read by players.", "PAR1 and PAR2 files", "BZh. 4, MZ\x90"])
def test_words_that_look_like_a_signature_are_text(text: str) -> None:
    """What has no bytes of a binary file is none."""
    assert decode(text.encode()).text == text


def test_random_bytes_are_never_text() -> None:
    """None of a hundred random files is indexed as garbage."""
    source = random.Random(7)
    for size in range(400, 500):
        with pytest.raises(IngestError, match=r"binary, not text|no text in any known encoding"):
            decode(source.randbytes(size))


def test_a_long_english_head_does_not_hide_the_few_foreign_lines() -> None:
    """The detector sees the lines that are not ASCII."""
    text = "A line of plain English text in a log file.\n" * 5_000 + RUSSIAN
    assert decode(text.encode("cp1251")).text == text
