"""Servers on loopback that speak Ollama's and Anthropic's protocols to the real clients, with usage of their own."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS, ANSWER_TOKENS = 300, 20
ANSWER = ("Red", " fish", " live", " there", ". [1]")


@dataclass
class ChatServer:
    """Answers ``/api/chat`` as Ollama does and ``/v1/messages`` as Anthropic does, streamed or whole.

    Attributes:
        requests: Path, headers and body of each request.
    """

    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> ChatServer:
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server_state: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server_state.requests.append((self.path, dict(self.headers), body))
        if self.path == "/api/show":
            self._send(
                [json.dumps({"model_info": {"llama.context_length": 8192}, "capabilities": ["completion"]})]
            )
        elif self.path == "/api/chat":
            self._send([json.dumps(line) + "\n" for line in _ollama(body)], kind="application/x-ndjson")
        elif body.get("stream"):
            events = [
                f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _anthropic_events(body)
            ]
            self._send(events, kind="text/event-stream")
        else:
            self._send([json.dumps(_anthropic(body))])

    def _send(self, pieces: list[str], kind: str = "application/json") -> None:
        data = "".join(pieces).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _ollama(body: dict[str, Any]) -> list[dict[str, Any]]:
    last = {
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": PROMPT_TOKENS,
        "eval_count": ANSWER_TOKENS,
    }
    words = ANSWER if body.get("stream") else ("".join(ANSWER),)
    lines: list[dict[str, Any]] = [
        {"model": body["model"], "message": {"role": "assistant", "content": word}, "done": False}
        for word in words
    ]
    if not body.get("stream"):
        return [lines[0] | last]
    return [*lines, {"model": body["model"], "message": {"role": "assistant", "content": ""}} | last]


def _anthropic(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": "".join(ANSWER)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": ANSWER_TOKENS},
    }


def _anthropic_events(body: dict[str, Any]) -> list[dict[str, Any]]:
    start = _anthropic(body) | {"content": [], "stop_reason": None}
    start["usage"] = {"input_tokens": PROMPT_TOKENS, "output_tokens": 1}
    text = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in ANSWER
    ]
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *text,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": ANSWER_TOKENS},
        },
        {"type": "message_stop"},
    ]
