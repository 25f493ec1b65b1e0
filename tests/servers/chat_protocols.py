"""A server on loopback that speaks the protocols of Ollama, Anthropic, Gemini, Bedrock and Cohere to the real clients.

Chat (whole, streamed, with tools) and embeddings or rerankings where the vendor has them, with a bill of its own: what
it served is what ledgers must show. Scripted faults as of the server of OpenAI's protocol, see `openai.Fault`.

    with ChatServer() as server:
        llm = Ollama(model="llama3.2", base_url=server.url)
        server.faults.append(Fault(status=429, retry_after="0.1"))
"""

from __future__ import annotations

import binascii
import json
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.servers.openai import HTML, Fault, Served, _example, unit_vector

PROMPT_TOKENS, ANSWER_TOKENS = 300, 20
ANSWER = ("Red", " fish", " live", " there", ". [1]")


@dataclass
class ChatServer:
    """The server; `served` is its bill, `requests` what it saw, `faults` what goes wrong next, in order.

    Attributes:
        words: What it answers, one word a piece.
        prompt: Input tokens that each chat call is billed, those from the cache included.
        completion: Output tokens that each chat call is billed, those of thinking included.
        cached: How many of the input tokens it read from its cache.
        cache_write: How many of the input tokens Anthropic and Bedrock wrote to their cache.
        cache_write_1h: How many of these stay there for an hour; Anthropic's.
        tier: At which price Anthropic (``speed``) and Google (``trafficType``) say that they served a call.
        reasoning: How many of the output tokens were thinking.
        thinking: What it says of its thinking, in the vendor's own field.
        usage: Whether it says what a call used.
        searches: How many searches a reranking is billed; None for one that counts tokens.
        faults: What goes wrong with the next requests; None lets one pass.
        fail_always: What goes wrong with every request after these.
        requests: Path, headers and body of each request.
        served: Its bill.
    """

    words: tuple[str, ...] = ANSWER
    prompt: int = PROMPT_TOKENS
    completion: int = ANSWER_TOKENS
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    tier: str = ""
    reasoning: int = 0
    thinking: str = ""
    usage: bool = True
    searches: int | None = 1
    faults: deque[Fault | None] = field(default_factory=deque)
    fail_always: Fault | None = None
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)

    def __enter__(self) -> ChatServer:
        handler = type("Handler", (_Handler,), {"state": self})
        self._http = _QuietServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def chats(self) -> list[tuple[int, int, int, int]]:
        """The bill of the chat calls: prompt, completion, cached and reasoning tokens."""
        return [
            (one.prompt, one.completion, one.cached, one.reasoning) for one in self.served if one.completion
        ]

    def answer(self, fault: Fault | None) -> tuple[str, ...]:
        """The words of the next answer."""
        return () if fault is not None and fault.empty else self.words


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that leaves is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    state: ChatServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.state.requests.append((self.path, dict(self.headers), {}))
        self._whole(
            {"name": self.path.rsplit("/", 1)[-1], "inputTokenLimit": 32_768, "outputTokenLimit": 8_192}
        )

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.state.requests.append((path, dict(self.headers), body))
        if path == "/api/show":
            self._whole({"model_info": {"llama.context_length": 8192}, "capabilities": ["completion"]})
            return
        fault = self.state.faults.popleft() if self.state.faults else self.state.fail_always
        if fault is not None and fault.stall_s:
            time.sleep(fault.stall_s)
        if fault is not None and fault.body:
            self._send(fault.body, 200, fault.body_type, {})
            return
        if fault is not None and (fault.status or fault.html or fault.malformed):
            self._refuse(fault)
            return
        for ending, protocol in _PROTOCOLS.items():
            if path.endswith(ending):
                protocol(self, path, body, fault)
                return
        self._whole({"error": f"no such path: {path}"}, 404)

    # -- protocols ---------------------------------------------------------------------------------------------------

    def ollama(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        said = _ollama(self.state, body, self.state.answer(fault))
        self._bill(path, body["model"])
        if body.get("stream"):
            self._stream([json.dumps(line).encode() + b"\n" for line in said], "application/x-ndjson", fault)
        else:
            whole = {key: value for line in said for key, value in line.items()}
            whole["message"] = _merged([line["message"] for line in said])
            self._whole(whole)

    def ollama_embed(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        tokens = sum(len(text.split()) for text in texts)
        self.state.served.append(Served(path, body["model"], tokens))
        vectors = [unit_vector(text, 32) for text in texts]
        self._whole({"model": body["model"], "embeddings": vectors, "prompt_eval_count": tokens})

    def anthropic(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        self._bill(path, body["model"])
        whole = _anthropic(self.state, body, self.state.answer(fault))
        if body.get("stream"):
            self._stream(_sse(_anthropic_events(self.state, whole)), "text/event-stream", fault)
        else:
            self._whole(whole)

    def gemini(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        self._bill(path, path.rpartition("/")[2].partition(":")[0])
        pieces = _gemini(self.state, body, self.state.answer(fault))
        if path.endswith("streamGenerateContent"):
            self._stream(
                [f"data: {json.dumps(one)}\r\n\r\n".encode() for one in pieces], "text/event-stream", fault
            )
        else:
            parts = [part for one in pieces for part in one["candidates"][0]["content"]["parts"]]
            self._whole(pieces[-1] | {"candidates": [_candidate(parts, "STOP")]})

    def gemini_embed(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        requests = body.get("requests", [body])
        texts = [one["content"]["parts"][0]["text"] for one in requests]
        self.state.served.append(Served(path, requests[0].get("model", ""), sum(map(len, texts))))
        self._whole({"embeddings": [{"values": unit_vector(text, 32)} for text in texts]})

    def bedrock(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        self._bill(path, path.split("/")[2])
        content, reason = _bedrock_content(self.state, body, self.state.answer(fault))
        usage = {"usage": _bedrock_usage(self.state)} if self.state.usage else {}
        if path.endswith("-stream"):
            events = _bedrock_events(content, reason, usage)
            self._stream([event_frame(kind, value) for kind, value in events], EVENTS, fault)
        else:
            message = {"role": "assistant", "content": content}
            self._whole(
                {"output": {"message": message}, "stopReason": reason, "metrics": {"latencyMs": 1}, **usage}
            )

    def cohere_rerank(self, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        """The last document is the best."""
        self.state.served.append(Served(path, body["model"], 1))
        count = len(body["documents"])
        results = [
            {"index": place, "relevance_score": (place + 1) / (count + 1)} for place in reversed(range(count))
        ]
        bill: dict[str, Any] = {"usage": {"total_tokens": 60 * count}}
        if self.state.searches is not None:
            bill = {"meta": {"billed_units": {"search_units": self.state.searches}}}
        self._whole({"id": "r", "results": results[: body.get("top_n", count)], **bill})

    # -- how it is sent ----------------------------------------------------------------------------------------------

    def _bill(self, path: str, model: str) -> None:
        state = self.state
        state.served.append(
            Served(path, model, state.prompt, state.completion, state.cached, state.reasoning)
        )

    def _refuse(self, fault: Fault) -> None:
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        if fault.html:
            self._send(HTML, fault.status or 502, "text/html", headers)
        elif fault.malformed:
            self._send(b'{"message": {"mess', 200, "application/json", headers)
        else:
            message = fault.message or f"scripted {fault.status}"
            error = {"type": "scripted", "message": message, "code": fault.status, "status": "SCRIPTED"}
            self._whole({"type": "error", "error": error, "message": message}, fault.status, headers)

    def _whole(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, "application/json", headers or {})

    def _send(self, data: bytes, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pieces: list[bytes], kind: str, fault: Fault | None) -> None:
        """Send pieces in chunks, so that a cut is a broken answer and not its end."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, piece in enumerate(pieces):
                if fault is not None and number == fault.disconnect_after:
                    self.close_connection = True
                    return
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the reader left
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


_PROTOCOLS = {
    "/api/chat": _Handler.ollama,
    "/api/embed": _Handler.ollama_embed,
    "/v1/messages": _Handler.anthropic,
    ":generateContent": _Handler.gemini,
    ":streamGenerateContent": _Handler.gemini,
    ":batchEmbedContents": _Handler.gemini_embed,
    ":embedContent": _Handler.gemini_embed,
    "/converse": _Handler.bedrock,
    "/converse-stream": _Handler.bedrock,
    "/v2/rerank": _Handler.cohere_rerank,
}
"""End of the path -> what answers it."""
EVENTS = "application/vnd.amazon.eventstream"


def _tool(body: dict[str, Any], *path: str) -> dict[str, Any] | None:
    """The first tool that a request offers, as name and schema."""
    found: Any = body
    for step in path:
        found = found.get(step) or {} if isinstance(found, dict) else found
    return found[0] if found else None


def _merged(messages: list[dict[str, Any]]) -> dict[str, Any]:
    whole = {key: value for message in messages for key, value in message.items()}
    for key in ("content", "thinking"):
        if any(key in message for message in messages):
            whole[key] = "".join(message.get(key, "") for message in messages)
    return whole


def _ollama(state: ChatServer, body: dict[str, Any], words: tuple[str, ...]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": word} for word in words]
    if state.thinking:
        messages.insert(0, {"role": "assistant", "content": "", "thinking": state.thinking})
    if (tool := _tool(body, "tools")) is not None:
        function = tool["function"]
        call = {"function": {"name": function["name"], "arguments": _example(function["parameters"])}}
        messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    lines: list[dict[str, Any]] = [
        {"model": body["model"], "message": message, "done": False} for message in messages
    ]
    counts = {"prompt_eval_count": state.prompt, "eval_count": state.completion} if state.usage else {}
    empty = {"role": "assistant", "content": ""}
    return [*lines, {"model": body["model"], "message": empty, "done": True, "done_reason": "stop", **counts}]


def _anthropic(state: ChatServer, body: dict[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(words)}] if words else []
    if state.thinking:
        content.insert(0, {"type": "thinking", "thinking": state.thinking, "signature": "s"})
    if (tool := _tool(body, "tools")) is not None:
        content = [
            {"type": "tool_use", "id": "t", "name": tool["name"], "input": _example(tool["input_schema"])}
        ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": state.prompt - state.cached - state.cache_write,
            "cache_read_input_tokens": state.cached,
            "cache_creation_input_tokens": state.cache_write,
            "cache_creation": {
                "ephemeral_5m_input_tokens": state.cache_write - state.cache_write_1h,
                "ephemeral_1h_input_tokens": state.cache_write_1h,
            },
            "output_tokens": state.completion,
            **({"speed": state.tier} if state.tier else {}),
        },
    }


def _anthropic_events(state: ChatServer, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    start = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    for place, block in enumerate(whole["content"]):
        kind = block["type"]
        empty = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }[kind]
        yield {"type": "content_block_start", "index": place, "content_block": block | empty}
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in state.words]
        if kind == "thinking":
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": "s"},
            ]
        if kind == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        for delta in deltas:
            yield {"type": "content_block_delta", "index": place, "delta": delta}
        yield {"type": "content_block_stop", "index": place}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": state.completion}}
    yield {"type": "message_stop"}


def _sse(events: Iterator[dict[str, Any]]) -> list[bytes]:
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _gemini(state: ChatServer, body: dict[str, Any], words: tuple[str, ...]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": word} for word in words] or [{"text": ""}]
    if state.thinking:
        parts.insert(0, {"text": state.thinking, "thought": True})
    if (tool := _tool(body, "tools")) is not None:
        function = tool["functionDeclarations"][0]
        schema = function.get("parameters") or function.get("parametersJsonSchema") or {}
        parts = [{"functionCall": {"name": function["name"], "args": _example(_lower_types(schema))}}]
    counts = {
        "promptTokenCount": state.prompt,
        "candidatesTokenCount": state.completion - state.reasoning,
        "thoughtsTokenCount": state.reasoning,
        "cachedContentTokenCount": state.cached,
        "totalTokenCount": state.prompt + state.completion,
        **({"trafficType": state.tier} if state.tier else {}),
    }
    usage = {"usageMetadata": counts} if state.usage else {}
    last = len(parts) - 1
    return [
        {
            "candidates": [_candidate([part], "STOP" if place == last else None)],
            **(usage if place == last else {}),
        }
        for place, part in enumerate(parts)
    ]


def _lower_types(schema: Any) -> Any:
    """A schema whose types are in lower case, as JSON Schema has them; Gemini's are in upper case."""
    if isinstance(schema, dict):
        return {
            key: value.lower() if key == "type" and isinstance(value, str) else _lower_types(value)
            for key, value in schema.items()
        }
    return schema


def _candidate(parts: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    return candidate if reason is None else candidate | {"finishReason": reason}


def _bedrock_content(
    state: ChatServer, body: dict[str, Any], words: tuple[str, ...]
) -> tuple[list[dict[str, Any]], str]:
    if (tool := _tool(body, "toolConfig", "tools")) is not None:
        spec = tool["toolSpec"]
        return [
            {
                "toolUse": {
                    "toolUseId": "t",
                    "name": spec["name"],
                    "input": _example(spec["inputSchema"]["json"]),
                }
            }
        ], "tool_use"
    return [{"text": "".join(words)}] if words else [], "end_turn"


def _bedrock_usage(state: ChatServer) -> dict[str, int]:
    return {
        "inputTokens": state.prompt - state.cached - state.cache_write,
        "cacheReadInputTokens": state.cached,
        "cacheWriteInputTokens": state.cache_write,
        "outputTokens": state.completion,
        "totalTokens": state.prompt + state.completion,
    }


def _bedrock_events(
    content: list[dict[str, Any]], reason: str, usage: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant"}
    for place, block in enumerate(content):
        if "toolUse" in block:
            start = {"toolUse": {key: block["toolUse"][key] for key in ("toolUseId", "name")}}
            yield "contentBlockStart", {"contentBlockIndex": place, "start": start}
            delta: dict[str, Any] = {"toolUse": {"input": json.dumps(block["toolUse"]["input"])}}
            yield "contentBlockDelta", {"contentBlockIndex": place, "delta": delta}
        else:
            for word in block["text"].split(" "):
                piece = word if word == block["text"].split(" ")[0] else f" {word}"
                yield "contentBlockDelta", {"contentBlockIndex": place, "delta": {"text": piece}}
        yield "contentBlockStop", {"contentBlockIndex": place}
    yield "messageStop", {"stopReason": reason}
    yield "metadata", {"metrics": {"latencyMs": 1}, **usage}


def event_frame(kind: str, value: dict[str, Any]) -> bytes:
    """One message of Amazon's event stream: lengths, headers, payload, checksums."""
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(text)) + text.encode()
        for name, text in (
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    payload = json.dumps(value).encode()
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))
