"""Batched OpenAI embedding: `OpenAIEmbedding` with full concurrent requests, counted and checked."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from enum import Enum
from typing import Any, ClassVar, Literal

import numpy as np
from llama_index.core.callbacks import CallbackManager
from llama_index.core.rate_limiter import SlidingWindowRateLimiter
from llama_index.core.utils import get_tqdm_iterable
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue
from llama_index_presets.embed.tokens import HostedTokenizer
from llama_index_presets.embed.vectors import missing_vectors, pooled, read_reply, unit_vectors
from llama_index_presets.errors import (
    ModelError,
    ModelReplyError,
    PartialEmbeddingError,
    PresetsError,
    SettingsError,
)
from llama_index_presets.events import EmbeddingUsageEvent
from llama_index_presets.hidden_keys import HidesKey
from llama_index_presets.packages.extras import require

require("llama_index.embeddings.openai", extra="openai")
from llama_index.embeddings.openai import OpenAIEmbedding, OpenAIEmbeddingModelType  # noqa: E402

__all__ = ["BatchedOpenAIEmbedding", "Outcome", "requests_of"]

# -- requests -------------------------------------------------------------------------------------------------


_REFUSED = frozenset({401, 403})


def requests_of(
    texts: Sequence[str], *, most_texts: int, most_tokens: int, count: Callable[[Sequence[str]], list[int]]
) -> list[list[int]]:
    """Fill requests with texts, in order.

    Args:
        texts: The texts.
        most_texts: Most texts of a request, >= 1.
        most_tokens: Most tokens of a request; a longer text gets one of its own.
        count: Counts tokens; asked only where the bytes of the texts do not rule an excess out.

    Returns:
        Positions of the texts of each request.

    Example:
        >>> requests_of(["a b", "c", "d"], most_texts=2, most_tokens=10, count=lambda texts: [2, 1, 1])
        [[0, 1], [2]]
    """
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]  # a token is at least a byte
    heaviest = (
        max((sum(sizes[start : start + most_texts]) for start in range(len(texts))), default=0)
        if (sum(sizes) > most_tokens)
        else 0
    )
    tokens = count(texts) if heaviest > most_tokens else sizes
    requests: list[list[int]] = []
    room = 0
    for place, size in enumerate(tokens):
        if not requests or len(requests[-1]) == most_texts or size > room:
            requests.append([])
            room = most_tokens
        requests[-1].append(place)
        room -= size
    return requests


class Outcome:
    """Results of the requests of one batch; not thread safe, filled by one thread.

    Args:
        texts: All texts of the batch.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = len(texts)
        self._vectors: dict[int, list[float]] = {}
        self._errors: list[BaseException] = []

    @property
    def hopeless(self) -> bool:
        """Whether the remaining requests will fail as well: the key or the budget was refused."""
        return any(
            isinstance(error, PresetsError)
            or getattr(error, "status_code", None) in _REFUSED
            or getattr(error, "code", None) == "insufficient_quota"
            for error in self._errors
        )

    def take(self, places: Sequence[int], result: list[list[float]] | BaseException) -> None:
        """Record the vectors of one request, or the error that ended it."""
        if isinstance(result, BaseException):
            self._errors.append(result)
        else:
            self._vectors.update(zip(places, result, strict=True))

    def vectors(self, without_secrets: Callable[[str], str]) -> list[list[float]]:
        """All vectors, in order.

        Raises:
            PartialEmbeddingError: Some requests failed; from the first error.
            PresetsError: That error itself, when no request succeeded and it is one of this package.
        """
        if not self._errors:
            return [self._vectors[place] for place in range(self._texts)]
        first = self._errors[0]
        if isinstance(first, PresetsError) and not self._vectors:
            raise first
        failed = [place for place in range(self._texts) if place not in self._vectors]
        reason = without_secrets(str(first).partition("\n")[0])[:300]
        raise PartialEmbeddingError(
            f"{len(failed):,} of {counted(self._texts, 'text', 'were')} not embedded: {type(first).__name__}: {reason} "
            "Run it again: with an embedding cache, only these are sent.",
            vectors=self._vectors,
            failed=failed,
        ) from first


dispatcher = get_dispatcher(__name__)
_STOCK = frozenset(kind.value for kind in OpenAIEmbeddingModelType)


@strict()
class BatchedOpenAIEmbedding(HidesKey, OpenAIEmbedding):
    """OpenAI's embeddings, or those of a server that speaks its protocol; a drop-in for `OpenAIEmbedding`.

    A batch goes out in requests of at most `embed_batch_size` texts and `tokens_per_request` tokens, several at a time,
    as fast as the limits of the account allow. Each request is a call of its own in traces and the ledger, with the
    tokens that the server billed. When one fails for good, the others are finished, and `PartialEmbeddingError` carries
    their vectors: behind a `CachedEmbedding` only the failed texts are paid for again.

    Vectors are float lists of shape ``(dim,)`` with unit length. As in the official class, line breaks are sent as
    spaces. The key is in no repr, dump or pickle. Thread safe; async methods are async all the way.

    Args:
        model: A model of OpenAI, of the catalogue, or of your server.
        embed_batch_size: Most texts of a request, 1 to 2048.
        dimensions: Shorter vectors, of models that can be shortened (text-embedding-3-*).
        max_retries: Attempts of a request, in one layer that honours ``Retry-After``; `monitor.retry.retrying` replaces
            it by one that makes every attempt a row of the ledger.
        tokens_per_request: Most tokens of a request; OpenAI takes 300,000.
        concurrency: Requests under way at once, 1 to 64.
        requests_per_minute: Limit of the account; None means none. Kept in every window of 60 s by this object.
        tokens_per_minute: Limit of the account, in tokens; None means none.
        long_text: What becomes of a text that is longer than the model reads: ``"refuse"`` raises; ``"pool"`` embeds
            its pieces and takes their mean, weighted by tokens, at unit length.
        options: Everything else that `OpenAIEmbedding` takes, such as `api_key`, `api_base`, `timeout`.

    Raises:
        SettingsError: At first use: no key. At once: dimensions that the model cannot give.
        ModelError: An empty text; a text longer than the model reads; an answer of the wrong shape.
        PartialEmbeddingError: Some of several requests failed after their retries.

    Example:
        >>> from llama_index_presets.embed.openai import BatchedOpenAIEmbedding
        >>> model = BatchedOpenAIEmbedding("text-embedding-3-large", dimensions=1024, api_key="sk-secret")
        >>> model.dim, model.count_tokens(["Hello world"]), "secret" in repr(model)
        (1024, [2], False)
    """

    serves_any_vendor: ClassVar[bool] = True
    """OpenAI's protocol is spoken by servers of others, too: `api_base` says whose price counts."""

    api_key: str = Field(default="", exclude=True, repr=False)
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    tokens_per_request: int = Field(default=300_000, gt=0)
    concurrency: int = Field(default=8, gt=0, le=64)
    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    long_text: Literal["refuse", "pool"] = "refuse"
    _process: int = PrivateAttr(default_factory=os.getpid)
    _pace: SlidingWindowRateLimiter | None = PrivateAttr(default=None)
    _known: EmbeddingModel | None = PrivateAttr(default=None)
    _loop: weakref.ref[asyncio.AbstractEventLoop] | None = PrivateAttr(default=None)

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        embed_batch_size: int = 100,
        dimensions: int | None = None,
        **options: Any,
    ) -> None:
        name = options.pop("model_name", None) or (model.value if isinstance(model, Enum) else model)
        known = catalogue().get(name)
        _check_dimensions(name, known, dimensions)
        if name not in _STOCK:
            options["model_name"] = name  # the official class checks `model` against its own list
        stock = name if name in _STOCK else "text-embedding-3-small"
        options.setdefault("api_base", known.api_base if known else None)
        super().__init__(model=stock, embed_batch_size=embed_batch_size, dimensions=dimensions, **options)
        self._known = known
        if self.requests_per_minute or self.tokens_per_minute:
            self._pace = SlidingWindowRateLimiter(
                requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "callback_manager" not in self.__dict__:  # LlamaIndex leaves out one that cannot be pickled
            self.callback_manager = CallbackManager([])

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation and the ledger."""
        return "BatchedOpenAIEmbedding"

    @property
    def dim(self) -> int | None:
        """Length of a vector; None for a model that the catalogue does not know."""
        return self.dimensions or (self._known.dim if self._known else None)

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that the model reads."""
        return self._known.max_tokens if self._known else 8_191

    @property
    def vector_identity(self) -> str:
        """Identity of the vectors: server, model, length, and the handling of long texts."""
        return (
            f"openai:{self.api_base}:{self.model_name}:{self.dim}:{self.additional_kwargs}:{self.long_text}"
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens of this model, found offline."""
        return self._tokenizer.count(texts)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text: the tokenizer to give to a splitter."""
        return self._tokenizer.tokenize(text)

    @property
    def _tokenizer(self) -> HostedTokenizer:
        return HostedTokenizer((self._known.encoding if self._known else None) or "cl100k_base")

    # -- batches --------------------------------------------------------------------------------------------------

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """Embed texts, in order; see the class for what a failed request does."""
        batches = self._requests(texts)
        self._refuse_unreadable(texts)
        one = super().get_text_embedding_batch
        if len(batches) < 2:
            return one(texts, show_progress=show_progress, **kwargs)
        outcome = Outcome(texts)
        with ThreadPoolExecutor(min(self.concurrency, len(batches)), "openai-embedding") as pool:
            # Each thread gets a copy of the context, so that spans, tags and the ledger's attribution reach it.
            futures = {
                pool.submit(copy_context().run, one, [texts[place] for place in batch]): batch
                for batch in batches
            }
            try:
                for future in _progress(as_completed(futures), len(batches), show_progress):
                    outcome.take(futures.pop(future), future.exception() or future.result())
                    if outcome.hopeless:
                        break
            finally:  # an interrupt, too, sends nothing more
                pool.shutdown(wait=True, cancel_futures=True)
        for future, batch in futures.items():  # under way when the rest became hopeless: paid for, so kept
            if not future.cancelled():
                outcome.take(batch, future.exception() or future.result())
        return outcome.vectors(self._without_key)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """Embed texts, in order; see the class for what a failed request does."""
        batches = await asyncio.to_thread(self._requests, texts)
        await asyncio.to_thread(self._refuse_unreadable, texts)
        one = super().aget_text_embedding_batch
        if len(batches) < 2:
            return await one(texts, show_progress=show_progress, **kwargs)
        outcome, slots = Outcome(texts), asyncio.Semaphore(self.concurrency)

        async def run(batch: list[int]) -> None:
            async with slots:
                if outcome.hopeless:
                    return
                try:
                    outcome.take(batch, await one([texts[place] for place in batch]))
                except Exception as error:
                    outcome.take(batch, error)

        await asyncio.gather(*[asyncio.create_task(run(batch)) for batch in batches])
        return outcome.vectors(self._without_key)

    def _requests(self, texts: Sequence[str]) -> list[list[int]]:
        most = min(self.tokens_per_request, self.tokens_per_minute or self.tokens_per_request)
        return requests_of(texts, most_texts=self.embed_batch_size, most_tokens=most, count=self.count_tokens)

    def _without_key(self, message: str) -> str:
        return message.replace(self.api_key, "(key)") if self.api_key else message

    # -- one request ----------------------------------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], self._query_engine)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], self._text_engine)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, self._text_engine)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query], self._query_engine))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text], self._text_engine))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts, self._text_engine)

    def _embed(self, texts: list[str], engine: str) -> list[list[float]]:
        pieces = self._pieces(texts)
        send = self._retried(self._send)
        return self._joined(pieces, [send(request, engine) for request in self._whole_requests(pieces)])

    async def _aembed(self, texts: list[str], engine: str) -> list[list[float]]:
        pieces = await asyncio.to_thread(self._pieces, texts)
        send = self._retried(self._asend)
        sent = [await send(request, engine) for request in self._whole_requests(pieces)]
        return self._joined(pieces, sent)

    def _retried(self, send: Any) -> Any:
        return self._create_retry_decorator()(send) if self.max_retries else send  # type: ignore[no-untyped-call]

    def _send(self, texts: list[str], engine: str) -> np.ndarray:
        client = self._get_client()
        if self._pace is not None:
            self._pace.acquire(self._paced_tokens(texts))
        raw = client.embeddings.with_raw_response.create(input=texts, model=engine, **self.additional_kwargs)
        return self._checked(read_reply(raw), texts)

    async def _asend(self, texts: list[str], engine: str) -> np.ndarray:
        client = self._get_aclient()
        if self._pace is not None:
            await self._pace.async_acquire(await asyncio.to_thread(self._paced_tokens, texts))
        ask = client.embeddings.with_raw_response.create
        raw = await ask(input=texts, model=engine, **self.additional_kwargs)
        return self._checked(read_reply(raw), texts)

    def _paced_tokens(self, texts: list[str]) -> int:
        return sum(self.count_tokens(texts)) if self.tokens_per_minute else 0

    def _checked(self, answer: Any, texts: list[str]) -> np.ndarray:
        """Report the billed tokens, then check the vectors."""
        usage = getattr(answer, "usage", None)
        # Some servers say only a total, and some say 0 of what they do not count.
        billed = getattr(usage, "prompt_tokens", None) or getattr(usage, "total_tokens", None) or None
        if not answer.data and billed is None:
            raise self._incomplete(answer, texts)
        event = EmbeddingUsageEvent(
            provider=self._known.provider if self._known else "openai" if self.model_name in _STOCK else "",
            model=self.model_name,
            texts=len(texts),
            prompt_tokens=billed if billed is not None else sum(self.count_tokens(texts)),
            usage_source="counted" if billed is None else "reported",
        )
        dispatcher.event(event)
        if len(answer.data or ()) != len(texts):
            raise self._incomplete(answer, texts)
        return unit_vectors(
            _in_order(answer.data, self.model_name), count=len(texts), dim=self.dim, model=self.model_name
        )

    def _incomplete(self, answer: Any, texts: Sequence[str]) -> ModelReplyError:
        return missing_vectors(
            answer, count=len(texts), model=self.model_name, url=str(self.api_base), clean=self._without_key
        )

    # -- texts ----------------------------------------------------------------------------------------------------

    def _refuse_unreadable(self, texts: Sequence[str]) -> None:
        """Refuse texts that cannot be sent, before any is sent and paid for."""
        if self.long_text == "refuse" or not all(text.strip() for text in texts):
            self._pieces(texts)

    def _pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Texts to send for each text: itself, or its pieces when it is too long."""
        found = []
        for text in texts:
            if not text.strip():
                raise ModelError("A text is empty; OpenAI refuses empty texts. Leave it out.")
            sent = text.replace("\n", " ")
            # A token is at least a byte, so most texts need no counting.
            tokens = 0 if len(sent.encode()) <= self.max_tokens else self.count_tokens([sent])[0]
            found.append([sent] if tokens <= self.max_tokens else self._cut(sent, tokens))
        return found

    def _cut(self, text: str, tokens: int) -> list[str]:
        if self.long_text == "refuse":
            raise ModelError(
                f"A text has {counted(tokens, 'token')}; '{self.model_name}' reads {self.max_tokens:,}. Split it, "
                f"or embed its "
                'pieces and take their mean with long_text="pool".'
            )
        return self._tokenizer.pieces(text, self.max_tokens)

    def _whole_requests(self, pieces: Sequence[Sequence[str]]) -> Iterator[list[str]]:
        """The requests of one batch: one, unless it holds a text of many pieces."""
        flat = [piece for text in pieces for piece in text]
        most = min(self.tokens_per_request, self.tokens_per_minute or self.tokens_per_request)
        for request in requests_of(flat, most_texts=2_048, most_tokens=most, count=self.count_tokens):
            yield [flat[place] for place in request]

    def _joined(self, pieces: Sequence[Sequence[str]], sent: Sequence[np.ndarray]) -> list[list[float]]:
        vectors = np.concatenate(sent)
        found, place = [], 0
        for text in pieces:
            own = vectors[place : place + len(text)]
            place += len(text)
            found.append((own[0] if len(text) == 1 else pooled(own, self.count_tokens(text))).tolist())
        return found

    # -- client ---------------------------------------------------------------------------------------------------

    def _get_aclient(self) -> Any:
        """A client for this event loop: connections of another loop, perhaps closed by now, cannot be used."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            self._aclient, self._loop = None, weakref.ref(loop)
        return super()._get_aclient()

    def _get_credential_kwargs(self, is_async: bool = False) -> dict[str, Any]:
        if not self.api_key:
            raise SettingsError(
                f"'{self.model_name}' needs a key and none is set. Set OPENAI_API_KEY, or give api_key=."
            )
        return {
            **super()._get_credential_kwargs(is_async),
            "max_retries": 0,
        }  # one layer retries, not the SDK too


def _in_order(data: Sequence[Any], model: str) -> list[Any]:
    """Vectors in the order of the texts: by their index, or as they come where a server sends none.

    Raises:
        ModelError: The numbers are not those of the texts, so that no vector can be matched with its text.
    """
    places = [getattr(item, "index", None) for item in data]
    vectors = [item.embedding for item in data]
    if len(set(places)) <= 1:  # none has a number, or all have the same
        return vectors
    if set(places) != set(range(len(data))):
        raise ModelError(
            f"The server of '{model}' numbers {counted(len(data), 'vector')} {places[:5]}. Expected 0 to "
            f"{len(data) - 1}, each "
            "once, or no numbers. Embed one text a request with embed_batch_size=1, or mend the server."
        )
    by_place = dict(zip(places, vectors, strict=True))
    return [by_place[place] for place in range(len(data))]


def _check_dimensions(name: str, known: EmbeddingModel | None, dimensions: int | None) -> None:
    if known is None or dimensions is None:
        return
    if not known.shortens:
        raise SettingsError(
            f"'{name}' has {known.dim} dimensions and cannot be shortened. Leave dimensions out."
        )
    if not 0 < dimensions <= known.dim:
        raise SettingsError(f"dimensions is {dimensions}; '{name}' gives 1 to {known.dim}.")


def _progress(done: Any, total: int, show: bool) -> Any:
    return get_tqdm_iterable(done, show, f"Generating embeddings ({counted(total, 'request')})")
