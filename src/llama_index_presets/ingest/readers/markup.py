"""reStructuredText and Org: rendered to HTML, and read as HTML is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import plain_values
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.packages.extras import require

__all__ = ["read_org", "read_rst"]

_DIRECTIVE: Final = re.compile(
    r"^(?P<indent>[ \t]*)\.\. (?P<name>[\w:.+-]+)::[ \t]*(?P<argument>.*)$", re.MULTILINE
)
_ROLE: Final = re.compile(r":(?:[\w.+-]+:)*(?P<role>[\w.+-]+):`(?P<text>[^`]+)`")
_KNOWN_ROLES: Final = frozenset(
    ["sup", "sub", "math", "emphasis", "strong", "literal", "code", "raw", "title", "abbreviation", "acronym"]
)
_SETTINGS: Final = {
    "file_insertion_enabled": False,  # a document does not read other files
    "raw_enabled": False,
    "halt_level": 5,
    "report_level": 5,
    "_disable_config": True,
    "math_output": "LaTeX",
    "doctitle_xform": False,
    "embed_stylesheet": False,
    "stylesheet_path": "",
    "input_encoding": "unicode",
}


def read_rst(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a reStructuredText file; directives and roles of Sphinx keep their words."""
    decoded = read_text_file(path, limit)
    publish = require("docutils.core", extra="readers-all").publish_parts
    directives = require("docutils.parsers.rst.languages.en", extra="readers-all").directives
    source = _DIRECTIVE.sub(lambda found: _known(found, directives), _ROLE.sub(_role, decoded.text))
    body = publish(source, writer="html5", settings_overrides=_SETTINGS)["body"]
    return decoded.of(plain_from_html(body, limit, keep_menus=True)), {}


def _known(found: re.Match[str], directives: Any) -> str:
    """A directive that docutils has, or a container of its argument and its content, which is not lost."""
    if found["name"].lower() in directives and found["name"] != "image":
        return found[0]
    indent = found["indent"]
    argument = "" if found["name"] in ("image", "toctree") else found["argument"]
    return f"{indent}.. container::\n\n{indent}   {argument}\n"


def _role(found: re.Match[str]) -> str:
    if found["role"] in _KNOWN_ROLES:
        return found[0]
    return re.sub(r"\s*<[^<>]*>$", "", found["text"]).lstrip("~!")


_ORG_HEADING: Final = re.compile(
    r"(\*+)\s++(?:(?:TODO|DONE)\s++)?(?:\[#\w\]\s++)?(.*?)(?:\s+:[\w@#%:]+:)?\s*$"
)
_ORG_KEYWORD: Final = re.compile(r"\s*#\+(\w+):\s*(.*)$")
_ORG_BLOCK: Final = re.compile(r"\s*#\+(begin|end)_(\w+)", re.IGNORECASE)
_ORG_ITEM: Final = re.compile(r"\s*([-+]|\d+[.)])\s++(?:\[[ xX-]\]\s++)?(?:(.+?)(?<!\s)\s++::\s++)?(.*)$")
_ORG_LINK: Final = re.compile(r"\[\[([^\]\[]+)\](?:\[([^\]\[]+)\])?\]")
_ORG_MARK: Final = re.compile(r"(?<![\w*/=~+_])([*/=~+_])(?=\S)([^\n]{0,1000}?\S)\1(?!\w)")


def read_org(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of an Org file, without its drawers and settings."""
    decoded = read_text_file(path, limit)
    lines = decoded.text.splitlines()
    found = [one for one in map(_ORG_KEYWORD.match, lines) if one]
    about = {
        one[1].lower(): one[2] for one in found if one[1].lower() in ("title", "author", "date") and one[2]
    }
    return decoded.of(plain_from_html("\n".join(_org(lines)), limit, keep_menus=True)), plain_values(about)


def _org(lines: list[str]) -> Iterator[str]:
    """HTML of Org lines."""
    table, in_drawer, in_code = list[str](), False, False
    for line in [*lines, ""]:
        block = _ORG_BLOCK.match(line)
        if table and not line.lstrip().startswith("|"):
            yield _org_table(table)
            table = []
        if block:
            in_code = block[1].lower() == "begin" and block[2].lower() in ("src", "example", "export")
            yield "<pre>" if in_code else "</pre>" if block[2].lower() in ("src", "example", "export") else ""
        elif in_code:
            yield escape(line.removeprefix(","))
        elif in_drawer or re.fullmatch(r"\s*:(?:PROPERTIES|LOGBOOK|\w+):\s*", line):
            in_drawer = not re.fullmatch(r"\s*:END:\s*", line, re.IGNORECASE)
        elif line.lstrip().startswith("|"):
            table.append(line.strip())
        else:
            yield _org_line(line)


def _org_line(line: str) -> str:
    if heading := _ORG_HEADING.match(line):
        level = min(len(heading[1]), 6)
        return f"<h{level}>{_org_inline(heading[2])}</h{level}>"
    if (keyword := _ORG_KEYWORD.match(line)) or line.lstrip().startswith("# "):
        kept = keyword is not None and keyword[1].lower() in ("title", "caption")
        if not kept or not keyword:
            return ""
        tag = "h1" if keyword[1].lower() == "title" else "p"
        return f"<{tag}>{_org_inline(keyword[2])}</{tag}>"
    if item := _ORG_ITEM.match(line):
        number = "" if item[1] in "-+" else f"{item[1]} "
        return f"<li>{number}{_org_inline(': '.join(filter(None, item.groups()[1:])))}</li>"
    return f"{_org_inline(line)}" if line.strip() else "<p></p>"


def _org_inline(text: str) -> str:
    text = _ORG_LINK.sub(lambda link: link[2] or link[1], text)
    return escape(_ORG_MARK.sub(r"\2", text))


def _org_table(lines: list[str]) -> str:
    """A table; rows above its first rule name the columns."""
    rules = [at for at, line in enumerate(lines) if re.match(r"\|[-+]+", line)]
    head = next((at for at in rules if at), 0)
    rows = ""
    for at, line in enumerate(lines):
        if at not in rules:
            tag = "th" if at < head else "td"
            cells = (f"<{tag}>{_org_inline(cell.strip())}</{tag}>" for cell in line.strip("|").split("|"))
            rows += f"<tr>{''.join(cells)}</tr>"
    return f"<table>{rows}</table>"
