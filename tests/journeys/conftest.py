"""A service in the place of OpenAI's, for rows that call one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers.openai import OpenAIServer


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """Answers with `words`; the real client finds it through the environment."""
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        yield server
