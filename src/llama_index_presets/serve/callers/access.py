"""Access to a server: which host and origin a request may name, who sends it, and how often."""

from __future__ import annotations

import ipaddress
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from llama_index_presets.errors import SettingsError
from llama_index_presets.serve.callers.key_file import ANYBODY, Caller, KeyFile
from llama_index_presets.serve.callers.limits import RateLimiter
from llama_index_presets.serve.config import ServeConfig
from llama_index_presets.serve.protocols.problems import Problem, log_fault

__all__ = ["Access", "caller_of", "must_write"]

_log = logging.getLogger("llama_index_presets.serve")

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_OPEN_PATHS: Final = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
"""Paths that need no key: they hold nothing of an index. So does everything below ``/page/``."""


def caller_of(request: Request) -> Caller:
    """Caller of a request, as `Access` found them."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def must_write(caller: Caller) -> None:
    """Refuse a caller who may only ask.

    Raises:
        Problem: 403.
    """
    if caller.read_only:
        raise Problem(403, "This key may ask, not change the index.", code="read_only_key")


@dataclass(slots=True)
class Access:
    """Decides about a request from its head alone, before its body is read.

    Attributes:
        config: Hosts, proxies and rates.
        keys: The API keys; whether one is needed, too.
        rates: Counts requests of callers.
    """

    config: ServeConfig
    keys: KeyFile
    rates: RateLimiter

    def check(self, method: str, path: str, headers: Headers, client: str) -> Caller:
        """Caller of a request.

        Args:
            method: Of the request.
            path: Below the place at which the application is mounted.
            headers: Of the request.
            client: Address of the other end.

        Raises:
            Problem: 400, 401 or 403.
        """
        self._check_host(headers)
        self._check_origin(method, headers)
        _refuse_two_lengths(headers)
        if path in _OPEN_PATHS or path.startswith("/page/"):
            return ANYBODY
        return self._identify(headers, client)

    def hold_rate(self, caller: Caller) -> None:
        """Refuse a caller who asks too often.

        Raises:
            Problem: 429, with the seconds to wait.
        """
        rate = caller.rate or (self.config.limits.rate if caller.id else "")
        wait = self.rates.retry_after(caller.name, rate)
        if wait:
            raise Problem(
                429,
                f"At most {rate} requests are taken. Try again in {math.ceil(wait)} s.",
                code="rate_limited",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's: a page elsewhere may have pointed its name at us (DNS rebinding)."""
        if self.config.public and not self.config.hosts:
            return  # every request has a key, which no such page knows
        name = _hostname(headers.get("host", ""))
        allowed: Sequence[str] = (*_LOOPBACK, self.config.host, *self.config.hosts)
        if name not in [host.lower().strip("[]") for host in allowed]:
            raise Problem(
                403,
                "The request names a host that this server does not answer to. Its operator adds it with --allow-host.",
                code="unknown_host",
            )

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Refuse requests that a page of another origin makes its reader's browser send."""
        origin = headers.get("origin")
        cross = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        navigates = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")
        if origin is None:
            if cross and not navigates:
                raise _cross_origin()
            return
        if origin == "null" or urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise _cross_origin()

    def _identify(self, headers: Headers, client: str) -> Caller:
        try:
            if not self.keys.asked:
                return ANYBODY
            if name := self._name_by_proxy(headers, client):
                caller = self.keys.named(name)
                if caller is None:
                    raise Problem(
                        403, "The proxy's user has no entry here, or an expired one.", code="unknown_caller"
                    )
                return caller
            return self.keys.caller(_key(headers))
        except SettingsError as error:  # a damaged file lets nobody in
            _log.error("%s", error)
            raise Problem(503, "The keys of this server cannot be read.", code="keys_unreadable") from None
        except (OSError, ValueError) as error:
            log_fault("reading the keys", error)
            raise Problem(503, "The keys of this server cannot be read.", code="keys_unreadable") from None

    def _name_by_proxy(self, headers: Headers, client: str) -> str:
        """Name that a trusted proxy gives, or empty.

        Raises:
            Problem: 403, it gives two: one may be of the client, which the proxy has let through.
        """
        header = self.config.identity_header
        if not header or client not in self.config.proxies:
            return ""
        names = headers.getlist(header)
        if len(names) > 1:
            raise Problem(
                403,
                f"The header '{header}' came twice, so it is unclear who asks. The proxy must replace the client's.",
                code="two_identities",
            )
        return names[0].strip() if names else ""


def _refuse_two_lengths(headers: Headers) -> None:
    """Refuse a body whose end a proxy and this server may see at different places (request smuggling)."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Problem(
            400,
            "The request has both Content-Length and Transfer-Encoding. Send one.",
            code="two_lengths",
            headers={"Connection": "close"},
        )


def _key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Problem(
            401,
            "An API key is needed. Send it as 'Authorization: Bearer KEY'.",
            code="missing_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return key.strip()


def _cross_origin() -> Problem:
    return Problem(
        403,
        "Requests of pages of another origin are refused. Let the server of that page send them.",
        code="cross_origin",
    )


def _hostname(host: str) -> str:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
