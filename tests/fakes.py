"""Stand-ins for what cannot run here, small enough to be read at a glance."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback


class ScriptedLLM(CustomLLM):
    """Says the same thing to every prompt and remembers the prompts."""

    says: str = "Yes [1]."
    window: int = 4096
    prompts: list[str] = []

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self.window, num_output=64, model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.prompts.append(prompt)
        return CompletionResponse(text=self.says)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        self.prompts.append(prompt)
        pieces = [self.says[place : place + 3] for place in range(0, len(self.says), 3)]
        return (CompletionResponse(text="", delta=piece) for piece in pieces)


class WordEmbedding(BaseEmbedding):
    """A bag of hashed words: texts that share words are close. Counts what it was asked to embed."""

    dim: int = 64
    max_tokens: int = 64
    seconds_a_text: float = 0.0
    embedded: list[str] = []

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return text.split()

    def _vector(self, text: str) -> list[float]:
        time.sleep(self.seconds_a_text)
        self.embedded.append(text)
        vector = np.full(self.dim, 1e-3)
        for word in text.lower().split():
            place = int.from_bytes(hashlib.sha256(word.strip(".,?!").encode()).digest()[:4], "big") % self.dim
            vector[place] += 1.0
        return [float(value) for value in vector / np.linalg.norm(vector)]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)
