"""Fixtures: a server of OpenAI's protocol, and a ledger that has a row of every call of the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.openai import OpenAIServer

from llama_index_presets import CostTrackingHandler, Ledger

__all__ = ["ledger", "server"]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """The server."""
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger; its handler listens until the test ends."""
    with Ledger(tmp_path / "calls.duckdb") as opened:
        handler = CostTrackingHandler(opened)
        handler.instrument()
        yield opened
        handler.close()
