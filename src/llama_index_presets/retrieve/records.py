"""A node as the keyword index keeps it, and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llama_index.core import schema
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from pydantic_core import from_json

from llama_index_presets._utf8 import has_utf8, printable
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
        NodeRejectedError: A metadata value has no JSON form, or an id or the text is not valid Unicode.
    """
    try:
        for part in (node.node_id, node.ref_doc_id or "", text):
            part.encode()  # half a surrogate pair cannot be written
        metadata = filterable_metadata(node)
    except ValueError as error:
        raise NodeRejectedError(
            f"Node '{printable(node.node_id)}' cannot be stored ({error}); nothing was written. Metadata must be plain "
            "JSON values, ids and text valid Unicode.",
            [node.node_id],
        ) from error
    return Head(node.node_id, node.ref_doc_id, _digest(text, metadata), metadata)


_BLANK = {name: value for name, value in TextNode(id_="").to_dict().items() if name not in ("id_", "text")}
"""What needs not be written down, and read back at every search."""


def body_of(node: BaseNode) -> str:
    """A whole node as a line of JSON, without its embedding.

    The text of a text node stands behind the line as it is: most of a node is text, and every hit of every
    search would otherwise pay for reading it as JSON.

    Raises:
        NodeRejectedError: The node's class is none of LlamaIndex's own, or a field is not valid Unicode.
    """
    bare = node if node.embedding is None else node.model_copy(update={"embedding": None})
    if type(node).__module__ != BaseNode.__module__:
        raise NodeRejectedError(
            f"Node '{node.node_id}' is a {type(node).__name__}, which LlamaIndex cannot read back; nothing "
            "was written. Keep such nodes in a store, and pass it as BM25Index(nodes=...).",
            [node.node_id],
        )
    fields = {name: value for name, value in bare.to_dict().items() if value != _BLANK.get(name)}
    text = fields.pop("text", "") if type(node) is TextNode else None
    line = json.dumps([type(node).__name__, fields], ensure_ascii=False, separators=(",", ":"))
    if not has_utf8(line):
        raise NodeRejectedError(
            f"Node '{printable(node.node_id)}' has a lone surrogate in a field, such as an id in its relationships, "
            "which has no UTF-8 form; nothing was written. Repair the text.",
            [node.node_id],
        )
    return line if text is None else f"{line}\n{text}"


def node_of(body: str | bytes) -> BaseNode:
    """Make the node that `body_of` wrote down."""
    if isinstance(body, bytes):
        body = body.decode()
    line, _, text = body.partition("\n")
    name, fields = from_json(line)
    if name == "TextNode":
        return TextNode(text=text, **fields)
    node_class: type[BaseNode] = getattr(schema, name)
    return node_class.from_dict(fields)


def indexed_text(node: BaseNode, mode: str) -> str:
    """The text of a node that is indexed: ``"embed"`` as it is embedded, ``"none"`` without metadata."""
    return node.get_content(metadata_mode=MetadataMode(mode))


def _digest(text: str, metadata: dict[str, Any]) -> str:
    known = json.dumps([text, metadata], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
