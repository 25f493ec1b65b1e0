"""Languages are told apart, by script and by words, in texts as short as a question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_index_presets.text import languages
from llama_index_presets.text.languages import (
    SCRIPTS,
    detect_language,
    language_code,
    likely_languages,
    script_language,
)

FACTS = json.loads((Path(__file__).parents[1] / "fixtures/languages/facts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", FACTS)
def test_the_language_of_a_sentence_is_found(language: str) -> None:
    """Statements and questions of one line are enough."""
    sentences = [sentence for pair in FACTS[language] for sentence in pair]
    assert [detect_language(sentence) for sentence in sentences] == [language] * 28


@pytest.mark.parametrize("text", ["", "12,5 %", "AB-17", "OK", "Müller"])
def test_too_few_letters_tell_nothing(text: str) -> None:
    """A code or a name is in no language; saying one would choose a stemmer by chance."""
    assert detect_language(text) is None


def test_a_question_is_looked_for_among_the_languages_at_hand() -> None:
    """Of what an index holds, the likely ones come first; a script that none of them has gives none."""
    assert likely_languages("Wie oft wird die Pumpe geprüft?", ["en", "de", "fr"]) == ["de"]
    assert likely_languages("東京の人口は？", ["en", "de"]) == []
    assert likely_languages("東京", ["en", "ja"]) == ["ja"]
    assert "de" in likely_languages("Pumpe", ["en", "de"])


def test_english_does_not_load_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case costs nothing: no model is read for a text that is plainly English."""

    def refuse() -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("llama_index_presets.text.languages._model", refuse)
    assert detect_language("The pump is inspected every six months, and this is noted.") == "en"
    assert likely_languages("How often is the pump inspected?", ["en", "de"]) == ["en"]


def test_languages_are_known_by_code_tag_and_name() -> None:
    """What documents state is read in the forms that they state it in."""
    assert [language_code(name) for name in ("de", "de-AT", "pt_BR", "German", "Türkçe", "tlh")] == [
        "de",
        "de",
        "pt",
        "de",
        "tr",
        None,
    ]


def test_every_language_of_a_script_can_be_found() -> None:
    """A code that the model does not know would never be found, in silence."""
    from py3langid import rank

    known = {label for label, _ in rank("text")} | {"no"}
    assert {code for codes in SCRIPTS.values() for code in codes} <= known


def test_the_script_alone_tells_how_sentences_end() -> None:
    """Without a model, a text is taken for the largest language of its script."""
    assert [script_language(text) for text in ("Où ça ?", "Где?", "どこ？", "कहाँ?", "1")] == [
        "en",
        "ru",
        "ja",
        "hi",
        "en",
    ]


def test_a_text_is_ranked_as_py3langid_ranks_it() -> None:
    """Its tables are mapped from a file and have fewer columns: the scores of those that are left stay the same."""
    from py3langid.langid import LanguageIdentifier

    own = LanguageIdentifier.from_model_file("data/model.npz.xz")
    own.set_languages(set(languages._model().nb_classes))
    for text in ("Das Ventil ist undicht.", "Насос не работает.", "Ventilen läcker.", "4711"):
        assert languages._model().rank(text) == own.rank(text)
