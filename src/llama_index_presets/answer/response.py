"""Responses of an engine: LlamaIndex's own, that also come as a plain dictionary and as a page in a notebook."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.provenance import source_name

__all__ = [
    "AsyncCitedStream",
    "CitedResponse",
    "CitedStream",
    "PlainResult",
    "figures_to_check",
    "result_dict",
    "unsupported_sentences",
]

_PREVIEW: Final = 200
"""Characters of a source that `to_dict` shows."""


def result_dict(
    answer: str, sources: Sequence[NodeWithScore], metadata: dict[str, Any] | None
) -> dict[str, Any]:
    """Answer, sources and costs as JSON values.

    Args:
        answer: Text of the answer.
        sources: What the model was shown, best first.
        metadata: Of the response.

    Returns:
        ``answer``, ``sources`` (``id``, the first 200 characters of ``text``, ``source``, ``page``, ``score``),
        ``source_count``, ``known``, ``confidence``, ``citations``, ``cost_usd``, ``latency_ms``, ``query_id``; and
        where they apply ``unsupported`` (see `unsupported_sentences`), ``degraded``, ``numbers``, ``suspicious``,
        ``cached``, ``unpriced_models``, those without a known price, and beside an "I don't know" ``closest``, see
        `closest.closest_passages`. What is not known yet, as in a stream that is not used up, is None.
    """
    known = metadata or {}
    unsupported = unsupported_sentences(known)
    keys = ("known", "confidence", "citations", "cost_usd", "latency_ms", "query_id")
    extra = ("degraded", "numbers", "suspicious", "failed_legs", "cached", "unpriced_models", "closest")
    return {
        "answer": answer,
        "sources": [_source(hit) for hit in sources],
        "source_count": len(sources),
        **{key: known.get(key) for key in keys},
        **({"unsupported": unsupported} if unsupported else {}),
        **{key: known[key] for key in extra if known.get(key)},
    }


def unsupported_sentences(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sentences of an answer whose words are not in what they cite: ``text``, ``cites`` and the figures ``missing``.

    Example:
        >>> checked = {"text": "Ten years.", "cites": [1], "supported": False, "score": 0.0, "missing": ["Ten"]}
        >>> unsupported_sentences({"sentences": [checked]})
        [{'text': 'Ten years.', 'cites': [1], 'missing': ['Ten']}]
    """
    checked = [one for one in metadata.get("sentences") or () if one["supported"] is False]
    return [{key: one.get(key, []) for key in ("text", "cites", "missing")} for one in checked]


def figures_to_check(metadata: Mapping[str, Any]) -> list[str]:
    """A line for people for each sentence of an answer with a figure that is not in what it cites."""
    return [
        f"Not in what it cites: {', '.join(one['missing'])} (“{one['text']}”)"
        for one in unsupported_sentences(metadata)
        if one["missing"]
    ]


def _source(hit: NodeWithScore) -> dict[str, Any]:
    node, metadata = hit.node, hit.node.metadata
    text = "" if isinstance(node, ImageNode) else node.get_content(MetadataMode.NONE)
    return {
        "id": node.node_id,
        "text": text[:_PREVIEW],
        "source": source_name(node),
        "page": metadata.get("page"),
        "score": hit.score,
    }


class PlainResult:
    """What a response adds to LlamaIndex's: `to_dict`, a readable ``repr`` and a page for notebooks."""

    source_nodes: list[NodeWithScore]
    metadata: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; see `result_dict`."""
        return result_dict(self._text(), self.source_nodes, self.metadata)

    def _text(self) -> str:
        return str(getattr(self, "response", None) or "")

    def __repr__(self) -> str:
        """Answer, then a line for each cited source, or for each closest passage: what a terminal shows."""
        lines = [self._text() or "(no answer yet)"]
        lines += [f"  [{citation['n']}] {_place(citation)}" for citation in self._cited()]
        lines += [f"  {line}" for line in figures_to_check(self.metadata or {})]
        lines += [f"  Closest: {_place(one)}: {one['quote']}" for one in self._closest()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Page for a notebook: the answer, and what it cites to be opened; nothing in it is markup of a document."""
        rows = [
            f"<details><summary>[{citation['n']}] {html.escape(_place(citation))}</summary>"
            f"<blockquote style='white-space:pre-wrap'>{html.escape(str(citation.get('text') or ''))}</blockquote>"
            "</details>"
            for citation in self._cited()
        ]
        confidence = (self.metadata or {}).get("confidence")
        rows += [
            f"<details><summary>Closest: {html.escape(_place(one))}</summary>"
            f"<blockquote style='white-space:pre-wrap'>{html.escape(one['quote'])}</blockquote></details>"
            for one in self._closest()
        ]
        sure = "" if confidence is None else f"<p><small>confidence {confidence:.2f}</small></p>"
        answer = f"<p style='white-space:pre-wrap'>{html.escape(self._text())}</p>"
        doubts = [
            f"<p><strong>{html.escape(line)}</strong></p>" for line in figures_to_check(self.metadata or {})
        ]
        return f"<div>{answer}{''.join(doubts)}{sure}{''.join(rows)}</div>"

    def _closest(self) -> list[dict[str, Any]]:
        return (self.metadata or {}).get("closest") or []

    def _cited(self) -> list[dict[str, Any]]:
        citations = (self.metadata or {}).get("citations") or []
        return [citation for citation in citations if citation.get("valid", True)]


def _place(citation: dict[str, Any]) -> str:
    page = f", page {citation['page']}" if citation.get("page") else ""
    heading = f" ({citation['heading']})" if citation.get("heading") else ""
    return f"{citation['source']}{page}{heading}"


class CitedResponse(PlainResult, Response):
    """`Response` with `to_dict`; ``str`` is the answer.

    Example:
        >>> response = CitedResponse("Yes [1].", [], {"known": True, "confidence": 0.9})
        >>> str(response), response.to_dict()["known"], response.to_dict()["source_count"]
        ('Yes [1].', True, 0)
    """


class _PlainStream(PlainResult):
    """`to_dict` of a stream, complete when the pieces are used up.

    Attributes:
        written: Gives the text so far.
    """

    response_txt: str | None
    written: Callable[[], str] | None = None

    def _text(self) -> str:
        return self.written() if self.written else self.response_txt or ""


class CitedStream(_PlainStream, StreamingResponse):
    """`StreamingResponse` with `to_dict`."""


class AsyncCitedStream(_PlainStream, AsyncStreamingResponse):
    """`AsyncStreamingResponse` with `to_dict`."""
