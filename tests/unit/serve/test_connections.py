"""Connections that are idle or slow, on an event loop that is kept from running."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from llama_index_presets.serve.server import _ImpatientProtocol

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class LateSelector(selectors.DefaultSelector):
    """A selector whose thread gets the interpreter back late, after a wait in which nothing had arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.armed, self.held, self.release = threading.Event(), threading.Event(), threading.Event()

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(timeout)
        if timeout and not found and self.armed.is_set():
            self.armed.clear()
            self.held.set()
            self.release.wait(30)
        return found


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"done"})


@contextmanager
def listening(selector: LateSelector, *, keep_alive_s: float, header_s: float) -> Iterator[Any]:
    """Address of a server on a loop of its own."""
    loop = asyncio.SelectorEventLoop(selector)
    config = uvicorn.Config(app, timeout_keep_alive=keep_alive_s, log_config=None)  # type: ignore[arg-type]
    config.load()

    class Protocol(_ImpatientProtocol):
        pass

    Protocol.header_s = header_s
    state = ServerState()
    started = loop.create_server(
        lambda: Protocol(config=config, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    server = loop.run_until_complete(started)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()
    finally:
        selector.release.set()
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def answer(client: socket.socket) -> bytes:
    """All that comes until the body ends; empty where the connection was closed."""
    found = b""
    while not found.endswith(b"done") and (piece := client.recv(4096)):
        found += piece
    return found


@pytest.mark.parametrize("first", [True, False], ids=["fresh", "kept alive"])
def test_a_request_that_came_while_the_loop_was_late_is_answered(first: bool) -> None:
    """The time of a silent connection is up, and a request lies in its socket: it is read before anything is closed."""
    selector = LateSelector()
    limits = {"keep_alive_s": 60, "header_s": 0.2} if first else {"keep_alive_s": 0.2, "header_s": 60}
    with listening(selector, **limits) as place, socket.create_connection(place, timeout=30) as client:
        if not first:
            client.sendall(REQUEST)
            assert answer(client).startswith(b"HTTP/1.1 200")
        selector.armed.set()
        assert selector.held.wait(30)  # the timer is due, and the loop has seen nothing
        client.sendall(REQUEST)
        selector.release.set()
        assert answer(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("first", [True, False], ids=["fresh", "kept alive"])
def test_a_silent_connection_is_closed(first: bool) -> None:
    """Without a request it ends, in time and after a look at its socket."""
    limits = {"keep_alive_s": 60, "header_s": 0.2} if first else {"keep_alive_s": 0.2, "header_s": 60}
    with listening(LateSelector(), **limits) as place, socket.create_connection(place, timeout=30) as client:
        if not first:
            client.sendall(REQUEST)
            assert answer(client).startswith(b"HTTP/1.1 200")
        assert client.recv(4096) == b""
