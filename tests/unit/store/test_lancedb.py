"""What LanceDBVectorStore promises beyond the contract of every store."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.lancedb import LanceDBVectorStore as OfficialStore
from llama_index.vector_stores.lancedb.base import TableNotFoundError
from tests.contracts.store import ask, only, random_vectors, text_node, vector
from tests.unit.test_filters import HOSTILE, metadatas, trees

from llama_index_presets.errors import QueryError, SettingsError, StoreError
from llama_index_presets.filters import predicate
from llama_index_presets.store.index_terms import labels_of
from llama_index_presets.store.lancedb.indexes import INDEX_CHOICES, is_due, plan_index
from llama_index_presets.store.lancedb.store import LanceDBVectorStore


@pytest.fixture
def store(tmp_path: Path) -> LanceDBVectorStore:
    return LanceDBVectorStore(tmp_path / "db")


def words(text: str, mode: VectorStoreQueryMode = VectorStoreQueryMode.TEXT_SEARCH, **more: Any) -> Any:
    return VectorStoreQuery(query_str=text, mode=mode, similarity_top_k=10, **more)


def test_similarities_are_those_of_a_query(store: LanceDBVectorStore) -> None:
    """Of the nodes named, whatever their vectors' lengths; unknown ids are absent, quotes are data."""
    vectors = random_vectors(40) * np.arange(1, 41)[:, None]
    store.add([text_node(f"n'{i}", one) for i, one in enumerate(vectors.tolist())])
    question = vectors[3].tolist()
    found = store.query(ask(question, 40))
    expected = dict(zip(found.ids or [], found.similarities or [], strict=True))
    named = ["n'3", "n'7", "n'39", "x"]
    assert store.similarities(question, named) == pytest.approx({n: expected[n] for n in named[:3]}, abs=1e-6)
    assert store.similarities(question, []) == {}
    with pytest.raises(QueryError, match="numbers"):
        store.similarities([1.0], named)


# ---- filters ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(metadatas, min_size=1, max_size=4), filters=trees)
def test_lance_selects_what_the_predicate_selects(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], filters: MetadataFilters
) -> None:
    """Any tree of filters over any metadata means on Lance what it means in Python."""
    store = LanceDBVectorStore(tmp_path_factory.mktemp("db"))
    store.add([text_node(str(n), vector(1), metadata=row) for n, row in enumerate(rows)])
    accepts = predicate(filters)
    expected = [
        str(n)
        for n, row in enumerate(rows)
        if accepts({**dict.fromkeys(("ref_doc_id", "doc_id", "document_id")), **row})
    ]
    assert [node.node_id for node in store.get_nodes(filters=filters)] == expected


def test_hostile_ids_documents_keys_and_values_are_data(store: LanceDBVectorStore) -> None:
    """No quote, marker or comment in an id or a filter reaches the database as SQL."""
    names = [*HOSTILE, "' OR '1'='1", "x" * 10_000]
    store.add([text_node(f"n{name}", vector(1), doc=name, metadata={name: name}) for name in names])
    for name in names:
        assert [node.node_id for node in store.get_nodes([f"n{name}"])] == [f"n{name}"]
        for operator, value in (("==", name), ("text_match", name), ("in", [name])):
            found = store.query(ask(vector(1), 100, filters=only(name, operator, value)))
            assert found.ids == [f"n{name}"], (operator, name[:20])
    for name in names:
        store.delete(name)
    assert store.get_nodes() == []


def test_folding_case_agrees_with_python_on_every_letter(store: LanceDBVectorStore) -> None:
    """`text_match_insensitive` folds each cased character of Unicode as Python does."""
    cased = [chr(c) for c in range(0x20, 0x20000) if chr(c) != chr(c).lower() and not 0xD800 <= c <= 0xDFFF]
    store.add([text_node(f"{ord(c):06}", vector(1), metadata={"k": f"<{c}>"}) for c in cased])
    unlike = []
    for start in range(0, len(cased), 60):
        some = cased[start : start + 60]
        either = MetadataFilters(
            filters=[only("k", "text_match_insensitive", f"<{c}>") for c in some], condition="or"
        )
        found = {node.metadata["k"] for node in store.get_nodes(filters=either)}
        unlike += [c for c in some if f"<{c}>" not in found]
    assert unlike == []


def test_labels_spell_equal_values_alike() -> None:
    """1, 1.0 and True are one value to Python, "1" is another; a long value is a digest."""
    assert labels_of({"k": 1}) == labels_of({"k": 1.0}) == labels_of({"k": True})
    assert labels_of({"k": 1}) != labels_of({"k": "1"})
    assert max(map(len, labels_of({"k": "x" * 10_000}))) == 33


# ---- writing ---------------------------------------------------------------------------------------------


def test_it_is_the_official_store_and_takes_its_options(tmp_path: Path) -> None:
    """isinstance holds, and renamed columns are used."""
    store = LanceDBVectorStore(
        str(tmp_path),
        "mine",
        vector_column_name="v",
        text_key="t",
        doc_id_key="d",
        mode="overwrite",
        nprobes=3,
    )
    store.add([text_node("a", vector(1), doc="d1")])
    assert isinstance(store, OfficialStore)
    assert {"v", "t", "d"} <= set(store.table.schema.names)
    assert store.query(ask(vector(1))).ids == ["a"]


def test_a_second_handle_does_not_wipe_the_first(tmp_path: Path) -> None:
    """Two stores opened before the table exists both add to it (the official one overwrites)."""
    first, second = LanceDBVectorStore(tmp_path), LanceDBVectorStore(tmp_path)
    first.add([text_node("a", vector(1))])
    second.add([text_node("b", vector(1))])
    assert [node.node_id for node in first.get_nodes()] == ["a", "b"]


def test_replacing_documents_is_one_commit(store: LanceDBVectorStore) -> None:
    """Old chunks go, new ones come, other documents stay, and there is one new version."""
    store.add([text_node(f"{d}{i}", vector(1, i), doc=d) for d in "ab" for i in range(3)])
    before = store.table.version
    store.replace_documents(["a"], [text_node("a0", vector(2), doc="a"), text_node("a9", vector(3), doc="a")])
    assert [node.node_id for node in store.get_nodes()] == ["a0", "a9", "b0", "b1", "b2"]
    assert store.table.version == before + 1
    store.replace_documents(["a", "b"], [])
    assert store.get_nodes() == []


def test_an_emptied_table_takes_another_model(tmp_path: Path) -> None:
    """After `clear` the next vectors may have another length and fingerprint."""
    store = LanceDBVectorStore(tmp_path, fingerprint="model=a")
    store.add([text_node("a", vector(1))])
    store.clear()
    other = LanceDBVectorStore(tmp_path, fingerprint="model=b")
    other.add([TextNode(id_="b", embedding=[1.0, 2.0])])
    assert LanceDBVectorStore(tmp_path).fingerprint == "model=b"


def test_optimizing_takes_deleted_text_off_the_disk(tmp_path: Path) -> None:
    """`keep_versions_s=0` leaves no file with the words of a deleted document."""
    secret = "Zebrafinkgeheimnis"

    def on_disk() -> bool:
        return any(secret.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    store = LanceDBVectorStore(tmp_path)
    store.add([text_node("a", vector(1), text=secret, doc="d"), text_node("b", vector(1), doc="e")])
    store.delete("d")
    assert on_disk()
    store.optimize(keep_versions_s=0)
    assert not on_disk()
    assert [node.node_id for node in store.get_nodes()] == ["b"]


# ---- refusing --------------------------------------------------------------------------------------------


def test_a_table_of_the_official_adapter_is_refused_by_its_columns(tmp_path: Path) -> None:
    """Its rows lack what exact filters need; nothing is touched."""
    OfficialStore(str(tmp_path), "vectors").add([TextNode(id_="a", text="t", embedding=vector(1))])
    with pytest.raises(StoreError, match=r"no column kind, node, fields, labels.*official adapter"):
        LanceDBVectorStore(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "faiss"}, "index='faiss' is not known. Choose one of: auto"),
        ({"colour": 1}, "does not know .colour"),
        ({"api_key": "k"}, "LanceDB Cloud, which is not supported"),
        ({"uri": "db://x"}, "LanceDB Cloud, which is not supported"),
        ({"uri": None}, "needs a uri"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Each refusal says what is wrong and what is possible."""
    with pytest.raises(SettingsError, match=message):
        LanceDBVectorStore(**{"uri": tmp_path, **options})


def test_a_missing_table_can_be_required(tmp_path: Path) -> None:
    """`mode="append"` is for those who expect data to be there."""
    with pytest.raises(StoreError, match="'vectors' does not exist and mode='append'") as refused:
        LanceDBVectorStore(tmp_path, mode="append")
    assert isinstance(refused.value, TableNotFoundError)  # what an app on the official adapter catches


def test_credentials_stay_out_of_every_form(tmp_path: Path) -> None:
    """Neither repr nor to_dict nor pickle shows the storage options."""
    store = LanceDBVectorStore(tmp_path, storage_options={"aws_secret_access_key": "s3cr3t"})
    for form in (repr(store), str(store), str(store.to_dict()), store.json(), str(pickle.dumps(store))):
        assert "s3cr3t" not in form


def test_it_survives_pickle_and_dict(tmp_path: Path) -> None:
    """Both forms open the same table again."""
    store = LanceDBVectorStore(tmp_path, "mine", fingerprint="model=a")
    store.add([text_node("a", vector(1))])
    assert pickle.loads(pickle.dumps(store)).get_nodes()[0].node_id == "a"
    assert LanceDBVectorStore.from_dict(store.to_dict()).get_nodes()[0].node_id == "a"
    assert LanceDBVectorStore.from_table(store.table).fingerprint == "model=a"


# ---- text, hybrid, MMR -----------------------------------------------------------------------------------


@pytest.fixture
def library(store: LanceDBVectorStore) -> LanceDBVectorStore:
    texts = ["dogs dog dog", "a dog sleeps", "cats sleep", "nothing here"]
    store.add(
        [
            text_node(t, v, text=t, metadata={"n": len(t)})
            for t, v in zip(texts, random_vectors(4), strict=True)
        ]
    )
    return store


def test_text_search_gives_bm25_scores_and_sees_new_rows(library: LanceDBVectorStore) -> None:
    """Scores fall, stems match, filters hold, and rows added after the index was built are found."""
    found = library.query(words("dogs"))
    assert found.ids == ["dogs dog dog", "a dog sleeps"]
    assert found.similarities[0] > found.similarities[1] > 0
    assert library.query(words("dogs", filters=only("n", "==", 12))).ids == found.ids
    library.add([text_node("late", vector(1), text="one late dog")])
    assert "late" in library.query(words("dogs")).ids


@pytest.mark.parametrize("hostile", ["dog's AND (", '"dog', "dog +x -y ^2 *", "dog:dog", "dog\\", "(dog OR"])
def test_text_search_reads_words_not_a_query_language(library: LanceDBVectorStore, hostile: str) -> None:
    """Quotes, brackets and operators in a question are no syntax."""
    assert "dogs dog dog" in library.query(words(hostile)).ids


def test_hybrid_ends_are_its_legs(library: LanceDBVectorStore) -> None:
    """alpha 1 orders as vectors do, alpha 0 as words do, and scores lie in [0, 1]."""
    question = {"query_embedding": random_vectors(1, seed=3)[0].tolist(), "mode": VectorStoreQueryMode.HYBRID}
    dense = library.query(ask(question["query_embedding"])).ids
    assert library.query(words("dogs", alpha=1.0, **question)).ids == dense
    assert library.query(words("dogs", alpha=0.0, **question)).ids[:2] == library.query(words("dogs")).ids
    both = library.query(words("dogs", hybrid_top_k=3, **question))
    assert len(both.ids) == 3 and 1 >= both.similarities[0] >= both.similarities[-1] >= 0
    with pytest.raises(QueryError, match="alpha is 2"):
        library.query(words("dogs", alpha=2, **question))


def test_mmr_prefers_what_is_not_there_yet(store: LanceDBVectorStore) -> None:
    """Of two near twins and a stranger, the second choice is the stranger; threshold 1 is plain search."""
    store.add(
        [text_node("a", vector(1)), text_node("twin", vector(1, 0.01)), text_node("far", vector(0.6, -0.8))]
    )
    query = ask(vector(1, 0.05), 2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)
    found = store.query(query)
    assert found.ids == ["twin", "far"]
    assert found.nodes[0].embedding is None
    query.mmr_threshold = 1.0
    assert store.query(query).ids == store.query(ask(vector(1, 0.05), 2)).ids


# ---- indexes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", INDEX_CHOICES)
def test_index_parameters_fit_rows_and_dimension(choice: str) -> None:
    """Sub-vectors divide the dimension, and a partition has at least 40 rows to train on."""
    for rows, dim in itertools.product(
        [0, 1, 255, 256, 1_000, 20_000, 1_000_000, 10_000_000], [2, 7, 8, 384, 512, 768, 1000, 1536, 3072]
    ):
        plan = plan_index("auto" if dim % 8 and choice == "ivf_rq" else choice, rows=rows, dim=dim)
        if plan is None:
            assert choice == "none" or rows < 20_000
        else:
            assert plan.partitions == 1 or rows / plan.partitions >= 40
            assert plan.kind != "ivf_pq" or dim % plan.sub_vectors == 0


def test_a_load_builds_few_indexes() -> None:
    """While ten million rows come in batches of 10,000, an index is due fewer than ten times."""
    indexed = builds = 0
    for rows in range(0, 10_000_001, 10_000):
        if is_due(indexed=indexed, unindexed=rows - indexed):
            indexed, builds = rows, builds + 1
    assert builds < 10


def clustered(rows: int, dim: int) -> np.ndarray:
    """Vectors around forty centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, dim))
    return centres[rng.integers(0, 40, rows)] + rng.normal(size=(rows, dim)) * 0.4


def test_ivf_rq_says_which_vectors_it_takes(tmp_path: Path) -> None:
    """RaBitQ codes need a length that 8 divides; asked for by name the first add says so, and "auto" takes PQ."""
    store = LanceDBVectorStore(tmp_path, index="ivf_rq")
    with pytest.raises(SettingsError, match="8 divides, and these have 2 numbers. Choose index='auto'"):
        store.add([text_node("a", [1.0, 0.0])])
    assert store.node_ids() == []
    kinds = {dim: plan_index("auto", rows=50_000, dim=dim).kind for dim in (100, 384, 512, 768, 1536, 3072)}  # type: ignore[union-attr]
    assert kinds.pop(100) == "ivf_pq" and set(kinds.values()) == {"ivf_rq"}


@pytest.mark.parametrize("choice", ["ivf_rq", "ivf_pq", "hnsw"])
def test_an_index_is_built_after_the_load_and_answers_well(tmp_path: Path, choice: str) -> None:
    """`finish_load` builds it, queries find what a scan finds, rows added later are found at once."""
    data = clustered(2_000, 32)
    store = LanceDBVectorStore(tmp_path, index=choice)
    store.add(
        [TextNode(id_=f"{i}", embedding=v, metadata={"m": i % 100}) for i, v in enumerate(data.tolist())]
    )
    questions = (data[:30] + np.random.default_rng(1).normal(size=(30, 32)) * 0.2).tolist()
    exact = [store.query(ask(q)).ids for q in questions]
    store.finish_load()
    (built,) = [index for index in store.table.list_indices() if index.name == "vector_idx"]
    assert choice.replace("_", "") in built.index_type.lower()
    reader = LanceDBVectorStore(tmp_path)  # It is not told which index the table has.
    hits = sum(len(set(reader.query(ask(q)).ids) & set(e)) for q, e in zip(questions, exact, strict=True))
    assert hits >= 0.95 * 10 * len(questions)
    assert len(store.query(ask(questions[0], 10, filters=only("m", "==", 3))).ids) == 10
    store.add([TextNode(id_="new", embedding=[9.0] * 32)])
    assert store.query(ask([9.0] * 32, 1)).ids == ["new"]
    store.finish_load()
    assert store.query(ask([9.0] * 32, 1)).ids == ["new"]


@pytest.mark.parametrize("choice", ["ivf_rq", "ivf_pq", "hnsw"])
def test_an_index_follows_deletes_and_replacements(tmp_path: Path, choice: str) -> None:
    """After a third was deleted and a third moved elsewhere, queries through the index find what a scan finds."""
    data = clustered(1_500, 32)
    store = LanceDBVectorStore(tmp_path, index=choice, nprobes=40)
    store.add([TextNode(id_=f"{i}", embedding=v) for i, v in enumerate(data.tolist())])
    store.finish_load()
    store.delete_nodes([f"{i}" for i in range(500)])
    data[500:1_000] = -data[500:1_000]
    store.add([TextNode(id_=f"{i}", embedding=data[i].tolist()) for i in range(500, 1_000)])
    store.optimize(keep_versions_s=0)
    hits = 0
    for question in [*data[500:520], *data[1_000:1_020]]:
        found = store.query(ask(question.tolist())).ids or []
        nearest = 500 + np.argsort(-cosines(data[500:], question))[:10]
        assert not {int(one) for one in found} & set(range(500))
        hits += len({int(one) for one in found} & set(nearest.tolist()))
    assert hits >= 0.95 * 10 * 40


def cosines(data: np.ndarray, question: np.ndarray) -> np.ndarray:
    """Cosine of every row with a direction."""
    return data @ question / np.linalg.norm(data, axis=1) / np.linalg.norm(question)
