"""Watch over an ingest for personal data: counted, redacted, or the document left out."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Final, Literal

from llama_index.core.schema import TextNode

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.chunking.chunk import PLACE_KEYS, SourceText
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.plain_text import Mark, PlainText, TableSpan
from llama_index_presets.ingest.privacy.personal_data import (
    KINDS,
    Finding,
    find_personal_data,
    personal_data_in,
    redacted,
)
from llama_index_presets.ingest.sources.source import Source
from llama_index_presets.values import map_leaves

__all__ = ["PrivacyWatch", "as_sent", "redacted_plain"]

_PATTERNS: Final = 2
"""Version of what is found: documents that were ingested by an earlier one are read again."""


@dataclass(slots=True)
class PrivacyWatch:
    """Watch over one run of an ingest.

    Attributes:
        mode: ``report`` counts; ``redact`` also replaces, before anything is cut, embedded or stored; ``refuse`` leaves
            the document out.
        found: Document -> kind -> how often; only documents that have any. Never a value.
        refused: Documents that were left out for it.
    """

    mode: Literal["report", "redact", "refuse"]
    found: dict[str, dict[str, int]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def over(self, sources: Iterable[Source]) -> list[Source]:
        """The same documents, watched when they are read.

        A document that was ingested under another rule counts as changed: the rule is part of its content hash, except
        for ``report``, which changes nothing in the index.
        """
        return [self._watched(source) for source in sources]

    def _watched(self, source: Source) -> Source:
        rule = "" if self.mode == "report" or not source.content_hash else f";pii={self.mode}{_PATTERNS}"
        return replace(
            source,
            content_hash=source.content_hash + rule,
            read=lambda: self._read(source),
        )

    def _read(self, source: Source) -> SourceText | Picture | list[TextNode]:
        content = source.read()
        counts: Counter[str] = Counter()
        watched: SourceText | Picture | list[TextNode]
        if isinstance(content, SourceText):
            _count(content, counts)
            watched = _of_text(content) if self.mode == "redact" else content
        elif isinstance(content, Picture):
            watched = _of_picture(content, counts)
        else:
            watched = [_of_node(node, counts) for node in content]
        if counts:
            self.found[source.doc_id] = dict(sorted(counts.items()))
            if self.mode == "refuse":
                self.refused.append(source.doc_id)
                raise IngestError(
                    f"It holds personal data ({_listed(counts)}) and pii is 'refuse'. Remove it there, or set pii to "
                    "'redact' or 'report'."
                )
        return watched if self.mode == "redact" else content


def as_sent(sources: list[Source], mode: Literal["off", "report", "redact", "refuse"]) -> list[Source]:
    """Documents as an ingest sends them to the model, for an estimate: what is redacted or refused is not sent.

    Args:
        sources: The documents.
        mode: The setting ``pii``. With ``report`` nothing is searched, since a search changes nothing.
    """
    return PrivacyWatch(mode).over(sources) if mode in ("redact", "refuse") else sources


def redacted_plain(plain: PlainText, findings: list[Finding]) -> PlainText:
    """Plain text without these findings, with headings and pages still at their places.

    Example:
        >>> plain = PlainText("Mail a@b.org now. Next.", headings=[(18, "Next")])
        >>> done = redacted_plain(plain, find_personal_data(plain.text))
        >>> done.text, done.headings
        ('Mail [EMAIL] now. Next.', [(18, 'Next')])
    """
    longer = list(accumulate(len(KINDS[one.kind]) - (one.end - one.start) for one in findings))
    ends = [one.end for one in findings]
    starts = [one.start for one in findings]

    def moved(offset: int) -> int:
        before = bisect_right(ends, offset)
        inside = before < len(starts) and starts[before] < offset
        return (starts[before] if inside else offset) + (longer[before - 1] if before else 0)

    def marks(given: Sequence[Mark]) -> list[Mark]:
        return [(moved(offset), label) for offset, label in given]

    return replace(
        plain.whole(),
        text=redacted(plain.text, findings),
        headings=marks(plain.headings),
        pages=marks(plain.pages),
        tables=[
            TableSpan(
                moved(one.start), moved(one.end), _clean(one.name, Counter()), _clean(one.header, Counter())
            )
            for one in plain.tables
        ],
        lines=[replace(line, start=moved(line.start), end=moved(line.end)) for line in plain.lines],
    )


def _count(source: SourceText, counts: Counter[str]) -> None:
    """Count what a document has, each heading once; nothing is copied."""
    labels = {label for _, label in source.plain.headings}
    for text in (source.plain.text, *{part for label in labels for part in label.split(" > ")}):
        counts.update(one.kind for one in personal_data_in(text))
    _clean_metadata(source.metadata, counts)


def _of_text(source: SourceText) -> SourceText:
    plain = redacted_plain(source.plain, find_personal_data(source.plain.text))
    labels = {label: _clean(label, Counter()) for _, label in plain.headings}
    return replace(
        source,
        plain=replace(plain, headings=[(offset, labels[label]) for offset, label in plain.headings]),
        metadata=_clean_metadata(source.metadata, Counter()),
        title=_clean(source.title, Counter()),
    )


def _of_picture(picture: Picture, counts: Counter[str]) -> Picture:
    """Caption only, since the pixels are not read. The image's own text repeats the caption and is not counted."""
    if picture.caption:
        _count(picture.caption, counts)
    caption = _of_text(picture.caption) if picture.caption else None
    repeated: Counter[str] = Counter() if caption else counts
    text, metadata = _clean(picture.node.text, repeated), _clean_metadata(picture.node.metadata, repeated)
    return Picture(node=picture.node.model_copy(update={"text": text, "metadata": metadata}), caption=caption)


def _of_node(node: TextNode, counts: Counter[str]) -> TextNode:
    """Redacted copy; a changed text loses its vector, which would still encode the data."""
    text, metadata = _clean(node.text, counts), _clean_metadata(node.metadata, counts)
    changed = text != node.text or metadata != node.metadata
    return node.model_copy(
        update={"text": text, "metadata": metadata, **({"embedding": None} if changed else {})}
    )


def _clean_metadata(metadata: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    def clean(leaf: Any) -> Any:
        return _clean(leaf, counts) if isinstance(leaf, str) else leaf

    return {key: value if key in PLACE_KEYS else map_leaves(value, clean) for key, value in metadata.items()}


def _clean(text: str, counts: Counter[str]) -> str:
    findings = find_personal_data(text)
    counts.update(one.kind for one in findings)
    return redacted(text, findings) if findings else text


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(counts.items()))
