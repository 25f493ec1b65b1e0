"""A keyword index analyzes each node in its own language, and a question in those that it may be in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode

from llama_index_presets import BM25Index

FACTS = json.loads((Path(__file__).parents[2] / "fixtures/languages/facts.json").read_text(encoding="utf-8"))


def auto(*texts: str, path: Path | None = None, **metadata: str) -> BM25Index:
    index = BM25Index(path, language="auto")
    index.add([TextNode(id_=str(place), text=text, metadata=metadata) for place, text in enumerate(texts)])
    return index


@pytest.fixture(scope="module")
def parallel() -> BM25Index:
    """The same facts in ten languages."""
    index = BM25Index(language="auto")
    index.add(
        [
            TextNode(id_=f"{language}-{place}", text=statement)
            for language, pairs in FACTS.items()
            for place, (statement, _) in enumerate(pairs)
        ]
    )
    return index


@pytest.mark.parametrize("language", FACTS)
def test_a_question_finds_the_sentence_of_its_language(parallel: BM25Index, language: str) -> None:
    """Of 140 sentences the best is the one that the question asks for, in the question's language."""
    best = [parallel.search(question, 1)[0][0] for _, question in FACTS[language]]
    assert best == [f"{language}-{place}" for place in range(14)]


def test_words_are_stemmed_in_the_language_of_their_document() -> None:
    """German endings are those of German, beside documents in English."""
    index = auto(
        "Die Häuser der kleinen Städte wurden im letzten Jahr verkauft.",
        "The houses of the small towns were sold in the last year.",
    )
    assert [name for name, _ in index.search("Haus Stadt verkaufen")] == ["0"]
    assert [name for name, _ in index.search("house town")] == ["1"]


def test_the_metadata_of_a_node_names_its_language() -> None:
    """A text too short to tell is stemmed as stated."""
    index = auto("Verträge", language="de")
    assert [name for name, _ in index.search("Vertrag")] == ["0"]
    assert auto("Verträge").search("Vertrag") == []


def test_the_languages_of_an_index_survive_its_closing(tmp_path: Path) -> None:
    """A new process asks in the languages that the folder holds."""
    auto("Die Häuser der kleinen Städte wurden im letzten Jahr verkauft.", path=tmp_path / "words")
    opened = BM25Index(tmp_path / "words")
    assert opened.settings["language"] == "auto"
    assert [name for name, _ in opened.search("Haus")] == ["0"]


def test_an_english_index_scores_as_one_made_for_english() -> None:
    """English documents cost nothing for languages that are not there: not a token, not a digit of a score."""
    texts = [statement for statement, _ in FACTS["en"]]
    question = FACTS["en"][2][1]
    english = BM25Index(language="english")
    english.add([TextNode(id_=str(place), text=text) for place, text in enumerate(texts)])
    assert auto(*texts).search(question) == english.search(question)


@pytest.mark.parametrize("query", ["istanbul", "İSTANBUL", "İstanbul'da"])
def test_turkish_dotted_i_is_one_letter(query: str) -> None:
    """Capital İ is the capital of i, in Turkish and where English is looked for."""
    for language in ("turkish", "english"):
        index = BM25Index(language=language)
        index.add([TextNode(id_="a", text="İstanbul'da ofis"), TextNode(id_="b", text="Ankara")])
        assert [name for name, _ in index.search(query)] == ["a"], language


@pytest.mark.parametrize("query", ["ışık", "IŞIK", "Işık", "IŞ*"])
def test_turkish_dotless_i_is_another(query: str) -> None:
    """In Turkish I is the capital of ı, in words and in prefixes."""
    index = BM25Index(language="turkish")
    index.add([TextNode(id_="a", text="IŞIK kapalı"), TextNode(id_="b", text="işik")])
    assert [name for name, _ in index.search(query)] == ["a"]


def test_hindi_marks_are_part_of_their_words() -> None:
    """Vowel signs and nuktas are combining marks; without them two words would be the same."""
    index = BM25Index(language="hindi")
    index.add([TextNode(id_="a", text="फल"), TextNode(id_="b", text="फूल")])
    assert [name for name, _ in index.search("फूल")] == ["b"]
