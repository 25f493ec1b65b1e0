"""Questions with known relevant documents, in BEIR layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import SettingsError

__all__ = ["JudgedQuestion", "read_beir"]


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
    """A question and what answers it.

    Attributes:
        text: The question.
        relevance: Document id -> grade; > 0 is relevant.
    """

    text: str
    relevance: dict[str, float]


def read_beir(folder: str | Path) -> list[JudgedQuestion]:
    """Read ``queries.jsonl`` and ``qrels.tsv``; questions without a relevant document measure nothing and are left out.

    Raises:
        SettingsError: A file is missing or is not in this layout, or no question has a relevant document.
    """
    place = Path(folder)
    try:
        lines = (place / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        questions = {str(row["_id"]): str(row["text"]) for row in map(json.loads, filter(str.strip, lines))}
        judged: dict[str, dict[str, float]] = {}
        for line in (place / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            question, document, grade = line.split("\t")
            judged.setdefault(question, {})[document] = float(grade)
        found = [
            JudgedQuestion(questions[name], grades)
            for name, grades in judged.items()
            if max(grades.values()) > 0
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"'{place}' is not a folder in BEIR layout ({type(error).__name__}: {error}). It needs queries.jsonl "
            "with _id and text, and qrels.tsv with a header and query-id, corpus-id, score."
        ) from error
    if not found:
        raise SettingsError(
            f"No question in '{place}' has a relevant document (a score above 0 in qrels.tsv)."
        )
    return found
