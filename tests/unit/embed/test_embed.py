"""Local embedding: the right vectors, from the right weights, never of a truncated text."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import numkong
import numpy as np
import pytest
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler

from llama_index_presets.embed.catalogue import MODELS_FILE, catalogue, embedding_model
from llama_index_presets.embed.local.embedding import LocalEmbedding
from llama_index_presets.embed.weights import find_weights, verify
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.inference.processor import cpu_computes_bfloat16

MINILM = "all-MiniLM-L6-v2"
TEXTS = [
    "A cat sat.",
    "Insulin is kept between two and eight degrees. " * 8,
    "x",
    "The stock market fell on Monday.",
]


@pytest.fixture(scope="module")
def model() -> LocalEmbedding:
    return LocalEmbedding(MINILM, precision="float32", allow_download=False)


def test_the_catalogue_has_every_model_of_the_matrix() -> None:
    """Names, dimensions and token limits are the published ones."""
    assert {name: (model.dim, model.max_tokens) for name, model in catalogue().items()} == {
        "text-embedding-3-small": (1536, 8191),
        "text-embedding-3-large": (3072, 8191),
        "text-embedding-ada-002": (1536, 8191),
        "all-MiniLM-L6-v2": (384, 256),
        "all-mpnet-base-v2": (768, 384),
        "clip-ViT-B-32": (512, 77),
    }


def test_an_unknown_model_names_the_nearest() -> None:
    """A typo is answered with the right name."""
    with pytest.raises(SettingsError, match="Did you mean 'all-MiniLM-L6-v2'"):
        embedding_model("all-MiniLM-L6")


def test_a_question_that_was_just_embedded_is_not_computed_again(
    model: LocalEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What retrieval computed serves the comparison of sentences, in another instance, too; a passage is none."""
    other = LocalEmbedding(MINILM, precision="float32", allow_download=False)
    computed: list[list[str]] = []
    encode = model._encoder.encode

    def counted(texts: list[str], batch_size: int) -> np.ndarray:
        computed.append(list(texts))
        return encode(texts, batch_size)

    expected = model.vectors(["Who sat?"], kind="query")
    asked = model.get_query_embedding("Who sat?")
    monkeypatch.setattr(model._encoder, "encode", counted)
    again = other.vectors(["Who sat?"], kind="query")
    assert (computed, again.shape, np.array_equal(again, expected)) == ([], (1, 384), True)
    assert np.array_equal(again[0], np.asarray(asked, np.float32))
    model.vectors(["Who sat?"])
    model.vectors(["Who sat?", "Who stood?"], kind="query")
    assert computed == [["Who sat?"], ["Who sat?", "Who stood?"]]


def test_a_hosted_model_is_not_a_local_one() -> None:
    """Nobody sends text away by asking for local embedding."""
    with pytest.raises(SettingsError, match="a model of openai"):
        LocalEmbedding("text-embedding-3-small")


def test_vectors_are_those_of_sentence_transformers(model: LocalEmbedding) -> None:
    """Float32 gives what the library gives by itself, in the caller's order, with unit length."""
    pytest.importorskip("torch", reason="compares with what torch computes")
    from sentence_transformers import SentenceTransformer

    stock = SentenceTransformer(str(find_weights(embedding_model(MINILM)))).encode(
        TEXTS, normalize_embeddings=True
    )
    ours = np.array(model.get_text_embedding_batch(TEXTS))
    assert ours.shape == (4, 384)
    np.testing.assert_allclose(ours, stock, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


def test_bfloat16_points_the_same_way(model: LocalEmbedding) -> None:
    """The fast path may not change what is found: cosine to float32 above 0.9995."""
    pytest.importorskip("torch", reason="bfloat16 is torch's")
    fast = LocalEmbedding(MINILM, precision="bfloat16", allow_download=False)
    ours, exact = (np.array(m.get_text_embedding_batch(TEXTS)) for m in (fast, model))
    assert (ours * exact).sum(axis=1).min() > 0.9995
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("choice", ["raise", "refuse"])
def test_a_text_longer_than_the_model_reads_can_be_refused(choice: Literal["raise", "refuse"]) -> None:
    """The stock stack cuts it silently; ours says the numbers and what to do."""
    model = LocalEmbedding(MINILM, allow_download=False, long_text=choice)
    with pytest.raises(ModelError, match=r"has 302 tokens; 'all-MiniLM-L6-v2' reads 256 .* chunk_size=254"):
        model.get_text_embedding("word " * 300)
    assert len(model.get_text_embedding("word " * 254)) == 384


def test_token_counts_are_those_of_the_model(model: LocalEmbedding) -> None:
    """What the chunker measures is what the model reads, special tokens included."""
    assert model.count_tokens(["hello world", ""]) == [4, 2]
    assert len(model.tokenize("hello world")) == 2
    assert model.count_tokens(["word " * 1000]) == [1002]


def test_each_call_says_what_it_used(model: LocalEmbedding) -> None:
    """The ledger counts tokens from this event, not from a guess."""
    heard: list[EmbeddingUsageEvent] = []

    class Ear(BaseEventHandler):
        def handle(self, event: object, **_: object) -> None:
            if isinstance(event, EmbeddingUsageEvent):
                heard.append(event)

    root, ear = get_dispatcher(), Ear()
    root.add_event_handler(ear)
    try:
        model.get_text_embedding_batch(["hello world", "hello"])
        model.get_query_embedding("hello")
    finally:
        root.event_handlers.remove(ear)
    assert [(e.provider, e.model, e.texts, e.prompt_tokens) for e in heard] == [
        ("local", MINILM, 2, 7),
        ("local", MINILM, 1, 3),
    ]


def test_embedding_does_not_block_the_event_loop(model: LocalEmbedding) -> None:
    """Other coroutines run while a batch is computed."""

    async def main() -> int:
        ticks = 0
        task = asyncio.create_task(model.aget_text_embedding_batch(["some words here " * 15] * 40))
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert len(task.result()) == 40
        return ticks

    assert asyncio.run(main()) > 3


def test_threads_share_one_model(model: LocalEmbedding) -> None:
    """Eight threads get the vectors that one gets."""
    expected = model.get_text_embedding_batch(TEXTS)
    results: list[list[list[float]]] = []
    threads = [
        threading.Thread(target=lambda: results.append(model.get_text_embedding_batch(TEXTS)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.allclose(result, expected, atol=1e-6) for result in results)


def test_an_explicit_folder_is_used_as_it_is(model: LocalEmbedding) -> None:
    """A user's own model is a path."""
    own = LocalEmbedding(str(find_weights(embedding_model(MINILM))), precision="float32")
    assert (own.dim, own.max_tokens) == (384, 256)
    np.testing.assert_allclose(own.get_text_embedding("x"), model.get_text_embedding("x"), atol=1e-6)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    """A changed byte in the weights is found before they are used."""
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(ModelError, match="has sha256 .*; expected 53aa5117"):
        verify(tmp_path, embedding_model(MINILM).sha256)
    with pytest.raises(ModelError, match=r"has no model.safetensors"):
        verify(tmp_path / "nowhere", "00")


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network is touched, and the message holds the folder to copy them to."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"weights of 'clip-ViT-B-32' are not on this machine.*models/clip"):
        find_weights(catalogue()["clip-ViT-B-32"], allow_download=False)


def test_the_own_cache_goes_before_packaged_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Order of resolution: cache, then package; and what is found is verified."""
    monkeypatch.setenv("LLAMA_PRESETS_CACHE", str(tmp_path))
    folder = tmp_path / "models" / MINILM
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(ModelError, match="is damaged or is another model"):
        find_weights(embedding_model(MINILM))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"genoa": True}, True),
        ({"sapphireamx": True}, True),
        ({"skylake": True, "genoa": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_chosen_by_what_the_cpu_has(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    """Elsewhere it would be slower, so it is not guessed; another kind of processor names none of these."""
    monkeypatch.setattr(numkong, "get_capabilities", lambda: capabilities)
    assert cpu_computes_bfloat16() is expected


# -- precision, prefixes, long texts, processes -----------------------------------------------------------------------


def test_int8_agrees_as_documented() -> None:
    """Cosine to float32 near 0.99 on MiniLM; one scale for a whole tensor would give 0.94."""
    mean, least = LocalEmbedding(MINILM, precision="int8", allow_download=False).agreement(
        [*TEXTS[:2], TEXTS[3]]
    )
    assert 0.98 < least <= mean < 0.9999


def test_int8_needs_a_cpu() -> None:
    """It is refused elsewhere instead of running as something else."""
    with pytest.raises(SettingsError, match="precision='int8' runs on the CPU, not on 'meta'"):
        LocalEmbedding(MINILM, precision="int8", device="meta").get_text_embedding("x")


def test_prefixes_are_put_before_questions_and_passages(model: LocalEmbedding) -> None:
    """A question gets its own, a passage its own, and the limit leaves room for it."""
    prefixed = LocalEmbedding(MINILM, precision="float32", query_prefix="query: ", passage_prefix="passage: ")
    np.testing.assert_allclose(
        prefixed.get_query_embedding("x"), model.get_text_embedding("query: x"), atol=1e-6
    )
    np.testing.assert_allclose(
        prefixed.get_text_embedding("x"), model.get_text_embedding("passage: x"), atol=1e-6
    )
    assert prefixed.max_tokens == 256 - 2
    assert prefixed.vector_identity != model.vector_identity


def test_a_long_text_can_be_pooled(model: LocalEmbedding) -> None:
    """The mean of its pieces by tokens; short texts beside it keep their vectors."""
    pooling = LocalEmbedding(MINILM, precision="float32", long_text="pool")
    long = "Insulin is kept between two and eight degrees. " * 60
    short_vector, long_vector = pooling.get_text_embedding_batch(["x", long])
    np.testing.assert_allclose(short_vector, model.get_text_embedding("x"), atol=1e-6)
    assert np.dot(long_vector, model.get_text_embedding(TEXTS[1])) > 0.9
    assert np.linalg.norm(long_vector) == pytest.approx(1, abs=1e-6)


def test_a_model_of_ones_own_is_one_entry(
    model: LocalEmbedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file names folder, length and prefixes; the model is then used by its name."""
    folder = find_weights(embedding_model(MINILM))
    file = tmp_path / "models.toml"
    file.write_text(
        f'[house]\nprovider = "local"\ndim = 384\nmax_tokens = 256\npath = "{folder}"\nquery_prefix = "q: "\n'
    )
    monkeypatch.setenv("LLAMA_PRESETS_MODELS", str(file))
    own = LocalEmbedding("house", precision="float32")
    np.testing.assert_allclose(own.get_query_embedding("x"), model.get_text_embedding("q: x"), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[m]\ndim = 3\nmax_tokens = 5\ncolour = 1\nprovider = 'x'", "'colour' is not a field"),
        ("[m]\nprovider = 'x'", "'dim' is missing; 'max_tokens' is missing"),
        ("[m]\nprovider = 'x'\ndim = '3'\nmax_tokens = 5", "'dim' is '3'; expected int"),
        ("[m]\nprovider = 'local'\ndim = 3\nmax_tokens = 5", "a local model needs 'path' or 'hub'"),
        ("[all-MiniLM-L6-v2]\ndim = 3", "has the name of a model of this package"),
        ("not toml", "is not TOML"),
        ("m = 3", "expected a table"),
    ],
)
def test_a_wrong_entry_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """Every mistake of an entry in one message, before anything is embedded."""
    file = tmp_path / "models.toml"
    file.write_text(text)
    monkeypatch.setenv("LLAMA_PRESETS_MODELS", str(file))
    with pytest.raises(SettingsError, match=message):
        embedding_model("m")


def test_processes_give_the_same_vectors_in_order(model: LocalEmbedding) -> None:
    """Two processes, a batch large enough for both: same vectors, same places."""
    texts = [f"text {number} " + "word " * (number % 7) for number in range(130)]
    many = LocalEmbedding(MINILM, precision="float32", processes=2)
    np.testing.assert_allclose(
        many.get_text_embedding_batch(texts), model.get_text_embedding_batch(texts), atol=1e-5
    )


@pytest.mark.parametrize("row", catalogue().values(), ids=str)
def test_every_entry_says_what_a_chooser_needs(row: object) -> None:
    """Provider, length, limit, tokenizer, price source and when to choose it."""
    model = embedding_model(row.name)  # type: ignore[attr-defined]
    assert model.dim > 0 and model.max_tokens > 0 and model.choose_when
    assert (model.encoding or model.hub) and (model.price == "free") == (model.provider == "local")


def test_a_wrong_models_file_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    """Not a traceback while the program starts."""
    environment = {**os.environ, MODELS_FILE: str(tmp_path / "nowhere.toml")}
    done = subprocess.run(
        [sys.executable, "-m", "llama_index_presets.cli", "show", "healthcare"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "cannot be read (No such file or directory)" in done.stderr


def test_huggingface_names_mean_the_same() -> None:
    """The instructions are the prefixes; what is the default there is fine here."""
    model = LocalEmbedding(
        model_name="sentence-transformers/all-MiniLM-L6-v2",
        max_length=256,  # what the model reads
        query_instruction="query: ",
        text_instruction="passage: ",
        normalize=True,
        device="cpu",
        embed_batch_size=16,
        cache_folder=None,
        trust_remote_code=False,
        backend="torch",
        local_files_only=True,
        parallel_process=False,
    )
    assert (model.query_prefix, model.passage_prefix, model.embed_batch_size) == ("query: ", "passage: ", 16)
    assert not model.allow_download
    assert LocalEmbedding(query_instruction="").query_prefix is None  # no instruction, there as here


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize": False}, "normalize: vectors always have unit length.*HuggingFaceEmbedding"),
        ({"max_length": 512}, r"max_length=512: .*reads 256 tokens.*long_text"),
        ({"parallel_process": True}, "parallel_process: give processes="),
        ({"token": "hf_secret"}, "token: set HF_TOKEN"),
        ({"pooling": "mean"}, "pooling: Give the folder"),
        ({"query_instruction": "q", "query_prefix": "p"}, "query_prefix is 'p' and query_instruction is 'q'"),
        ({"devise": "cpu"}, "does not know 'devise': did you mean 'device'"),
        ({"query_instructions": "q"}, "did you mean 'query_instruction'"),
    ],
)
def test_a_huggingface_setting_that_cannot_be_honoured_says_why(
    settings: dict[str, object], message: str
) -> None:
    """Nothing is swallowed; a token is not shown."""
    with pytest.raises(SettingsError, match=message) as refused:
        LocalEmbedding("all-MiniLM-L6-v2", **settings)
    assert "hf_secret" not in str(refused.value)
