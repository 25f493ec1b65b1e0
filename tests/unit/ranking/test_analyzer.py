"""Text to tokens."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import SettingsError
from llama_index_presets.ranking.bm25 import LANGUAGES, Analyzer
from llama_index_presets.ranking.bm25.analyzer import EXTRA


@pytest.mark.parametrize("token", ["c", "7", "x", "42", "ab", "17b", "a"])
def test_digits_part_numbers_and_single_letters_are_kept(token: str) -> None:
    """Vitamin C, grade A and part 7 must be findable."""
    assert token in Analyzer().tokens(f"the type {token} of AB-17b-42")  # every one of them occurs


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("english", "The pumps were running", "pump runs"),
        ("german", "Die Häuser am Straßenrand", "Haus STRASSENRAND"),
        ("french", "L'eau des rivières", "eau rivière"),
        ("hindi", "लड़कियां किताबें", "लड़की किताब"),
        ("spanish", "las canciones", "canción"),
    ],
)
def test_a_query_finds_other_forms_of_the_word(language: str, text: str, query: str) -> None:
    """Documents and queries are stemmed alike."""
    analyzer = Analyzer(language=language)
    assert set(analyzer.tokens(query)) <= set(analyzer.tokens(text))


def test_stop_words_are_those_of_the_language() -> None:
    """German "will" is a stop word, and English "will" is not German."""
    assert Analyzer(language="german").tokens("der will") == []
    assert Analyzer(language="english").tokens("the der") == ["der"]


@pytest.mark.parametrize(
    ("text", "query"), [("東京都に住む", "東京"), ("我爱北京天安门", "北京"), ("猫です", "猫")]
)
def test_text_without_spaces_is_found_by_any_part(text: str, query: str) -> None:
    """Chinese and Japanese work in every language setting."""
    for language in ("cjk", "english"):
        analyzer = Analyzer(language=language)
        assert set(analyzer.tokens(query)) <= set(analyzer.tokens(text))


def test_typographic_and_full_width_forms_are_the_same_word() -> None:
    """NFKC and apostrophes: what looks the same is the same."""
    analyzer = Analyzer()
    assert analyzer.tokens("ＡＢＣ１２３") == analyzer.tokens("abc123")
    assert analyzer.tokens("the company’s") == analyzer.tokens("company's") == analyzer.tokens("company")


@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_survive_json(language: str) -> None:
    """An analyzer read back is equal, in every language."""
    analyzer = Analyzer(language=language, stem=False)
    assert Analyzer(**json.loads(json.dumps(analyzer.settings()))) == analyzer


def test_iso_codes_name_languages() -> None:
    """ "de" is German, as in BM25Retriever."""
    assert Analyzer(language="DE") == Analyzer(language="german")


def test_an_unknown_language_lists_the_known_ones() -> None:
    """The error is its own documentation."""
    with pytest.raises(SettingsError, match=r"no language 'klingon'.*english"):
        Analyzer(language="klingon")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_no_letter_or_digit_is_lost_without_stemming(text: str) -> None:
    """Any text gives tokens without spaces, and the same ones again."""
    analyzer = Analyzer(language="none")
    tokens = analyzer.tokens(text)
    assert tokens == analyzer.tokens(text)
    assert all(token and not any(c.isspace() for c in token) for token in tokens)


def test_threads_share_one_analyzer() -> None:
    """The stemmer and its memory are used by many threads at once."""
    texts = [f"running number {i} of the temperatures" for i in range(200)]
    analyzer = Analyzer()
    expected = [Analyzer(stopwords=True).tokens(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(analyzer.tokens, texts)) == expected


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("the annual report on Form 10-K", "10K"),
        ("the annual report on Form 10-K", "10-k"),
        ("vitamin B12 deficiency", "B-12"),
        ("release v2.3.1 of the server", "v2.3.1"),
        ("as § 4(a)(ii) demands", "4(a)"),
        ("as § 4(a)(ii) demands", "4(a)(ii)"),
        ("sales of 1,234,567 dollars", "1234567"),
        ("R&D expenses", "r&d"),
        ("COVID-19/influenza", "covid19"),
        ("Größe B-12 nach § 4(a)", "4(a)"),
    ],
)
def test_identifiers_and_numbers_are_kept_whole(text: str, query: str) -> None:
    """Every token of an identifier, the whole included, however its hyphens are written."""
    analyzer = Analyzer(identifiers=True)
    assert set(analyzer.tokens(query)) <= set(analyzer.tokens(text))
    assert {query.lower().replace("-", "")} <= set(analyzer.tokens(query))


def test_the_words_of_a_name_follow_it() -> None:
    """A column ``payment_terms`` is found by "payment terms", by its own spelling, and as a phrase of neither."""
    marked = Analyzer(identifiers=True, marks=True)
    assert marked.tokens("payment_terms") == ["payment_term", EXTRA, "payment", EXTRA, "term"]
    assert Analyzer(identifiers=True).tokens("date_of_birth") == ["date_of_birth", "date", "birth"]
    assert Analyzer(identifiers=True).tokens("__init__ _x") == ["__init__", "_x"]


def test_identifiers_are_kept_in_parts() -> None:
    """A part finds what it belongs to, and plain words keep the tokens that they have without the option."""
    parts = {
        "10-K": "10 k 10k",
        "v2.3.1": "v2 v 2 3 1 v2.3.1",
        "B12": "b12 b 12",
        "§ 4(a)(ii)": "4 a ii 4(a) 4(a)(ii)",
    }
    assert {text: " ".join(Analyzer(identifiers=True).tokens(text)) for text in parts} == parts
    text = "The company's long-term plans, e.g. in the U.S."
    assert Analyzer(identifiers=True).tokens(text) == Analyzer().tokens(text)
