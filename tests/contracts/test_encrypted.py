"""EncryptedVectorStore keeps the promises of every store, over each store that lies in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from tests.contracts.store import METADATA, Open, StoreContract, ask, only, text_node, vector

from llama_index_presets.errors import FilterError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.store.duckdb.store import DuckDBVectorStore
from llama_index_presets.store.encrypted import EncryptedVectorStore
from llama_index_presets.store.lancedb.store import LanceDBVectorStore

KEYS = sorted(
    {key for metadata in METADATA for key in metadata} | {"nowhere", "k", "pick", "s\" = '' OR 1=1 --"}
)


class EncryptedContract(StoreContract):
    """With the metadata keys of the suite in clear."""

    modes = frozenset({VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR})
    source_keys = ()  # refused in metadata

    def test_ties_are_ordered_by_id(self, store: Any) -> None:
        """Equal vectors come in the order of their ids; which of them fit, the sealed ids decide."""
        store.add([text_node(name, vector(1, 1)) for name in "dbeca"])
        assert store.query(ask(vector(1, 1), 5)).ids == ["a", "b", "c", "d", "e"]
        some = store.query(ask(vector(1, 1), 2)).ids
        assert len(some) == 2 and some == sorted(some) == store.query(ask(vector(1, 1), 2)).ids

    def test_a_filter_on_what_is_encrypted_is_refused(self, zoo: Any) -> None:
        """It could only select nothing; ids of documents compare by equality alone."""
        for use in (
            lambda filters: zoo.query(ask(vector(1), filters=filters)),
            lambda filters: zoo.get_nodes(filters=filters),
            lambda filters: zoo.delete_nodes(filters=filters),
        ):
            with pytest.raises(FilterError, match="'secret' is encrypted .*searchable_metadata"):
                use(only("secret", "==", 1))
            with pytest.raises(FilterError, match="'text_match' on 'doc_id' reads ids"):
                use(only("doc_id", "text_match", "doc"))


class TestOverLanceDB(EncryptedContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: EncryptedVectorStore(
            LanceDBVectorStore(tmp_path / "lance", **options), sealer=Encryptor(b"k" * 32), searchable=KEYS
        )


class TestOverDuckDB(EncryptedContract):
    reopens = False

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Open:
        return lambda **options: EncryptedVectorStore(
            DuckDBVectorStore(tmp_path / "vectors.duckdb", **options),
            sealer=Encryptor(b"k" * 32),
            searchable=KEYS,
        )
