"""A collector on loopback that keeps what it is sent: for leak tests, benchmarks and a look at what would leave."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llama_index_presets._extras import require

__all__ = ["Receiver"]


class Receiver:
    """An OTLP/HTTP receiver on 127.0.0.1; a context manager.

    Args:
        port: Where it listens; 0 takes a free port.

    Attributes:
        bodies: Each request's body, uncompressed.

    Example:
        >>> with Receiver() as receiver:
        ...     receiver.endpoint.startswith("http://127.0.0.1:"), receiver.bodies
        (True, [])
    """

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def spans(self) -> Iterator[Any]:
        """Give every span received so far, as protobuf messages; bodies of another kind hold none.

        Raises:
            MissingExtraError: The extra ``tracing`` is not installed.
        """
        service = require("opentelemetry.proto.collector.trace.v1.trace_service_pb2", extra="tracing")
        refused = require("google.protobuf.message", extra="tracing").DecodeError
        for body in list(self.bodies):
            try:
                resources = service.ExportTraceServiceRequest.FromString(body).resource_spans
            except refused:
                continue
            for resource in resources:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def __enter__(self) -> Receiver:
        """Begin to listen."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True, name="otlp").start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Keep a body and say thanks."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        packed = self.headers.get("Content-Encoding", "")
        self.receiver.bodies.append(
            gzip.decompress(body)
            if packed == "gzip"
            else zlib.decompress(body)
            if packed == "deflate"
            else body
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""
