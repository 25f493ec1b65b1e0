"""OTLP/HTTP receiver that keeps what it is sent: for tests of traces, benchmarks and the leak test."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DECOMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


class Receiver:
    """OTLP/HTTP receiver on 127.0.0.1; a context manager.

    Args:
        port: Port to listen on; 0 takes a free one.

    Attributes:
        bodies: Each request's body, uncompressed.
        paths: Where each was posted to.

    Example:
        >>> with Receiver() as receiver:
        ...     receiver.endpoint.startswith("http://127.0.0.1:"), receiver.bodies
        (True, [])
    """

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def spans(self) -> Iterator[Any]:
        """Every span received so far, as a protobuf message; bodies of another kind hold none."""
        for path, body in list(zip(self.paths, self.bodies, strict=False)):
            if path.endswith("/metrics"):
                continue
            try:
                resources = ExportTraceServiceRequest.FromString(body).resource_spans
            except DecodeError:
                continue
            for resource in resources:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def metrics(self) -> dict[str, Any]:
        """Name of a metric -> its last report, as a protobuf message."""
        found = {}
        for path, body in list(zip(self.paths, self.bodies, strict=False)):
            if path.endswith("/metrics"):
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in resource.scope_metrics:
                        found.update({metric.name: metric for metric in scope.metrics})
        return found

    def __enter__(self) -> Receiver:
        """Start listening."""
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
        """Keep the body, uncompressed."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        decompress = DECOMPRESS.get(self.headers.get("Content-Encoding", ""), bytes)
        self.receiver.paths.append(self.path)
        self.receiver.bodies.append(decompress(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""
