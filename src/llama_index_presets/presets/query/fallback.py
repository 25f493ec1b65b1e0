"""Fallback answers while a service is down: the hits with a polite text instead of an error, where settings say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llama_index.core.schema import NodeWithScore

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.cited_answer import CitedAnswer, link_filter, suspicious_passages
from llama_index_presets.answer.context import DONT_KNOW, render_prompt
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.retry import is_transient
from llama_index_presets.presets.engine_parts import EngineParts

__all__ = ["end_broken_answer", "fallback_answer", "falls_back", "is_outage"]

NO_SEARCH: Final = (
    "I am sorry, I cannot look this up right now: a service that I need does not respond. Please try again in a few "
    "minutes."
)
NO_ANSWER: Final = (
    "I am sorry, I cannot write a full answer right now: a service that I need does not respond. Please try again in a "
    "few minutes."
)
CUT_OFF: Final = "(I am sorry, the answer was cut off: a service that I need stopped responding.)"

# Names, so that no driver need be imported: psycopg2 and SQLAlchemy say these when the database is not there.
_DATABASE_ERRORS: Final = frozenset({"OperationalError", "InterfaceError"})


def is_outage(error: BaseException) -> bool:
    """Whether an error means that a service cannot be used: down, too slow, refusing our key, over a budget.

    A bug, a wrong setting or a question that cannot be asked is none.

    Example:
        >>> is_outage(ConnectionError()), is_outage(RuntimeError("x")), is_outage(KeyError("x"))
        (True, False, False)
    """
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(seen, "status_code", None)
        names = {kind.__name__ for kind in type(seen).__mro__}
        if isinstance(seen, BudgetExceededError) or is_transient(seen) or names & _DATABASE_ERRORS:
            return True
        if isinstance(status, int) and status in (401, 402, 403, 404, 429):
            return True
        seen = seen.__cause__
    return False


def falls_back(error: Exception, parts: EngineParts) -> bool:
    """Whether an engine of these parts goes on after an error: the error is an outage, and its settings say so."""
    return parts.settings.on_outage == "answer" and is_outage(error)


def fallback_answer(
    question: str, hits: Sequence[NodeWithScore] | None, error: Exception, parts: EngineParts
) -> CitedAnswer:
    """The apology for an outage, with what the sources say where the search still worked.

    Args:
        question: What was asked.
        hits: What the search found; None when it was the search that failed.
        error: What a part raised.
        parts: Of the engine.

    Returns:
        An answer whose ``degraded`` names the stage, ``"search"`` or ``"answer"``, and the class of the error.

    Raises:
        Exception: `error` itself, when it is no outage or the settings say ``on_outage="raise"``.
    """
    if not falls_back(error, parts):
        raise error
    stage = "search" if hits is None else "answer"
    answer = CitedAnswer(degraded={"stage": stage, "error": type(error).__name__})
    if hits is None:
        answer.text = NO_SEARCH
        return answer
    answer.blocks = parts.synthesizer.blocks(question, hits)
    answer.markers = MarkerFilter(len(answer.blocks))
    answer.links = link_filter(answer.blocks, suspicious_passages(hits))
    quote = ExtractiveLLM().answer(render_prompt(answer.blocks, question))
    help_text = f"This is what the sources say: {quote}" if quote != DONT_KNOW else _pointer(answer)
    answer.take(f"{NO_ANSWER} {help_text}".strip(), last=True)
    return answer


def _pointer(answer: CitedAnswer) -> str:
    markers = "".join(f"[{block.number}]" for block in answer.blocks)
    return f"These sources may help: {markers}" if markers else ""


def end_broken_answer(answer: CitedAnswer, apology: CitedAnswer) -> str:
    """End a stream that broke off: the last piece says so, or is the whole apology where no text came before it."""
    answer.degraded = apology.degraded
    if answer.text.strip():
        rest = f"{answer.take('', last=True).rstrip()}\n\n{CUT_OFF}"
        answer.text = f"{answer.text.rstrip()}\n\n{CUT_OFF}"
        return rest
    answer.text, answer.markers = apology.text, apology.markers
    return apology.text
