"""Quantities that a text gives by their units alone: "250 °C" is a temperature, "€28" what something costs. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["implied_words"]

_UNITS: Final = (
    (re.compile(r"\d\s?°|\bdegrees (?:celsius|centigrade|fahrenheit)\b", re.IGNORECASE), "temperature"),
    (re.compile(r"[$€£¥]\s?\d|\d\s?[$€£¥]|\d\s?(?:dollars?|euros?|cents|USD|EUR|GBP|CHF)\b"), "cost price"),
    (re.compile(r"\d\s?(?:km/h|mph|m/s|knots)(?!\w)"), "speed"),
    (re.compile(r"\d\s?(?:kg|lbs?|tonnes?|kilograms?)(?!\w)"), "weight"),
)


def implied_words(text: str) -> str:
    """Names of the quantities whose units a text has, as a question asks for them.

    Example:
        >>> implied_words("Bake at 250 °C."), implied_words("Bake for 20 minutes.")
        ('temperature', '')
    """
    return " ".join(words for unit, words in _UNITS if unit.search(text))
