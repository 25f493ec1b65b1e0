"""Personal data that has a form: numbers and addresses that a pattern and a check digit can tell. Pure.

Found are e-mail addresses, telephone numbers, US social security and Medicare numbers, payment cards (Luhn), IBANs
(mod 97), IP addresses, and, where a label says what they are, dates of birth and record numbers. **Not** found are
names, postal addresses, faces, and everything that only its meaning gives away: this reports and reduces, it does not
de-identify. See docs/how-to/personal-data.md.
"""

from __future__ import annotations

import heapq
import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter

__all__ = ["KINDS", "Finding", "find_personal_data", "personal_data_in", "redacted"]

_WINDOW = 1 << 20  # characters that are put into lower case at a time
_LONGEST_NEED = 32  # characters; more than any of `_Pattern.needs`

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s{_MONTH},?\s\d{{4}}|{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}})"
)
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24, "DE": 22,
    "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15,
    "PL": 28, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26,
}  # fmt: skip
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|35(?:2[89]|[3-8]\d))\d{12,15}"  # Discover, UnionPay, JCB
    r"|3(?:0[0-5]|[689]\d)\d{11,16}"  # Diners Club
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Position and kind of personal data; never the data itself.

    Attributes:
        kind: Key of `KINDS`.
        start: First character, from 0.
        end: One after the last character.
    """

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Pattern:
    kind: str
    regex: re.Pattern[str]
    holds: Callable[[str], bool | int] = lambda text: True
    """Whether a match is one, or how many of its characters are."""
    needs: tuple[str, ...] = ()
    """Lower-case texts of which one must occur for the pattern to be tried at all."""
    over_lines: bool = False
    """Whether a line break stands for a space, once, and what fails may hide one that begins within it."""
    shapes: tuple[str, ...] = ()
    """The same for a text in ASCII whose digits are all written as 0: a long log has many digits and few numbers."""


def _in_groups(*digits: int) -> tuple[str, ...]:
    """Shapes of a number in groups, with spaces, hyphens, or one line break among the spaces."""
    groups = ["0" * count for count in digits]
    broken = [" ".join(groups[:place]) + "\n" + " ".join(groups[place:]) for place in range(1, len(groups))]
    return (" ".join(groups), "-".join(groups), *broken)


_OCTETS = {str(number): number for number in range(256)}


def _luhn(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    doubled = sum(
        digit * 2 - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(digits[::-1])
    )
    return doubled % 10 == 0 and len(set(digits)) > 1


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return bool(_CARD.fullmatch(digits)) and _luhn(digits)


def _is_iban(text: str) -> bool:
    compact = "".join(text.split())
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _iban_digits() -> str:
    """For the countries of each length, as many characters as theirs have: words behind a number are not its own."""
    by_length: dict[int, list[str]] = {}
    for country, length in _IBAN_LENGTH.items():
        by_length.setdefault(length, []).append(country)
    return "|".join(
        rf"(?<={'|'.join(rf'{country}..' for country in countries)})(?:[ \n]?[A-Z0-9]){{{length - 4}}}"
        for length, countries in by_length.items()
    )


def _phone_length(text: str) -> int:
    """Characters of the longest beginning with 8 to 15 digits that ends with a group: a date may follow a number."""
    ends = [found.start() for found in re.finditer(r"[ .-]", text)]
    for end in (len(text), *reversed(ends)):
        digits = sum(char.isdigit() for char in text[:end])
        if digits <= 15:
            return end if digits >= 8 else 0
    return 0


def _is_address(text: str) -> bool:
    if ":" not in text:
        return _is_address_4(text.split("."))
    if "::" not in text and text.count(":") != 7:  # a time of day, in every line of a log
        return False
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def _is_address_4(parts: Sequence[str]) -> bool:
    """Whether four numbers are an IPv4 address that may identify a person; none has a leading zero."""
    try:
        first, second, third, fourth = (_OCTETS[part] for part in parts)
    except (KeyError, ValueError):
        return False
    if first == 127 or 224 <= first <= 239:
        return False
    # "8.1.2.1" is far more often a section than a host.
    return max(first, second, third, fourth) > 31 or (first, second) == (10, 0)


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# Earlier patterns win where two overlap. A group named "data" is what counts; else the whole match. Those that every
# text is searched for begin with a class of characters, and what must not stand before is looked at behind it: so the
# search skips to the next candidate.
_PATTERNS = (
    _Pattern(
        "email",
        _regex(
            r"(?<![\w.+-])(?<!\w['’])[\w.+-]{1,64}(?:['’][\w.+-]{1,64}){0,2}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}(?![\w-])"
        ),
        needs=("@",),
    ),
    _Pattern("iban", re.compile(rf"[A-Z](?<!\w[A-Z])[A-Z]\d\d(?:{_iban_digits()})(?!\w)"), _is_iban),
    _Pattern(
        "credit_card",
        re.compile(r"\d(?<![\w.-]\d)\d{3}([ -])(?:\d{4}\1){3}\d{3}(?![\w-])"),
        _is_card,
        over_lines=True,
        shapes=_in_groups(4, 4, 4, 4, 3),
    ),
    _Pattern(
        "credit_card",
        re.compile(
            r"\d(?<![\w.-]\d)(?:\d{12,18}|\d{3}([ -])(?:\d{4}\1){2}\d{1,4}|\d{3}([ -])\d{6}\2\d{4,5})(?![\w-])"
        ),
        _is_card,
        over_lines=True,
        shapes=("0" * 13, *_in_groups(4, 4, 4, 1), *_in_groups(4, 6, 4)),
    ),
    _Pattern(
        "us_ssn",
        re.compile(r"\d(?<![\w-]\d)(?<!9)(?!(?<=0)00|(?<=6)66)\d\d([- ])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])"),
        shapes=("000-00-0000", "000 00 0000"),
    ),
    _Pattern(
        "us_ssn",
        _regex(r"(?:ssn|social security (?:no\.?|number))[\s:#]{0,3}(?P<data>(?!000|666|9)\d{9})(?!\d)"),
        needs=("ssn", "social security"),
    ),
    _Pattern(
        "us_medicare_id",
        re.compile(
            r"[1-9](?<!\w[1-9])[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?"
            r"[AC-HJKMNP-RT-Y]{2}\d\d(?!\w)"
        ),
    ),
    _Pattern(
        "birth_date",
        _regex(
            rf"(?:\bd\.?o\.?b\b\.?|\bdate of birth|\bbirth ?date|\bborn(?: on)?)[\s:]{{1,3}}(?P<data>{_DATE})"
        ),
        needs=("dob", "d.o.b", "birth", "born"),
    ),
    _Pattern(
        "record_number",
        _regex(
            r"\b(?:mrn|(?:medical|health|patient) record (?:no\.?|number)|(?:patient|chart|member|policy|nhs) "
            r"(?:id|no\.?|number))[\s:#]{1,3}(?P<data>[a-z0-9](?:[ -]?[a-z0-9]){3,15})(?!\w)"
        ),
        _has_digit,
        needs=("mrn", "record", "patient", "chart", "member", "policy", "nhs"),
    ),
    _Pattern(
        "ip_address",
        re.compile(r"\d(?<![\w.:-]\d)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?![\w:-]|\.\d)"),
        _is_address,
    ),
    _Pattern(
        "ip_address",
        re.compile(
            r"[0-9a-fA-F:](?<![\w.:][0-9a-fA-F:])(?:(?<=:)|[0-9a-fA-F]{0,3}:)(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])"
        ),
        _is_address,
        needs=(":",),
    ),
    _Pattern(
        "phone",
        re.compile(
            r"[+(1-9](?<![\w.+-][+(1-9])"
            r"(?:(?:(?<=\+)1|(?<=1))[-. ]?(?:\([2-9]\d\d\)[ \n]?|[2-9]\d\d(?:-\n?|[. ]))"
            r"|(?<=\()[2-9]\d\d\)[ \n]?|(?<=[2-9])\d\d(?:-\n?|[. ]))"
            r"[2-9]\d\d(?:-\n?|[. ])\d{4}(?![\w-])"
        ),
        shapes=("000-0000", "000.0000", "000 0000", "000-\n0000"),
    ),
    _Pattern(
        "phone",
        re.compile(r"\+(?<![\w+]\+)[1-9]\d{0,2}(?:[ .-]?(?:\(\d{1,5}\)|\d{1,5})){2,6}(?!\w)"),
        _phone_length,
        needs=("+",),
    ),
)

_PLAIN = {
    **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
    **dict(zip("＠．＋（）：＃", "@.+():#", strict=True)),
}
"""Characters of typography and of East Asian text that stand for one of ASCII."""
_OTHER_FORM = re.compile(rf"(?![0-9])\d|[{''.join(_PLAIN)}]")

_DIGITS = str.maketrans("123456789", "0" * 9)

KINDS: dict[str, str] = {
    "email": "[EMAIL]",
    "phone": "[PHONE]",
    "us_ssn": "[SSN]",
    "us_medicare_id": "[MEDICARE ID]",
    "credit_card": "[CARD]",
    "iban": "[IBAN]",
    "ip_address": "[IP ADDRESS]",
    "birth_date": "[BIRTH DATE]",
    "record_number": "[RECORD NUMBER]",
}
"""Every kind that is found, and what stands in its place once it is redacted."""


def find_personal_data(text: str) -> list[Finding]:
    """Find text in the form of personal data.

    Returns:
        In the order of the text; no two overlap.

    Example:
        >>> [finding.kind for finding in find_personal_data("Call 212-555-0187 on 3/4/1950, or 555-0187.")]
        ['phone']
        >>> find_personal_data("DOB: 3/4/1950")
        [Finding(kind='birth_date', start=5, end=13)]
    """
    return list(personal_data_in(text))


def personal_data_in(text: str) -> Iterator[Finding]:
    """Findings one after the other, so that those of a long log can be counted without being kept."""
    overlapping: list[tuple[int, Finding]] = []
    end = 0
    if not text.isascii() and _OTHER_FORM.search(text):
        text = _OTHER_FORM.sub(lambda found: _PLAIN.get(found[0]) or str(int(found[0])), text)
    shape = text.translate(_DIGITS) if text.isascii() else ""
    tried = [place for place, one in enumerate(_PATTERNS) if _may_match(one, text, shape)]
    del shape
    for start, place, finding in heapq.merge(*(_ranked(place, text) for place in tried)):
        if start >= end:
            yield from _without_overlaps(overlapping)
            overlapping = []
        overlapping.append((place, finding))
        end = max(end, finding.end)
    yield from _without_overlaps(overlapping)


def _ranked(place: int, text: str) -> Iterator[tuple[int, int, Finding]]:
    """What one pattern finds: where it starts, which pattern it is, and the finding."""
    for finding in _matches(_PATTERNS[place], text):
        yield finding.start, place, finding


def _may_match(pattern: _Pattern, text: str, shape: str) -> bool:
    if shape and pattern.shapes:
        return any(one in shape for one in pattern.shapes)
    return not pattern.needs or _occurs(pattern.needs, text)


def _without_overlaps(ranked: list[tuple[int, Finding]]) -> list[Finding]:
    """Of findings with the place of their pattern, those that overlap none of an earlier pattern; by their start."""
    if len(ranked) == 1:
        return [ranked[0][1]]
    kept: list[Finding] = []
    for _, one in sorted(ranked, key=itemgetter(0)):
        place = bisect_left(kept, one.end, key=lambda other: other.start)
        if not place or kept[place - 1].end <= one.start:
            kept.insert(place, one)
    return kept


def _occurs(words: Sequence[str], text: str) -> bool:
    """Whether one of these lower-case words occurs, in any case; a window at a time, since a log is long."""
    windows = (
        text[start : start + _WINDOW + _LONGEST_NEED].lower() for start in range(0, len(text), _WINDOW)
    )
    return any(word in window for window in windows for word in words)


def redacted(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by the name of its kind.

    Example:
        >>> text = "Write to jane@example.org."
        >>> redacted(text, find_personal_data(text))
        'Write to [EMAIL].'
    """
    pieces, place = [], 0
    for finding in findings:
        pieces += [text[place : finding.start], KINDS[finding.kind]]
        place = finding.end
    return "".join([*pieces, text[place:]])


def _matches(pattern: _Pattern, text: str) -> Iterator[Finding]:
    group = "data" if "data" in pattern.regex.groupindex else 0
    regex = _of_ascii(pattern.regex) if text.isascii() else pattern.regex
    if pattern.over_lines:
        yield from _over_lines(pattern, regex, text)
        return
    for match in regex.finditer(text):
        if holds := pattern.holds(match[group]):
            start, end = match.span(group)
            yield Finding(pattern.kind, start, end if holds is True else start + holds)


def _over_lines(pattern: _Pattern, regex: re.Pattern[str], text: str) -> Iterator[Finding]:
    """Matches in which one line break is a space; another one may begin within what looks like one and is none."""
    one_line, place = text.replace("\n", " "), 0
    while match := regex.search(one_line, place):
        start, end = match.span()
        if text.count("\n", start, end) <= 1 and pattern.holds(match[0]):
            yield Finding(pattern.kind, start, end)
            place = end
        else:
            place = start + 1


@cache
def _of_ascii(regex: re.Pattern[str]) -> re.Pattern[str]:
    """The same pattern for text that is ASCII, where a first digit can be looked for among ten characters."""
    pattern = regex.pattern
    first = "[0-9]" + pattern.removeprefix(r"\d") if pattern.startswith(r"\d(") else pattern
    return re.compile(first, regex.flags & ~re.UNICODE | re.ASCII)
