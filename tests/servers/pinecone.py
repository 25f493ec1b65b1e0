"""A Pinecone index on loopback: what the real SDK speaks, with the service's limits, and faults on demand.

Kept to what the service documents (https://docs.pinecone.io/reference/api): upsert, query with filters, fetch,
fetch_by_metadata, list by prefix, delete by ids, by filter and of all, stats, namespaces. Not modelled: eventual
consistency, sparse vectors, authentication beyond the presence of a key.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

Record = dict[str, Any]


class PineconeServer:
    """State and behaviour of one index.

    Attributes:
        url: Address for ``host=``.
        fail: Asked before each request with its number, from 1; gives None, or a status and its headers.
        requests: (path, body) of every request that was answered.
    """

    def __init__(self, dim: int | None, metric: str = "cosine") -> None:
        self.dim, self.metric = dim, metric
        self.spaces: dict[str, dict[str, Record]] = defaultdict(dict)
        self.requests: list[tuple[str, Any]] = []
        self.fail: Callable[[int], tuple[int, dict[str, str]] | None] = lambda number: None
        self.down: set[str] = set()  # paths that answer 503
        self.count = 0
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, path: str, body: Any, size: int) -> tuple[int, Any, dict[str, str]]:
        """Answer one request, under a lock."""
        with self.lock:
            self.count += 1
            failure = (503, {"Retry-After": "0"}) if path in self.down else self.fail(self.count)
            if failure:
                return failure[0], {"error": {"code": "X", "message": "planned failure"}}, failure[1]
            if size > 2 * 1024 * 1024:
                return 400, _error("request larger than 2 MB"), {}
            self.requests.append((path, body))
            try:
                return 200, getattr(self, path.strip("/").replace("/", "_"))(body), {}
            except _Refused as refused:
                return refused.status, _error(str(refused)), {}

    def vectors_upsert(self, body: Any) -> Any:
        records = body["vectors"]
        if len(records) > 1000:
            raise _Refused("more than 1000 records")
        for record in records:
            if self.dim and len(record["values"]) != self.dim:
                raise _Refused(f"Vector dimension {len(record['values'])} does not match {self.dim}")
            metadata = record.get("metadata") or {}
            if len(json.dumps(metadata, ensure_ascii=False).encode()) > 40_960:
                raise _Refused("metadata over 40 KB")
            for key, value in metadata.items():
                _check_metadata(key, value)
        self.dim = self.dim or len(records[0]["values"])
        space = self.spaces[body.get("namespace", "")]
        for record in records:
            values = np.array(record["values"], np.float32).tolist()
            space[record["id"]] = {**record, "values": values}
        return {"upsertedCount": len(records)}

    def query(self, body: Any) -> Any:
        if not 1 <= body["topK"] <= 10_000:
            raise _Refused("topK out of range")
        question = np.array(body["vector"], np.float64)
        found = []
        for record in self.spaces[body.get("namespace", "")].values():
            if _matches(body.get("filter"), record.get("metadata") or {}):
                values = np.array(record["values"], np.float64)
                score = float(values @ question / np.linalg.norm(values) / np.linalg.norm(question))
                found.append((score, record))
        found.sort(key=lambda pair: -pair[0])
        matches = []
        for score, record in found[: body["topK"]]:
            match = {"id": record["id"], "score": score}
            if body.get("includeMetadata"):
                match["metadata"] = record.get("metadata")
            match["values"] = record["values"] if body.get("includeValues") else []
            matches.append(match)
        return {"matches": matches, "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}}

    def vectors_fetch(self, body: Any) -> Any:
        space = self.spaces[body.get("namespace", "")]
        return {"vectors": {one: space[one] for one in body["ids"] if one in space}, "namespace": ""}

    def vectors_list(self, body: Any) -> Any:
        found = sorted(one for one in self.spaces[body["namespace"]] if one.startswith(body["prefix"]))
        start, limit = int(body.get("paginationToken") or 0), int(body.get("limit") or 100)
        if not 1 <= limit <= 100:
            raise _Refused("limit out of range")
        page: Any = {"vectors": [{"id": one} for one in found[start : start + limit]], "namespace": ""}
        if start + limit < len(found):
            page["pagination"] = {"next": str(start + limit)}
        return page

    def vectors_fetch_by_metadata(self, body: Any) -> Any:
        space = self.spaces[body.get("namespace", "")]
        found = [r for _, r in sorted(space.items()) if _matches(body["filter"], r.get("metadata") or {})]
        start, limit = int(body.get("paginationToken") or 0), body.get("limit", 100)
        page: Any = {"vectors": {r["id"]: r for r in found[start : start + limit]}, "namespace": ""}
        if start + limit < len(found):
            page["pagination"] = {"next": str(start + limit)}
        return page

    def vectors_delete(self, body: Any) -> Any:
        name = body.get("namespace", "")
        if name not in self.spaces:
            raise _Refused("Namespace not found", 404)
        space = self.spaces[name]
        if body.get("deleteAll"):
            space.clear()
        elif "filter" in body:
            for one in [k for k, r in space.items() if _matches(body["filter"], r.get("metadata") or {})]:
                del space[one]
        else:
            if len(body["ids"]) > 1000:
                raise _Refused("more than 1000 ids")
            for one in body["ids"]:
                space.pop(one, None)
        return {}

    def describe_index_stats(self, body: Any) -> Any:
        counts = {name: {"vectorCount": len(space)} for name, space in self.spaces.items() if space}
        total = sum(len(space) for space in self.spaces.values())
        return {
            "namespaces": counts,
            "dimension": self.dim or 0,
            "totalVectorCount": total,
            "metric": self.metric,
            "indexFullness": 0,
        }


class _Refused(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


def _error(message: str) -> Any:
    return {"code": 3, "message": message, "details": []}


def _check_metadata(key: str, value: Any) -> None:
    listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if key.startswith("$") or not (isinstance(value, (str, int, float, bool)) or listed):
        raise _Refused(
            f"Metadata value must be a string, number, boolean or list of strings, got {key}={value}"
        )


def _matches(condition: Any, metadata: Record) -> bool:
    if not condition:
        return True
    for name, inner in condition.items():
        if name == "$and":
            good = all(_matches(part, metadata) for part in inner)
        elif name == "$or":
            good = any(_matches(part, metadata) for part in inner)
        elif name.startswith("$"):
            raise _Refused(f"unknown operator {name}")
        else:
            good = all(_test(op, wanted, metadata.get(name)) for op, wanted in inner.items())
        if not good:
            return False
    return True


def _test(operator: str, wanted: Any, value: Any) -> bool:
    held = value if isinstance(value, list) else [value]
    if operator == "$exists":
        return (value is not None) == wanted
    if operator in ("$in", "$nin"):
        if not isinstance(wanted, list):
            raise _Refused(f"{operator} takes a list")
        return any(one in wanted for one in held) == (operator == "$in")
    if operator in ("$eq", "$ne"):
        return (wanted in held) == (operator == "$eq")
    if not isinstance(wanted, (int, float)):
        raise _Refused(f"{operator} takes a number")
    if not isinstance(value, (int, float)):
        return False
    return {"$gt": value > wanted, "$gte": value >= wanted, "$lt": value < wanted, "$lte": value <= wanted}[
        operator
    ]


@contextmanager
def pinecone_server(dim: int | None = None, metric: str = "cosine") -> Iterator[PineconeServer]:
    """Run an index on a free port of loopback."""
    state = PineconeServer(dim, metric)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.reply(urlsplit(self.path).path, json.loads(raw or b"{}"), len(raw))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = parse_qs(parts.query)
            body: Any = {"ids": asked.get("ids", []), "prefix": ""}
            body |= {name: values[0] for name, values in asked.items() if name != "ids"}
            body.setdefault("namespace", "")
            self.reply(parts.path, body, 0)

        def reply(self, path: str, body: Any, size: int) -> None:
            status, answer, headers = state.answer(path, body, size)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
