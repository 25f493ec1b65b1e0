"""Folder of ``StorageContext.persist``: a simple vector store with its document store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from llama_index_presets.errors import StoreCorruptError, StoreError
from llama_index_presets.store.adopt.reader import StockReader

__all__ = ["StockFolder"]

_SUFFIX: Final = "__vector_store.json"


class StockFolder(StockReader):
    """Nodes of a folder that ``index.storage_context.persist(folder)`` wrote with a ``SimpleVectorStore``.

    Args:
        folder: The folder; text and relationships are in its ``docstore.json``, vectors in ``…__vector_store.json``.
        namespace: The vector store's name, where the folder has several; llama-index-core writes ``"default"``.

    Raises:
        StoreError: The folder lacks one of the two files, or one is damaged.
    """

    def __init__(self, folder: str | Path, namespace: str | None = None) -> None:
        folder = Path(folder)
        self.place = f"folder '{folder}'"
        vectors = folder / f"{namespace or 'default'}{_SUFFIX}"
        for file in (vectors, folder / "docstore.json"):
            if not file.is_file():
                names = sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))
                raise StoreError(
                    f"{self.place} has no '{file.name}'. Vector stores in it: {', '.join(names) or 'none'}."
                )
        try:
            self._vectors = SimpleVectorStore.from_persist_path(str(vectors)).data.embedding_dict
            self._documents = SimpleDocumentStore.from_persist_dir(str(folder))
        except ValueError as error:
            raise StoreError(f"{self.place} is damaged ({str(error)[:200]}).") from error

    def ids_as_stored(self) -> list[str]:
        """Ids of the vectors, in their order."""
        return list(self._vectors)

    def get_nodes(self, node_ids: list[str]) -> list[BaseNode]:
        """Nodes of the document store with their embeddings."""
        nodes = []
        for node_id in node_ids:
            node = self._documents.get_document(node_id, raise_error=False)
            if node is None:
                raise StoreCorruptError(
                    f"{self.place} has a vector of '{node_id}', but its docstore.json no such node."
                )
            nodes.append(node.model_copy(update={"embedding": [float(x) for x in self._vectors[node_id]]}))
        return nodes
