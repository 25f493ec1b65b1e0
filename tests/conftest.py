"""Shared by every test: no hub, no telemetry, no key from the outside."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # where an audit key would be made

# A busy machine is not a failure: no test asserts a time.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(autouse=True)
def _no_outside_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the developer's shell must never reach a test."""
    for name in (
        "OPENAI_API_KEY",
        "PINECONE_API_KEY",
        "ANTHROPIC_API_KEY",
        "LLAMA_PRESETS_AUDIT_KEY",
        "LLAMA_PRESETS_ENCRYPTION_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
