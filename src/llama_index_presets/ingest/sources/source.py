"""Ingest sources as one stream of documents: files, `Document`s, nodes, data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.schema import BaseNode, Document, ImageDocument, ImageNode, MetadataMode, TextNode

from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError
from llama_index_presets.images import is_image_file
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.clean import plain_from_pages, plain_from_text, whole_characters
from llama_index_presets.ingest.failures import file_problem
from llama_index_presets.ingest.images import (
    Picture,
    caption_file,
    check_image,
    picture_hash,
    read_image_document,
    read_picture,
    without_captions,
)
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import sidecar_of
from llama_index_presets.ingest.read import file_hash, read_file
from llama_index_presets.ingest.readers.ocr import HOW_TO_READ
from llama_index_presets.ingest.readers.registry import reader_for
from llama_index_presets.ingest.sources.document_source import DocumentSource, SourceItem
from llama_index_presets.ingest.sources.file_system_source import FileSystemSource, is_url
from llama_index_presets.ingest.sources.files import FileEntry, find_files
from llama_index_presets.ingest.sources.frames import NO_COLUMNS, FrameColumns, frame_rows, is_frame
from llama_index_presets.provenance import document_id
from llama_index_presets.text.digests import json_digest

__all__ = ["Source", "file_source", "read_again", "sources"]


_SWAPPED = (
    "A link out of the folder took its place while it was read. Ingest again, and see who writes there."
)
_TEXT_ONLY = (
    "It is an image, and the embedding model of this index reads text only. Use the preset multi-modal, with CLIP's "
    f"weights, or have its text read: {HOW_TO_READ[0].lower()}{HOW_TO_READ[1:]}"
)


@dataclass(frozen=True, slots=True)
class Source:
    """Document not read yet: its id and hash are known.

    Attributes:
        doc_id: Stable id.
        content_hash: Equal hash, equal content.
        read: Gives the text, an image, or ready nodes; may raise anything, as damaged documents do.
        refusal: Why it is not ingested, where that is known before it is read; empty otherwise.
        node_ids: Ids of its nodes, where they come ready.
        owner: Whose it is: see `ManifestEntry`.
        absent: Whether it is no document at all, such as a link out of the folder: `sync` removes what is stored of it.
        file: The file that it is read from; None where it is none of this machine's.
        allowed: Who may see it, as its source says; None where that says nothing. See `permissions`.
        reader_version: See `ReaderEntry`; 0 where no reader reads it, such as a `Document`.
        again: Whether it is read although the index holds its content.
    """

    doc_id: str
    content_hash: str
    read: Callable[[], SourceText | Picture | list[TextNode]]
    refusal: str = ""
    node_ids: Sequence[str] = ()
    owner: Mapping[str, Any] = field(default_factory=dict)
    absent: bool = False
    file: Path | None = None
    allowed: Sequence[str] | None = None
    reader_version: int = 0
    again: bool = False

    def refused(self, why: str) -> Source:
        """The same document, marked as refused."""
        return replace(self, content_hash="", refusal=why)


def sources(
    data: Any,
    *,
    columns: FrameColumns = NO_COLUMNS,
    images: bool = False,
    limit: SizeLimit = DEFAULT_LIMIT,
    separate_folders: bool = False,
) -> list[Source]:
    """List the documents to ingest, each once.

    Documents of one id that differ are refused, since storing one would delete the other; so are documents whose ready
    nodes have an id of another node.

    Args:
        data: A path or several, `Document`s, nodes, or a frame: see `frames.is_frame`.
        columns: What the columns of a frame are.
        images: Whether the index takes images; otherwise each is a document that fails, with the reason.
        limit: What a file may expand to.
        separate_folders: See `find_files`.

    Raises:
        IngestError: A path is missing, a folder is empty, a column is unknown, or the kind of data is.
    """
    if is_frame(data):
        return _once(_from_frame(data, columns))
    items: list[Any] = [data] if isinstance(data, BaseNode | str | Path | DocumentSource) else _listed(data)
    listed = [item for item in items if is_url(item) or isinstance(item, DocumentSource)]
    if listed:
        items = [item for item in items if item not in listed]
        found = [one for item in listed for one in _from_listing(_source_of(item), limit)]
        if not items:
            return _once(found)
        if all(isinstance(item, str | Path) for item in items):
            local = _from_files(find_files(items, separate_folders=separate_folders), images, limit)
            return _once([*local, *found])
        raise _wrong_kind(items)
    if items and all(isinstance(item, str | Path) for item in items):
        return _once(_from_files(find_files(items, separate_folders=separate_folders), images, limit))
    return _once(_from_items(items, images, limit))


def read_again(found: Iterable[Source]) -> list[Source]:
    """The same documents, to be read also where the index holds their content."""
    return [replace(source, again=True) for source in found]


def _source_of(item: Any) -> DocumentSource:
    return FileSystemSource(item) if isinstance(item, str) else item


def _from_listing(source: DocumentSource, limit: SizeLimit) -> Iterator[Source]:
    """Documents of a source; one whose version is not known is read now, to be compared by its content."""
    for item in list(source.list()):
        doc_id = f"{source.name}/{item.id}" if item.id else source.name
        if broken := _broken(doc_id):
            yield _left_out(_readable(doc_id), f"Its id holds {broken}. Give it another id.")
            continue
        if item.size is not None and item.size > limit.units:
            yield _left_out(doc_id, f"It has {item.size / 1e6:,.1f} MB. Split it, or raise max_document_mb.")
            continue
        about = dict(item.metadata)
        if item.permissions is not None:
            about["groups"] = list(item.permissions)
        version = item.version
        if not version:
            try:
                version = json_digest(_read_listed(source, item, doc_id, "", about, limit).plain.text)
            except Exception as error:  # a service, a reader or a damaged document may fail in any way
                yield _left_out(doc_id, " ".join(str(error).split()) or type(error).__name__)
                continue
        digest = json_digest(version, about)
        # Never None: what the content says of itself is not what its source says.
        allowed = item.metadata.get("allowed", ()) if item.permissions is None else item.permissions
        read = partial(_read_listed, source, item, doc_id, digest, about, limit)
        version_of_reader = reader_for(Path(item.id)).version if isinstance(source, FileSystemSource) else 0
        yield Source(doc_id, digest, read, allowed=allowed, reader_version=version_of_reader)


def _read_listed(
    source: DocumentSource,
    item: SourceItem,
    doc_id: str,
    digest: str,
    about: dict[str, Any],
    limit: SizeLimit,
) -> SourceText:
    """One document of a source, its text and what the source says of it."""
    if isinstance(source, FileSystemSource):
        with source.copy(item.id, limit.units) as path:
            return _of_file(path, doc_id, digest, about, limit)
    found = source.read(item.id)
    if isinstance(found, Path):
        return _of_file(found, doc_id, digest, about, limit)
    documents = [found] if isinstance(found, Document) else list(found)
    text = _of_documents(documents, doc_id, digest, about)
    limit.check_text(len(text.plain.text))
    return text if text.plain.text.strip() else _fail(f"Document '{doc_id}' holds no text.")


def _of_file(path: Path, doc_id: str, digest: str, about: dict[str, Any], limit: SizeLimit) -> SourceText:
    text = read_file(path, digest, limit)
    metadata = {**text.metadata, **about, "source": doc_id}
    return replace(
        text,
        doc_id=doc_id,
        plain=text.plain.whole(),  # the file may be a copy that is removed
        metadata=metadata,
        hidden_from_embedding=(*text.hidden_from_embedding, *about),
    )


def _of_documents(
    documents: Sequence[Document], doc_id: str, digest: str, about: dict[str, Any]
) -> SourceText:
    """What a reader gave for one document, its pages kept apart where it says which they are."""
    shared = dict(documents[0].metadata) if documents else {}
    for document in documents[1:]:
        shared = {key: value for key, value in shared.items() if document.metadata.get(key) == value}
    labels = [document.metadata.get("page_label") for document in documents]
    if len(documents) > 1 and all(labels):
        plain = plain_from_pages(
            [(str(label), one.text) for label, one in zip(labels, documents, strict=True)]
        )
    else:
        plain = plain_from_text("\n\n".join(document.text for document in documents))
    hidden = documents[0].excluded_embed_metadata_keys if documents else []
    return SourceText(
        doc_id=doc_id,
        plain=plain,
        metadata={**shared, **about, "source": doc_id},
        hidden_from_embedding=(*hidden, *about),
        hidden_from_llm=tuple(documents[0].excluded_llm_metadata_keys) if documents else (),
        content_hash=digest,
    )


def _listed(data: Any) -> list[Any]:
    if isinstance(data, Iterable) and not isinstance(data, bytes | bytearray | Mapping):
        return list(data)
    raise _wrong_kind([data])


def _wrong_kind(items: Sequence[Any]) -> IngestError:
    kinds = sorted({type(item).__name__ for item in items}) or ["nothing"]
    return IngestError(f"Got {', '.join(kinds)}; give paths, LlamaIndex Documents or nodes, or a data frame.")


def _from_items(items: Sequence[Any], images: bool, limit: SizeLimit) -> list[Source]:
    if items and all(isinstance(item, BaseNode) for item in items):
        documents = [item for item in items if isinstance(item, Document)]
        nodes = [item for item in items if not isinstance(item, Document)]
        return [
            *(_from_document(document, images, limit) for document in documents),
            *_from_nodes(nodes, images),
        ]
    raise _wrong_kind(items)


def _once(sources: Iterable[Source]) -> list[Source]:
    by_id: dict[str, list[Source]] = {}
    for source in sources:
        by_id.setdefault(source.doc_id, []).append(source)
    return [_one_of(members) for members in by_id.values()]


def _one_of(members: Sequence[Source]) -> Source:
    if len({source.content_hash for source in members}) == 1:
        return members[0]
    return members[0].refused(
        f"{counted(len(members), 'document', 'have')} the id '{members[0].doc_id}' and differ; storing one would "
        "delete the other. Give each an id of its own; for a data frame, choose an id_column without repeats."
    )


def file_source(path: Path, *, limit: SizeLimit) -> Source:
    """One file whose path was found before, such as by the process that gives work to this one."""
    return _from_file(FileEntry(path, Path(path.anchor)), images=False, limit=limit)


def _from_files(entries: Sequence[FileEntry], images: bool, limit: SizeLimit) -> list[Source]:
    if images:
        kept = set(without_captions([entry.path for entry in entries if not entry.problem]))
        entries = [entry for entry in entries if entry.problem or entry.path in kept]
    return [_from_file(entry, images, limit) for entry in entries]


def _from_file(entry: FileEntry, images: bool, limit: SizeLimit) -> Source:
    path, doc_id = entry.path, entry.path.as_posix()
    if entry.problem:
        return _left_out(doc_id, entry.problem, absent=entry.absent)
    is_picture = is_image_file(path)
    picture = is_picture and images  # otherwise its text is read, if it may be
    if is_picture and not images and not limit.ocr:
        return _left_out(doc_id, _TEXT_ONLY)
    if entry.has_left:
        return _left_out(doc_id, _SWAPPED)
    try:
        outside = _companion_outside(entry, picture)
        digest = picture_hash(path) if picture else file_hash(path)
    except OSError as error:
        return _left_out(doc_id, file_problem(error))
    if outside is not None:
        return _left_out(
            doc_id, f"'{outside}' beside it is a link out of its folder. Replace the link by a file."
        )
    return Source(
        doc_id,
        digest,
        lambda: _read_inside(entry, read_picture if picture else read_file, digest, limit),
        file=path,
        reader_version=0 if picture else reader_for(path).version,
    )


def _read_inside(entry: FileEntry, read: Callable[..., Any], digest: str, limit: SizeLimit) -> Any:
    content = read(entry.path, digest, limit)
    return _fail(_SWAPPED) if entry.has_left else content


def _companion_outside(entry: FileEntry, picture: bool) -> str | None:
    """Name of the sidecar or caption that links to content outside, or None."""
    caption = caption_file(entry.path) if picture else None
    for beside in (sidecar_of(entry.path), caption, caption and sidecar_of(caption)):
        if beside and beside.is_symlink() and not beside.resolve().is_relative_to(entry.boundary.resolve()):
            return beside.name
    return None


def _left_out(doc_id: str, problem: str, *, absent: bool = False) -> Source:
    return Source(doc_id, "", lambda: _fail(problem), refusal=problem, absent=absent)


def _from_document(document: Document, images: bool = False, limit: SizeLimit = DEFAULT_LIMIT) -> Source:
    """A document of the caller's; one that cannot be taken is left out, and the others are not."""
    doc_id = document.doc_id
    if broken := _broken(doc_id):
        return _left_out(_readable(doc_id), f"Its id holds {broken}. Give it another id.")
    try:
        return _readable_document(document, images, limit)
    except Exception as error:  # values of a caller's metadata may be anything
        return _left_out(doc_id, f"Its metadata cannot be stored ({type(error).__name__}: {error}).")


def _readable_document(document: Document, images: bool, limit: SizeLimit) -> Source:
    if images and isinstance(document, ImageDocument):
        digest = json_digest(document.text, document.metadata, document.image, _content(document.image_path))
        return Source(document.doc_id, digest, lambda: read_image_document(document, digest, limit))
    digest = json_digest(document.text, document.metadata)
    text = SourceText(
        doc_id=document.doc_id,
        plain=plain_from_text(document.text),
        metadata=dict(document.metadata),
        hidden_from_embedding=tuple(document.excluded_embed_metadata_keys),
        hidden_from_llm=tuple(document.excluded_llm_metadata_keys),
        content_hash=digest,
    )
    empty = f"Document '{document.doc_id}' holds no text."
    return Source(document.doc_id, digest, lambda: text if text.plain.text.strip() else _fail(empty))


def _broken(text: str) -> str:
    """What an id may not hold and this one does, since a store cannot; empty where it holds none of it."""
    if "\0" in text:
        return "a NUL character"
    return "half of a character (a surrogate)" if text != whole_characters(text) else ""


def _readable(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _from_nodes(nodes: Sequence[BaseNode], images: bool) -> Iterator[Source]:
    by_document: dict[str, dict[tuple[str, str], TextNode]] = {}
    by_id: dict[str, set[tuple[str, str]]] = {}
    for node in nodes:
        if not isinstance(node, TextNode):
            raise IngestError(
                f"Node '{node.node_id}' is a {type(node).__name__}; give TextNodes or Documents."
            )
        doc_id, state = document_id(node), _state_of(node)
        by_document.setdefault(doc_id, {}).setdefault((node.node_id, state), node)
        by_id.setdefault(node.node_id, set()).add((doc_id, state))
    repeated = {node_id for node_id, places in by_id.items() if len(places) > 1}
    for doc_id, members in by_document.items():
        if broken := next(filter(None, map(_broken_text, members.values())), ""):
            yield _left_out(_readable(doc_id), broken)
            continue
        source = _of_nodes(doc_id, list(members.values()), images)
        clashes = sorted(repeated.intersection(source.node_ids))
        yield source.refused(_repeated_nodes(clashes)) if clashes else source


def _state_of(node: TextNode) -> str:
    return json_digest(node.get_content(MetadataMode.ALL), _pixels(node))


def _repeated_nodes(node_ids: Sequence[str]) -> str:
    names = ", ".join(f"'{node_id}'" for node_id in node_ids[:10])
    more = f" and {len(node_ids) - 10} more" if len(node_ids) > 10 else ""
    return (
        f"Several nodes have the id {names}{more} and differ; storing one would delete the other. Give each an id of "
        "its own."
    )


def _of_nodes(doc_id: str, members: list[TextNode], images: bool) -> Source:
    digest = json_digest(*((node.node_id, node.get_content(MetadataMode.ALL)) for node in members))
    names = [node.node_id for node in members]
    if images and any(isinstance(node, ImageNode) for node in members):
        digest = json_digest(digest, *(_pixels(node) for node in members))
        return Source(doc_id, digest, lambda: _with_images(members), node_ids=names)
    return Source(doc_id, digest, lambda: members, node_ids=names)


def _broken_text(node: TextNode) -> str:
    """Nodes are stored as they are, so one with halves of characters, or NUL characters, is refused."""
    for name, value in (("id", node.node_id), ("document's id", node.ref_doc_id or ""), ("text", node.text)):
        if broken := _broken(value):
            return f"The {name} of node '{_readable(node.node_id)}' holds {broken}. Replace it."
    return ""


def _pixels(node: TextNode) -> str | None:
    return node.image or _content(node.image_path) if isinstance(node, ImageNode) else None


def _content(path: str | None) -> str | None:
    """Content hash of an image file; an unreadable one fails when it is read."""
    try:
        return file_hash(Path(path)) if path else None
    except OSError:
        return None


def _with_images(nodes: list[TextNode]) -> list[TextNode]:
    """Nodes whose images can all be opened; copies of the images, marked as such for the search by kind."""
    return [_marked(node) if isinstance(node, ImageNode) else node for node in nodes]


def _marked(node: ImageNode) -> ImageNode:
    if node.embedding is None:
        check_image(node)
    return node.model_copy(update={"metadata": {**node.metadata, "modality": "image"}})


def _from_frame(frame: Any, columns: FrameColumns) -> Iterator[Source]:
    for row in frame_rows(frame, columns):
        if row.problem:
            yield _left_out(row.doc_id, row.problem)
        else:
            yield _from_document(Document(text=row.text, doc_id=row.doc_id, metadata=dict(row.metadata)))


def _fail(message: str) -> SourceText:
    raise IngestError(message)
