"""Permissions on the side paths of a question: outages, failing legs, further legs, the cache, other languages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import MetadataMode, QueryBundle
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import PresetEngine, build

QUESTION = "What does Ada Marmot earn in 2023?"
PAY = Document(
    text="Ada Marmot earns seven crowns.",
    id_="pay",
    metadata={"allowed": ["hr"], "year": 2023, "author": "Marmot"},
)
OPEN = Document(
    text="Ada Lovelace wrote of engines.",
    id_="open",
    metadata={"allowed": ["all"], "year": 1843, "author": "Ada"},
)
SECRETS = ("earns seven", "seven crowns")


class Guessing(ScriptedLLM):
    """Writes further questions and passages of the very words of the secret, in another order."""

    says: str = "Crowns seven earns Marmot Ada [1].\nCrowns earns who, seven?\nMarmot, 2023, Ada"


class Down(ScriptedLLM):
    """A language model that does not answer."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise ConnectionError("down")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise ConnectionError("down")


class DownEmbedding(WordEmbedding):
    """Embeds documents, and no question."""

    def _get_query_embedding(self, query: str) -> list[float]:
        raise TimeoutError("down")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise TimeoutError("down")


def whole(response: Any) -> tuple[str, list[Any], dict[str, Any]]:
    return str(response), list(response.source_nodes), dict(response.metadata or {})


def streamed(stream: Any) -> tuple[str, list[Any], dict[str, Any]]:
    return "".join(stream.response_gen), list(stream.source_nodes), dict(stream.metadata or {})


def talked(reply: Any) -> tuple[str, list[Any], dict[str, Any]]:
    return str(reply), list(reply.source_nodes), dict(reply.metadata or {})


WAYS: dict[str, Callable[[PresetEngine], tuple[str, list[Any], dict[str, Any]]]] = {
    "query": lambda view: whole(view.query(QUESTION)),
    "aquery": lambda view: whole(asyncio.run(view.aquery(QUESTION))),
    "stream": lambda view: streamed(view.stream(QUESTION)),
    "retrieve": lambda view: ("", list(view.retrieve(QueryBundle(QUESTION))), {}),
    "chat": lambda view: talked(view.as_chat_engine().chat(QUESTION)),
}
HYBRID = {"pattern": "hybrid"}
SECOND = "tests.fakes:WordEmbedding?model_name=words"
PATHS: dict[str, dict[str, Any]] = {
    "model down": {"llm": Down(), "settings": {"on_outage": "answer"}},
    "search down": {"embed_model": DownEmbedding(), "settings": {"on_outage": "answer"}},
    "vector leg down": {"embed_model": DownEmbedding(), "settings": {**HYBRID, "on_leg_error": "degrade"}},
    "second embedding": {"settings": {**HYBRID, "second_embedding": SECOND}},
    "passage of the model": {"settings": {**HYBRID, "hyde": True}},
    "questions of the model": {"settings": {**HYBRID, "num_queries": 3}},
    "filters of the question": {"settings": {**HYBRID, "question_filters": True}},
    "answer cache": {"settings": {"answer_cache": "on"}},
    "everything": {
        "settings": {
            **HYBRID, "second_embedding": SECOND, "hyde": True, "num_queries": 2, "question_filters": True,
            "answer_cache": "on", "on_outage": "answer", "on_leg_error": "degrade",
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=PATHS)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PresetEngine]:
    """An engine of each path over one secret and one open document; hr has asked before."""
    options = {"embed_model": WordEmbedding(), "llm": Guessing(), **PATHS[request.param]}
    options["settings"] = {
        "permissions": "on", "store": "duckdb", "answer_floor": -1.0, "monitoring": "basic", **options["settings"],
    }  # fmt: skip
    with build("knowledge-base", storage=tmp_path_factory.mktemp("index"), **options) as made:
        assert made.ingest([PAY, OPEN], show_progress=False).failed == []
        sees = made.as_user(groups=["hr"])
        sees.query(QUESTION)
        if request.param != "search down":
            assert "pay" in {hit.node.ref_doc_id for hit in sees.query(QUESTION).source_nodes}
        yield made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("user", ["outsider", "reader"])
def test_a_side_path_shows_nothing_of_others(engine: PresetEngine, way: str, user: str) -> None:
    """Neither text, nor passage, nor metadata has a word of a document that the caller may not see."""
    view = engine.as_user(groups=["all"]) if user == "reader" else engine.as_user(user="eve")
    model: Any = engine.llm
    model.prompts.clear()
    try:
        text, hits, metadata = WAYS[way](view)
    except (ConnectionError, TimeoutError) as error:  # of `retrieve`, which has no apology
        assert str(error) == "down"
        return
    assert {hit.node.ref_doc_id for hit in hits} <= ({"open"} if user == "reader" else set())
    shown = f"{text} {[hit.node.get_content(MetadataMode.ALL) for hit in hits]} {metadata} {model.prompts}"
    assert not [secret for secret in SECRETS if secret in shown]


def test_a_failing_keyword_leg_shows_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector leg alone keeps the permissions, and the keyword leg alone does, too."""
    settings = {**HYBRID, "permissions": "on", "on_leg_error": "degrade", "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=ScriptedLLM(), settings=settings
    ) as engine:
        engine.ingest([PAY, OPEN], show_progress=False)

        def fail(*args: Any, **options: Any) -> Any:
            raise ConnectionError("down")

        monkeypatch.setattr(type(engine._parts.retrieval.keyword), "find", fail)
        answers = {name: engine.as_user(groups=[name]).query(QUESTION) for name in ("hr", "all", "sales")}
        found = {
            name: {hit.node.ref_doc_id for hit in answer.source_nodes} for name, answer in answers.items()
        }
        assert list((answers["hr"].metadata or {})["failed_legs"]) == ["bm25"]
        assert found == {"hr": {"pay"}, "all": {"open"}, "sales": set()}


def test_filters_of_a_question_name_no_value_of_others(tmp_path: Path) -> None:
    """Which authors and years there are is read from what the caller sees: a hidden one is no filter."""
    settings = {**HYBRID, "permissions": "on", "question_filters": True, "answer_floor": -1.0}
    with build(
        "knowledge-base", storage=tmp_path, embed_model=WordEmbedding(), llm=ScriptedLLM(), settings=settings
    ) as engine:
        engine.ingest([PAY, OPEN], show_progress=False)
        hits = engine.as_user(groups=["all"]).retrieve(QueryBundle("What was written by Marmot in 2023?"))
        assert {hit.node.ref_doc_id for hit in hits} <= {"open"}
        assert "Marmot" not in str([hit.node.metadata for hit in hits])


def test_other_languages_keep_permissions(tmp_path: Path) -> None:
    """A question in a language that the embedding model does not know goes by words, and by permissions."""
    thai = "ไดโนเสาร์กินใบไม้ทุกวันในป่าใหญ่"
    documents = [
        Document(text=thai, id_="hidden", metadata={"allowed": ["hr"]}),
        Document(text="แมวนอนบนหลังคาบ้านทุกคืน", id_="shown", metadata={"allowed": ["all"]}),
    ]
    with build("healthcare", storage=tmp_path, settings={"permissions": "on"}) as engine:
        engine.ingest(documents, show_progress=False)
        assert engine._parts.language_fallback is not None and engine._parts.language_fallback.covers(thai)
        found = {
            name: {hit.node.ref_doc_id for hit in engine.as_user(groups=[name]).retrieve(QueryBundle(thai))}
            for name in ("hr", "all", "sales")
        }
        assert "hidden" in found["hr"]
        assert (found["all"] <= {"shown"}, found["sales"]) == (True, set())
        assert str(engine.as_user(groups=["sales"]).query(thai)).startswith("I don't know")
