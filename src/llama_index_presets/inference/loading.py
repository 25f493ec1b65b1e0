"""Model loading: once per process, and measured apart from the call that waited for it.

The first call of a local model reads its weights, which takes seconds where the call itself takes milliseconds. A
`ModelLoadEvent` says how long that was, so that a listener can show it by itself and leave it out of the latency of
the call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.events import LoadPurpose, ModelLoadEvent, ModelLoadStartEvent

__all__ = ["Load", "LoadOnce", "loading", "report_loads"]

_Model = TypeVar("_Model")
_dispatcher = get_dispatcher(__name__)


@dataclass(slots=True)
class Load:
    """Loading measured in a block of `loading`.

    Attributes:
        happened: Whether something had to be loaded or waited for.
        own: Whether this thread loaded it.
        model: Model name.
        purpose: What it is for.
    """

    happened: bool = False
    own: bool = False
    model: str = ""
    purpose: LoadPurpose = "llm"

    def begin(self) -> None:
        """This thread loads; said once in a block."""
        if not self.own and self.model:
            _dispatcher.event(ModelLoadStartEvent(model=self.model, purpose=self.purpose))
        self.own = True


_current: ContextVar[Load | None] = ContextVar("llama_index_presets_loading", default=None)


@contextlib.contextmanager
def loading(model: str, purpose: LoadPurpose) -> Iterator[Load]:
    """Report how long the block took, if something was loaded in it; a block inside another is part of that.

    Args:
        model: Model name.
        purpose: What the model is for.
    """
    if (outer := _current.get()) is not None:
        yield outer
        return
    load, began, error = Load(model=model, purpose=purpose), time.perf_counter(), None
    token = _current.set(load)
    try:
        yield load
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        _current.reset(token)
        if load.happened:
            event = ModelLoadEvent(
                model=model,
                purpose=purpose,
                latency_ms=(time.perf_counter() - began) * 1000,
                waited=not load.own,
                error=error,
            )
            _dispatcher.event(event)


@contextlib.contextmanager
def report_loads(begin: Callable[[str], None], done: Callable[[], None]) -> Iterator[None]:
    """Call a function with the name of each model that begins to be loaded in the block, and one when it is there.

    Both are called in the thread that loads.
    """

    class Loads(BaseEventHandler):
        """Listener for loads."""

        def handle(self, event: BaseEvent, **_: Any) -> None:
            if isinstance(event, ModelLoadStartEvent):
                begin(event.model)
            elif isinstance(event, ModelLoadEvent) and not event.waited:
                done()

    root, listener = get_dispatcher("root"), Loads()
    root.add_event_handler(listener)
    try:
        yield
    finally:
        root.event_handlers = [handler for handler in root.event_handlers if handler is not listener]


class LoadOnce(Generic[_Model]):
    """A function that loads a model, called once for the same arguments; call it inside a `loading` block.

    Args:
        load: Makes a model; its arguments can be hashed.

    Example:
        >>> load = LoadOnce(lambda name: [name])
        >>> load("a") is load("a"), load("a") is load("b")
        (True, False)
    """

    def __init__(self, load: Callable[..., _Model]) -> None:
        self._load = load
        self._loaded: dict[tuple[object, ...], _Model] = {}
        self._lock = threading.Lock()
        in_forked_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it during the fork

    def __call__(self, *key: object) -> _Model:
        """Return the model; the first caller loads it, others wait."""
        with contextlib.suppress(KeyError):
            return self._loaded[key]
        load = _current.get() or Load()
        load.happened = True
        with self._lock:  # two threads must not load the same weights at once
            if key not in self._loaded:
                load.begin()
                self._loaded[key] = self._load(*key)
            return self._loaded[key]
