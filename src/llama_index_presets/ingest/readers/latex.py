"""LaTeX: pylatexenc reads the macros; sections become headings, tabular environments tables, formulas one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.clean import plain_from_text
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.metadata.document_metadata import plain_values
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.encoding import read_text_file
from llama_index_presets.ingest.readers.html.list_markers import counter
from llama_index_presets.ingest.readers.html.reader import plain_from_html
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
    "phantomsection": "", "tightlist": "",
    "thispagestyle": "{", "pagenumbering": "{", "input": "{", "include": "{", "cline": "{", "cmidrule": "[{",
    "newtheorem": "*{[{[", "theoremstyle": "{", "rule": "[{{", "hypersetup": "{", "captionsetup": "{", "color": "{",
    "looseness": "", "addcontentsline": "{{{",
    "enlargethispage": "*{", "fontsize": "{{", "newpage": "", "vfill": "", "maketitle": "",
    "newcommand": "*{[[{", "renewcommand": "*{[[{", "providecommand": "*{[[{",
}  # fmt: skip
"""Macro without words of its own -> its arguments."""
_LAST_COUNTS: Final = {
    "multicolumn": "{{{", "multirow": "{[{[{", "textcolor": "[{{", "colorbox": "{{", "resizebox": "*{{{",
    "hypertarget": "{{", "hyperlink": "{{", "hyperref": "[{",
    "scalebox": "{[{", "parbox": "[{{", "raisebox": "{[[{", "url": "{", "href": "{{", "fbox": "{",
}  # fmt: skip
"""Macro whose last argument is its text -> its arguments."""
_ENVIRONMENTS: Final = {
    "tabular*": "{[{", "tabularx": "{[{", "tabulary": "{[{", "longtable": "[{", "CJK": "{{", "CJK*": "{{",
    "minipage": "[{", "wrapfigure": "[{{", "wraptable": "[{{", "subfigure": "[{", "multicols": "{",
    "thebibliography": "{", "tcolorbox": "[", "adjustbox": "{", "table": "[", "table*": "[", "figure": "[",
    "figure*": "[", "enumerate": "[", "itemize": "[",
}  # fmt: skip
_NUMBERS: Final = (
    ("decimal", "{}. "),
    ("lower-alpha", "({}) "),
    ("lower-roman", "{}. "),
    ("upper-alpha", "{}. "),
)
"""Kind and form of the numbers of a list, by how many are around it."""
_CITATIONS: Final = ("cite", "citep", "citet", "citeauthor", "citeyear", "autocite", "parencite", "textcite")
_REFERENCES: Final = ("ref", "eqref", "cref", "Cref", "autoref", "pageref")
_BODY: Final = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.S)
_DEFINITION: Final = re.compile(
    r"\\(?:(?:new|renew|provide)command\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?|def\s*\\([A-Za-z]+))\s*\{"
)
_OWN_MACRO: Final = re.compile(
    r"\\(?:(?:new|renew|provide)command\*?\s*(?:\{\s*\\[A-Za-z]+\s*\}|\\[A-Za-z]+)|def\s*\\(?:[A-Za-z]+|.)[#\d]*"
    r"|(?P<pair>(?:re)?newenvironment\*?\s*\{[^{}]*\}))\s*(?:\[[^\]]*\]\s*)*\{"
)
"""A definition of the author's own, up to its body; that of an environment has two."""
_COMMENT: Final = re.compile(r"(?<!\\)%")
_LONGEST_BODY: Final = 5_000  # characters of a definition
_LONGEST_GROUP: Final = 2_000  # characters
_LONGEST_DEFINITION: Final = 200  # characters of a word that is written as a macro of the author's own
_ABOUT: Final = re.compile(r"\\(title|author|date)\s*(?:\[[^\]]*\])?\s*\{")
_UNCLOSED: Final = (
    "The file cannot be read: its groups and environments do not end where they should. See whether LaTeX takes it, or "
    "ingest it as .txt."
)
_TOKENS: Final = 5  # read for a character of a file, where a file without faults needs one at most
_TOKENS_OF_ANY: Final = 10_000
_DEEPEST: Final = 40  # groups, arguments and environments inside each other
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
    text = converter.text(_without_definitions(found[1] if found else source))
    html = title + "".join(_paragraphs(plain_from_text(text).text))
    plain = plain_from_html(html, limit, keep_menus=True)
    named = {"title": about.get("title"), "authors": about.get("author"), "date": about.get("date")}
    return decoded.of(plain), plain_values({key: value for key, value in named.items() if value})


def _is_deeper(nodes: Iterable[Any], most: int) -> bool:
    """Whether nodes of pylatexenc stand in each other more often than so many times."""
    level = [node for node in nodes if node is not None]
    for _ in range(most):
        level = [inner for node in level for inner in _inside(node) if inner is not None]
        if not level:
            return False
    return True


def _inside(node: Any) -> list[Any]:
    arguments = getattr(getattr(node, "nodeargd", None), "argnlist", None) or []
    return [*(getattr(node, "nodelist", None) or []), *arguments]


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


def _without_definitions(source: str) -> str:
    """The text without definitions, which say nothing, and whose halves of environments pylatexenc would look for."""
    kept, place = list[str](), 0
    for found in _OWN_MACRO.finditer(source):
        line = source[source.rfind("\n", 0, found.start()) + 1 : found.start()]
        if found.start() < place or _COMMENT.search(line):
            continue
        end = _end_of_bodies(source, found.end(), 2 if found["pair"] else 1)
        if end is not None:
            kept.append(source[place : found.start()])
            place = end
    return "".join([*kept, source[place:]])


def _end_of_bodies(source: str, start: int, count: int) -> int | None:
    """Where the last of some groups ends, the first of which begins before a place; None where one is not closed."""
    for further in range(count):
        body = _in_braces(source, start, _LONGEST_BODY)
        if body is None:
            return None
        start += len(body) + 1
        if further < count - 1:
            opened = re.compile(r"(?:\s|%[^\n]*\n)*\{").match(source, start)
            if opened is None:
                return None
            start = opened.end()
    return start


def _in_braces(source: str, start: int, longest: int = _LONGEST_GROUP) -> str | None:
    """What stands from a place to the brace that closes the group around it; None where none does."""
    depth, place = 1, start
    while place < len(source) and place < start + longest and depth:
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


@cache
def _patient(walker: Any) -> Any:
    """pylatexenc's parser, which reads what follows an environment that is not closed twice: of 30 such, for ever."""

    class Walker(walker.LatexWalker):  # type: ignore[misc]
        def __init__(self, source: str, **settings: Any) -> None:
            super().__init__(source, **settings)
            self._left = _TOKENS * len(source) + _TOKENS_OF_ANY

        def get_token(self, *arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise IngestError(_UNCLOSED)
            return super().get_token(*arguments, **named)

    return Walker


class _Converter:
    """LaTeX to text, in which headings and tables are HTML between two marks."""

    def __init__(self, definitions: Iterable[tuple[str, str]] = ()) -> None:
        self._numbered_lists = 0  # around the current place
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
            ]
            + [
                self._to_text.EnvironmentTextSpec(
                    "enumerate", simplify_repl=lambda node: self._numbered(node)
                )
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
        walker = _patient(self._walker)(source, latex_context=self._known, tolerant_parsing=True)
        try:
            nodes = walker.get_latex_nodes(pos=0)[0]
        except RecursionError as error:
            raise IngestError(_UNCLOSED) from error
        if _is_deeper(nodes, _DEEPEST):
            # the writer calls itself for each level, and hides that Python has had enough
            raise IngestError(_UNCLOSED)
        text = str(self._writer.nodelist_to_text(nodes))
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
        yield spec("item", lambda node: "\n\n" + (f"{self._last(node)}: " if self._last(node) else "- "))
        yield from (spec(name, lambda node: self._last(node)) for name in (*_LAST_COUNTS, "texorpdfstring"))

    def _last(self, node: Any) -> str:
        """Text of the last argument of a macro."""
        arguments = [one for one in (node.nodeargd.argnlist if node.nodeargd else ()) if one is not None]
        return str(self._writer.nodelist_to_text([arguments[-1]])).strip() if arguments else ""

    def _heading(self, node: Any, level: int) -> str:
        title = " ".join(_HTML.sub("", self._last(node)).split())
        return f"\n\n\ue000<h{level}>{escape(title)}</h{level}>\ue001\n\n"

    def _numbered(self, node: Any) -> str:
        """A numbered list, an item a paragraph; each depth has its own kind of numbers."""
        kind, form = _NUMBERS[min(self._numbered_lists, len(_NUMBERS) - 1)]
        self._numbered_lists += 1
        texts, count = list[str](), 0
        for part in node.nodelist:
            if getattr(part, "macroname", "") == "item" and not self._last(part):
                count += 1
                texts.append("\n\n" + form.format(counter(count, kind)))
            else:
                texts.append(str(self._writer.nodelist_to_text([part])).removeprefix("\n"))
        self._numbered_lists -= 1
        return "".join(texts)

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
