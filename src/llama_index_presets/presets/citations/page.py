"""Citation page: the cited document with the words marked, as one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llama_index.core.schema import BaseNode, MetadataMode

from llama_index_presets.errors import AnswerError
from llama_index_presets.line_boxes import boxes_within
from llama_index_presets.packages.extras import require
from llama_index_presets.presets.citations.store import StoredCitation, read_citation
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.index.contents import document_nodes
from llama_index_presets.provenance import source_name

__all__ = ["CitationPage", "citation_page"]

_SCALE: Final = 2.0  # pixels a point
_STYLE: Final = (
    "body{font:16px/1.5 Georgia,serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "main{white-space:pre-wrap}mark{background:#ffe066;color:inherit}h1{font-size:1.1em}"
    "figure{margin:0 0 1em;position:relative}svg{width:100%;height:auto;border:1px solid #ccc}"
    "rect{fill:#ffd400;fill-opacity:.4}small{color:#666}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationPage:
    """A citation, to be shown.

    Attributes:
        query_id: Of the question.
        n: Its number in the answer.
        source: Its document.
        page: Label of its page, or None.
        quotes: The exact words.
        spans: Start and end of each in the document's text.
        boxes: Rectangles in points: page, x0, y0, x1, y1.
        html: The page.
    """

    query_id: str
    n: int
    source: str
    page: str | None
    quotes: tuple[str, ...]
    spans: tuple[tuple[int, int] | None, ...]
    boxes: tuple[dict[str, Any], ...]
    html: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the page."""
        return {
            "query_id": self.query_id,
            "n": self.n,
            "source": self.source,
            "page": self.page,
            "quotes": list(self.quotes),
            "spans": [list(span) if span else None for span in self.spans],
            "boxes": list(self.boxes),
        }


def citation_page(parts: EngineParts, query_id: str, n: int) -> CitationPage:
    """The page of a citation; the engine's filters hold.

    Raises:
        AnswerError: The citation is not kept, or its chunk is no longer in the index or not visible to this engine.
    """
    parts.check_user()
    kept = read_citation(parts.storage.folder, query_id, n)
    nodes = {
        node.node_id: node for node in _visible(parts, [kept.node_id, *(s["node_id"] for s in kept.spans)])
    }
    if kept.node_id not in nodes:
        raise AnswerError(
            f"Citation [{n}] of query '{kept.query_id}' points to a chunk that is not in the index any more, or not "
            "visible here. Ask again."
        )
    cited = nodes[kept.node_id]
    spans = _spans(kept, nodes)
    boxes = [
        {"page": box.page, **dict(zip(("x0", "y0", "x1", "y1"), box.box, strict=True))}
        for node_id, start, end in spans
        for box in boxes_within(nodes[node_id].metadata, start, end)
    ]
    body = _pdf_body(cited, boxes) or _text_body(parts, cited, spans)
    texts = [(nodes[node_id], start, end) for node_id, start, end in spans]
    source = str(source_name(cited))
    page = cited.metadata.get("page")
    return CitationPage(
        query_id=kept.query_id,
        n=n,
        source=source,
        page=None if page is None else str(page),
        quotes=tuple(_text(node)[start:end] for node, start, end in texts),
        spans=tuple(_in_document(node, start, end) for node, start, end in texts),
        boxes=tuple(boxes),
        html=_page(source, page, n, body),
    )


def _visible(parts: EngineParts, node_ids: Sequence[str]) -> list[BaseNode]:
    """Those of the nodes that this engine sees."""
    found = parts.visible(parts.vector_store.get_nodes(list(dict.fromkeys(node_ids))))
    if parts.filters is None:
        return found
    doc_ids = {node.ref_doc_id for node in found if node.ref_doc_id}
    seen = {node.node_id for doc_id in doc_ids for node in document_nodes(parts, doc_id)}
    return [node for node in found if node.node_id in seen]


def _spans(kept: StoredCitation, nodes: dict[str, BaseNode]) -> list[tuple[str, int, int]]:
    """Stretches of chunks that are still there; the whole chunk where none is."""
    found = [
        (str(one["node_id"]), int(one["start"]), int(one["end"]))
        for one in kept.spans
        if one["node_id"] in nodes and 0 <= one["start"] < one["end"] <= len(_text(nodes[one["node_id"]]))
    ]
    return found or [(kept.node_id, 0, len(_text(nodes[kept.node_id])))]


def _text(node: BaseNode) -> str:
    return node.get_content(MetadataMode.NONE)


def _in_document(node: BaseNode, start: int, end: int) -> tuple[int, int] | None:
    first = node.metadata.get("char_start")
    return None if first is None else (int(first) + start, int(first) + end)


def _text_body(parts: EngineParts, cited: BaseNode, spans: Sequence[tuple[str, int, int]]) -> str:
    """The document's chunks in their order, with the words marked."""
    chunks = document_nodes(parts, cited.ref_doc_id) if cited.ref_doc_id else [cited]
    chunks.sort(key=lambda node: int(node.metadata.get("char_start") or 0))
    shown, reached = list[str](), 0
    for node in chunks:
        start = int(node.metadata.get("char_start") or 0)
        if shown:
            shown.append("\n\n" if start - reached > 1 else "\n" * max(start - reached, 0) or " ")
        own = sorted((s, e) for node_id, s, e in spans if node_id == node.node_id)
        shown.append(_marked(_text(node), own))
        reached = int(node.metadata.get("char_end") or 0)
    return f"<main>{''.join(shown)}</main>"


def _marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    parts, place = list[str](), 0
    for start, end in spans:
        start = max(start, place)
        if start < end:
            anchor = ' id="cited"' if not place and not parts else ""
            parts.append(
                f"{html.escape(text[place:start])}<mark{anchor}>{html.escape(text[start:end])}</mark>"
            )
            place = end
    return "".join(parts) + html.escape(text[place:])


def _pdf_body(cited: BaseNode, boxes: Sequence[dict[str, Any]]) -> str:
    """The pages with rectangles, drawn from the file; empty where it is no PDF, or not there any more."""
    path = Path(str(cited.metadata.get("file_path") or cited.metadata.get("source") or ""))
    if not boxes or path.suffix.lower() != ".pdf" or not path.is_file():
        return ""
    pdfium = require("pypdfium2", extra="readers")
    document = pdfium.PdfDocument(path)
    try:
        labels = {document.get_page_label(place) or str(place + 1): place for place in range(len(document))}
        wanted = [label for label in dict.fromkeys(str(box["page"]) for box in boxes) if label in labels]
        return "".join(_figure(document[labels[label]], label, boxes) for label in wanted)
    finally:
        document.close()


def _figure(page: Any, label: str, boxes: Sequence[dict[str, Any]]) -> str:
    width, height = page.get_size()
    drawn = io.BytesIO()
    page.render(scale=_SCALE).to_pil().save(drawn, "PNG")
    picture = base64.b64encode(drawn.getvalue()).decode()
    marks = "".join(
        f'<rect x="{box["x0"]:.1f}" y="{box["y0"]:.1f}" width="{box["x1"] - box["x0"]:.1f}" '
        f'height="{box["y1"] - box["y0"]:.1f}"/>'
        for box in boxes
        if str(box["page"]) == label
    )
    return (
        f'<figure><svg viewBox="0 0 {width:.1f} {height:.1f}"><image width="{width:.1f}" height="{height:.1f}" '
        f'href="data:image/png;base64,{picture}"/>{marks}</svg><small>page {html.escape(label)}</small></figure>'
    )


def _page(source: str, page: Any, n: int, body: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    where = f"{source}, page {page}" if page is not None else source
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">'
        f"<title>[{n}] {html.escape(where)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>[{n}] {html.escape(where)}</h1>{body}</body></html>\n"
    )
