"""Numbers in messages have nouns that fit: no text of the package says "1 documents"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_index_presets.counting import counted

SRC = Path(__file__).parents[2] / "src" / "llama_index_presets"
NOUNS = (
    "answers|attempts|bytes|calls|candidates|cases|characters|chunks|columns|days|documents|entries|errors|events|"
    "faults|files|findings|groups|hits|hours|images|indexes|items|jobs|keys|labels|legs|lines|lists|minutes|models|"
    "nodes|pages|parts|passages|pieces|presets|problems|queries|questions|records|requests|rows|scores|seconds|"
    "sentences|settings|sheets|sources|spans|tables|terms|texts|times|tokens|traces|users|values|vectors|words|workers"
)
BEHIND_A_NUMBER = re.compile(rf"^ (?:{NOUNS})\b")
BEHIND_A_COUNT = re.compile(rf"^ (?:(?!of |and |in |to |or |with )[a-z-]+ )?(?:{NOUNS})\b")
IN_A_LOG = re.compile(rf"%,?d (?:[a-z]+ )?(?:{NOUNS})\b")
FITTING = {
    "serve/callers/access.py": "a rate in words",
    "providers/named_llm.py": "a constant",
    "rerank/training.py": "a training is of many lists",
}
"""Modules that have one, and why it fits."""


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every number that stands before a plural."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and IN_A_LOG.search(node.value):
            yield node.lineno, node.value
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            asked = ast.unparse(value.value)
            form = ast.unparse(value.format_spec) if value.format_spec else ""
            if (
                asked.startswith("counted(")
                or re.fullmatch(r"[\w.]*\b_?[A-Z_0-9]+", asked)
                or ".1f" in form
                or ".2f" in form
            ):
                continue  # a constant, or a fraction
            known = "," in form or asked.startswith("len(")
            if (BEHIND_A_COUNT if known else BEHIND_A_NUMBER).match(str(after.value)):
                yield node.lineno, ast.unparse(node)


def test_no_message_counts_one_documents() -> None:
    """Each number before a noun is written by `counted`."""
    found = [
        f"{path.relative_to(SRC)}:{line}: {text[:100]}"
        for path in sorted(SRC.rglob("*.py"))
        if str(path.relative_to(SRC)) not in FITTING
        for line, text in _texts(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code", ['f"{n} documents"', 'f"{len(n)} new chunks"', 'f"{n:,} old files are"', '"%d rows failed"']
)
def test_the_hunt_finds_one(code: str) -> None:
    """An f-string, with and without a word between, and the text of a log."""
    assert list(_texts(ast.parse(code)))


@pytest.mark.parametrize(
    ("number", "noun", "verb", "text"),
    [
        (1, "document", "", "1 document"),
        (0, "entry", "", "0 entries"),
        (2, "day", "", "2 days"),
        (1_200, "index", "", "1,200 indexes"),
        (1, "file", "have", "1 file has"),
        (3, "file", "have", "3 files have"),
        (1, "node", "come", "1 node comes"),
        (1.0, "day", "", "1 day"),
        (0.5, "day", "", "0.5 days"),
    ],
)
def test_a_number_has_its_noun_and_verb(number: float, noun: str, verb: str, text: str) -> None:
    """One, none and many."""
    assert counted(number, noun, verb) == text
