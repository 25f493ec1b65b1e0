"""What goes wrong while closing never replaces the error that ended the block; what is closed says so."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from tests.fakes import ScriptedLLM, WordEmbedding

from llama_index_presets import DuckDBVectorStore, Ledger, build
from llama_index_presets.concurrency.closing import close_behind, closes_all, closes_on_error
from llama_index_presets.errors import AnswerError, IngestError, MonitorError, PresetsError, StoreError
from llama_index_presets.evaluate.outcomes import Checkpoint
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.store.base import StoreBase

QUESTION = "When are parcels returned?"
TENANT = MetadataFilters(filters=[MetadataFilter(key="tenant", value="acme")])


def make(storage: Path, **options: Any) -> PresetEngine:
    settings = {"store": "duckdb", "answer_floor": -1.0, **options}
    llm = ScriptedLLM(prompts=[])
    engine = build("knowledge-base", storage=storage, llm=llm, embed_model=WordEmbedding(), settings=settings)
    engine.ingest([Document(text="Parcels are returned within 30 days.", doc_id="returns")])
    return engine


# -- the error of the block -------------------------------------------------------------------------------------------


def fails() -> None:
    raise OSError(28, "No space left on device")


class FailingStore(StoreBase):
    """Every store is a context manager by this class."""

    def _delete(self, selection: Any) -> None: ...

    def _select(self, selection: Any) -> list[Any]:
        return []

    close = staticmethod(fails)


class FailingLedger(Ledger):
    def close(self) -> None:
        fails()


class FailingDuckDB(DuckDBVectorStore):
    def close(self) -> None:
        fails()


class FailingEngine(PresetEngine):
    def close(self) -> None:
        fails()


def failing_engine(folder: Path) -> PresetEngine:
    with make(folder / "s") as engine:
        return FailingEngine(engine._parts)


MANAGERS: dict[str, Callable[[Path], Any]] = {
    "ledger": lambda folder: FailingLedger(folder / "calls.duckdb"),
    "duckdb": lambda folder: FailingDuckDB(str(folder / "v.duckdb")),
    "wrapped adapters": lambda folder: FailingStore(),
    "engine": failing_engine,
}


@pytest.mark.parametrize("kind", MANAGERS)
def test_closing_never_replaces_the_error_of_the_block(tmp_path: Path, kind: str) -> None:
    """The user sees what went wrong; that closing failed as well is a note on it."""
    with pytest.raises(KeyError, match="lost") as caught, MANAGERS[kind](tmp_path):
        raise KeyError("lost")
    assert "OSError: [Errno 28] No space left on device" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", MANAGERS)
def test_a_block_that_ends_well_hears_that_closing_failed(tmp_path: Path, kind: str) -> None:
    """There is no other error to lose."""
    with pytest.raises(OSError, match="No space left"), MANAGERS[kind](tmp_path):
        pass


def test_a_checkpoint_that_cannot_be_closed_keeps_the_error(tmp_path: Path) -> None:
    """The file of an unfinished evaluation is one of those that are closed."""
    checkpoint = Checkpoint(tmp_path / "unfinished.jsonl")
    checkpoint._file.close()
    checkpoint._file = type("Full", (), {"close": staticmethod(fails)})()
    with pytest.raises(KeyError, match="lost"), checkpoint:
        raise KeyError("lost")


def test_parts_opened_before_a_failure_are_all_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Each gets its turn, whatever the others do; the failure stays, and the log says what closing did."""
    closed: list[str] = []
    with pytest.raises(KeyError, match="lost"), closes_on_error("closing a part") as opened:
        opened.callback(closed.append, "first")
        opened.callback(fails)
        opened.callback(closed.append, "last")
        raise KeyError("lost")
    assert closed == ["last", "first"]
    assert "Then closing a part failed: OSError" in caplog.text


def test_a_block_that_ends_well_keeps_or_closes_its_parts() -> None:
    """`closes_on_error` hands them on, `closes_all` does not."""
    closed: list[str] = []
    with closes_on_error("closing a part") as opened:
        opened.callback(closed.append, "kept")
        opened.pop_all()
    with closes_all("closing a part") as opened:
        opened.callback(closed.append, "done")
    assert closed == ["done"]


def test_what_is_interrupted_stays_interrupted() -> None:
    """Ctrl-C is an error of the block, too."""
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            close_behind(fails, error, "closing")
            raise


# -- what is closed ---------------------------------------------------------------------------------------------------

ENGINE_CALLS: dict[str, tuple[Callable[[PresetEngine], Any], type[Exception] | None]] = {
    "query": (lambda engine: engine.query(QUESTION), AnswerError),
    "aquery": (lambda engine: asyncio.run(engine.aquery(QUESTION)), AnswerError),
    "stream": (lambda engine: engine.stream(QUESTION), AnswerError),
    "astream": (lambda engine: asyncio.run(engine.astream(QUESTION)), AnswerError),
    "retrieve": (lambda engine: engine.retrieve(QueryBundle(QUESTION)), AnswerError),
    "aretrieve": (lambda engine: asyncio.run(engine.aretrieve(QueryBundle(QUESTION))), AnswerError),
    "as_chat_engine": (lambda engine: engine.as_chat_engine().chat(QUESTION), AnswerError),
    "with_filters": (lambda engine: engine.with_filters(TENANT).query(QUESTION), AnswerError),
    "for_user": (lambda engine: engine.for_user("ann").query(QUESTION), AnswerError),
    "for_tenant": (lambda engine: engine.for_tenant("acme").query(QUESTION), AnswerError),
    "ingest": (lambda engine: engine.ingest([Document(text="More.")]), IngestError),
    "estimate": (lambda engine: engine.estimate([Document(text="More.")]), IngestError),
    "as_user": (lambda engine: engine.as_user(user="ann").query(QUESTION), AnswerError),
    "as_tool": (lambda engine: engine.as_tool(), AnswerError),
    "documents": (lambda engine: engine.documents(), IngestError),
    "check_ready": (lambda engine: engine.check_ready(), AnswerError),
    "unfinished_documents": (lambda engine: engine.unfinished_documents(), IngestError),
    "document_text": (lambda engine: engine.document_text("d"), IngestError),
    "document_nodes": (lambda engine: engine.document_nodes("d"), IngestError),
    "citation_page": (lambda engine: engine.citation_page("q", 1), AnswerError),
    "delete": (lambda engine: engine.delete(["d"]), IngestError),
    "permissions": (lambda engine: engine.permissions(), IngestError),
    "set_permissions": (lambda engine: engine.set_permissions(["d"], ["hr"]), IngestError),
    "hold_to_budgets": (lambda engine: engine.hold_to_budgets([]), AnswerError),
    "billed": (lambda engine: engine.billed(), None),
    "refuse_spent_budgets": (lambda engine: engine.refuse_spent_budgets(), None),
    "feedback": (lambda engine: engine.feedback("q", up=True), AnswerError),
    "compact": (lambda engine: engine.compact(), IngestError),
    "explain": (lambda engine: engine.explain(), None),
    "close": (lambda engine: engine.close(), None),
    "aclose": (lambda engine: asyncio.run(engine.aclose()), None),
}
OF_CORE = {
    "synthesize",
    "asynthesize",
    "as_query_component",
    "get_prompts",
    "update_prompts",
    "callback_manager",
}


def test_every_public_method_of_the_engine_is_tried() -> None:
    """A new method is tried when it is made."""
    methods = {name for name, _ in inspect.getmembers(PresetEngine, callable) if not name.startswith("_")}
    assert methods - OF_CORE == set(ENGINE_CALLS)


@pytest.fixture(scope="module")
def closed_engine(tmp_path_factory: pytest.TempPathFactory) -> PresetEngine:
    with make(tmp_path_factory.mktemp("closed") / "s") as engine:
        return engine


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_a_closed_engine_works_or_says_that_it_is_closed(closed_engine: PresetEngine, name: str) -> None:
    """Never an error of SQLite or DuckDB; it does not matter by which of the engines over it the index was closed."""
    call, refusal = ENGINE_CALLS[name]
    if refusal is None:
        call(closed_engine)
        return
    with pytest.raises(refusal, match="The engine is closed. Build it again"):
        call(closed_engine)


def test_a_closed_engine_explains_what_it_was(closed_engine: PresetEngine) -> None:
    """Its documents and chunks are those at its end."""
    explained = closed_engine.explain()
    assert (explained["documents"], explained["chunks"]) == (1, 1)


def test_closing_one_engine_closes_those_that_share_its_parts(tmp_path: Path) -> None:
    """The restricted engine says so instead of failing in a store."""
    engine = make(tmp_path / "s")
    restricted = engine.with_filters(TENANT)
    engine.close()
    with pytest.raises(AnswerError, match="The engine is closed"):
        restricted.query(QUESTION)


LEDGER_CALLS: dict[str, Callable[[Ledger], Any]] = {
    "sql": lambda ledger: ledger.sql("select count(*) from llm_calls").fetchall(),
    "get_usage_stats": lambda ledger: ledger.get_usage_stats(),
    "costs": lambda ledger: ledger.costs(),
    "query_cost": lambda ledger: ledger.query_cost("q"),
    "recorded_cost": lambda ledger: ledger.recorded_cost("q"),
    "export": lambda ledger: ledger.export(ledger.path.with_name("out.csv")),
    "flush": lambda ledger: ledger.flush(),
    "fold": lambda ledger: ledger.fold(),
    "close": lambda ledger: ledger.close(),
    "hash_prompt": lambda ledger: ledger.hash_prompt("a"),
}


@pytest.mark.parametrize("name", LEDGER_CALLS)
def test_a_closed_ledger_can_be_read_and_not_written(tmp_path: Path, name: str) -> None:
    """Rows are in the file; a call more is refused with its reason."""
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        ledger.record(kind="llm", model="m", query_id="q")
    LEDGER_CALLS[name](ledger)
    with pytest.raises(MonitorError, match="is closed. Open a new one"):
        ledger.record(kind="llm", model="m")


STORE_CALLS: dict[str, Callable[[DuckDBVectorStore], Any]] = {
    "add": lambda store: store.add([TextNode(id_="b", text="b", embedding=[1.0, 0.0])]),
    "query": lambda store: store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1)),
    "query_many": lambda store: store.query_many([VectorStoreQuery(query_embedding=[1.0, 0.0])]),
    "get_nodes": lambda store: store.get_nodes(["a"]),
    "delete": lambda store: store.delete("a"),
    "delete_nodes": lambda store: store.delete_nodes(["a"]),
    "clear": lambda store: store.clear(),
    "aquery": lambda store: asyncio.run(store.aquery(VectorStoreQuery(query_embedding=[1.0, 0.0]))),
    "async_add": lambda store: asyncio.run(
        store.async_add([TextNode(id_="b", text="b", embedding=[1.0, 0.0])])
    ),
    "aclear": lambda store: asyncio.run(store.aclear()),
}


@pytest.mark.parametrize("path", [":memory:", "v.duckdb"])
@pytest.mark.parametrize("name", STORE_CALLS)
def test_a_closed_store_says_that_it_is_closed(tmp_path: Path, name: str, path: str) -> None:
    """Reading and writing alike."""
    place = path if path == ":memory:" else str(tmp_path / path)
    with DuckDBVectorStore(place, dim=2) as store:
        store.add([TextNode(id_="a", text="a", embedding=[1.0, 0.0])])
    with pytest.raises(StoreError, match="The store is closed. Open a new one"):
        STORE_CALLS[name](store)


def test_the_parts_of_a_closed_engine_raise_errors_of_ours(closed_engine: PresetEngine) -> None:
    """Also where a part is taken out of the engine: the store is closed with it."""
    with pytest.raises(PresetsError, match="closed"):
        closed_engine.retriever.retrieve(QUESTION)
    with pytest.raises(PresetsError, match="closed"):
        closed_engine.vector_store.get_nodes(["a"])


# -- a disk that takes no more ----------------------------------------------------------------------------------------


@pytest.fixture
def full_disk() -> Iterator[Callable[[Path], None]]:
    """Make a ledger that cannot be written: a file is where its journals belong, until the test ends."""
    files: list[Path] = []

    def block(storage: Path) -> None:
        journals = storage / "calls.duckdb.journal"
        if journals.exists():
            journals.rename(storage / "journals")
        journals.write_text("")
        files.append(journals)

    yield block
    for file in filter(Path.is_file, files):
        file.unlink()


def every_way(engine: PresetEngine) -> list[tuple[str, dict[str, Any]]]:
    async def awaited() -> list[tuple[str, dict[str, Any]]]:
        plain, stream = await engine.aquery(QUESTION), await engine.astream(QUESTION)
        text = "".join([piece async for piece in stream.async_response_gen()])
        chat = await engine.as_chat_engine().achat(QUESTION)
        return [
            (str(plain), plain.metadata or {}),
            (text, stream.metadata or {}),
            (str(chat), chat.metadata or {}),
        ]

    plain, stream = engine.query(QUESTION), engine.stream(QUESTION)
    text, chat = "".join(stream.response_gen), engine.as_chat_engine().chat(QUESTION)
    sync = [
        (str(plain), plain.metadata or {}),
        (text, stream.metadata or {}),
        (str(chat), chat.metadata or {}),
    ]
    return [*sync, *asyncio.run(awaited())]


def fresh_ledger(storage: Path, monitoring: str, full_disk: Callable[[Path], None]) -> PresetEngine:
    """An engine that has not written a row yet, over a ledger that cannot be written."""
    settings = {"store": "duckdb", "answer_floor": -1.0, "monitoring": monitoring}
    settings |= {"trace_endpoint": "http://127.0.0.1:9"} if monitoring == "full" else {}
    make(storage, **settings).close()
    full_disk(storage)
    llm = ScriptedLLM(prompts=[])
    return build("knowledge-base", storage=storage, llm=llm, embed_model=WordEmbedding(), settings=settings)


@pytest.mark.parametrize("monitoring", ["basic", "local", "full"])
def test_a_full_ledger_costs_nobody_the_answer(
    tmp_path: Path, monitoring: str, caplog: pytest.LogCaptureFixture, full_disk: Callable[[Path], None]
) -> None:
    """The answer comes, its cost is not known, and the log says why; closing and ingesting go on, too."""
    with fresh_ledger(tmp_path / "s", monitoring, full_disk) as engine:
        answers = every_way(engine)
        report = engine.ingest([Document(text="Refunds take a week.", doc_id="refunds")])
    assert [(text, metadata["cost_usd"]) for text, metadata in answers] == [("Yes [1].", None)] * 6
    assert (report.documents, report.cost_usd) == (1, None)
    assert all(metadata["query_id"] in caplog.text for _, metadata in answers)
    assert "cannot be written" in caplog.text and "The last calls are not in the ledger" in caplog.text
    (tmp_path / "s" / "calls.duckdb.journal").unlink()
    engine.ledger.close()
    kinds = dict(engine.ledger.sql("select kind, count(*) from llm_calls group by kind").fetchall())
    assert kinds["llm"] == len(answers)  # with room again, nothing is lost


def test_with_an_audit_log_a_full_ledger_fails_the_query(
    tmp_path: Path, full_disk: Callable[[Path], None]
) -> None:
    """What is not on record whole is not handed out; the audit log says what became of the question."""
    engine = fresh_ledger(tmp_path / "s", "audit", full_disk)
    with pytest.raises(MonitorError, match="cannot be written"):
        engine.query(QUESTION)
    with pytest.raises(MonitorError, match="cannot be written"):
        asyncio.run(engine.aquery(QUESTION))
    with pytest.raises(MonitorError, match="cannot be written"):
        list(engine.stream(QUESTION).response_gen)
    log = (tmp_path / "s" / "audit.jsonl").read_text().splitlines()
    assert len(log) == 3 and all('"failed: MonitorError"' in line for line in log)
    with pytest.raises(MonitorError, match="cannot be written"):
        engine.close()


def test_a_full_ledger_does_not_hide_why_a_query_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, full_disk: Callable[[Path], None]
) -> None:
    """The error of the model is what the caller sees, with and without an audit log."""
    caplog.set_level(logging.CRITICAL)
    for monitoring in ("basic", "audit"):
        engine = fresh_ledger(tmp_path / monitoring, monitoring, full_disk)
        engine.llm.__dict__["prompts"] = None  # the model breaks when it is asked
        with pytest.raises(AttributeError, match="append"):
            engine.query(QUESTION)
        with pytest.raises(AttributeError, match="append"):
            list(engine.stream(QUESTION).response_gen)
