"""Source code and notebooks: functions and classes are headings, the text stays as it is."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text, without_controls
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.plain_text import Mark, PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.markdown import html_from_markdown
from llama_index_presets.packages.extras import require

__all__ = ["outline", "read_code", "read_notebook"]

_MODIFIERS: Final = (
    r"(?:(?:export|default|public|private|protected|internal|abstract|static|final|sealed|partial|data|open|async|unsafe|"
    r"inline|override|virtual|extern|const|constexpr|pub(?:\([\w:]+\))?|declare|local|case)\s+)*"
)
_TYPE: Final = re.compile(
    rf"^(?P<indent>[ \t]*){_MODIFIERS}(?:class|interface|struct|enum|trait|impl(?:<[^>]*>)?|module|namespace|object|"
    r"record|protocol|extension|mod|package(?=\s+\w+\s*\{))\s+(?P<name>[A-Za-z_$][\w$.:]*)"
)
_FUNCTION: Final = re.compile(
    rf"^(?P<indent>[ \t]*){_MODIFIERS}(?:function\*?|func|fn|def|fun|sub|proc)\s+(?:\([^)]*\)\s*)?"
    r"(?P<name>[A-Za-z_$][\w$.:?!-]*)"
)
_ARROW: Final = re.compile(
    r"^(?P<indent>[ \t]*)(?:export\s+)?(?:const|let|var)\s+(?P<name>[A-Za-z_$][\w$]*)\s*(?::[^=]+)?=\s*(?:async\s*)?"
    r"(?:function\b|\([^()]*\)\s*(?::[^=]+)?=>|[A-Za-z_$][\w$]*\s*=>)"
)
_METHOD: Final = re.compile(
    r"^(?P<indent>[ \t]*)(?:[\w<>\[\],.&*:~?@]+\s+){0,6}?[*&]?(?P<name>~?[A-Za-z_$][\w$:~]*)\s*\([^;{}]{0,400}\)?\s*"
    r"(?:const|noexcept|override|throws\s[\w.,\s]+|:\s*[\w<>\[\]|. ]+)?\s*\{?\s*$"
)
_SQL: Final = re.compile(
    r"^(?P<indent>\s*)create\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+|materialized\s+|unique\s+)*"
    r"(?:table|view|function|procedure|trigger|index|schema|type)\s+(?:if\s+not\s+exists\s+)?(?P<name>[\w.\"`\[\]]+)",
    re.IGNORECASE,
)
_NO_NAMES: Final = frozenset(
    [
        "if",
        "for",
        "while",
        "switch",
        "return",
        "else",
        "catch",
        "new",
        "case",
        "do",
        "try",
        "elif",
        "with",
        "foreach",
        "until",
        "match",
        "when",
        "throw",
        "await",
        "yield",
        "sizeof",
        "assert",
        "print",
        "using",
        "lock",
        "typeof",
        "defer",
        "go",
        "select",
        "super",
        "this",
        "self",
        "in",
        "not",
        "and",
        "or",
    ]
)
_BRACES: Final = frozenset(
    [
        ".js",
        ".jsx",
        ".mjs",
        ".cjs",
        ".ts",
        ".tsx",
        ".java",
        ".kt",
        ".kts",
        ".scala",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".cxx",
        ".hpp",
        ".hh",
        ".cs",
        ".swift",
        ".php",
        ".dart",
        ".m",
        ".mm",
        ".groovy",
        ".sh",
        ".bash",
        ".zsh",
    ]
)
_LONGEST_LINE: Final = 500  # characters; longer ones are data, or made by a program


def read_code(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Source code as it is, its functions and classes as headings."""
    decoded = read_text_file(path, limit)
    text = plain_from_text(decoded.text).text
    return decoded.of(PlainText(text, outline(text, path.suffix.lower()))), {}


def outline(text: str, suffix: str) -> list[Mark]:
    """Where each class and function begins, as a path of names; what follows one on the top level has none.

    Python is parsed; of other languages the lines that look like definitions count, nested by their indent.

    Example:
        >>> outline("class A:\\n    def f(self): ...\\n\\nA().f()\\n", ".py")
        [(0, 'A'), (9, 'A > f'), (31, '')]
    """
    if suffix in (".py", ".pyi"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes, which are the author's
                return list(_python(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # Python 2, or a template: by the look of its lines, as other languages
    return list(_by_lines(text, suffix))


def _python(text: str) -> Iterator[Mark]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    module = ast.parse(text)
    waiting: list[tuple[ast.stmt, str]] = [(one, "") for one in reversed(module.body)]
    last_end = 0
    while waiting:
        node, above = waiting.pop()
        begin = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            path = f"{above} > {node.name}" if above else node.name
            yield starts[begin - 1], path
            inner = node.body if isinstance(node, ast.ClassDef) else []
            waiting += [(one, path) for one in reversed(inner)]
            last_end = node.end_lineno or begin
        elif last_end and begin > last_end:  # the first statement after a definition
            yield starts[begin - 1], above
            last_end = 0


def _by_lines(text: str, suffix: str) -> Iterator[Mark]:
    path: list[tuple[int, str]] = []
    offset = 0
    for line in text.split("\n"):
        found = _definition(line, suffix) if line.strip() and len(line) <= _LONGEST_LINE else None
        if found:
            indent, name = found
            path = [(depth, title) for depth, title in path if depth < indent] + [(indent, name)]
            yield offset, " > ".join(title for _, title in path)
        offset += len(line) + 1


def _definition(line: str, suffix: str) -> tuple[int, str] | None:
    """Indent and name of what a line defines."""
    patterns = (
        [_SQL] if suffix == ".sql" else [_TYPE, _FUNCTION, _ARROW, *([_METHOD] if suffix in _BRACES else [])]
    )
    for pattern in patterns:
        found = pattern.match(line)
        if found and found["name"].lower() not in _NO_NAMES and not _is_call(pattern, line, found["indent"]):
            return len(found["indent"].expandtabs(4)), found["name"].strip('"`[]')
    return None


def _is_call(pattern: re.Pattern[str], line: str, indent: str) -> bool:
    """Whether a line with brackets only calls: a definition opens a block, or stands on the top level with a type."""
    if pattern is not _METHOD:
        return False
    first = line.split("(", 1)[0].split()
    opens = line.rstrip().endswith("{")
    return (
        first[0] in _NO_NAMES
        or "=" in first
        or not (opens or (not indent and len(first) > 1 and line.rstrip().endswith((")", ","))))
    )


def read_notebook(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Cells of a Jupyter notebook in order: prose under its headings, code, the texts and tables that it printed."""
    decoded = read_text_file(path, limit)
    nbformat = require("nbformat", extra="readers-all")
    notebook = nbformat.reads(decoded.text, as_version=4)
    html = "".join(part for cell in notebook.cells for part in _cell(cell))
    return decoded.of(plain_from_html(html, limit, keep_menus=True)), {}


def _cell(cell: Any) -> Iterator[str]:
    source = without_controls(_joined(cell.get("source")))
    if cell.get("cell_type") == "markdown":
        yield html_from_markdown(source)
    elif source.strip():
        yield f"<pre>\n{escape(source)}</pre>"
    for output in cell.get("outputs", ()):
        yield _output(output)


def _output(output: Any) -> str:
    if output.get("output_type") == "stream":
        return f"<pre>\n{escape(_joined(output.get('text')))}</pre>"
    if output.get("output_type") == "error":
        return f"<p>{escape(str(output.get('ename', '')))}: {escape(str(output.get('evalue', '')))}</p>"
    data = output.get("data", {})
    html = _joined(data.get("text/html"))
    if "<table" in html:  # a data frame: its text form is columns of spaces
        return html
    if "text/markdown" in data:
        return html_from_markdown(_joined(data["text/markdown"]))
    return f"<pre>\n{escape(_joined(data.get('text/plain')))}</pre>" if "text/plain" in data else html


def _joined(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value or "")
