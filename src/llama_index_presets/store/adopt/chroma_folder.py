"""Folder of a Chroma client, with a collection that the official Chroma adapter wrote."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import StoreError
from llama_index_presets.packages.extras import require
from llama_index_presets.store.adopt.reader import StockReader, node_of_row

__all__ = ["StockChroma"]


class StockChroma(StockReader):
    """Nodes of a collection in a folder that ``chromadb.PersistentClient`` keeps.

    Chroma has no read-only mode and may upgrade what it opens, so a copy of the folder is read; it is in the system's
    folder for temporary files until `close`. Chroma's telemetry is off.

    Args:
        folder: The folder that holds ``chroma.sqlite3``.
        collection: Its collection; by default the only one.

    Raises:
        MissingExtraError: The extra ``chroma`` is not installed.
        StoreError: It is no folder of Chroma, or has no such collection.
    """

    def __init__(self, folder: str | Path, collection: str | None = None) -> None:
        folder = Path(folder)
        if not (folder / "chroma.sqlite3").is_file():
            raise StoreError(f"'{folder}' has no 'chroma.sqlite3'. Give the folder of a PersistentClient.")
        chromadb: Any = require("chromadb", extra="chroma")
        self._copy = tempfile.TemporaryDirectory(prefix="adopt-chroma-")
        try:
            shutil.copytree(folder, self._copy.name, dirs_exist_ok=True)
            settings = chromadb.config.Settings(anonymized_telemetry=False)
            client = chromadb.PersistentClient(self._copy.name, settings=settings)
            names = sorted(str(getattr(one, "name", one)) for one in client.list_collections())
            if collection is None and len(names) == 1:
                collection = names[0]
            if collection not in names:
                raise StoreError(
                    f"'{folder}' has the collections {', '.join(names) or '(none)'}. "
                    f"Name the one to read: chroma:{folder}#COLLECTION."
                )
            self._collection = client.get_collection(collection, embedding_function=None)
        except BaseException:
            self.close()
            raise
        self.place = f"collection '{collection}' of '{folder}'"

    def ids_as_stored(self) -> list[str]:
        """Ids of the collection."""
        return list(self._collection.get(include=[])["ids"])

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes with their embeddings."""
        if not node_ids:
            return []
        rows = self._collection.get(ids=node_ids, include=["documents", "metadatas", "embeddings"])
        columns = (rows[name] for name in ("ids", "documents", "metadatas", "embeddings"))
        return [node_of_row(*row, place=self.place) for row in zip(*columns, strict=True)]

    def close(self) -> None:
        """Remove the copy."""
        self._copy.cleanup()
