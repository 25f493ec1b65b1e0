"""Labels of drafted questions: each decision is on disk before the next question is shown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.questions import JudgedQuestion, read_questions
from llama_index_presets.files.disk_faults import write_all

__all__ = ["Labels", "append_question", "check_appendable"]

_JSON_LINES: Final = (".jsonl", ".ndjson")


def _as_row(one: JudgedQuestion) -> dict[str, Any]:
    """A question as `read_questions` reads it."""
    row: dict[str, Any] = {"id": one.id, "question": one.text}
    if one.relevance:  # an empty list would say that no document answers it
        graded = any(grade != 1 for grade in one.relevance.values())
        row["sources"] = dict(sorted(one.relevance.items())) if graded else sorted(one.relevance)
    if one.answer:
        row["answer"] = one.answer
    if one.answerable is not (True if one.relevance else None):
        row["answerable"] = one.answerable
    return row


def check_appendable(path: Path) -> None:
    """Refuse a file that no question can be added to, before one is drafted, paid or decided.

    Raises:
        SettingsError: It is no JSON Lines file by its name.
        StoreWriteError: It cannot be written.
    """
    if path.suffix.lower() not in _JSON_LINES:
        raise SettingsError(f"'{path}' is no name of a JSON Lines file. Name one that ends in .jsonl.")
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    fits = place.is_file() if place == path else place.is_dir()
    if not fits or not os.access(place, os.W_OK):
        raise StoreWriteError(f"'{path}' cannot be written. Name another file.")


def append_question(path: Path, one: JudgedQuestion) -> None:
    """Append a question to a JSON Lines file; it is in the file on return.

    Raises:
        StoreWriteError: The file cannot be written.
    """
    _append(path, _as_row(one))


class Labels:
    """Decisions about drafts: accepted questions in `path`, rejected ids in a file beside it.

    Args:
        path: JSON Lines file of accepted questions, as `evaluate` and `tune` read it; added to.

    Raises:
        SettingsError: A file that is there cannot be read, or is of another kind.
        StoreWriteError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        check_appendable(path)
        self.path = path
        self.rejected_file = path.with_name(f"{path.stem}.rejected.jsonl")
        self.accepted = {one.id for one in read_questions(path)} if _has_lines(path) else set()
        self.rejected = (
            {one.id for one in read_questions(self.rejected_file)}
            if _has_lines(self.rejected_file)
            else set()
        )

    def left(self, drafts: Sequence[JudgedQuestion]) -> list[JudgedQuestion]:
        """The drafts without a decision, in their order."""
        return [one for one in drafts if one.id not in self.accepted | self.rejected]

    def accept(self, one: JudgedQuestion) -> None:
        """Keep a question, as drafted or edited.

        Raises:
            StoreWriteError: The file cannot be written.
        """
        append_question(self.path, one)
        self.accepted.add(one.id)

    def reject(self, one: JudgedQuestion) -> None:
        """Leave a question out for good.

        Raises:
            StoreWriteError: The file cannot be written.
        """
        append_question(self.rejected_file, one)
        self.rejected.add(one.id)


def _has_lines(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            size = file.seek(0, 2)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # the last line was cut short, or written by hand
                    write_all(file.fileno(), b"\n", durable=False)
            write_all(file.fileno(), _line(row), durable=True)
    except OSError as error:
        raise StoreWriteError(f"'{path}' cannot be written ({error.strerror}). Name another file.") from error


def _line(row: dict[str, Any]) -> bytes:
    """A row as one line of UTF-8; half a character, as of a file name that is no UTF-8, is written as its escape."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()
