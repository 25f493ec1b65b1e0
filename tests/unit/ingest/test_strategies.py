"""Every way to cut a document keeps to the words of the source and to what the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import FingerprintError, SettingsError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.chunking.strategies import CHUNKERS
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.markdown import plain_from_markdown
from llama_index_presets.presets.models import make_chunker
from llama_index_presets.provenance import RankedNode, StageRank
from llama_index_presets.retrieve.context_expansion import ParentMerge, SentenceWindow

TEXT = (
    "The valve of the pump leaks. Close it by hand. Then call the shift. "
    "Ropes of the lift wear out. They are changed in May. "
    "Lamps are changed yearly. Nobody needs a permit for that. The store has spare lamps."
)
DOCUMENTS = Path(__file__).parents[3] / "recipes" / "healthcare" / "documents"


def chunker(name: str, tokens: int = 24) -> Any:
    return make_chunker(WordEmbedding(model_name="words"), tokens, name)


def cut(name: str, text: str = TEXT, tokens: int = 24) -> list[TextNode]:
    return chunker(name, tokens).chunks(SourceText(doc_id="d", plain=PlainText(text)))


@pytest.mark.parametrize("name", CHUNKERS)
@settings(max_examples=15)
@given(
    text=st.text(alphabet=st.sampled_from("abcde .\n!?é漢"), min_size=1, max_size=400),
    tokens=st.integers(16, 60),
)
def test_chunks_are_verbatim_whole_and_short_enough(name: str, text: str, tokens: int) -> None:
    """Nothing is lost but white space, nothing is changed, nothing is longer than the model reads."""
    chunks = cut(name, text, tokens)
    made = chunker(name, tokens)
    assert all(text[node.start_char_idx : node.end_char_idx] == node.text for node in chunks)
    assert all(made.length(node) <= made.max_tokens for node in chunks)
    starts = [node.start_char_idx or 0 for node in chunks]
    assert starts == sorted(starts)
    assert "".join("".join(node.text for node in chunks).split()) == "".join(text.split())


@pytest.mark.parametrize("name", CHUNKERS)
def test_real_files_are_cut_without_crossing_a_heading(name: str) -> None:
    """Each chunk stands under its own heading, and its id is stable."""
    text = (DOCUMENTS / "insulin-storage.md").read_text()
    source = SourceText(doc_id="d", plain=plain_from_markdown(text))
    first, again = (chunker(name, 40).chunks(source) for _ in range(2))
    assert [node.node_id for node in first] == [node.node_id for node in again]
    assert len({node.node_id for node in first}) == len(first)
    assert {node.metadata["heading"] for node in first} >= {"Insulin storage > Pens in use"}


def test_the_name_is_part_of_what_makes_an_index() -> None:
    """Two strategies never share an index by accident."""
    names = [chunker(name).name for name in CHUNKERS]
    assert len(set(names)) == len(CHUNKERS)
    assert all(name.endswith("-24") for name in names)


def test_a_sentence_is_searched_and_its_window_is_shown() -> None:
    """Three sentences on either side, as they stand in the source; the hit that was given is left alone."""
    found = next(node for node in cut("sentence-window") if node.text == "Lamps are changed yearly.")
    assert found.metadata["window"] == TEXT[TEXT.index("Then call") :]
    assert "window" not in found.get_content("embed") and "permit" not in found.get_content("llm")
    hit = RankedNode(node=found, score=0.5, stages={"vector": StageRank(1, 0.5)})
    shown = SentenceWindow().postprocess_nodes([hit])[0]
    assert shown.node.get_content() == TEXT[TEXT.index("Then call") :]
    assert "window" not in shown.node.metadata and shown.stages == hit.stages  # type: ignore[attr-defined]
    assert found.text == "Lamps are changed yearly." and shown.node.node_id == found.node_id


def test_a_hit_without_a_window_stays_as_it_is() -> None:
    """Nodes that came from elsewhere pass through."""
    hit = NodeWithScore(node=TextNode(text="as is"), score=1.0)
    for part in (SentenceWindow(), ParentMerge()):
        assert part.postprocess_nodes([hit])[0].node.get_content() == "as is"


def test_a_chunk_replaces_its_parts_where_most_were_found() -> None:
    """It takes the place, the score and the id of its best part; lonely parts stay."""
    nodes = cut("hierarchical", TEXT * 2, 40)
    groups: dict[str, list[TextNode]] = {}
    for node in nodes:
        groups.setdefault(node.metadata["parent_id"], []).append(node)
    full, other = [group for group in groups.values() if len(group) > 1][:2]
    hits = [NodeWithScore(node=node, score=1 - place / 10) for place, node in enumerate([other[0], *full])]
    found = ParentMerge().postprocess_nodes(hits)
    assert [hit.node.node_id for hit in found] == [other[0].node_id, full[0].node_id]
    assert [hit.score for hit in found] == [1.0, 0.9]
    assert found[0].node.get_content() == other[0].text
    whole = found[1].node.get_content()
    assert whole == full[0].metadata["parent_text"] and all(part.text in whole for part in full)
    assert not set(found[1].node.metadata) & {"parent_id", "parent_text", "parent_leaves"}
    assert full[0].text != whole


def test_semantic_breaks_where_the_words_change() -> None:
    """Sentences of one topic stay together."""
    pumps = "The pump leaks here. The pump leaks there. The pump leaks much. "
    text = pumps + "Snow fell at night. Snow fell at noon. Snow fell at last."
    assert cut("semantic", text, 60)[0].text == pumps.strip()


@pytest.mark.parametrize(
    ("name", "pattern"), [*((name, "simple") for name in CHUNKERS), ("hierarchical", "hybrid")]
)
def test_every_strategy_answers_through_a_preset(name: str, pattern: str, tmp_path: Path) -> None:
    """One setting; the answer is quoted from its document, and another setting refuses the index."""
    with build("healthcare", storage=tmp_path, settings={"chunking": name, "pattern": pattern}) as engine:
        engine.ingest(DOCUMENTS / "insulin-storage.md")
        response = engine.query("How long may an insulin pen in use be kept at room temperature?")
        assert "28 days" in str(response) and response.metadata["citations"][0]["valid"]
        assert "parent_text" not in response.source_nodes[0].node.metadata
    other = "token" if name == "sentence" else "sentence"
    with pytest.raises(FingerprintError, match=f"chunker={name}"):
        build("healthcare", storage=tmp_path, settings={"chunking": other, "pattern": pattern})


def test_an_unknown_strategy_is_refused(tmp_path: Path) -> None:
    """The choices are named."""
    with pytest.raises(SettingsError, match="sentence-window"):
        build("healthcare", storage=tmp_path, llm=ScriptedLLM(), settings={"chunking": "words"})
