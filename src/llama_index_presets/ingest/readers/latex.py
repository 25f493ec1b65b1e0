"""LaTeX: pylatexenc reads the macros; sections become headings, tabular environments tables, formulas one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import plain_values
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html import plain_from_html
from llama_index_presets.packages.extras import require

__all__ = ["read_latex"]

_LEVELS: Final = {
    "part": 2, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6, "subparagraph": 6,
}  # fmt: skip
_TABLES: Final = ("tabular", "tabular*", "tabularx", "tabulary", "longtable", "array")
_RULES: Final = ("hline", "toprule", "midrule", "bottomrule", "cline", "cmidrule", "endhead", "endfirsthead")
_SILENT: Final = {
    "label": "{", "includegraphics": "*[[{", "vspace": "*{", "hspace": "*{", "bibliography": "{",
    "bibliographystyle": "{", "setlength": "{{", "setcounter": "{{", "addtocounter": "{{", "pagestyle": "{",
    "thispagestyle": "{", "pagenumbering": "{", "input": "{", "include": "{", "cline": "{", "cmidrule": "[{",
    "newtheorem": "*{[{[", "theoremstyle": "{", "rule": "[{{", "hypersetup": "{", "captionsetup": "{", "color": "{",
    "looseness": "", "addcontentsline": "{{{",
    "enlargethispage": "*{", "fontsize": "{{", "newpage": "", "vfill": "", "maketitle": "",
    "newcommand": "*{[[{", "renewcommand": "*{[[{", "providecommand": "*{[[{",
}  # fmt: skip
"""Macro without words of its own -> its arguments."""
_LAST_COUNTS: Final = {
    "multicolumn": "{{{", "multirow": "{[{[{", "textcolor": "[{{", "colorbox": "{{", "resizebox": "*{{{",
    "scalebox": "{[{", "parbox": "[{{", "raisebox": "{[[{", "url": "{", "href": "{{", "fbox": "{",
}  # fmt: skip
"""Macro whose last argument is its text -> its arguments."""
_ENVIRONMENTS: Final = {
    "tabular*": "{[{", "tabularx": "{[{", "tabulary": "{[{", "longtable": "[{", "CJK": "{{", "CJK*": "{{",
    "minipage": "[{", "wrapfigure": "[{{", "wraptable": "[{{", "subfigure": "[{", "multicols": "{",
    "thebibliography": "{", "tcolorbox": "[", "adjustbox": "{", "table": "[", "table*": "[", "figure": "[",
    "figure*": "[", "enumerate": "[", "itemize": "[",
}  # fmt: skip
_CITATIONS: Final = ("cite", "citep", "citet", "citeauthor", "citeyear", "autocite", "parencite", "textcite")
_REFERENCES: Final = ("ref", "eqref", "cref", "Cref", "autoref", "pageref")
_BODY: Final = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.S)
_DEFINITION: Final = re.compile(
    r"\\(?:(?:new|renew|provide)command\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?|def\s*\\([A-Za-z]+))\s*\{"
)
_LONGEST_GROUP: Final = 2_000  # characters
_LONGEST_DEFINITION: Final = 200  # characters of a word that is written as a macro of the author's own
_ABOUT: Final = re.compile(r"\\(title|author|date)\s*(?:\[[^\]]*\])?\s*\{")
_SPACE: Final = "\ue002"  # behind a macro: a space where a word follows
_HTML: Final = re.compile("\ue000(.*?)\ue001", re.S)
"""What is HTML already stands between these two characters of private use."""


def read_latex(path: Path, limit: SizeLimit = DEFAULT_LIMIT) -> tuple[PlainText, dict[str, Any]]:
    """Text of a LaTeX file, without its preamble and comments; files that it includes are not read."""
    decoded = read_text_file(path, limit)
    source = re.sub("[\ue000-\ue002]", "", decoded.text)
    found = _BODY.search(source)
    converter = _Converter(_definitions(source))
    about = {
        name: " ".join(re.sub(r"\s+", " ", converter.text(value)).split())
        for name, value in _about(source[: found.start()] if found else source)
    }
    title = f"<h1>{escape(about['title'])}</h1>" if about.get("title") else ""
    text = converter.text(found[1] if found else source)
    html = title + "".join(_paragraphs(plain_from_text(text).text))
    plain = plain_from_html(html, limit, keep_menus=True)
    named = {"title": about.get("title"), "authors": about.get("author"), "date": about.get("date")}
    return decoded.of(plain), plain_values({key: value for key, value in named.items() if value})


def _about(preamble: str) -> Iterator[tuple[str, str]]:
    """Title, author and date, each the text between its braces."""
    for found in _ABOUT.finditer(preamble):
        if (value := _in_braces(preamble, found.end())) is not None:
            yield found[1], value


def _definitions(source: str) -> Iterator[tuple[str, str]]:
    """Macros of the author's own that have no arguments, such as the name of a product, and what they stand for."""
    for found in _DEFINITION.finditer(source):
        value = _in_braces(source, found.end())
        if value is not None and len(value) <= _LONGEST_DEFINITION:
            yield found[1] or found[2], value


def _in_braces(source: str, start: int) -> str | None:
    """What stands from a place to the brace that closes the group around it; None where none does."""
    depth, place = 1, start
    while place < len(source) and place < start + _LONGEST_GROUP and depth:
        depth += {"{": 1, "}": -1}.get(source[place], 0) * (source[place - 1] != "\\")
        place += 1
    return None if depth else source[start : place - 1]


def _paragraphs(text: str) -> Iterator[str]:
    """HTML of a text whose paragraphs are parted by blank lines, with HTML in its marks."""
    place = 0
    for found in _HTML.finditer(text):
        yield from _prose(text[place : found.start()])
        yield found[1]
        place = found.end()
    yield from _prose(text[place:])


def _prose(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            yield f"<p>{escape(' '.join(paragraph.split()))}</p>"


class _Converter:
    """LaTeX to text, in which headings and tables are HTML between two marks."""

    def __init__(self, definitions: Iterable[tuple[str, str]] = ()) -> None:
        self._walker = require("pylatexenc.latexwalker", extra="readers-all")
        self._spec = require("pylatexenc.macrospec", extra="readers-all")
        self._to_text = require("pylatexenc.latex2text", extra="readers-all")
        self._known = self._walker.get_default_latex_context_db()
        self._known.add_context_category(
            "ours", prepend=True, macros=self._macros(), environments=self._environments()
        )
        shown = self._to_text.get_default_latex_context_db()
        shown.add_context_category(
            "ours",
            prepend=True,
            macros=list(self._shown_macros()),
            environments=[
                self._to_text.EnvironmentTextSpec(name, simplify_repl=lambda node: self._table(node))
                for name in _TABLES
            ],
        )
        self._writer = self._to_text.LatexNodes2Text(latex_context=shown, math_mode="text")
        for at, (name, value) in enumerate(definitions):  # each may use those before it
            words = " ".join(self.text(value).split())[:_LONGEST_DEFINITION]
            words += _SPACE if "\\xspace" in value else ""
            shown.add_context_category(
                f"own {at}",
                prepend=True,
                macros=[self._to_text.MacroTextSpec(name, simplify_repl=words.replace("%", "%%"))],
            )

    def text(self, source: str) -> str:
        """Text of some LaTeX; what it breaks off is left as it is."""
        walker = self._walker.LatexWalker(source, latex_context=self._known, tolerant_parsing=True)
        text = str(self._writer.nodelist_to_text(walker.get_latex_nodes(pos=0)[0]))
        return re.sub(rf"{_SPACE}(?=[\w(\[])", " ", text).replace(_SPACE, "")

    def _macros(self) -> list[Any]:
        arguments = {**_SILENT, **_LAST_COUNTS, "caption": "*[{", "footnote": "[{", "texorpdfstring": "{{"}
        arguments |= dict.fromkeys(_CITATIONS[1:], "*[[{") | dict.fromkeys(_REFERENCES, "*{")
        arguments |= dict.fromkeys(_LEVELS, "*[{")
        return [self._spec.std_macro(name, argspec) for name, argspec in arguments.items()]

    def _environments(self) -> list[Any]:
        return [
            self._spec.EnvironmentSpec(name, args_parser=self._spec.MacroStandardArgsParser(argspec))
            for name, argspec in _ENVIRONMENTS.items()
        ]

    def _shown_macros(self) -> Iterator[Any]:
        def spec(name: str, shown: Any) -> Any:
            return self._to_text.MacroTextSpec(name, simplify_repl=shown)

        for name, level in _LEVELS.items():
            yield spec(name, lambda node, level=level: self._heading(node, level))
        yield from (spec(name, "") for name in (*_SILENT, *_RULES))
        yield from (spec(name, lambda node: f"[{self._last(node)}]") for name in (*_CITATIONS, *_REFERENCES))
        yield spec("footnote", lambda node: f" ({self._last(node)})")
        yield spec("caption", lambda node: f"\n\n{self._last(node)}\n\n")
        yield spec("item", lambda node: "\n\n" + (f"{self._last(node)}: " if self._last(node) else ""))
        yield from (spec(name, lambda node: self._last(node)) for name in (*_LAST_COUNTS, "texorpdfstring"))

    def _last(self, node: Any) -> str:
        """Text of the last argument of a macro."""
        arguments = [one for one in (node.nodeargd.argnlist if node.nodeargd else ()) if one is not None]
        return str(self._writer.nodelist_to_text([arguments[-1]])).strip() if arguments else ""

    def _heading(self, node: Any, level: int) -> str:
        title = " ".join(_HTML.sub("", self._last(node)).split())
        return f"\n\n\ue000<h{level}>{escape(title)}</h{level}>\ue001\n\n"

    def _table(self, node: Any) -> str:
        rows: list[list[tuple[str, int]]] = [[("", 1)]]
        for part in node.nodelist:
            name = getattr(part, "macroname", "")
            if name == "\\" or name == "tabularnewline":
                rows.append([("", 1)])
            elif getattr(part, "specials_chars", "") == "&":
                rows[-1].append(("", 1))
            elif name not in _RULES:
                text, span = rows[-1][-1]
                count = self._first_number(part) if name == "multicolumn" else span
                rows[-1][-1] = (text + self._writer.nodelist_to_text([part]), count)
        filled = [row for row in rows if any(text.strip() for text, _ in row)]
        cells = (
            "".join(f'<td colspan="{span}">{escape(" ".join(text.split()))}</td>' for text, span in row)
            for row in filled
        )
        return f"\n\n\ue000<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>\ue001\n\n"

    def _first_number(self, node: Any) -> int:
        text = str(self._writer.nodelist_to_text([node.nodeargd.argnlist[0]])).strip()
        return int(text) if text.isdecimal() and len(text) < 4 else 1
