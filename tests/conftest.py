"""Shared by every test: no hub, no telemetry, no key from the outside."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _no_outside_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the developer's shell must never reach a test."""
    for name in ("OPENAI_API_KEY", "PINECONE_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
