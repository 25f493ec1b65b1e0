"""A use case in words, read as requirements: which facts its words say, and which words said them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError

__all__ = ["Understood", "facts_of", "read_use_case"]

_LONGEST: Final = 2_000  # characters; a description, not a document

_NO: Final = r"(?:no|not|non|never|nothing|without|don't|doesn't|isn't|aren't)"
_DENIED_BEFORE: Final = re.compile(
    rf"\b{_NO}[\s-]+(?!(?:only|just|merely)\b)(?:[\w']+[\s-]+){{0,2}}$", re.IGNORECASE
)
_DENIED_BEHIND: Final = re.compile(
    r"(?:\s+(?:is|are|were)|:)?\s+(?:not(?!\s+(?:only|just|merely)\b)|none|isn't|aren't)\b", re.IGNORECASE
)

_SIZES: Final = {"k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "bn": 10**9, "billion": 10**9}
_MANY: Final = {
    "hundreds": 200, "thousands": 2_000, "tens of thousands": 20_000, "hundreds of thousands": 200_000,
    "millions": 2_000_000, "tens of millions": 20_000_000, "hundreds of millions": 200_000_000,
    "billions": 2_000_000_000,
}  # fmt: skip
_FIGURES: Final = r"(?<![\w.,-])(?P<number>\d{1,3}(?:[, ]\d{3}){1,4}|\d{1,12}(?:\.\d{1,6})*)"
_NUMBER: Final = _FIGURES + r"(?P<size>\s?(?:k|m|bn)|\s*(?:thousand|million|billion))?\b"
_MORE: Final = r"(?P<more>(?<!no )(?<!not )(?:more than|over|above|at least)\s+)?"
_MANY_WORDS: Final = "|".join(sorted(_MANY, key=len, reverse=True))
_NOUNS: Final = (
    r"documents?|docs?|files?|pdfs?|papers?|reports?|filings?|contracts?|records?|articles?|manuals?|tickets?|e?mails?|"
    r"messages?|notes?|letters?|invoices?|images?|photos?|pictures?|cases?|pages?"
)
_OF_SOMETHING_ELSE: Final = r"(?!(?:questions?|quer(?:y|ies)|[kmgt]b|[mgt]igabytes?|terabytes?)\b)"
_DOCUMENTS: Final = rf"(?:{_OF_SOMETHING_ELSE}[^\W\d][\w']*[\s-]+){{0,2}}?(?:{_NOUNS})\b"
_NO_COUNT: Final = re.compile(r"10 ?[kq]\s|(?:19|20)(?!00)\d\d\s", re.IGNORECASE)
"""Beginning of what looks like a number of documents: the form 10-K, and a year."""
_PERIODS: Final = {"hour": 730.0, "day": 30.4, "week": 4.35, "month": 1.0, "year": 1 / 12}
_PERIOD: Final = r"\s*(?:a|an|per|each|every|/)\s*(?P<period>hour|day|week|month|year)\b"


@dataclass(frozen=True, slots=True)
class Understood:
    """One requirement that a description says.

    Attributes:
        field: Field of `Requirements`; empty for words that fit the defaults, such as those of a knowledge base.
        value: Its value.
        words: The words that say it, as they stand in the description.
    """

    field: str
    value: Any
    words: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"field": self.field, "value": self.value, "words": list(self.words)}


def read_use_case(text: str) -> tuple[Understood, ...]:
    """Requirements that a description of a use case says, each with the words that say it.

    Words are looked up in ``use_cases.toml``; numbers are read of documents, questions and dollars. What is said both
    ways is left out.

    Args:
        text: A few words or sentences in English, up to 2,000 characters.

    Returns:
        One entry a field, in the order of the table.

    Raises:
        SettingsError: The text is too long, or nothing in it says anything of a case.

    Example:
        >>> for part in read_use_case("2,000 patient records, no images"):
        ...     print(part.field, part.value, part.words)
        private True ('patient',)
        modalities ['text'] ('no images',)
        documents 2000 ('2,000 patient records',)
    """
    if len(text) > _LONGEST:
        raise SettingsError(
            f"The use case has {counted(len(text), 'character')}; describe it in up to {_LONGEST:,}, or give facts: "
            "documents=, private=, customers=, exact_words= …"
        )
    text = text.replace("\u2019", "'")
    said: dict[str, list[tuple[Any, str]]] = {}
    for field, value, words in (*_facts(text), *_numbers(text)):
        said.setdefault(field, []).append((value, words))
    found = tuple(
        Understood(field, parts[0][0], tuple(dict.fromkeys(words for _, words in parts)))
        for field, parts in said.items()
        if all(value == parts[0][0] for value, _ in parts)
    )
    if not found:
        raise SettingsError(
            f"'{text[:60]}' says nothing that recommend knows of. Name the field (finance, health, research, customer "
            "support, knowledge base, images …), or give facts: documents=2000, private=True, customers=True, "
            "exact_words=True … (flags of the command: --documents 2000 --private, see -h). `llama-presets list` shows "
            "the use case of every preset."
        )
    return found


def facts_of(understood: tuple[Understood, ...]) -> dict[str, Any]:
    """Fields of `Requirements` that were understood."""
    return {part.field: part.value for part in understood if part.field}


def _facts(text: str) -> Iterator[tuple[str, Any, str]]:
    for fact, pattern in _vocabulary():
        for match in pattern.finditer(text):
            denial = _DENIED_BEFORE.search(text[max(0, match.start() - 60) : match.start()])
            behind = _DENIED_BEHIND.match(text, match.end())
            for field, value in fact.items() or [("", None)]:
                taken = _opposite(value) if denial or behind else value
                if taken is not None or not field:
                    yield (
                        field,
                        taken,
                        (denial[0] if denial else "") + match[0] + (behind[0] if behind else ""),
                    )


def _opposite(value: Any) -> Any:
    """The value of a field that a negated word says; None where that says nothing, as for a priority."""
    if value is True:
        return False
    return ["text"] if isinstance(value, list) else None


@cache
def _vocabulary() -> tuple[tuple[Mapping[str, Any], re.Pattern[str]], ...]:
    tables = tomllib.loads(files(__package__).joinpath("use_cases.toml").read_text(encoding="utf-8"))
    return tuple((table["fact"], _pattern(table["words"])) for table in tables.values())


def _pattern(words: list[str]) -> re.Pattern[str]:
    written = (re.escape(word).replace(r"\ ", r"[\s-]+").replace(r"\*", r"\w*") for word in words)
    return re.compile(rf"(?<!\w)(?:{'|'.join(written)})(?!\w)", re.IGNORECASE)


def _numbers(text: str) -> Iterator[tuple[str, Any, str]]:
    for match in re.finditer(rf"{_MORE}{_NUMBER}\s+{_DOCUMENTS}(?!{_PERIOD})", text, re.IGNORECASE):
        if not (
            _NO_COUNT.match(match[0])
            and re.search(r"(?:reports?|filings?|papers?)$", match[0], re.IGNORECASE)
        ):
            yield "documents", round(_number(match)) + (match["more"] is not None), match[0]
    for match in re.finditer(rf"\b(?P<many>{_MANY_WORDS})\s+of\s+{_DOCUMENTS}", text, re.IGNORECASE):
        yield "documents", _MANY[match["many"].lower()], match[0]
    asked = r"(?:[^\W\d]\w*\s+){0,2}?(?:questions?|quer(?:y|ies)|searches|requests?)"
    for match in re.finditer(rf"{_NUMBER}\s+{asked}{_PERIOD}", text, re.IGNORECASE):
        yield "queries_per_month", round(_number(match) * _PERIODS[match["period"].lower()]), match[0]
    dollars = rf"{_NUMBER.replace('number', 'other').replace('size', 'times')}\s*(?:dollars|usd)"
    for match in re.finditer(rf"(?:\$\s*{_NUMBER}|{dollars}){_PERIOD}", text, re.IGNORECASE):
        yield "budget_usd", _number(match) * _PERIODS[match["period"].lower()], match[0]


def _number(match: re.Match[str]) -> float:
    parts = match.groupdict()
    number = parts["number"] or parts["other"]
    size = (parts["size"] or parts.get("times") or "").strip().lower()
    if not size and re.fullmatch(r"\d{1,3}(?:\.\d{3})+", number):
        number = number.replace(".", "")  # 1.000 as much of Europe writes it
    return float(re.sub("[, ]", "", number)) * _SIZES.get(size, 1)
