"""Labelled questions, read from a JSON Lines file, a CSV file, or a folder in BEIR layout."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import SettingsError

__all__ = ["JudgedQuestion", "digest", "digests", "read_beir", "read_questions"]

_COLUMNS = {"id", "question", "sources", "answer", "answerable"}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_GRADES: Final = (0.01, 1000.0)
"""Least and most grade of a relevant source: measures count in hundredths, and up to the highest one."""


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
    """Question with the sources that answer it.

    Attributes:
        text: The question.
        relevance: Document id -> grade; > 0 is relevant. A file's name, or the end of its path, will do as id.
        id: Its name in results; unique.
        answer: What a right answer says, where that is known.
        answerable: Whether the documents hold an answer; None where it is not known.
    """

    text: str
    relevance: Mapping[str, float]
    id: str = ""
    answer: str | None = None
    answerable: bool | None = True

    @property
    def relevant(self) -> frozenset[str]:
        """The sources that answer it."""
        return frozenset(name for name, grade in self.relevance.items() if grade > 0)


def read_questions(path: str | Path) -> list[JudgedQuestion]:
    """Read questions.

    A folder is read as BEIR. A ``.jsonl`` file has one object a line, a ``.csv`` file one row: ``question``, and
    optionally ``id``, ``sources`` (JSON: a list, or an object with grades; CSV: separated by ``;``), ``answer``, and
    ``answerable``. An empty ``sources`` means that the documents hold no answer, and "I don't know" is right.

    Raises:
        SettingsError: The file cannot be read, a line does not fit (it is named), or there is no question.
    """
    place = Path(path)
    if place.is_dir():
        return read_beir(place)
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_rows}
    reader = readers.get(place.suffix.lower())
    if reader is None:
        raise SettingsError(
            f"'{place}' is neither a folder in BEIR layout nor a file that ends in .jsonl or .csv."
        )
    try:
        text = place.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8: {error.reason}"
        raise SettingsError(f"'{place}' cannot be read ({reason}). Give a file of questions.") from error
    found = [_question(place, line, row) for line, row in reader(place, text)]
    if not found:
        raise SettingsError(f"'{place}' holds no question.")
    return _with_ids(place, found)


def read_beir(folder: str | Path) -> list[JudgedQuestion]:
    """Read ``queries.jsonl`` and ``qrels.tsv``; questions without a relevant document measure nothing and are left out.

    Raises:
        SettingsError: A file is missing or is not in this layout, or no question has a relevant document.
    """
    place = Path(folder)
    try:
        lines = (place / "queries.jsonl").read_text(encoding="utf-8-sig").split("\n")
        questions = {str(row["_id"]): str(row["text"]) for row in map(json.loads, filter(str.strip, lines))}
        judged: dict[str, dict[str, float]] = {}
        for line in _without_header((place / "qrels.tsv").read_text(encoding="utf-8-sig")):
            question, document, grade = line.split("\t")
            judged.setdefault(question, {})[document] = _grade(grade)
        found = [
            JudgedQuestion(questions[name], grades, name)
            for name, grades in judged.items()
            if max(grades.values()) > 0
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(
            f"'{place}' is not a folder in BEIR layout ({type(error).__name__}: {error}). It needs queries.jsonl "
            "with _id and text, and qrels.tsv with a header and query-id, corpus-id, score."
        ) from error
    if not found:
        raise SettingsError(
            f"No question in '{place}' has a relevant document (a score above 0 in qrels.tsv)."
        )
    return found


def _without_header(qrels: str) -> list[str]:
    """Lines of judgments; a first line that is a judgment is one, since many files come without a header."""
    lines = qrels.rstrip("\n").split("\n")
    try:
        float(lines[0].split("\t")[-1])
    except ValueError:
        return lines[1:]
    return lines


def digest(questions: Sequence[JudgedQuestion]) -> str:
    """Short hash of exactly these questions: results with equal hashes can be compared."""
    return _short_hash([_fields(one) for one in questions])


def digests(questions: Sequence[JudgedQuestion]) -> dict[str, str]:
    """Short hash of each question by its id: outcomes of a question with equal hashes can be compared."""
    return {one.id: _short_hash(_fields(one)) for one in questions}


def _fields(one: JudgedQuestion) -> list[Any]:
    return [one.id, one.text, dict(sorted(one.relevance.items())), one.answer, one.answerable]


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# -- files ----------------------------------------------------------------------------------------------------------


def _json_lines(place: Path, text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # U+2028 and the like may stand in a text
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SettingsError(f"{place}:{number}: not JSON ({error}).") from error
            yield number, row if isinstance(row, dict) else {}


def _csv_rows(place: Path, text: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    for number in itertools.count(2):
        try:
            row: dict[Any, Any] | None = next(rows, None)
        except csv.Error as error:
            raise SettingsError(f"{place}:{number}: not CSV ({error}).") from error
        if row is None:
            return
        if None in row:
            raise SettingsError(
                f"{place}:{number}: the row has more cells than the header. Quote a cell that holds a comma."
            )
        given = {name: value for name, value in row.items() if value is not None}
        if "sources" in given:
            given["sources"] = [part.strip() for part in given["sources"].split(";") if part.strip()]
        yield number, {name: value for name, value in given.items() if value != ""}


def _question(place: Path, line: int, row: Mapping[str, Any]) -> JudgedQuestion:
    where = f"{place}:{line}"
    unknown = sorted(set(map(str, row)) - _COLUMNS)
    if unknown:
        raise SettingsError(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(sorted(_COLUMNS))}.")
    text = _text(where, row, "question", numbers=False).strip()
    if not text:
        raise SettingsError(f"{where}: there is no 'question'.")
    relevance = _relevance(where, row.get("sources", []))
    said = row.get("answerable", None if "sources" not in row else bool(relevance))
    answerable = None if said is None else _WORDS.get(str(said).strip().lower())
    if answerable is None and said is not None:
        raise SettingsError(f"{where}: answerable is {said!r}; expected true or false.")
    answer = None if row.get("answer") is None else _text(where, row, "answer")
    return JudgedQuestion(text, relevance, _text(where, row, "id"), answer, answerable)


def _text(where: str, row: Mapping[str, Any], name: str, *, numbers: bool = True) -> str:
    """A field that is text, or a number where that is meant as its text; empty where it is missing or null."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float) if numbers else str):
        raise SettingsError(f"{where}: {name} is {value!r}; expected text.")
    return str(value)


def _relevance(where: str, sources: Any) -> dict[str, float]:
    if isinstance(sources, str):
        sources = [sources]
    try:
        graded = dict(sources if isinstance(sources, Mapping) else dict.fromkeys(sources, 1.0))
        found = {str(name): _grade(grade) for name, grade in graded.items()}
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{where}: sources is {sources!r} ({error}); expected a list, or an object with grades."
        ) from error
    if any(not isinstance(name, str | int) or not str(name).strip() for name in graded):
        raise SettingsError(
            f"{where}: sources is {sources!r}; expected names of documents, none of them empty."
        )
    return found


def _grade(value: Any) -> float:
    """A grade that measures can count with.

    Raises:
        ValueError: It is no number or none of this size.
        TypeError: It is neither a number nor text.
    """
    grade, (least, most) = float(value), _GRADES
    if not math.isfinite(grade) or abs(grade) > most or 0 < grade < least:
        raise ValueError(f"a grade is {grade:g}, and one is 0 or from {least:g} to {most:g}")
    return grade


def _with_ids(place: Path, questions: Sequence[JudgedQuestion]) -> list[JudgedQuestion]:
    named = [one if one.id else replace(one, id=str(number)) for number, one in enumerate(questions, start=1)]
    seen: set[str] = set()
    for one in named:
        if one.id in seen:
            raise SettingsError(f"'{place}' has the id '{one.id}' twice; give each question its own.")
        seen.add(one.id)
    return named
