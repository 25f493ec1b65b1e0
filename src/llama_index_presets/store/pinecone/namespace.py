"""Pinecone namespace: requests with retries, and paging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pinecone.errors import ApiError, PineconeConnectionError, PineconeTimeoutError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from llama_index_presets.concurrency.forks import UseGuard
from llama_index_presets.errors import StoreError
from llama_index_presets.store.pinecone.filters import ONE_OF_AT_MOST
from llama_index_presets.store.pinecone.records import Record, batches

__all__ = ["FINGERPRINTS", "PineconeSpace", "request"]

Result = TypeVar("Result")

PARALLEL_REQUESTS = 4
ROUNDS = 3
FINGERPRINTS = "llama-index-presets"
"""Namespace that remembers what made the vectors of each namespace."""


class PineconeSpace:
    """Requests about one namespace.

    Args:
        index: An index of the SDK.
        name: The namespace; empty for the default one.
    """

    def __init__(self, index: Any, name: str) -> None:
        self.index = index
        self.name = name
        self._guard = UseGuard("The client of Pinecone", StoreError)
        self._guard.check()

    # ---- records -----------------------------------------------------------------------------------------

    def upsert(self, records: Sequence[Record], batch_size: int) -> None:
        """Write records in parallel requests; each happens whole or not at all."""

        def send(batch: list[Record]) -> None:
            self.call(lambda: self.index.upsert(vectors=batch, namespace=self.name))

        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(send, batches(records, batch_size)))

    def query(self, **asked: Any) -> Any:
        """Give the records nearest to a vector, with their metadata."""
        return self.call(
            lambda: self.index.query(namespace=self.name, include_metadata=True, **asked)
        ).matches

    def ids(self, prefix: str | None = None) -> Iterator[str]:
        """List the ids of the records, or of those whose id begins with a prefix."""
        token: str | None = None
        while True:
            page = self.call(
                lambda token=token: self.index.list_paginated(  # type: ignore[misc]
                    prefix=prefix, namespace=self.name, limit=100, pagination_token=token
                )
            )
            yield from (one.id for one in page.vectors)
            token = page.pagination.next if page.pagination else None
            if not token:
                return

    def named(self, node_ids: Sequence[str]) -> Iterator[Any]:
        """Records of these nodes."""
        return self._where_one_of("id", node_ids)

    def of_documents(self, ref_doc_ids: Sequence[str]) -> Iterator[Any]:
        """Records of the nodes of these documents."""
        return self._where_one_of("ref", ref_doc_ids)

    def _where_one_of(self, key: str, values: Sequence[str]) -> Iterator[Any]:
        unique = list(dict.fromkeys(values))
        for start in range(0, len(unique), ONE_OF_AT_MOST):
            yield from self.where({key: {"$in": unique[start : start + ONE_OF_AT_MOST]}})

    def where(self, condition: Any) -> Iterator[Any]:
        """Records that a filter object selects."""
        token: str | None = None
        while True:
            page = self.call(
                lambda token=token: self.index.fetch_by_metadata(  # type: ignore[misc]
                    filter=condition, namespace=self.name, limit=100, pagination_token=token
                )
            )
            yield from page.vectors.values()
            token = page.pagination.next if page.pagination else None
            if not token:
                return

    def delete_ids(self, ids: Sequence[str]) -> None:
        """Delete records by id; unknown ids are no error."""
        for start in range(0, len(ids), 1000):
            self.delete(ids=list(ids[start : start + 1000]))

    def delete(self, *, namespace: str | None = None, **what: Any) -> None:
        """Delete by ``filter`` or ``delete_all``; a namespace that does not exist is no error."""

        def once() -> None:
            try:
                self.index.delete(namespace=self.name if namespace is None else namespace, **what)
            except ApiError as error:
                if error.status_code != 404:
                    raise

        self.call(once)

    # ---- what the namespace remembers --------------------------------------------------------------------

    @property
    def _marker(self) -> str:
        return f"namespace:{self.name}"

    def fingerprint(self) -> str | None:
        """Fingerprint of this namespace's vectors; None where none is stored."""
        kept = self.call(lambda: self.index.fetch(ids=[self._marker], namespace=FINGERPRINTS)).vectors
        record = kept.get(self._marker)
        return (record.metadata or {}).get("fingerprint") if record else None

    def remember(self, fingerprint: str, dim: int) -> None:
        """Store the fingerprint of this namespace's vectors."""
        marker = {"id": self._marker, "values": [1.0] * dim, "metadata": {"fingerprint": fingerprint}}
        self.call(lambda: self.index.upsert(vectors=[marker], namespace=FINGERPRINTS))

    def forget(self) -> None:
        """The next `add` may use another model."""
        self.delete(ids=[self._marker], namespace=FINGERPRINTS)

    def stats(self) -> Any:
        """Dimension, metric and namespaces of the index."""
        return self.call(self.index.describe_index_stats)

    def is_empty(self) -> bool:
        """Whether the namespace has no record."""
        spaces = self.stats().namespaces or {}
        found = spaces.get(self.name) or spaces.get(self.name or "__default__")
        return not (found and found.vector_count)

    # ---- sending -----------------------------------------------------------------------------------------

    def call(self, work: Callable[[], Result]) -> Result:
        """See `request`.

        Raises:
            StoreError: As there; or this process is a fork of the one that opened the client.
        """
        self._guard.check()
        return request(work)


def request(work: Callable[[], Result]) -> Result:
    """Send a request. The SDK tries four times after a 429, a 5xx or a lost connection, as long apart as
    Retry-After says, and its index cannot be told otherwise; here such a round is repeated. All requests are
    safe to repeat.

    Raises:
        StoreError: The service failed again and again, or refuses.
    """
    rounds = Retrying(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(ROUNDS),
        wait=_backoff,
        reraise=True,
    )
    try:
        return rounds(work)
    except (ApiError, PineconeConnectionError, PineconeTimeoutError) as error:
        said = str(error).split("\n")[0][:300]
        raise StoreError(
            f"Pinecone failed, also when tried again where that helps: {said}. What one request sent happened "
            "whole or not at all; calling again is safe."
        ) from error


_backoff = wait_exponential_jitter(initial=0.2, max=10.0)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, (PineconeConnectionError, PineconeTimeoutError))
