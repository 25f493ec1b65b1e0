"""The embedding cache: the right vector or none, whatever else happens to the file."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from tests.fakes import WordEmbedding

from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.embed.cached import CachedEmbedding, CacheStats
from llama_index_presets.embed.recognition import vector_identity
from llama_index_presets.errors import PartialEmbeddingError, SettingsError, StoreWriteError
from llama_index_presets.monitor.handler import CostTrackingHandler
from llama_index_presets.monitor.ledger.ledger import Ledger


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def counted(cache: EmbeddingCache, **options: Any) -> tuple[CachedEmbedding, list[str]]:
    """A cached model, and the list of what it really computed."""
    inner = WordEmbedding(model_name="words", embedded=[])
    return CachedEmbedding(inner, cache, **options), inner.embedded


def test_a_text_is_computed_once(cache: EmbeddingCache) -> None:
    """Neither a second call, nor a repetition in a batch, nor another object asks the model again."""
    model, computed = counted(cache)
    first = model.get_text_embedding_batch(["a cat", "a dog", "a cat"])
    again, computed_again = counted(cache)
    assert again.get_text_embedding_batch(["a cat", "a dog", "a cat"]) == first
    assert (computed, computed_again) == (["a cat", "a dog"], [])
    assert (model.stats.hits, model.stats.misses, again.stats.hit_rate) == (1, 2, 1.0)


def test_a_question_never_gets_the_vector_of_a_passage(cache: EmbeddingCache) -> None:
    """Query and passage are two keys: many models embed them differently."""
    model, computed = counted(cache)
    model.get_text_embedding("a cat")
    model.get_query_embedding("a cat")
    model.get_query_embedding("a cat")
    assert computed == ["a cat", "a cat"]


def test_questions_can_be_left_out(cache: EmbeddingCache) -> None:
    """With cache_queries=False nothing of a question reaches the disk."""
    model, computed = counted(cache, cache_queries=False)
    model.get_query_embedding("who?")
    asyncio.run(model.aget_query_embedding("who?"))
    assert (computed, len(cache)) == (["who?", "who?"], 0)


def test_two_models_never_share_a_vector(cache: EmbeddingCache) -> None:
    """The same text under another dimension, class or model name is another key."""
    sizes = [
        len(CachedEmbedding(MockEmbedding(embed_dim=dim), cache).get_text_embedding("x")) for dim in (2, 3)
    ]
    other = CachedEmbedding(MockEmbedding(embed_dim=2, model_name="b"), cache)
    assert (sizes, other.missing(["x"])) == ([2, 3], [0])


def test_options_that_do_not_change_a_vector_do_not_change_its_key() -> None:
    """A rotated key, a longer timeout or a larger batch does not pay for the same vectors again."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    one = OpenAIEmbedding(model="text-embedding-3-large", api_key="sk-one", timeout=10, dimensions=256)
    two = OpenAIEmbedding(
        model="text-embedding-3-large", api_key="sk-two", embed_batch_size=7, dimensions=256
    )
    longer = OpenAIEmbedding(model="text-embedding-3-large", api_key="sk-one", dimensions=512)
    assert vector_identity(one) == vector_identity(two) != vector_identity(longer)
    assert "sk-one" not in vector_identity(one)


def test_vectors_are_float32_exactly_as_returned(cache: EmbeddingCache) -> None:
    """A hit equals the miss bit for bit, also for odd numbers."""
    odd = [float(np.float32(value)) for value in (0.1, -0.0, 1e-40, 3.4e38)]
    [key] = cache.keys("m", "passage", ["x"])
    cache.put_many({key: odd})
    assert cache.get_many([key])[key].tobytes() == np.float32(odd).tobytes()


@given(texts=st.lists(st.text(max_size=8), max_size=12))
@settings(max_examples=30)
def test_any_text_can_be_cached(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Order, length and repetitions of the answer are those of the question; surrogates and empty texts too."""
    cache = EmbeddingCache(tmp_path_factory.mktemp("any"))
    model, _ = counted(cache)
    plain = WordEmbedding(embedded=[])
    expected = [np.float32(plain.get_text_embedding(text)).tolist() for text in texts]
    assert model.get_text_embedding_batch(texts) == expected == model.get_text_embedding_batch(texts)
    assert model.missing(texts) == []
    cache.close()


def test_missing_names_first_places_only(cache: EmbeddingCache) -> None:
    """An estimate must count a repeated text once and a cached one never."""
    model, _ = counted(cache)
    model.get_text_embedding("known")
    assert model.missing(["new", "known", "new", "newer"]) == [0, 3]


def test_async_is_the_same(cache: EmbeddingCache) -> None:
    """Sync and async share their vectors."""
    model, computed = counted(cache)

    async def both() -> list[list[float]]:
        return [
            *await model.aget_text_embedding_batch(["a", "b"]),
            await model.aget_text_embedding("a"),
            await model.aget_query_embedding("q"),
        ]

    found = asyncio.run(both())
    assert found[:2] == model.get_text_embedding_batch(["a", "b"]) and found[2] == found[0]
    assert computed == ["a", "b", "q"]


class _Halfway(WordEmbedding):
    """Fails on one text after it has embedded the others, as a service does when one request of many fails."""

    broken: bool = True

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        vectors = {n: self._vector(text) for n, text in enumerate(texts) if text != "bad" or not self.broken}
        failed = [n for n in range(len(texts)) if n not in vectors]
        if failed:
            raise PartialEmbeddingError("one failed", vectors=vectors, failed=failed)
        return [vectors[n] for n in range(len(texts))]


def test_what_was_paid_for_survives_a_failed_batch(cache: EmbeddingCache) -> None:
    """After the failure only the text that failed is computed again."""
    inner = _Halfway(model_name="half", embedded=[])
    model = CachedEmbedding(inner, cache, identity="half")
    with pytest.raises(PartialEmbeddingError, match="one failed") as caught:
        model.get_text_embedding_batch(["a", "bad", "c", "bad"])
    assert (caught.value.failed, sorted(caught.value.vectors)) == ([1, 3], [0, 2])
    inner.broken = False
    model.get_text_embedding_batch(["a", "bad", "c", "bad"])
    assert inner.embedded == ["a", "c", "bad"]


def test_hits_are_ledger_rows_without_cost(cache: EmbeddingCache, tmp_path: Path) -> None:
    """One row for what was computed, one for what was found; a full hit makes a single free row."""
    model, _ = counted(cache)
    with Ledger(tmp_path / "calls.duckdb") as ledger, CostTrackingHandler(ledger).instrument():
        model.get_text_embedding_batch(["a", "b"])
        model.get_text_embedding_batch(["a", "b", "c"])
        model.get_text_embedding_batch(["a"])
        ledger.flush()
        rows = ledger.sql(
            "select cache_hit, prompt_tokens > 0, cost_usd from llm_calls order by timestamp"
        ).fetchall()
    assert [row[:2] for row in rows] == [(False, True), (False, True), (True, False), (True, False)]
    assert [row[2] for row in rows if row[0]] == [0, 0]


def test_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    """The file stays below its bound, and what is used stays longer than what is not."""
    cache = EmbeddingCache(tmp_path, max_bytes=2**20)
    keys = cache.keys("m", "passage", [str(number) for number in range(900)])
    for key in keys[:300]:
        cache.put_many({key: np.zeros(384)})
    kept = keys[:50]
    for start in range(300, 900, 50):
        cache.get_many(kept)
        cache.put_many(dict.fromkeys(keys[start : start + 50], np.zeros(384)))
    assert cache.size_bytes <= 2**20
    assert len(cache.contains_many(kept)) == 50
    assert cache.contains_many(keys[50:150]) == set()


def test_a_damaged_vector_is_computed_again(cache: EmbeddingCache, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit is found by its checksum, dropped and said; never returned."""
    model, computed = counted(cache)
    right = model.get_text_embedding("x")
    cache.close()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
    assert model.get_text_embedding("x") == right
    assert computed == ["x", "x"] and "1 vector was damaged in the embedding cache" in caplog.text


@pytest.mark.parametrize("damage", [b"not a database at all" * 400, b""])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """Garbage in place of the file costs the vectors, not the run."""
    first = EmbeddingCache(tmp_path)
    counted(first)[0].get_text_embedding("x")
    first.close()
    first.path.write_bytes(damage)
    model, computed = counted(EmbeddingCache(tmp_path))
    model.get_text_embedding("x")
    model.get_text_embedding("x")
    assert computed == ["x"]


def test_pages_damaged_in_the_middle_cost_no_run(tmp_path: Path) -> None:
    """Damage that only a later read meets is met there; every vector returned is right."""
    first = EmbeddingCache(tmp_path)
    model, _ = counted(first)
    texts = [f"text {number}" for number in range(400)]
    right = model.get_text_embedding_batch(texts)
    first.close()
    content = bytearray(first.path.read_bytes())
    for start in range(8192 * 2, len(content), 8192 * 3):
        content[start : start + 600] = b"\xff" * 600
    first.path.write_bytes(content)
    assert counted(EmbeddingCache(tmp_path))[0].get_text_embedding_batch(texts) == right


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The message names the file and what to do."""
    (tmp_path / "file").write_text("in the way")
    model, _ = counted(EmbeddingCache(tmp_path / "file"))
    with pytest.raises(StoreWriteError, match="cannot be written .* Choose another folder"):
        model.get_text_embedding("x")


def test_a_bound_too_small_is_refused(tmp_path: Path) -> None:
    """Less than a mebibyte would hold nothing."""
    with pytest.raises(SettingsError, match="needs at least 1 MiB"):
        EmbeddingCache(tmp_path, max_bytes=10)


def test_no_text_is_on_disk_and_a_secret_changes_the_hash(tmp_path: Path) -> None:
    """The file holds neither the text nor, with a hash_key, anything that can be found from it."""
    cache = EmbeddingCache(tmp_path, hash_key=b"secret")
    CachedEmbedding(WordEmbedding(model_name="w"), cache, identity="w").get_text_embedding("Mrs Miller, HIV")
    cache.close()
    assert b"Miller" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert EmbeddingCache(tmp_path).keys("w", "passage", ["a"]) != cache.keys("w", "passage", ["a"])
    assert (tmp_path / "embeddings.sqlite").exists() and "secret" not in repr(cache)


def test_threads_share_it(cache: EmbeddingCache) -> None:
    """Eight threads write and read the same texts; all get the right vectors."""
    model, _ = counted(cache)
    texts = [f"text {number}" for number in range(60)]
    plain = [np.float32(WordEmbedding(embedded=[]).get_text_embedding(text)).tolist() for text in texts]
    wrong: list[int] = []

    def work(turn: int) -> None:
        for _ in range(3):
            part = texts[turn * 5 :] + texts[: turn * 5]
            expected = plain[turn * 5 :] + plain[: turn * 5]
            wrong.extend([turn] if model.get_text_embedding_batch(part) != expected else [])

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, len(cache)) == ([], 60)


def _fill(folder: Path, start: int) -> None:
    cache = EmbeddingCache(folder)
    for number in range(start, start + 40):
        [key] = cache.keys("m", "passage", [str(number)])
        cache.put_many({key: np.full(8, number)})


def test_processes_share_it(tmp_path: Path) -> None:
    """Two writers at once lose nothing, and a third sees both."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    cache = EmbeddingCache(tmp_path)
    keys = cache.keys("m", "passage", [str(number) for number in range(60)])
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [int(cache.get_many([key])[key][0]) for key in keys] == list(range(60))


def test_an_open_cache_survives_a_fork(cache: EmbeddingCache) -> None:
    """A child made while the file is open opens its own connection."""
    model, _ = counted(cache)
    model.get_text_embedding("x")
    child = multiprocessing.get_context("fork").Process(target=model.get_text_embedding, args=("y",))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and model.missing(["x", "y"]) == []


def test_it_can_be_sent_to_a_worker(cache: EmbeddingCache) -> None:
    """A pickled model finds the same vectors."""
    model, _ = counted(cache)
    model.get_text_embedding("x")
    assert pickle.loads(pickle.dumps(model)).missing(["x", "y"]) == [1]


def test_it_works_under_any_index(cache: EmbeddingCache) -> None:
    """LlamaIndex's own index over the cached model retrieves, and building it again computes nothing."""
    model, computed = counted(cache)
    nodes = [TextNode(text="a cat sat", id_="cat"), TextNode(text="stocks fell", id_="stocks")]
    index = VectorStoreIndex(nodes, embed_model=model)
    assert index.as_retriever(similarity_top_k=1).retrieve("cat")[0].node.node_id == "cat"
    before = len(computed)
    VectorStoreIndex(nodes, embed_model=model)
    assert len(computed) == before


def test_what_splitters_ask_comes_from_the_model(cache: EmbeddingCache) -> None:
    """Tokenizer and limit of the inner model are reachable; what it lacks is absent here too."""
    model, _ = counted(cache)
    assert (model.dim, model.max_tokens, model.tokenize("a b")) == (64, 64, ["a", "b"])
    assert not hasattr(CachedEmbedding(MockEmbedding(embed_dim=2), cache), "tokenize")


def test_no_secret_of_the_model_is_shown(cache: EmbeddingCache) -> None:
    """Neither repr nor to_dict reaches into the model that holds a key."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    model = CachedEmbedding(OpenAIEmbedding(api_key="sk-secret"), cache)
    assert "sk-secret" not in repr(model) + str(model.to_dict())


def test_a_folder_is_a_cache(tmp_path: Path) -> None:
    """Its path is enough: two models of one folder share their vectors."""
    for hits in (0, 1):
        model = CachedEmbedding(MockEmbedding(embed_dim=2), str(tmp_path / "cache"))
        model.get_text_embedding("a text")
        assert model.stats == CacheStats(hits=hits, misses=1 - hits)
