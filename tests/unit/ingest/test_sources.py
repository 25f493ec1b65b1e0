"""Files, documents, nodes and data frames are all ingested the same way."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import polars as pl
import pytest
from llama_index.core.schema import Document, ImageNode, TextNode

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.sources.frames import FrameColumns
from llama_index_presets.ingest.sources.source import sources

ROWS = {
    "text": ["First text.", "Second text."],
    "year": [2020, None],
    "when": [date(2024, 1, 2), date(2024, 1, 3)],
}


def texts(found: Any) -> list[SourceText]:
    return [item for item in (source.read() for source in found) if isinstance(item, SourceText)]


@pytest.mark.parametrize("frame", [pl.DataFrame(ROWS), pl.DataFrame(ROWS).lazy(), pd.DataFrame(ROWS)])
def test_a_frame_gives_a_document_a_row(frame: Any) -> None:
    """The text column is the text, other columns are JSON metadata, and missing values are left out."""
    first, second = texts(sources(frame, columns=FrameColumns(text="text")))
    assert first.plain.text == "First text."
    assert first.metadata["year"] == 2020 and first.metadata["when"].startswith("2024-01-02")
    assert "year" not in second.metadata


def test_an_id_column_makes_rows_replaceable() -> None:
    """A changed text under the same id is a change of that document, not a new one."""
    ids = [
        sources(pl.DataFrame({"k": [7], "t": [text]}), columns=FrameColumns(text="t", id="k"))[0]
        for text in ("a", "b")
    ]
    assert ids[0].doc_id == ids[1].doc_id == "row-7"
    assert ids[0].content_hash != ids[1].content_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs text_column. Its columns: text, year"),
        ({"text": "txt"}, "no column 'txt'. Did you mean 'text'?"),
        ({"text": "text", "id": "zzz"}, "no column 'zzz'. Its columns: text, year"),
    ],
)
def test_an_unknown_column_is_named_with_its_nearest(options: dict[str, str], message: str) -> None:
    """The error lists what the frame has."""
    with pytest.raises(IngestError, match=message):
        sources(pl.DataFrame({"text": ["a"], "year": [1]}), columns=FrameColumns(**options))


def test_documents_keep_their_id_metadata_and_exclusions() -> None:
    """What LlamaIndex users set on a Document still holds."""
    document = Document(
        text="Body.", doc_id="d1", metadata={"team": "x"}, excluded_embed_metadata_keys=["team"]
    )
    source = sources([document])[0]
    assert source.doc_id == "d1"
    (text,) = texts([source])
    assert text.metadata == {"team": "x"} and text.hidden_from_embedding == ("team",)


def test_nodes_are_grouped_by_their_document() -> None:
    """Ready nodes of one document are replaced together."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

    nodes = [TextNode(text=str(number)) for number in range(3)]
    for node in nodes[:2]:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="doc")
    found = sources(nodes)
    assert [source.doc_id for source in found] == ["doc", nodes[2].node_id]
    assert found[0].read() == nodes[:2]


def test_metadata_is_part_of_what_makes_a_document_unchanged() -> None:
    """Changing only the metadata must be ingested too, or filters would lie."""
    hashes = {sources([Document(text="a", doc_id="d", metadata={"v": v})])[0].content_hash for v in (1, 2)}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("data", "message"), [([], "Got nothing"), ([1], "Got int"), ([ImageNode(id_="i")], None)]
)
def test_other_kinds_of_data_are_refused(data: Any, message: str | None) -> None:
    """The error says what can be given."""
    if message is None:
        assert sources(data)[0].doc_id == "i"  # an ImageNode is a TextNode in LlamaIndex
        return
    with pytest.raises(IngestError, match=message):
        sources(data)
