"""Links and images in an answer: kept where they stand in the cited passage, removed otherwise, also while it streams.

A model that obeys a hostile passage can put what it knows into the address of a link or an image, and a client that
shows the answer fetches it. So an address of an answer must be one of the cited passage's own, to the character: no
longer, no shorter. Markdown (inline, reference, autolinks), HTML and bare addresses are read. Pure.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import regex

from llama_index_presets.answer.citations import markers_in
from llama_index_presets.answer.cited.verify_numbers import statements

__all__ = ["LinkFilter"]

_REMOVED: Final = "(link removed)"
"""What stands in place of an address."""

_DOMAINS: Final = (
    "com|org|net|info|biz|edu|gov|mil|int|io|ai|app|dev|co|tv|gg|ly|uk|de|fr|nl|ch|eu|ru|cn|jp|br|au|ca|xyz|"
    "site|online|top|club|shop|store|cloud|page|link|click|live|news|blog|tech|space|website|fun|icu|vip|"
    "work|life|world|today|email|zip|mov|onion|test|example|invalid|local|internal"
)
_WORDS: Final = "me|to|us|es|it|be|at|in|is|no|so|my|as|an|do|am"
"""Countries' domains that are words: behind a full stop without a blank ("cases.To prevent") they are capitalised."""
_SCHEMES: Final = (
    "data|javascript|vbscript|mailto|tel|sms|callto|facetime|file|blob|about|intent|magnet|slack|msteams|vscode|"
    "ms-[a-z]+|cid|view-source|geo|xmpp|sip|skype|whatsapp|tg"
)
_HOST: Final = r"[\w-]{1,63}(?:\.[\w-]{1,63}){0,20}"
_ADDRESS: Final = regex.compile(
    rf"""(?ix)
      (?:[a-z][a-z0-9+.-]{{0,30}}:)?[/\\]{{2}}(?:[^\s<>"'`@]{{0,200}}@)?{_HOST}[^\s<>"'`]*       # https://host, //host
    | [a-z][a-z0-9+.-]{{1,30}}:[/\\]{{2,}}[^\s<>"'`]*                                   # scheme://anything
    | (?<![a-z])(?:https?|ftps?|wss?):[^\s<>"'`]+
    | (?<![\w.-])(?:{_SCHEMES}):[^\s<>"'`]+
    | (?<![\w.-])www\.[^\s<>"'`]+
    | [\w.+%-]{{1,64}}@{_HOST}\.[a-z]{{2,24}}(?:\?[^\s<>"'`]*)?                         # mail
    | (?<![\w.@-])[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,20}}\.[a-z]{{2,24}}(?::\d{{1,5}})?[/?\#][^\s<>"'`]*  # host/path
    | (?<![\w.@/\\-])[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,20}}\.
      (?:{_DOMAINS}|(?-i:{_WORDS}|{_WORDS.upper()})) (?::\d{{1,5}})?(?![\w-]|\.\w)   # host
    | (?<![\w.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{1,5}})?/[^\s<>"'`]*                # 10.0.0.1/path
    """
)
_ENDS: Final = ".,;:!?)]}'\"*_~|>"
_TAG: Final = regex.compile(r"<[/!?]?[A-Za-z!?-][^<>]*+>")
_BARE_TAG: Final = regex.compile(
    r"</?(?:b|i|u|s|em|strong|sup|sub|br|p|ul|ol|li|code|pre|table|tr|td|th|h[1-6]|hr) ?/?>", regex.I
)
_OPEN_TAG: Final = regex.compile(r"<(?=[/!?]?[A-Za-z][^<>]*+\Z)")
_TARGET: Final = regex.compile(
    r"""(?x) \]\(  \s*+ (?P<target> <[^<>\n]*+> | (?: \\. | [^\s()\\] | \( [^\s()]*+ \) )*+ )
        (?: \s++ (?: "[^"]*+" | '[^']*+' | \([^()]*+\) ) )? \s*+ \)"""
)
_DEFINITION: Final = regex.compile(
    r"""(?mx) ^ (?P<before> [\s>*+\-]*+ \[ [^\[\]]{1,999}+ \] ) : (?P<gap> [ \t]*+ \n? [ \t]*+ )
        (?P<target> <[^<>\n]*+> | \S++ ) (?P<title> (?: \s++ (?: "[^"]*+" | '[^']*+' | \([^()]*+\) ) )? [ \t]*+ ) $"""
)
_MARKER: Final = r"\[\d{1,6}\](?![(:\[])"
_MAY_BE: Final = regex.compile(rf"(?!{_MARKER})[\[<]|\]\(|\]:")
_WORD_AT_END: Final = regex.compile(r"\S*+\Z")
_PARAGRAPH_END: Final = regex.compile(r"\n[ \t]*\n")
_ROUNDS: Final = 12


def _addresses_in(text: str) -> set[str]:
    """Addresses of a text in the form in which they are compared: without scheme, ``www.`` and a slash at the end.

    Example:
        >>> sorted(_addresses_in("See [this](https://www.example.org/a/), or mail a@example.org."))
        ['a@example.org', 'example.org/a']
    """
    found = {_plain(match[0]) for match in _ADDRESS.finditer(html.unescape(text))}
    found |= {_plain(match["target"]) for match in _TARGET.finditer(text)}
    return {address for address in found if address}


@dataclass(slots=True)
class LinkFilter:
    """Removes addresses that do not stand in the cited passage from a stream of text pieces.

    A statement's address is looked up in the passages that the statement cites; where it cites none, in those that the
    next marker of its line names, or else in those cited so far. Text is given at once up to the word that may be an
    address; from there to the end of its paragraph it is held back. Markers are plain ``[1]`` by then.

    Attributes:
        passages: What the model was shown, in the order of their numbers.
        removed: Addresses taken out so far.
    """

    passages: Sequence[str]
    removed: int = 0
    _held: str = ""
    _suspect: bool = False
    _cited: list[int] = field(default_factory=list)
    _known: dict[int, set[str]] = field(default_factory=dict)

    def feed(self, piece: str) -> str:
        """Process the next piece; returns the text that has been judged by now."""
        return self._judged(self._held + piece, last=False)

    def end(self) -> str:
        """Judge the text that was held back; the stream is over."""
        return self._judged(self._held, last=True)

    def _judged(self, text: str, *, last: bool) -> str:
        """Text up to where it is certain; the rest is held."""
        certain: list[str] = []
        while end := _PARAGRAPH_END.search(text):
            certain.append(self._paragraph(text[: end.end()]))
            text, self._suspect = text[end.end() :], False
        if last:
            certain.append(self._paragraph(text))
            self._held = ""
            return "".join(certain)
        if not self._suspect:
            place = _first_suspect(text)
            self._suspect = place is not None
            if place is None:
                place = _WORD_AT_END.search(text).start()
            place = _word_start(text, place)
            self._cite(text[:place])
            certain.append(text[:place])
            text = text[place:]
        self._held = text
        return "".join(certain)

    def _cite(self, text: str) -> None:
        self._cited += [number for number in markers_in(text) if number not in self._cited]

    def _paragraph(self, text: str) -> str:
        """A paragraph, or the rest of one, without the addresses that are not its passages' own."""
        if _first_suspect(text) is None:
            self._cite(text)
            return text
        for _ in range(_ROUNDS):
            clean = self._pass(text)
            if clean == text:
                break
            text = clean
        else:  # a text made to fall together into ever new links
            text = _ADDRESS.sub(_REMOVED, text).translate({ord(sign): " " for sign in "[]<>"})
        self._cite(text)
        return text

    def _pass(self, text: str) -> str:
        """One pass over tags, targets, definitions and bare addresses."""
        allowed = _Allowed(text, self._cited, self._addresses)
        text = _TAG.sub(lambda match: self._tag(match, allowed), text)
        text = _OPEN_TAG.sub("‹", text)
        allowed = _Allowed(text, self._cited, self._addresses)
        text = self._targets(text, allowed)
        allowed = _Allowed(text, self._cited, self._addresses)
        text = _DEFINITION.sub(lambda match: self._definition(match, allowed), text)
        allowed = _Allowed(text, self._cited, self._addresses)
        return str(_ADDRESS.sub(lambda match: self._address(match, allowed), text))

    def _tag(self, match: regex.Match[str], allowed: _Allowed) -> str:
        tag = str(match[0])
        if _BARE_TAG.fullmatch(tag):
            return tag
        if _ADDRESS.fullmatch(tag[1:-1]):  # <https://…>
            return tag if allowed(_plain(tag[1:-1]), match.end()) else self._remove()
        self.removed += "=" in tag
        return ""

    def _targets(self, text: str, allowed: _Allowed) -> str:
        """Inline links and images: label alone where the target is not the passage's."""
        parts, position = list[str](), 0
        for match in _TARGET.finditer(text):
            target = match["target"]
            if allowed(_plain(target), match.end()):
                continue
            self.removed += 1
            before = text[position : match.start()]
            opening = _label_start(before)
            if opening is None:
                parts.append(before + " ")
            else:
                image = opening and before[opening - 1] == "!"
                parts.append(before[: opening - image] + before[opening + 1 :])
            position = match.end()
        return "".join(parts) + text[position:]

    def _definition(self, match: regex.Match[str], allowed: _Allowed) -> str:
        if allowed(_plain(match["target"]), match.end()):
            return str(match[0])
        return f"{match['before']} :{match['gap']}{match['target']}{match['title']}"  # with a blank it defines nothing

    def _address(self, match: regex.Match[str], allowed: _Allowed) -> str:
        address = match[0].rstrip(_ENDS)
        if not address or allowed(_plain(address), match.end()):
            return str(match[0])
        return self._remove() + str(match[0][len(address) :])

    def _remove(self) -> str:
        self.removed += 1
        return _REMOVED

    def _addresses(self, number: int) -> set[str]:
        if number not in self._known:
            inside = 1 <= number <= len(self.passages)
            self._known[number] = _addresses_in(self.passages[number - 1]) if inside else set()
        return self._known[number]


class _Allowed:
    """Which addresses may stand at a place of a paragraph: those of the passages that its statement cites."""

    def __init__(self, text: str, cited: Sequence[int], addresses: object) -> None:
        self._addresses = addresses
        self._spans: list[tuple[int, list[int]]] = []
        place, so_far = 0, list(cited)
        parts = statements(text)
        for index, statement in enumerate(parts):
            place += len(statement)
            own = markers_in(statement) or _next_in_line(parts, index)
            self._spans.append((place, own or list(so_far)))
            so_far += markers_in(statement)

    def __call__(self, address: str, end: int) -> bool:
        """Whether a passage that is cited by the statement around `end` has this address."""
        if not address:
            return False
        numbers = next((numbers for last, numbers in self._spans if end <= last), [])
        return any(address in self._addresses(number) for number in numbers)  # type: ignore[operator]


def _next_in_line(parts: Sequence[str], index: int) -> list[int]:
    """Numbers of the next marker behind a statement, in its line."""
    for place in range(index, len(parts)):
        if place > index and (numbers := markers_in(parts[place])):
            return numbers
        if parts[place].endswith("\n"):
            break
    return []


def _plain(address: str) -> str:
    """Address for comparison."""
    text = html.unescape(address).strip("<>").rstrip(_ENDS).replace("\\", "/")
    text = regex.sub(r"\A(?:(?:https?:)?//|mailto:)", "", text, flags=regex.I)
    text = regex.sub(r"\Awww\.", "", text, flags=regex.I)
    host, slash, rest = text.partition("/")
    return str(host.casefold() + slash + rest).rstrip("/")


def _first_suspect(text: str) -> int | None:
    places = [match.start() for match in (_ADDRESS.search(text), _MAY_BE.search(text)) if match]
    return min(places, default=None)


def _word_start(text: str, place: int) -> int:
    """Start of the word that holds a place: what an address begins with may have been written before it."""
    while place and not text[place - 1].isspace():
        place -= 1
    return place


def _label_start(text: str) -> int | None:
    """Place of the bracket that opens the label at the end of a text."""
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += (text[place] == "]") - (text[place] == "[")
        if depth < 0:
            return place
    return None
