"""One core, two drivers: what a core decides is the same synchronously and asynchronously."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from llama_index_presets.concurrency.sync_async import Core, Step, StreamCore, aiterate, arun, iterate, run


def step(call: Callable[[], Any]) -> Step:
    """A step whose async twin does the same."""

    async def acall() -> Any:
        await asyncio.sleep(0)
        return call()

    return Step(call, acall)


def fails() -> None:
    raise ConnectionError("down")


def both(core: Callable[[], Core[Any]]) -> list[Any]:
    return [run(core()), asyncio.run(arun(core()))]


def streamed(core: Callable[[], StreamCore[Any]]) -> list[list[Any]]:
    async def collect() -> list[Any]:
        return [item async for item in aiterate(core())]

    return [list(iterate(core())), asyncio.run(collect())]


def test_results_of_calls_come_back_to_the_core() -> None:
    """Each step is made in the driver's way, and its result is the value of the yield."""

    def core() -> Core[int]:
        first: int = yield step(lambda: 20)
        second: int = yield step(lambda: 22)
        return first + second

    assert both(core) == [20 + 22] * 2


def test_an_error_of_a_call_is_raised_at_its_yield() -> None:
    """The core may catch it and go on with further calls."""

    def core() -> Core[str]:
        try:
            yield step(fails)
        except ConnectionError as error:
            rest: str = yield step(lambda: "caught")
            return f"{rest}: {error}"
        return "not raised"

    assert both(core) == ["caught: down"] * 2


def test_an_error_that_the_core_does_not_catch_ends_the_run() -> None:
    """It is the very error of the call."""

    def core() -> Core[None]:
        yield step(fails)

    with pytest.raises(ConnectionError, match="down"):
        run(core())
    with pytest.raises(ConnectionError, match="down"):
        asyncio.run(arun(core()))


def test_a_stream_gives_items_and_makes_calls_between_them() -> None:
    """Steps are not given out."""

    def core() -> StreamCore[str]:
        for _ in range(2):
            item: str = yield step(lambda: "x")
            yield item
        try:
            yield step(fails)
        except ConnectionError:
            yield "end"

    assert streamed(core) == [["x", "x", "end"]] * 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_closed_early_still_cleans_up_with_calls(asynchronous: bool) -> None:
    """`finally` may hold steps; nothing else is given out."""
    closed: list[str] = []

    def core() -> StreamCore[str]:
        try:
            yield "first"
            yield "never read"
        finally:
            yield step(lambda: closed.append("closed"))

    async def read_one() -> str:
        stream = aiterate(core())
        first = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return first

    if asynchronous:
        assert asyncio.run(read_one()) == "first"
    else:
        stream = iterate(core())
        assert next(stream) == "first"
        stream.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]


def test_a_dropped_stream_lets_go_of_what_it_read_at_once() -> None:
    """No cycle keeps the answer of a model open until the garbage collector comes by."""

    class Chunks:
        """What a model streams."""

    def core(chunks: Chunks) -> StreamCore[Chunks]:
        yield step(lambda: None)
        yield chunks

    gc.disable()
    try:
        chunks = Chunks()
        alive = weakref.ref(chunks)
        stream = iterate(core(chunks))
        next(stream)
        del chunks, stream
        assert alive() is None
    finally:
        gc.enable()


class Cycle:
    """Something that refers to itself, and to a stream."""

    def __init__(self, stream: object) -> None:
        self.stream, self.myself = stream, self


def cleaning(done: list[str]) -> StreamCore[int]:
    try:
        yield 1
        yield 2
    finally:
        done.append((yield Step(lambda: "cleaned", lambda: asyncio.sleep(0, "cleaned"))))


def test_a_stream_dropped_in_a_reference_cycle_takes_its_last_steps() -> None:
    """The garbage collector would close the core before its driver, and the steps of `finally` were lost."""
    done: list[str] = []
    cycle = Cycle(stream := iterate(cleaning(done)))
    assert next(stream) == 1
    del stream, cycle
    gc.collect()
    assert done == ["cleaned"]


async def test_an_async_stream_dropped_in_a_reference_cycle_takes_its_last_steps() -> None:
    """The event loop closes it at its next turn."""
    done: list[str] = []
    cycle = Cycle(stream := aiterate(cleaning(done)))
    assert await anext(stream) == 1
    del stream, cycle
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == ["cleaned"]
