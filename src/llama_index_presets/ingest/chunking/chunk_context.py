"""What a chunk does not say of its document: a title, its lead sentence, a sentence of a language model."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final, Literal

from llama_index.core.schema import TextNode

from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.text.sentences import split_sentences

__all__ = [
    "CONTEXT_KEYS",
    "LEAD_KEY",
    "SENTENCE_KEY",
    "TITLE_KEY",
    "ChunkContext",
    "document_title",
    "lead_sentence",
    "names_nothing",
    "tell_heading",
]

ChunkContext = Literal["none", "title", "lead", "llm"]
"""What is added: nothing; the title; the title, and the lead sentence to chunks that name nothing; the title, and a
sentence of a language model."""

TITLE_KEY: Final = "document_title"
"""Metadata of a chunk: title of its document, where neither heading nor metadata state it. Embedded and indexed."""

LEAD_KEY: Final = "document_lead"
"""Metadata of a chunk that names nothing: lead sentence of its document. Embedded and indexed."""

SENTENCE_KEY: Final = "document_context"
"""Metadata of a chunk: a language model's sentence that situates it in its document. Embedded and indexed."""

_HEADING_START_KEY: Final = "heading_start"
"""Metadata of a chunk that begins with lines under the title: offset in the document where its heading stands."""

CONTEXT_KEYS: Final = (TITLE_KEY, LEAD_KEY, SENTENCE_KEY)

_LONGEST: Final = 100  # characters of a title
_TOP: Final = 4_000  # characters of a text in which a title line or a lead sentence is looked for
_LONGEST_LEAD: Final = 240
_SHORTEST_LEAD: Final = 30
_NAMELESS: Final = re.compile(
    r"^(doc(ument)?|file|scan|image|img|page|pages|part|copy|draft|final|new|untitled|unnamed|untitled|tmp\w*|temp|"
    r"upload|download|export|output|input|text|data|readme|index|main|sample|test|notes?|[0-9a-f]{8,}|0\d+|\d{5,}|.)$",
    re.IGNORECASE,
)
_ANAPHORA: Final = re.compile(
    r"^(it|its|this|that|these|those|they|them|their|he|she|his|her|such|there|here|however|therefore|thus|also)$",
    re.I,
)


def document_title(plain: PlainText, file_name: str) -> str:
    """Title of a document: the heading that stands over all others, else its name and a line at its top.

    Args:
        plain: Its text.
        file_name: Name of its file, or empty.

    Returns:
        At most 100 characters; empty where neither says what the document is.

    Example:
        >>> document_title(PlainText("\\n\\nOn Sparse Sums\\n\\nWe add numbers."), "acme_2018_10K.txt")
        'acme 2018 10K: On Sparse Sums'
    """
    roots = plain.root_headings
    if len(roots) == 1:
        return roots[0][:_LONGEST]
    name, line = _name_words(file_name), "" if roots else _title_line(plain.stretch(0, _TOP))
    said = set(line.lower().split())
    parts = [part for part in (name if set(name.lower().split()) - said else "", line) if part]
    return ": ".join(parts)[:_LONGEST]


def _name_words(file_name: str) -> str:
    """Words of a file's name, without those that name nothing, such as numbers of a catalogue."""
    words = re.split(r"[_\W]+", PurePath(file_name).stem)
    return " ".join(word for word in words if word and not _NAMELESS.match(word))


def _title_line(top: str) -> str:
    """The first line that stands alone between blank lines and reads like a title, above the first sentence."""
    lines = ["", *(line.rstrip() for line in top.split("\n")), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.endswith((".", "!", "?")) and not before:
            break
        if not before and not after and _reads_like_title(line.strip()):
            return line.strip()
    return ""


def _reads_like_title(line: str) -> bool:
    letters = sum(one.isalpha() or one.isspace() for one in line)
    return (
        3 <= len(line) <= _LONGEST
        and line[0].isalnum()
        and line[-1] not in ".,;:"
        and letters >= 0.6 * len(line)
        and not re.search(r"\s{3,}|\.{4,}", line)
    )


def names_nothing(text: str, title: str) -> bool:
    """Whether a text says neither a word of its document's title nor any name: "It is rare in children."

    A name is a word with a capital inside a sentence, so that a language which writes nouns so has names everywhere.

    Example:
        >>> names_nothing("It is rare. They recover.", "Botulism"), names_nothing("See Dr. Smith.", "Botulism")
        (True, False)
    """
    words = re.findall(r"\w+", text)
    own = {word.lower() for word in re.findall(r"\w{4,}", title)}
    if own & {word.lower() for word in words}:
        return False
    first = words[0].lower() if words else ""
    inside = re.findall(r"(?<=[\w,;)] )[A-Z]\w+", text)
    return bool(_ANAPHORA.match(first)) or not inside


def lead_sentence(plain: PlainText, language: str | None = None) -> str:
    """The first whole sentence of a document; empty where its top has none of 30 to 240 characters.

    Example:
        >>> lead_sentence(PlainText("Botulism\\n\\nBotulism is a rare illness of nerves. It is treated."))
        'Botulism is a rare illness of nerves.'
    """
    for sentence in split_sentences(plain.stretch(0, _TOP), language):
        said = sentence.strip().split("\n\n")[-1]
        line = " ".join(said.split())
        if _SHORTEST_LEAD <= len(line) <= _LONGEST_LEAD and re.search(r"[.!?。।؟]$", line):
            return line
    return ""


def tell_heading(node: TextNode, own_start: int) -> None:
    """Put a chunk of what stands under the title under the title; of one that goes on below, say where that begins."""
    title, start, end = (
        node.metadata["heading"].split(" > ")[0],
        node.start_char_idx or 0,
        node.end_char_idx or 0,
    )
    if start >= own_start:
        return
    if end <= own_start:
        node.metadata["heading"] = title
        return
    node.metadata[_HEADING_START_KEY] = own_start
    node.excluded_embed_metadata_keys.append(_HEADING_START_KEY)
    node.excluded_llm_metadata_keys.append(_HEADING_START_KEY)
