"""What an ingest would take is said before anything is sent, and it is what it took."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from tests.fakes import WordEmbedding
from tests.servers.openai import OpenAIServer

from llama_index_presets import build
from llama_index_presets.errors import BudgetExceededError, FingerprintError, SettingsError
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.estimates import ingestion
from llama_index_presets.presets.estimates.ingestion import estimate_preset

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "recipes" / "healthcare" / "documents"
SETTINGS = {"llm": "extractive", "embedding": "text-embedding-3-small"}


def openai_engine(server: OpenAIServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PresetEngine:
    """The knowledge-base row with its own hosted embedding, on the loopback service."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    return build("knowledge-base", storage=folder, settings=SETTINGS)


def test_the_estimate_equals_what_the_service_bills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the token and to the dollar, with and without a key; nothing is sent before."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    without_key = estimate_preset("knowledge-base", str(DOCUMENTS), settings=SETTINGS)
    with OpenAIServer() as server, openai_engine(server, tmp_path, monkeypatch) as engine:
        estimate = engine.estimate(str(DOCUMENTS))
        assert (server.served, estimate.documents, estimate.unchanged) == ([], 5, 0)
        report = engine.ingest(str(DOCUMENTS), max_cost_usd=1)
        billed = sum(call.prompt for call in server.served)
        assert estimate.tokens == without_key.tokens == report.estimated_tokens == report.tokens == billed
        assert estimate.chunks == without_key.chunks == report.chunks and estimate.cached == 0
        assert float(estimate.cost_usd or 0) == pytest.approx(estimate.tokens * 0.02 / 1e6)
        assert report.cost_usd == pytest.approx(report.estimated_cost_usd)
        assert "requests a minute" in estimate.minutes_from and estimate.minutes == pytest.approx(
            max(estimate.tokens / 1_000_000, 1 / 3_000)
        )
        again = engine.estimate(str(DOCUMENTS))
        assert (again.documents, again.unchanged, again.tokens, again.minutes) == (0, 5, 0, 0.0)


def test_a_cost_limit_refuses_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the tokens, the price and the limit; the index stays empty."""
    with OpenAIServer() as server, openai_engine(server, tmp_path, monkeypatch) as engine:
        with pytest.raises(
            BudgetExceededError, match=r"costs \$0\.0000\d+, more than the limit of \$0\.000001"
        ) as raised:
            engine.ingest(str(DOCUMENTS), max_cost_usd=Decimal("0.000001"))
        assert raised.value.limit_usd == Decimal("0.000001") < raised.value.estimate_usd
        assert (server.requests, engine.explain()["documents"]) == ([], 0)
        with pytest.raises(SettingsError, match="expected US dollars, 0 or more"):
            engine.ingest(str(DOCUMENTS), max_cost_usd=-1)


def test_a_model_without_a_price_cannot_be_kept_below_a_limit(tmp_path: Path) -> None:
    """Unknown is not free."""
    model = OpenAIEmbedding(
        model_name="text-embedding-9", api_key="x", api_base="https://models.example.org/v1"
    )
    model.__dict__["dim"] = 8
    documents = [Document(text="Hello.", doc_id="d")]
    settings = {"llm": "extractive"}
    with (
        build("knowledge-base", storage=tmp_path, embed_model=model, settings=settings) as engine,
        pytest.raises(BudgetExceededError, match="price of 'text-embedding-9' is unknown"),
    ):
        engine.ingest(documents, max_cost_usd=5)


@pytest.fixture
def local(tmp_path: Path):  # type: ignore[no-untyped-def]
    with build("knowledge-base", storage=tmp_path / "s", embed_model=WordEmbedding(embedded=[]),
               settings={"llm": "extractive"}) as engine:  # fmt: skip
        yield engine


def test_failures_and_ready_vectors_are_not_counted(local: PresetEngine, tmp_path: Path) -> None:
    """A damaged file is named; a node that has its vector needs no model."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "empty.txt").touch()
    (tmp_path / "docs" / "good.txt").write_text("Gloves are changed.")
    found = local.estimate(str(tmp_path / "docs"))
    assert (found.documents, [Path(f.source).name for f in found.failed]) == (1, ["empty.txt"])
    ready = TextNode(text="Ready.", embedding=[0.1] * 64)
    assert (local.estimate([ready]).chunks, local.estimate([ready]).cached) == (1, 1)


def test_what_the_cache_has_is_not_counted_twice(tmp_path: Path) -> None:
    """Chunks of a changed document that stayed, and texts that repeat, need no model: before and after agree."""
    kept = "# Pumps\n\n" + "Pumps of type A are greased every month by two mechanics. " * 20
    (tmp_path / "docs").mkdir()
    one, two = tmp_path / "docs" / "one.md", tmp_path / "docs" / "two.md"
    one.write_text(kept)
    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest(str(tmp_path / "docs"))
        one.write_text(kept + "\n\n# Valves\n\nValves are new.")
        two.write_text(kept.replace("Pumps", "Motors"))
        (tmp_path / "docs" / "three.md").write_text(two.read_text())
        expected = engine.estimate(str(tmp_path / "docs"))
        without_engine = estimate_preset("healthcare", str(tmp_path / "docs"), storage=tmp_path / "s")
        report = engine.ingest(str(tmp_path / "docs"), max_cost_usd=1)
    assert expected.cached > 0 and expected.tokens == without_engine.tokens == report.tokens
    assert report.embedded == expected.chunks - expected.cached
    assert report.estimated_tokens == report.tokens


NOTICE = "Wash your hands with soap for twenty seconds before you touch the patient."


@pytest.mark.parametrize("cache", ["storage", "off"])
def test_a_text_that_repeats_is_counted_as_the_ingest_sends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """Before the storage is made, after, and in the ingest: once through a cache, each time without one."""
    texts = [NOTICE, *(f"Ward {number} is on the floor above." for number in range(3)), NOTICE, NOTICE]
    documents = [Document(text=text, doc_id=str(number)) for number, text in enumerate(texts)]
    settings = {**SETTINGS, "embedding_cache": cache}
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    before = estimate_preset("knowledge-base", documents, storage=tmp_path, settings=settings)
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        with build("knowledge-base", storage=tmp_path, settings=settings) as engine:
            after, report = engine.estimate(documents), engine.ingest(documents)
        billed = sum(call.prompt for call in server.served)
    assert before.tokens == after.tokens == report.tokens == billed
    assert before.chunks == report.chunks == len(texts)
    spared = 2 if cache == "storage" else 0
    assert before.repeated == after.repeated == spared == before.chunks - report.embedded
    assert before.repeated_tokens == after.repeated_tokens == spared * len(cl100k(NOTICE))
    assert before.to_dict()["repeated"] == spared


def cl100k(text: str) -> list[int]:
    """Tokens of a text by the encoding of OpenAI's embedding models."""
    import tiktoken

    return tiktoken.get_encoding("cl100k_base").encode(text)


def test_a_sample_extrapolates_and_says_how_sure_it_is(local: PresetEngine) -> None:
    """Of 200 documents of like length, 20 tell within the margin; all of them have none."""
    documents = [Document(text="word " * (40 + n % 7), doc_id=str(n)) for n in range(200)]
    exact, sampled = local.estimate(documents), local.estimate(documents, sample=20)
    assert exact.margin == 0 and 0 < sampled.margin < 0.1 and sampled.documents == 200
    assert abs(sampled.tokens - exact.tokens) <= exact.tokens * max(sampled.margin, 0.02)
    with pytest.raises(SettingsError, match="sample is 0"):
        local.estimate(documents, sample=0)


def test_disk_and_minutes_grow_with_the_work(local: PresetEngine) -> None:
    """Minutes of a local model are measured on a few chunks; disk is within a factor of two of the truth."""
    documents = [Document(text=f"Pump {n} is greased. " * 10, doc_id=str(n)) for n in range(100)]
    found = local.estimate(documents)
    local.ingest(documents)
    vectors = local._parts.storage.vectors
    size = sum(path.stat().st_size for path in vectors.rglob("*") if path.is_file())
    assert size / 2 < found.disk_bytes < size * 2


def test_another_model_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """The estimate of a storage that cannot be used would mislead."""
    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest([Document(text="The pump is greased weekly.")])
    with pytest.raises(FingerprintError, match="chunker=sentence-64"):
        estimate_preset("healthcare", str(DOCUMENTS), storage=tmp_path / "s", settings={"chunk_tokens": 64})
    estimate_preset("healthcare", str(DOCUMENTS), storage=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_estimates_and_ingest_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    """One object with --json; exit code 1 when the limit is passed, and no request was made."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, out, err = run("estimate", "knowledge-base", DOCUMENTS, "--storage", tmp_path / "s", "--json")
    assert (code, err) == (0, "") and json.loads(out)["documents"] == 5 and json.loads(out)["cost_usd"] > 0
    page = tmp_path / "estimate.html"
    code, out, err = run("estimate", "knowledge-base", DOCUMENTS, "--plot", page)
    assert code == 0 and "Nothing was sent" in out and f"Written: {page}" in err
    drawn = page.read_text(encoding="utf-8")
    assert "of 5 documents" in drawn and "documents new: 100 %" in drawn and "http" not in drawn
    assert "10,000 language model: " in drawn and "Each answer" in drawn
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        monkeypatch.setenv("LLAMA_PRESETS_LLM", "extractive")
        limited = ["ingest", "knowledge-base", DOCUMENTS, "--storage", tmp_path / "s", "--max-cost"]
        code, _, err = run(*limited, "0.000001")
        assert code == 1 and "Nothing was sent" in err and server.requests == []
        code, out, _ = run(*limited, "1")
        assert code == 0 and "Estimated: " in out and server.served


def test_a_slow_model_is_measured_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks from all over, the first of which only loads it; a fast one embeds them all."""
    clock = [0.0]
    asked: list[list[int]] = []

    def embed(numbers: list[int]) -> None:
        asked.append(numbers)
        clock[0] += 0.3 * len(numbers)

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(ingestion.time, "perf_counter", lambda: clock[0])
    assert ingestion._seconds(embed, range(32)) == (4, pytest.approx(1.2))
    assert asked == [[0], [0, 4], [8, 12]]
    monkeypatch.setattr(ingestion.time, "perf_counter", lambda: 0.0)
    assert ingestion._seconds(lambda numbers: None, range(7)) == (7, 0.0)
    assert ingestion._seconds(embed, []) == (0, 0.0)
