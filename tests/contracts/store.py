"""What every vector store of this project promises. Inherit `StoreContract` and say how to open yours:

    class TestMyStore(StoreContract):
        modes = frozenset({VectorStoreQueryMode.DEFAULT})

        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda **options: MyStore(tmp_path / "my", **options)

`open_store(**options)` opens the same collection each time; options are ``fingerprint`` and nothing else.
A mode that is not in `modes` must be refused, and the suite checks that it is.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from llama_index.core.indices import VectorStoreIndex
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from llama_index_presets.errors import (
    FilterError,
    FingerprintError,
    NodeRejectedError,
    QueryError,
    StoreError,
    UnknownOptionError,
    WrongTypeError,
)
from llama_index_presets.filters import REFERENCE_KEYS, filterable_metadata, predicate

DIM = 8
Open = Callable[..., Any]


def vector(*values: float) -> list[float]:
    """A vector of `DIM` numbers that starts with these."""
    return [*values, *([0.0] * (DIM - len(values)))]


def random_vectors(count: int, seed: int = 7) -> np.ndarray:
    """Directions without structure, shape (count, DIM), not normalised."""
    return np.random.default_rng(seed).normal(size=(count, DIM)) * 3


def text_node(node_id: str, embedding: Sequence[float], *, doc: str | None = None, **fields: Any) -> TextNode:
    """A text node; `doc` is its source document."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc)} if doc else {}
    fields.setdefault("text", f"text of {node_id}")
    return TextNode(id_=node_id, embedding=list(embedding), relationships=source, **fields)


def only(key: str, operator: str, value: Any = None) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


def group(condition: str, *filters: MetadataFilters | MetadataFilter) -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=condition)


def ask(embedding: Sequence[float] | None, top_k: int = 10, **fields: Any) -> VectorStoreQuery:
    embedding = None if embedding is None else [float(x) for x in embedding]
    return VectorStoreQuery(query_embedding=embedding, similarity_top_k=top_k, **fields)


METADATA: list[dict[str, Any]] = [
    {"n": 1, "s": "alpha", "tags": ["a", "b"], "flag": True, "date": "2024-01-31"},
    {"n": 2, "s": "Beta", "tags": ["b"], "flag": False, "date": "2024-02-01"},
    {"n": 2.0, "s": "beta", "tags": [], "date": "2023-12-31T23:59:59"},
    {"n": -3.5, "s": "", "tags": "ab", "flag": True},
    {"n": "2", "s": "it's", "tags": ["it's", '"'], "a.b": 1},
    {"n": None, "s": "100%", "tags": ["100%"], "a.b": "x", "a": {"b": 2}},
    {"s": "50_50", "tags": [1, 2.5, True], "a.b": ["x"]},
    {"n": 2**53 + 1, "s": "ümläut ΟΔΟΣ", "tags": None},
    {"n": 0, "s": None, "tags": ["a", None], "flag": False, "quo\"te's;$:\\": "v"},
    {},
    {"n": [1, 2], "s": ["alpha"], "tags": [["a"]], "flag": "true"},
]

FILTERS: list[MetadataFilters] = [
    only("n", "==", 2),
    only("n", "==", 2.0),
    only("n", "==", "2"),
    only("n", "==", 2**53 + 1),
    only("n", "==", float(2**53)),
    only("n", "!=", 2),
    only("n", ">", 1),
    only("n", ">=", 2.0),
    only("n", "<", 1.5),
    only("n", "<=", 0),
    *(
        only("n", operator, number)
        for operator in ("==", "!=", ">", "<=")
        for number in (math.nan, math.inf, -math.inf)
    ),
    only("n", "in", [math.nan, 2]),
    only("n", "nin", [math.nan, 2]),
    only("n", ">", "1"),
    only("n", "<=", "2.0"),
    only("n", ">", str(2**53)),
    only("n", "<", "2024-01-31"),
    only("n", "in", [1, 2]),
    only("n", "in", []),
    only("n", "nin", [1, 2]),
    only("n", "nin", []),
    only("n", "is_empty"),
    only("n", "==", [1, 2]),
    only("s", "==", "alpha"),
    only("s", "==", "it's"),
    only("s", "!=", "bet"),
    only("s", "in", ["alpha", "it's", "100%"]),
    only("s", ">=", "alpha"),
    only("s", "text_match", "eta"),
    only("s", "text_match", "%"),
    only("s", "text_match", "_"),
    only("s", "text_match", "BETA"),
    only("s", "text_match_insensitive", "BETA"),
    only("s", "text_match_insensitive", "ÜML"),
    only("s", "contains", "lph"),
    only("s", "is_empty"),
    only("tags", "contains", "a"),
    only("tags", "contains", 1),
    only("tags", "contains", 2.5),
    only("tags", "any", ["a", "it's"]),
    only("tags", "any", [1, 7]),
    only("tags", "any", []),
    only("tags", "all", ["a", "b"]),
    only("tags", "all", []),
    only("tags", "==", ["b"]),
    only("tags", "!=", ["b"]),
    only("tags", "is_empty"),
    only("flag", "==", 1),
    only("flag", "==", 0),
    only("flag", "==", "true"),
    only("flag", "!=", 1),
    only("date", ">=", "2024-01-01"),
    only("date", "<", "2024-01-01"),
    only("a.b", "==", 1),
    only("a.b", "==", "x"),
    only("a.b", "contains", "x"),
    only("a.b", "is_empty"),
    only("a", "contains", "b"),
    only("quo\"te's;$:\\", "==", "v"),
    only("nowhere", "==", 1),
    only("nowhere", "!=", 1),
    only("nowhere", "nin", ["x"]),
    only("nowhere", "is_empty"),
    only("s", "==", "nope' OR '1'='1"),
    only("s\" = '' OR 1=1 --", "==", "x"),
    only("ref_doc_id", "==", "doc-1"),
    only("doc_id", "in", ["doc-0", "doc-2"]),
    group("and", only("n", ">=", 1), only("s", "text_match", "eta")),
    group("or", only("n", "==", 1), only("s", "==", "it's")),
    group("not", only("n", "==", 1), only("s", "==", "it's")),
    group("and", only("n", "is_empty"), group("not", only("s", "is_empty"), only("tags", "contains", "a"))),
    group(
        "or", group("and", only("n", ">", 0), only("flag", "==", 1)), group("not", only("s", "!=", "beta"))
    ),
    group("not", group("not", group("or", only("a.b", "==", 1), only("tags", "any", ["b"])))),
]

ALL_KINDS: list[BaseNode] = [
    TextNode(
        id_="text",
        text="ünïcode 漢字 '\" \\ \n 🙂",
        metadata={"nested": {"list": [1, {"none": None}], "f": 0.1}, "ü": True, "none": None},
        excluded_embed_metadata_keys=["ü"],
        excluded_llm_metadata_keys=["nested"],
        start_char_idx=3,
        end_char_idx=9,
        text_template="{content}!",
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d", node_type="4", metadata={"a": 1}, hash="h"),
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="image"),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
        },
    ),
    TextNode(id_="empty", text=""),
    ImageNode(id_="image", text="alt", image="aGk=", image_path="a.png", text_embedding=[1.0, 2.0]),
    IndexNode(id_="index", text="see", index_id="other", obj=TextNode(id_="inner", text="inside")),
    IndexNode(id_="index-plain", text="see", index_id="other"),
    Document(id_="document", text="whole", metadata={"k": [1, 2]}),
    Node(id_="media", image_resource=MediaResource(data=b"aGk="), text_resource=MediaResource(text="t")),
    Node(id_="bare"),
]


class StoreContract:
    """Behaviour that a store inherits tests for; see the module's docstring."""

    modes: frozenset[VectorStoreQueryMode] = frozenset({VectorStoreQueryMode.DEFAULT})
    """Query modes that the store answers; every other one must be refused."""

    similarity_tolerance = 1e-5
    """Largest difference of a score from the cosine similarity."""

    reopens = True
    """Whether a closed store opens again when it is used; otherwise every use is refused."""

    source_keys: tuple[str, ...] = REFERENCE_KEYS
    """Names of the source document that metadata may have as keys of its own."""

    pickles = False
    """Whether a store can be pickled; otherwise pickling is refused."""

    @pytest.fixture
    def open_store(self) -> Open:
        raise NotImplementedError("override open_store in the class that inherits the contract")

    @pytest.fixture
    def store(self, open_store: Open) -> Iterator[BasePydanticVectorStore]:
        store = open_store()
        yield store
        store.close()

    @pytest.fixture
    def zoo(self, store: Any) -> Any:
        """A store with one node per entry of METADATA; nodes alternate between three documents."""
        vectors = random_vectors(len(METADATA))
        store.add(
            [text_node(f"z{i}", vectors[i], metadata=m, doc=f"doc-{i % 3}") for i, m in enumerate(METADATA)]
        )
        return store

    # ---- writing -----------------------------------------------------------------------------------------

    def test_add_gives_back_the_ids_in_order(self, store: Any) -> None:
        """`add` returns one id per node, in the order given."""
        assert store.add([text_node("b", vector(1)), text_node("a", vector(0, 1))]) == ["b", "a"]

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda store: store.add("a text"), "nodes is a str"),
            (lambda store: store.add(None), "nodes is None"),
            (lambda store: store.add(["a text"]), "nodes holds a str"),
            (lambda store: store.query("what?"), "query is a str. Give a VectorStoreQuery"),
            (lambda store: store.query(ask(vector(1), filters={"k": "v"})), "filters is a dict"),
            (lambda store: store.get_nodes("a"), "node ids is a str"),
            (lambda store: store.get_nodes([1]), "node ids holds an int"),
            (lambda store: store.get_nodes(filters={"k": "v"}), "filters is a dict"),
            (lambda store: store.delete_nodes("a"), "node ids is a str"),
            (lambda store: store.delete(7), "document ids holds an int"),
            (lambda store: store.document_nodes("doc"), "document ids is a str"),
            (lambda store: store.replace_documents("doc", []), "document ids is a str"),
            (lambda store: store.replace_documents(None, []), "ref_doc_ids is None"),
            (lambda store: store.replace_documents(["doc"], "text"), "nodes is a str"),
        ],
    )
    def test_an_argument_of_another_type_is_named(self, store: Any, call: Any, said: str) -> None:
        """It was an AttributeError from within, and a text in place of ids was taken for a list of letters."""
        with pytest.raises(WrongTypeError, match=re.escape(said)):
            call(store)

    def test_nodes_may_come_from_a_generator(self, store: Any) -> None:
        """Its ids are given back, too."""
        assert store.add(one for one in [text_node("a", vector(1))]) == ["a"]

    def test_adding_nothing_is_fine(self, store: Any) -> None:
        """An empty batch is a batch, even before the first node."""
        assert store.add([]) == []
        assert store.query(ask(vector(1))).ids == []

    def test_adding_again_replaces(self, store: Any) -> None:
        """The node id is the key: the second `add` wins, and there is still one node."""
        store.add([text_node("a", vector(1), text="old", metadata={"v": 1})])
        store.add([text_node("a", vector(0, 1), text="new", metadata={"v": 2})])
        found = store.query(ask(vector(0, 1)))
        assert found.ids == ["a"]
        assert found.nodes[0].text == "new" and found.nodes[0].metadata == {"v": 2}
        assert found.similarities == [pytest.approx(1.0, abs=self.similarity_tolerance)]

    def test_the_last_of_two_equal_ids_in_a_batch_wins(self, store: Any) -> None:
        """A batch with the same id twice leaves one node, the later one."""
        store.add([text_node("a", vector(1), text="first"), text_node("a", vector(0, 1), text="last")])
        assert [node.text for node in store.get_nodes()] == ["last"]

    @pytest.mark.parametrize(
        "bad",
        [None, vector(1)[:-1], [*vector(1), 1.0], vector(math.nan), vector(math.inf), vector(0.0)],
        ids=["missing", "short", "long", "nan", "inf", "zero"],
    )
    def test_an_unusable_vector_is_refused_by_id_and_nothing_is_written(self, store: Any, bad: Any) -> None:
        """One bad node refuses the whole call, before the good ones are written."""
        store.add([text_node("before", vector(1))])
        with pytest.raises(NodeRejectedError, match="'bad'") as refused:
            store.add([text_node("good", vector(1)), TextNode(id_="bad", text="t", embedding=bad)])
        assert refused.value.node_ids == ["bad"]
        assert [node.node_id for node in store.get_nodes()] == ["before"]

    def test_every_kind_of_node_comes_back_as_it_was(self, store: Any) -> None:
        """Type, text, metadata, relationships, templates and media survive."""
        nodes = [node.model_copy(update={"embedding": vector(1, i)}) for i, node in enumerate(ALL_KINDS)]
        store.add(nodes)
        for node in ALL_KINDS:
            (back,) = store.get_nodes([node.node_id])
            assert type(back) is type(node)
            assert back.model_copy(update={"embedding": None}) == node
            assert back.hash == node.hash

    def test_get_nodes_brings_the_embedding_along(self, store: Any) -> None:
        """What comes out can be added elsewhere."""
        store.add([text_node("a", vector(0.25, 0.5))])
        assert store.get_nodes(["a"])[0].embedding == pytest.approx(vector(0.25, 0.5))

    def test_add_leaves_the_nodes_as_they_were(self, store: Any) -> None:
        """The caller's nodes are read, never changed."""
        node = text_node("a", vector(3, 4), metadata={"k": 1})
        before = node.model_copy(deep=True)
        store.add([node])
        assert node == before

    # ---- deleting ----------------------------------------------------------------------------------------

    def test_delete_removes_one_document_and_no_namesake(self, store: Any) -> None:
        """`delete` takes the id of the source document, literally."""
        docs = ["doc1", "doc10", "doc1#x", "it's", "%"]
        store.add([text_node(f"n{i}", vector(1, i), doc=doc) for i, doc in enumerate(docs)])
        store.delete("doc1")
        store.delete("%")
        store.delete("not there")
        assert sorted(node.ref_doc_id for node in store.get_nodes()) == ["doc1#x", "doc10", "it's"]

    def test_document_nodes_takes_the_source_and_not_what_metadata_says(self, store: Any) -> None:
        """A document is found by its id also where its metadata has the keys of a source document."""
        docs = ["doc1", "doc10", "it's", "%"]
        store.add([text_node(f"n{i}", vector(1, i), doc=doc) for i, doc in enumerate(docs)])
        odd = text_node("odd", vector(2), doc="doc1")
        odd.metadata = {key: value for key in self.source_keys for value in ["doc10"]}
        store.add([odd])
        assert [node.node_id for node in store.document_nodes(["doc1", "not there"])] == ["n0", "odd"]
        assert [node.node_id for node in store.document_nodes(["doc10"])] == ["n1"]
        assert [node.node_id for node in store.document_nodes(["%", "it's"])] == ["n2", "n3"]
        assert store.document_nodes([]) == [] and len(store.document_nodes(["%"])[0].embedding) > 0

    def test_delete_nodes_by_id_by_filter_and_by_both(self, zoo: Any) -> None:
        """Ids and filters each select; together they intersect."""
        zoo.delete_nodes(["z0", "not there"])
        zoo.delete_nodes(filters=only("s", "==", "it's"))
        zoo.delete_nodes(["z1", "z2"], only("s", "==", "beta"))
        left = {f"z{i}" for i in range(len(METADATA))} - {"z0", "z4", "z2"}
        assert {node.node_id for node in zoo.get_nodes()} == left

    @pytest.mark.parametrize("nothing", [{}, {"filters": MetadataFilters(filters=[])}])
    def test_delete_nodes_without_a_choice_deletes_nothing_and_says_so(self, zoo: Any, nothing: Any) -> None:
        """Forgetting the arguments must not empty the store."""
        with pytest.warns(UserWarning, match="deleted nothing"):
            zoo.delete_nodes(**nothing)
        assert len(zoo.get_nodes()) == len(METADATA)

    def test_delete_nodes_of_an_empty_list_deletes_nothing(self, zoo: Any) -> None:
        """An empty list of ids is a choice: none of them."""
        zoo.delete_nodes([])
        zoo.delete_nodes([], only("nowhere", "is_empty"))
        assert len(zoo.get_nodes()) == len(METADATA)

    def test_clear_empties_and_the_store_goes_on(self, zoo: Any) -> None:
        """After `clear` there is nothing, and adding works."""
        zoo.clear()
        assert zoo.get_nodes() == [] and zoo.query(ask(vector(1))).ids == []
        zoo.add([text_node("again", vector(1))])
        assert zoo.query(ask(vector(1))).ids == ["again"]

    def test_what_clear_removed_is_not_found_beside_what_came_after(self, zoo: Any) -> None:
        """A store that answered before `clear` remembers nothing of it."""
        before = zoo.query(ask(vector(1), len(METADATA))).ids
        zoo.clear()
        zoo.add([text_node("z1", vector(1)), text_node("new", vector(2))])
        assert len(before) == len(METADATA)
        assert sorted(zoo.query(ask(vector(1), len(METADATA))).ids) == ["new", "z1"]

    # ---- reading -----------------------------------------------------------------------------------------

    def test_get_nodes_by_id_keeps_the_order_asked_for(self, zoo: Any) -> None:
        """Ids come back in the order asked, unknown ones are left out."""
        assert [node.node_id for node in zoo.get_nodes(["z3", "not there", "z1"])] == ["z3", "z1"]
        assert zoo.get_nodes([]) == []

    def test_get_nodes_by_filter_and_by_both(self, zoo: Any) -> None:
        """Filters select as in a query; with ids they intersect."""
        assert {node.node_id for node in zoo.get_nodes(filters=only("n", "==", 2))} == {"z1", "z2"}
        assert [node.node_id for node in zoo.get_nodes(["z0", "z2"], only("n", "==", 2))] == ["z2"]

    def test_scores_are_cosine_similarity_best_first(self, store: Any) -> None:
        """Scores are Python floats, equal to the cosine, in descending order."""
        vectors = random_vectors(40)
        store.add([text_node(f"n{i:02}", v) for i, v in enumerate(vectors)])
        asked = random_vectors(1, seed=8)[0]
        cosines = vectors @ asked / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
        best = np.argsort(-cosines)[:10]
        found = store.query(ask(asked))
        assert found.ids == [f"n{i:02}" for i in best]
        assert found.similarities == pytest.approx(cosines[best].tolist(), abs=self.similarity_tolerance)
        assert all(type(score) is float for score in found.similarities)
        assert json.dumps(found.similarities)
        assert [node.node_id for node in found.nodes] == found.ids

    def test_ties_are_ordered_by_id(self, store: Any) -> None:
        """Equal vectors come in the order of their ids, also where only some of them fit."""
        store.add([text_node(name, vector(1, 1)) for name in "dbeca"])
        assert store.query(ask(vector(1, 1), 5)).ids == ["a", "b", "c", "d", "e"]
        assert store.query(ask(vector(1, 1), 2)).ids == ["a", "b"]

    def test_asking_for_more_than_there_is_gives_all(self, zoo: Any) -> None:
        """top_k is a limit, not a demand."""
        assert len(zoo.query(ask(vector(1), 1000)).ids) == len(METADATA)

    def test_results_do_not_carry_the_embedding(self, zoo: Any) -> None:
        """A hit is for reading; `get_nodes` is for copying."""
        assert zoo.query(ask(vector(1), 1)).nodes[0].embedding is None

    @pytest.mark.parametrize(
        ("embedding", "message"),
        [
            (None, "embedding"),
            (vector(1)[:-1], f"{DIM - 1} numbers.*{DIM}"),
            (vector(0.0), "zero"),
            (vector(math.nan), "not finite"),
        ],
    )
    def test_an_unusable_question_is_refused(self, zoo: Any, embedding: Any, message: str) -> None:
        """A vector that cannot be compared is an error, not an empty answer."""
        with pytest.raises(QueryError, match=message):
            zoo.query(ask(embedding))

    def test_negative_top_k_is_refused(self, zoo: Any) -> None:
        """A limit below zero is a mistake."""
        with pytest.raises(QueryError, match="similarity_top_k"):
            zoo.query(ask(vector(1), -1))

    @pytest.mark.parametrize("mode", list(VectorStoreQueryMode))
    def test_a_mode_is_answered_or_refused_never_ignored(self, zoo: Any, mode: VectorStoreQueryMode) -> None:
        """No mode silently becomes another one."""
        query = ask(vector(1), 2, mode=mode, query_str="alpha text")
        if mode in self.modes:
            assert len(zoo.query(query).ids) <= 2
        else:
            with pytest.raises(QueryError, match=mode.value):
                zoo.query(query)

    def test_a_mode_may_be_given_by_its_name(self, zoo: Any) -> None:
        """As the value of the enumeration; a name that is none is refused, with those that are."""
        named, member = "default", VectorStoreQueryMode.DEFAULT
        assert zoo.query(ask(vector(1), 2, mode=named)).ids == zoo.query(ask(vector(1), 2, mode=member)).ids
        with pytest.raises(QueryError, match="There is no mode 'nearest'. Use one of: default,"):
            zoo.query(ask(vector(1), 2, mode="nearest"))

    # ---- restricting -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: str(FILTERS.index(filters)))
    def test_filters_mean_the_same_everywhere(self, zoo: Any, filters: MetadataFilters) -> None:
        """Query and get_nodes select exactly what the reference predicate selects."""
        accepts = predicate(filters)
        expected = {node.node_id for node in zoo.get_nodes() if accepts(filterable_metadata(node))}
        assert set(zoo.query(ask(vector(1, 1), 100, filters=filters)).ids) == expected
        assert {node.node_id for node in zoo.get_nodes(filters=filters)} == expected

    def test_a_selective_filter_still_fills_top_k(self, store: Any) -> None:
        """Filters apply before the cut: the best of the selected, however far down they are."""
        vectors = random_vectors(300)
        store.add([text_node(f"n{i}", v, metadata={"pick": int(i % 50 == 0)}) for i, v in enumerate(vectors)])
        found = store.query(ask(vector(1), 6, filters=only("pick", "==", 1)))
        assert set(found.ids) == {f"n{i}" for i in range(0, 300, 50)}

    def test_a_meaningless_filter_is_refused(self, zoo: Any) -> None:
        """`in` needs a list."""
        with pytest.raises(FilterError, match="takes a list"):
            zoo.query(ask(vector(1), filters=only("n", "in", 5)))

    def test_node_ids_restrict_and_an_empty_list_does_not(self, zoo: Any) -> None:
        """`[]` is what VectorStoreIndex always sends: it means no restriction."""
        assert set(zoo.query(ask(vector(1), 100, node_ids=["z1", "z4", "gone"])).ids) == {"z1", "z4"}
        assert len(zoo.query(ask(vector(1), 100, node_ids=[])).ids) == len(METADATA)
        assert zoo.query(ask(vector(1), 100, node_ids=["gone"])).ids == []

    def test_doc_ids_restrict_and_an_empty_list_selects_nothing(self, zoo: Any) -> None:
        """Nodes of these documents only; no documents, no nodes."""
        wanted = {f"z{i}" for i in range(len(METADATA)) if i % 3 in (0, 2)}
        assert set(zoo.query(ask(vector(1), 100, doc_ids=["doc-0", "doc-2"])).ids) == wanted
        assert zoo.query(ask(vector(1), 100, doc_ids=[])).ids == []

    def test_restrictions_add_up(self, zoo: Any) -> None:
        """Filters, node ids and documents must all agree."""
        query = ask(vector(1), 100, node_ids=["z0", "z1", "z3"], doc_ids=["doc-0"], filters=only("n", ">", 0))
        assert zoo.query(query).ids == ["z0"]

    def test_an_index_finds_text_beside_an_image(self, store: Any) -> None:
        """VectorStoreIndex lists only image and index nodes in node_ids; that hides no text node."""
        image = ImageNode(
            id_="i1", text="picture", image_url="http://localhost/x.png", embedding=vector(1, 1)
        )
        store.add([text_node("t1", vector(1)), text_node("t2", vector(1, 2)), image])
        assert set(store.query(ask(vector(1), node_ids=["i1"])).ids) == {"t1", "t2", "i1"}
        assert set(store.query(ask(vector(1), node_ids=["i1", "t1"])).ids) == {"t1", "i1"}

    def test_a_plain_index_works_on_top(self, zoo: Any) -> None:
        """`VectorStoreIndex.from_vector_store(...).as_retriever(...)` needs nothing special."""
        from llama_index.core.embeddings import MockEmbedding

        index = VectorStoreIndex.from_vector_store(zoo, embed_model=MockEmbedding(embed_dim=DIM))
        hits = index.as_retriever(similarity_top_k=3).retrieve(QueryBundle("alpha", embedding=vector(1)))
        assert [hit.node_id for hit in hits] == zoo.query(ask(vector(1), 3)).ids

    # ---- keywords ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("method", "arguments", "misspelt", "meant"),
        [
            ("query", [ask(vector(1))], "mmr_treshold", "mmr_threshold"),
            ("query", [ask(vector(1))], "mmr_prefetch_facto", "mmr_prefetch_factor"),
            ("aquery", [ask(vector(1))], "mmr_treshold", "mmr_threshold"),
            ("add", [[text_node("a", vector(1))]], "bullk", "bulk"),
            ("async_add", [[text_node("a", vector(1))]], "bullk", "bulk"),
            ("get_nodes", [], "filter", "filters"),
            ("aget_nodes", [], "filter", "filters"),
            ("delete", ["doc-0"], "ref_doc_ids", "ref_doc_id"),
            ("adelete", ["doc-0"], "ref_doc_ids", "ref_doc_id"),
            ("delete_nodes", [["z0"]], "filter", "filters"),
            ("adelete_nodes", [["z0"]], "filter", "filters"),
        ],
    )
    def test_an_unknown_keyword_is_refused_and_nothing_is_done(
        self, zoo: Any, method: str, arguments: list[Any], misspelt: str, meant: str
    ) -> None:
        """A keyword that would have no effect is an error that names the one that was meant."""
        with pytest.raises(UnknownOptionError, match=f"'{misspelt}': did you mean '{meant}'"):
            done = getattr(zoo, method)(*arguments, **{misspelt: 0.5})
            asyncio.run(done)
        assert len(zoo.get_nodes()) == len(METADATA)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, ["a", "c"]),  # c: 0.5 * 0.8 - 0.5 * 0.6 = 0.1; b: 0.5 * 0.927 - 0.5 * 0.995 = -0.034
            ({"mmr_threshold": 1.0}, ["a", "b"]),
            ({"mmr_threshold": 0.5}, ["a", "c"]),
            ({"mmr_threshold": 0.5, "mmr_prefetch_factor": 1}, ["a", "b"]),  # c is no candidate
            ({"mmr_threshold": 0.5, "mmr_prefetch_k": 2}, ["a", "b"]),
            ({"mmr_threshold": 0.5, "mmr_prefetch_k": 3}, ["a", "c"]),
        ],
    )
    def test_mmr_options_mean_the_same_everywhere(
        self, store: Any, options: dict[str, Any], expected: list[str]
    ) -> None:
        """Cosines to the question: a 0.96, b 0.927, c 0.8; to a: b 0.995, c 0.6."""
        store.add(
            [text_node("a", vector(1)), text_node("b", vector(1, 0.1)), text_node("c", vector(0.6, -0.8))]
        )
        query = ask(vector(0.96, -0.28), 2, mode=VectorStoreQueryMode.MMR)
        assert store.query(query, **options).ids == expected
        if set(options) == {"mmr_threshold"}:
            query.mmr_threshold = options["mmr_threshold"]
            assert store.query(query, mmr_threshold=0.0).ids == expected  # the query's own comes first

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mmr_threshold": 1.5}, "mmr_threshold is 1.5"),
            ({"mmr_prefetch_factor": 0}, "mmr_prefetch_factor is 0"),
            ({"mmr_prefetch_factor": 2, "mmr_prefetch_k": 9}, "give one of them"),
        ],
    )
    def test_an_mmr_option_out_of_range_is_refused(self, zoo: Any, options: Any, message: str) -> None:
        """And in a mode that does not read it, every option of MMR is."""
        with pytest.raises(QueryError, match=message):
            zoo.query(ask(vector(1), 2, mode=VectorStoreQueryMode.MMR), **options)
        with pytest.raises(QueryError, match="no effect in mode 'default'"):
            zoo.query(ask(vector(1), 2), **options)

    # ---- one meaning in every store ----------------------------------------------------------------------

    def test_get_nodes_is_ordered_by_id_and_names_a_node_once(self, store: Any) -> None:
        """Without ids the order is that of the ids, whatever was written when; ids asked for twice give one node."""
        store.add([text_node(name, vector(1, i), metadata={"k": 1}) for i, name in enumerate("db")])
        store.add([text_node(name, vector(2, i), metadata={"k": 1}) for i, name in enumerate("cad")])
        assert [node.node_id for node in store.get_nodes()] == ["a", "b", "c", "d"]
        assert [node.node_id for node in store.get_nodes(filters=only("k", "==", 1))] == ["a", "b", "c", "d"]
        assert [node.node_id for node in store.get_nodes(["c", "a", "gone", "c"])] == ["c", "a"]

    def test_ids_and_number_of_the_nodes_are_listed(self, store: Any) -> None:
        """Sorted ids, and how many; nothing before the first node and after the last."""
        assert store.node_ids() == [] and store.node_count() == 0
        store.add([text_node(name, vector(1, i)) for i, name in enumerate("cab")])
        assert store.node_ids() == ["a", "b", "c"] and store.node_count() == 3
        store.delete_nodes(["a", "b", "c"])
        assert store.node_ids() == [] and store.node_count() == 0

    def test_finish_load_is_safe_at_any_time(self, store: Any) -> None:
        """On an empty store, after a bulk load and again: the answers stay."""
        store.finish_load()
        store.add([text_node(f"n{i}", vector(1, i)) for i in range(5)], bulk=True)
        before = store.query(ask(vector(1, 2))).ids
        store.finish_load()
        store.finish_load()
        assert store.query(ask(vector(1, 2))).ids == before
        assert store.node_ids() == [f"n{i}" for i in range(5)]

    def test_replace_documents_swaps_the_nodes_of_a_document(self, store: Any) -> None:
        """An unknown document is fine, the last of two equal ids wins, no nodes delete the document."""
        store.add([text_node("a1", vector(1), doc="a"), text_node("a2", vector(2), doc="a")])
        store.add([text_node("b1", vector(3), doc="b")])
        nodes = [text_node("a2", vector(1), doc="a", text=text) for text in ("first", "last")]
        assert store.replace_documents(["a", "unknown"], nodes) == ["a2", "a2"]
        assert [(node.node_id, node.text) for node in store.get_nodes()] == [
            ("a2", "last"),
            ("b1", "text of b1"),
        ]
        assert store.replace_documents(["a"], []) == [] and store.node_ids() == ["b1"]
        assert store.replace_documents([], []) == [] and store.node_ids() == ["b1"]
        assert store.replace_documents([], [text_node("c1", vector(1))]) == ["c1"]
        assert store.node_ids() == ["b1", "c1"]

    def test_an_empty_store_is_deleted_from_and_cleared(self, store: Any) -> None:
        """What is not there is no error, before the first node as well."""
        store.delete("d")
        store.delete_nodes(["n"])
        store.delete_nodes(filters=only("k", "==", 1))
        store.clear()
        assert store.replace_documents(["d"], []) == []
        assert store.get_nodes(["n"]) == [] and store.node_ids() == []

    def test_delete_nodes_that_nothing_matches_leaves_all(self, zoo: Any) -> None:
        """Unknown ids, a filter that selects nothing, and both."""
        zoo.delete_nodes(["gone"])
        zoo.delete_nodes(filters=only("nowhere", "==", 1))
        zoo.delete_nodes(["z0"], only("nowhere", "==", 1))
        zoo.delete_nodes(["gone"], only("n", "==", 1))
        assert zoo.node_count() == len(METADATA)

    def test_a_query_is_checked_before_the_first_node(self, store: Any) -> None:
        """An empty store refuses what a full one would refuse."""
        with pytest.raises(UnknownOptionError, match="did you mean 'mmr_threshold'"):
            store.query(ask(vector(1)), mmr_treshold=0.5)
        with pytest.raises(QueryError, match="similarity_top_k"):
            store.query(ask(vector(1), -1))
        with pytest.raises(QueryError, match="svm"):
            store.query(ask(vector(1), mode=VectorStoreQueryMode.SVM))

    @pytest.mark.parametrize("words", [None, ""])
    def test_a_mode_that_reads_words_needs_some(self, zoo: Any, words: str | None) -> None:
        """No words are a mistake, not an empty answer."""
        for mode in self.modes - {VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR}:
            with pytest.raises(QueryError, match="query_str"):
                zoo.query(ask(vector(1), mode=mode, query_str=words))

    def test_hybrid_asks_only_the_legs_that_count(self, zoo: Any) -> None:
        """alpha 1 is the vector search, without words; alpha 0 the text search, without a vector."""
        if VectorStoreQueryMode.HYBRID not in self.modes:
            with pytest.raises(QueryError, match="hybrid"):
                zoo.query(ask(vector(1), 5, mode=VectorStoreQueryMode.HYBRID, query_str="z1"))
            return
        text = ask(None, 5, mode=VectorStoreQueryMode.TEXT_SEARCH, query_str="z1 z2")
        vectors_only = ask(vector(1), 5, mode=VectorStoreQueryMode.HYBRID, alpha=1.0)
        text_only = ask(None, 5, mode=VectorStoreQueryMode.HYBRID, alpha=0.0, query_str="z1 z2")
        assert zoo.query(vectors_only).ids == zoo.query(ask(vector(1), 5)).ids
        assert zoo.query(text_only).ids == zoo.query(text).ids != []
        with pytest.raises(QueryError, match=r"alpha is 1\.5"):
            zoo.query(ask(vector(1), mode=VectorStoreQueryMode.HYBRID, alpha=1.5, query_str="z1"))

    def test_a_limit_of_zero_gives_nothing_in_every_mode(self, zoo: Any) -> None:
        """0 is a limit like any other."""
        for mode in self.modes:
            assert zoo.query(ask(vector(1), 0, mode=mode, query_str="text")).ids == []

    def test_mmr_hits_carry_their_cosine_and_no_embedding(self, zoo: Any) -> None:
        """The hits are those of a vector search, chosen among candidates; with one candidate a hit, the same ones."""
        plain = zoo.query(ask(vector(1), 4))
        diverse = zoo.query(ask(vector(1), 4, mode=VectorStoreQueryMode.MMR), mmr_prefetch_factor=1)
        assert sorted(diverse.ids) == sorted(plain.ids)
        scores = dict(zip(plain.ids, plain.similarities, strict=True))
        assert diverse.similarities == pytest.approx([scores[one] for one in diverse.ids], abs=1e-6)
        assert all(node.embedding is None for node in diverse.nodes)

    # ---- life --------------------------------------------------------------------------------------------

    def test_a_block_gives_the_store_and_closes_it(self, open_store: Open) -> None:
        """`with` and `async with` give the store itself; closing again is fine."""

        async def block() -> None:
            async with opened as same:
                assert same is opened

        with open_store() as first:
            first.add([text_node("a", vector(1))])
        first.close()
        opened = open_store()
        asyncio.run(block())
        asyncio.run(opened.aclose())
        with open_store() as again:
            assert again.node_ids() == ["a"]

    def test_a_closed_store_opens_again_or_refuses_every_use(self, open_store: Open) -> None:
        """Never a raw error of a client."""
        store = open_store()
        store.add([text_node("a", vector(1), doc="d")])
        store.close()
        uses: list[Callable[[], Any]] = [
            lambda: store.query(ask(vector(1))),
            lambda: store.get_nodes(),
            lambda: store.get_nodes(["a"]),
            lambda: store.node_ids(),
            lambda: store.node_count(),
            lambda: store.finish_load(),
            lambda: store.add([]),
            lambda: store.add([text_node("b", vector(1))]),
            lambda: store.replace_documents(["d"], []),
            lambda: store.delete("d"),
            lambda: store.delete_nodes(["a"]),
            lambda: store.clear(),
        ]
        for use in uses:
            if self.reopens:
                use()
            else:
                with pytest.raises(StoreError, match="closed"):
                    use()
        store.close()

    def test_a_store_is_pickled_whole_or_not_at_all(self, open_store: Open) -> None:
        """A copy answers as the store does; where it would need a secret, pickling is refused."""
        with open_store() as store:
            store.add([text_node("a", vector(1))])
            if not self.pickles:
                with pytest.raises(StoreError, match="cannot be pickled"):
                    pickle.dumps(store)
                return
            written = pickle.dumps(store)
        with pickle.loads(written) as back:
            assert type(back) is type(store)
            assert back.query(ask(vector(1))).ids == ["a"]

    def test_its_fields_are_json(self, store: Any) -> None:
        """`to_dict` names the class; the client behind it is at hand."""
        fields = json.loads(json.dumps(store.to_dict()))
        assert fields["class_name"] == type(store).__name__
        assert store.client is not None

    @pytest.mark.parametrize(
        ("sync", "twin"),
        [
            ("add", "async_add"),
            ("replace_documents", "areplace_documents"),
            ("delete", "adelete"),
            ("delete_nodes", "adelete_nodes"),
            ("get_nodes", "aget_nodes"),
            ("query", "aquery"),
            ("clear", "aclear"),
            ("close", "aclose"),
        ],
    )
    def test_an_async_twin_takes_what_the_sync_method_takes(self, store: Any, sync: str, twin: str) -> None:
        """The same arguments under the same names, with the same defaults."""

        def taken(name: str) -> list[tuple[str, Any, Any]]:
            parameters = inspect.signature(getattr(store, name)).parameters.values()
            return [(one.name, one.kind, one.default) for one in parameters]

        assert taken(twin) == taken(sync)
        assert inspect.iscoroutinefunction(getattr(store, twin))

    # ---- text without a UTF-8 form -----------------------------------------------------------------------

    @pytest.mark.parametrize(
        "bad",
        [
            {"id_": "bad\ud800"},
            {"text": "bad\ud800"},
            {"metadata": {"k": "bad\ud800"}},
            {"metadata": {"bad\ud800": "v"}},
            {"metadata": {"k": [{"deep": "bad\ud800"}]}},
            {"relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="bad\ud800")}},
        ],
        ids=["id", "text", "value", "key", "nested", "document"],
    )
    def test_a_lone_surrogate_is_refused_before_anything_is_written(self, store: Any, bad: Any) -> None:
        """Half of a UTF-16 pair has no UTF-8 form; the message can be printed."""
        store.add([text_node("before", vector(1))])
        node = TextNode(**{"id_": "n", "text": "t", "embedding": vector(1), **bad})
        with pytest.raises(NodeRejectedError, match="surrogate") as refused:
            store.add([text_node("good", vector(1)), node])
        assert refused.value.node_ids == [node.node_id]
        assert str(refused.value).encode()
        with pytest.raises(NodeRejectedError, match="surrogate"):
            store.replace_documents(["doc"], [node])
        assert [one.node_id for one in store.get_nodes()] == ["before"]

    def test_a_lone_surrogate_in_an_id_or_filter_is_refused_by_every_method(self, zoo: Any) -> None:
        """No node can have such an id; nothing is deleted, and no raw error comes out."""
        bad = "bad\ud800"
        for refused in (
            lambda: zoo.delete(bad),
            lambda: zoo.delete_nodes(["z0", bad]),
            lambda: zoo.get_nodes([bad]),
            lambda: zoo.replace_documents(["doc-0", bad], []),
        ):
            with pytest.raises(NodeRejectedError, match=r"'bad\\ud800' has a lone surrogate"):
                refused()
        for query in (ask(vector(1), node_ids=[bad]), ask(vector(1), doc_ids=[bad])):
            with pytest.raises(QueryError, match="lone surrogate"):
                zoo.query(query)
        for filters in (only(bad, "==", "v"), only("s", "==", bad), only("s", "in", ["alpha", bad])):
            with pytest.raises(FilterError, match="lone surrogate"):
                zoo.query(ask(vector(1), filters=filters))
            with pytest.raises(FilterError, match="lone surrogate"):
                zoo.delete_nodes(filters=filters)
        if VectorStoreQueryMode.TEXT_SEARCH in self.modes:
            with pytest.raises(QueryError, match="query_str"):
                zoo.query(ask(None, mode=VectorStoreQueryMode.TEXT_SEARCH, query_str=bad))
        assert len(zoo.get_nodes()) == len(METADATA)

    # ---- async -------------------------------------------------------------------------------------------

    def test_a_store_is_closed_from_async_code(self, open_store: Open) -> None:
        """`async with`, and `aclose`."""

        async def story() -> list[str]:
            async with open_store() as store:
                ids: list[str] = await store.async_add([text_node("a", vector(1))])
            await open_store().aclose()
            return ids

        assert asyncio.run(story()) == ["a"]

    def test_async_does_what_sync_does(self, open_store: Open) -> None:
        """Every method has an async twin with the same arguments and results."""

        async def story() -> None:
            store = open_store()
            await store.async_add([text_node(f"n{i}", vector(1, i), doc=f"d{i}") for i in range(5)])
            assert (await store.aquery(ask(vector(1), 2))).ids == store.query(ask(vector(1), 2)).ids
            await store.adelete("d0")
            await store.adelete_nodes(["n1"])
            await store.adelete_nodes(filters=only("ref_doc_id", "==", "d2"))
            assert {n.node_id for n in await store.aget_nodes()} == {"n3", "n4"}
            both = await asyncio.gather(*(store.aquery(ask(vector(1))) for _ in range(8)))
            assert all(set(found.ids) == {"n3", "n4"} for found in both)
            await store.aclear()
            assert await store.aget_nodes() == []
            store.close()

        asyncio.run(story())

    def test_two_event_loops_one_store(self, zoo: Any) -> None:
        """Nothing is bound to the first loop."""
        first = asyncio.run(zoo.aquery(ask(vector(1))))
        assert asyncio.run(zoo.aquery(ask(vector(1)))).ids == first.ids

    # ---- identity ----------------------------------------------------------------------------------------

    def test_the_data_is_there_after_reopening(self, open_store: Open) -> None:
        """What was added is read by the next opener."""
        with_data = open_store()
        with_data.add([text_node("a", vector(1), metadata={"k": "v"})])
        with_data.close()
        again = open_store()
        assert again.query(ask(vector(1), filters=only("k", "==", "v"))).ids == ["a"]
        again.close()

    def test_another_dimension_is_refused(self, store: Any) -> None:
        """The first vector fixes the length."""
        store.add([text_node("a", vector(1))])
        with pytest.raises(NodeRejectedError, match=f"3 numbers.*{DIM}"):
            store.add([text_node("b", [1.0, 2.0, 3.0])])

    def test_another_model_is_refused(self, open_store: Open) -> None:
        """The fingerprint of the first user stays; another one is an error, none is fine."""
        first = open_store(fingerprint="model=a")
        first.add([text_node("a", vector(1))])
        assert first.fingerprint == "model=a"
        first.close()
        with pytest.raises(FingerprintError, match=r"model=a.*model=b") as refused:
            open_store(fingerprint="model=b").query(ask(vector(1)))
        assert (refused.value.stored, refused.value.given) == ("model=a", "model=b")
        unknown = open_store()
        assert unknown.fingerprint == "model=a"
        unknown.close()

    def test_a_fingerprint_is_adopted_where_there_was_none(self, open_store: Open) -> None:
        """The first caller who knows the model says it for all later ones."""
        store = open_store()
        store.add([text_node("a", vector(1))])
        assert store.fingerprint is None
        store.close()
        knowing = open_store(fingerprint="model=a")
        assert knowing.fingerprint == "model=a"
        knowing.close()
        later = open_store()
        assert later.fingerprint == "model=a"
        later.close()

    def test_it_is_a_llamaindex_vector_store(self, store: Any) -> None:
        """It can be used wherever a BasePydanticVectorStore is expected."""
        assert isinstance(store, BasePydanticVectorStore)
        assert store.stores_text and store.is_embedding_query
        assert store.class_name() == type(store).__name__
        store.persist("ignored")
