"""A Haystack pipeline of the kind that benchmarks/serve.py asks: words hashed, passages found, the first one quoted.

Run by hayhooks in an environment of its own; see `--hayhooks` of benchmarks/serve.py.
"""

from __future__ import annotations

import time
from typing import Any

from hayhooks import BasePipelineWrapper
from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore


def vector(text: str) -> list[float]:
    """As `Words` of benchmarks/serve.py."""
    values = [1e-3] * 64
    for word in text.lower().split():
        values[sum(word.strip(".,?!").encode()) % 64] += 1.0
    return values


@component
class Words:
    """Embeds a question."""

    @component.output_types(embedding=list[float])
    def run(self, question: str) -> dict[str, Any]:
        """The vector."""
        return {"embedding": vector(question)}


@component
class Quote:
    """Stands for a language model: quotes the first passage."""

    @component.output_types(answer=str, documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """The answer with its passages."""
        return {"answer": f"{documents[0].content} [1]", "documents": documents}


class PipelineWrapper(BasePipelineWrapper):
    """What hayhooks serves at ``/passwords/run``."""

    def setup(self) -> None:
        """Fill the store, and connect the components."""
        store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        texts = [f"The password of number {n} is sesame{n}." for n in range(50)]
        store.write_documents([Document(content=text, embedding=vector(text)) for text in texts])
        self.pipeline = Pipeline()
        self.pipeline.add_component("embedder", Words())
        self.pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=10))
        self.pipeline.add_component("quote", Quote())
        self.pipeline.connect("embedder.embedding", "retriever.query_embedding")
        self.pipeline.connect("retriever.documents", "quote.documents")

    def run_api(self, question: str) -> dict[str, Any]:
        """Answer, passages, and the milliseconds that the pipeline alone took."""
        began = time.perf_counter()
        found = self.pipeline.run({"embedder": {"question": question}})["quote"]
        took = (time.perf_counter() - began) * 1000
        sources = [{"text": one.content, "score": one.score} for one in found["documents"]]
        return {"answer": found["answer"], "sources": sources, "pipeline_ms": took}
