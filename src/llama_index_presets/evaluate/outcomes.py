"""Outcomes of evaluated questions, and the file that saves each one during a long run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError, StoreWriteError
from llama_index_presets.evaluate.questions import JudgedQuestion
from llama_index_presets.files.disk_faults import write_all

__all__ = ["NO_DOCUMENT", "Checkpoint", "Outcome", "missing_sources", "named_sources"]

NO_DOCUMENT: Final = "No document has this name, so a question that names it cannot be judged."
"""What is said of each of `missing_sources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one question. Holds names and numbers, and text only where that was asked for.

    Attributes:
        question: Its id.
        ranking: Sources that retrieval found, best first, each once.
        cited: Sources that the answer cites, in order of first mention.
        known: Whether it answered; False is "I don't know". None where no answer was asked for.
        latency_ms: From question to answer.
        cost_usd: Of the answer, US dollars; None when a price is unknown.
        answer_recall: Share of the expected answer's words that the answer has, 0 to 1.
        exact_match: 1 when the answer is the expected one, but for case, articles and punctuation, else 0.
        answer_f1: F1 of the words of the answer against those of the expected one, 0 to 1.
        faithfulness: 1 when the judge says that the passages support the answer, else 0.
        relevancy: 1 when the judge says that answer and passages fit the question, else 0.
        correctness: How well the judge finds the answer to agree with the expected one, 0 to 1.
        judge_usd: What the judge cost, US dollars.
        answer: The answer, where it is kept.
    """

    question: str
    ranking: tuple[str, ...] = ()
    cited: tuple[str, ...] = ()
    known: bool | None = None
    latency_ms: float = 0.0
    cost_usd: float | None = None
    answer_recall: float | None = None
    exact_match: float | None = None
    answer_f1: float | None = None
    faithfulness: float | None = None
    relevancy: float | None = None
    correctness: float | None = None
    judge_usd: float | None = None
    answer: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "ranking": list(self.ranking), "cited": list(self.cited)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """Inverse of `to_dict`."""
        return cls(**{**values, "ranking": tuple(values["ranking"]), "cited": tuple(values["cited"])})


class Checkpoint:
    """Checkpoint file of outcomes, one line a question: an interrupted run resumes from it.

    Args:
        path: The file; made when missing. A last line that was cut short is dropped.

    Raises:
        StoreWriteError: It cannot be written.
        SettingsError: It holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            *whole, torn = self._file.read().split(b"\n")
            # Cut off where it begins: what is kept is never written again, so no full disk can lose it.
            if torn:
                self._file.truncate(sum(len(line) + 1 for line in whole))
        except OSError as error:
            raise StoreWriteError(
                f"'{path}' cannot be written ({error.strerror}). Give another folder with --out."
            ) from error
        try:
            found = [Outcome.from_dict(json.loads(line)) for line in whole if line.strip()]
        except (ValueError, KeyError, TypeError) as error:
            self._file.close()
            raise SettingsError(
                f"'{path}' is no file of an unfinished run, or damaged ({type(error).__name__}). Remove it; its "
                "questions are asked again."
            ) from error
        self.outcomes = {outcome.question: outcome for outcome in found}

    def add(self, outcome: Outcome) -> None:
        """Append an outcome; it is in the file on return.

        Raises:
            StoreWriteError: The disk is full or failed; what was kept before is still there.
        """
        try:
            write_all(self._file.fileno(), (json.dumps(outcome.to_dict()) + "\n").encode(), durable=False)
        except OSError as error:
            raise StoreWriteError(
                f"'{self.path}' cannot be written ({error.strerror}). Make room and run it again: it goes on after the "
                f"{counted(len(self.outcomes), 'question')} kept so far."
            ) from error
        self.outcomes[outcome.question] = outcome

    def discard(self) -> None:
        """Close and remove the file: the run is complete, or to be repeated."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Checkpoint:
        """Use it as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; what is in it stays."""
        close_behind(self._file.close, error, f"closing '{self.path}'")


def named_sources(found: Iterable[Sequence[str]], expected: Iterable[str]) -> list[str]:
    """Name each hit as the questions name its source, each name once, in order.

    Args:
        found: For each hit the names that it goes by, the best first: document id, path, file name, node id.
        expected: Names in the questions; one fits a hit that goes by it, or whose path ends with it.

    Example:
        >>> named_sources([["/docs/a.md", "a.md"], ["/docs/b.md"], ["/docs/a.md"]], ["docs/a.md"])
        ['docs/a.md', '/docs/b.md']
    """
    wanted = list(expected)
    return list(dict.fromkeys(_name(names, wanted) for names in found))


def missing_sources(
    questions: Iterable[JudgedQuestion], outcomes: Iterable[Outcome], documents: Iterable[str]
) -> list[str]:
    """Sources that no document has as its name, sorted: a question that names only these measures 0.

    Args:
        questions: What was asked.
        outcomes: What came of it; a source that some search found is there, whatever its document's id.
        documents: Ids of the documents.

    Example:
        >>> missing_sources([JudgedQuestion("?", {"a.md": 1.0, "b.md": 1.0})], [], ["/docs/a.md"])
        ['b.md']
    """
    found = {name for one in outcomes for name in one.ranking}
    ids = list(documents)
    wanted = {name for one in questions for name in one.relevant} - found
    return sorted(name for name in wanted if not _goes_by(ids, name))


def _name(names: Sequence[str], wanted: Sequence[str]) -> str:
    return next((expected for expected in wanted if _goes_by(names, expected)), names[0])


def _goes_by(names: Sequence[str], expected: str) -> bool:
    return any(name == expected or name.endswith(f"/{expected}") for name in names)
