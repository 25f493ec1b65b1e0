"""What `build` says of arguments of another type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import MockEmbedding
from llama_index.core.llms import MockLLM

from llama_index_presets import build
from llama_index_presets.errors import SettingsError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"embed_model": "all-mpnet-base-v2"}, r"embed_model is of type str; give .* settings=\{'embedding'"),
    ({"embed_model": MockEmbedding}, "embed_model is of type type, the class MockEmbedding itself"),
    ({"vector_store": "duckdb"}, r"vector_store is of type str; give .* settings=\{'store'"),
    (
        {"reranker": "cross-encoder/ms-marco-MiniLM-L6-v2"},
        "reranker is of type str; give .*CrossEncoderRerank",
    ),
    ({"llm": MockLLM}, "llm is of type type, the class MockLLM itself"),
    ({"llm": print}, "llm is of type builtin_function_or_method; give a LlamaIndex LLM, or a name"),
    ({"filters": {"kind": "lease"}}, "filters are of type dict; give MetadataFilters"),
    ({"settings": ["top_k"]}, "settings is of type list; give a dictionary"),
    ({"storage": None}, "storage is of type NoneType; give a folder"),
    ({"storage": ""}, "storage is empty; give a folder"),
    ({"preset": None}, "preset is of type NoneType; give its name"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(sorted(wrong)) for wrong, _ in WRONG])
def test_an_argument_of_another_type_is_named(
    wrong: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an AttributeError, a folder called None, or was not looked at before the first question."""
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {"preset": "healthcare", "storage": "clinic", **wrong}
    with pytest.raises(SettingsError, match=message):
        build(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_url_given_as_a_store_is_not_shown() -> None:
    """It may hold a password."""
    url: Any = "postgresql://ann:secret@db/app"
    with pytest.raises(SettingsError, match="its URL or folder into storage=") as caught:
        build("customer-chatbot", storage="x", vector_store=url)
    assert "secret" not in str(caught.value)
