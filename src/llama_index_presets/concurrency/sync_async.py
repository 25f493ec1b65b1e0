"""Sync and async drivers of one generator, so that no rule is written twice (the sans-IO pattern).

A core is a generator. Where it would block or await, it yields a `Step`, which holds both ways to make that call;
a driver makes the call in its own way and sends the result back. An error of the call is raised at the `yield`, so
`try`, `with` and `finally` work in a core as they do in plain code. Standard library alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

__all__ = ["Core", "Step", "StreamCore", "aiterate", "arun", "iterate", "run"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a core, in both ways.

    Attributes:
        call: Makes it, and returns its result.
        acall: Begins it, and returns what is awaited for the same result.
    """

    call: Callable[[], Any]
    acall: Callable[[], Awaitable[Any]]


Core: TypeAlias = Generator[Step, Any, T]
"""Yields steps, returns a result."""

StreamCore: TypeAlias = Generator[Step | T, Any, None]
"""Yields steps, and between them the items of a stream."""

_OPEN_CORES: Final[set[Generator[Any, Any, Any]]] = set()
"""Stream cores that a driver has begun and not ended. Where a dropped stream is part of a reference cycle, the garbage
collector would close core and driver in any order, and a core that is closed first cannot take its last steps. A
core must not refer to its own stream: neither would be collected."""


def run(core: Core[T]) -> T:
    """Run a core here and now.

    Example:
        >>> def doubled():
        ...     number = yield Step(lambda: 21, lambda: asyncio.sleep(0, 21))
        ...     return 2 * number
        >>> import asyncio
        >>> run(doubled()), asyncio.run(arun(doubled()))
        (42, 42)
    """
    try:
        step = next(core)
        while True:
            try:
                result = step.call()
            except BaseException as error:
                step = core.throw(error)
            else:
                step = core.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def arun(core: Core[T]) -> T:
    """`run`, without blocking the event loop."""
    try:
        step = next(core)
        while True:
            try:
                result = await step.acall()
            except BaseException as error:
                step = core.throw(error)
            else:
                step = core.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def iterate(core: StreamCore[T]) -> Iterator[T]:
    """Give out the items of a stream core; closed early, the core is told by `GeneratorExit` and may still clean up.

    Example:
        >>> def letters():
        ...     word = yield Step(lambda: "ab", lambda: asyncio.sleep(0, "ab"))
        ...     yield from word
        >>> import asyncio
        >>> list(iterate(letters()))
        ['a', 'b']
    """
    resume: Callable[[Any], Step | T] = core.send
    value: Any = None
    _OPEN_CORES.add(core)
    try:
        while True:
            item = resume(value)
            resume, value = core.send, None
            try:
                if isinstance(item, Step):
                    value = item.call()
                else:
                    yield item
            except BaseException as error:
                resume, value = core.throw, error
    except StopIteration:
        return
    finally:
        _OPEN_CORES.discard(core)
        # An error refers to this frame by its traceback: a cycle would keep a dropped stream open.
        value = None


async def aiterate(core: StreamCore[T]) -> AsyncIterator[T]:
    """`iterate`, without blocking the event loop."""
    resume: Callable[[Any], Step | T] = core.send
    value: Any = None
    _OPEN_CORES.add(core)
    try:
        while True:
            item = resume(value)
            resume, value = core.send, None
            try:
                if isinstance(item, Step):
                    value = await item.acall()
                else:
                    yield item
            except BaseException as error:
                resume, value = core.throw, error
    except StopIteration:
        return
    finally:
        _OPEN_CORES.discard(core)
        # An error refers to this frame by its traceback: a cycle would keep a dropped stream open.
        value = None
