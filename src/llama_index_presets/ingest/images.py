"""Image files to an image node and a caption node."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import ImageDocument, ImageNode, NodeRelationship, RelatedNodeInfo

from llama_index_presets.errors import ImageError, IngestError
from llama_index_presets.images import MAX_PIXELS, OpenedImage, is_image_file, open_image
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.read import file_hash, read_file
from llama_index_presets.text.digests import text_digest
from llama_index_presets.text.sentences import split_sentences

__all__ = [
    "Picture",
    "caption_file",
    "check_image",
    "picture_hash",
    "read_image_document",
    "read_picture",
    "without_captions",
]

_CAPTION_SUFFIXES = (".txt", ".md")
_LONGEST_LABEL = 300  # characters of the caption that the image itself carries


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image, ready to be embedded.

    Attributes:
        node: The image; its text is the beginning of the caption.
        caption: All of the caption, to be cut and embedded as text beside the image; None where there is none.
    """

    node: ImageNode
    caption: SourceText | None


def caption_file(path: Path) -> Path | None:
    """The text file that describes an image: ``photo.png.txt``, ``photo.txt`` or the same with ``.md`` beside it."""
    for suffix in _CAPTION_SUFFIXES:
        for candidate in (path.with_name(path.name + suffix), path.with_suffix(suffix)):
            if candidate.is_file():
                return candidate
    return None


def without_captions(paths: Iterable[Path]) -> list[Path]:
    """Files without the captions: a caption is read with its image, not as a document of its own."""
    files = list(paths)
    captions = {caption_file(path) for path in files if is_image_file(path)}
    return [path for path in files if path not in captions]


def picture_hash(path: Path) -> str:
    """Hash of the image and its caption: a change of either re-reads both."""
    caption = caption_file(path)
    if caption is None:
        return file_hash(path)
    return hashlib.sha256(f"{file_hash(path)}\0{file_hash(caption)}".encode()).hexdigest()


def read_picture(path: Path, content_hash: str, limit: SizeLimit = DEFAULT_LIMIT) -> Picture:
    """Read an image file.

    Args:
        path: Absolute path; it becomes the document's id and its ``source``.
        content_hash: See `picture_hash`.
        limit: Of its pixels, and of its caption.

    Raises:
        IngestError: The image, or its caption, cannot be read.
    """
    opened = check_image(path, limit)
    caption = _caption(path, opened, content_hash, limit)
    node = ImageNode(
        id_=_image_id(path.as_posix()),
        text=_label(caption),
        image_path=path.as_posix(),
        metadata={"source": path.as_posix(), "file_name": path.name, **_facts(opened)},
    )
    _belongs_to(node, path.as_posix(), content_hash)
    return Picture(node=node, caption=caption)


def read_image_document(
    document: ImageDocument, content_hash: str, limit: SizeLimit = DEFAULT_LIMIT
) -> Picture:
    """Take an `ImageDocument` of the caller's; its text is the caption.

    Raises:
        IngestError: Its image cannot be read; an image that is only a web address is not fetched.
    """
    opened = check_image(document, limit)
    text, hidden = document.text or "", tuple(document.excluded_embed_metadata_keys)
    caption = SourceText(
        doc_id=document.doc_id, plain=plain_from_text(text), metadata=dict(document.metadata),
        hidden_from_embedding=hidden, hidden_from_llm=tuple(document.excluded_llm_metadata_keys),
        content_hash=content_hash,
    )  # fmt: skip
    node = ImageNode(
        id_=_image_id(document.doc_id),
        text=_label(caption),
        image=document.image,
        image_path=document.image_path,
        image_mimetype=document.image_mimetype,
        metadata={**document.metadata, **_facts(opened)},
    )
    _belongs_to(node, document.doc_id, content_hash)
    return Picture(node=node, caption=caption if text.strip() else None)


def check_image(source: object, limit: SizeLimit = DEFAULT_LIMIT) -> OpenedImage:
    """Decode an image once, so that a damaged one fails its document and not the run.

    Raises:
        IngestError: It cannot be decoded.
    """
    try:
        return open_image(source, max_pixels=min(MAX_PIXELS, limit.units))
    except ImageError as error:
        raise IngestError(str(error)) from error


def _facts(opened: OpenedImage) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "modality": "image",
        "image_format": opened.format,
        "image_width": opened.width,
        "image_height": opened.height,
    }
    return {**facts, "image_frames": opened.frames} if opened.frames > 1 else facts


def _caption(path: Path, opened: OpenedImage, content_hash: str, limit: SizeLimit) -> SourceText | None:
    beside = caption_file(path)
    if beside is None and not opened.description:
        return None
    read = read_file(beside, content_hash, limit) if beside else None
    return SourceText(
        doc_id=path.as_posix(),
        plain=read.plain if read else plain_from_text(opened.description),
        metadata={
            "source": (beside or path).as_posix(),
            "file_name": (beside or path).name,
            "image_path": path.as_posix(),
        },
        hidden_from_embedding=("file_name", "image_path"),
        content_hash=content_hash,
    )


def _label(caption: SourceText | None) -> str:
    """The first sentences of a caption; one that is too long by itself is left to the caption's own nodes."""
    label = ""
    for sentence in split_sentences(caption.plain.text) if caption else []:
        if len(label) + len(sentence) > _LONGEST_LABEL:
            break
        label += sentence
    return label.strip()


def _image_id(doc_id: str) -> str:
    return text_digest(f"{doc_id}\0image")[:32]


def _belongs_to(node: ImageNode, doc_id: str, content_hash: str) -> None:
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=doc_id, hash=content_hash or None)
    hidden = [key for key in node.metadata if key != "heading"]
    node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys = hidden, hidden
