"""Verification of numbers in an answer: quoted from the sources or removed, also while it streams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from llama_index_presets.answer.citations import MARKERS_AND_BLANKS, markers_in, without_markers
from llama_index_presets.answer.context import DONT_KNOW
from llama_index_presets.text.sentences import split_sentences

__all__ = ["VERBATIM_PROMPT", "Figure", "Figures", "NumberVerifier", "find_figures", "statements"]

# Figures in a text, and whether a passage holds them: value, sign, currency and scale. Pure.
#
# A figure is what a reader would copy into a sheet: ``$7.2 million``, ``(3.1)``, ``12 %``, ``1,250``. A
# word with digits
# in it (``Q3``, ``FY2024``, ``10-K``) is a code, and is compared letter by letter.


_CURRENCIES: Final = {"US$": "USD", "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_CODES: Final = ("USD", "EUR", "GBP", "JPY", "INR", "CHF")
_WORDS: Final = {"dollars": "USD", "dollar": "USD", "euros": "EUR", "euro": "EUR", "yen": "JPY"}
_SCALES: Final = {
    "thousand": "thousand", "thousands": "thousand", "million": "million", "millions": "million", "mn": "million",
    "billion": "billion", "billions": "billion", "bn": "billion", "trillion": "trillion", "tn": "trillion",
    "%": "percent", "percent": "percent", "per cent": "percent", "pct": "percent",
    "percentage points": "points", "pp": "points", "basis points": "basis points", "bps": "basis points",
}  # fmt: skip
_MONEY: Final = frozenset({*_CURRENCIES.values(), *_CODES})
_LETTERS: Final = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "B": "billion",
    "b": "billion",
}
_SPELLED: Final = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100,
}  # fmt: skip

_GROUP = "[,'’\u00a0\u202f\u2009]"
_NUMBER = rf"\d{{1,3}}(?:{_GROUP}\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:[.,]\d+)*"
_CURRENCY = "|".join(map(re.escape, (*_CURRENCIES, *_CODES)))
_SCALE = "|".join(re.escape(word) for word in sorted(_SCALES, key=len, reverse=True))
_TENS = "|".join(word for word, value in _SPELLED.items() if 20 <= value <= 90)
_UNITS = "|".join(word for word, value in _SPELLED.items() if value < 10) + "|one"
_FIGURE = re.compile(
    rf"(?<![\w.,])(?P<minus>[-−](?=\S))?(?P<open>\()?(?P<before>{_CURRENCY})?[ \u00a0]?(?P<inner>[-−(])?"
    rf"(?:(?P<number>{_NUMBER})"
    rf"|(?P<spelled>(?i:(?:{_TENS})-(?:{_UNITS})|{'|'.join(sorted(_SPELLED, key=len, reverse=True))})(?!\w)))"
    rf"(?P<close>\))?(?P<letter>[kKmMbB](?!\w))?(?:[\s\u00a0-]?(?P<scale>(?i:{_SCALE}))(?!\w))?"
    rf"(?:[ \u00a0]?(?P<after>{_CURRENCY}|(?i:{'|'.join(_WORDS)}))(?!\w))?(?![A-Za-z])"
)
_CODE = re.compile(r"\b(?=\w*\d)(?=\w*[A-Za-z])\w+\b")


@dataclass(frozen=True, slots=True)
class Figure:
    """Figure as it is written in a text.

    Attributes:
        text: The characters.
        value: Its absolute value before any scale; None for a code.
        negative: Whether a minus sign or accounting parentheses stand by it.
        currency: ISO code, or empty.
        scale: ``thousand`` … ``trillion``, ``percent``, ``points``, ``basis points``, or empty.
    """

    text: str
    value: Decimal | None
    negative: bool = False
    currency: str = ""
    scale: str = ""


def find_figures(text: str) -> list[Figure]:
    """All figures of a text, in no particular order.

    Example:
        >>> [(figure.value, figure.currency, figure.scale) for figure in find_figures("up 12 % to $1,250.50 million")]
        [(Decimal('12'), '', 'percent'), (Decimal('1250.5'), 'USD', 'million')]
        >>> [figure.text for figure in find_figures("in Q3, says the 10-K")]
        ['10', 'Q3']
    """
    figures = [_figure(match) for match in _FIGURE.finditer(text)]
    return figures + [Figure(code[0], None) for code in _CODE.finditer(_FIGURE.sub(" ", text))]


class Figures:
    """Figures of a passage, indexed for lookup.

    Args:
        text: The passage, with its heading.

    Example:
        >>> passage = Figures("Revenue ($ in millions): 7.2; loss (0.4)")
        >>> [passage.holds(find_figures(said)[0]) for said in ("$7.2 million", "$7.2 billion", "-7.2")]
        [True, False, False]
    """

    def __init__(self, text: str) -> None:
        self._by_value: dict[Decimal, list[Figure]] = {}
        for figure in find_figures(text):
            if figure.value is not None:
                self._by_value.setdefault(figure.value, []).append(figure)
        self._codes = {match[0].casefold() for match in _CODE.finditer(text)}
        everywhere = set(_named(text))
        self._named = (
            set(_named(_FIGURE.sub(" ", text)))
            | (everywhere if len(everywhere & _MONEY) == 1 else set()) & _MONEY
        )

    def holds(self, figure: Figure) -> bool:
        """Whether the passage supports a figure of an answer.

        The value must stand there. A sign, currency or scale of the answer's must stand by it. Where no scale or
        currency does, one that the passage names on its own will do, as in the head of a table, and so will the only
        currency that it uses. A scale may not be dropped; a currency may.
        """
        if figure.value is None:
            return figure.text.casefold() in self._codes
        return any(self._agrees(figure, source) for source in self._by_value.get(figure.value, ()))

    def _agrees(self, figure: Figure, source: Figure) -> bool:
        return (
            (source.negative or not figure.negative)
            and self._same(figure.scale, source.scale, may_drop=False)
            and self._same(figure.currency, source.currency, may_drop=True)
        )

    def _same(self, said: str, source: str, *, may_drop: bool) -> bool:
        if said == source:
            return True
        return (not said and may_drop) or (bool(said) and not source and said in self._named)


def _figure(match: re.Match[str]) -> Figure:
    before, after = match["before"] or "", (match["after"] or "")
    currency = before or after
    scale = _SCALES.get((match["scale"] or "").lower(), "") or _LETTERS.get(match["letter"] or "", "")
    negative = bool(match["minus"] or match["inner"] in ("-", "−")) or bool(
        (match["open"] or match["inner"] == "(") and match["close"]
    )
    return Figure(
        text=match[0].strip().lstrip("("),
        value=_spelled(match["spelled"]) if match["spelled"] else _value(match["number"]),
        negative=negative,
        currency=_CURRENCIES.get(currency) or _WORDS.get(currency.lower()) or currency,
        scale=scale,
    )


def _spelled(words: str) -> Decimal:
    tens, _, unit = words.lower().partition("-")
    return Decimal(_SPELLED[tens] + ({"one": 1} | _SPELLED).get(unit, 0))


def _value(number: str) -> Decimal:
    """English reading: commas before groups of three are separators, another single comma is a decimal one."""
    plain = re.sub("['’\u00a0\u202f\u2009]", "", number)
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    elif plain.count(",") == 1 and (plain.count(".") != 1 or plain.index(".") < plain.index(",")):
        plain = plain.replace(".", "").replace(",", ".")
    elif plain.count(".") > 1 or plain.count(",") > 1:
        plain = plain.replace(",", "").replace(".", "")
    value = Decimal(plain.replace(",", ""))
    return value.normalize() if value else Decimal(0)


def _named(text: str) -> Iterator[str]:
    """Currencies and scales that a text names anywhere."""
    for word in re.findall(rf"{_CURRENCY}|(?i:\b(?:{_SCALE.replace('%', '')}|{'|'.join(_WORDS)})\b)|%", text):
        low = word.lower()
        name = (
            _CURRENCIES.get(word) or _SCALES.get(low) or _WORDS.get(low) or (word if word in _CODES else "")
        )
        if name:
            yield name


VERBATIM_PROMPT = (
    "Copy every figure as the passage writes it, with its unit; never compute, round or convert one."
)

_AFTER_MARKERS = ". \t\r\n"
_LIST_NUMBER = re.compile(r"\A\s*\d{1,2}[.)]\s")


@dataclass(slots=True)
class NumberVerifier:
    """Filter of statements: one passes when the passages that it cites hold all its figures.

    A statement is a sentence, or a line. One without a marker is judged by the next marker of its line, or else by the
    passages that the answer has cited so far. A statement is held back until that is known.

    Attributes:
        passages: What the model was shown, in the order of their numbers.
        mode: ``"remove"`` leaves an unsupported statement out, ``"mark"`` keeps it and names its figures.
        checked: Statements with figures, so far.
        unsupported: Those that were left out or marked, with their figures.
    """

    passages: Sequence[str]
    mode: Literal["mark", "remove"]
    checked: int = 0
    unsupported: list[dict[str, Any]] = field(default_factory=list)
    _held: str = ""
    _waiting: list[str] = field(default_factory=list)
    _cited: list[int] = field(default_factory=list)
    _said: bool = False
    _figures: dict[int, Figures] = field(default_factory=dict)
    _plain: dict[int, str] = field(default_factory=dict)

    def feed(self, piece: str) -> str:
        """Process the next piece; returns the text that has been judged by now."""
        *whole, self._held = statements(self._held + piece) or [""]
        while whole and MARKERS_AND_BLANKS.fullmatch(self._held, partial=True):
            self._held = whole.pop() + self._held  # a marker belongs to what stands before it
        return "".join(self._take(statement) for statement in whole)

    def end(self) -> str:
        """Judge the text that was held back; adds a note when statements were left out."""
        last, self._held = self._held, ""
        text = (self._take(last) if last else "") + self._settle([])
        return text + self._note()

    def report(self) -> dict[str, Any]:
        """Counts of checked and removed figures, for the response's metadata."""
        return {"checked": self.checked, "unsupported": list(self.unsupported)}

    def _take(self, statement: str) -> str:
        """A whole statement: judged now, or put to those that wait for a marker."""
        markers = [number for number in markers_in(statement) if 1 <= number <= len(self.passages)]
        self._waiting.append(statement)
        if markers:
            return self._settle(markers)
        if statement.endswith("\n") or (len(self._waiting) == 1 and not _figures_of(statement)):
            return self._settle([])
        return ""

    def _settle(self, markers: Sequence[int]) -> str:
        waiting, self._waiting = self._waiting, []
        self._cited += [number for number in markers if number not in self._cited]
        judged = "".join(self._judged(statement, markers or self._cited) for statement in waiting)
        self._said = self._said or bool(judged.strip())
        return judged

    def _judged(self, statement: str, cited: Sequence[int]) -> str:
        figures = _figures_of(statement)
        self.checked += bool(figures)
        if figures and any(self._quotes(number, statement) for number in cited):
            return (
                statement  # word for word: a heading cut off or a unit in another line takes nothing from it
            )
        missing = [
            figure.text
            for figure in figures
            if not any(self._passage(number).holds(figure) for number in cited)
        ]
        if not missing:
            return statement
        self.unsupported.append({"statement": without_markers(statement).strip(), "numbers": missing})
        tail = statement[len(statement.rstrip()) :]
        if self.mode == "mark":
            return f"{statement.rstrip()} [not in the sources: {', '.join(missing)}]{tail or ' '}"
        return tail if "\n" in tail else ""

    def _quotes(self, number: int, statement: str) -> bool:
        """Whether a passage holds the statement verbatim, but for white space."""
        if number not in self._plain:
            self._plain[number] = f" {' '.join(self.passages[number - 1].split())} "
        quoted = " ".join(without_markers(statement).split())
        return bool(re.search(rf"(?<![\w.,]){re.escape(quoted)}(?![\w%])", self._plain[number]))

    def _passage(self, number: int) -> Figures:
        if number not in self._figures:
            self._figures[number] = Figures(self.passages[number - 1])
        return self._figures[number]

    def _note(self) -> str:
        count = len(self.unsupported)
        if not count or self.mode == "mark":
            return ""
        what = "A statement was" if count == 1 else f"{count} statements were"
        note = f"({what} left out: not all figures are in the cited sources.)"
        return f"\n\n{note}" if self._said else f"{DONT_KNOW} {note}"


def statements(text: str) -> list[str]:
    """Cut an answer into sentences and lines, each with the markers behind it; joined again they are the text.

    Example:
        >>> statements("It rose. [1] It fell [2]. Done")
        ['It rose. [1] ', 'It fell [2]. ', 'Done']
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        start = len(found)
        for sentence in split_sentences(line):
            leading = _leading_markers(sentence)
            if leading and len(found) > start:
                found[-1] += leading
                sentence = sentence[len(leading) :]
            if sentence:
                found.append(sentence)
    return found


def _figures_of(statement: str) -> list[Any]:
    return find_figures(without_markers(_LIST_NUMBER.sub("", statement)))


def _leading_markers(sentence: str) -> str:
    """The markers that a sentence begins with, and the full stop behind them; they belong to the sentence before."""
    markers = str(MARKERS_AND_BLANKS.match(sentence)[0])
    if not markers.strip():
        return ""
    rest = sentence[len(markers) :]
    return sentence[: len(sentence) - len(rest.lstrip(_AFTER_MARKERS))]
