"""Arguments of another type: each is named, with what to give, before anything is opened or begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import TextNode

from llama_index_presets import (
    BM25Index,
    CrossEncoderRerank,
    DuckDBVectorStore,
    HybridFusionRetriever,
    LanceDBVectorStore,
    Ledger,
    PostgresVectorStore,
    embedded_postgres,
)
from llama_index_presets._options import strict
from llama_index_presets.embed.cache import EmbeddingCache
from llama_index_presets.errors import WrongTypeError
from llama_index_presets.monitor.prices import Pricer, Tokens
from llama_index_presets.store.move import move

URL = "postgresql://user@localhost/db"


@pytest.mark.parametrize(
    ("named", "call"),
    [
        ("path is an int", lambda folder: DuckDBVectorStore(5)),
        ("path is a list", lambda folder: DuckDBVectorStore.from_local([1])),
        ("dim is a str", lambda folder: DuckDBVectorStore(dim="3")),
        ("dim is a str", lambda folder: DuckDBVectorStore(database_name="a", persist_dir=folder, embed_dim="3")),
        ("cache_mb is None", lambda folder: DuckDBVectorStore(cache_mb=None)),
        ("connection is an int", lambda folder: DuckDBVectorStore(connection=5)),
        ("encryption_key is an int", lambda folder: DuckDBVectorStore(folder / "a", encryption_key=5)),
        ("shared is a str", lambda folder: DuckDBVectorStore(folder / "a", shared="x")),
        ("uri is an int", lambda folder: LanceDBVectorStore(5)),
        ("storage_options is a str", lambda folder: LanceDBVectorStore(folder / "a", storage_options="x")),
        ("embed_dim is a str", lambda folder: PostgresVectorStore.from_url(URL, embed_dim="3")),
        ("embed_dim is None", lambda folder: PostgresVectorStore(connection_string=URL, embed_dim=None)),
        ("engine is a str", lambda folder: PostgresVectorStore(engine="x", embed_dim=2)),
        ("folder is None", lambda folder: embedded_postgres(None).__enter__()),
        ("path is None", lambda folder: Ledger(None)),
        ("flush_interval_s is a str", lambda folder: Ledger(folder / "a", flush_interval_s="1")),
        ("The row is a str", lambda folder: Ledger(":memory:").add("x")),
        ("prompt is None", lambda folder: Ledger(":memory:").hash_prompt(None)),
        ("path is an int", lambda folder: Ledger(":memory:").export(5)),
        ("statement is None", lambda folder: Ledger(":memory:").sql(None)),
        ("by is a list", lambda folder: Ledger(":memory:").costs(by=["model"])),
        ("max_bytes is a str", lambda folder: EmbeddingCache(folder, max_bytes="1 GB")),
        ("folder is bytes|folder is a bytes", lambda folder: EmbeddingCache(b"a")),
        ("keys is a str", lambda folder: EmbeddingCache(folder).get_many("ab")),
        ("keys holds a str", lambda folder: EmbeddingCache(folder).contains_many(["ab"])),
        ("contents is a str", lambda folder: EmbeddingCache(folder).keys("model", "query", "text")),
        ("vectors is a list", lambda folder: EmbeddingCache(folder).put_many([[1.0]])),
        ("weights is an int", lambda folder: hybrid(weights=5)),
        ("weights holds a str", lambda folder: hybrid(weights=["1", "2"])),
        ("top_n is a str", lambda folder: CrossEncoderRerank(top_n="5")),
    ],
)  # fmt: skip
def test_it_is_named(tmp_path: Path, named: str, call: Callable[[Path], Any]) -> None:
    """Not by an AttributeError from within, nor by pydantic's pages."""
    with pytest.raises(WrongTypeError, match=f"^({named})\\. Give "):
        call(tmp_path)


def hybrid(**options: Any) -> HybridFusionRetriever:
    retriever = BM25Index().as_retriever()
    return HybridFusionRetriever(retriever, retriever, **options)


@strict()
def made(
    uri: str, top_k: int, share: float, wanted: bool = True, *, name: str | None = None
) -> tuple[Any, ...]:
    return uri, top_k, share, wanted, name


def test_what_means_the_same_is_taken() -> None:
    """In Python's own types: a whole float in a slice, a Decimal beside a float and NumPy's in JSON failed later."""
    assert made(Path("a"), 5.0, 1)[0] == Path("a")  # type: ignore[arg-type]
    given = made("a", np.float32(5), share=Decimal("0.5"), wanted=np.True_)  # type: ignore[arg-type]
    assert json.dumps(given) == '["a", 5, 0.5, true, null]'
    assert json.dumps(made("a", np.int64(5), np.float32(0.5), 1)) == '["a", 5, 0.5, true, null]'  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match=r"top_k is a float\. Give a whole number\."):
        made("a", 5.5, 1)  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match=r"top_k is a float\. Give a whole number\."):
        made("a", float("inf"), 1)  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match=r"name is an int\. Give a text or None\."):
        made("a", 5, 1, name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["0", "1", 2, None])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    """A text "0" was taken, and is true."""
    with pytest.raises(WrongTypeError, match=r"wanted is .*\. Give True or False\."):
        made("a", 5, 1, wanted=value)


def test_one_argument_too_many_is_named_as_that() -> None:
    """Not as the next parameter that is taken by name alone."""
    with pytest.raises(TypeError, match="takes from 3 to 4 positional arguments but 5 were given"):
        made("a", 5, 1, True, 3)  # type: ignore[misc]


class Located:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_numbers_and_paths_of_other_libraries_work(tmp_path: Path) -> None:
    """In the stores, the keyword index, the fusion and the ledger."""
    file = tmp_path / "a.duckdb"
    nodes = [TextNode(text=f"alpha {word}", embedding=[1.0, 0.0]) for word in ("one", "two", "three")]
    with DuckDBVectorStore(Located(file), dim=np.int64(2)) as store:  # type: ignore[arg-type]
        store.add(nodes)
        assert file.is_file() and store.path == str(file)
        assert move(store, DuckDBVectorStore(dim=2.0), batch_nodes=2.0).ok  # type: ignore[arg-type]
    DuckDBVectorStore.from_local(Located(file)).close()  # type: ignore[arg-type]
    (tmp_path / "prices.toml").write_text('version = "1"\n[models."acme/one"]\ninput = 1\n')
    prices = Located(tmp_path / "prices.toml")
    with Ledger(Located(tmp_path / "calls.duckdb"), keep_days=Decimal(3), prices=prices) as ledger:  # type: ignore[arg-type]
        assert ledger.costs(by="model", days=np.int64(3)) == []  # type: ignore[arg-type]
    assert Pricer(prices).price("acme", "one", Tokens(10))[0] == Decimal("0.00001")  # type: ignore[arg-type]
    index = BM25Index(tmp_path / "words", k1=np.float32(1.2), b=Decimal("0.5"))  # type: ignore[arg-type]
    index.add(nodes)
    legs = [index.as_retriever(), index.as_retriever()]
    fused = HybridFusionRetriever(legs, weights=[Decimal(1), Decimal("0.5")], top_k=2.0)  # type: ignore[arg-type,list-item]
    assert len(fused.retrieve("one two three")) == 2
