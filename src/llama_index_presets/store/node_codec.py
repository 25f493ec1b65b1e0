"""Node codec: a node to a row of any store, and back. The embedding has a column of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from pydantic_core import PydanticSerializationError, ValidationError, to_json

from llama_index_presets.errors import NodeRejectedError, StoreCorruptError
from llama_index_presets.filters.metadata import filterable_fields, metadata_json
from llama_index_presets.text.utf8 import has_utf8, printable

__all__ = ["Row", "restricting_ids", "to_node", "to_row", "what_fails"]


class Row(NamedTuple):
    """Row of a node in any store, beside its embedding.

    Attributes:
        node_id: The node's id, the key of the row.
        ref_doc_id: The id of its source document; None where it has none.
        text: Its text; None for a node that has no text resource at all.
        metadata: Its metadata as a JSON object.
        kind: Name of its LlamaIndex type, such as ``"TextNode"``.
        node: Every other field as a JSON object, defaults left out.
    """

    node_id: str
    ref_doc_id: str | None
    text: str | None
    metadata: str
    kind: str
    node: str

    def filterable(self) -> dict[str, Any]:
        """Mapping that filters see; see `filters.filterable_metadata`."""
        return filterable_fields(self.metadata, self.ref_doc_id)


_TYPES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, ImageNode, IndexNode, Node, Document, ImageDocument)
}
# Fields that have columns of their own, or are written by hand below.
_RELATIONS = {relation: relation.value for relation in NodeRelationship}
_RESOURCES = ("text_resource", "image_resource", "audio_resource", "video_resource")
_ELSEWHERE = {"id_", "embedding", "metadata", "text", "obj", *_RESOURCES}


def _fields(kind: type[BaseNode]) -> tuple[tuple[str, Any], ...]:
    """Name and default of each field that goes into the `node` column."""
    return tuple(
        (name, field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
        if name not in _ELSEWHERE
    )


_FIELDS = {name: _fields(kind) for name, kind in _TYPES.items()}


def to_row(node: BaseNode) -> Row:
    """Encode a node.

    Every LlamaIndex node type is kept as what it is; a subclass from elsewhere becomes its nearest
    LlamaIndex type.

    Raises:
        NodeRejectedError: A value in it has no JSON form; names the node and the value.

    Example:
        >>> row = to_row(TextNode(id_="n1", text="hello", metadata={"page": 3}))
        >>> row.kind, row.metadata, row.node
        ('TextNode', '{"page":3}', '{}')
    """
    try:
        return _to_row(node)
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise NodeRejectedError(
            f"Node '{printable(node.node_id)}' cannot be stored: {printable(str(error))}. "
            "Metadata and node fields must be JSON values; convert or remove that one. Nothing was written.",
            [node.node_id],
        ) from error


def _to_row(node: BaseNode) -> Row:
    kind = _kind(type(node))
    values = node.__dict__
    rest: dict[str, Any] = {}
    for name, default in _FIELDS[kind]:
        value = values[name]
        if value is not default and value != default:
            rest[name] = value
    source = None
    if "relationships" in rest:
        source = node.ref_doc_id
        rest["relationships"] = {
            _RELATIONS[relation]: _related(other) for relation, other in node.relationships.items()
        }
    if kind != "TextNode":
        _add_media(node, rest)
    text = _text(node)
    for name, value in (("id", node.id_), ("document id", source), ("text", text)):
        if value is not None and not has_utf8(value):
            raise ValueError(f"its {name} has a lone surrogate, which has no UTF-8 form")
    return Row(node.id_, source, text, metadata_json(node.metadata), kind, _json(rest))


def _json(value: dict[str, Any]) -> str:
    return to_json(value, inf_nan_mode="null").decode()


@cache
def _kind(type_: type[BaseNode]) -> str:
    for ancestor in type_.__mro__:
        name = ancestor.class_name() if issubclass(ancestor, BaseNode) else ""
        if _TYPES.get(name) is ancestor:
            return name
    raise ValueError(f"{type_.__name__} is no LlamaIndex node type")


def _related(other: RelatedNodeInfo | list[RelatedNodeInfo]) -> Any:
    # By hand: pydantic's way through the models takes as long as the rest of the row.
    if isinstance(other, list):
        return [_related(one) for one in other]
    related: dict[str, Any] = {"node_id": other.node_id}
    if other.node_type is not None:
        related["node_type"] = other.node_type
    if other.metadata:
        related["metadata"] = other.metadata
    if other.hash is not None:
        related["hash"] = other.hash
    return related


def _text(node: BaseNode) -> str | None:
    if isinstance(node, TextNode):
        return node.text
    return node.text_resource.text if isinstance(node, Node) and node.text_resource else None


def _add_media(node: BaseNode, rest: dict[str, Any]) -> None:
    if isinstance(node, IndexNode):
        # By itself: `dict` writes out everything else too, and only it does so for every core that is supported.
        alone = None if node.obj is None else IndexNode(index_id=node.index_id, obj=node.obj)
        rest["obj"] = None if alone is None else alone.dict()["obj"]
    elif isinstance(node, Node):
        resources = ((name, getattr(node, name)) for name in _RESOURCES)
        rest |= {name: _media(name, resource) for name, resource in resources if resource is not None}


def _media(name: str, resource: MediaResource) -> dict[str, Any]:
    """A resource as JSON values; the text of a node is kept beside it."""
    values = resource.model_dump(mode="json", exclude={"text"}, exclude_none=True)
    # MediaResource leaves its bytes out of every dump; without them the node would be another.
    if resource.data is not None:
        values["data"] = resource.data.decode("ascii")
    if resource.text is not None and name != "text_resource":
        values["text"] = resource.text
    return values


def to_node(row: Row, embedding: list[float] | None = None) -> BaseNode:
    """Decode a node.

    Args:
        row: What `to_row` made.
        embedding: Its vector, where the caller wants it on the node.

    Raises:
        StoreCorruptError: The row does not hold a node that this version knows.

    Example:
        >>> to_node(to_row(TextNode(id_="n1", text="hello"))).text
        'hello'
    """
    try:
        fields = json.loads(row.node)
        kind = _TYPES[row.kind]
        fields |= {"id_": row.node_id, "metadata": json.loads(row.metadata), "embedding": embedding}
        if issubclass(kind, TextNode):
            fields["text"] = row.text or ""
        elif "text_resource" in fields:
            fields["text_resource"]["text"] = row.text
        return kind.from_dict(fields)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(
            f"The row of node '{row.node_id}' does not hold a node: {what_fails(error)}. "
            "It was written by a newer version or by hand; delete or re-add the node."
        ) from error


def what_fails(error: Exception) -> str:
    """Why something is no node, without its values: a message may reach a log, where no text of a document belongs.

    Example:
        >>> what_fails(KeyError("kind")), what_fails(ValueError("Expecting value: line 1"))
        ("KeyError('kind')", "ValueError('Expecting value: line 1')")
    """
    if not isinstance(error, ValidationError):
        return repr(error)
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults)


def restricting_ids(node_ids: Sequence[str] | None, kinds: Mapping[str, str]) -> list[str] | None:
    """Meaning of a query's ``node_ids``: only these nodes, or no restriction at all.

    `VectorStoreIndex.as_retriever` fills ``node_ids`` from its own bookkeeping, in which a store that keeps
    the text has only image and index nodes: ``[]``, or ``["image-1"]`` beside a thousand text nodes that it
    never lists. So an empty list, and a list that names image and index nodes but no other node, restrict
    nothing. A list that names a text node or document, or no stored node at all, restricts.

    Args:
        node_ids: From the query.
        kinds: Stored node id -> `Row.kind`, at least for those of `node_ids` that are stored.

    Returns:
        The ids to restrict to, or None for all nodes.

    Example:
        >>> restricting_ids(["i1"], {"i1": "ImageNode"}) is None
        True
        >>> restricting_ids(["i1", "t1"], {"i1": "ImageNode", "t1": "TextNode"})
        ['i1', 't1']
    """
    if not node_ids:
        return None
    named = {kinds[node_id] for node_id in node_ids if node_id in kinds}
    return None if named and named <= {"ImageNode", "IndexNode"} else list(node_ids)
