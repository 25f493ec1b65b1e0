"""Stand-in for a language model served on this machine: OpenAI's chat protocol on loopback, always the same answer."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

__all__ = ["LoopbackModel"]

_ANSWER: Final = {
    "id": "stand-in",
    "object": "chat.completion",
    "created": 0,
    "model": "stand-in",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "It is served here. [1]"},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class LoopbackModel:
    """Server on loopback, for the time of a ``with`` block.

    Attributes:
        requests: How many requests it has answered.
    """

    def __init__(self) -> None:
        self.requests = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            """Answers every request alike."""

            def do_POST(self) -> None:
                """Answer."""
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner.requests += 1
                data = json.dumps(_ANSWER).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def name(self) -> str:
        """Its name, as a setting `llm` spells it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1#stand-in"

    def __enter__(self) -> LoopbackModel:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
