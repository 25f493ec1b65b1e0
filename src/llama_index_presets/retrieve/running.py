"""Run the legs of a search at once, and keep what each said or how it failed."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from llama_index.core.schema import QueryBundle

from llama_index_presets.errors import RetrievalError
from llama_index_presets.retrieve.legs import Candidates, Leg

__all__ = ["LegPool", "Outcome", "run_legs_async"]

_THREADS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a leg.

    Attributes:
        leg: The leg.
        found: Its candidates; None when it failed.
        error: How it failed, or None.
        latency_ms: From the start of the search until the leg was over, in milliseconds.
    """

    leg: Leg
    found: Candidates | None
    error: Exception | None
    latency_ms: float


class LegPool:
    """Threads for the legs of one retriever; started when first needed, thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def run(self, legs: Sequence[Leg], query: QueryBundle, timeout_s: float | None) -> list[Outcome]:
        """Run all legs at once, quick ones and one more in the calling thread.

        Quick legs go first: two threads that both compute in Python would wait for each other's turns, of 5
        ms each, and take far longer than one after the other.

        Args:
            legs: At least one.
            query: Each leg gets a copy.
            timeout_s: Seconds that each leg has, None for no limit. A leg that is late goes on in its thread,
                and its answer is thrown away.

        Returns:
            One outcome for each leg, in their order.
        """
        started = time.perf_counter()
        done = {leg.name: _outcome(leg, query, started) for leg in legs if leg.quick}
        slow = [leg for leg in legs if not leg.quick]
        here = slow[-1:] if timeout_s is None else []
        away = [(leg, self._submit(leg, query, started)) for leg in slow[: len(slow) - len(here)]]
        done |= {leg.name: _outcome(leg, query, started) for leg in here}
        done |= {leg.name: _awaited(leg, future, started, timeout_s) for leg, future in away}
        return [done[leg.name] for leg in legs]

    def _submit(self, leg: Leg, query: QueryBundle, started: float) -> Future[Outcome]:
        if self._process != os.getpid():  # the threads stayed with the parent, and maybe one held the lock
            self.__init__()  # type: ignore[misc]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hybrid-leg")
        # Spans and tags of the caller live in the context.
        return self._pool.submit(contextvars.copy_context().run, _outcome, leg, query, started)


async def run_legs_async(legs: Sequence[Leg], query: QueryBundle, timeout_s: float | None) -> list[Outcome]:
    """Run all legs at once on the event loop, quick ones first (see `LegPool.run`); a late one is cancelled."""
    started = time.perf_counter()
    done: dict[str, Outcome] = {}
    for group in ([leg for leg in legs if leg.quick], [leg for leg in legs if not leg.quick]):
        outcomes = await asyncio.gather(*(_outcome_async(leg, query, started, timeout_s) for leg in group))
        done |= {outcome.leg.name: outcome for outcome in outcomes}
    return [done[leg.name] for leg in legs]


def _outcome(leg: Leg, query: QueryBundle, started: float) -> Outcome:
    try:
        found = leg.run(query)
    except Exception as error:
        return Outcome(leg, None, error, _since(started))
    return Outcome(leg, found, None, _since(started))


def _awaited(leg: Leg, future: Future[Outcome], started: float, timeout_s: float | None) -> Outcome:
    left = None if timeout_s is None else max(0.0, timeout_s - (time.perf_counter() - started))
    try:
        return future.result(left)
    except TimeoutError:
        future.cancel()
        return Outcome(leg, None, _late(leg, timeout_s), _since(started))


async def _outcome_async(leg: Leg, query: QueryBundle, started: float, timeout_s: float | None) -> Outcome:
    try:
        found = await asyncio.wait_for(leg.arun(query), timeout_s)
    except Exception as error:
        late = isinstance(error, TimeoutError) and timeout_s is not None
        return Outcome(leg, None, _late(leg, timeout_s) if late else error, _since(started))
    return Outcome(leg, found, None, _since(started))


def _late(leg: Leg, timeout_s: float | None) -> RetrievalError:
    return RetrievalError(
        f"Leg '{leg.name}' did not answer within {timeout_s} s. Raise timeout, or pass on_leg_error='degrade'."
    )


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
