"""Metadata overrides: values set by the caller of an ingest replace those read from a document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import SettingsError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.metadata.document_metadata import RESERVED
from llama_index_presets.ingest.metadata.permissions import Permissions
from llama_index_presets.ingest.sources.source import Source

__all__ = ["MetadataOverrides", "with_overrides"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOverrides:
    """Metadata overrides of one run; a plain value, so that it can be sent to workers.

    Attributes:
        metadata: Put on every document; it wins over the folder's name. A value of None keeps the key off documents.
        folder_key: Metadata key that takes the name of a file's folder, or None. A file in a root itself has none, and
            so no value, whatever it says of itself.
        roots: Folders whose direct subfolders name it; see `root_path`.
        permissions: Who may see the documents; None where the storage has no permissions.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    folder_key: str | None = None
    roots: Sequence[Path] = ()
    permissions: Permissions | None = None

    def over(self, sources: Iterable[Source]) -> list[Source]:
        """The same documents, with the overrides."""
        return [self._over(source, self.of(source.doc_id)) for source in sources]

    def _over(self, source: Source, put: Mapping[str, Any]) -> Source:
        found = with_overrides(source, put)
        return found if self.permissions is None else self.permissions.over(found, put)

    def of(self, doc_id: str) -> Mapping[str, Any]:
        """Overrides of one document; a value of None removes the key."""
        if not self.folder_key:
            return self.metadata
        return {self.folder_key: _folder_of(doc_id, self.roots), **self.metadata}


def with_overrides(source: Source, metadata: Mapping[str, Any]) -> Source:
    """A source whose chunks carry this metadata and no other values for its keys, hidden from the embedding model.

    Its hash covers it. Where a value is None, the key is absent.

    Raises:
        SettingsError: A key is one of those that say where a passage stands.
    """
    taken = sorted(RESERVED & set(metadata))
    if taken:
        raise SettingsError(
            f"The metadata key '{taken[0]}' says where a passage stands, or who may see it, and cannot be set. Rename "
            "it."
        )
    if not metadata:
        return source
    as_json = json.dumps(metadata, sort_keys=True, default=str)
    digest = (
        hashlib.sha256(f"{source.content_hash}\0{as_json}".encode()).hexdigest()
        if source.content_hash
        else ""
    )
    return replace(source, content_hash=digest, read=lambda: _stamp(source, metadata, digest))


def _folder_of(doc_id: str, roots: Sequence[Path]) -> str | None:
    """Name of the folder directly below a root that contains a file; None for a file in the root itself.

    Example:
        >>> _folder_of("/docs/hr/2024/leave.md", [Path("/docs")]), _folder_of("/docs/index.md", [Path("/docs")])
        ('hr', None)
    """
    path = Path(doc_id)
    for root in roots:
        if root in path.parents and len(parts := path.relative_to(root).parts) > 1:
            return parts[0]
    return None


def _stamp(source: Source, metadata: Mapping[str, Any], digest: str) -> Any:
    found = source.read()
    if isinstance(found, SourceText):
        return _on_text(found, metadata, digest)
    if isinstance(found, Picture):
        _on_node(found.node, metadata)
        return replace(found, caption=found.caption and _on_text(found.caption, metadata, digest))
    for node in found:
        _on_node(node, metadata)
    return found


def _on_text(text: SourceText, metadata: Mapping[str, Any], digest: str) -> SourceText:
    return replace(
        text,
        metadata=_over(text.metadata, metadata),
        hidden_from_embedding=(*text.hidden_from_embedding, *metadata),
        content_hash=digest,
    )


def _over(own: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A document's own metadata under that of the caller."""
    return {
        key: value for key, value in {**own, **metadata}.items() if value is not None or key not in metadata
    }


def _on_node(node: BaseNode, metadata: Mapping[str, Any]) -> None:
    node.metadata = _over(node.metadata, metadata)
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, *metadata]
