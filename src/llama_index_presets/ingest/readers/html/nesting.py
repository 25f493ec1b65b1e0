"""Nesting of a page, counted before it is parsed: by the rules of HTML a parser compares a tag with all open ones."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from llama_index_presets.errors import IngestError

__all__ = ["check_nesting"]

_FEWEST: Final = 2_500  # tags; fewer do not take long
_DEEPEST: Final = 2_000  # blocks inside each other; browsers stop at 512
_MOST_COMPARED: Final = 1_000_000_000  # pairs of a tag and an open element, some 3 s of a parser
_MOST_REOPENED: Final = 1_000_000  # formats that the next block opens again, each an element of its own
_USUAL: Final = 20  # of these for each tag, which no page exceeds that people write
_SAME: Final = 3  # equal formats that are opened again; a parser forgets the others
_MOST_ATTRIBUTES: Final = 5_000
_LONG_TAG: Final = 20_000  # characters

_TAG: Final = re.compile(
    r"<(?P<hides>!--(?:-?>)?|(?:script|style|textarea|title|xmp|iframe|noembed|noframes)(?=[\s>/]))"
    r"""|<(?P<end>/?)(?P<name>[a-z][^\s/>]*)(?P<rest>(?:[^>=]+|=\s*(?:"[^"]*"|'[^']*')?)*)"""
)
_BLOCKS: Final = frozenset([
    "address", "applet", "article", "aside", "blockquote", "button", "center", "details", "dialog", "dir", "div",
    "dl", "fieldset", "figcaption", "figure", "footer", "header", "hgroup", "listing", "main", "marquee", "menu",
    "nav", "object", "ol", "pre", "search", "section", "select", "summary", "table", "template", "ul",
])  # fmt: skip
_FLAT: Final = frozenset([
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "frame", "hr", "img", "input", "keygen", "link",
    "meta", "param", "source", "track", "wbr", "html", "head", "body", "form", "p", "li", "dt", "dd", "tr", "td",
    "th", "thead", "tbody", "tfoot", "colgroup", "caption", "option", "optgroup", "rb", "rp", "rt", "rtc", "h1",
    "h2", "h3", "h4", "h5", "h6", "plaintext",
])  # fmt: skip
"""Tags that have no content, or that end where the next of their kind begins."""
_FORMATS: Final = frozenset([
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u",
])  # fmt: skip


def check_nesting(html: str) -> None:
    """Refuse a page that would take minutes or gigabytes to parse, by a count of its tags.

    Raises:
        IngestError: Its blocks stand inside each other too deep, too many tags stay open, or one has too many
            attributes.

    Example:
        >>> check_nesting("<div>" * 3_000)
        Traceback (most recent call last):
        ...
        llama_index_presets.errors.IngestError: The page has more than 2,000 blocks inside each other. Close its tags, \
or save its text.
    """
    if len(html) < _LONG_TAG and html.count("<") < _FEWEST:
        return
    html = html.lower()
    count, hidden_to = _Count(), 0
    for tag in _TAG.finditer(html):
        if tag["hides"]:
            if tag.start() >= hidden_to:
                count.opened_inside.clear()
                hidden_to = _end_of_hidden(html, tag)
        elif tag["end"]:
            count.close(tag["name"], hidden=tag.start() < hidden_to)
        else:
            count.start(tag["name"], tag["rest"])


def _end_of_hidden(html: str, tag: re.Match[str]) -> int:
    """Where a script, a comment or the like ends."""
    if tag["hides"].endswith(">"):
        return tag.end()
    end = html.find("-->" if tag["hides"] == "!--" else f"</{tag['hides']}", tag.end())
    return end if end >= 0 else len(html)


class _Count:
    """Count of the elements that are open at a place.

    Tags in a script or a comment are none, but inside a drawing they can be: those that end there close nothing that
    began outside, and those that stay open count.
    """

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.opened_inside: Counter[str] = Counter()  # since the last script or comment began
        self._blocks = self._others = 0
        self._formats: dict[str, list[str]] = {name: [] for name in _FORMATS}  # attributes of the open ones
        self._equal: Counter[tuple[str, str]] = Counter()
        self._reopened_each = 0  # formats that a block opens again
        self._compared = self._reopened = self._tags = 0

    def start(self, name: str, rest: str) -> None:
        if len(rest) > _LONG_TAG:
            _check_attributes(rest)
        if name in _FLAT or name in _BLOCKS:
            self._charge()
        if name in _FLAT or (rest.endswith("/") and self._in_drawing and name not in _BLOCKS | _FORMATS):
            return
        self.open[name] += 1
        self.opened_inside[name] += 1
        if name in _BLOCKS:
            self._blocks += 1
            if self._blocks > _DEEPEST:
                raise _error(f"The page has more than {_DEEPEST:,} blocks inside each other")
        else:
            self._others += 1
        if name in _FORMATS:
            self._formats[name].append(rest)
            self._count_equal(name, rest, 1)

    def close(self, name: str, *, hidden: bool) -> None:
        self._charge()
        if (self.opened_inside if hidden else self.open)[name] <= 0:
            return
        self.open[name] -= 1
        self.opened_inside[name] -= 1
        if name in _BLOCKS:
            self._blocks -= 1
        else:
            self._others -= 1
        if name in _FORMATS:
            self._count_equal(name, self._formats[name].pop(), -1)

    def _count_equal(self, name: str, rest: str, step: int) -> None:
        key = (name, "" if name in ("a", "nobr") else rest)
        most = 1 if name in ("a", "nobr") else _SAME
        before = min(self._equal[key], most)
        self._equal[key] += step
        self._reopened_each += min(self._equal[key], most) - before

    @property
    def _in_drawing(self) -> bool:
        return self.open["svg"] > 0 or self.open["math"] > 0

    def _charge(self) -> None:
        self._tags += 1
        self._compared += self._blocks + self._others
        self._reopened += self._reopened_each
        if self._compared > _MOST_COMPARED + 1_000 * self._tags:
            raise _error(f"The page has {self._blocks + self._others:,} tags open at once")
        if self._reopened > _MOST_REOPENED + _USUAL * self._tags:
            raise _error(f"The page has {self._reopened_each:,} different formats open at once")


def _check_attributes(rest: str) -> None:
    """Refuse a tag with too many names of attributes; each is compared with those before it, equal ones are dropped."""
    words = re.sub(r"\"[^\"]*\"|'[^']*'", " ", rest).split()
    names = {word.partition("=")[0] for word in words}
    if len(names) > _MOST_ATTRIBUTES:
        raise IngestError(
            f"The page has a tag with {len(names):,} attributes. Look for a missing quotation mark, or save its text."
        )


def _error(fact: str) -> IngestError:
    return IngestError(f"{fact}. Close its tags, or save its text.")
