"""A preset as the application under a leak test: the whole way from files to streamed answers, on planted names."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index.core.schema import Document
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from llama_index_presets._options import option_names, strict
from llama_index_presets.monitor.leak_app import SayingLLM
from llama_index_presets.monitor.leaks import Planted
from llama_index_presets.presets.build import build
from llama_index_presets.presets.engine import PresetEngine

__all__ = ["preset_app"]


@strict(also=option_names(build))
def preset_app(preset: str, **options: Any) -> Callable[[Planted], None]:
    """Make the application that `find_leaks` runs.

    It builds the preset offline in a temporary folder, with traces to the collector that watches and an LLM that says
    the planted answer.

    Args:
        preset: A row of the matrix.
        **options: What `build` takes, such as `embed_model` or `settings`.

    Raises:
        SettingsError: Later, when it runs, if the preset cannot be built here.

    Example:
        >>> from llama_index_presets.monitor.leaks import find_leaks
        >>> report = find_leaks(preset_app("healthcare"))
        >>> report.clean, report.spans > 10
        (True, True)
    """

    def app(planted: Planted) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for says, raises in ((planted.text("answer"), False), (planted.text("exception"), True)):
                chosen = {
                    "offline": True,
                    "llm": SayingLLM(says=says, raises=raises),
                    **options,
                    "settings": {
                        "answer_floor": -1.0,
                        **options.get("settings", {}),
                        "trace_endpoint": planted.endpoint,
                    },
                }
                with build(preset, storage=Path(folder) / "index", **chosen) as engine:
                    _ingest(engine, planted, Path(folder) / "documents")
                    _ask(engine, planted)

    return app


def _ingest(engine: PresetEngine, planted: Planted, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{planted.names['document']}.txt").write_text(planted.text("document"), encoding="utf-8")
    (folder / f"{planted.names['document']}.broken.pdf").write_bytes(b"no PDF")
    engine.ingest(folder, show_progress=False)
    metadata = {"patient": planted.names["metadata"], "doctor": planted.names["filter"]}
    engine.ingest([Document(text=planted.text("document"), metadata=metadata)], show_progress=False)


def _ask(engine: PresetEngine, planted: Planted) -> None:
    question = planted.text("query")
    filters = MetadataFilters(filters=[MetadataFilter(key="doctor", value=planted.names["filter"])])
    for ask in (
        lambda: engine.query(question),
        lambda: engine.filtered(filters).query(question),
        lambda: asyncio.run(_aask(engine, question)),
        lambda: str(engine.stream(question)),
        lambda: engine.as_chat_engine().chat(planted.text("template")),
    ):
        with contextlib.suppress(ValueError):  # what the failing LLM raises
            ask()


async def _aask(engine: PresetEngine, question: str) -> None:
    await engine.aquery(question)
