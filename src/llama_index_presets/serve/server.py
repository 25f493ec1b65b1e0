"""Process of a server: socket, TLS, signals, start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llama_index_presets.errors import PresetsError, ServeError, SettingsError
from llama_index_presets.serve.app import Server, create_app, make_server
from llama_index_presets.serve.config import ServeConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.protocols.problems import log_fault

__all__ = ["Process", "address_of", "listen", "serve", "warn_of_what_stays"]

_log = logging.getLogger("llama_index_presets.serve")


class Process:
    """One server on one socket.

    Args:
        config: What is served.
        reread: Reads the configuration again, for a reload; None serves what it serves.
        engines: Opens and holds the engines; None makes it.
        listening: A socket that is bound already, such as one that several workers share; None makes it.
        on_ready: Called when the engines are open.
        warm_first: Take no connection before the engines are open; else requests are answered with 503 until then. For
            workers, whose socket others answer meanwhile.

    Raises:
        SettingsError: The configuration cannot be served; certificate or key wrong; no keys on a public address.
        ServeError: The address cannot be had.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        reread: Callable[[], ServeConfig] | None = None,
        engines: Engines | None = None,
        listening: socket.socket | None = None,
        on_ready: Callable[[], Any] | None = None,
        warm_first: bool = False,
    ) -> None:
        self.config = config
        self._on_ready = on_ready
        self._warm_first = warm_first
        self._reread = reread
        self._error: BaseException | None = None
        self.server: Server = make_server(config, engines=engines)
        self._uvicorn = _Server(self._options())
        self._socket = listening or listen(config)

    @property
    def url(self) -> str:
        """Address to open."""
        return address_of(self._socket, self.config)

    def run(self) -> None:
        """Serve until a signal stops it; the first lets open requests end, the second does not.

        Raises:
            PresetsError: An engine could not be opened.
        """
        try:
            asyncio.run(self._serve())
        finally:
            self._socket.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop as after a signal; from any thread."""
        self._uvicorn.should_exit = True

    def _options(self) -> uvicorn.Config:
        limits = self.config.limits

        class Impatient(_ImpatientProtocol):
            header_s = limits.header_s

        options = uvicorn.Config(
            create_app(self.server, on_start=self._begin),
            http=Impatient,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=max(1, int(limits.stop_s)),
        )
        options.load()
        if self.config.certificate:
            options.ssl = _tls(self.config.certificate, self.config.private_key)
        return options

    async def _serve(self) -> None:
        if self._reread is not None and hasattr(signal, "SIGHUP") and _is_main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        if self._warm_first:
            await self._open()
            if self._uvicorn.should_exit:
                await asyncio.to_thread(self.server.close)
                return
        await self._uvicorn.serve(sockets=[self._socket])

    async def _begin(self) -> None:
        """What runs beside the server from its start: it says 503 until the engines are warm."""
        if not self._warm_first:
            await self._open()
        if self._error is None and self._on_ready is not None:
            self._on_ready()

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(self.server.open, self.config.engines)
            _log.info("Ready: %s", ", ".join(self.server.engines.names))  # absent ones are logged as errors
        except Exception as error:
            self._error = error
            self.stop()

    def reload(self) -> threading.Thread:
        """Read the configuration again and replace engines that have changed; requests under way end as they began.

        A configuration that cannot be served changes nothing, and is logged. Host, port, keys and limits stay; the log
        says so where they differ.
        """
        thread = threading.Thread(target=self._reload, name="reload", daemon=True)
        thread.start()
        return thread

    def _reload(self) -> None:
        if self._reread is None:
            return
        try:
            fresh = self._reread()
            self.server.open(fresh.engines)
            _log.warning("Reloaded: %s", ", ".join(self.server.engines.names))
            warn_of_what_stays(self.config, fresh)
        except PresetsError as error:
            _log.error("The configuration was not reloaded: %s", error)
        except Exception as error:
            log_fault("reloading", error)


def serve(
    config: ServeConfig,
    *,
    reread: Callable[[], ServeConfig] | None = None,
    announce: Callable[[str], Any] = print,
) -> None:
    """Serve in this process until stopped; see `Process`, and `workers.serve_in_workers` for several.

    Args:
        config: What is served.
        reread: See `Process`.
        announce: Told the address.
    """
    process = Process(config, reread=reread)
    announce(process.url)
    process.run()


class _Server(uvicorn.Server):
    """Server that ends after a signal as after any other stop; uvicorn would let the signal end the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if not _is_main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that drops a connection whose next request head does not arrive in time (slowloris).

    Before a silent connection is closed, its socket is looked at once more: while engines are opened, other threads can
    keep this one from running for longer than the time allowed, and a request that came meanwhile would be answered by
    a reset.
    """

    header_s: float = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, unless a request has arrived."""
        self.timeout_keep_alive_task = self._after_a_look(super().timeout_keep_alive_handler)

    def _start(self) -> None:
        self._timer = self.loop.call_later(self.header_s, self._late)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = self._after_a_look(self._drop)

    def _drop(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _after_a_look(self, close: Callable[[], None]) -> asyncio.TimerHandle:
        """Call a function in the next round of the loop, which reads its sockets before it looks at its timers."""
        return self.loop.call_later(0, close)


def warn_of_what_stays(running: ServeConfig, fresh: ServeConfig) -> None:
    """Log which values of a new configuration do not count before the next start."""
    names = [one.name for one in fields(ServeConfig) if one.name not in ("engines", "port")]
    changed = [name for name in names if getattr(running, name) != getattr(fresh, name)]
    if changed:
        _log.error(
            "Engines were reloaded, but %s of the new configuration does not count before the next start.",
            ", ".join(changed),
        )


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def address_of(listening: socket.socket, config: ServeConfig) -> str:
    """Address of a socket, to open."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if config.certificate else 'http'}://{shown}:{port}"


def listen(config: ServeConfig, *, bound: bool = False) -> socket.socket:
    """A socket that listens, or is only bound: a port that is taken is found before a model is loaded."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServeError(f"'{config.host}' is no address of this machine ({error.strerror}).") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        if not bound:
            listening.listen(1_024)
    except OSError as error:
        listening.close()
        raise ServeError(
            f"Port {config.port} of '{config.host}' cannot be had ({error.strerror}). Stop what listens there, or take "
            "another --port."
        ) from error
    return listening


def _tls(certificate: str, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in (certificate, key):
        if file and not Path(file).is_file():
            raise SettingsError(f"There is no file '{file}'. Give the PEM files of certificate and key.")
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise SettingsError(
            f"The certificate '{certificate}' and its key do not fit or cannot be read ({reason}). Expected PEM: the "
            "chain with the server's certificate first, and its key without a password."
        ) from error
    return context
