"""Figures: what is read out of a text, and what a passage supports."""

from __future__ import annotations

import pytest

from llama_index_presets.answer.cited.verify_numbers import Figures, find_figures


@pytest.mark.parametrize(
    ("text", "value", "sign", "currency", "scale"),
    [
        ("$7.2 million", "7.2", "", "USD", "million"),
        ("US$3bn", "3", "", "USD", "billion"),
        ("EUR 1,250.50", "1250.5", "", "EUR", ""),
        ("1.234,56 EUR", "1234.56", "", "EUR", ""),
        ("1\u202f250", "1250", "", "", ""),
        ("12,5 %", "12.5", "", "", "percent"),
        ("(3.1)", "3.1", "-", "", ""),
        ("$(4.5)m", "4.5", "-", "USD", "million"),
        ("-5.20%", "5.2", "-", "", "percent"),
        ("25 basis points", "25", "", "", "basis points"),
        ("twenty-five per cent", "25", "", "", "percent"),
        ("7 million dollars", "7", "", "USD", "million"),
        ("007", "7", "", "", ""),
        ("0.0", "0", "", "", ""),
    ],
)
def test_a_figure_is_read_whole(text: str, value: str, sign: str, currency: str, scale: str) -> None:
    """Value, sign, currency and scale, however they are written."""
    (figure,) = find_figures(f"It was {text} then")
    assert (f"{figure.value:f}", "-" if figure.negative else "") == (value, sign)
    assert (figure.currency, figure.scale) == (currency, scale)


def test_words_with_digits_are_codes() -> None:
    """Compared letter by letter; a range is two figures and no minus."""
    assert [figure.text for figure in find_figures("Q3 of FY2024, 2020-2024") if figure.value is None] == [
        "Q3", "FY2024",
    ]  # fmt: skip
    assert not any(figure.negative for figure in find_figures("2020-2024"))


PASSAGE = (
    "FY2024 (in millions of $): revenue 1,250.5; other income €3.0; loss (12); margin 8.1%; 4 bn in debt; Q3"
)


@pytest.mark.parametrize(
    "said",
    ["1,250.5", "$1,250.5 million", "1250.50 million", "a loss of 12", "-12", "8.1 percent", "FY2024", "q3", "€3",
     "3.0 million", "4 billion", "four billion"],
)  # fmt: skip
def test_the_passage_supports(said: str) -> None:
    """The same value; a unit that stands by it or that the passage names for all."""
    assert all(Figures(PASSAGE).holds(figure) for figure in find_figures(said))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("1,250.6", "another value"),
        ("1,250.5 billion", "the table counts in millions; the billions are those of another figure"),
        ("-1,250.5", "the sign was made up"),
        ("$3.0", "the source says euros"),
        ("8.1", "the percent sign was dropped"),
        ("8.1 million", "a percentage is no amount"),
        ("4 million", "the source says billions"),
        ("Q4", "another quarter"),
        ("25", "no such number"),
        ("£1,250.5", "the passage names no pounds"),
    ],
)
def test_the_passage_does_not_support(said: str, why: str) -> None:
    """A figure with another value, sign, unit or currency is another figure."""
    assert not all(Figures(PASSAGE).holds(figure) for figure in find_figures(said)), why
