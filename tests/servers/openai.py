"""An OpenAI-compatible server on loopback, with a bill of its own: what it served is what ledgers must show.

Chat (plain, streamed with and without usage, tools), Responses, legacy completions and embeddings; scripted
faults: a status with Retry-After, malformed JSON, a stall, a disconnect in mid-stream.

    with OpenAIServer() as server:
        llm = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
        server.faults.append(Fault(status=429, retry_after="0.1"))
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import tiktoken

from llama_index_presets.monitor.calls.usage import _encoding

_PATHS = ("/chat/completions", "/completions", "/responses", "/embeddings")
"""What is served, below any prefix: Azure puts the deployment before, and its version behind."""


@dataclass(frozen=True)
class Served:
    """The tokens of one answered call, as the server bills them."""

    path: str
    model: str
    prompt: int
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: Of the answer, with an error in the vendor's own form.
        retry_after: A header of that answer.
        malformed: Whether the answer is JSON that breaks off.
        stall_s: Seconds before the answer.
        disconnect_after: Pieces of a stream after which the connection breaks.
        html: Whether the answer is the page of a proxy, with the status or 502.
        empty: Whether the answer has no text.
        message: Of the error.
        without: Key that the answer lacks: `choices` or `data`.
        body: In place of an answer, with status 200.
        body_type: Its content type.
    """

    status: int = 0
    retry_after: str | None = None
    malformed: bool = False
    stall_s: float = 0.0
    disconnect_after: int | None = None
    html: bool = False
    empty: bool = False
    message: str = ""
    without: str = ""
    body: bytes = b""
    body_type: str = ""


HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass
class OpenAIServer:
    """The server; `served` is its bill, `requests` what it saw, `faults` what goes wrong next, in order.

    Attributes:
        prompt: Input tokens that each chat call is billed.
        completion: Output tokens that each chat call is billed.
        cached: How many of the input tokens it read from its cache.
        reasoning: How many of the output tokens were thinking.
        words: What it answers, one word a chunk.
        ending: Finish reason of a plain chat call.
        writes: What it answers to the body of a request, in place of `words`.
        latency_s: How long each answer takes.
        faults: What goes wrong with the next requests; None lets one pass.
        fail_always: What goes wrong with every request.
        refusal: What a request with `stream_options` is refused with: a status and a message; None takes it.
        numbers_vectors: Whether each vector of an answer has its ``index``.
        usage_words: Further usage of a chat call, in a vendor's own words.
        most_under_way: Requests that were being answered at the same moment, at most.
        models: What ``/models`` lists.
        reports_usage: Whether it says what a chat call used.
        obeys_limits: Whether a reply ends at the limit of the request: a longer one is billed so far, and has no text.
        mistral: Whether it speaks Mistral's dialect: streams say their usage unasked, a call of a tool has a text.
    """

    prompt: int = 1000
    completion: int = 100
    cached: int = 0
    reasoning: int = 0
    words: tuple[str, ...] = ("The", " answer", " is", " 42", ".")
    writes: Callable[[dict[str, Any]], Iterable[str]] | None = None
    latency_s: float = 0.0
    faults: deque[Fault | None] = field(default_factory=deque)
    fail_always: Fault | None = None
    refusal: tuple[int, str] | None = None
    numbers_vectors: bool = True
    usage_words: dict[str, Any] | None = None
    models: list[dict[str, Any]] = field(default_factory=list)
    reports_usage: bool = True
    obeys_limits: bool = False
    mistral: bool = False
    ending: str = "stop"
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    seen_at: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    def __enter__(self) -> OpenAIServer:
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"bill": self})
        self._http = _QuietServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def next_fault(self) -> Fault | None:
        """Take the fault of the next request."""
        with self.lock:
            return self.faults.popleft() if self.faults else self.fail_always

    def usage(self) -> dict[str, Any]:
        """The usage of a chat call, as OpenAI's chat API words it, or in the words of another vendor."""
        counts = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.usage_words is not None:
            return counts | self.usage_words
        return counts | {
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def limited_to(self, body: dict[str, Any]) -> OpenAIServer:
        """What it is to one request: a model that is cut off while it thinks has said nothing."""
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if not self.obeys_limits or limit is None or limit >= self.completion:
            return self
        limited = copy.copy(self)
        limited.completion, limited.words, limited.ending = limit, (), "length"
        return limited

    def responses_usage(self) -> dict[str, Any]:
        """The usage of a call, as OpenAI's Responses API words it."""
        return {
            "input_tokens": self.prompt,
            "output_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
        }


class _QuietServer(ThreadingHTTPServer):
    """Threads that die with the test, and no tracebacks for clients that hang up."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that leaves is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    """One connection; the class attribute `bill` is the server."""

    bill: OpenAIServer
    protocol_version = "HTTP/1.1"
    _without = ""

    def do_GET(self) -> None:
        """The list of models."""
        self._send(json.dumps({"object": "list", "data": self.bill.models}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        path = next(known for known in _PATHS if self.path.partition("?")[0].endswith(known))
        with self.bill.lock:
            self.bill.requests.append((path, body))
            self.bill.seen_at.append(time.monotonic())
        fault = self.bill.next_fault()
        self._without = fault.without if fault else ""
        if fault is not None and fault.stall_s:
            time.sleep(fault.stall_s)
        if fault is not None and fault.body:
            self._send(fault.body, 200, {"Content-Type": fault.body_type})
        elif fault is not None and fault.html:
            self._send(HTML, fault.status or 502, {"Content-Type": "text/html"})
        elif fault is not None and fault.status:
            self._refuse(fault, fault.message)
        elif self.bill.refusal is not None and "stream_options" in body:
            self._refuse(Fault(status=self.bill.refusal[0]), self.bill.refusal[1])
        elif fault is not None and fault.malformed:
            self._send(b'{"id": "chatcmpl-1", "choices": [{"mess')
        else:
            self._take_time()
            self._answer(path, body, fault)

    def _take_time(self) -> None:
        """Ends before the answer, so that a client's next request is not counted beside this one."""
        with self.bill.lock:
            self.bill.under_way += 1
            self.bill.most_under_way = max(self.bill.most_under_way, self.bill.under_way)
        time.sleep(self.bill.latency_s)
        with self.bill.lock:
            self.bill.under_way -= 1

    def _answer(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        if path == "/embeddings":
            self._embed(body)
            return
        bill = self.bill.limited_to(body)
        self._charge(path, body, bill)
        if fault is not None and fault.empty:
            body = body | {"_empty": True}
        make, stream = {
            "/chat/completions": (_chat, _chat_stream),
            "/completions": (_completion, _completion_stream),
            "/responses": (_response, _response_stream),
        }[path]
        if body.get("stream"):
            self._stream(stream(bill, body), fault.disconnect_after if fault else None)
        else:
            self._send(json.dumps(make(bill, body)).encode())

    def _charge(self, path: str, body: dict[str, Any], bill: OpenAIServer) -> None:
        with bill.lock:
            bill.served.append(
                Served(path, body["model"], bill.prompt, bill.completion, bill.cached, bill.reasoning)
            )

    def _embed(self, body: dict[str, Any]) -> None:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        encoding: tiktoken.Encoding = _encoding("cl100k_base")
        tokens = sum(len(encoding.encode_ordinary(text)) for text in texts)
        dim = body.get("dimensions") or (3072 if body["model"].endswith("large") else 1536)
        with self.bill.lock:
            self.bill.served.append(Served("/embeddings", body["model"], tokens))
        vectors = [unit_vector(text, dim) for text in texts]
        encoded = [
            _base64(vector) if body.get("encoding_format") == "base64" else vector for vector in vectors
        ]
        data: list[dict[str, Any]] = [{"object": "embedding", "embedding": vector} for vector in encoded]
        if self.bill.numbers_vectors:
            data = [vector | {"index": n} for n, vector in enumerate(data)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._send(
            json.dumps(
                {"id": "e", "object": "list", "model": body["model"], "data": data, "usage": usage}
            ).encode()
        )

    def _refuse(self, fault: Fault, message: str = "") -> None:
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        error = {
            "message": message or f"scripted {fault.status}",
            "type": "scripted",
            "code": None,
            "param": None,
        }
        self._send(json.dumps({"error": error}).encode(), fault.status, headers)

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self._without:
            answer = json.loads(data)
            data = json.dumps({key: value for key, value in answer.items() if key != self._without}).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[dict[str, Any]], disconnect_after: int | None) -> None:
        """Send server-sent events in chunks, so that a cut is a broken answer and not its end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, event in enumerate(events):
                if number == disconnect_after:
                    self.close_connection = True
                    return
                event.pop(self._without, None)
                kind = f"event: {event['type']}\n" if "type" in event else ""
                self._chunk(f"{kind}data: {json.dumps(event)}\n\n")
            self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the reader left
            self.close_connection = True

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


def unit_vector(text: str, dim: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    seed = hashlib.sha256(text.encode()).digest()
    values = [byte - 127.5 for byte in (seed * (dim // len(seed) + 1))[:dim]]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _example(schema: dict[str, Any]) -> Any:
    """An instance of a JSON schema, as small as it goes."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _example(part) for name, part in schema.get("properties", {}).items()}
    return {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": []}.get(
        schema.get("type", "")
    )


def _tool_calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    function = body["tools"][0]["function"]
    arguments = json.dumps(_example(function["parameters"]))
    return [
        {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
    ]


def _words(bill: OpenAIServer, body: dict[str, Any]) -> tuple[str, ...]:
    if body.get("_empty"):
        return ()
    return bill.words if bill.writes is None else tuple(bill.writes(body))


def _chat(bill: OpenAIServer, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(_words(bill, body))}
    if body.get("tools"):
        message = {
            "role": "assistant",
            "content": "" if bill.mistral else None,
            "tool_calls": _tool_calls(body),
        }
    elif "json_schema" in body.get("response_format", {}):
        message["content"] = json.dumps(_example(body["response_format"]["json_schema"]["schema"]))
    choice = {"index": 0, "message": message, "finish_reason": bill.ending}
    usage = {"usage": bill.usage()} if bill.reports_usage else {}
    return _head(body, "chat.completion") | {"choices": [choice], **usage}


def _chat_stream(bill: OpenAIServer, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    deltas: Iterable[dict[str, Any]] = ({"role": "assistant", "content": word} for word in _words(bill, body))
    if body.get("tools"):
        calls = [{"index": n, **call} for n, call in enumerate(_tool_calls(body))]
        deltas = [{"role": "assistant", "tool_calls": calls}]
    for delta in deltas:
        yield _head(body, "chat.completion.chunk") | {
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}]
        }
    ending = {"index": 0, "delta": {}, "finish_reason": "stop"}
    if bill.mistral:
        yield _head(body, "chat.completion.chunk") | {"choices": [ending], "usage": bill.usage()}
        return
    yield _head(body, "chat.completion.chunk") | {"choices": [ending]}
    if (body.get("stream_options") or {}).get("include_usage") and bill.reports_usage:
        yield _head(body, "chat.completion.chunk") | {"choices": [], "usage": bill.usage()}


def _completion(bill: OpenAIServer, body: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": "".join(bill.words), "finish_reason": "stop", "logprobs": None}
    return _head(body, "text_completion") | {"choices": [choice], "usage": bill.usage()}


def _completion_stream(bill: OpenAIServer, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for word in bill.words:
        yield _head(body, "text_completion") | {"choices": [{"index": 0, "text": word}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _head(body, "text_completion") | {"choices": [], "usage": bill.usage()}


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    tier = {"service_tier": body["service_tier"]} if "service_tier" in body else {}
    return {"id": "cmpl-1", "object": kind, "created": 1_700_000_000, "model": body["model"], **tier}


def _response(bill: OpenAIServer, body: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(bill.words), "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": body["model"],
        "status": "completed",
        "output": [item],
        "usage": bill.responses_usage(),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _response_stream(bill: OpenAIServer, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    whole = _response(bill, body)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    item = whole["output"][0]
    added = item | {"content": [], "status": "in_progress"}
    events.append({"type": "response.output_item.added", "output_index": 0, "item": added})
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    for word in bill.words:
        events.append({"type": "response.output_text.delta", **place, "delta": word, "logprobs": []})
    events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        yield event | {"sequence_number": number}
