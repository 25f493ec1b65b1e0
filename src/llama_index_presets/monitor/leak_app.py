"""A small LlamaIndex application that brings a planted name to every place that a trace might show."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from llama_index.core import Document, MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from llama_index_presets._options import strict
from llama_index_presets.monitor.leaks import Planted

__all__ = ["SayingLLM", "plain_app"]


@strict()
class SayingLLM(CustomLLM):
    """Says one thing to every prompt, or raises it.

    Attributes:
        says: What it says.
        raises: Whether it raises that.
    """

    says: str
    raises: bool = False

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        return LLMMetadata(model_name="saying")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Say it."""
        if self.raises:
            raise ValueError(self.says)
        return CompletionResponse(text=self.says)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Say it word by word."""

        def words() -> CompletionResponseGen:
            said = ""
            for word in self.says.split():
                if self.raises:
                    raise ValueError(self.says)
                said += f"{word} "
                yield CompletionResponse(text=said, delta=f"{word} ")

        return words()


def plain_app(planted: Planted) -> None:
    """Ask a stock query engine: at once, streamed, on the event loop, with a template, and with a model that fails."""
    filters = MetadataFilters(filters=[MetadataFilter(key="doctor", value=planted.names["filter"])])
    document = Document(
        text=planted.text("document"),
        doc_id=f"/patients/{planted.names['document']}.txt",
        metadata={"patient": planted.names["metadata"], "doctor": planted.names["filter"]},
    )
    index = VectorStoreIndex.from_documents([document], embed_model=MockEmbedding(embed_dim=8))
    llm, failing = (
        SayingLLM(says=planted.text("answer")),
        SayingLLM(says=planted.text("exception"), raises=True),
    )
    retriever = index.as_retriever(filters=filters)
    question = planted.text("query")
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    engine.query(question)
    asyncio.run(engine.aquery(question))
    str(RetrieverQueryEngine.from_args(retriever, llm=llm, streaming=True).query(question))
    llm.predict(PromptTemplate("Note: {note}. Reply."), note=planted.text("template"))
    for streaming in (False, True):
        with contextlib.suppress(ValueError):
            str(RetrieverQueryEngine.from_args(retriever, llm=failing, streaming=streaming).query(question))
