"""The answer cache of an engine: a hit only where the answer cannot be another one."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import build
from llama_index_presets.presets.engine import PresetEngine

OF = "response_synthesizer"
QUESTION = "When are the parcels returned?"
DOCUMENTS = [
    Document(
        text="Parcels are returned within 30 days.", doc_id="returns", metadata={"tenant": "acme", "year": 1}
    ),
    Document(
        text="Parcels are returned within 14 days.", doc_id="other", metadata={"tenant": "globex", "year": 2}
    ),
]


def make(
    storage: Path, *, llm: ScriptedLLM | None = None, by_hand: bool = True, **settings: Any
) -> PresetEngine:
    values = {
        "answer_cache": "on",
        "store": "duckdb",
        "answer_floor": -1.0,
        "monitoring": "basic",
        **settings,
    }
    parts: dict[str, Any] = {"embed_model": WordEmbedding()} if by_hand else {}
    return build("knowledge-base", storage=storage, llm=llm or ScriptedLLM(), settings=values, **parts)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PresetEngine]:
    with make(tmp_path) as made:
        made.ingest(DOCUMENTS)
        yield made


def cached(engine: PresetEngine, question: str = QUESTION) -> bool:
    return bool((engine.query(question).metadata or {}).get("cached"))


def calls(engine: PresetEngine) -> int:
    return len(engine.llm.prompts)  # type: ignore[attr-defined]


def test_the_same_question_is_answered_without_a_call(engine: PresetEngine) -> None:
    """Text, sources and citations are those of the first answer; the id is the second's own."""
    first, second = engine.query(QUESTION), engine.query(f"  {QUESTION} ")
    assert calls(engine) == 1
    assert str(second) == str(first) == "Yes [1]."
    assert [hit.node.node_id for hit in second.source_nodes] == [
        hit.node.node_id for hit in first.source_nodes
    ]
    before, after = first.metadata or {}, second.metadata or {}
    assert "cached" not in before and after["cached"]["query_id"] == before["query_id"] != after["query_id"]
    assert after["citations"] == before["citations"] and after["known"]
    assert second.to_dict()["cached"] == after["cached"]  # type: ignore[union-attr]


def test_a_cache_is_only_there_where_the_settings_want_one(tmp_path: Path) -> None:
    """Off by default: no answer is written to the disk unasked."""
    with build("knowledge-base", storage=tmp_path, llm=ScriptedLLM(), embed_model=WordEmbedding()) as engine:
        engine.ingest(DOCUMENTS)
        assert not cached(engine) and not cached(engine)
    assert not list(tmp_path.glob("answers*"))


def test_every_way_to_ask_reads_and_fills_the_cache(engine: PresetEngine) -> None:
    """Plain, streamed, asynchronous and in a conversation: each kept what the next one is given."""
    said, known = [], []

    def streamed(question: str) -> None:
        stream = engine.stream(question)
        said.append("".join(stream.response_gen))
        known.append("cached" in (stream.metadata or {}))

    async def awaited(question: str) -> None:
        stream = await engine.astream(question)
        said.append("".join([piece async for piece in stream.async_response_gen()]))
        known.append("cached" in (stream.metadata or {}))
        known.append("cached" in ((await engine.aquery(question)).metadata or {}))

    streamed(QUESTION)
    streamed(QUESTION)
    asyncio.run(awaited(QUESTION))
    asyncio.run(awaited("Who pays for parcels?"))
    known.append("cached" in engine.as_chat_engine().chat(QUESTION).metadata)
    assert known == [False, True, True, True, False, True, True]
    assert said == ["Yes [1]."] * 4 and calls(engine) == 2


def test_a_conversation_is_looked_up_by_its_condensed_question(engine: PresetEngine) -> None:
    """The message alone means nothing; what the model made of it and the history is what is asked."""
    engine.query("Yes [1].")  # what the scripted model condenses every history to
    history = [ChatMessage(role=MessageRole.USER, content="Hello")]
    first = engine.as_chat_engine(history=history).chat("and now?")
    history[0] = ChatMessage(role=MessageRole.USER, content="Something else")
    assert first.metadata["cached"] and not cached(engine, "and now?")


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.ingest([Document(text="Parcels are returned within 31 days.", doc_id="returns")]),
        lambda e: e.ingest([Document(text="When are the parcels returned? Never.", doc_id="new")]),
        lambda e: e.delete(["returns"]),
        lambda e: e.vector_store.delete("returns"),
        lambda e: e.update_prompts({f"{OF}:text_qa_template": PromptTemplate("{context_str} {query_str}!")}),
        lambda e: e.update_prompts({f"{OF}:system_prompt": PromptTemplate("Be brief.")}),
        lambda e: setattr(e.llm, "window", 4_000),
        lambda e: setattr(e.llm, "says", "No [1]."),
        lambda e: setattr(e.synthesizer, "context_tokens", 2_000),
    ],
)  # fmt: skip
def test_any_change_of_what_decides_an_answer_is_a_miss(
    engine: PresetEngine, change: Callable[[PresetEngine], object]
) -> None:
    """Documents, also through the bare store; prompts, the model and its options, the synthesizer."""
    assert not cached(engine) and cached(engine)
    change(engine)
    assert not cached(engine)


def test_filters_and_tenants_have_answers_of_their_own(engine: PresetEngine) -> None:
    """What one tenant was told, no other is, nor the shared engine."""
    year = MetadataFilters(filters=[MetadataFilter(key="year", value=1)])
    views = [engine, engine.for_tenant("acme"), engine.for_tenant("globex"), engine.with_filters(year)]
    assert [cached(view) for view in views] == [False] * 4
    assert [cached(view) for view in views] == [True] * 4


def test_settings_of_another_build_are_another_question(tmp_path: Path) -> None:
    """Over one storage, engines of other settings share no answer; equal ones do, in another process's stead."""
    with make(tmp_path) as engine:
        engine.ingest(DOCUMENTS)
        assert not cached(engine)
    for settings in (
        {"top_k": 1},
        {"answer_language": "German"},
        {"verify_numbers": "mark"},
    ):
        with make(tmp_path, llm=Forgetful(), **settings) as other:
            assert not cached(other)
            assert cached(other)


class Forgetful(ScriptedLLM):
    """Remembers no prompt."""

    prompts: list[str] = []

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        object.__setattr__(self, "prompts", [])


class Private(ScriptedLLM):
    """Counts its calls where no option is."""

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().to_dict(**kwargs), "prompts": []}


def test_answers_outlive_the_engine(tmp_path: Path) -> None:
    """An engine that is built again finds what the one before was told."""
    with make(tmp_path, llm=Private()) as engine:
        engine.ingest(DOCUMENTS)
        assert not cached(engine)
    with make(tmp_path, llm=Private()) as engine:
        assert cached(engine)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("answers.sqlite*")}
    assert modes == {0o600}


def test_users_share_no_answer_and_lose_it_with_their_permission(tmp_path: Path) -> None:
    """By groups and by user; after a change of permissions an answer from the document is no hit for anybody."""
    documents = [Document(text="Ada earns 7.", doc_id="pay", metadata={"allowed": ["hr", "boss"]})]
    with make(tmp_path, permissions="on") as engine:
        engine.ingest(documents)
        question = "What does Ada earn?"
        hr, boss, ada = (
            engine.as_user(groups=["hr"]),
            engine.as_user(groups=["boss"]),
            engine.as_user(user="ada"),
        )
        assert [cached(view, question) for view in (hr, boss, ada)] == [False] * 3
        assert [cached(view, question) for view in (hr, boss, ada)] == [True, True, False]
        assert hr.query(question).metadata["cached"]["why"] == "same passages"
        engine.as_user(user="op", everything=True).set_permissions(["pay"], ["boss"])
        assert not cached(hr, question) and str(hr.query(question)).startswith("I don't know")
        assert not cached(boss, question) and cached(boss, question)


def test_an_unchanged_local_index_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words over an index that did not change cost no retrieval; other words of one form do."""
    from llama_index_presets.presets.query import query_run

    searched = []
    original = query_run.search
    monkeypatch.setattr(query_run, "search", lambda *args: searched.append(1) or original(*args))
    from llama_index_presets.presets.query import answer_reuse

    monkeypatch.setattr(answer_reuse, "_BY_HAND", ())  # the embedding of this test is given by hand
    with make(tmp_path) as engine:
        engine.ingest(DOCUMENTS)
        whys = [(engine.query(q).metadata or {}).get("cached", {}).get("why") for q in (QUESTION, QUESTION)]
        assert whys == [None, "unchanged index"] and len(searched) == 1
        other = (engine.query(f"{QUESTION[:-1]} ?").metadata or {})["cached"]["why"]
        assert other == "same passages" and len(searched) == 2
        engine.vector_store.add([TextNode(text="Parcels are returned never.", embedding=[0.1] * 64)])
        assert not cached(engine)


def test_what_is_not_whole_is_not_kept(tmp_path: Path) -> None:
    """An "I don't know", and a stream that was given up, are asked again."""
    with make(tmp_path, llm=ScriptedLLM(says="I don't know.")) as engine:
        engine.ingest(DOCUMENTS)
        assert not cached(engine) and not cached(engine)
        engine.llm.says = "Yes, by far [1]."  # type: ignore[attr-defined]
        stream = engine.stream(QUESTION)
        next(stream.response_gen)
        stream.response_gen.close()
        assert not cached(engine) and cached(engine)


def test_a_prompt_that_computes_is_never_answered_from_the_cache(engine: PresetEngine) -> None:
    """A template that fills in the day says something else tomorrow."""
    prompt = PromptTemplate(
        "{context_str} {query_str} {day}", function_mappings={"day": lambda **_: "Monday"}
    )
    engine.update_prompts({"response_synthesizer:text_qa_template": prompt})
    assert not cached(engine) and not cached(engine)


def test_saved_dollars_are_in_the_ledger(tmp_path: Path) -> None:
    """A hit is a row with `cache_hit`, no cost, and what the call had cost."""
    with make(tmp_path, llm=Priced()) as engine:
        engine.ingest(DOCUMENTS)
        engine.query(QUESTION)
        [(paid,)] = engine.ledger.sql("select cost_usd from llm_calls where kind = 'llm'").fetchall()
        again = engine.query(QUESTION).metadata
        assert again["cached"]["saved_usd"] == float(paid) > 0
        stats = engine.ledger.get_usage_stats()
        assert stats.cached_answers == 1 and float(stats.saved_usd) == again["cached"]["saved_usd"]
        row = engine.ledger.sql(
            "select cache_hit, cost_usd, query_id from llm_calls where saved_usd > 0"
        ).fetchall()
        assert row == [(True, Decimal(0), again["query_id"])]
        [line] = [line for line in engine.ledger.costs("model") if line.key == "gpt-4o-mini"]
        assert line.saved_usd == stats.saved_usd


class Priced(Private):
    """Is taken for a model that has a price."""

    @property
    def metadata(self) -> Any:
        return super().metadata.model_copy(update={"model_name": "gpt-4o-mini"})

    @classmethod
    def class_name(cls) -> str:
        return "openai_llm"


def test_no_log_holds_a_word_of_a_question(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be used is logged without what was asked or answered."""
    caplog.set_level(logging.DEBUG, logger="llama_index_presets")
    with make(tmp_path) as engine:
        engine.ingest(DOCUMENTS)
        engine.query(QUESTION)
        engine._parts.answers.close()  # type: ignore[union-attr]
        (tmp_path / "answers.sqlite").write_bytes(b"x" * 10_000)
        assert not cached(engine) and cached(engine)
    assert "answer cache" in caplog.text and "parcels" not in caplog.text.lower()


def test_compact_empties_the_cache(tmp_path: Path) -> None:
    """Text that is deleted for good is not kept in an answer."""
    with make(tmp_path) as engine:
        engine.ingest(DOCUMENTS)
        engine.query(QUESTION)
        assert "answers" in engine.compact().parts
        assert not cached(engine)


def test_an_answer_of_an_index_that_changed_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passages may have been removed and compacted away while the model wrote: their text stays away."""
    from llama_index_presets.presets.query import answer_reuse

    monkeypatch.setattr(answer_reuse, "_BY_HAND", ())  # the embedding of this test is given by hand
    with make(tmp_path) as engine:
        engine.ingest(DOCUMENTS)
        stream = engine.stream(QUESTION)
        pieces = [next(stream.response_gen)]
        engine.delete(["returns"])
        engine.compact()
        pieces += list(stream.response_gen)
        assert "".join(pieces) == "Yes [1]." and "cached" not in (stream.metadata or {})
        assert not any(b"within 30 days" in path.read_bytes() for path in tmp_path.glob("answers.sqlite*"))
        assert not cached(engine) and cached(engine)
