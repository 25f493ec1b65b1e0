"""The keyword index: what is added is found, what is filtered out is not, and it all survives the disk."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import ImageNode, NodeRelationship, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from llama_index_presets.errors import NodeRejectedError, SettingsError, WrongTypeError
from llama_index_presets.filters import filterable_metadata, predicate
from llama_index_presets.retrieve import BM25Index, FilteredQuery


def node(name: str, text: str, document: str | None = None, **metadata: object) -> TextNode:
    links = {} if document is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=name, text=text, metadata=metadata, relationships=links)


def only(key: str, value: object, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.fixture(params=["memory", "folder"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> BM25Index:
    """An empty index, in memory and on disk."""
    return BM25Index(tmp_path / "words" if request.param == "folder" else None, text="none")


def test_what_is_added_is_found(index: BM25Index) -> None:
    """Best first, with rank and score of the stage beside the node."""
    index.add([node("a", "red fish"), node("b", "red red fish"), node("c", "blue bird")])
    hits = index.as_retriever().retrieve("red")
    assert [hit.node.node_id for hit in hits] == ["b", "a"]
    assert hits[0].stages["bm25"].rank == 1
    assert hits[0].score == hits[0].stages["bm25"].score > hits[1].score > 0


@pytest.mark.parametrize("query", ["", "zebra", "the of", "!!!"])
def test_no_match_gives_no_nodes(index: BM25Index, query: str) -> None:
    """BM25Retriever returns arbitrary nodes at score 0."""
    index.add([node("a", "red fish")])
    assert index.as_retriever().retrieve(query) == []


def test_an_empty_index_finds_nothing(index: BM25Index) -> None:
    """Nothing added yet is not an error."""
    assert index.as_retriever().retrieve("anything") == []
    assert index.add([]) == []
    assert index.delete(["nobody"]) == 0


def test_adding_again_replaces(index: BM25Index) -> None:
    """An id has one version; the same version costs nothing."""
    index.add([node("a", "red fish")])
    index.add([node("a", "blue fish")])
    index.upsert([node("a", "blue fish"), node("a", "blue whale")])
    assert len(index) == 1
    assert index.search("red fish") == []
    assert [name for name, _ in index.search("whale")] == ["a"]


def test_deleting_by_id_and_by_document(index: BM25Index) -> None:
    """Both ways in one call; a string is one name."""
    index.add([node("a", "fish", "d1"), node("b", "fish", "d1"), node("c", "fish", "d2"), node("d", "fish")])
    assert index.delete("d", documents="d1") == 3
    assert [name for name, _ in index.search("fish")] == ["c"]
    assert "c" in index
    assert "a" not in index


def test_nodes_come_back_as_they_were(index: BM25Index) -> None:
    """Text, metadata, relationships and class survive; the embedding is left to the vector store."""
    text = node("a", "red ‘fish’ 東京", "doc", page=3, tags=["x", "y"])
    text.embedding = [0.5]
    text.excluded_llm_metadata_keys = ["page"]
    image = ImageNode(id_="i", text="red picture", image_path="cat.png", metadata={"page": 4})
    index.add([text, image])
    found = {hit.node.node_id: hit.node for hit in index.as_retriever().retrieve("red")}
    assert found["a"] == text.model_copy(update={"embedding": None})
    assert found["a"].hash == text.hash
    assert isinstance(found["i"], ImageNode)
    assert found["i"].image_path == "cat.png"
    assert text.embedding == [0.5]


def test_changing_a_hit_does_not_change_the_index(index: BM25Index) -> None:
    """Each answer has nodes of its own."""
    index.add([node("a", "red fish", tenant="x")])
    index.as_retriever().retrieve("red")[0].node.metadata["tenant"] = "y"
    assert index.as_retriever().retrieve("red")[0].node.metadata == {"tenant": "x"}


def test_metadata_is_indexed_as_it_is_embedded() -> None:
    """text="embed" sees what the vector sees; excluded keys stay out."""
    secret = node("a", "fish", title="Annual Report", path="/srv/zebra")
    secret.excluded_embed_metadata_keys = ["path"]
    index = BM25Index()
    index.add([secret])
    assert index.search("annual")
    assert not index.search("zebra")


# -- filters ----------------------------------------------------------------------------------------------


def tenants() -> list[TextNode]:
    return [
        node(f"{t}{i}", "fees fees fees" if t == "x" else "fees", tenant=t, year=2020 + i)
        for t in "xyz"
        for i in range(4)
    ]


def test_a_filtered_out_node_never_comes_back(index: BM25Index) -> None:
    """Not even when there are fewer matches than wanted: BM25Retriever leaks other tenants here."""
    index.add(tenants())
    hits = index.as_retriever(top_k=10, filters=only("tenant", "y")).retrieve("fees")
    assert sorted(hit.node.node_id for hit in hits) == ["y0", "y1", "y2", "y3"]
    assert index.as_retriever(filters=only("tenant", "nobody")).retrieve("fees") == []


def test_filters_come_with_the_retriever_and_with_the_query(index: BM25Index) -> None:
    """Both hold."""
    index.add(tenants())
    mine = index.as_retriever(filters=only("tenant", "y"))
    recent = FilteredQuery("fees", filters=only("year", 2022, FilterOperator.GTE))
    assert sorted(hit.node.node_id for hit in mine.retrieve(recent)) == ["y2", "y3"]
    assert len(index.as_retriever(top_k=99).retrieve(QueryBundle("fees"))) == 12


def test_nested_filters(index: BM25Index) -> None:
    """Groups inside groups, with NOT."""
    index.add(tenants())
    either = MetadataFilters(
        filters=[
            only("tenant", "x"),
            MetadataFilters(filters=[only("year", 2023)], condition=FilterCondition.NOT),
        ],
        condition=FilterCondition.AND,
    )
    assert sorted(name for name, _ in index.search("fees", 99, either)) == ["x0", "x1", "x2"]


def test_filters_follow_every_change(index: BM25Index) -> None:
    """What was remembered for a filter is right after adding, moving, deleting and compacting."""
    index.add(tenants())
    mine = only("tenant", "y")
    assert len(index.search("fees", 99, mine)) == 4
    index.add([node("y0", "fees", tenant="x"), node("new", "fees", tenant="y")])
    index.delete("y1")
    assert sorted(name for name, _ in index.search("fees", 99, mine)) == ["new", "y2", "y3"]
    index.compact()
    assert sorted(name for name, _ in index.search("fees", 99, mine)) == ["new", "y2", "y3"]


@pytest.mark.parametrize("deleted", [1, 400], ids=["asked for", "by itself"])
def test_nodes_are_whole_after_compaction(index: BM25Index, tmp_path: Path, deleted: int) -> None:
    """What stays has its text and metadata, in the index, in a copy of it on disk, and beside what is added later."""
    index.add([node(str(number), f"fee {number}", page=number) for number in range(500)])
    index.delete([str(number) for number in range(deleted)])
    if deleted == 1:
        index.compact()
    index.add([node("new", "fee new", page=0)])
    index.persist(tmp_path / "copy")
    expected = [("499", "fee 499", 499), ("new", "fee new", 0)]
    for one in (index, BM25Index(tmp_path / "copy")):
        hits = [one.as_retriever(top_k=1).retrieve(query)[0] for query in ("499", "new")]
        assert [(hit.node_id, hit.text, hit.metadata["page"]) for hit in hits] == expected


values = st.sampled_from(["a", "b", 1, 2.5, ["a", "b"], None])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("kl"), values, max_size=2), min_size=1, max_size=8),
    st.sampled_from("kl"),
    st.sampled_from(["a", 1]),
    st.sampled_from([FilterOperator.EQ, FilterOperator.NE]),
    st.sampled_from(list(FilterCondition)),
)
def test_filters_mean_what_the_predicate_means(
    metadata: list[dict], key: str, value: object, operator: FilterOperator, condition: FilterCondition
) -> None:
    """The same selection as `filters.predicate` on each node."""
    nodes = [node(f"n{i}", "fish", **fields) for i, fields in enumerate(metadata)]
    wanted = MetadataFilters(filters=only(key, value, operator).filters * 2, condition=condition)
    index = BM25Index(text="none")
    index.add(nodes)
    expected = {n.node_id for n in nodes if predicate(wanted)(filterable_metadata(n))}
    assert {name for name, _ in index.search("fish", 99, wanted)} == expected


# -- disk -------------------------------------------------------------------------------------------------


def test_everything_is_remembered(tmp_path: Path) -> None:
    """Language and parameters come from the folder: BM25Retriever forgets its stemmer."""
    made = BM25Index(tmp_path, language="german", k1=1.6, b=0.4)
    made.add([node("a", "Die Häuser"), node("b", "will")])
    again = BM25Index(tmp_path)
    chosen = {"language": "german", "k1": 1.6, "b": 0.4}
    assert again.settings == chosen | {"text": "embed", "fields": {"title": 2}, "pairs": 0.3}
    assert again.search("Haus") == made.search("Haus") != []
    assert again.search("will") == []


def test_another_language_is_refused(tmp_path: Path) -> None:
    """The tokens on disk are German: English stems would not find them."""
    BM25Index(tmp_path, language="german").add([node("a", "Häuser")])
    with pytest.raises(SettingsError, match="made with language 'german', not 'english'"):
        BM25Index(tmp_path, language="en")
    with pytest.raises(SettingsError, match="made with text 'embed', not 'none'"):
        BM25Index(tmp_path, text="none")
    with pytest.raises(SettingsError, match="text is 'all'"):
        BM25Index(text="all")


def test_a_reader_sees_each_change_of_a_writer(tmp_path: Path) -> None:
    """Also across compaction, and from before the folder existed."""
    reader, writer = BM25Index(tmp_path / "w"), BM25Index(tmp_path / "w")
    assert len(reader) == 0
    for step, change in enumerate(
        [
            lambda: writer.add([node(f"a{i}", "fish") for i in range(5)]),
            lambda: writer.add([node("b", "fish")]),
            writer.compact,
            lambda: writer.delete("a0"),
            lambda: writer.add([node(f"c{i}", "fish") for i in range(600)]),
            lambda: BM25Index(tmp_path / "w").add([node("d", "fish")]),
        ]
    ):
        change()
        assert reader.search("fish", 999) == writer.search("fish", 999), step
    assert len(reader) == len(writer) == 606


def test_growth_is_compacted_by_itself(tmp_path: Path) -> None:
    """Replacing the same nodes over and over does not fill the disk."""
    index = BM25Index(tmp_path)
    index.add([node(f"n{i}", "fish " * 200) for i in range(40)])
    for round_ in range(40):
        index.add([node(f"n{i}", f"fish{round_} " * 200) for i in range(40)])
    used = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert used < 4_000_000
    assert len(index) == len(BM25Index(tmp_path)) == 40


def test_persist_writes_a_memory_index_down(tmp_path: Path) -> None:
    """And refuses to overwrite another index."""
    index = BM25Index.from_nodes([node("a", "fish")])
    index.persist(tmp_path / "x")
    assert BM25Index(tmp_path / "x").search("fish") == index.search("fish")
    with pytest.raises(SettingsError, match="holds a keyword index already"):
        index.persist(tmp_path / "x")
    with pytest.raises(SettingsError, match="in memory; say where"):
        index.persist()


def test_text_is_not_stored_twice(tmp_path: Path) -> None:
    """Beside a store that holds the nodes, the folder has no text; hits come from the store."""
    store = SimpleDocumentStore()
    nodes = [node(f"n{i}", f"xylophone number{i}") for i in range(300)]
    store.add_documents(nodes)
    index = BM25Index.from_source(store, tmp_path)
    bodies = next(tmp_path.glob("snapshot-*/bodies.bin"))
    assert bodies.stat().st_size == 0
    hit = index.as_retriever().retrieve("number7")[0]
    assert hit.node.get_content() == "xylophone number7"


def test_a_node_that_its_store_lost_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """It is not made up, and the log says how to repair."""
    store = SimpleDocumentStore()
    store.add_documents([node("a", "fish"), node("b", "fish fish")])
    index = BM25Index.from_source(store)
    store.delete_document("b")
    assert [hit.node.node_id for hit in index.as_retriever().retrieve("fish")] == ["a"]
    assert "check_consistency" in caplog.text


def test_a_node_that_cannot_be_stored_leaves_all_out(index: BM25Index) -> None:
    """All of a call, or nothing."""

    class Odd(TextNode):
        pass

    with pytest.raises(NodeRejectedError, match=r"'bad'.*cannot be stored") as refused:
        index.add([node("good", "fish"), node("bad", "fish", made=object())])
    assert refused.value.node_ids == ["bad"]
    with pytest.raises(NodeRejectedError, match=r"'half' cannot be stored.*surrogates not allowed"):
        index.add([node("half", "fish \ud83d")])
    with pytest.raises(NodeRejectedError, match=r"'half\\ud83d' cannot be stored"):
        index.add([node("good", "fish"), node("half\ud83d", "fish")])
    related = TextNode(id_="odd", relationships={NodeRelationship.NEXT: RelatedNodeInfo(node_id="\ud83d")})
    with pytest.raises(NodeRejectedError, match="'odd' has a lone surrogate in a field"):
        index.add([node("good", "fish"), related])
    with pytest.raises(NodeRejectedError, match="'odd' is a Odd"):
        index.add([Odd(id_="odd", text="fish")])
    assert len(index) == 0


# -- many at once -----------------------------------------------------------------------------------------


async def test_the_event_loop_is_not_blocked(index: BM25Index) -> None:
    """aretrieve gives the same hits, many at once."""
    index.add(tenants())
    retriever = index.as_retriever()
    answers = await asyncio.gather(*(retriever.aretrieve("fees") for _ in range(20)))
    assert all([h.node.node_id for h in a] == [h.node.node_id for h in answers[0]] for a in answers)


def test_readers_and_a_writer_in_threads(index: BM25Index) -> None:
    """Whoever reads while others write sees every node that is only being replaced."""
    index.add([node(f"n{i}", "fish", tenant="x") for i in range(30)])
    stop, seen, errors = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.add(len(index.as_retriever(top_k=99, filters=only("tenant", "x")).retrieve("fish")))
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for round_ in range(15):
        index.add([node(f"n{i}", f"fish {round_}", tenant="x") for i in range(5)])
    stop.set()
    for reader in readers:
        reader.join()
    assert (errors, seen) == ([], {30})


def test_a_long_journal_is_folded_in_after_a_load(tmp_path):
    """Each opening would have to replay it; a short one stays, and either way the hits are the same."""
    index = BM25Index(tmp_path / "words")
    index.add([TextNode(id_=f"a{i}", text=f"fish {i} " + "water " * 2000) for i in range(300)])
    index.add([TextNode(id_=f"b{i}", text=f"bird {i} " + "air " * 2000) for i in range(90)])
    (journal,) = (tmp_path / "words").glob("journal-*.log")
    assert journal.stat().st_size > 2**20
    found = index.search("bird 7", 3)
    index.finish_load()
    (journal,) = (tmp_path / "words").glob("journal-*.log")
    assert journal.stat().st_size == 16  # its header
    assert index.search("bird 7", 3) == BM25Index(tmp_path / "words").search("bird 7", 3) == found
    index.add([TextNode(id_="c", text="one more bird")])
    index.finish_load()
    (journal,) = (tmp_path / "words").glob("journal-*.log")
    assert journal.stat().st_size > 16


def test_an_opened_index_counts_and_changes_as_the_one_that_wrote_it(tmp_path):
    """Ids are looked up when a change needs them, not at opening."""
    index = BM25Index(tmp_path / "words")
    index.add([TextNode(id_=f"a{i}", text=f"fish number{i}") for i in range(5)])
    index.compact()
    again = BM25Index(tmp_path / "words")
    assert (len(again), again.search("number3", 2)[0][0]) == (5, "a3")
    again.add([TextNode(id_="a3", text="bird"), TextNode(id_="new", text="fish")])
    again.delete(["a0", "nobody"])
    assert (len(again), sorted(again.digests())) == (5, ["a1", "a2", "a3", "a4", "new"])
    assert again.search("3", 2) == []


def test_fields_have_weights() -> None:
    """A word of the title counts more often than one of the text; a weight of 0 leaves a field out."""
    in_title = TextNode(id_="title", text="A manual", metadata={"title": "Pump"})
    in_text = TextNode(id_="text", text="Pump", metadata={"title": "A manual"})
    assert BM25Index.from_nodes([in_text, in_title]).search("pump")[0][0] == "title"
    without = BM25Index.from_nodes([in_text, in_title], fields={"title": 0})
    assert [name for name, _ in without.search("pump")] == ["text"]


def test_metadata_that_is_not_embedded_is_indexed_when_it_is_named() -> None:
    """Chosen metadata becomes a field; other hidden metadata stays hidden."""
    hidden = TextNode(id_="a", text="text", metadata={"author": "Smith", "secret": "word"})
    hidden.excluded_embed_metadata_keys = ["author", "secret"]
    assert BM25Index.from_nodes([hidden]).search("smith") == []
    index = BM25Index.from_nodes([hidden], fields={"author": 1})
    assert [name for name, _ in index.search("smith")] == ["a"]
    assert index.search("word") == []


def test_phrases_prefixes_and_identifiers_are_found(tmp_path: Path) -> None:
    """As a user types them, before and after the index was closed."""
    texts = {
        "ten": "The annual report on Form 10-K was filed",
        "code": "Replace the part CODE-1234 first",
        "law": "see § 4(a) of the act",
        "other": "a report that is annual, part 10 and k",
    }
    BM25Index.from_nodes([node(name, text) for name, text in texts.items()], tmp_path)
    index = BM25Index(tmp_path)
    asked = {
        query: [name for name, _ in index.search(query)]
        for query in ('"annual report"', "code-12*", "10K", "§ 4(a)", "1234", '"report annual"')
    }
    assert asked == {
        '"annual report"': ["ten"],
        "code-12*": ["code"],
        "10K": ["ten", "other"],
        "§ 4(a)": ["law", "other"],
        "1234": ["code"],
        '"report annual"': [],
    }


@pytest.mark.parametrize(
    "settings", [{"fields": {"title": 1.5}}, {"fields": {"title": 11}}, {"pairs": -1.0}, {"pairs": math.nan}]
)
def test_weights_are_checked(settings: dict[str, Any]) -> None:
    """A weight that means nothing is refused with its value."""
    with pytest.raises(SettingsError, match=r"(weight of the field 'title' is|pairs is)"):
        BM25Index(**settings)


def test_the_weights_of_fields_stay_those_of_the_folder(tmp_path: Path) -> None:
    """Tokens on disk depend on them; the weight of pairs can be chosen anew."""
    BM25Index.from_nodes([node("a", "red fish")], tmp_path, fields={"title": 3})
    assert BM25Index(tmp_path, pairs=0.0).settings["fields"] == {"title": 3}
    with pytest.raises(SettingsError, match="made with fields"):
        BM25Index(tmp_path, fields={"title": 2})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BM25Index(7), "path is an int"),  # type: ignore[arg-type]
        (lambda: BM25Index().add("text"), "nodes is a str"),  # type: ignore[arg-type]
        (lambda: BM25Index().add(["text"]), "nodes holds a str"),  # type: ignore[list-item]
        (lambda: BM25Index().add(None), "nodes is None"),  # type: ignore[arg-type]
        (lambda: BM25Index.from_nodes("text"), "nodes is a str"),  # type: ignore[arg-type]
        (lambda: BM25Index.from_source("folder"), "source of nodes is a str"),  # type: ignore[arg-type]
        (lambda: BM25Index.from_defaults(index="x"), "source of nodes is a str"),  # type: ignore[arg-type]
        (lambda: BM25Index.from_defaults(nodes="x"), "nodes is a str"),  # type: ignore[arg-type]
        (lambda: BM25Index().search(None), "query is None"),  # type: ignore[arg-type]
        (lambda: BM25Index().search("a", filters={"k": 1}), "filters is a dict"),  # type: ignore[arg-type]
        (lambda: BM25Index().delete(7), "ids is an int"),  # type: ignore[arg-type]
        (lambda: BM25Index().mark_finished([7]), "ids holds an int"),  # type: ignore[list-item]
    ],
)
def test_an_argument_of_another_type_is_named(call: Any, said: str) -> None:
    """It was an AttributeError from within."""
    with pytest.raises(WrongTypeError, match=said):
        call()


def test_nodes_may_come_from_a_generator() -> None:
    """Their ids are given back, too."""
    assert BM25Index().add(TextNode(id_=name, text=name) for name in ("a", "b")) == ["a", "b"]  # type: ignore[arg-type]
