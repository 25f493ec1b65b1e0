"""Servers on loopback, in this process, with small fakes in place of models."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core import Document
from llama_index.core.llms.llm import LLM
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.serve.callers.key_file import Caller, KeyFile
from llama_index_presets.serve.config import EngineConfig, ServeConfig
from llama_index_presets.serve.engines import Engines
from llama_index_presets.serve.server import Process

TEXTS = {
    "cats.txt": "Cats purr all day.",
    "dogs.txt": "Dogs bark at night.",
}


class LocalWords(WordEmbedding):
    """Free: counted as a model of this machine."""

    @classmethod
    def class_name(cls) -> str:
        return "HuggingFaceEmbedding"


class PaidLLM(ScriptedLLM):
    """Priced as gpt-4o-mini of OpenAI."""

    @classmethod
    def class_name(cls) -> str:
        return "openai_llm"

    @property
    def metadata(self) -> Any:
        return super().metadata.model_copy(update={"model_name": "gpt-4o-mini"})


def fill(engine: PresetEngine) -> PresetEngine:
    engine.ingest([Document(text=text, id_=name) for name, text in TEXTS.items()], show_progress=False)
    return engine


def opener(llm: Callable[[], LLM] | None = None) -> Callable[[EngineConfig], PresetEngine]:
    """Opens engines over fakes; an index that is empty is filled."""

    def open_engine(config: EngineConfig) -> PresetEngine:
        engine = build(
            config.preset,
            storage=config.storage,
            embed_model=LocalWords(),
            llm=llm() if llm else PaidLLM(),
            settings=config.settings,
        )
        return engine if engine.documents() else fill(engine)

    return open_engine


class Running:
    """A server that runs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = process.url

    @property
    def engine(self) -> PresetEngine:
        return self.process.server.engines.all()[0].engine

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)


@contextlib.contextmanager
def running(
    config: ServeConfig, open_engine: Callable[[EngineConfig], PresetEngine] | None = None, **options: Any
) -> Iterator[Running]:
    process = Process(
        config, engines=Engines(open_engine or opener(), sums=options.pop("sums", None)), **options
    )
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        with httpx.Client(base_url=process.url, timeout=60) as client:
            until = time.monotonic() + 60
            while thread.is_alive() and client.get("/readyz").status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.02)
        yield Running(process)
    finally:
        process.stop()
        thread.join(60)
        assert not thread.is_alive()


def config_of(folder: Path, **options: Any) -> ServeConfig:
    engines = options.pop("engines", None) or {
        "kb": EngineConfig(preset="knowledge-base", storage=str(folder / "kb"))
    }
    return ServeConfig(engines=engines, port=0, **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Running]:
    """One engine `kb`, without keys."""
    with running(config_of(home)) as one:
        yield one


def add_keys(path: Path, callers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    file = KeyFile(path)
    return {name: file.add(Caller(name=name, **values)) for name, values in callers.items()}


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
    return value
