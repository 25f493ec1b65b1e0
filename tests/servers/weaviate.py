"""A Weaviate server on loopback: REST for meta and schema, gRPC for objects, as the real v4 client speaks them.

Kept to what the service documents (https://docs.weaviate.io/weaviate/api): collections and properties, batch insert
with replacing by uuid, nearest vectors, BM25, filters, cursor and pages, delete by filter, 10,000 rows a question, and
faults on demand. Filters compare as the documentation says: a property must exist, `field` tokenization compares whole
texts, `ContainsAny` asks for any element, `Not` is the complement. Not modelled: tenants, named vectors, modules,
replication, the approximation of HNSW; BM25 is the plain formula with k1 = 1.2 and b = 0.75.
"""

from __future__ import annotations

import json
import math
import re
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from weaviate.proto.v1 import base_pb2, batch_delete_pb2, batch_pb2, search_get_pb2, weaviate_pb2_grpc

VERSION = "1.33.0"
MOST_ROWS = 10_000
Stored = dict[str, Any]

_OPERATORS = {
    base_pb2.Filters.OPERATOR_GREATER_THAN: lambda value, wanted: value > wanted,
    base_pb2.Filters.OPERATOR_GREATER_THAN_EQUAL: lambda value, wanted: value >= wanted,
    base_pb2.Filters.OPERATOR_LESS_THAN: lambda value, wanted: value < wanted,
    base_pb2.Filters.OPERATOR_LESS_THAN_EQUAL: lambda value, wanted: value <= wanted,
    base_pb2.Filters.OPERATOR_EQUAL: lambda value, wanted: value == wanted,
}


class Refused(Exception):
    """What the server answers with an error."""


class WeaviateServer(weaviate_pb2_grpc.WeaviateServicer):
    """State and behaviour of one server.

    Attributes:
        url: Address for `WeaviateVectorStore.from_url`, without the collection.
        fail: Asked before each request with its number, from 1; gives None, or a gRPC status.
        requests: Name of every request that was answered.
        headers: Headers of the latest REST request.
    """

    def __init__(self) -> None:
        self.schema: dict[str, Any] = {}
        self.objects: dict[str, dict[str, Stored]] = {}
        self.fail: Callable[[int], grpc.StatusCode | None] = lambda number: None
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.count = 0
        self.lock = threading.RLock()
        self.host, self.port, self.grpc_port = "127.0.0.1", 0, 0

    def url(self, collection: str) -> str:
        """Address of a collection."""
        return f"weaviate://{self.host}:{self.port}/{collection}?grpc={self.grpc_port}"

    # ---- REST --------------------------------------------------------------------------------------------

    def rest(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer one REST request."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            if path == "/v1/meta":
                return 200, {
                    "version": VERSION,
                    "grpcMaxMessageSize": 104_858_000,
                    "hostname": "",
                    "modules": {},
                }
            if path == "/v1/.well-known/openid-configuration":
                return 404, {}
            if path == "/v1/schema" and method == "POST":
                return self._create(body)
            parts = path.removeprefix("/v1/schema/").split("/")
            if parts[0] not in self.schema:
                return 404, {"error": [{"message": "not found"}]}
            return self._collection(method, parts, body)

    def _create(self, body: Any) -> tuple[int, Any]:
        if body["class"] in self.schema:
            return 422, {"error": [{"message": f"class name {body['class']} already exists"}]}
        if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", body["class"]):
            return 422, {"error": [{"message": "not a valid class name"}]}
        defaults = {
            "vectorizer": "none",
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {"distance": "cosine"},
            "invertedIndexConfig": {
                "bm25": {"b": 0.75, "k1": 1.2},
                "cleanupIntervalSeconds": 60,
                "stopwords": {"additions": None, "preset": "en", "removals": None},
            },
            "multiTenancyConfig": {"enabled": False},
            "replicationConfig": {
                "factor": 1,
                "asyncEnabled": False,
                "deletionStrategy": "NoAutomatedResolution",
            },
            "shardingConfig": {
                "virtualPerPhysical": 128,
                "desiredCount": 1,
                "actualCount": 1,
                "desiredVirtualCount": 128,
                "actualVirtualCount": 128,
                "key": "_id",
                "strategy": "hash",
                "function": "murmur3",
            },
        }
        self.schema[body["class"]] = {**defaults, **body, "properties": []}
        self.objects[body["class"]] = {}
        for one in body.get("properties", []):
            self._add_property(body["class"], one)
        return 200, self.schema[body["class"]]

    def _add_property(self, name: str, given: Any) -> tuple[int, Any]:
        if not re.fullmatch(r"[_A-Za-z][_0-9A-Za-z]{0,230}", given["name"]):
            return 422, {"error": [{"message": f"'{given['name']}' is not a valid property name"}]}
        properties = self.schema[name]["properties"]
        if given["name"] in {one["name"] for one in properties}:
            return 422, {"error": [{"message": "property already exists"}]}
        properties.append(
            {"indexFilterable": True, "indexSearchable": True, "indexRangeFilters": False, **given}
        )
        return 200, given

    def _collection(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        name = parts[0]
        if method == "POST" and parts[1:] == ["properties"]:
            return self._add_property(name, body)
        if method == "DELETE":
            del self.schema[name], self.objects[name]
            return 200, {}
        if method == "PUT":
            self.schema[name] = body
        return 200, self.schema[name]

    # ---- gRPC --------------------------------------------------------------------------------------------

    def BatchObjects(self, request: Any, context: Any) -> Any:
        with self._answering("BatchObjects", context):
            errors = []
            for place, one in enumerate(request.objects):
                try:
                    self._store(one)
                except Refused as refused:
                    errors.append(batch_pb2.BatchObjectsReply.BatchError(index=place, error=str(refused)))
            return batch_pb2.BatchObjectsReply(took=0.0, errors=errors)

    def _store(self, one: Any) -> None:
        known = {p["name"]: p for p in self._schema(one.collection)["properties"]}
        properties = MessageToDict(one.properties.non_ref_properties)
        properties |= {a.prop_name: list(a.values) for a in one.properties.text_array_properties}
        unknown = sorted(properties.keys() - known.keys())
        if unknown:
            raise Refused(f"no such prop with name '{unknown[0]}' found in class '{one.collection}'")
        for key, value in properties.items():
            wanted = known[key]["dataType"][0]
            if (wanted == "number") != isinstance(value, float) or (wanted == "text[]") != isinstance(
                value, list
            ):
                raise Refused(f"invalid {wanted} property '{key}'")
        vector = np.frombuffer(one.vector_bytes, "<f4")
        objects = self.objects[one.collection]
        other = next(iter(objects.values()), None)
        if other is not None and len(other["vector"]) != len(vector):
            raise Refused(f"new node has a vector with length {len(vector)}, existing {len(other['vector'])}")
        objects[str(uuid.UUID(one.uuid))] = {"properties": properties, "vector": vector}

    def BatchDelete(self, request: Any, context: Any) -> Any:
        with self._answering("BatchDelete", context):
            found = self._select(request.collection, request.filters)[:MOST_ROWS]
            for one in found:
                del self.objects[request.collection][one]
            return batch_delete_pb2.BatchDeleteReply(
                took=0.0, failed=0, matches=len(found), successful=len(found)
            )

    def Search(self, request: Any, context: Any) -> Any:
        with self._answering("Search", context):
            if request.offset + request.limit > MOST_ROWS:
                raise Refused("query maximum results exceeded")
            if request.after and request.HasField("filters"):
                raise Refused("where filters cannot be combined with the cursor api")
            found = self._select(request.collection, request.filters if request.HasField("filters") else None)
            ranked = self._ranked(request, found)
            page = ranked[request.offset : request.offset + request.limit]
            return search_get_pb2.SearchReply(
                took=0.0, results=[self._result(request, one, score) for one, score in page]
            )

    def _ranked(self, request: Any, found: list[str]) -> list[tuple[str, float]]:
        objects = self.objects[request.collection]
        if request.HasField("near_vector"):
            question = np.frombuffer(_question(request.near_vector), "<f4").astype(np.float64)
            distances = {one: _distance(question, objects[one]["vector"]) for one in found}
            return sorted(distances.items(), key=lambda pair: pair[1])
        if request.HasField("bm25_search"):
            return _bm25(
                request.bm25_search.query,
                {one: objects[one]["properties"].get("text", "") for one in objects},
                found,
            )
        return [(one, 0.0) for one in sorted(found) if one > request.after]

    def _result(self, request: Any, one: str, score: float) -> Any:
        stored = self.objects[request.collection][one]
        metadata = search_get_pb2.MetadataResult(id=one, id_as_bytes=uuid.UUID(one).bytes)
        if request.metadata.distance:
            metadata.distance, metadata.distance_present = score, True
        if request.metadata.score:
            metadata.score, metadata.score_present = score, True
        if request.metadata.vector:
            metadata.vector_bytes = stored["vector"].tobytes()
        result = search_get_pb2.SearchResult(metadata=metadata)
        for name in request.properties.non_ref_properties:
            value = stored["properties"].get(name)
            field = result.properties.non_ref_props.fields[name]
            if value is None:
                field.null_value = 0
            elif isinstance(value, str):
                field.text_value = value
            elif isinstance(value, list):
                field.list_value.text_values.values.extend(value)
            else:
                field.number_value = value
        return result

    def _schema(self, name: str) -> Any:
        if name not in self.schema:
            raise Refused(f"could not find class {name} in schema")
        return self.schema[name]

    def _select(self, name: str, condition: Any | None) -> list[str]:
        properties = {one["name"]: one for one in self._schema(name)["properties"]}
        objects = self.objects[name]
        return [
            one for one in objects if condition is None or _matches(condition, one, objects[one], properties)
        ]

    @contextmanager
    def _answering(self, name: str, context: Any) -> Iterator[None]:
        with self.lock:
            self.count += 1
            status = self.fail(self.count)
            if status is not None:
                context.abort(status, "planned failure")
            self.requests.append(name)
            try:
                yield
            except Refused as refused:
                context.abort(grpc.StatusCode.UNKNOWN, str(refused))


def _question(near: Any) -> bytes:
    return near.vector_bytes or (near.vectors[0].vector_bytes if near.vectors else struct.pack("0f"))


def _distance(question: Any, vector: Any) -> float:
    other = vector.astype(np.float64)
    return float(1.0 - question @ other / (np.linalg.norm(question) * np.linalg.norm(other)))


def _matches(condition: Any, name: str, stored: Stored, properties: dict[str, Any]) -> bool:
    parts = [_matches(part, name, stored, properties) for part in condition.filters]
    if condition.operator == base_pb2.Filters.OPERATOR_AND:
        return all(parts)
    if condition.operator == base_pb2.Filters.OPERATOR_OR:
        return any(parts)
    if condition.operator == base_pb2.Filters.OPERATOR_NOT:
        return not parts[0]
    target = condition.target.property
    if target == "_id":
        return name in condition.value_text_array.values
    if target not in properties:
        raise Refused(f"no such prop with name '{target}' found")
    if not properties[target]["indexFilterable"]:
        raise Refused(f"filtering by property '{target}' requires inverted index")
    value = stored["properties"].get(target)
    if condition.operator == base_pb2.Filters.OPERATOR_CONTAINS_ANY:
        return bool(set(value or []) & set(condition.value_text_array.values))
    if properties[target]["dataType"] != ["number"] or not condition.HasField("value_number"):
        raise Refused(f"data type filter cannot use value on '{target}'")
    return value is not None and _OPERATORS[condition.operator](value, condition.value_number)


def _bm25(words: str, texts: dict[str, str], found: list[str]) -> list[tuple[str, float]]:
    tokens = {one: Counter(re.findall(r"\w+", text.lower())) for one, text in texts.items()}
    lengths = {one: sum(counts.values()) for one, counts in tokens.items()}
    average = sum(lengths.values()) / max(1, len(lengths)) or 1.0
    scores: dict[str, float] = {}
    for word in set(re.findall(r"\w+", words.lower())):
        having = sum(1 for counts in tokens.values() if word in counts)
        idf = math.log(1 + (len(tokens) - having + 0.5) / (having + 0.5))
        for one in found:
            if count := tokens[one][word]:
                norm = 1.2 * (1 - 0.75 + 0.75 * lengths[one] / average)
                scores[one] = scores.get(one, 0.0) + idf * count * 2.2 / (count + norm)
    return sorted(scores.items(), key=lambda pair: -pair[1])


@contextmanager
def weaviate_server() -> Iterator[WeaviateServer]:
    """Run a server on free ports of loopback."""
    state = WeaviateServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.headers = dict(self.headers.items())
            status, body = state.rest(self.command, urlsplit(self.path).path, json.loads(raw or b"{}"))
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((state.host, 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    remote = grpc.server(ThreadPoolExecutor(4))
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(state, remote)
    state.grpc_port = remote.add_insecure_port(f"{state.host}:0")
    remote.start()
    try:
        yield state
    finally:
        remote.stop(None)
        server.shutdown()
        server.server_close()
        thread.join()
