"""Rows of nodes: what is said of one that holds none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.schema import TextNode

from llama_index_presets.errors import StoreCorruptError
from llama_index_presets.store.adopt.reader import node_of_row
from llama_index_presets.store.node_codec import to_node, to_row


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"metadata": '["a patient"]'}, "metadata: Input should be a valid dictionary"),
        ({"node": '{"relationships": "a patient"}'}, "relationships: Input should be a valid dictionary"),
        ({"node": "a patient"}, "Expecting value"),
    ],
)
def test_a_damaged_row_is_told_of_without_its_text(damage: dict[str, Any], told: str) -> None:
    """The message is written to the server's log; pydantic's own repeats the value that it refused."""
    row = to_row(TextNode(id_="n1", text="a patient"))._replace(**damage)
    with pytest.raises(StoreCorruptError) as caught:
        to_node(row)
    assert told in str(caught.value)
    assert "patient" not in str(caught.value)


def test_so_is_a_row_of_the_stock_adapters() -> None:
    """Their JSON is a metadata column's."""
    content = {"_node_type": "TextNode", "_node_content": json.dumps({"metadata": ["a patient"]})}
    with pytest.raises(StoreCorruptError) as caught:
        node_of_row("n1", "a patient", content, None, place="t")
    assert "Input should be a valid dictionary" in str(caught.value)
    assert "patient" not in str(caught.value)
