"""Ask LlamaIndex's evaluators, which are asynchronous, from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import cache

from llama_index.core.llms.llm import LLM

__all__ = ["judged"]


def judged(
    judge: LLM, question: str, answer: str, passages: Sequence[str]
) -> tuple[float | None, float | None]:
    """Faithfulness of an answer to its passages, and its relevancy to the question; 1 for yes, 0 for no."""
    return asyncio.run_coroutine_threadsafe(_asked(judge, question, answer, passages), _loop()).result()


async def _asked(
    judge: LLM, question: str, answer: str, passages: Sequence[str]
) -> tuple[float | None, float | None]:
    from llama_index.core.evaluation import FaithfulnessEvaluator, RelevancyEvaluator

    faithful = await FaithfulnessEvaluator(llm=judge).aevaluate(
        query=question, response=answer, contexts=passages
    )
    relevant = await RelevancyEvaluator(llm=judge).aevaluate(
        query=question, response=answer, contexts=passages
    )
    return faithful.score, relevant.score


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all: a client keeps connections, which belong to the loop in which they were opened."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="judging").start()
    return loop
