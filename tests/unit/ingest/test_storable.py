"""Metadata that not every store can hold: cleaned before it reaches one, and said in the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.metadata.storable import storable
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.presets.engine import PresetEngine

NULL = "NaN or infinite, which JSON has no number for; stored as null."


@pytest.mark.parametrize(
    ("metadata", "kept", "lines"),
    [
        ({"a": 1, "b": [True, None, "x"], "c": {"d": 2.5}}, None, []),
        ({"a": "x\0y"}, {"a": "xy"}, ["metadata 'a': 1 value is text with NUL characters, which were removed."]),
        ({"k\0": {"b": ["\0"]}}, {"k": {"b": [""]}}, ["metadata 'k\ufffd': 2 values are text with NUL"]),
        ({"a": "x\ud800"}, {"a": "x\ufffd"}, ["metadata 'a': 1 value is text with half of a character"]),
        ({"a": "\ud83d\ude00"}, {"a": "\U0001f600"}, []),
        ({"a": math.nan, "b": [math.inf, 1]}, {"a": None, "b": [None, 1]}, [f"metadata 'a', 'b': 2 values are {NULL}"]),
        ({"a": np.float32("nan"), "b": np.array([1, math.nan])}, {"a": None, "b": [1, None]}, ["metadata 'a', 'b': 2"]),
        ({name: math.inf for name in "abcde"}, dict.fromkeys("abcde"), ["metadata 'a', 'b', 'c' …: 5 values are"]),
        ({"k" * 90: math.nan}, {"k" * 90: None}, [f"metadata '{'k' * 57}…': 1 value is"]),
    ],
)  # fmt: skip
def test_what_no_store_can_hold_is_changed_and_said(
    metadata: dict[str, Any], kept: dict[str, Any] | None, lines: list[str]
) -> None:
    """In keys, in lists and in objects; everything else is as it was."""
    found, said = storable(SourceText(doc_id="d", plain=PlainText(""), metadata=metadata))
    assert isinstance(found, SourceText)
    assert found.metadata == (metadata if kept is None else kept)
    assert [one.startswith(line) for one, line in zip(said, lines, strict=True)] == [True] * len(lines), said


def test_keys_that_would_become_one_are_refused() -> None:
    """None of the two values is dropped without a word."""
    with pytest.raises(
        IngestError, match="two keys that differ in characters that no store can hold: 'a\ufffd'"
    ):
        storable(SourceText(doc_id="d", plain=PlainText(""), metadata={"a": 1, "a\0": 2}))


@pytest.fixture(params=["duckdb", "lancedb", "pgvector"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with build("knowledge-base", storage=tmp_path / "s", embed_model=WordEmbedding(), llm=ScriptedLLM(reply="?"),
               settings={"store": request.param}) as engine:  # fmt: skip
        yield engine


def test_every_store_holds_the_same(engine: PresetEngine) -> None:
    """Postgres alone refused a document for a NUL character; ids are refused everywhere, and the others go in."""
    node = TextNode(text="Cows moo.", id_="node", metadata={"k": "a\0b"})
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="cows")
    data = [
        Document(text="Cats\0 purr.", id_="cats", metadata={"a.b'c\"d[0]$%": "x\0y", "k" * 10_000: math.nan, "": 1}),
        Document(text="Dogs bark.", id_="do\0gs"),
        Document(text="Hens cluck.", id_="hens"),
        node,
        TextNode(text="A pig\0.", id_="pig"),
    ]  # fmt: skip
    report = engine.ingest(data)
    assert {one.source: one.error for one in report.failed} == {
        "do\\0gs": "Its id holds a NUL character. Give it another id.",
        "pig": "The text of node 'pig' holds a NUL character. Replace it.",
    }
    assert report.documents == 3 and sorted(report.warnings) == ["cats", "cows"]
    assert "removed" in report.warnings["cows"][0] and "null" in report.warnings["cats"][1]
    found = {hit.node.ref_doc_id: hit.node for hit in engine.retrieve("cats dogs hens cows purr")}
    kept = found["cats"].metadata
    assert (kept["a.b'c\"d[0]$%"], kept["k" * 10_000], kept[""]) == ("xy", None, 1)
    assert found["cows"].metadata["k"] == "ab" and node.metadata["k"] == "a\0b"
    assert engine.ingest(data).unchanged == 3
