"""Markdown, tables included: rendered by markdown-it and read as HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llama_index_presets._extras import require
from llama_index_presets.ingest.document_metadata import about_front_matter
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html import plain_from_html

__all__ = ["plain_from_markdown", "read_markdown"]


def read_markdown(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and front matter of a Markdown file."""
    decoded = read_text_file(path, limit)
    return decoded.of(plain_from_markdown(decoded.text, limit)), about_front_matter(decoded.text)


def plain_from_markdown(text: str, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Markdown, tables included, without its syntax.

    Example:
        >>> plain = plain_from_markdown("# Title\\n\\nSome *bold* text.")
        >>> plain.text.strip(), plain.headings[0][1]
        ('Some bold text.', 'Title')
    """
    markdown_it = require("markdown_it", extra="readers").MarkdownIt("commonmark").enable("table")
    # Addresses are no text, and one that is defined once can be used in a million links.
    markdown_it.add_render_rule("link_open", lambda *_: "<a>")
    markdown_it.add_render_rule("image", lambda *_: "")
    return plain_from_html(markdown_it.render(_without_front_matter(text)), limit)


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), count=1, flags=re.DOTALL)
