"""ASGI application of a server: routes, and around them what every request passes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_presets.packages.extras import require

require("starlette", extra="serve")
from starlette.applications import Starlette  # noqa: E402
from starlette.datastructures import Headers, MutableHeaders  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.requests import ClientDisconnect, Request  # noqa: E402
from starlette.responses import HTMLResponse, JSONResponse, Response  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402
from starlette.staticfiles import StaticFiles  # noqa: E402
from starlette.types import ASGIApp, Message, Receive, Scope, Send  # noqa: E402

from llama_index_presets.errors import SettingsError  # noqa: E402
from llama_index_presets.files.paths import read_path  # noqa: E402
from llama_index_presets.monitor.budgets import Budget  # noqa: E402
from llama_index_presets.serve.answers import Answers  # noqa: E402
from llama_index_presets.serve.callers.access import Access  # noqa: E402
from llama_index_presets.serve.callers.key_file import Caller, KeyFile, default_key_file  # noqa: E402
from llama_index_presets.serve.callers.limits import ClientGone, RateLimiter, bounded_receive, bounded_send  # noqa: E402
from llama_index_presets.serve.config import EngineConfig, ServeConfig  # noqa: E402
from llama_index_presets.serve.engines import Engines  # noqa: E402
from llama_index_presets.serve.job_queue import JobQueue  # noqa: E402
from llama_index_presets.serve.metrics import Metrics  # noqa: E402
from llama_index_presets.serve.protocols.mcp import make_mcp_server  # noqa: E402
from llama_index_presets.serve.protocols.openai_api import OpenAIRoutes  # noqa: E402
from llama_index_presets.serve.protocols.openapi import openapi_routes  # noqa: E402
from llama_index_presets.serve.protocols.problems import Problem, problem_of  # noqa: E402
from llama_index_presets.serve.protocols.rest import Rest  # noqa: E402

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["Server", "create_app", "make_server", "open_keys"]

_log = logging.getLogger("llama_index_presets.serve")
PAGE: Final = Path(__file__).parent / "page"

_SECURITY: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(slots=True)
class Server:
    """Everything that one server holds.

    Attributes:
        config: What it serves, where and for whom.
        engines: The engines.
        answers: Answers questions.
        jobs: Ingests.
        keys: The API keys, and whether callers need one.
        metrics: What is counted.
    """

    config: ServeConfig
    engines: Engines
    answers: Answers
    jobs: JobQueue
    keys: KeyFile
    metrics: Metrics
    _limits_of: object = None

    def refresh_budgets(self) -> None:
        """Hold the engines to the budgets of the keys, when these have changed."""
        if not self.keys.asked:
            return
        callers = self.keys.callers()
        if callers is not self._limits_of:
            self.engines.hold_to(_budgets(self.keys), sums=self.keys.path.with_suffix(".budgets"))
            self._limits_of = callers

    def admit(self, caller: Caller) -> None:
        """Let work go on that a caller has begun, under the budget that their key has now.

        Raises:
            Problem: 401, the key was revoked or has expired meanwhile.
            SettingsError: The keys cannot be read.
        """
        self.refresh_budgets()
        if caller.id and not self.keys.knows(caller):
            raise Problem(
                401, f"The key of '{caller.name}' was revoked or has expired.", code="invalid_api_key"
            )

    def open(self, configs: Mapping[str, EngineConfig]) -> None:
        """Open and warm engines, or replace those that have changed; see `Engines.open`."""
        self.engines.open(configs)

    def close(self) -> None:
        """Stop the jobs, and close the engines."""
        self.jobs.close(self.config.limits.stop_s)
        self.engines.close()


def _budgets(keys: KeyFile) -> list[Budget]:
    return [limit for caller in keys.callers().values() if (limit := caller.limit()) is not None]


def open_keys(config: ServeConfig) -> KeyFile:
    """The keys of a server; what would leave it open by mistake is refused.

    Raises:
        SettingsError: It would be reachable from other machines without keys, believe a proxy without keys, or its keys
            cannot be read.
    """
    named = config.keys is not None
    keys = KeyFile(
        read_path(config.keys, "The file of keys", links=False)
        if config.keys is not None
        else default_key_file(),
        named=named,
    )
    if config.public and not keys.exists():
        raise SettingsError(
            f"'{config.host}' can be reached from other machines, and there are no keys: anybody could read the index "
            "and spend your money. Make a key (llama-presets key add NAME), or listen on 127.0.0.1."
        )
    if config.identity_header and not keys.asked:
        raise SettingsError(
            f"identity_header is '{config.identity_header}', and there are no keys: anybody would be let in, whatever "
            "the proxy says. Make a key for each user (llama-presets key add NAME)."
        )
    if keys.asked:
        if not keys.exists():
            _log.warning(
                "There is no file '%s': every request is refused until 'llama-presets key add'.", keys.path
            )
        keys.callers()  # a damaged file ends the start, not the first request
    return keys


def make_server(config: ServeConfig, *, engines: Engines | None = None) -> Server:
    """A server whose engines are not open yet.

    Raises:
        SettingsError: As `open_keys`.
    """
    keys = open_keys(config)
    engines = Engines() if engines is None else engines
    metrics, jobs = Metrics(), JobQueue(engines)
    engines.on_change(metrics.follow, metrics.unfollow)
    answers = Answers(engines, config.limits, metrics)
    server = Server(config, engines, answers, jobs, keys, metrics)
    jobs.admit = server.admit
    server.refresh_budgets()  # before a job of an earlier process goes on
    return server


def create_app(
    engines: Mapping[str, PresetEngine] | Server,
    *,
    config: ServeConfig | None = None,
    on_start: Callable[[], Any] | None = None,
) -> Starlette:
    """ASGI application over engines that are open, to be mounted or run by any ASGI server.

    It closes the engines when it is shut down.

    Args:
        engines: Engines by name, the first is the default; or a `Server`.
        config: Keys, limits and hosts; its engines are not opened here.
        on_start: A coroutine function that runs beside the application, such as one that opens the engines.

    Example:
        >>> import tempfile
        >>> from llama_index_presets import build
        >>> engine = build("healthcare", storage=tempfile.mkdtemp())
        >>> app = create_app({"clinic": engine})
        >>> engine.close()
    """
    if isinstance(engines, Server):
        server = engines
    else:
        server = make_server(config or ServeConfig())
        server.engines.put(engines)
    mcp = make_mcp_server(server.answers)
    mcp_app = mcp.streamable_http_app(
        streamable_http_path="/mcp", stateless_http=True, json_response=True, host=server.config.host,
        transport_security=_without_checks(),
    )  # fmt: skip

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.answers.slots  # noqa: B018 (made on this loop)
        for served in server.engines.all():
            server.jobs.resume(served)
        beside = asyncio.ensure_future(on_start()) if on_start else None
        async with mcp.session_manager.run():
            yield
        if beside is not None:
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside
        await asyncio.to_thread(server.close)
        await server.answers.aclose()

    server.engines.on_change(server.jobs.resume, lambda served: None)
    rest, openai = Rest(server.answers, server.jobs), OpenAIRoutes(server.answers)
    app = Starlette(
        routes=[
            Route("/", _home, methods=["GET"]),
            Mount("/page", StaticFiles(directory=PAGE)),
            *rest.routes(),
            *openai.routes(),
            *openapi_routes(),
            *mcp_app.routes,
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.add_middleware(_Boundary, server=server)
    app.state.server = server
    return app


def _without_checks() -> Any:
    """MCP's own host check is off: `Access` makes the same for every route."""
    from mcp.server.transport_security import TransportSecuritySettings

    return TransportSecuritySettings(enable_dns_rebinding_protection=False)


async def _home(request: Request) -> Response:
    """The chat page."""
    content = await asyncio.to_thread((PAGE / "index.html").read_text, "utf-8")
    return HTMLResponse(content, headers={"content-security-policy": _PAGE_POLICY})


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals in the shape of ours."""
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    message = str(error.detail)
    if error.status_code == 404:
        message = "There is nothing at this path. GET /docs lists what this server takes."
    elif error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").replace(" ", "").split(",")))
        message = (
            f"This path takes no {request.method}, but {allowed or 'another method'}. GET /docs lists them."
        )
    problem = Problem(error.status_code, message, code=code, headers=error.headers)
    return JSONResponse(problem.to_dict(), error.status_code, headers=problem.headers)


_LEFT: Final = (ClientGone, ClientDisconnect)  # before its body was read, or its response sent


class _Boundary:
    """What every request passes: access, bounds of size and time, errors as JSON, headers, metrics and the log.

    The log has the route's template, the caller's name, status and time; never a body, a query string or a key.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server
        self._access = Access(server.config, server.keys, RateLimiter())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        begun: dict[str, Any] = {"status": 0}
        self._server.metrics.begin()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun["status"] = message["status"]
                _add_headers(message)
            await sending(message)

        limits = self._server.config.limits
        sending = bounded_send(send, limits.send_s)
        try:
            await self._handle(scope, receive, answer, begun)
        except _LEFT:
            pass  # nobody reads any more
        finally:
            self._end(scope, begun, time.perf_counter() - began)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, begun: dict[str, Any]) -> None:
        limits, path = self._server.config.limits, _path_within(scope)
        try:
            client = (scope.get("client") or ("", 0))[0]
            caller = self._access.check(scope["method"], path, Headers(scope=scope), client)
            scope.setdefault("state", {})["caller"] = caller  # the log names who is held back, too
            self._access.hold_rate(caller)
            self._server.refresh_budgets()
            most = limits.upload_mb << 20 if path == "/ingest" else limits.body_kb << 10
            _check_length(Headers(scope=scope), most)
            bounded = bounded_receive(receive, most, limits.body_s * (10 if path == "/ingest" else 1))
            await self._app(scope, bounded, send)
        except _LEFT:
            raise
        except Exception as error:
            problem = problem_of(error)
            begun["code"] = problem.code
            if not begun["status"]:  # else the response has begun, and is cut off here
                await JSONResponse(problem.to_dict(), problem.status, headers=problem.headers)(
                    scope, receive, send
                )

    def _end(self, scope: Scope, begun: Mapping[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "other"
        status = begun["status"] or 499
        self._server.metrics.end(scope["method"], route, status, seconds)
        if code := begun.get("code"):
            self._server.metrics.failed(route, code)
        caller = scope.get("state", {}).get("caller")
        _log.info(
            "%s %s %s %.0f ms %s",
            scope["method"],
            route,
            status,
            seconds * 1000,
            caller.name if caller else "-",
        )


def _path_within(scope: Scope) -> str:
    """Path of a request below the place at which the application is mounted, as the routes see it.

    Example:
        >>> _path_within({"path": "/page/documents", "root_path": "/page"})
        '/documents'
    """
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _check_length(headers: Headers, most: int) -> None:
    from llama_index_presets.serve.callers.limits import too_large

    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise too_large(most)


def _add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _SECURITY.items():
        headers.setdefault(name, value)
