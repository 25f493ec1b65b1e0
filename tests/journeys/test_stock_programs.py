"""Ordinary LlamaIndex programs, after its documentation's topics, answer the same with the imports changed to ours.

A program takes its classes from a namespace, as from an import, and returns plain values. Each runs on the stock
parts, then on ours: nothing but the classes differs. `MockLLM()` answers with its prompt, so that an equal answer
means an equal prompt: the same passages, in the same order, with the same metadata.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import (
    Document,
    DocumentSummaryIndex,
    PropertyGraphIndex,
    Settings,
    StorageContext,
    VectorStoreIndex,
    get_response_synthesizer,
    load_index_from_storage,
)
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine
from llama_index.core.evaluation import FaithfulnessEvaluator, RetrieverEvaluator
from llama_index.core.extractors import KeywordExtractor, TitleExtractor
from llama_index.core.indices.property_graph import SimpleLLMPathExtractor, VectorContextRetriever
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.llms import ChatMessage, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer, Memory, VectorMemoryBlock
from llama_index.core.node_parser import (
    HierarchicalNodeParser,
    SentenceSplitter,
    SentenceWindowNodeParser,
    get_leaf_nodes,
)
from llama_index.core.objects import ObjectIndex
from llama_index.core.postprocessor import (
    FixedRecencyPostprocessor,
    LongContextReorder,
    MetadataReplacementPostProcessor,
    PrevNextNodePostprocessor,
    SentenceTransformerRerank,
    SimilarityPostprocessor,
)
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import (
    AutoMergingRetriever,
    QueryFusionRetriever,
    RecursiveRetriever,
    VectorIndexAutoRetriever,
    VectorIndexRetriever,
)
from llama_index.core.schema import IndexNode, MetadataMode, NodeWithScore, TextNode, TransformComponent
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    SimpleVectorStore,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import MetadataInfo, VectorStoreInfo
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from llama_index.vector_stores.lancedb import LanceDBVectorStore
from tests.fakes import WordEmbedding
from tests.unit.rerank.conftest import save_model

import llama_index_presets as ours

STOCK = types.SimpleNamespace(
    VectorStore=SimpleVectorStore,
    LanceDBVectorStore=LanceDBVectorStore,
    FusionRetriever=QueryFusionRetriever,
    Rerank=SentenceTransformerRerank,
    TokenCounter=TokenCountingHandler,
)
OURS = types.SimpleNamespace(
    VectorStore=ours.DuckDBVectorStore,
    LanceDBVectorStore=ours.LanceDBVectorStore,
    FusionRetriever=ours.HybridFusionRetriever,
    Rerank=ours.CrossEncoderRerank,
    TokenCounter=ours.CostTrackingHandler,
)

TEXTS = {
    "valve": "Valve AB-17 of the pump leaks. The seal of the valve is worn.",
    "rope": "The rope of the lift is worn. It is replaced every second year.",
    "lamps": "Lamps of the hall are changed yearly. The electrician has spare lamps.",
    "boiler": "The boiler burns gas. Its pressure is read at noon, before the pump starts.",
}
YEARS = {"valve": 2021, "rope": 2022, "lamps": 2023, "boiler": 2024}
QUESTION = "Which valve of the pump leaks?"

Program = Callable[[types.SimpleNamespace], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    """Enter a program under its name."""
    PROGRAMS[function.__name__] = function
    return function


class RuleLLM(CustomLLM):
    """Replies by the first phrase of `replies` that the prompt holds; to any other prompt, with the prompt."""

    replies: dict[str, str] = {}

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="rules")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._reply(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        words = self._reply(prompt).split(" ")
        return (
            CompletionResponse(text=" ".join(words[: place + 1]), delta=word if place == 0 else f" {word}")
            for place, word in enumerate(words)
        )

    def _reply(self, prompt: str) -> str:
        return next((reply for phrase, reply in self.replies.items() if phrase in prompt), prompt)


def documents() -> list[Document]:
    return [
        Document(text=text, doc_id=name, metadata={"name": name, "year": YEARS[name]})
        for name, text in TEXTS.items()
    ]


def embedding() -> WordEmbedding:
    return WordEmbedding(model_name="words")


def index_in(store: Any, texts: Sequence[Document] | None = None, **options: Any) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        documents() if texts is None else texts,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding(),
        **options,
    )


def plain(hits: Sequence[NodeWithScore]) -> list[tuple[Any, ...]]:
    """What a user sees of hits: the source, the text with its metadata, the score."""
    return [
        (
            hit.node.ref_doc_id,
            hit.node.get_content(MetadataMode.ALL),
            None if hit.score is None else round(hit.score, 4),
        )
        for hit in hits
    ]


def said(answer: Any) -> tuple[str, list[tuple[Any, ...]]]:
    return str(answer), plain(answer.source_nodes)


def without_scores(answer: Any) -> tuple[str, list[tuple[Any, ...]]]:
    """Of LanceDB: the official adapter's score is exp(-distance), ours the cosine; the order is the same."""
    text, hits = said(answer)
    return text, [hit[:-1] for hit in hits]


@program
def from_documents(parts: types.SimpleNamespace) -> Any:
    index = index_in(parts.VectorStore())
    return said(index.as_query_engine(llm=MockLLM(), similarity_top_k=3).query(QUESTION))


@program
def storage_context(parts: types.SimpleNamespace) -> Any:
    """Nodes of one's own in a docstore and a vector store, cut off by a score."""
    nodes = SentenceSplitter(chunk_size=24, chunk_overlap=0).get_nodes_from_documents(documents())
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore(), docstore=SimpleDocumentStore())
    storage.docstore.add_documents(nodes)
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding())
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.2)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=[cutoff])
    return len(storage.docstore.docs), said(engine.query("Is the seal of the valve worn?"))


@program
def router_query_engine(parts: types.SimpleNamespace) -> Any:
    llm = MockLLM()
    machines = index_in(parts.VectorStore(), documents()[:2]).as_query_engine(llm=llm)
    rooms = index_in(parts.VectorStore(), documents()[2:]).as_query_engine(llm=llm)
    engine = RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(
            llm=RuleLLM(replies={"": '[{"choice": 2, "reason": "It asks of lamps."}]'})
        ),
        query_engine_tools=[
            QueryEngineTool.from_defaults(machines, name="machines", description="Pumps and lifts"),
            QueryEngineTool.from_defaults(rooms, name="rooms", description="Lamps and boilers"),
        ],
        llm=llm,
    )
    answer = engine.query("Who has spare lamps?")
    return said(answer), answer.metadata["selector_result"].ind


@program
def sub_question_query_engine(parts: types.SimpleNamespace) -> Any:
    questions = (
        '{"items": [{"sub_question": "Which valve leaks?", "tool_name": "machines"},'
        ' {"sub_question": "Who has spare lamps?", "tool_name": "rooms"}]}'
    )
    tools = [
        QueryEngineTool.from_defaults(
            index_in(parts.VectorStore(), texts).as_query_engine(llm=MockLLM(), similarity_top_k=1),
            name=name,
            description=f"Knows of {name}",
        )
        for name, texts in (("machines", documents()[:2]), ("rooms", documents()[2:]))
    ]
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=tools,
        llm=MockLLM(),
        question_gen=LLMQuestionGenerator.from_defaults(llm=RuleLLM(replies={"": questions})),
        use_async=False,
    )
    return said(engine.query("Which valve leaks, and who has spare lamps?"))


@program
def condense_plus_context_chat_engine(parts: types.SimpleNamespace) -> Any:
    """Two turns: the second question is rewritten from the history, then answered from new passages."""
    engine = CondensePlusContextChatEngine.from_defaults(
        retriever=index_in(parts.VectorStore()).as_retriever(similarity_top_k=2),
        llm=RuleLLM(replies={"Standalone question": "How often is the rope of the lift replaced?"}),
    )
    turns = [said(engine.chat(text)) for text in (QUESTION, "And the rope?")]
    return turns, [message.content for message in engine.chat_history]


@program
def asynchronous_queries(parts: types.SimpleNamespace) -> Any:
    async def main() -> Any:
        index = index_in(parts.VectorStore())
        await index.ainsert(Document(text="The pump was painted.", doc_id="paint"))
        engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=2)
        answers = await asyncio.gather(
            *[engine.aquery(text) for text in (QUESTION, "spare lamps", "gas pressure")]
        )
        hits = await index.as_retriever(similarity_top_k=5).aretrieve("painted pump")
        return [said(answer) for answer in answers], plain(hits)

    return asyncio.run(main())


@program
def global_settings(parts: types.SimpleNamespace) -> Any:
    Settings.llm, Settings.embed_model = MockLLM(max_tokens=5), embedding()
    Settings.node_parser = SentenceSplitter(chunk_size=24, chunk_overlap=4)
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    index = VectorStoreIndex.from_documents(documents(), storage_context=storage)
    return said(index.as_query_engine(similarity_top_k=4, response_mode="tree_summarize").query(QUESTION))


@program
def metadata_filters(parts: types.SimpleNamespace) -> Any:
    def condition(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilter:
        return MetadataFilter(key=key, value=value, operator=operator)

    later = condition("year", 2022, FilterOperator.GTE)
    named = condition("name", ["valve", "lamps"], FilterOperator.IN)
    index = index_in(parts.VectorStore())
    return [
        plain(index.as_retriever(similarity_top_k=4, filters=filters).retrieve(QUESTION))
        for filters in (
            MetadataFilters(filters=[condition("name", "rope")]),
            MetadataFilters(filters=[later, named]),
            MetadataFilters(filters=[later, named], condition=FilterCondition.OR),
            MetadataFilters(filters=[condition("year", 2023, FilterOperator.NE)]),
            MetadataFilters(filters=[condition("name", ["rope"], FilterOperator.NIN), later]),
            MetadataFilters(filters=[condition("name", "al", FilterOperator.TEXT_MATCH)]),
            MetadataFilters(filters=[condition("name", "nobody")]),
        )
    ]


@program
def delete_and_refresh_documents(parts: types.SimpleNamespace) -> Any:
    index = index_in(parts.VectorStore())
    found = [plain(index.as_retriever(similarity_top_k=9).retrieve(QUESTION))]
    index.delete_ref_doc("rope")
    found.append(plain(index.as_retriever(similarity_top_k=9).retrieve(QUESTION)))
    index.update_ref_doc(Document(text="Valve AB-18 of the pump is new.", doc_id="valve"))
    index.insert(Document(text="The valve of the roof leaks.", doc_id="roof"))
    return [*found, plain(index.as_retriever(similarity_top_k=9).retrieve(QUESTION))]


@program
def refresh_ref_docs(parts: types.SimpleNamespace) -> Any:
    """Unchanged documents are left, a changed and a new one are taken."""
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    index = VectorStoreIndex([], storage_context=storage, embed_model=embedding(), store_nodes_override=True)
    first = index.refresh_ref_docs(documents())
    changed = Document(text="Valve AB-18 of the pump is new.", doc_id="valve")
    second = index.refresh_ref_docs([changed, *documents()[1:], Document(text="A roof.", doc_id="roof")])
    return first, second, plain(index.as_retriever(similarity_top_k=9).retrieve(QUESTION))


@program
def persist_and_reload(parts: types.SimpleNamespace) -> Any:
    """A LanceDB folder is opened again, without embedding anything."""
    index_in(parts.LanceDBVectorStore("vectors", mode="overwrite"))
    reopened = VectorStoreIndex.from_vector_store(
        parts.LanceDBVectorStore("vectors"), embed_model=embedding()
    )
    return without_scores(reopened.as_query_engine(llm=MockLLM(), similarity_top_k=3).query(QUESTION))


@program
def persist_storage_context(parts: types.SimpleNamespace) -> Any:
    """Docstore and index store in a folder, the vectors in LanceDB beside it."""
    storage = StorageContext.from_defaults(vector_store=parts.LanceDBVectorStore("vectors"))
    VectorStoreIndex.from_documents(
        documents(), storage_context=storage, embed_model=embedding(), store_nodes_override=True
    )
    storage.persist("storage")
    again = StorageContext.from_defaults(
        persist_dir="storage", vector_store=parts.LanceDBVectorStore("vectors", mode="append")
    )
    index = load_index_from_storage(again, embed_model=embedding())
    return without_scores(index.as_query_engine(llm=MockLLM()).query(QUESTION))


def ingest(parts: types.SimpleNamespace, strategy: DocstoreStrategy) -> Any:
    """The same folder twice, the second time with one text changed and one gone."""
    store = parts.VectorStore()
    model = embedding()
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=24, chunk_overlap=0), model],
        docstore=SimpleDocumentStore(),
        docstore_strategy=strategy,
        vector_store=store,
    )
    first = pipeline.run(documents=documents())
    changed = Document(text="Valve AB-18 of the pump is new.", doc_id="valve")
    second = pipeline.run(documents=[changed, *documents()[2:]])
    texts = {node.node_id: node.text for node in [*first, *second]}
    found = store.query(
        VectorStoreQuery(query_embedding=model.get_query_embedding(QUESTION), similarity_top_k=20)
    )
    hits = [(texts[key], round(score, 4)) for key, score in zip(found.ids, found.similarities, strict=True)]
    return [node.text for node in first], [node.text for node in second], hits


@program
def ingestion_with_upserts(parts: types.SimpleNamespace) -> Any:
    return ingest(parts, DocstoreStrategy.UPSERTS)


@program
def ingestion_with_upserts_and_delete(parts: types.SimpleNamespace) -> Any:
    return ingest(parts, DocstoreStrategy.UPSERTS_AND_DELETE)


@program
def ingestion_without_duplicates(parts: types.SimpleNamespace) -> Any:
    return ingest(parts, DocstoreStrategy.DUPLICATES_ONLY)


@program
def auto_merging_retriever(parts: types.SimpleNamespace) -> Any:
    """Leaves are found; where most of a parent is found, the parent is given."""
    text = " ".join(TEXTS.values())
    nodes = HierarchicalNodeParser.from_defaults(
        chunk_sizes=[64, 24], chunk_overlap=0
    ).get_nodes_from_documents([Document(text=text, doc_id="house")])
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    storage.docstore.add_documents(nodes)
    index = VectorStoreIndex(get_leaf_nodes(nodes), storage_context=storage, embed_model=embedding())
    retriever = AutoMergingRetriever(index.as_retriever(similarity_top_k=3), storage, simple_ratio_thresh=0.3)
    return plain(index.as_retriever(similarity_top_k=3).retrieve(QUESTION)), plain(
        retriever.retrieve(QUESTION)
    )


@program
def sentence_window(parts: types.SimpleNamespace) -> Any:
    parser = SentenceWindowNodeParser.from_defaults(
        window_size=1, sentence_splitter=lambda text: text.split(". ")
    )
    index = index_in(parts.VectorStore(), transformations=[parser])
    engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=2,
        node_postprocessors=[MetadataReplacementPostProcessor(target_metadata_key="window")],
    )
    return said(engine.query("Who has spare lamps?"))


@program
def fusion_retriever(parts: types.SimpleNamespace) -> Any:
    """All documents and the later ones, fused in each mode."""
    index = index_in(parts.VectorStore())
    later = MetadataFilters(filters=[MetadataFilter(key="year", value=2021, operator=FilterOperator.GT)])
    legs = [index.as_retriever(similarity_top_k=4), index.as_retriever(similarity_top_k=3, filters=later)]
    return [
        plain(
            parts.FusionRetriever(
                legs, llm=MockLLM(), mode=mode, similarity_top_k=4, num_queries=1, use_async=False
            ).retrieve(QUESTION)
        )
        for mode in ("reciprocal_rerank", "relative_score", "dist_based_score", "simple")
    ]


@program
def fusion_of_generated_queries(parts: types.SimpleNamespace) -> Any:
    llm = RuleLLM(replies={"search queries": "spare lamps\npressure of the boiler"})
    retriever = parts.FusionRetriever(
        [index_in(parts.VectorStore()).as_retriever(similarity_top_k=4)],
        llm=llm,
        mode="reciprocal_rerank",
        similarity_top_k=4,
        num_queries=3,
        use_async=False,
    )
    return said(RetrieverQueryEngine.from_args(retriever, llm=llm).query(QUESTION))


@program
def reranking(parts: types.SimpleNamespace) -> Any:
    rerank = parts.Rerank(model="model", top_n=3, keep_retrieval_score=True)
    index = index_in(parts.VectorStore())
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=4, node_postprocessors=[rerank])
    answer = engine.query(QUESTION)
    kept = [round(node.node.metadata["retrieval_score"], 4) for node in answer.source_nodes]
    return [(hit.node.ref_doc_id, round(float(hit.score), 3)) for hit in answer.source_nodes], kept


@program
def token_counting(parts: types.SimpleNamespace) -> Any:
    """Counted for an index and a query, set back, counted for one more query."""
    counter = parts.TokenCounter(tokenizer=str.split)
    Settings.callback_manager = CallbackManager([counter])
    model, llm = embedding(), MockLLM(max_tokens=6)
    model.callback_manager = llm.callback_manager = Settings.callback_manager
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    engine = VectorStoreIndex.from_documents(
        documents(), storage_context=storage, embed_model=model
    ).as_query_engine(llm=llm)

    def counts() -> tuple[int, ...]:
        return (
            counter.prompt_llm_token_count,
            counter.completion_llm_token_count,
            counter.total_llm_token_count,
            counter.total_embedding_token_count,
        )

    engine.query(QUESTION)
    seen = [counts()]
    counter.reset_counts()
    seen.append(counts())
    engine.query("Who has spare lamps?")
    return [*seen, counts()]


@program
def streaming(parts: types.SimpleNamespace) -> Any:
    engine = index_in(parts.VectorStore()).as_query_engine(llm=RuleLLM(), streaming=True, similarity_top_k=2)
    answer = engine.query(QUESTION)
    return list(answer.response_gen), plain(answer.source_nodes)


@program
def retrieval_evaluation(parts: types.SimpleNamespace) -> Any:
    nodes = [node for node in SentenceSplitter().get_nodes_from_documents(documents())]
    for node in nodes:
        node.id_ = f"chunk of {node.ref_doc_id}"
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding())
    evaluator = RetrieverEvaluator.from_metric_names(
        ["hit_rate", "mrr", "precision", "recall"], retriever=index.as_retriever(similarity_top_k=2)
    )
    results = [
        evaluator.evaluate(question, [f"chunk of {name}"])
        for question, name in ((QUESTION, "valve"), ("Who has spare lamps?", "lamps"), ("worn", "boiler"))
    ]
    judge = FaithfulnessEvaluator(llm=RuleLLM(replies={"leaks": "YES"}))
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query(QUESTION)
    verdict = judge.evaluate_response(query=QUESTION, response=answer)
    return (
        [(result.metric_vals_dict, result.retrieved_ids) for result in results],
        verdict.passing,
        verdict.contexts,
    )


@program
def metadata_extraction(parts: types.SimpleNamespace) -> Any:
    """Titles and keywords by a model, stored with the nodes and read back from the hits."""
    llm = RuleLLM(
        replies={"unique keywords": "pump, valve", "Give a title": "Upkeep", "comprehensive title": "House"}
    )
    steps: list[TransformComponent] = [
        SentenceSplitter(),
        TitleExtractor(llm=llm, nodes=1, num_workers=1),
        KeywordExtractor(llm=llm, keywords=2, num_workers=1),
    ]
    index = index_in(parts.VectorStore(), transformations=steps)
    return said(index.as_query_engine(llm=MockLLM(), similarity_top_k=2).query(QUESTION))


@program
def property_graph(parts: types.SimpleNamespace) -> Any:
    """Triplets by a model; entities are found by the vectors in the store."""
    llm = RuleLLM(
        replies={
            "Valve AB-17": "(Valve seal, Closes, Valve body)",
            "The rope": "(Rope, Belongs to, Lift)",
            "Lamps of": "(Lamps, Hang in, Hall)",
            "The boiler": "(Boiler, Burns, Gas)",
        }
    )
    index = PropertyGraphIndex.from_documents(
        documents(),
        transformations=[SentenceSplitter(id_func=lambda place, document: f"{document.id_} {place}")],
        kg_extractors=[SimpleLLMPathExtractor(llm=llm, num_workers=1)],
        vector_store=parts.VectorStore(),
        embed_model=embedding(),
        embed_kg_nodes=True,
        use_async=False,
        llm=llm,
    )
    retriever = VectorContextRetriever(
        index.property_graph_store,
        vector_store=index.vector_store,
        embed_model=embedding(),
        similarity_top_k=2,
        include_text=False,
    )
    return sorted(hit.node.text for hit in retriever.retrieve("Valve seal"))


@program
def citation_query_engine(parts: types.SimpleNamespace) -> Any:
    engine = CitationQueryEngine.from_args(
        index_in(parts.VectorStore()), llm=MockLLM(), similarity_top_k=2, citation_chunk_size=64
    )
    return said(engine.query(QUESTION))


@program
def hypothetical_document(parts: types.SimpleNamespace) -> Any:
    """The question is replaced by a passage that a model makes up (HyDE)."""
    llm = RuleLLM(replies={"write a passage": "The rope of the lift is replaced every year."})
    engine = index_in(parts.VectorStore()).as_query_engine(llm=MockLLM(), similarity_top_k=2)
    return said(TransformQueryEngine(engine, HyDEQueryTransform(llm=llm)).query("When is it replaced?"))


@program
def auto_retriever(parts: types.SimpleNamespace) -> Any:
    """A model writes the query, its filters and its length."""
    spec = '{"query": "the rope", "filters": [{"key": "year", "value": 2022, "operator": ">="}], "top_k": 2}'
    retriever = VectorIndexAutoRetriever(
        index_in(parts.VectorStore()),
        vector_store_info=VectorStoreInfo(
            content_info="Parts of a house",
            metadata_info=[MetadataInfo(name="year", type="int", description="Year")],
        ),
        llm=RuleLLM(replies={"": spec}),
        similarity_top_k=4,
    )
    return plain(retriever.retrieve("What of the rope since 2022?"))


@program
def maximal_marginal_relevance(parts: types.SimpleNamespace) -> Any:
    """The first two places: from the third, the stock store compares with the place before only, ours with all.

    Of the scores the stock store gives the gain of each place, ours the similarity.
    """
    index = index_in(parts.VectorStore())
    found = []
    for threshold in (0.2, 0.5, 0.9):
        retriever = index.as_retriever(
            similarity_top_k=2,
            vector_store_query_mode="mmr",
            vector_store_kwargs={"mmr_threshold": threshold},
        )
        found.append([hit.node.ref_doc_id for hit in retriever.retrieve(QUESTION)])
    return found


@program
def document_summary_index(parts: types.SimpleNamespace) -> Any:
    """Summaries are searched, the documents behind them answer."""
    llm = RuleLLM(
        replies={"Valve AB-17": "Of the pump.", "The rope": "Of the lift.", "Lamps": "Of the hall."}
    )
    index = DocumentSummaryIndex.from_documents(
        documents()[:3],
        llm=llm,
        embed_model=embedding(),
        storage_context=StorageContext.from_defaults(vector_store=parts.VectorStore()),
        response_synthesizer=get_response_synthesizer(llm=llm, response_mode="compact"),
    )
    retriever = index.as_retriever(retriever_mode="embedding", similarity_top_k=1)
    return index.get_document_summary("rope"), [hit.node.ref_doc_id for hit in retriever.retrieve("the lift")]


@program
def recursive_retriever(parts: types.SimpleNamespace) -> Any:
    """References in the store lead to nodes that are kept elsewhere."""
    nodes = {name: TextNode(text=text, id_=name) for name, text in TEXTS.items()}
    references = [
        IndexNode(text=sentence, index_id=name, id_=f"{name} {place}")
        for name, text in TEXTS.items()
        for place, sentence in enumerate(text.split(". "))
    ]
    index = VectorStoreIndex(
        references,
        storage_context=StorageContext.from_defaults(vector_store=parts.VectorStore()),
        embed_model=embedding(),
    )
    retriever = RecursiveRetriever(
        "vector", retriever_dict={"vector": index.as_retriever(similarity_top_k=2)}, node_dict=nodes
    )
    return [(hit.node.text, round(hit.score, 4)) for hit in retriever.retrieve("Who has spare lamps?")]


@program
def retrieval_of_tools(parts: types.SimpleNamespace) -> Any:
    """An object index finds the tools that a question needs."""

    def ask(question: str) -> str:
        return question

    tools = [FunctionTool.from_defaults(ask, name=name, description=text) for name, text in TEXTS.items()]
    index = ObjectIndex.from_objects(
        tools,
        index_cls=VectorStoreIndex,
        storage_context=StorageContext.from_defaults(vector_store=parts.VectorStore()),
        embed_model=embedding(),
    )
    return [tool.metadata.name for tool in index.as_retriever(similarity_top_k=2).retrieve(QUESTION)]


@program
def streaming_chat_and_memory(parts: types.SimpleNamespace) -> Any:
    engine = index_in(parts.VectorStore()).as_chat_engine(
        chat_mode="context",
        llm=RuleLLM(),
        similarity_top_k=1,
        memory=ChatMemoryBuffer.from_defaults(token_limit=900),
    )
    turns = []
    for text in (QUESTION, "Who has spare lamps?"):
        reply = engine.stream_chat(text)
        turns.append(("".join(reply.response_gen), plain(reply.source_nodes)))
    return turns


@program
def asynchronous_ingestion(parts: types.SimpleNamespace) -> Any:
    """An asynchronous pipeline, then documents taken out and put in without blocking."""

    async def main() -> Any:
        storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
        nodes = await IngestionPipeline(transformations=[SentenceSplitter()]).arun(documents=documents())
        index = VectorStoreIndex(
            [], storage_context=storage, embed_model=embedding(), store_nodes_override=True
        )
        await index.ainsert_nodes(nodes)
        await index.adelete_ref_doc("valve", delete_from_docstore=True)
        await index.arefresh_ref_docs([Document(text="The valve of the roof leaks.", doc_id="roof")])
        hits = await index.as_retriever(similarity_top_k=9).aretrieve(QUESTION)
        return sorted(index.ref_doc_info), plain(hits)

    return asyncio.run(main())


@program
def asynchronous_fusion_and_reranking(parts: types.SimpleNamespace) -> Any:
    async def main() -> Any:
        index = index_in(parts.VectorStore())
        retriever = parts.FusionRetriever(
            [index.as_retriever(similarity_top_k=4)],
            llm=MockLLM(),
            mode="relative_score",
            similarity_top_k=4,
            num_queries=1,
            use_async=True,
        )
        rerank = parts.Rerank(model="model", top_n=2)
        engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[rerank])
        answer = await engine.aquery(QUESTION)
        return str(answer), [hit.node.ref_doc_id for hit in answer.source_nodes]

    return asyncio.run(main())


@program
def some_nodes_only(parts: types.SimpleNamespace) -> Any:
    """A search among given nodes, and after a node was deleted."""
    nodes = [TextNode(text=text, id_=name) for name, text in TEXTS.items()]
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore())
    index = VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding())
    among = VectorIndexRetriever(index, similarity_top_k=4, node_ids=["rope", "boiler"])
    found = [hit.node.node_id for hit in among.retrieve(QUESTION)]
    index.delete_nodes(["valve"])
    return found, plain(index.as_retriever(similarity_top_k=4).retrieve(QUESTION))


@program
def filters_in_lancedb(parts: types.SimpleNamespace) -> Any:
    index = index_in(parts.LanceDBVectorStore("vectors"))
    return [
        without_scores(
            index.as_query_engine(
                llm=MockLLM(), similarity_top_k=4, filters=MetadataFilters(filters=[given])
            ).query(QUESTION)
        )
        for given in (
            MetadataFilter(key="name", value="rope"),
            MetadataFilter(key="year", value=2022, operator=FilterOperator.GT),
        )
    ]


@program
def token_counting_of_streams(parts: types.SimpleNamespace) -> Any:
    """A streamed answer counts once it was read."""
    counter = parts.TokenCounter(tokenizer=str.split)
    Settings.callback_manager = CallbackManager([counter])
    llm = RuleLLM(replies={"": "one two three"}, callback_manager=Settings.callback_manager)
    engine = index_in(parts.VectorStore()).as_query_engine(llm=llm, streaming=True)
    text = "".join(engine.query(QUESTION).response_gen)
    assert counter.completion_llm_token_count == 3
    return (
        text,
        counter.prompt_llm_token_count,
        counter.completion_llm_token_count,
        counter.total_llm_token_count,
    )


@program
def cached_ingestion(parts: types.SimpleNamespace) -> Any:
    """A pipeline with a cache and a docstore, written to a folder and gone on with: only what is new is cut again."""
    store = parts.LanceDBVectorStore("vectors")
    steps: list[TransformComponent] = [SentenceSplitter(chunk_size=24, chunk_overlap=0), embedding()]
    pipeline = IngestionPipeline(
        transformations=steps, vector_store=store, cache=IngestionCache(), docstore=SimpleDocumentStore()
    )
    first = pipeline.run(documents=documents())
    pipeline.persist("pipeline")
    again = IngestionPipeline(transformations=steps, vector_store=store, docstore=SimpleDocumentStore())
    again.load("pipeline")
    second = again.run(documents=[*documents()[:3], Document(text="The roof leaks.", doc_id="roof")])
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding())
    hits = index.as_retriever(similarity_top_k=9).retrieve(QUESTION)
    return len(first), len(second), [(hit.node.ref_doc_id, hit.node.text) for hit in hits]


@program
def chain_of_postprocessors(parts: types.SimpleNamespace) -> Any:
    """Re-ranked, with the neighbours of each hit from the docstore, the newest of them, the best at both ends."""
    dated = [
        Document(text=text, doc_id=name, metadata={"date": f"{YEARS[name]}-01-01"})
        for name, text in TEXTS.items()
    ]
    splitter = SentenceSplitter(
        chunk_size=24, chunk_overlap=0, id_func=lambda place, document: f"{document.id_} {place}"
    )
    nodes = splitter.get_nodes_from_documents(dated)
    storage = StorageContext.from_defaults(vector_store=parts.VectorStore(), docstore=SimpleDocumentStore())
    storage.docstore.add_documents(nodes)
    engine = VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding()).as_query_engine(
        llm=MockLLM(),
        similarity_top_k=6,
        node_postprocessors=[
            parts.Rerank(model="model", top_n=4),
            PrevNextNodePostprocessor(docstore=storage.docstore, num_nodes=1, mode="both"),
            FixedRecencyPostprocessor(top_k=4, date_key="date"),
            LongContextReorder(),
        ],
    )
    answer = engine.query(QUESTION)
    return str(answer), [hit.node.node_id for hit in answer.source_nodes]


class Retrieved(Event):
    """Passages of a question."""

    nodes: list[NodeWithScore]


class Word(Event):
    """A piece of an answer."""

    text: str


@program
def workflow_with_streaming(parts: types.SimpleNamespace) -> Any:
    """Retrieval, re-ranking and a streamed answer as the steps of a workflow."""

    class Ask(Workflow):
        @step
        async def retrieve(self, context: Context, event: StartEvent) -> Retrieved:
            retriever = parts.FusionRetriever(
                [index_in(parts.VectorStore()).as_retriever(similarity_top_k=4)],
                llm=MockLLM(),
                mode="relative_score",
                similarity_top_k=3,
                num_queries=1,
            )
            nodes = await retriever.aretrieve(QUESTION)
            rerank = parts.Rerank(model="model", top_n=2)
            return Retrieved(nodes=await rerank.apostprocess_nodes(nodes, query_str=QUESTION))

        @step
        async def answer(self, context: Context, event: Retrieved) -> StopEvent:
            synthesizer = get_response_synthesizer(llm=RuleLLM(), streaming=True, use_async=True)
            answer: Any = await synthesizer.asynthesize(QUESTION, nodes=event.nodes)
            async for text in answer.async_response_gen():
                context.write_event_to_stream(Word(text=text))
            return StopEvent(result=[hit.node.ref_doc_id for hit in event.nodes])

    async def main() -> Any:
        handler = Ask(timeout=60).run()
        words = [event.text async for event in handler.stream_events() if isinstance(event, Word)]
        return words, await handler

    return asyncio.run(main())


@program
def vector_memory(parts: types.SimpleNamespace) -> Any:
    """What leaves a short chat memory goes into the store, and comes back by its meaning, of its session alone."""

    async def main() -> Any:
        block = VectorMemoryBlock(
            vector_store=parts.LanceDBVectorStore("memory"), embed_model=embedding(), similarity_top_k=2
        )
        memory = Memory.from_defaults(
            session_id="one", token_limit=60, token_flush_size=10, memory_blocks=[block]
        )
        for text in TEXTS.values():
            await memory.aput(ChatMessage(role="user", content=text))
        other = Memory.from_defaults(session_id="two", token_limit=60, memory_blocks=[block])
        return [
            [message.content for message in await one.aget("Who has spare lamps?")] for one in (memory, other)
        ]

    return asyncio.run(main())


def calls_the_tool(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """A model that looks the question up, then answers with what the tool said."""
    last = messages[-1]
    if last.role == "tool":
        return ChatMessage(role="assistant", content=f"I read: {last.content}")
    block = ToolCallBlock(tool_call_id="1", tool_name="manual", tool_kwargs={"input": QUESTION})
    return ChatMessage(role="assistant", blocks=[block])


def manual(parts: types.SimpleNamespace) -> QueryEngineTool:
    engine = index_in(parts.VectorStore()).as_query_engine(llm=MockLLM(), similarity_top_k=2)
    return QueryEngineTool.from_defaults(engine, name="manual", description="The manual of the house")


def agent(parts: types.SimpleNamespace) -> FunctionAgent:
    return FunctionAgent(
        name="caretaker",
        description="Reads the manual",
        tools=[manual(parts)],
        llm=MockFunctionCallingLLM(response_generator=calls_the_tool),
        streaming=False,
    )


@program
def function_agent(parts: types.SimpleNamespace) -> Any:
    async def main() -> Any:
        answer = await agent(parts).run("What leaks?")
        return str(answer), [(call.tool_name, call.tool_output.content) for call in answer.tool_calls]

    return asyncio.run(main())


@program
def agent_workflow(parts: types.SimpleNamespace) -> Any:
    async def main() -> Any:
        flow = AgentWorkflow(agents=[agent(parts)], root_agent="caretaker")
        handler = flow.run(user_msg="What leaks?")
        events = [type(event).__name__ async for event in handler.stream_events()]
        return str(await handler), events

    return asyncio.run(main())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_model(tmp_path_factory.mktemp("reranker") / "model"))


@pytest.fixture
def own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a program sets for the whole process is set back."""
    for name in ("_llm", "_embed_model", "_node_parser", "_callback_manager", "_transformations"):
        monkeypatch.setattr(Settings, name, getattr(Settings, name))
    yield


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_results_with_the_imports_changed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, own_settings: None
) -> None:
    """Each in a folder of its own, with nothing left by the other."""
    results = {}
    for side, parts in (("stock", STOCK), ("ours", OURS)):
        folder = tmp_path / side
        folder.mkdir()
        (folder / "model").symlink_to(model, target_is_directory=True)
        monkeypatch.chdir(folder)
        results[side] = PROGRAMS[name](parts)
    assert results["stock"]
    assert results["ours"] == results["stock"]
