"""Contextualiser of chunks: sentences from the cache or a language model, within a ceiling in dollars."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import TextNode

from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.answer.finish import finish_reason
from llama_index_presets.counting import counted
from llama_index_presets.errors import BudgetExceededError, ModelError, PresetsError
from llama_index_presets.ingest.chunking.chunk import SentenceChunker, SourceText
from llama_index_presets.ingest.failures import blame
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.calls.usage import estimate_chat, estimate_text, most_tokens, reported_usage
from llama_index_presets.monitor.prices import Pricer, Tokens, price_key
from llama_index_presets.presets.contextual.prompts import (
    SENTENCE_TOKENS,
    Stretch,
    clean_sentence,
    prompt_of,
    question_of,
    stretches,
    version,
)
from llama_index_presets.providers.named_llm import is_reasoning_model
from llama_index_presets.text.digests import text_digest

__all__ = ["ContextModel", "ContextWork", "Contextualiser"]

_CONTEXT_TAG: Final = "chunk-context"
"""Tag of the calls in the ledger."""

_CALLS: Final = 8  # at a time
_CACHES_ITSELF: Final = frozenset({"openai", "azure", "deepseek"})
"""Providers that cache the beginning of a prompt unasked, and bill it at its cached price."""
_SHORTEST_CACHED: Final = 1_024  # tokens of a beginning that is cached
_REPLY_TOKENS: Final = 4 * SENTENCE_TOKENS
"""Most tokens of a reply: the sentence asked for is a quarter of it."""
_THOUGHTFUL_REPLY_TOKENS: Final = 4_096
"""Most tokens of a reply of a model that thinks first: providers count thoughts as part of the reply."""
_PLACEHOLDER: Final = "word " * (SENTENCE_TOKENS - 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextModel:
    """The language model of the sentences, as far as prices and the cache must know it.

    Attributes:
        name: As it is shown, and part of the cache's keys.
        provider: As `genai-prices` spells it, or ``"local"``.
        model: Its name at the provider.
        window_tokens: What it reads; None where that is not known.
    """

    name: str
    provider: str
    model: str
    window_tokens: int | None = None


@dataclass(slots=True, kw_only=True)
class ContextWork:
    """What the sentences would take.

    Attributes:
        calls: Chunks that the model would be asked about.
        known: Chunks whose sentence is in the cache.
        prompt_tokens: Tokens that the model would read.
        cached_tokens: Of these, those of a beginning that the provider has read before, at its cached price.
        answer_tokens: Tokens that it would write, without thinking.
    """

    calls: int = 0
    known: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0

    def scaled(self, factor: float) -> ContextWork:
        """The work of so many times as many documents."""
        return ContextWork(**{name: round(getattr(self, name) * factor) for name in self.__slots__})

    def tokens(self) -> Tokens:
        """For a price."""
        return Tokens(self.prompt_tokens, self.answer_tokens, cached=self.cached_tokens)


@dataclass(slots=True, kw_only=True)
class Contextualiser:
    """Gives chunks a sentence that situates them in their document.

    A sentence is kept as soon as it is there, under document with its name, chunk, model and prompt: a run that was
    killed pays for none twice. Calls are made eight at a time; of each stretch of a document the first goes ahead
    alone, so that the provider has its beginning in the cache. The calls are recorded in the ledger of the run under
    `_CONTEXT_TAG`.

    Attributes:
        about: The model.
        cache: Sentences that are there.
        llm: Writes them; None only counts.
        limited: Gives `llm` with replies of at most so many tokens, so that a call costs no more than was held for it;
            None where it takes no limit.
        pricer: Knows the prices.
        limit_usd: Most that this run may spend, or None.
        spent_usd: What was spent.
        expected: What `expect` has counted.
    """

    about: ContextModel
    cache: AnswerCache | None
    llm: LLM | None = None
    limited: Callable[[int], LLM] | None = None
    pricer: Pricer = field(default_factory=Pricer)
    limit_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    expected: ContextWork = field(default_factory=ContextWork)
    _held: Decimal = Decimal(0)
    _factor: Decimal = Decimal(1)  # by which a call has cost more than was held for it
    _reply_tokens: int = 0
    _models: dict[int, LLM] = field(default_factory=dict)
    _settled: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        thinks = is_reasoning_model(self.about.model)
        self._reply_tokens = _THOUGHTFUL_REPLY_TOKENS if thinks else _REPLY_TOKENS

    # -- ingest -----------------------------------------------------------------------------------------------------

    def add(self, source: SourceText, nodes: Sequence[TextNode], chunker: SentenceChunker) -> list[str]:
        """Give the chunks of a document their sentences.

        Returns:
            Warnings: chunks for which the model wrote nothing.

        Raises:
            BudgetExceededError: The next call could exceed the limit; what is paid is kept.
            ModelError: The model refused a prompt, or failed in a way that concerns this document alone.
        """
        document = self._document(source)
        keys = [self._key(document, node) for node in nodes]
        found = {node.node_id: said for node, said in zip(nodes, map(self._known, keys), strict=True) if said}
        missing = [node for node in nodes if node.node_id not in found]
        if missing:
            found |= self._written(source, missing, dict(zip((n.node_id for n in nodes), keys, strict=True)))
        for node in nodes:
            chunker.add_sentence(node, found.get(node.node_id, ""))
        silent = sum(not found.get(node.node_id) for node in nodes)
        return (
            [f"{self.about.name} wrote no sentence for {silent} of {counted(len(nodes), 'chunk')}."]
            if silent
            else []
        )

    def _written(
        self, source: SourceText, missing: Sequence[TextNode], keys: dict[str, bytes]
    ) -> dict[str, str]:
        """Ask the model, a few chunks at a time; the first error ends it, and what was written is in the cache."""
        found: dict[str, str] = {}
        stop = threading.Event()

        def ask(stretch: Stretch, node: TextNode) -> None:
            if stop.is_set():
                return
            try:
                said = self._ask(prompt_of(stretch, node))
            except BaseException:
                stop.set()
                raise
            if said and self.cache is not None:
                self.cache.put(keys[node.node_id], {"sentence": said})
            found[node.node_id] = said

        with ThreadPoolExecutor(_CALLS, thread_name_prefix="chunk-context") as pool:
            try:
                for stretch in self._stretches(source, missing):
                    ask(stretch, stretch.nodes[0])
                    calls = [
                        pool.submit(contextvars.copy_context().run, ask, stretch, node)
                        for node in stretch.nodes[1:]
                    ]
                    for call in calls:
                        call.result()
            except BaseException:
                stop.set()
                raise
        return found

    def _ask(self, prompt: str) -> str:
        """Ask for a sentence; a reply that was used up by thoughts is asked for once more, with room for them."""
        most = self._reply_tokens
        said, complete = self._reply(prompt, most)
        if said or complete or self.limited is None or most == _THOUGHTFUL_REPLY_TOKENS:
            return said
        self._reply_tokens = _THOUGHTFUL_REPLY_TOKENS
        return self._reply(prompt, _THOUGHTFUL_REPLY_TOKENS)[0]

    def _reply(self, prompt: str, most: int) -> tuple[str, bool]:
        """The sentence of a reply of at most so many tokens, and whether the reply came to its own end."""
        held, factor = self._reserve(prompt, most)
        cost = Decimal(0)
        try:
            with attributed(tags=[_CONTEXT_TAG]):
                reply = self._model(most).complete(prompt)
            said = str(reply.text or "")
            cost = self._cost(prompt, said, reply)
        except PresetsError:
            raise
        except Exception as error:
            if blame(error) == "run":
                raise
            raise ModelError(
                f"{self.about.name} gave no context sentence ({type(error).__name__}: {str(error)[:200]})."
            ) from error
        finally:
            self._settle(held, factor, cost)
        return clean_sentence(said), not _is_cut_off(reply, most)

    def _model(self, most: int) -> LLM:
        """The model whose replies end there."""
        assert self.llm is not None
        if self.limited is None:
            return self.llm
        with self._settled:  # eight threads ask for the same one
            if most not in self._models:
                self._models[most] = self.limited(most)
            return self._models[most]

    def _reserve(self, prompt: str, most: int) -> tuple[Decimal, Decimal]:
        """Hold what a call can cost; gives that, and the factor in it.

        Where only calls under way leave no room, their end is waited for: they mostly cost less than is held.

        Raises:
            BudgetExceededError: It could exceed the limit.
        """
        if self.limit_usd is None:
            return Decimal(0), Decimal(1)
        read = most_tokens(self.about.provider, self.about.model, [prompt])
        price = self._price(Tokens(read, most if self.limited else 2 * SENTENCE_TOKENS))
        if price is None:
            raise self.unpriced(self.limit_usd)
        with self._settled:
            while self._held and self.spent_usd + self._held + price * self._factor > self.limit_usd:
                self._settled.wait()
            cost = price * self._factor
            if self.spent_usd + cost > self.limit_usd:
                error = BudgetExceededError(
                    f"The context sentences of this ingest have cost ${self.spent_usd:.6f}, and the next call could "
                    f"exceed the limit of ${self.limit_usd:f}. Sentences that are paid are kept: raise max_cost_usd or "
                    "context_max_usd, and ingest again."
                )
                error.limit_usd, error.spent_usd, error.estimate_usd = self.limit_usd, self.spent_usd, cost
                raise error
            self._held += cost
            return cost, self._factor

    def _settle(self, held: Decimal, factor: Decimal, cost: Decimal) -> None:
        """Book the cost in place of the reservation, in one step: another call reserves before or after it."""
        with self._settled:
            self._held -= held
            self.spent_usd += cost
            # Calls at the same time each show the same factor: the largest counts, not their product.
            if held:
                self._factor = max(self._factor, factor * cost / held)
            self._settled.notify_all()

    def _cost(self, prompt: str, said: str, reply: Any) -> Decimal:
        usage = reported_usage(reply)
        if usage is None:
            provider, model = self.about.provider, self.about.model
            tokens = Tokens(estimate_chat(provider, model, [prompt]), estimate_text(provider, model, [said]))
        else:
            tokens = usage.tokens()
        return self._price(tokens) or Decimal(0)

    # -- estimate ---------------------------------------------------------------------------------------------------

    def expect(
        self, source: SourceText, nodes: Iterable[TextNode], chunker: SentenceChunker
    ) -> Iterator[TextNode]:
        """Count what `add` would do; the chunks come back with a sentence, or words of its length."""
        asked: list[TextNode] = []
        document = self._document(source)
        for node in nodes:
            said = self._known(self._key(document, node))
            if said:
                self.expected.known += 1
            else:
                asked.append(TextNode(text=node.text, start_char_idx=node.start_char_idx))
            chunker.add_sentence(node, said or _PLACEHOLDER)
            yield node
        for stretch in self._stretches(source, asked):
            self._count(stretch)

    def _count(self, stretch: Stretch) -> None:
        provider, model = self.about.provider, self.about.model
        document = estimate_text(provider, model, [stretch.document])
        asked = [estimate_chat(provider, model, [question_of(node)]) for node in stretch.nodes]
        self.expected.calls += len(asked)
        self.expected.prompt_tokens += document * len(asked) + sum(asked)
        self.expected.answer_tokens += SENTENCE_TOKENS * len(asked)
        if provider in _CACHES_ITSELF and document >= _SHORTEST_CACHED:
            self.expected.cached_tokens += document * (len(asked) - 1)

    def price(self, work: ContextWork) -> Decimal | None:
        """Dollars of a work; None when the model's price is unknown."""
        return Decimal(0) if not work.calls else self._price(work.tokens(), work.calls)

    @property
    def price_key(self) -> str:
        """How a price book names the model."""
        return price_key(self.about.provider, self.about.model)

    def _price(self, tokens: Tokens, calls: int = 1) -> Decimal | None:
        return self.pricer.price(self.about.provider, self.about.model, tokens, calls=calls)[0]

    def unpriced(self, limit: Decimal) -> BudgetExceededError:
        """The refusal of a model that no ceiling can hold."""
        error = BudgetExceededError(
            f"The price of '{self.about.name}' is unknown, so its context sentences cannot be kept below ${limit:f}. "
            "Nothing was sent. Choose a model with a price, or set context_max_usd = inf and give no max_cost_usd."
        )
        error.limit_usd = limit
        return error

    # -- cache ------------------------------------------------------------------------------------------------------

    def _document(self, source: SourceText) -> str:
        """What a prompt says of a document: its name too, which a sentence repeats."""
        return text_digest(f"{_name(source)}\0{source.plain.text}")

    def _key(self, document: str, node: TextNode) -> bytes:
        parts = (document, text_digest(f"{node.start_char_idx}\0{node.text}"), self.about.name, version())
        return b"" if self.cache is None else self.cache.key(*parts)

    def _known(self, key: bytes) -> str:
        entry = None if self.cache is None else self.cache.get(key)
        return str((entry or {}).get("sentence", ""))

    def _stretches(self, source: SourceText, nodes: Sequence[TextNode]) -> Iterator[Stretch]:
        return stretches(_name(source), source.plain.text, nodes, self.about.window_tokens)


def _is_cut_off(reply: Any, most: int) -> bool:
    """Whether a reply ended at its limit."""
    answer = ChatResponse(
        message=ChatMessage(), raw=reply.raw, additional_kwargs=reply.additional_kwargs or {}
    )
    usage = reported_usage(reply)
    return finish_reason(answer) == "length" or (usage is not None and usage.completion >= most)


def _name(source: SourceText) -> str:
    return source.title or str(source.metadata.get("file_name") or "")
