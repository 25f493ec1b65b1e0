"""Any local model by its own files, and a stock object recognised as the same model."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_presets import CachedEmbedding, EmbeddingCache, LocalEmbedding
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.recognition import as_local, vector_identity
from llama_index_presets.embed.weights import find_weights
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.presets.models import make_chunker, make_fingerprint

MINILM = "all-MiniLM-L6-v2"
LONG = "Insulin is kept between two and eight degrees. " * 60


MINILM_FOLDER = find_weights(embedding_model("all-MiniLM-L6-v2"), allow_download=False)
"""Where `make setup` put the weights; looked up before a test moves the cache."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of MiniLM with prompts and a length of its own."""
    shutil.copytree(MINILM_FOLDER, tmp_path / "house", ignore=shutil.ignore_patterns(".onnx-graphs"))
    (tmp_path / "house" / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "query: ", "passage": "passage: "}})
    )
    (tmp_path / "house" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    return tmp_path / "house"


@pytest.fixture
def in_hub_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same as the hub's library leaves it: a reference and a snapshot."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path / "own"))
    (tmp_path / "own" / "models").mkdir(parents=True)
    (tmp_path / "own" / "models" / MINILM).symlink_to(MINILM_FOLDER)
    place = tmp_path / "hub" / "models--house--encoder"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    shutil.copytree(folder, place / "snapshots" / "abc")
    return "house/encoder"


def test_a_model_of_the_hub_needs_no_catalogue_entry(in_hub_cache: str, tmp_path: Path) -> None:
    """Length, dimension and prompts are those of its files."""
    model = LocalEmbedding(in_hub_cache, cache_folder=str(tmp_path / "hub"), allow_download=False)
    plain = LocalEmbedding(MINILM, allow_download=False)
    assert (model.dim, model.max_tokens) == (384, 128 - 2)  # the prompt before a passage is two tokens
    np.testing.assert_allclose(
        model.get_query_embedding("x"), plain.get_text_embedding("query: x"), atol=1e-6
    )
    np.testing.assert_allclose(
        model.get_text_embedding("x"), plain.get_text_embedding("passage: x"), atol=1e-6
    )


def test_an_empty_prompt_in_the_files_is_no_prompt(folder: Path) -> None:
    """sentence-transformers writes an empty one for documents; no other name and no default takes its place."""
    prompts = {"query": "query: ", "document": "", "passage": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts, "default_prompt_name": "query"})
    )
    model, plain = LocalEmbedding(str(folder)), LocalEmbedding(MINILM)
    np.testing.assert_allclose(model.get_text_embedding("pump"), plain.get_text_embedding("pump"), atol=1e-6)
    np.testing.assert_allclose(
        model.get_query_embedding("pump"), plain.get_text_embedding("query: pump"), atol=1e-6
    )


def test_prompts_given_by_hand_go_before_those_of_the_files(folder: Path) -> None:
    """As `query_instruction` of the official class does."""
    model = LocalEmbedding(str(folder), query_instruction="ask: ", text_instruction="text: ")
    plain = LocalEmbedding(MINILM, allow_download=False)
    np.testing.assert_allclose(model.get_query_embedding("x"), plain.get_text_embedding("ask: x"), atol=1e-6)
    np.testing.assert_allclose(model.get_text_embedding("x"), plain.get_text_embedding("text: x"), atol=1e-6)


def test_a_model_that_is_nowhere_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constructing costs nothing; the first use asks no network that it may not."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    model = LocalEmbedding("nobody/nothing", allow_download=False, cache_folder=str(tmp_path))
    with pytest.raises(
        ModelError, match=r"'nobody/nothing' is not on this machine.*copy the folder to .*nothing"
    ):
        model.get_text_embedding("x")


@pytest.mark.parametrize("choice", [None, "pool", "truncate"])
def test_a_long_text_keeps_a_stock_app_running_and_says_so_once(
    choice: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The default is the mean of the pieces; `truncate` is what the stock class gives."""
    more = {"long_text": choice} if choice else {}
    model = LocalEmbedding(MINILM, allow_download=False, **more)
    with caplog.at_level(logging.WARNING):
        vectors = model.get_text_embedding_batch([LONG, LONG + "More."])
        model.get_query_embedding(LONG)
    assert [len(vector) for vector in vectors] == [384, 384]
    (said,) = [record.getMessage() for record in caplog.records if "tokens and" in record.getMessage()]
    assert (
        "its beginning is embedded" if choice == "truncate" else "the mean of its pieces is taken"
    ) in said
    stock = HuggingFaceEmbedding(str(MINILM_FOLDER), device="cpu").get_text_embedding(LONG)
    assert bool(np.dot(vectors[0], stock) > 0.99999) == (choice == "truncate")


def test_max_length_reads_fewer_tokens() -> None:
    """What `HuggingFaceEmbedding(max_length=…)` gives; and it is part of the identity."""
    ours = LocalEmbedding(MINILM, allow_download=False, max_length=16, long_text="truncate")
    stock = HuggingFaceEmbedding(str(MINILM_FOLDER), device="cpu", max_length=16)
    assert np.dot(ours.get_text_embedding(LONG), stock.get_text_embedding(LONG)) == pytest.approx(1, abs=1e-5)
    assert ours.vector_identity != LocalEmbedding(MINILM, long_text="truncate").vector_identity


def test_a_name_without_an_organisation_must_be_in_the_catalogue() -> None:
    """A typo is answered at once, before anything is looked for."""
    with pytest.raises(SettingsError, match="Did you mean 'all-MiniLM-L6-v2'"):
        LocalEmbedding("all-MiniLM-L6-v3")
    with pytest.raises(SettingsError, match="There is no folder './all-MiniLM-L6-v3'"):
        LocalEmbedding("./all-MiniLM-L6-v3")


# -- the same model, stock --------------------------------------------------------------------------------------------


def test_a_stock_object_shares_fingerprint_tokenizer_and_cache(tmp_path: Path) -> None:
    """By the hash of the weights, wherever their folder is."""
    stock, ours = HuggingFaceEmbedding(str(MINILM_FOLDER), device="cpu"), LocalEmbedding(MINILM)
    chunkers = [make_chunker(model, None) for model in (stock, ours)]
    fingerprints = [str(make_fingerprint(*pair)) for pair in zip((stock, ours), chunkers, strict=True)]
    assert fingerprints[0] == fingerprints[1]
    assert vector_identity(stock) == vector_identity(ours)
    cache = EmbeddingCache(tmp_path)
    CachedEmbedding(ours, cache).get_text_embedding("hello")
    shared = CachedEmbedding(stock, cache)
    shared.get_text_embedding("hello")
    assert (shared.stats.hits, shared.stats.misses) == (1, 0)


@pytest.mark.parametrize(
    "changed", [{"normalize": False}, {"query_instruction": "q: "}, {"max_length": 128}], ids=str
)
def test_a_stock_object_with_other_vectors_is_another_one(changed: dict[str, Any]) -> None:
    """What changes a vector changes the identity."""
    stock = HuggingFaceEmbedding(str(MINILM_FOLDER), device="cpu", **changed)
    assert vector_identity(stock) != LocalEmbedding(MINILM).vector_identity


def test_int8_is_another_model_in_the_fingerprint() -> None:
    """Its cosine to float32 is below 0.9999; float32 and bfloat16 stay one."""
    models = [LocalEmbedding(MINILM, precision=one) for one in ("auto", "float32", "bfloat16", "int8")]
    names = [make_fingerprint(model, make_chunker(model, None)).model for model in models]
    assert names == [MINILM, MINILM, MINILM, f"{MINILM}-int8"]
    assert len({model.vector_identity for model in models}) == 2


def test_a_model_that_gives_other_vectors_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stored vector tells an ONNX file that is another model's, which no hash of the weights covers."""
    from llama_index_presets.embed.local import encoders

    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 384, "pooling_mode": "cls"})
    )
    with pytest.raises(ModelError, match=r"gives another vector than 'all-MiniLM-L6-v2' \(cosine 0\."):
        encoders.load_encoder(folder, "float32", "cpu", "onnx", None, False, MINILM)
    assert as_local(HuggingFaceEmbedding(str(folder), device="cpu")) is not None  # the weights are the same
    assert embedding_model(MINILM).sha256


def test_a_model_that_ran_before_a_fork_runs_in_the_child() -> None:
    """ONNX Runtime keeps no thread between calls, so there is none to lose."""
    model = LocalEmbedding(MINILM, allow_download=False, backend="onnx")
    expected = model.get_text_embedding_batch(["one", "two", "three"])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = model.get_text_embedding_batch(["one", "two", "three"])
        os.write(writing, b"same" if np.allclose(found, expected) else b"other")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 5) == b"same"
