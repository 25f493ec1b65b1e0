"""Several processes behind one socket: started, watched, replaced without dropping a request, and stopped together."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.errors import PresetsError, ServeError, SettingsError
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.serve.app import open_keys
from llama_index_presets.serve.config import EngineConfig, ServeConfig
from llama_index_presets.serve.server import Process, address_of, listen, warn_of_what_stays

__all__ = ["Workers", "refuse_unshareable", "serve_in_workers"]

_log = logging.getLogger("llama_index_presets.serve")
_READY: Final = "ready"
_POLL_S: Final = 0.2
_SOON_S: Final = 5.0  # a worker that dies sooner than this after its start is not started again at once


def refuse_unshareable(engines: dict[str, EngineConfig]) -> None:
    """Refuse engines whose settings forbid that several processes open their index, before any is started.

    Raises:
        SettingsError: Names the engine and what to change.
    """
    for name, config in engines.items():
        values, origins = load_settings(config.settings, config.preset)
        if not values.shared_index:
            raise SettingsError(
                f"The engine '{name}' has shared_index = false (from {origins['shared_index']}), and workers share its "
                "index. Leave it out, or serve with --workers 1."
            )


@dataclass(slots=True)
class _Worker:
    """One process.

    Attributes:
        process: The process.
        life: Our end of a pipe: it tells when the worker is ready, and tells the worker when we are gone.
        started: When, on the monotonic clock.
        error: What it could not start for, or empty.
    """

    process: BaseProcess
    life: Connection
    started: float
    ready: bool = False
    error: str = ""

    def listen(self) -> None:
        """Take what the worker says."""
        with contextlib.suppress(EOFError, OSError):
            while self.life.poll():
                said = self.life.recv()
                self.ready = self.ready or said == _READY
                self.error = "" if said == _READY else str(said)


class Workers:
    """Processes that serve one socket; the operating system gives each connection to one of them.

    Each opens the engines for itself before it takes a connection, so that none meets a worker that is not ready while
    another is. They share the index, the ledger, the sums of the budgets, the jobs and the keys
    on the disk or the server; what a worker counts in memory (metrics, rates) is its own.

    Args:
        config: What is served, with more than one worker.
        reread: Reads the configuration again, for a reload.

    Raises:
        SettingsError: An index cannot be shared, or the configuration cannot be served.
        ServeError: The address cannot be had.
    """

    def __init__(self, config: ServeConfig, *, reread: Callable[[], ServeConfig] | None = None) -> None:
        refuse_unshareable(dict(config.engines))
        open_keys(config)  # before the address is announced
        self.config = config
        self._reread = reread
        # workers listen: until one does, nobody waits for an answer
        self._socket = listen(config, bound=True)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._stop = threading.Event()
        self._reload = threading.Event()

    @property
    def url(self) -> str:
        """Address to open."""
        return address_of(self._socket, self.config)

    def run(self) -> None:
        """Serve until a signal, or `stop`; a worker that dies is replaced.

        Raises:
            ServeError: A worker could not start; says why.
        """
        with self._signals():
            try:
                self._workers = [self._start() for _ in range(self.config.workers)]
                self._watch()
            finally:
                self._end(self._workers)
                self._socket.close()

    def stop(self) -> None:
        """Stop as after a signal; from any thread."""
        self._stop.set()

    def reload(self) -> None:
        """Replace the workers one after the other by ones with the configuration as it is now; from any thread."""
        self._reload.set()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(self.config, self._socket, theirs), name="llama-presets-worker"
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic())

    def _watch(self) -> None:
        begun = False
        while not self._stop.wait(_POLL_S):
            for place, worker in enumerate(self._workers):
                worker.listen()
                if not worker.process.is_alive():
                    self._workers[place] = self._again(worker)
            if not begun and all(worker.ready for worker in self._workers):
                begun = True
                _log.info("Ready: %s", counted(len(self._workers), "worker"))
            if self._reload.is_set():
                self._reload.clear()
                self._replace_all()

    def _again(self, dead: _Worker) -> _Worker:
        """Another worker in place of one that ended.

        Raises:
            ServeError: It ended before it was ready, so another would, too.
        """
        dead.listen()
        if not dead.ready:
            raise ServeError(
                dead.error
                or f"A worker ended with status {dead.process.exitcode} before it was ready. Its log says why."
            )
        _log.error(
            "Worker %s ended with status %s; starting another.", dead.process.pid, dead.process.exitcode
        )
        if time.monotonic() - dead.started < _SOON_S:
            self._stop.wait(1.0)
        return self._start()

    def _replace_all(self) -> None:
        if self._reread is None:
            return
        before = self.config
        try:
            fresh = self._reread()
            refuse_unshareable(dict(fresh.engines))
            self.config = before.with_changes(engines=fresh.engines)
            for place, old in enumerate(list(self._workers)):
                self._workers[place] = self._ready_one()
                self._end([old])
            _log.warning("Reloaded: %s", ", ".join(self.config.engines))
            warn_of_what_stays(before, fresh)
        except PresetsError as error:
            self.config = before
            _log.error("The configuration was not reloaded: %s", error)

    def _ready_one(self) -> _Worker:
        worker = self._start()
        while not worker.ready and worker.process.is_alive() and not self._stop.wait(_POLL_S):
            worker.listen()
        worker.listen()
        if not worker.ready:
            self._end([worker])
            raise ServeError(worker.error or "A worker with the new configuration did not start.")
        return worker

    def _end(self, workers: list[_Worker]) -> None:
        """Let workers end their open requests; those that do not in time are killed."""
        for worker in workers:
            worker.life.close()
        until = time.monotonic() + self.config.limits.stop_s + 10
        for worker in workers:
            worker.process.join(max(0.1, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    @contextlib.contextmanager
    def _signals(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted: dict[int, Any] = {
            signal.SIGINT: lambda *_: self.stop(),
            signal.SIGTERM: lambda *_: self.stop(),
        }
        if hasattr(signal, "SIGHUP"):
            wanted[signal.SIGHUP] = lambda *_: self.reload()
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve_in_workers(
    config: ServeConfig,
    *,
    reread: Callable[[], ServeConfig] | None = None,
    announce: Callable[[str], Any] = print,
) -> None:
    """Serve in ``config.workers`` processes until stopped; see `Workers` and `server.serve`."""
    workers = Workers(config, reread=reread)
    announce(workers.url)
    workers.run()


def _work(config: ServeConfig, listening: socket.socket, life: Connection) -> None:
    """Serve in a worker, until the parent closes its end of the pipe or is gone."""
    for name in ("SIGINT", "SIGHUP"):  # of the terminal: the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _log_to_stderr()
    try:
        process = Process(config, listening=listening, on_ready=lambda: life.send(_READY), warm_first=True)
    except PresetsError as error:
        life.send(str(error))
        raise SystemExit(1) from None

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            life.recv()
        process.stop()

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        process.run()
    except PresetsError as error:
        with contextlib.suppress(OSError):
            life.send(str(error))
        raise SystemExit(1) from None


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s [{os.getpid()}] %(message)s"))
    logging.getLogger("llama_index_presets").addHandler(handler)
    logging.getLogger("llama_index_presets.serve").setLevel(logging.INFO)
