"""Metadata that every store holds and returns unchanged; what had to be changed for that is in the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, Final, cast

from llama_index.core.schema import TextNode

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.clean import whole_characters
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.metadata.flat_values import MetadataChanges, shown_key

__all__ = ["storable"]

_NO_NUMBER: Final = "NaN or infinite, which JSON has no number for; stored as null"
_NUL: Final = "text with NUL characters, which were removed"
_HALF: Final = "text with half of a character (a surrogate), in whose place a sign of replacement was put"


def storable(
    content: SourceText | Picture | list[TextNode],
) -> tuple[SourceText | Picture | list[TextNode], list[str]]:
    r"""What a source holds, with metadata that every store can hold; and a line for each kind of change.

    NaN and infinities become None, in lists and objects too; NUL characters, which Postgres cannot hold, go, and lone
    surrogates are replaced, in keys too. Anything else stays as it is. Ready nodes that need a change are copied.

    Raises:
        IngestError: Two keys would become one.

    Example:
        >>> nodes, lines = storable([TextNode(text="a", metadata={"price": float("nan"), "name": "a\0b"})])
        >>> nodes[0].metadata
        {'price': None, 'name': 'ab'}
        >>> lines[0]
        "metadata 'price': 1 value is NaN or infinite, which JSON has no number for; stored as null."
    """
    changes = MetadataChanges()
    changed: SourceText | Picture | list[TextNode]
    if isinstance(content, SourceText):
        changed = _text(content, changes)
    elif isinstance(content, Picture):
        caption = content.caption and _text(content.caption, changes)
        (node,) = _nodes([content.node], changes)
        changed = replace(content, node=cast("Any", node), caption=caption)
    else:
        changed = _nodes(content, changes)
    return changed, changes.lines()


def _text(text: SourceText, changes: MetadataChanges) -> SourceText:
    return replace(text, metadata=_object(text.metadata, changes, ""))


def _nodes(nodes: Iterable[TextNode], changes: MetadataChanges) -> list[TextNode]:
    found = []
    for node in nodes:
        before = sum(changes.counts.values())
        metadata = _object(node.metadata, changes, "")
        same = before == sum(changes.counts.values())
        found.append(node if same else node.model_copy(update={"metadata": metadata}))
    return found


def _object(values: Mapping[Any, Any], changes: MetadataChanges, place: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in values.items():
        at = place or str(key)
        name = _characters(key, changes, at) if isinstance(key, str) else key
        if name in found:
            raise IngestError(
                f"The metadata has two keys that differ in characters that no store can hold: '{shown_key(str(key))}'. "
                "Rename one."
            )
        found[name] = _value(value, changes, at)
    return found


def _value(value: Any, changes: MetadataChanges, place: str) -> Any:
    match value:
        case str():
            return _characters(value, changes, place)
        case bool() | int() | None:
            return value
        case Mapping():
            return _object(value, changes, place)
        case list() | tuple() | set() | frozenset():
            kept = [_value(one, changes, place) for one in value]
            return kept if isinstance(value, list) else type(value)(kept)
        case Real() if not math.isfinite(value):
            changes.note(_NO_NUMBER, place)
            return None
    return _value(value.tolist(), changes, place) if hasattr(value, "tolist") else value


def _characters(text: str, changes: MetadataChanges, place: str) -> str:
    if "\0" in text:
        changes.note(_NUL, place)
        text = text.replace("\0", "")
    whole = whole_characters(text)
    if whole != text and "\ufffd" in whole:  # a pair of halves is a character, and loses nothing
        changes.note(_HALF, place)
    return whole
