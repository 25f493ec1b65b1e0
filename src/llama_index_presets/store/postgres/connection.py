"""Postgres connections: a pool, transactions, and one layer of retries."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

import psycopg2
from psycopg2 import errors as pg
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from llama_index_presets.concurrency.forks import in_forked_child
from llama_index_presets.errors import SettingsError, StoreError, StoreUnavailableError, StoreWriteError
from llama_index_presets.text.utf8 import check_name

__all__ = ["Done", "Transactions", "make_engine", "parse_url", "quoted"]

Result = TypeVar("Result")

_LOST = (psycopg2.OperationalError, psycopg2.InterfaceError)
_COLLIDED = (pg.SerializationFailure, pg.DeadlockDetected)
_FINAL = (pg.QueryCanceled, pg.InsufficientPrivilege, pg.DiskFull, pg.OutOfMemory)

_PATIENCE: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Without these a server that has vanished without a word is waited for: two minutes for a connection, 15 minutes for
an answer. Seconds, but the last in milliseconds."""


def quoted(name: str) -> str:
    """Quote an identifier.

    Raises:
        SettingsError: It is empty, longer than the 63 bytes that Postgres keeps, or has a control character or ``%``.

    Example:
        >>> quoted('a "b" c') == '"a ' + '""b""' + ' c"'
        True
    """
    check_name("The name for Postgres", name)
    if len(name.encode()) > 63 or "%" in name:
        raise SettingsError(f"'{name}' is no name for Postgres: give 1 to 63 bytes without NUL or '%'.")
    return '"' + name.replace('"', '""') + '"'


def parse_url(url: str | URL) -> URL:
    """Read a ``postgresql://`` URL, with or without a driver.

    Raises:
        SettingsError: It is no Postgres URL; the message does not show it, as it may hold a password.
    """
    try:
        parsed = make_url(url)
    except Exception:
        raise SettingsError(
            "The connection URL cannot be read. Give postgresql://user:password@host/db."
        ) from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(
            f"'{parsed.drivername}://' is not Postgres. Give postgresql://user:password@host/db."
        )
    return parsed.set(drivername="postgresql+psycopg2")


def make_engine(url: URL, *, pool_size: int, statement_timeout_s: float, options: dict[str, Any]) -> Engine:
    """Make a pool of connections.

    Args:
        url: From `parse_url`.
        pool_size: Connections kept; as many more may be opened under load.
        statement_timeout_s: After which Postgres stops a statement; 0 never.
        options: Further arguments of SQLAlchemy's ``create_engine``; they win.
    """
    timeout = f"-c statement_timeout={int(statement_timeout_s * 1000)}"
    defaults: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": pool_size,
        "pool_pre_ping": True,
        "connect_args": {
            **{name: value for name, value in _PATIENCE.items() if name not in url.query},
            "options": timeout,
            "application_name": "llama-index-presets",
        },
    }
    return create_engine(url, **{**defaults, **options})


class Transactions:
    """Transaction runner: retries where the connection was lost or a transaction conflicted.

    All work given to it must be safe to repeat: whether a commit arrived cannot be known when the connection
    breaks in the middle of it. An embedded server of this process that has died is started again. One elsewhere is
    waited for, for `retry_s` once; until it answers, every call after that tries once.

    Args:
        engine: Where the connections come from.
        retry_s: For how long, in seconds, lost connections are tried again.
        revive: Starts the server behind a socket again where it is one of this process, and gives whether it is.
    """

    def __init__(
        self, engine: Engine, retry_s: float, *, revive: Callable[[str], bool] = lambda socket_folder: False
    ) -> None:
        self.engine = engine
        self._revive = revive
        self._retry_s = retry_s
        self._down = False
        _live.add(self)

    def run(self, work: Callable[[Any], Result]) -> Result:
        """Call `work` with a cursor and commit.

        Raises:
            StoreError: The server cannot be reached, or refuses; nothing of the transaction was kept.
        """
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            stop=self._is_hopeless,
            wait=wait_exponential_jitter(initial=0.1, max=2.0),
            before_sleep=self._start_again,
            reraise=True,
        )
        try:
            result: Result = retrying(self._once, work)
        except (psycopg2.Error, DBAPIError) as error:
            tried_s, self._down = 0.0 if self._down else self._retry_s, _is_lost(error)
            raise _store_error(error, self.engine.url, tried_s) from error
        self._down = False
        return result

    def ping(self) -> None:
        """Ask the server for an answer, without the patience of `run`; an embedded one that has died is started.

        Raises:
            StoreError: It cannot be reached.
        """

        def ask(cursor: Any) -> None:
            cursor.execute("SELECT 1")

        try:
            try:
                self._once(ask)
            except (psycopg2.Error, DBAPIError) as error:
                if not _is_lost(error) or not self._revived(error):
                    raise
                self._once(ask)
        except (psycopg2.Error, DBAPIError) as error:
            raise _store_error(error, self.engine.url, 0) from error
        self._down = False

    def _is_hopeless(self, state: RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        # a conflict is the answer of a server that is there
        away = self._down and error is not None and _is_lost(error)
        return away or (state.seconds_since_start or 0) >= self._retry_s

    def _start_again(self, state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if error is not None and _is_lost(error):
            self._revived(error)

    def _revived(self, error: BaseException) -> bool:
        """Whether the server is an embedded one of this process, and answers now.

        Raises:
            StoreError: It is one, and cannot be started.
        """
        host = str(self.engine.url.query.get("host", ""))
        try:
            return host.startswith("/") and self._revive(host)
        except StoreError as told:
            raise told from error

    def _once(self, work: Callable[[Any], Result]) -> Result:
        connection: Any = self.engine.raw_connection()
        try:
            with connection.cursor() as cursor:
                result = work(cursor)
            connection.commit()
            return result
        except _LOST as error:
            if not isinstance(error, _FINAL):
                connection.invalidate()
            raise
        finally:
            connection.close()


_live: weakref.WeakSet[Transactions] = weakref.WeakSet()


def _open_own_connections() -> None:
    """In a fork: leave the parent's connections alone, since answers would reach the wrong process, and open others."""
    for transactions in list(_live):
        transactions.engine.dispose(close=False)


in_forked_child(_open_own_connections)


def _is_passing(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, _COLLIDED) or _is_lost(error)


def _is_lost(error: BaseException) -> bool:
    """Whether the server cannot be reached, now or any more."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, (*_FINAL, *_COLLIDED)) or "authentication failed" in str(cause):
        return False
    return isinstance(cause, _LOST)


def _store_error(error: psycopg2.Error | DBAPIError, url: URL, tried_s: float) -> StoreError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = str(cause).strip().split("\n")[0]
    if url.password:
        said = said.replace(str(url.password), "***")
    where = f"{url.host or url.query.get('host', 'localhost')}/{url.database}"
    if isinstance(cause, pg.QueryCanceled):
        return StoreError(
            f"Postgres at {where} stopped the statement: {said}. Raise statement_timeout_s or ask for less."
        )
    if isinstance(cause, pg.DiskFull):
        return StoreWriteError(
            f"The disk of Postgres at {where} is full: {said}. Nothing of this call was written, and what was there "
            "before can still be read. Make room there and try again."
        )
    if _is_passing(error):
        tried = f"tried for {tried_s:g} s" if tried_s else "tried once"
        return StoreUnavailableError(
            f"Postgres at {where} cannot be reached, {tried}: {said}. Nothing of this call was half-written. Start "
            "the server: the next call connects again."
        )
    return StoreError(f"Postgres at {where} refused: {said}. Nothing of this call was written.")


class Done(Coroutine[Any, Any, None]):
    """Finished coroutine: it may be awaited, run, made a task, gathered, or dropped without a warning.

    For a sync method in place of an official ``async`` one.

    Example:
        >>> import asyncio
        >>> asyncio.run(Done())
    """

    def __await__(self) -> Iterator[Any]:  # type: ignore[override]  # typeshed wants a generator
        return iter(())

    def send(self, value: Any) -> Any:
        """End, with None."""
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        """Raise the exception: there is no frame left to catch it."""
        return super().throw(*error)

    def close(self) -> None:
        """Do nothing: it has ended."""
