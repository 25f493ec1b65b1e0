"""Statements and rows of tables, chosen by what they say."""

from __future__ import annotations

import time

import pytest

from llama_index_presets.answer.confidence.evidence import Passage, Reading, read_passages
from llama_index_presets.answer.confidence.rows import Row, read_row
from llama_index_presets.answer.confidence.units import split_units
from llama_index_presets.answer.confidence.words import apart
from llama_index_presets.answer.extractive import ExtractiveLLM

TABLE = """Harbour Foods reports its results in millions of euros.

Total assets; 2021: 861.4; 2020: 314.8

Total current assets; 2021: 95.1; 2020: 88.2

Cost of sales (unaudited); 2021: 362.1; 2020: 290.0

Total assets; 2018: 411.0; 2017: 398.7"""


def ask(question: str, text: str, heading: str = "") -> str:
    return ExtractiveLLM().answer(f"Context:\n\n[1] {heading}\n{text}\n\nQuestion: {question}\nAnswer:")


def reading(question: str, text: str, heading: str = "") -> Reading:
    return read_passages(question, [Passage(1, heading, text)])


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("Sales; 2021: 5; 2020: 4", Row("Sales", "", (("2021", "5"), ("2020", "4")))),
        ("Europe; Sales; 2021: 5", Row("Sales", "Europe", (("2021", "5"),))),
        ("Net sales; $3,226.8; 100.0%", Row("Net sales", "", (("", "$3,226.8"), ("", "100.0%")))),
        ("Sales — 2021: 5", Row("Sales", "", (("2021", "5"),))),
        ("Sales | 5 | (4)", Row("Sales", "", (("", "5"), ("", "(4)")))),
        ("Title: Notes Due 2024; Symbol: PEP24", Row("Notes Due 2024", "", (("Symbol", "PEP24"),))),
        ("Year | Sales", None),
        ("Among the causes are: (1) rain; (2) snow.", None),
        ("It rained; we stayed.", None),
        ("A sentence: of one part", None),
    ],
)
def test_a_row_has_a_label_and_cells_with_the_names_of_their_columns(line: str, row: Row | None) -> None:
    """The forms in which the readers write a row are read back; prose with semicolons is no row."""
    assert read_row(line) == row


def test_rows_are_units_of_their_own() -> None:
    """Rows that follow each other without an empty line stay apart."""
    assert split_units("Sales; 2021: 5\nCosts; 2021: 4") == ["Sales; 2021: 5", "Costs; 2021: 4"]


@pytest.mark.parametrize(
    ("question", "row"),
    [
        ("What was the cost of sales of Harbour Foods in 2020?", "Cost of sales (unaudited); 2021: 362.1; 2020: 290.0"),
        ("What were the total assets of Harbour Foods in 2021?", "Total assets; 2021: 861.4; 2020: 314.8"),
        ("What were total current assets of Harbour Foods in 2021?", "Total current assets; 2021: 95.1; 2020: 88.2"),
        ("What were the total assets of Harbour Foods in 2018?", "Total assets; 2018: 411.0; 2017: 398.7"),
    ],
)  # fmt: skip
def test_the_row_with_the_label_and_the_year_is_quoted(question: str, row: str) -> None:
    """The label says no more than the question, and the columns have its year; the row is quoted as it stands."""
    assert ask(question, TABLE, "Harbour Foods").split(" [1]")[0] == row


def test_a_row_lends_its_words_to_no_other_row() -> None:
    """What stands in the row beside it is not evidence; a sentence still lends its words to the next one."""
    rows = reading("What was the goodwill?", "Goodwill; 2021: 7\n\nInventories; 2021: 9").units
    assert [unit.coverage for unit in rows] == [1.0, 0.0]
    sentences = reading("What was the goodwill?", "Goodwill rose again.\n\nIt was at nine in the end.").units
    assert [unit.coverage for unit in sentences] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("Acme pays within 14 days.", True),
        ("Alice founded Acme Incorporated.", True),
        ("Use grade 68.", True),
        ("3M Company, St. Paul, Minnesota 55144.", False),
        ("Home About Contact Imprint Jobs", False),
        ("Washington, D.C. 20549", False),
    ],
)
def test_a_plain_statement_needs_no_article(text: str, statement: bool) -> None:
    """A sentence in small letters counts in full without a word of grammar; a letterhead and a menu do not."""
    (unit, *_) = reading("What is there?", text).units
    assert (unit.shape > 0.9) is statement


def test_the_plain_statement_wins_over_the_longer_one_beside_it() -> None:
    """The sentence that says it is first, though the other has an article and more words."""
    found = ask(
        "Within how many days does the site pay?",
        "Acme pays within 14 days. A discount of 2 percent holds for payment within 5 days.",
        "Invoices, site Acme",
    )
    assert found.startswith("Acme pays within 14 days. [1]")


@pytest.mark.parametrize(
    ("question", "lacks"),
    [
        ("What was the cost of sales of Harbour Foods in 2020?", False),
        ("What was the cost of sales of Harbour Foods in 2016?", True),
        ("What was the goodwill of Harbour Foods in 2021?", True),
        ("What was the cost of sales of Harbour Motors in 2021?", True),
        ("What was the cost of sales of Harbour Foods in Q3 2021?", True),
        ("What was the cost of sales of Harbour Foods Inc. in 2021?", False),
        ("In which currency does Harbour Foods report its results?", False),
    ],
)
def test_a_table_of_another_year_row_or_company_lacks_what_is_asked_for(question: str, lacks: bool) -> None:
    """The row of another year looks like the answer, and so does the prose beside it."""
    assert reading(question, TABLE, "Harbour Foods").lacks == [lacks]


def test_a_table_without_years_and_prose_without_the_year_lack_nothing() -> None:
    """The year may stand in the name of the file, or in the passage before."""
    question = "What were the sales of Berlin in 2016?"
    assert reading(question, "Berlin; Sales: 5; Costs: 4").lacks == [False]
    assert reading(question, "The sales of Berlin grew in 2017.").lacks == [False]


def test_the_prose_beside_a_table_does_not_answer_for_a_missing_row() -> None:
    """Neither the row of another year nor a sentence about the company is quoted."""
    assert ask("What was the goodwill of Harbour Foods in 2021?", TABLE, "Harbour Foods") == "I don't know."
    assert (
        ask("What was the cost of sales of Harbour Foods in 2016?", TABLE, "Harbour Foods") == "I don't know."
    )


@pytest.mark.parametrize(
    "names",
    [
        ("customer_no", "name", "payment_terms", "credit_limit"),
        ("customerNo", "name", "paymentTerms", "creditLimit"),
        ("CustomerNo", "Name", "PaymentTerms", "CreditLimit"),
        ("CUSTOMER_NO", "NAME", "PAYMENT_TERMS", "CREDIT_LIMIT"),
    ],
)
def test_columns_of_exports_are_asked_for_by_their_words(names: tuple[str, ...]) -> None:
    """A name in one word is its words as well: a table with ``payment_terms`` answers as one with "payment terms"."""
    values = ("1002", "Hotel Astoria", "30 days net", "15000")
    row = "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    assert ask("What are the payment terms of Hotel Astoria?", row) == f"{row} [1]"
    assert ask("What is the credit limit of Hotel Astoria?", row) == f"{row} [1]"
    assert ask("What is the delivery time of Hotel Astoria?", row) == "I don't know."


@pytest.mark.parametrize("label", ["retry_after", "retryAfter", "RetryAfter"])
def test_labels_in_one_word_are_labels(label: str) -> None:
    """A line of settings is a label with its value, whichever way its name is written."""
    text = f"{label}: 30 seconds\nmax_connections: 40"
    assert ask("What is the retry after?", text) == f"{label}: 30 seconds [1]"
    assert ask(f"What is {label}?", text) == f"{label}: 30 seconds [1]"


def test_brands_are_no_names_of_columns() -> None:
    """Capitals within a word make no name of a column in prose: what is sold by a pal is not sold by PayPal."""
    assert apart("PayPal and YouTube, eBay, iPhone, McDonald") == "PayPal and YouTube, eBay, iPhone, McDonald"
    assert apart("__init__ and _stressed_") == "__init__ and _stressed_"


@pytest.mark.parametrize(
    "text", ["ab" + "A" * 200 + "9", "Abc" + "AB" * 200 + "9", "xy" + "ACGTt" * 100 + "9"]
)
def test_long_capitals_are_read_at_once(text: str) -> None:
    """As in genes and keys: 32 capitals behind small letters took 0.3 s, and each four more took eight times that."""
    began = time.process_time()
    assert apart(text) == text
    assert time.process_time() - began < 1


def test_capitals_end_where_the_next_word_begins() -> None:
    """The last of some capitals begins the word behind them."""
    assert apart("myHTTPServerURL, HttpURLs: 3, DataID: 4") == "my HTTPServerURL, Http URLs: 3, Data ID: 4"
