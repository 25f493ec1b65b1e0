"""Token counts of one handler's calls, under the names and with the numbers of `TokenCountingHandler`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from llama_index.core.callbacks import EventPayload
from llama_index.core.callbacks.token_counting import get_llm_token_counts
from llama_index.core.utilities.token_counting import TokenCounter

from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.calls.model_call import CallEnded, prompt_texts
from llama_index_presets.monitor.calls.usage import Usage

__all__ = ["TokenCount", "TokenCounts"]

_KEPT: Final = 10_000
"""Calls of each kind that are listed; the sums know all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """Tokens of one call; the texts are kept only where the handler has ``keep_texts=True``.

    Attributes:
        prompt_token_count: Input tokens.
        completion_token_count: Output tokens; 0 of an embedding.
        event_id: The `call_id` of its row in the ledger.
    """

    prompt_token_count: int
    completion_token_count: int = 0
    event_id: str = ""
    texts: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def total_token_count(self) -> int:
        """Their sum."""
        return self.prompt_token_count + self.completion_token_count

    @property
    def prompt(self) -> str:
        """What went in.

        Raises:
            SettingsError: The handler keeps no texts.
        """
        return self._text(0)

    @property
    def completion(self) -> str:
        """What came out.

        Raises:
            SettingsError: The handler keeps no texts.
        """
        return self._text(1)

    def _text(self, which: int) -> str:
        if self.texts is None:
            raise SettingsError(
                "No prompt and no answer is kept: they may be private, and fill the memory. Make the handler with "
                "CostTrackingHandler(keep_texts=True)."
            )
        return self.texts[which]


class TokenCounts:
    """Counts of the calls that a handler has recorded. Thread safe.

    What a server reports counts as it says; what it leaves out is counted by the tokenizer, as
    `TokenCountingHandler` does it.

    Args:
        tokenizer: Text -> tokens; None takes LlamaIndex's own when it is needed.
        keep_texts: Whether prompts and answers are kept.
        recount: Whether the tokenizer counts what no server reports; False takes the counts of the ledger.
        say: Called with a line for each call; None says nothing.
    """

    def __init__(
        self,
        tokenizer: Callable[[str], list[Any]] | None = None,
        *,
        keep_texts: bool = False,
        recount: bool = True,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._given = tokenizer
        self.recount = recount
        self.keep_texts = keep_texts
        self.say = say
        self._lock = threading.Lock()
        self._counter: TokenCounter | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self.llm: deque[TokenCount] = deque(maxlen=_KEPT)
            self.embedding: deque[TokenCount] = deque(maxlen=_KEPT)
            self.prompt_tokens = self.completion_tokens = self.embedding_tokens = 0

    def note(self, end: CallEnded, usage: Usage, source: str) -> None:
        """Count a call that is over.

        Args:
            end: The call.
            usage: Its tokens, as in the ledger.
            source: Who counted them, as in the ledger.
        """
        if end.status in ("error", "refused") and not usage.total and not usage.prompt:
            return
        if end.call.kind == "llm":
            self._note_llm(end, usage, source)
        elif end.call.kind == "embedding":
            self._note_embedding(end, usage)

    def _note_llm(self, end: CallEnded, usage: Usage, source: str) -> None:
        call = end.call
        prompt, said = usage.prompt, usage.completion
        if source == "estimated" and self.recount:
            prompt, said = self._counted(
                call.prompt, end.response if end.response is not None else call.chunk
            )
        texts = ("\n".join(prompt_texts(call.prompt)), call.said(end.response)) if self.keep_texts else None
        one = TokenCount(
            prompt_token_count=prompt, completion_token_count=said, event_id=call.call_id, texts=texts
        )
        with self._lock:
            self.llm.append(one)
            self.prompt_tokens += prompt
            self.completion_tokens += said
        if self.say is not None:
            self.say(f"LLM Prompt Token Usage: {prompt}\nLLM Completion Token Usage: {said}")

    def _note_embedding(self, end: CallEnded, usage: Usage) -> None:
        texts = [text for text in end.response or () if isinstance(text, str)]
        tokens = usage.prompt
        if texts and self.recount and not end.cache_hit:
            tokens = sum(self._tokenizer.get_string_tokens(text) for text in texts)
        kept = ("\n".join(texts), "") if self.keep_texts else None
        with self._lock:
            self.embedding.append(
                TokenCount(prompt_token_count=tokens, event_id=end.call.call_id, texts=kept)
            )
            self.embedding_tokens += tokens
        if self.say is not None:
            self.say(f"Embedding Token Usage: {tokens}")

    def _counted(self, prompt: Any, response: Any) -> tuple[int, int]:
        """Tokens by the tokenizer, in the words of the official function."""
        messages = isinstance(prompt, list | tuple)
        payload: dict[str, Any] = (
            {EventPayload.MESSAGES: list(prompt), EventPayload.RESPONSE: response}
            if messages
            else {EventPayload.PROMPT: prompt or "", EventPayload.COMPLETION: response}
        )
        found = get_llm_token_counts(self._tokenizer, payload)
        return found.prompt_token_count, found.completion_token_count

    @property
    def tokenizer(self) -> Callable[[str], list[Any]]:
        """Text -> tokens."""
        return self._tokenizer.tokenizer

    @property
    def _tokenizer(self) -> TokenCounter:
        if self._counter is None:
            self._counter = TokenCounter(tokenizer=self._given)
        return self._counter
