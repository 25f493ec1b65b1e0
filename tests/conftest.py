"""Shared by every test: no hub, no telemetry, no key from the outside."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for _home in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):  # an audit key, the local part of a remote storage
    os.environ[_home] = tempfile.mkdtemp()  # one for each test process

WITH_TORCH = (
    "unit/embed/test_any_model.py",
    "unit/inference/test_long_runs.py",
    "unit/inference/test_openvino.py",
    "unit/inference/test_runtime.py",
    "unit/rerank/test_cross_encoder.py",
    "unit/rerank/test_first_token.py",
    "unit/rerank/test_training.py",
)
"""Comparisons with what torch computes. `tools/pythons.py --without-torch` runs the others."""
collect_ignore = [] if find_spec("torch") else list(WITH_TORCH)


def pytest_report_header() -> str | None:
    """What is left out is said."""
    return f"torch is not installed: left out are {', '.join(collect_ignore)}" if collect_ignore else None


# A busy machine is not a failure: no test asserts a time.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test says why it is not part of `make test`."""
    for item in items:
        for marker in item.iter_markers("slow"):
            if len(marker.args) != 1 or not isinstance(marker.args[0], str):
                raise pytest.UsageError(f"{item.nodeid}: mark it with a reason, @pytest.mark.slow('why')")


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


@pytest.fixture(autouse=True, scope="module")
def _nobody_keeps_listening() -> Iterator[None]:
    """What listens to LlamaIndex belongs to the whole process: no module hears the listeners of another."""
    from llama_index.core import Settings
    from llama_index.core.instrumentation import get_dispatcher

    root, manager = get_dispatcher(), Settings.callback_manager
    events, spans, handlers = list(root.event_handlers), list(root.span_handlers), list(manager.handlers)
    yield
    root.event_handlers, root.span_handlers = events, spans
    Settings.callback_manager = manager
    manager.set_handlers(handlers)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; gives exit code, standard output, standard error."""
    from llama_index_presets import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llama-presets", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call
