"""Attribution of model calls: preset, query, session, tenant, tags and the ledger they are recorded in.

Kept in a `contextvars` variable, so it follows `await`, `asyncio.create_task`, `asyncio.to_thread` and
LlamaIndex's own worker threads. A plain `threading.Thread` or `ThreadPoolExecutor` starts with an empty
context: pass it on with ``contextvars.copy_context().run``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_index_presets.monitor.ledger.ledger import Ledger

__all__ = ["Attribution", "attempt_number", "attributed", "attribution"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Attribution of a call; the empty text means unknown.

    Attributes:
        preset: Name of the preset.
        query_id: Id of the query.
        session: Conversation or user session.
        tenant: Who pays.
        tags: Free labels.
        ledger: The one ledger that records the calls; None lets every listening handler record them.
    """

    preset: str = ""
    query_id: str = ""
    session: str = ""
    tenant: str = ""
    tags: tuple[str, ...] = ()
    ledger: Ledger | None = None


_NOBODY = Attribution()
_current: ContextVar[Attribution] = ContextVar("llama_index_presets_attribution", default=_NOBODY)
attempt_number: ContextVar[int] = ContextVar("llama_index_presets_attempt", default=1)
"""1-based number of the attempt that is running; set by the retry layer."""


def attribution() -> Attribution:
    """Current attribution."""
    return _current.get()


@contextlib.contextmanager
def attributed(
    *,
    preset: str | None = None,
    query_id: str | None = None,
    session: str | None = None,
    tenant: str | None = None,
    tags: Iterable[str] = (),
    ledger: Ledger | None = None,
) -> Iterator[Attribution]:
    """Attribute the calls made inside; omitted fields are inherited from outside.

    Args:
        preset: Name of the preset.
        query_id: Id of the query.
        session: Conversation or user session.
        tenant: Who pays.
        tags: Labels, added to those of the outer block.
        ledger: The one ledger that records the calls made inside, so that two engines in one process never
            record each other's.

    Example:
        >>> with attributed(tenant="acme"), attributed(query_id="q1", tags=["beta"]) as who:
        ...     (who.tenant, who.query_id, who.tags)
        ('acme', 'q1', ('beta',))
    """
    outer = _current.get()
    inner = Attribution(
        preset=outer.preset if preset is None else preset,
        query_id=outer.query_id if query_id is None else query_id,
        session=outer.session if session is None else session,
        tenant=outer.tenant if tenant is None else tenant,
        tags=tuple(dict.fromkeys((*outer.tags, *tags))),
        ledger=outer.ledger if ledger is None else ledger,
    )
    token = _current.set(inner)
    try:
        yield inner
    finally:
        # A generator may be closed from another context than the one it began in.
        with contextlib.suppress(ValueError):
            _current.reset(token)
