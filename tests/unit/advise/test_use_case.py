"""A use case in words: what is read from it, what is not, and which preset it finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_presets import PRESETS, recommend
from llama_index_presets.advise.requirements import Requirements
from llama_index_presets.advise.use_case import facts_of, read_use_case
from llama_index_presets.errors import SettingsError


@pytest.mark.parametrize("name", PRESETS)
def test_the_use_case_of_a_preset_and_its_name_find_it(name: str) -> None:
    """What `list` shows can be given back."""
    assert recommend(PRESETS[name].use_case).best.preset == name
    assert recommend(name).best.preset == name


@pytest.mark.parametrize(
    ("words", "best"),
    [
        ("medical records", "healthcare"),
        ("10-K filings of public companies", "financial-documents"),
        ("legal contracts", "financial-documents"),
        ("employee handbook", "knowledge-base"),
        ("FAQ of our web site", "customer-chatbot"),
        ("academic literature search", "research-papers"),
        ("photos of products", "multi-modal"),
        ("300 million web pages", "high-volume"),
        ("notes of a team that must stay on our own machines", "healthcare"),
    ],
)
def test_other_words_find_a_preset_too(words: str, best: str) -> None:
    """The field of work decides, whatever it is called."""
    assert recommend(words).best.preset == best


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("2,000 patient records, no images", {"private": True, "modalities": ["text"], "documents": 2_000}),
        ("3k PDFs, 500 questions a day", {"documents": 3_000, "queries_per_month": 15_200}),
        ("1.5 million scanned files with a GPU", {"documents": 1_500_000, "gpu": True}),
        ("more than 10 million documents", {"documents": 10_000_001}),
        ("tens of thousands of e-mails", {"documents": 20_000}),
        ("wiki, $20 a month", {"budget_usd": 20.0}),
        ("wiki, 120 dollars per year", {"budget_usd": 10.0}),
        ("wiki, not private, without Postgres", {"private": False, "postgres": False}),
        ("not only images", {"modalities": ["text", "image"]}),
        ("no network, air-gapped", {"offline": True}),
        ("cheap, and of the best quality", {}),
        ("workshop of a secretary", {}),
        ("answers in 10 sec about 10-K filings", {"exact_words": True, "audited": True}),
        ("500 questions about notes", {}),
        ("we don’t have a GPU; nothing private", {"gpu": False, "private": False}),
        ("images aren't needed, audit not required", {"modalities": ["text"], "audited": False}),
        ("images: none", {"modalities": ["text"]}),
        ("not just customers", {"customers": True}),
        ("10 k documents", {"documents": 10_000}),
        ("10 K filings", {"exact_words": True, "audited": True}),
        ("1.000 documents", {"documents": 1_000}),
        ("1e6 documents, -5 documents", {}),
        ("100 GB of documents", {}),
        ("between 100 and 200 files", {"documents": 200}),
        ("2024 reports", {}),
        ("2000 reports", {"documents": 2_000}),
        ("no more than 500 files", {"documents": 500}),
        ("1,000 new tickets per day", {}),
        ("2000 customer questions a day", {"customers": True, "queries_per_month": 60_800}),
        ("texts that cannot leave our servers", {"private": True}),
    ],
)
def test_facts_are_read_from_words_and_numbers(words: str, facts: dict[str, Any]) -> None:
    """What is said both ways is left out; a number of questions is none of documents."""
    assert facts_of(read_use_case(f"wiki: {words}")) == facts


def test_each_fact_names_the_words_that_say_it() -> None:
    """So that a reader sees what was misread."""
    private, images, *_ = read_use_case("letters of patients in a clinic, without any pictures")
    assert (private.field, private.words) == ("private", ("patients", "clinic"))
    assert (images.field, images.value, images.words) == ("modalities", ["text"], ("without any pictures",))


def test_keywords_go_before_words() -> None:
    """A fact that is given is not read."""
    found = recommend("patient letters, 300 documents", private=False, documents=20)
    assert (found.requirements.private, found.requirements.documents) == (False, 20)
    assert {part.field for part in found.understood} == {"private", "documents"}
    with pytest.raises(SettingsError, match="Did you mean 'private'"):
        recommend("wiki", privat=True)


@pytest.mark.parametrize("words", ["", "cooking recipes", "Kochbuch", "?" * 500, "wiki " * 500])
def test_a_text_that_says_nothing_is_an_error(words: str) -> None:
    """A guess would look like a recommendation."""
    with pytest.raises(
        SettingsError, match=r"recommend knows of\. Name the field|describe it in up to 2,000"
    ):
        recommend(words)


@given(st.text(alphabet="no 1,.km$-/ abcdefghij", max_size=2_000) | st.text(max_size=2_000))
def test_any_text_gives_valid_requirements_or_the_error(text: str) -> None:
    """Numbers without end, half words, other scripts."""
    try:
        understood = read_use_case(text)
    except SettingsError:
        return
    assert understood and all(part.words for part in understood)
    Requirements(**facts_of(understood))


@pytest.mark.parametrize(
    "part", ["no ", "1,111 ", "9", "not-not-", "1,111,111,", "10 million of ", "$1 a ", "a-"]
)
def test_no_text_keeps_the_reader_busy(part: str) -> None:
    """The patterns have bounds: the longest text of repeated parts is read at once (the suite's time limit holds)."""
    text = ("wiki " + part * 2_000)[:2_000]
    for _ in range(20):
        read_use_case(text)


def test_the_command_says_what_it_read(run) -> None:  # type: ignore[no-untyped-def]
    """First of all; a flag corrects it, and JSON has it too."""
    code, out, _ = run("recommend", "patient letters", "3k", "documents", "--no-private")
    assert code == 0 and "  documents = 3,000: '3k documents'" in out
    assert "private = yes" not in out
    code, out, _ = run("recommend", "patient letters", "--json")
    found = json.loads(out)
    assert found["understood"] == [{"field": "private", "value": True, "words": ["patient"]}]
    assert found["ranked"][0]["preset"] == "healthcare"


@pytest.mark.parametrize("words", [("Handbuch", "der", "Firma"), ("nos contrats",)])
def test_the_command_says_what_to_give_instead(run, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """Names of fields, flags, and the list of use cases."""
    code, _, error = run("recommend", *words)
    assert code == 2 and f"'{' '.join(words)}' says nothing that recommend knows of" in error
    assert "customer support" in error and "--private" in error and "llama-presets list" in error
