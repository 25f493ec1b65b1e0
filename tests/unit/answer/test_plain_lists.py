"""What is quoted of manuals, handbooks and records, whose lines are no prose."""

from __future__ import annotations

import pytest

from llama_index_presets.answer.confidence.evidence import Passage, read_passages
from llama_index_presets.answer.confidence.sections import section_fit
from llama_index_presets.answer.confidence.units import split_units
from llama_index_presets.answer.context import DONT_KNOW
from llama_index_presets.answer.extractive import ExtractiveLLM

MANUAL = (
    "ERROR CODES\nE1  Water supply: the tap is closed. Open the tap.\nE2  Drain: the filter is clogged. Clean it.\n"
    "E4  Leak: water is in the base. Call service.\n\nCARE\nClean the filter once a month."
)
ORDERS = (
    "order: 1001; customer: Huber GmbH; city: Graz\n\norder: 1002; customer: Novak s.r.o.; city: Brno\n\n"
    "order: 1003; customer: Keller AG; city: Basel"
)


def _quoted(question: str, text: str) -> str:
    passages = f"Context:\n\n[1]\n{text}\n\nQuestion: {question}\nAnswer:"
    return ExtractiveLLM(min_coverage=0).answer(passages).replace(" [1]", "")


def test_a_line_in_capitals_stands_over_what_follows() -> None:
    """It is no part of the sentence below it, unless a sentence in capitals goes on, or begins with an abbreviation."""
    assert split_units("CARE\nClean the filter.")[0] == "CARE"
    assert split_units("NO WARRANTY OF ANY\nKIND IS GIVEN.") == ["NO WARRANTY OF ANY KIND IS GIVEN."]
    assert split_units("IBM\nis a company.") == ["IBM is a company."]


def test_a_wrapped_line_that_ends_in_a_number_is_no_row() -> None:
    """A sentence is quoted whole where a line of it ends with a year; lines of a price list stay apart."""
    assert split_units("However, RFC 1521\ndiscusses mail.") == ["However, RFC 1521 discusses mail."]
    assert split_units("The mill opened\nin 1994\nand closed in 2003 after a fire.") == [
        "The mill opened in 1994 and closed in 2003 after a fire."
    ]
    assert split_units("Espresso 2.50\nLatte 3.20") == ["Espresso 2.50", "Latte 3.20"]


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ("What does error E4 mean?", "E4 Leak: water is in the base."),
        ("What does error E2 mean?", "E2 Drain: the filter is clogged."),
        ("How often should I clean the filter?", "Clean the filter once a month."),
    ],
)
def test_the_line_with_the_code_is_quoted(question: str, quoted: str) -> None:
    """The heading in capitals counts for each line below it; a code of a neighbour for none."""
    assert _quoted(question, MANUAL) == quoted


def test_a_passage_without_the_code_is_about_another() -> None:
    """The parts of a code may stand apart, and what is said of another version is not said of this one."""
    texts = ["HTTP/1.1 is a protocol of 3 parts.", "HTTP 3 is a protocol.", "HTTP/3.1 is a protocol."]
    reading = read_passages("What is HTTP/3?", [Passage(n, "", text) for n, text in enumerate(texts, 1)])
    assert reading.other_code == [True, False, True]
    assert _quoted("What is HTTP/3?", f"{texts[0]}\n\n[2]\n{texts[1]}") == "HTTP 3 is a protocol. [2]"


def test_a_passage_of_another_year_is_about_another() -> None:
    """One that states no year may be of the year asked for; a century, a quantity and a figure are no years."""
    texts = [
        "A 2013 report says that growth has risen.",
        "The report of 2015, unlike that of 2013, says so.",
        "The report says that growth has risen to 1,900 m.",
        "The report of the 1800s says so.",
    ]
    reading = read_passages("What does the 2015 report say?", [Passage(1, "", text) for text in texts])
    assert reading.other_code == [True, False, False, False]
    assert _quoted("What does the 2015 report say?", f"{texts[0]}\n\n[2]\n{texts[1]}") == f"{texts[1]} [2]"


@pytest.mark.parametrize(
    ("asked", "text", "other"),
    [
        ("4.1.2", "4.1.3 fixes a leak.", True),
        ("v4.1.2", "Version v4.1.2 fixes a leak.", False),
        ("4.1.3", "4.1.3 fixes a leak.", False),
        ("12.5.2026", "Decided on 12 May 2026.", False),  # a date, which is written in many ways
    ],
)
def test_another_version_is_another_thing(asked: str, text: str, other: bool) -> None:
    """Their numbers are alike but for one part."""
    reading = read_passages(f"What was fixed in {asked}?", [Passage(1, "", text)])
    assert reading.other_code == [other]


def test_a_month_is_no_name() -> None:
    """A sentence that says when does not say where, though the month has a capital."""
    text = "The final exam is on 3 June. The final exam is in Hall C."
    when, where = read_passages("Where is the final exam?", [Passage(1, "", text)]).units
    assert (when.typed, where.typed) == (0, 1)


@pytest.mark.parametrize(
    "lines",
    ["Q: {}\nA: {}\n\n", "{}\n\n{}\n\n", "{} {}\n"],
)
def test_of_a_list_of_questions_the_answer_is_quoted(lines: str) -> None:
    """The question has the words that are asked, the answer none of them; it ends before the next question."""
    pairs = [
        ("When does boarding close?", "Fifteen minutes before departure."),
        ("Do you carry bicycles?", "Each passenger may bring one. Tandems pay double."),
        ("Is there a kiosk?", "On deck four."),
    ]
    text = "".join(lines.format(*pair) for pair in pairs)
    answer = "A: " if lines.startswith("Q") else ""
    assert _quoted("Do you carry bicycles?", text) == answer + pairs[1][1]
    assert _quoted("When does boarding close?", text) == answer + pairs[0][1]


def test_a_question_by_itself_is_no_answer() -> None:
    """An open point in minutes does not answer itself, and a text may be all questions."""
    minutes = "Mails are answered by Tomas. Open: who answers mails at the weekend? Lena writes the text."
    assert _quoted("Who answers mails at the weekend?", minutes) == "Mails are answered by Tomas."
    assert _quoted("Who are you?", "Who are you? Why?") == DONT_KNOW


def test_a_number_stays_with_the_step_that_it_numbers() -> None:
    """Steps without full stops are units of their own; a year that ends a sentence is no number of one."""
    assert split_units("1. Open the tap\n2. Close it") == ["1. Open the tap", "2. Close it"]
    assert split_units("Do this:\n 9) Wait. Rest.\n10) Go") == ["Do this:", "9) Wait.", "Rest.", "10) Go"]
    assert split_units("It was shown in\n1990. Then it was sold.") == [
        "It was shown in 1990.",
        "Then it was sold.",
    ]
    assert split_units("1. ") == ["1."]


def test_a_row_is_whole_and_alone() -> None:
    """The full stop of a cell does not end its row, and the rows of other customers are not quoted beside it."""
    assert split_units(ORDERS)[1] == "order: 1002; customer: Novak s.r.o.; city: Brno"
    assert _quoted("In which city is the customer Novak?", ORDERS) == split_units(ORDERS)[1]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("What if I lose my laptop?", "A lost laptop must be reported."),
        ("Were the children brought?", "You must bring the child along."),
        ("Was the cup won in 1999?", "They win the cup in 1999."),
    ],
)
def test_irregular_forms_are_the_same_word(question: str, text: str) -> None:
    """All words of the question are held, whichever form they have."""
    assert read_passages(question, [Passage(1, "", text)]).coverage == [1.0]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("At what temperature is it baked?", "It is baked at 250 °C."),
        ("What is the cost of a ticket?", "A ticket is €28."),
        ("At what speed was the ferry measured?", "The ferry was measured at 30 knots."),
    ],
)
def test_a_unit_names_its_quantity(question: str, text: str) -> None:
    """A figure with its unit holds the word that asks for it."""
    assert read_passages(question, [Passage(1, "", text)]).coverage == [pytest.approx(1, abs=0.06)]


def test_a_question_why_is_answered_below_troubleshooting() -> None:
    """What went wrong is explained there, too."""
    assert section_fit("Why is my crumb gummy?", "Sourdough > Troubleshooting") == 1
    assert section_fit("Why is my crumb gummy?", "Sourdough > Symptoms") == -1


@pytest.mark.parametrize(
    ("question", "sentence", "is_there"),
    [
        ("How many people died in 2019?", "In 2019 people died of it.", 0.0),
        ("How many people died in 2019?", "In 2019, 412 people died of it.", 1.0),
        ("How often is valve 3 serviced?", "Valve 3 is serviced.", 0.0),
        ("How often is valve 3 serviced?", "Valve 3 is serviced every 3 months.", 1.0),
        ("How often is the pump greased?", "The pump is greased weekly.", 1.0),
        ("When did they win before 2000?", "Before 2000 they won.", 0.0),
    ],
)
def test_a_number_of_the_question_is_no_answer_to_it(question: str, sentence: str, is_there: float) -> None:
    """What is asked for is a figure that the question does not have, or has once less."""
    reading = read_passages(question, [Passage(1, "", sentence)])
    assert [unit.typed for unit in reading.units] == [is_there]


def test_the_title_of_a_numbered_clause_stays_with_its_text() -> None:
    """Contracts have "3. Deposit. Three months' rent": the title alone was quoted as the answer."""
    clauses = "2. Rent. GBP 900 per month.\n3. Deposit. Three months' rent. It is returned at the end.\n4. Pets.\nNone."
    assert split_units(clauses) == [
        "2. Rent. GBP 900 per month.",
        "3. Deposit. Three months' rent.",
        "It is returned at the end.",
        "4. Pets.",
        "None.",
    ]
    assert _quoted("What is the deposit?", clauses) == "3. Deposit. Three months' rent."


@pytest.mark.parametrize(
    "items",
    [
        ["i. wash hands", "ii. dry them", "iii. Call Bob"],
        ["I. Wash hands.", "II. Dry them.", "IV. Go"],
        ["a. wash hands", "b. dry them"],
        ["A. Wash hands", "B. Dry them"],
        ["(a) wash hands", "(b) dry them"],
        ["(i) wash hands", "(ii) dry them"],
    ],
)
def test_items_with_letters_and_roman_figures_are_units(items: list[str]) -> None:
    """The mark of an item ended the sentence before: "wash hands ii."."""
    assert split_units("\n".join(items), "en") == items


def test_an_initial_or_an_abbreviation_at_the_beginning_of_a_line_is_no_mark() -> None:
    """A sentence that is wrapped before it stays whole."""
    assert split_units("The book is by\nA. Smith of Leeds.", "en") == ["The book is by A. Smith of Leeds."]
    assert split_units("Take a tool,\ne. g. pliers, along.", "en") == ["Take a tool, e. g. pliers, along."]
