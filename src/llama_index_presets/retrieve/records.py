"""A node as the keyword index keeps it, and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc

from llama_index_presets.errors import NodeRejectedError
from llama_index_presets.filters import filterable_metadata
from llama_index_presets.retrieve.shelf import Head

__all__ = ["body_of", "head_of", "node_of"]


def head_of(node: BaseNode, text: str) -> Head:
    """What is known of a node without reading it.

    Args:
        node: Any node.
        text: Its text as it is indexed.

    Raises:
        NodeRejectedError: A metadata value has no JSON form.
    """
    try:
        metadata = filterable_metadata(node)
    except ValueError as error:
        raise NodeRejectedError(
            f"The metadata of node '{node.node_id}' cannot be stored ({error}); nothing was written. Give "
            "plain JSON values.",
            [node.node_id],
        ) from error
    return Head(node.node_id, node.ref_doc_id, _digest(text, metadata), metadata)


def body_of(node: BaseNode) -> str:
    """JSON of a whole node, without its embedding.

    Raises:
        NodeRejectedError: The node's class is none of LlamaIndex's own.
    """
    bare = node if node.embedding is None else node.model_copy(update={"embedding": None})
    if type(node).__module__ != BaseNode.__module__:
        raise NodeRejectedError(
            f"Node '{node.node_id}' is a {type(node).__name__}, which LlamaIndex cannot read back; nothing "
            "was written. Keep such nodes in a store, and pass it as BM25Index(nodes=...).",
            [node.node_id],
        )
    return json.dumps(doc_to_json(bare), ensure_ascii=False, separators=(",", ":"))


def node_of(body: str | bytes) -> BaseNode:
    """Make the node that `body_of` wrote down."""
    fields: dict[str, Any] = json.loads(body)
    return json_to_doc(fields)


def indexed_text(node: BaseNode, mode: str) -> str:
    """The text of a node that is indexed: ``"embed"`` as it is embedded, ``"none"`` without metadata."""
    return node.get_content(metadata_mode=MetadataMode(mode))


def _digest(text: str, metadata: dict[str, Any]) -> str:
    known = json.dumps([text, metadata], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
