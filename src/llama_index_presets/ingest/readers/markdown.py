"""Markdown, tables included: rendered by markdown-it and read as HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import about_front_matter
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.packages.extras import require

__all__ = ["html_from_markdown", "plain_from_markdown", "read_markdown"]

_TAG: Final = re.compile(r"</?([a-zA-Z][\w-]*)")
_FORMATS: Final = frozenset([
    "a", "abbr", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time",
    "tt", "u", "var", "wbr", "img", "p", "div", "center", "details", "summary", "table", "thead", "tbody", "tr",
    "td", "th", "ul", "ol", "li",
])  # fmt: skip
_EXTENSIONS: Final = ["table", "strikethrough"]
_DEEPEST: Final = 100  # tokens inside each other; a list takes two
_MANY_QUOTES: Final = re.compile(r"^[ \t]*(?:>[ \t]*){20,}", re.MULTILINE)
_HIDING: Final = (
    "script|style|textarea|title|xmp|iframe|noembed|noframes|plaintext|noscript|template|svg|math|select|button|object|"
    "head|frameset|audio|video|canvas|map|nav"
)
_HIDES: Final = re.compile(rf"<({_HIDING})(?=[\s>/])", re.IGNORECASE)
_CLOSES: Final = re.compile(rf"</({_HIDING})(?=[\s>])", re.IGNORECASE)


def read_markdown(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text and front matter of a Markdown file."""
    decoded = read_text_file(path, limit)
    left_out = list[str]()
    about = about_front_matter(decoded.text, left_out)
    plain = decoded.of(plain_from_markdown(decoded.text, limit))
    return replace(plain, warnings=(*plain.warnings, *left_out)), about


def plain_from_markdown(text: str, limit: SizeLimit = DEFAULT_LIMIT) -> PlainText:
    """Markdown, tables included, without its syntax.

    Example:
        >>> plain = plain_from_markdown("# Title\\n\\nSome *bold* text.")
        >>> plain.text.strip(), plain.headings[0][1]
        ('Some bold text.', 'Title')
    """
    return plain_from_html(html_from_markdown(_without_front_matter(text)), limit)


def html_from_markdown(text: str) -> str:
    """HTML of Markdown; a tag that is named in prose, and would hide what follows, is text.

    Raises:
        IngestError: It nests too deep.
    """
    library = require("markdown_it", extra="readers")
    parser = library.MarkdownIt("commonmark", {"maxNesting": _DEEPEST}).enable(_EXTENSIONS)
    literal = library.MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable(_EXTENSIONS)
    for one in (
        parser,
        literal,
    ):  # addresses are no text, and one that is defined once can be used in a million links
        one.add_render_rule("link_open", lambda *_: "<a>")
        one.add_render_rule("image", lambda _, tokens, at, *__: escape(tokens[at].content))
    parser.add_render_rule("html_inline", lambda _, tokens, at, *__: _inline_html(tokens[at].content))
    parser.add_render_rule("html_block", lambda _, tokens, at, *__: _block_html(tokens[at].content, literal))
    environment: dict[str, Any] = {}
    tokens = parser.parse(text, environment)
    if _is_cut(tokens):
        tokens = parser.parse(_MANY_QUOTES.sub("> ", text), environment)
    if _is_cut(tokens):
        raise IngestError(f"Its lists stand inside each other {_DEEPEST // 2 - 1} levels deep. Flatten them.")
    return str(parser.renderer.render(tokens, parser.options, environment))


def _is_cut(tokens: Sequence[Any]) -> bool:
    """Whether the parser may have left out what stands deeper than it goes."""
    return any(token.level >= _DEEPEST - 1 for token in tokens)


def _inline_html(tag: str) -> str:
    """A tag that formats its words, or the tag's own words: ``<script>`` in a sentence is the sentence's."""
    name = _TAG.match(tag)
    return tag if tag.startswith("<!--") or (name and name[1].lower() in _FORMATS) else escape(tag)


def _block_html(html: str, literal: Any) -> str:
    """A block as it is, unless it opens something that hides all that follows and does not close it."""
    opened = Counter(name.lower() for name in _HIDES.findall(html))
    closed = Counter(name.lower() for name in _CLOSES.findall(html))
    open_comment = html.rfind("<!--") > html.rfind("-->")
    return str(literal.render(html)) if opened - closed or open_comment else html


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), count=1, flags=re.DOTALL)
