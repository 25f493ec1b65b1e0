"""Fallback answers while a service is down: the hits with a polite text instead of an error, where settings say so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.context import DONT_KNOW, render_prompt
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.synthesize import CitedAnswer
from llama_index_presets.errors import BudgetExceededError
from llama_index_presets.monitor.retry import is_transient

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "aanswer_or_fallback",
    "answer_or_fallback",
    "astream_or_fallback",
    "is_outage",
    "stream_or_fallback",
]

Stage = Literal["search", "answer"]

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


def answer_or_fallback(engine: PresetEngine, query: QueryBundle) -> CitedAnswer:
    """Search and answer; an outage is an apology, where the engine's settings want one.

    Raises:
        Exception: Whatever a part raised, when it is no outage or the settings say ``on_outage="raise"``.
    """
    try:
        hits = engine.retrieve(query)
    except Exception as error:
        return _fallback_answer(engine, query.query_str, [], error, "search")
    try:
        return engine.synthesizer.answer(query.query_str, hits)
    except Exception as error:
        return _fallback_answer(engine, query.query_str, hits, error, "answer")


async def aanswer_or_fallback(engine: PresetEngine, query: QueryBundle) -> CitedAnswer:
    """`answer_or_fallback`, without blocking the event loop."""
    try:
        hits = await engine.aretrieve(query)
    except Exception as error:
        return _fallback_answer(engine, query.query_str, [], error, "search")
    try:
        return await engine.synthesizer.aanswer(query.query_str, hits)
    except Exception as error:
        return _fallback_answer(engine, query.query_str, hits, error, "answer")


def stream_or_fallback(engine: PresetEngine, query: QueryBundle) -> tuple[CitedAnswer, Iterator[str]]:
    """`answer_or_fallback`, piece by piece; an answer that breaks off ends with a sentence that says so."""
    try:
        hits = engine.retrieve(query)
    except Exception as error:
        apology = _fallback_answer(engine, query.query_str, [], error, "search")
        return apology, iter([apology.text])
    answer, pieces = engine.synthesizer.stream(query.query_str, hits)

    def run() -> Iterator[str]:
        try:
            yield from pieces
        except Exception as error:
            yield _ending(answer, _fallback_answer(engine, query.query_str, hits, error, "answer"))

    return answer, run()


async def astream_or_fallback(
    engine: PresetEngine, query: QueryBundle
) -> tuple[CitedAnswer, AsyncIterator[str]]:
    """`stream_or_fallback`, without blocking the event loop."""
    try:
        hits = await engine.aretrieve(query)
    except Exception as error:
        apology = _fallback_answer(engine, query.query_str, [], error, "search")
        return apology, _one(apology.text)
    answer, pieces = await engine.synthesizer.astream(query.query_str, hits)

    async def run() -> AsyncIterator[str]:
        try:
            async for piece in pieces:
                yield piece
        except Exception as error:
            yield _ending(answer, _fallback_answer(engine, query.query_str, hits, error, "answer"))

    return answer, run()


def _fallback_answer(
    engine: PresetEngine, question: str, hits: Sequence[NodeWithScore], error: Exception, stage: Stage
) -> CitedAnswer:
    if engine.settings.on_outage == "raise" or not is_outage(error):
        raise error
    answer = CitedAnswer(degraded={"stage": stage, "error": type(error).__name__})
    if stage == "search":
        answer.text = NO_SEARCH
        return answer
    answer.blocks = engine.synthesizer.blocks(hits)
    answer.markers = MarkerFilter(len(answer.blocks))
    quote = ExtractiveLLM().answer(render_prompt(answer.blocks, question))
    found = f"This is what the sources say: {quote}" if quote != DONT_KNOW else _pointer(answer)
    answer.take(f"{NO_ANSWER} {found}".strip(), last=True)
    return answer


def _pointer(answer: CitedAnswer) -> str:
    markers = "".join(f"[{block.number}]" for block in answer.blocks)
    return f"These sources may help: {markers}" if markers else ""


def _ending(answer: CitedAnswer, apology: CitedAnswer) -> str:
    """Turn a broken stream's answer into the apology, or end what was said already."""
    answer.degraded = apology.degraded
    if answer.text.strip():
        answer.text += f"\n\n{CUT_OFF}"
        return f"\n\n{CUT_OFF}"
    answer.text, answer.markers = apology.text, apology.markers
    return apology.text


async def _one(text: str) -> AsyncIterator[str]:
    yield text
