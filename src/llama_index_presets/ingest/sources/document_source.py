"""Document sources: where documents come from, as a list of ids with versions, and what each holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llama_index.core.schema import Document

from llama_index_presets.errors import IngestError
from llama_index_presets.text.digests import json_digest

__all__ = ["DocumentSource", "LlamaIndexSource", "SourceItem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """A document as a source lists it.

    Attributes:
        id: Stable id within the source; the document's id is the source's name, a slash and this. Empty for the one
            document of a source that is one, whose id is the source's name.
        version: Differs when the content does, such as an ETag; empty where it is not known, and then the content is
            read and compared.
        permissions: Groups that may see it, as metadata ``groups``; None where the source has no permissions.
        metadata: Put on the document.
        size: In bytes, where it is known: a larger one than ``max_document_mb`` is refused before it is read.
    """

    id: str
    version: str = ""
    permissions: Sequence[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None


@runtime_checkable
class DocumentSource(Protocol):
    """A place with documents; `PresetEngine.ingest` takes any object with these three.

    With ``sync``, what the index holds of a source and the source no longer lists is removed: by this difference, never
    by a time. A listing that fails ends the run, and nothing is removed.

    Attributes:
        name: Names the source in the ids of its documents; stable, and no beginning of another source's.

    Example:
        >>> class Wiki:
        ...     name = "wiki"
        ...     def list(self):
        ...         return [SourceItem(id="pump", version="3", permissions=["staff"])]
        ...     def read(self, id):
        ...         return Document(text="The pump leaks.")
        >>> isinstance(Wiki(), DocumentSource)
        True
    """

    name: str

    def list(self) -> Iterable[SourceItem]:
        """Every document that is there now.

        Raises:
            IngestError: The source cannot be listed completely.
        """

    def read(self, id: str) -> Path | Document | Sequence[Document]:
        """Content of one document: a file on this machine, which is read by its kind, or text.

        Raises:
            IngestError: It cannot be read.
        """


class LlamaIndexSource:
    """Any LlamaIndex reader as a source.

    A reader that lists resources (such as `SimpleDirectoryReader`) is asked for one resource at a time. Of another, all
    documents are loaded; a document's id is the first of `id_keys` that its metadata has, since readers draw a random
    id each time, else its content.

    Args:
        reader: The reader, a `BaseReader`.
        name: Names the source; see `DocumentSource`.
        id_keys: Metadata keys that tell a document of the reader from the others.
        **load: What ``load_data`` takes.

    Example:
        >>> from llama_index.core.readers import StringIterableReader
        >>> source = LlamaIndexSource(StringIterableReader(), name="notes", texts=["One.", "Two."])
        >>> len(list(source.list()))
        2
    """

    def __init__(
        self,
        reader: Any,
        *,
        name: str,
        id_keys: Sequence[str] = ("id", "url", "source", "file_path", "path"),
        **load: Any,
    ) -> None:
        if not hasattr(reader, "load_data"):
            raise IngestError(f"{type(reader).__name__} is no LlamaIndex reader: it has no load_data.")
        self.name = name
        self._reader, self._id_keys, self._load = reader, tuple(id_keys), load
        self._documents: dict[str, list[Document]] = {}

    def list(self) -> Iterable[SourceItem]:
        """See `DocumentSource.list`."""
        if hasattr(self._reader, "list_resources") and not self._load:
            return [self._resource(str(name)) for name in self._reader.list_resources()]
        self._documents = {}
        for document in self._reader.load_data(**self._load):
            self._documents.setdefault(self._id(document), []).append(document)
        return [
            SourceItem(id=name, version=_digest(documents)) for name, documents in self._documents.items()
        ]

    def read(self, id: str) -> Sequence[Document]:
        """See `DocumentSource.read`."""
        if id in self._documents:
            return self._documents[id]
        return list(self._reader.load_resource(id))

    def _resource(self, name: str) -> SourceItem:
        about = self._reader.get_resource_info(name)
        told = {key: about[key] for key in ("etag", "last_modified_date", "file_size") if about.get(key)}
        return SourceItem(id=name, version=json.dumps(told, sort_keys=True, default=str) if told else "")

    def _id(self, document: Document) -> str:
        stated = next(
            (document.metadata[key] for key in self._id_keys if document.metadata.get(key) is not None), None
        )
        return str(stated) if stated is not None else _digest([document])[:32]


def _digest(documents: Sequence[Document]) -> str:
    return json_digest(*([one.text, one.metadata] for one in documents))
