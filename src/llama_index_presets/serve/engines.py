"""Engines of a server: opened and warmed once, leased to requests, replaced without dropping one."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.errors import PresetsError, StoreUnavailableError
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.serve.callers.key_file import Caller, engine_of, parse_budget
from llama_index_presets.serve.config import EngineConfig
from llama_index_presets.serve.protocols.problems import Problem, log_fault

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["Engines", "Served", "engine_tag", "warm"]

_log = logging.getLogger("llama_index_presets.serve")
_VIEWS = 256  # callers whose view of an engine is kept
_FRESH_S: Final = 5.0  # how long a look at the engines counts, as anybody may ask for one
_AGAIN_S: Final = 5.0  # between two tries to open engines whose database was away at the start


def _build_engine(config: EngineConfig) -> PresetEngine:
    """Open an engine."""
    from llama_index_presets.presets.build import build

    return build(
        config.preset,
        storage=config.storage,
        llm=config.llm,
        offline=config.offline,
        settings=config.settings,
    )


def warm(engine: PresetEngine) -> None:
    """Load what the first question would wait for: local models, the index. Nothing is asked of a paid service.

    The calls are in the ledger with the tag ``warm-up``.
    """
    from llama_index.core.schema import QueryBundle

    from llama_index_presets.embed.catalogue import embedding_model

    cell = engine.explain()["cells"]["embedding"]
    try:
        local = embedding_model(cell).provider == "local"
    except (PresetsError, KeyError, AttributeError):
        local = True  # given by hand
    if local:
        view = engine.as_user(user="warm-up") if engine.has_permissions else engine
        with engine.billed("warm-up"), attributed(tags=["warm-up"]):
            view.retrieve(QueryBundle("warm-up"))


@dataclass(slots=True, eq=False)
class Served:
    """One open engine and its leases; closed when it has been replaced and the last lease has ended.

    Attributes:
        name: Name in requests.
        engine: The engine.
        config: What it was opened from; None for one given ready made.
        state: Folder for files of the server, such as jobs and uploads.
    """

    name: str
    engine: PresetEngine
    config: EngineConfig | None
    state: Path
    _leases: int = 0
    _retired: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _views: dict[Caller, PresetEngine] = field(default_factory=dict)
    _held: bool = False  # whether the storage had permissions when views were made

    def view(self, caller: Caller) -> PresetEngine:
        """The engine as a caller sees it; made once a caller.

        Raises:
            Problem: 403, see `engine_of`.
        """
        held = self.engine.has_permissions
        if held != self._held:
            self._views.clear()  # of all: the others were made without permissions, too
            self._held = held
        view = self._views.get(caller)
        if view is None:
            view = engine_of(self.engine, caller)
            if len(self._views) >= _VIEWS:
                self._views.clear()
            self._views[caller] = view
        return view

    def lease(self) -> bool:
        """Keep the engine open for one request; False where it is closed already."""
        with self._lock:
            if self._retired and self._leases == 0:
                return False
            self._leases += 1
            return True

    def give_back(self) -> None:
        """End a lease; the last one closes a replaced engine."""
        with self._lock:
            self._leases -= 1
            last = self._retired and self._leases == 0
        if last:
            self._close()

    def retire(self) -> None:
        """Close as soon as it is not in use."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            last = self._leases == 0
        if last:
            self._close()

    def is_ready(self) -> bool:
        """Whether the engine can find anything now; logged where it cannot."""
        if not self.lease():
            return False
        try:
            self.engine.check_ready()
        except PresetsError as error:  # names the storage, and no question
            _log.error("The engine '%s' can find nothing: %s", self.name, error)
            return False
        except Exception as error:
            log_fault(f"a look at the engine '{self.name}'", error)
            return False
        finally:
            self.give_back()
        return True

    def _close(self) -> None:
        try:
            self.engine.close()
        except Exception as error:
            log_fault(f"closing the engine '{self.name}'", error)


class Engines:
    """Open engines by name. Thread safe.

    Args:
        opener: Opens an engine from its configuration.
        sums: Folder with the sums of budgets, which all engines share; None keeps them with each engine.

    Example:
        >>> Engines().names
        []
    """

    def __init__(
        self, opener: Callable[[EngineConfig], PresetEngine] = _build_engine, *, sums: Path | None = None
    ) -> None:
        self._opener = opener
        self._sums = sums
        self._served: dict[str, Served] = {}
        self._absent: dict[str, EngineConfig] = {}
        self._trying = False  # whether a thread tries those that are absent
        self._default: str | None = None
        self._closed = threading.Event()
        self._limits: tuple[Budget, ...] = ()
        self._changing = threading.Lock()  # held while engines are opened, which takes long
        self._limiting = threading.Lock()
        self._looking = threading.Lock()
        self._looked: tuple[float, dict[str, Served], int] | None = None
        self._on_open: list[Callable[[Served], None]] = []
        self._on_close: list[Callable[[Served], None]] = []

    @property
    def names(self) -> list[str]:
        """Names of those that are open, the default first."""
        return list(self._served)

    @property
    def absent(self) -> list[str]:
        """Names of those whose database was away when they were to be opened; they are tried again."""
        return list(self._absent)

    def all(self) -> list[Served]:
        """Engines that are open."""
        return list(self._served.values())

    def count_unready(self) -> int:
        """Number of open engines that can find nothing now: their storage is gone, or its database away.

        An embedded Postgres server that has died is started again. A look counts for 5 s.
        """
        with self._looking:
            served = self._served
            if self._looked is None or self._looked[1] is not served or time.monotonic() > self._looked[0]:
                unready = sum(not one.is_ready() for one in served.values())
                self._looked = (time.monotonic() + _FRESH_S, served, unready)
            return self._looked[2]

    def on_change(self, opened: Callable[[Served], None], closed: Callable[[Served], None]) -> None:
        """Call functions with each engine that is opened, or replaced, from now on."""
        self._on_open.append(opened)
        self._on_close.append(closed)

    def open(self, configs: Mapping[str, EngineConfig]) -> None:
        """Open, warm and swap in engines; blocks for as long as that takes.

        Those whose configuration is the same stay. If one of these can find nothing now, it is opened again, or stays
        as it is where that fails, too, which is logged. Requests under way end with the engine that they began with.
        When one that is new or has changed cannot be opened, all stay as they were. At the start, one whose database is
        away is left out while others are opened, and tried again until it can be opened; a request for it gets 503.

        Raises:
            PresetsError: An engine cannot be opened; StoreUnavailableError: that of the database of the only one.
        """
        with self._changing:
            same = {name: one for name, one in self._served.items() if configs.get(name) == one.config}
            kept = {name: one for name, one in same.items() if one.is_ready()}
            fresh: dict[str, Served] = {}
            away: dict[str, StoreUnavailableError] = {}
            try:
                for name, config in configs.items():
                    if name in same and name not in kept:
                        again = self._opened_again(same[name], config)
                        (kept if again is same[name] else fresh)[name] = again
                    elif name not in kept:
                        with self._noted_as_away(name, config, away):
                            fresh[name] = self._opened(name, config)
                if away and not kept and not fresh:
                    raise next(iter(away.values()))
            except BaseException as error:
                for one in fresh.values():
                    close_behind(one.engine.close, error, f"closing the engine '{one.name}'")
                raise
            self._default = next(iter(configs), None)
            self._leave_out({name: configs[name] for name in away}, away)
            self._swap({name: kept.get(name) or fresh[name] for name in configs if name not in away})

    @contextlib.contextmanager
    def _noted_as_away(
        self, name: str, config: EngineConfig, away: dict[str, StoreUnavailableError]
    ) -> Iterator[None]:
        """Take the error of a database that is away, at the start or since then."""
        try:
            yield
        except StoreUnavailableError as error:
            if self._served and self._absent.get(name) != config:
                raise
            away[name] = error

    def _leave_out(
        self, configs: dict[str, EngineConfig], errors: Mapping[str, StoreUnavailableError]
    ) -> None:
        """Remember engines whose database is away, and try them again from a thread."""
        for name, error in errors.items():
            _log.error("The engine '%s' is not served until its database answers: %s", name, error)
        self._absent = configs
        if configs and not self._trying:
            self._trying = True
            threading.Thread(target=self._open_absent, name="absent-engines", daemon=True).start()

    def _open_absent(self) -> None:
        """Try absent engines until each is open; a try may take half a minute, and nothing waits for it."""
        faults: dict[str, str] = {}
        while not self._closed.wait(_AGAIN_S):
            for name, config in list(self._absent.items()):
                if not self._closed.is_set():
                    self._open_if_back(name, config, faults)
            with self._changing:
                if not self._absent:
                    self._trying = False
                    return

    def _open_if_back(self, name: str, config: EngineConfig, faults: dict[str, str]) -> None:
        """Try once; a fault of another kind may pass, too, and is logged when it is not that of the try before."""
        try:
            served = self._opened(name, config)
        except StoreUnavailableError:
            return
        except Exception as error:
            if faults.get(name) != repr(error):
                log_fault(f"opening the engine '{name}'", error)
            faults[name] = repr(error)
            return
        with self._changing:
            if self._closed.is_set() or self._absent.get(name) != config:  # meanwhile closed, or reloaded
                served.retire()
                return
            self._absent = {other: one for other, one in self._absent.items() if other != name}
            first = {name: served} if name == self._default else {}
            self._swap({**first, **self._served, name: served})
        _log.warning("The engine '%s' is served: its database answers.", name)

    def put(self, engines: Mapping[str, PresetEngine]) -> None:
        """Serve engines that are open already, in place of those before."""
        with self._changing:
            self._default, self._absent = next(iter(engines), None), {}
            self._swap({name: Served(name, engine, None, _state(engine)) for name, engine in engines.items()})

    def _opened_again(self, before: Served, config: EngineConfig) -> Served:
        """Open an engine that can find nothing a second time; give it as it was where that fails, too."""
        try:
            return self._opened(before.name, config)
        except PresetsError as error:
            _log.error("The engine '%s' cannot be opened again and stays as it is: %s", before.name, error)
        except Exception as error:
            log_fault(f"opening the engine '{before.name}' again", error)
        return before

    def _opened(self, name: str, config: EngineConfig) -> Served:
        engine = self._opener(config)
        try:
            warm(engine)
            return Served(name, engine, config, _state(engine))
        except BaseException as error:
            close_behind(engine.close, error, f"closing the engine '{name}'")
            raise

    def _swap(self, served: dict[str, Served]) -> None:
        gone = [one for one in self._served.values() if one not in served.values()]
        fresh = [one for one in served.values() if one not in self._served.values()]
        self._served = served
        with self._limiting:
            self._hold_to_limits()  # before a job of an earlier process goes on in one of them
        for one in fresh:
            for notify in self._on_open:
                notify(one)
        for one in gone:
            for notify in self._on_close:
                notify(one)
            one.retire()

    def hold_to(self, budgets: Sequence[Budget], *, sums: Path | None = None) -> None:
        """Hold the calls of all engines, those opened later included, to budgets that they share.

        Returns at once, also while engines are being opened.

        Args:
            budgets: In place of those before.
            sums: Folder with their sums, where none was given before.
        """
        with self._limiting:
            self._sums = self._sums or sums
            self._limits = tuple(budgets)
            self._hold_to_limits()

    def _hold_to_limits(self) -> None:
        engines = [one.engine for one in self._served.values()]
        for one in self._served.values():
            own = one.config.budget if one.config else ""
            limits = [*self._limits, *([_engine_budget(one.name, own)] if own else ())]
            if limits or one.engine.held_to_budgets:
                one.engine.hold_to_budgets(limits, sums=self._sums, also=engines)

    @contextlib.contextmanager
    def leased(self, name: str | None) -> Iterator[Served]:
        """Engine of a name, None for the default, open until the block ends.

        Raises:
            Problem: 404, there is none of this name; 503, none is open yet, or its database is away.
        """
        served = self.take(name)
        try:
            yield served
        finally:
            served.give_back()

    def take(self, name: str | None) -> Served:
        """Lease an engine; the caller returns it. See `leased`."""
        while True:
            wanted = self._default if name is None else name
            if wanted in self._absent:
                raise Problem(
                    503,
                    f"The database of the engine '{wanted}' cannot be reached; the server's log says why. It is tried "
                    "again every few seconds.",
                    code="engine_unavailable",
                    headers={"Retry-After": str(math.ceil(_AGAIN_S))},
                )
            if not self._served:
                raise Problem(
                    503,
                    "The server is starting. Try again in a moment.",
                    code="not_ready",
                    headers={"Retry-After": "2"},
                )
            served = next(iter(self._served.values())) if name is None else self._served.get(name)
            if served is None:
                raise Problem(
                    404,
                    f"There is no engine '{str(name)[:80]}'. GET /v1/models lists them.",
                    code="model_not_found",
                )
            if served.lease():
                return served

    def close(self) -> None:
        """Close all engines, each when its last request has ended."""
        self._closed.set()
        with self._changing:
            self._absent = {}
            self._swap({})


def _state(engine: PresetEngine) -> Path:
    return Path(engine.explain()["state"]) / "serve"


def _engine_budget(name: str, text: str) -> Budget:
    amount, period = parse_budget(text)
    return Budget(limit_usd=amount, per=period, by="tag", only=engine_tag(name))


@functools.cache
def engine_tag(name: str) -> str:
    """Tag of the calls of an engine in the ledger."""
    return f"engine:{name}"
