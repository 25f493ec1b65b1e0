"""A question finds a document of its language, with the default settings of a preset whose model knows English only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Document

from llama_index_presets import PresetEngine, build

FACTS = json.loads((Path(__file__).parents[1] / "fixtures/languages/facts.json").read_text(encoding="utf-8"))
FACTS = {language: pairs[5:10] for language, pairs in FACTS.items()}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PresetEngine]:
    """Five facts in ten languages, in one index."""
    documents = [
        Document(text=statement, id_=f"{language}-{place}")
        for language, pairs in FACTS.items()
        for place, (statement, _) in enumerate(pairs)
    ]
    with build("healthcare", storage=tmp_path_factory.mktemp("clinic")) as made:
        made.ingest(documents, show_progress=False)
        yield made


@pytest.mark.parametrize("language", FACTS)
def test_a_question_is_answered_from_a_document_of_its_language(engine: PresetEngine, language: str) -> None:
    """Not only found: known, cited and quoted."""
    for place, (_, question) in enumerate(FACTS[language]):
        response = engine.query(question)
        assert response.metadata["known"], question
        assert response.metadata["citations"][0]["source"] == f"{language}-{place}"


async def test_the_language_is_found_without_blocking(engine: PresetEngine) -> None:
    """The asynchronous question takes the same way."""
    response = await engine.aquery(FACTS["th"][0][1])
    assert response.source_nodes[0].node.ref_doc_id == "th-0"


def test_chunks_say_their_language_and_do_not_embed_it(engine: PresetEngine) -> None:
    """It is there to filter on, and the model reads the text alone."""
    node = next(one for one in engine.vector_store.get_nodes() if one.ref_doc_id == "ru-0")
    assert node.metadata["language"] == "ru"
    assert node.get_content("embed") == FACTS["ru"][0][0]


def test_a_document_that_goes_is_not_found_by_its_words(tmp_path: Path) -> None:
    """What the keyword search holds in memory follows the index."""
    with build("healthcare", storage=tmp_path) as engine:
        thai = [Document(text=text, id_=str(place)) for place, (text, _) in enumerate(FACTS["th"])]
        engine.ingest(thai, show_progress=False)
        assert engine.query(FACTS["th"][0][1]).source_nodes[0].node.ref_doc_id == "0"
        engine.delete(["0"])
        assert "0" not in {hit.node.ref_doc_id for hit in engine.query(FACTS["th"][0][1]).source_nodes}


def test_filters_hold_in_every_language(engine: PresetEngine) -> None:
    """A tenant's engine sees its own documents, whatever way they are found."""
    other = engine.for_tenant("other")
    assert other.query(FACTS["th"][0][1]).source_nodes == []
