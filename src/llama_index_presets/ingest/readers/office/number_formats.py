"""Values of spreadsheet cells as they are shown: number formats of Excel, applied in English; pure."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

__all__ = ["shown"]

_TOKEN: Final = re.compile(
    r'"(?P<text>[^"]*)"|\\(?P<char>.)|_(?P<space>.)|\*.|\[\$(?P<currency>[^\]-]*)(?:-[^\]]*)?\]|'
    r"\[(?P<elapsed>h+|m+|s+)\]|\[[^\]]*\]|(?P<other>.)",
    re.IGNORECASE | re.DOTALL,
)
_DATE_TOKEN: Final = re.compile(r"am/pm|a/p|y+|m+|d+|h+|s+|\.0+", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0#?][0#?,.]*(?:E[+-]?[0#?]+)?|\.[0#?]+", re.IGNORECASE)
_ISO: Final = frozenset(("mm-dd-yy", "m/d/yy", "general", "@", ""))
"""Formats that Excel shows as the machine's country writes dates; ISO 8601 is read right everywhere."""


def shown(value: Any, code: str = "General") -> str:
    """A value as its cell shows it.

    Args:
        value: Number, date, time, boolean or text.
        code: Number format, as Excel writes it in English.

    Example:
        >>> shown(0.125, "0.0%"), shown(1234.5, "#,##0.00 [$€-407]"), shown(-3, "0;(0)")
        ('12.5%', '1,234.50 €', '(3)')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, datetime | date | time | timedelta):
        return _date(value, code)
    if not isinstance(value, int | float):
        return " ".join(str(value).split())
    try:
        return _number(value, code)
    except (InvalidOperation, OverflowError):  # no number of a sheet: infinite, or of more than 28 digits
        return str(value)


def _number(value: float, code: str) -> str:
    sections = _sections(code)
    negative = value < 0 and len(sections) > 1 and bool(sections[1])
    section = sections[1] if negative else sections[2] if value == 0 and len(sections) > 2 else sections[0]
    literal, pattern = _literals(section)
    digits = _DIGITS.search(pattern)
    if pattern.lower().strip() in ("general", "@", "") or (digits is None and not literal):
        return _general(value)
    if digits is None:  # a section of text alone, such as "-" for zero
        return " ".join(_filled(pattern, literal).split())
    # as it is written, not as it is stored
    exact = Decimal(repr(float(value)) if isinstance(value, float) else value)
    scaled = (abs(exact) if negative else exact).scaleb(2 * pattern.count("%"))
    body = _formatted(scaled, digits[0])
    text = f"{pattern[: digits.start()]}\0{_rest(pattern[digits.end() :])}"
    minus = "-" if body.startswith("-") else ""
    return minus + " ".join(_filled(text, literal).replace("\0", body.removeprefix("-")).split())


def _rest(pattern: str) -> str:
    """What follows the digits, without further places for digits, as fractions have."""
    return re.sub(r"[0#?/]", "", pattern)


def _general(value: float) -> str:
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    return f"{value:.10g}"


def _formatted(value: Decimal, digits: str) -> str:
    mantissa, exponent, _ = (
        re.split(r"(E)", digits, maxsplit=1, flags=re.IGNORECASE)
        if "e" in digits.lower()
        else (digits, "", "")
    )
    whole, _, decimals = mantissa.partition(".")
    scale = len(mantissa) - len(mantissa.rstrip(","))
    value = value.scaleb(-3 * scale)
    places, optional = len(re.findall("[0#?]", decimals)), len(re.findall("[#?]", decimals))
    if exponent:
        return f"{float(value):.{places}E}"
    value = value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)  # as Excel rounds
    text = f"{value:{',' if ',' in whole.rstrip(',') else ''}.{places}f}"
    for _ in range(optional):
        text = text[:-1] if "." in text and text.endswith("0") else text
    least = whole.replace(",", "").count("0")
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    front, dot, back = text.removesuffix(".").partition(".")
    return f"{sign}{front.rjust(least, '0')}{dot}{back}"


@lru_cache(maxsize=512)
def _sections(code: str) -> tuple[str, ...]:
    """Parts of a format for positive, negative, zero and text."""
    parts, part, in_text, escaped = list[str](), "", False, False
    for char in code:
        if char == ";" and not in_text and not escaped:
            parts.append(part)
            part = ""
            continue
        in_text ^= char == '"' and not escaped
        escaped = char == "\\" and not escaped
        part += char
    return (*parts, part)


@lru_cache(maxsize=512)
def _literals(section: str) -> tuple[tuple[str, ...], str]:
    """Texts of a section, and the section with a private character in the place of each."""
    found, pattern = list[str](), ""
    for token in _TOKEN.finditer(section):
        text = token["text"] if token["text"] is not None else token["char"] or token["currency"]
        if text:
            pattern += chr(0xE000 + len(found))
            found.append(text)
        elif token["space"]:
            pattern += " "
        elif token["elapsed"]:
            pattern += token["elapsed"]
        elif token["other"]:
            pattern += token["other"]
    return tuple(found), pattern


def _filled(pattern: str, literal: tuple[str, ...]) -> str:
    return "".join(
        literal[ord(char) - 0xE000] if 0xE000 <= ord(char) < 0xE000 + len(literal) else char
        for char in pattern
    )


def _date(value: date | time | timedelta, code: str) -> str:
    if isinstance(value, timedelta):
        return _elapsed(value, code)
    if code.lower() in _ISO:
        text = value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
        return text.removesuffix(" 00:00:00")
    literal, pattern = _literals(_sections(code)[0])
    tokens = list(_DATE_TOKEN.finditer(pattern))
    if not tokens:
        return str(value).removesuffix(" 00:00:00")
    noon = any("a" in token[0].lower() for token in tokens)
    parts, end = list[str](), 0
    for place, token in enumerate(tokens):
        before = tokens[place - 1][0].lower() if place else ""
        after = tokens[place + 1][0].lower() if place + 1 < len(tokens) else ""
        minutes = before.startswith("h") or after.startswith("s")
        parts += [pattern[end : token.start()], _date_part(value, token[0].lower(), minutes, noon)]
        end = token.end()
    return " ".join(_filled("".join((*parts, pattern[end:])), literal).split())


def _elapsed(value: timedelta, code: str) -> str:
    """A length of time in hours and minutes, with its seconds where the format or the value has some."""
    seconds = round(abs(value).total_seconds())
    sign = "-" if seconds and value < timedelta(0) else ""
    rest = f":{seconds % 60:02d}" if seconds % 60 or "s" in code.lower() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}{rest}"


def _date_part(value: Any, token: str, minutes: bool, noon: bool) -> str:
    if token.startswith("."):
        return f".{getattr(value, 'microsecond', 0):06d}"[: len(token)]
    if token[0] == "a":
        return "AM" if getattr(value, "hour", 0) < 12 else "PM"
    if token[0] == "h":
        hour = getattr(value, "hour", 0)
        hour = (hour % 12 or 12) if noon else hour
        return f"{hour:0{min(len(token), 2)}d}"
    if token[0] == "s" or (token[0] == "m" and minutes):
        number = getattr(value, "second" if token[0] == "s" else "minute", 0)
        return f"{number:0{min(len(token), 2)}d}"
    if not isinstance(value, date):
        return ""
    names = {
        "yy": "%y",
        "y": "%y",
        "mmm": "%b",
        "mmmm": "%B",
        "mmmmm": "%b",
        "mm": "%m",
        "ddd": "%a",
        "dddd": "%A",
        "dd": "%d",
    }
    if token in ("m", "d"):
        return str(value.month if token == "m" else value.day)
    return value.strftime(names[token]) if token in names else f"{value.year:04d}"
