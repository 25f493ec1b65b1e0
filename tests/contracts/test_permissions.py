"""Nobody is shown a document that does not allow them: every store, every pattern, every way to ask."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import ImageDocument, NodeWithScore, QueryBundle
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.servers.pinecone import pinecone_server
from tests.servers.weaviate import weaviate_server
from tests.tiny_clip import PAIRS, draw, tiny_clip

from llama_index_presets import build
from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.ingest.metadata.document_metadata import ALLOWED_KEY
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.store.postgres.embedded import embedded_postgres

STORES = ("duckdb", "lancedb", "pgvector", "pinecone", "weaviate")
PATTERNS: dict[str, dict[str, Any]] = {
    "simple": {"pattern": "simple"},
    "hybrid": {"pattern": "hybrid"},
    "sentence-window": {"chunking": "sentence-window"},
    "hierarchical": {"chunking": "hierarchical"},
    "re-ranked": {"pattern": "advanced"},
    "multi-modal": {"pattern": "simple"},
}
GROUPS = [
    "hr",
    "hr-all",
    "h",
    "HR",
    "r",
    "all",
    "пер",
    "o'brien",
    'q"uote',
    "a b",
    "user",
    "*",
    "%",
    "[hr]",
    "x" * 300,
]
USERS = ["ada", "bob", "hr", "all", "ada-b"]
WORDS = ["cats", "dogs", "pay", "leave", "valves", "pumps"]
numbers = itertools.count()


class LastFirst(BaseNodePostprocessor):
    """A re-ranker that turns the order round."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return [NodeWithScore(node=hit.node, score=float(place)) for place, hit in enumerate(nodes)][::-1]


def parts_of(pattern: str) -> tuple[str, dict[str, Any]]:
    """Preset and parts of `build` for a pattern; a real (tiny) CLIP reads the texts and images of `multi-modal`."""
    if pattern == "multi-modal":
        return pattern, {"embed_model": ClipEmbedding(str(tiny_clip()))}
    again = {"reranker": LastFirst()} if pattern == "re-ranked" else {}
    return "knowledge-base", {"embed_model": WordEmbedding(), **again}


class Stores:
    """One of each store, on real files and servers, started when first asked for."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self._servers: dict[str, Any] = {}

    def open(self, name: str) -> dict[str, Any]:
        """Options of `build` for an empty store."""
        folder = Path(self._opened.enter_context(tempfile.TemporaryDirectory()))
        if name in ("duckdb", "lancedb"):
            return {"storage": folder, "settings": {"store": name}}
        if name not in self._servers:
            self._servers[name] = self._opened.enter_context(self._server(name))
        return {"storage": folder, "vector_store": self._store(name)}

    def _server(self, name: str) -> Any:
        if name == "pgvector":
            return embedded_postgres(self._opened.enter_context(tempfile.TemporaryDirectory()))
        return pinecone_server(64) if name == "pinecone" else weaviate_server()

    def _store(self, name: str) -> Any:
        server, number = self._servers[name], next(numbers)
        if name == "pgvector":
            from llama_index_presets import PostgresVectorStore

            return PostgresVectorStore.from_url(server, embed_dim=64, table_name=f"p{number}")
        if name == "pinecone":
            from llama_index_presets import PineconeVectorStore

            return PineconeVectorStore(host=server.url, api_key="k", namespace=f"n{number}")
        from llama_index_presets.store.weaviate.store import WeaviateVectorStore

        return WeaviateVectorStore.from_url(server.url(f"Chunks{number}"))


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with ExitStack() as opened:
        yield Stores(opened)


def allowed_of(dice: random.Random) -> list[str] | str | None:
    """What a document says: groups, users, nothing, or nobody."""
    kind = dice.random()
    if kind < 0.1:
        return None
    if kind < 0.15:
        return []
    names = dice.sample(GROUPS, dice.randint(0, 3)) + [
        f"user:{one}" for one in dice.sample(USERS, dice.randint(0, 2))
    ]
    return ", ".join(names) if kind < 0.3 else names


def names_in(allowed: list[str] | str | None) -> set[str]:
    """The oracle: what a person reads in the field."""
    listed = allowed.split(", ") if isinstance(allowed, str) else allowed or []
    return {name for name in listed if name}


def document(
    number: int, allowed: list[str] | str | None, dice: random.Random, pictures: Sequence[str] = ()
) -> Document:
    # What a hostile text says of permissions must not matter, whatever the key.
    metadata: dict[str, Any] = {"number": number, "kind": dice.choice(["a", "b"])}
    if allowed is not None:
        metadata["allowed"] = allowed
    if dice.random() < 0.5:
        metadata[ALLOWED_KEY] = ["all", "hr"]
    text = f"{' '.join(dice.choices(WORDS, k=6))}. Secret{number} of {dice.choice(WORDS)}."
    if pictures and number % 4 == 0:
        picture = pictures[number % len(pictures)]
        return ImageDocument(image_path=picture, id_=f"doc-{number}", metadata=metadata)
    return Document(text=text, id_=f"doc-{number}", metadata=metadata)


def widening(dice: random.Random) -> MetadataFilters:
    """A filter of a user who wants to see more: OR with anything, NOT of nothing, their own names."""
    everything = MetadataFilter(key="number", operator=FilterOperator.GTE, value=0)
    named = MetadataFilter(key=ALLOWED_KEY, operator=FilterOperator.ANY, value=[*GROUPS[:6], "user:ada"])
    nothing = MetadataFilter(key="kind", value="nowhere")
    inner = MetadataFilters(
        filters=dice.sample([everything, named, nothing], dice.randint(1, 3)),
        condition=dice.choice([FilterCondition.OR, FilterCondition.NOT, FilterCondition.AND]),
    )
    return MetadataFilters(filters=[inner, everything], condition=dice.choice(list(FilterCondition)))


def check(options: dict[str, Any], pattern: str, *, documents: int, callers: int, seed: int) -> int:
    """Ask as many callers; returns the number of (caller, document) pairs that were decided, all rightly."""
    dice = random.Random(seed)
    said = {f"doc-{number}": allowed_of(dice) for number in range(documents)}
    settings = {
        **options.pop("settings", {}),
        **PATTERNS[pattern],
        "permissions": "on",
        "top_k": documents * 4,
        "candidates": documents * 4,
    }
    pairs = 0
    preset, parts = parts_of(pattern)
    pictures = drawings(options["storage"]) if preset == "multi-modal" else []
    with build(preset, llm=ScriptedLLM(), settings=settings, **parts, **options) as engine:
        given = [document(number, said[f"doc-{number}"], dice, pictures) for number in range(documents)]
        assert engine.ingest(given, show_progress=False).failed == []
        for caller in range(callers):
            user = dice.choice([*USERS, ""])
            groups = dice.sample(GROUPS, dice.randint(0 if user else 1, 4))
            names = {*groups, *([f"user:{user}"] if user else [])}
            wanted = {doc_id for doc_id, allowed in said.items() if names & names_in(allowed)}
            view = engine.as_user(user=user, groups=groups)
            assert caller % 4 or pushed_down(view)
            assert found_by(view, "cats dogs pay leave valves pumps secret") == wanted
            assert found_by(view.with_filters(widening(dice)), "pay") <= wanted
            pairs += 2 * documents
        pairs += check_contents(view, wanted, said)
    return pairs


def drawings(storage: Path) -> list[str]:
    """Pictures for documents, beside the storage."""
    folder = storage.with_name(f"{storage.name}-pictures")
    folder.mkdir()
    for pair in PAIRS:
        draw(*pair, seed=5).save(folder / f"{'-'.join(pair)}.png")
    return sorted(map(str, folder.iterdir()))


def found_by(view: PresetEngine, question: str) -> set[str]:
    return {str(hit.node.ref_doc_id) for hit in view.retrieve(QueryBundle(question))}


def pushed_down(view: PresetEngine) -> bool:
    """Whether the store itself, on every leg, gave nothing that the last check had to drop."""
    hits = view._parts.retriever.retrieve("pay leave")
    return len(view._parts.visible_hits(hits)) == len(hits)


def check_contents(view: PresetEngine, wanted: set[str], said: dict[str, Any]) -> int:
    """The list, the texts and the removal of documents decide alike; an image has no text."""
    assert {one.id for one in view.documents()} == wanted
    for doc_id in said:
        shown = view.document_text(doc_id) or view.document_nodes(doc_id)
        assert bool(shown) == (doc_id in wanted)
    assert view.delete([doc_id for doc_id in said if doc_id not in wanted]) == 0
    return 3 * len(said)


CASES = [
    (store, pattern)
    for store in STORES
    for pattern in PATTERNS
    if pattern in ("simple", "hybrid") or store == "lancedb"
]


@pytest.mark.parametrize(("store", "pattern"), CASES)
def test_callers_see_what_allows_them(stores: Stores, store: str, pattern: str) -> None:
    """A caller finds every document that allows them and no other; filters of theirs never widen that."""
    assert check(stores.open(store), pattern, documents=25, callers=6, seed=7) == 25 * (2 * 6 + 3)


@pytest.mark.slow("over 100,000 pairs of caller and document")
def test_no_leak_in_100_000_pairs(stores: Stores) -> None:
    """The same at large, with other documents and callers for every store and pattern."""
    pairs = sum(
        check(stores.open(store), pattern, documents=60, callers=60, seed=number)
        for number, (store, pattern) in enumerate(CASES)
    )
    assert pairs >= 100_000
