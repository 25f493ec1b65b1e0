"""Personal data that has a form: what is found, what is not, and what becomes of it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.privacy.personal_data import KINDS, find_personal_data, redacted
from llama_index_presets.ingest.privacy.watch import PrivacyWatch, as_sent, redacted_plain
from llama_index_presets.ingest.sources.source import Source

FOUND = [
    ("email", "jane.doe+x@mail.example.co.uk"),
    ("email", "o_brien@xn--bcher-kva.example"),
    ("phone", "212-555-0187"),
    ("phone", "(212) 555-0187"),
    ("phone", "+1 212 555 0187"),
    ("phone", "212.555.0187"),
    ("phone", "+49 30 901820"),
    ("phone", "+44 (0)20 7946 0958"),
    ("us_ssn", "536-22-1234"),
    ("us_ssn", "536 22 1234"),
    ("us_medicare_id", "1EG4-TE5-MK73"),
    ("us_medicare_id", "1EG4TE5MK73"),
    ("credit_card", "4111 1111 1111 1111"),
    ("credit_card", "378282246310005"),
    ("credit_card", "5555-5555-5555-4444"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432"),
    ("credit_card", "3782 822463 10005"),
    ("ip_address", "203.0.113.7"),
    ("ip_address", "10.0.0.7"),
    ("ip_address", "2001:db8::8a2e:370:7334"),
]
LABELLED = [
    ("birth_date", "DOB: ", "03/04/1950"),
    ("birth_date", "Date of birth: ", "1950-04-03"),
    ("birth_date", "D.O.B. ", "3 April 1950"),
    ("birth_date", "She was born on ", "April 3rd, 1950"),
    ("record_number", "MRN: ", "00123456"),
    ("record_number", "MRN #", "A-123-456"),
    ("record_number", "Medical record number ", "88812"),
    ("record_number", "Patient ID: ", "P0017"),
    ("record_number", "NHS number ", "943 476 5919"),
    ("us_ssn", "SSN ", "536221234"),
]
NOTHING = [
    "",
    "The dose is 10-20 mg, 3 times a day, for 2024-05-06 to 2024-05-16.",
    "Section 4.2.1 and 19.6.1.1 Changes, version 1.2.3 and 10.5 %",
    "Europe 30 37 40 357 364 350",  # the digits of a table that happen to pass Luhn
    "Order 1234567890 of 2024, 100,000 units, 98.6-101.5 °F",
    "4111 1111 1111 1112",  # the check digit is wrong
    "DE89 3704 0044 0532 0130 01",
    "000-12-3456 and 666-12-3456 and 912-34-5678 and 123-00-4567",
    "127.0.0.1, 0.0.0.0, 999.1.1.1, 12:30:45, a::b::c",
    "DOB is asked for on admission; the child was born in spring.",
    "The MRN is on the wristband. Patient ID bands are checked.",
    "user@localhost, @handle, a@b",
    "ISBN 978-3-16-148410-0, doi:10.1000/182, 555-0187",
    "0000 0000 0000 0000",
    "p < 0.001, n = 1234, CI 1.2-3.4, 37.5-38.5",
    "Jane Doe, 12 Elm Street, Springfield",  # names and addresses have no form: not found, and said so
]


@pytest.mark.parametrize(("kind", "value"), FOUND)
@pytest.mark.parametrize("frame", ["{}", "Reach her at {}.", "({}), or", "a: {}\n", "{}; x"])
def test_what_has_a_form_is_found_whole(kind: str, value: str, frame: str) -> None:
    """In a sentence, in brackets, at an end; the whole of it and nothing more."""
    text = frame.format(value)
    assert [(one.kind, text[one.start : one.end]) for one in find_personal_data(text)] == [(kind, value)]


@pytest.mark.parametrize(("kind", "label", "value"), LABELLED)
def test_what_a_label_names_is_found(kind: str, label: str, value: str) -> None:
    """The value alone: the label may stay."""
    text = f"Admission. {label}{value}. Stable."
    assert [(one.kind, text[one.start : one.end]) for one in find_personal_data(text)] == [(kind, value)]


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    """Dates, doses, versions, wrong check digits, invented ranges."""
    assert find_personal_data(text) == []


def test_a_long_text_is_searched_in_linear_time() -> None:
    """Runs that a careless pattern would try again from every character: this returns at all."""
    for piece in ("a", "1", "1 ", "a.", "+1", "A1", "1:", "a@", "DOB ", "-"):
        find_personal_data(piece * 200_000)


PIECES = st.lists(
    st.one_of(
        st.sampled_from([value for _, value in FOUND]),
        st.text(alphabet="ab \n.,0123456789-+:@", max_size=20),
    ),
    max_size=12,
)


@settings(max_examples=80)
@given(pieces=PIECES, cuts=st.lists(st.floats(0, 1), max_size=5))
def test_what_is_redacted_is_not_found_again(pieces: list[str], cuts: list[float]) -> None:
    """And every page that began outside a finding still begins at the same character."""
    text = " ".join(pieces)
    offsets = sorted({int(cut * len(text)) for cut in cuts})
    plain = PlainText(text, pages=[(offset, str(offset)) for offset in offsets])
    findings = find_personal_data(text)
    done = redacted_plain(plain, findings)
    assert done.text == redacted(text, findings)
    for (before, _), (after, label) in zip(plain.pages, done.pages, strict=True):
        assert label == str(before) and 0 <= after <= len(done.text)
        if not any(one.start < before < one.end for one in findings):
            assert done.text[after:] == redacted(
                text[before:],
                [type(o)(o.kind, o.start - before, o.end - before) for o in findings if o.start >= before],
            )
    kinds = Counter(one.kind for one in findings)
    assert all(done.text.count(KINDS[kind]) == count for kind, count in kinds.items())


def source(text: str, **metadata: object) -> Source:
    content = SourceText(
        doc_id="doc", plain=PlainText(text, headings=[(0, f"File > Of {text[:13]}")]), metadata=metadata
    )
    return Source("doc", "hash", lambda: content)


SECRET = "a@example.org is the contact."


def test_report_counts_and_changes_nothing() -> None:
    """Counts by document and kind, from text, headings and metadata; never a value."""
    watch = PrivacyWatch("report")
    given_source = source(SECRET, note=["call 212-555-0187", 5], source="b@example.org")
    (watched,) = watch.over([given_source])
    assert watched.read() == given_source.read() and watched.content_hash == "hash"
    assert watch.found == {"doc": {"email": 2, "phone": 1}}
    assert "example.org" not in repr(watch)


def test_redact_replaces_in_text_headings_and_metadata() -> None:
    """The place of the source stays, since citations point there."""
    watch = PrivacyWatch("redact")
    (watched,) = watch.over([source(SECRET, note={"x": "212-555-0187"}, source="b@example.org", page=3)])
    content = watched.read()
    assert isinstance(content, SourceText)
    assert content.plain.text == "[EMAIL] is the contact."
    assert content.plain.headings == [(0, "File > Of [EMAIL]")]
    assert content.metadata == {"note": {"x": "[PHONE]"}, "source": "b@example.org", "page": 3}
    assert watched.content_hash == "hash;pii=redact2"


def test_redact_gives_up_the_vector_of_a_text_that_changed() -> None:
    """It was made of what is to be hidden; the caller's node stays as it was."""
    nodes = [TextNode(text=text, embedding=[1.0]) for text in (SECRET, "Nothing.")]
    (watched,) = PrivacyWatch("redact").over([Source("doc", "", lambda: nodes)])
    changed, same = watched.read()  # type: ignore[misc]
    assert (changed.text, changed.embedding) == ("[EMAIL] is the contact.", None)
    assert (same.text, same.embedding) == ("Nothing.", [1.0])
    assert nodes[0].text == SECRET and watched.content_hash == ""


def test_an_estimate_takes_what_is_sent() -> None:
    """A redacted text is counted as it goes to the model; where nothing changes, nothing is searched."""
    text = SourceText(doc_id="doc", plain=PlainText("Write to jane@example.org."))
    given = [Source("doc", "h", lambda: text)]
    assert as_sent(given, "report") is given
    assert as_sent(given, "off") is given
    (redacted_source,) = as_sent(given, "redact")
    found = redacted_source.read()
    assert isinstance(found, SourceText)
    assert found.plain.text == "Write to [EMAIL]."
    with pytest.raises(IngestError, match="personal data"):
        as_sent(given, "refuse")[0].read()


def test_refuse_names_kinds_and_never_values() -> None:
    """The document is left out."""
    watch = PrivacyWatch("refuse")
    (watched,) = watch.over([source(SECRET)])
    with pytest.raises(IngestError, match=r"personal data \(2 x email\) and pii is 'refuse'") as refused:
        watched.read()
    assert "example.org" not in str(refused.value) and watch.refused == ["doc"]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_what_stands_beside_letters_of_other_scripts_is_found(kind: str, text: str) -> None:
    """Text that is ASCII is searched by patterns of its own, so both are tried."""
    for whole in (f"See {text} now", f"Voilà: {text} für München"):
        start = whole.index(text)
        assert [(one.kind, one.start, one.end) for one in find_personal_data(whole)] == [
            (kind, start, start + len(text))
        ]


def test_findings_of_a_long_text_are_those_of_its_lines() -> None:
    """They are given one after the other, in order, and a word that a pattern needs may stand anywhere."""
    lines = ["10:00 INFO from 203.0.113.7 took 17 ms\n"] * 40_000 + [
        "DOB: 03/04/1950\n",
        "Write to a@b.org\n",
    ]
    found = find_personal_data("".join(lines))
    assert Counter(one.kind for one in found) == {"ip_address": 40_000, "birth_date": 1, "email": 1}
    assert [one.start for one in found] == sorted(one.start for one in found)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("credit_card", "4111111111111111"),
        ("credit_card", "4111 1111 1111 1111"),
        ("credit_card", "3782-822463-10005"),
        ("us_ssn", "123-45-6789"),
        ("us_ssn", "123 45 6789"),
        ("phone", "212-555-0187"),
        ("phone", "212.555.0187"),
        ("phone", "(212) 555 0187"),
        ("ip_address", "2001:db8::1"),
        ("ip_address", "2001:db8:0:1:2:3:4:5"),
    ],
)
def test_numbers_are_found_in_logs_full_of_digits(kind: str, value: str) -> None:
    """What tells that a long text cannot hold a kind of number lets none through, in ASCII and in other text."""
    lines = "2026-05-01T10:22:33 id=48213 10:22:33 1.2.3\n" * 50
    for text in (f"{lines}{value}\n{lines}", f"é{lines}{value}\n{lines}"):
        assert [text[one.start : one.end] for one in find_personal_data(text) if one.kind == kind] == [value]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("IBAN: DE89 3704 0044 0532 0130 00 BIC: COBADEFFXXX", "IBAN: [IBAN] BIC: COBADEFFXXX"),
        ("NL91ABNA0417164300 BIC ABNANL2A", "[IBAN] BIC ABNANL2A"),
        ("4111 1111 1111 1111 12/27", "[CARD] 12/27"),
        ("4111-1111-1111-1111 123", "[CARD] 123"),
        ("Order 1234 4111 1111 1111 1111", "Order 1234 [CARD]"),
        ("Tel. +49 30 901820 2026-11-27", "Tel. [PHONE]-11-27"),
    ],
)
def test_what_follows_or_precedes_a_number_does_not_hide_it(text: str, left: str) -> None:
    """A bank's code, the end of a card's validity, a number of another kind, a date."""
    assert redacted(text, find_personal_data(text)) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("DE89 3704 0044\n0532 0130 00", "[IBAN]"),
        ("4111 1111\n1111 1111", "[CARD]"),
        ("3782 822463\n10005", "[CARD]"),
        ("212-\n555-0187", "[PHONE]"),
        ("212-555-\n0187", "[PHONE]"),
        ("(212)\n555-0187", "[PHONE]"),
        ("4111\n1111\n1111\n1111", "4111\n1111\n1111\n1111"),
        ("212\n555\n0187", "212\n555\n0187"),
    ],
)
def test_a_number_goes_on_in_the_next_line(text: str, left: str) -> None:
    """Where a line was broken; a column of numbers is none."""
    for surrounding in ("{}", "First line.\n{}\nlast line", "Öffnungszeiten {} täglich"):
        shown = surrounding.format(text)
        assert redacted(shown, find_personal_data(shown)) == surrounding.format(left)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("+33\u202f6\u00a012\u00a034\u00a056\u00a078", "[PHONE]"),
        ("212\u2011555\u20110187", "[PHONE]"),
        ("２１２-555-０１８７", "[PHONE]"),
        ("+٩٦٦ ٥٠ ١٢٣ ٤٥٦٧", "[PHONE]"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "[IBAN]"),
        ("4111\u00a01111\u00a01111\u00a01111", "[CARD]"),
        ("SSN 536\u201122\u20111234", "SSN [SSN]"),
        ("ada＠example.org", "[EMAIL]"),
        ("info@bücher.example", "[EMAIL]"),
        ("o'brien@example.org", "[EMAIL]"),
        ("'ada@example.org'", "'[EMAIL]'"),
    ],
)
def test_typography_and_other_scripts_hide_nothing(text: str, left: str) -> None:
    """Hard spaces and hyphens of Word and HTML, wide and Arabic digits, letters beyond ASCII in an address."""
    assert redacted(text, find_personal_data(text)) == left
