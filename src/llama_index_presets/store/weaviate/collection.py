"""Weaviate collection: requests, error translation, and paging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from weaviate.classes.config import DataType, Property
from weaviate.classes.query import Filter, MetadataQuery
from weaviate.exceptions import (
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateDeleteManyError,
    WeaviateTimeoutError,
)

from llama_index_presets.concurrency.forks import UseGuard
from llama_index_presets.errors import StoreError
from llama_index_presets.store.weaviate.filters import WeaviateDialect
from llama_index_presets.store.weaviate.objects import NODE_PROPERTIES, object_id, schema, vector_of

__all__ = ["MOST_ROWS", "WeaviateCollection"]

Result = TypeVar("Result")

MOST_ROWS = 10_000
"""Most objects that one question gives, pages included (QUERY_MAXIMUM_RESULTS of the server)."""

PAGE = 500
PARALLEL_REQUESTS = 4
ROUNDS = 3
_REMEMBERS = "llama-index-presets fingerprint: "


class WeaviateCollection:
    """Requests about one collection, made when it is first written to.

    Args:
        client: A connected ``weaviate.WeaviateClient``.
        name: The collection.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name
        self._handle: Any = None
        self._guard = UseGuard("The client of Weaviate", StoreError)
        self._guard.check()
        self.properties: frozenset[str] = frozenset()
        self.fingerprint: str | None = None

    # ---- schema ------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Read the collection's existence, properties and fingerprint.

        Raises:
            StoreError: The collection was made by another program.
        """
        if not self.call(lambda: self._client.collections.exists(self.name)):
            self.properties, self.fingerprint = frozenset(), None
            return False
        handle = self._client.collections.use(self.name)
        config = self.call(lambda: handle.config.get(simple=True))
        self.properties = frozenset(one.name for one in config.properties)
        said = config.description or ""
        self.fingerprint = said.removeprefix(_REMEMBERS) if said.startswith(_REMEMBERS) else None
        missing = sorted({*NODE_PROPERTIES, "labels"} - self.properties)
        if missing:
            raise StoreError(
                f"Collection '{self.name}' has no property {', '.join(missing)}: it was made by another program, "
                "such as the official adapter. Use another index_name."
            )
        return True

    def make(self, fingerprint: str | None, numbers: frozenset[str]) -> None:
        """Create the collection and its number properties where they are missing, and store the fingerprint."""
        description = _REMEMBERS + fingerprint if fingerprint else ""
        if not self.properties and not self.look():
            self._make_collection(description)
            self.look()
        for name in sorted(numbers - self.properties):
            self._add_number(name)
        self.properties |= numbers
        if fingerprint and self.fingerprint != fingerprint:
            self.call(lambda: self._use().config.update(description=description))
            self.fingerprint = fingerprint

    def _make_collection(self, description: str) -> None:
        try:
            self.call(lambda: self._client.collections.create_from_dict(schema(self.name, description)))
        except StoreError:
            if not self.call(lambda: self._client.collections.exists(self.name)):
                raise  # else another process was faster

    def _add_number(self, name: str) -> None:
        made = Property(name=name, data_type=DataType.NUMBER, index_filterable=True, index_range_filters=True)
        try:
            self.call(lambda: self._use().config.add_property(made))
        except StoreError:
            self.look()
            if name not in self.properties:
                raise  # else another process was faster

    def drop(self) -> None:
        """Delete the collection with everything in it."""
        self.call(lambda: self._client.collections.delete(self.name))
        self.properties, self.fingerprint = frozenset(), None

    def dim(self) -> int | None:
        """Length of the stored vectors; None where there is no object."""
        found = self.call(lambda: self._use().query.fetch_objects(limit=1, include_vector=True)).objects
        return len(vector_of(found[0]) or []) or None if found else None

    # ---- objects -----------------------------------------------------------------------------------------

    def insert(self, objects: Sequence[Any], batch_size: int) -> None:
        """Write objects, replacing those of the same id, in parallel requests.

        Raises:
            StoreError: Objects were refused; the others are written.
        """

        def send(batch: Sequence[Any]) -> list[str]:
            done = self.call(lambda: self._use().data.insert_many(batch))
            return [error.message for error in done.errors.values()]

        batches = [objects[start : start + batch_size] for start in range(0, len(objects), batch_size)]
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            refused = [message for some in pool.map(send, batches) for message in some]
        if refused:
            raise StoreError(
                f"Weaviate refused {len(refused)} of {len(objects)} objects: {refused[0][:300]}. The others are "
                "written; calling again is safe."
            )

    def nearest(self, vector: Sequence[float], limit: int, condition: Any, *, vectors: bool) -> list[Any]:
        """Objects nearest to a vector, with their distance."""
        return self._answer(
            lambda: self._use().query.near_vector(
                near_vector=list(vector),
                limit=limit,
                filters=condition,
                include_vector=vectors,
                return_metadata=MetadataQuery(distance=True),
                return_properties=list(NODE_PROPERTIES),
            )
        )

    def matching(self, words: str, limit: int, condition: Any) -> list[Any]:
        """Objects whose text matches words by BM25, with their score."""
        return self._answer(
            lambda: self._use().query.bm25(
                query=words,
                query_properties=["text"],
                limit=limit,
                filters=condition,
                return_metadata=MetadataQuery(score=True),
                return_properties=list(NODE_PROPERTIES),
            )
        )

    def named(self, node_ids: Sequence[str], *, vectors: bool = True) -> Iterator[Any]:
        """Objects of these nodes."""
        ids = [object_id(one) for one in dict.fromkeys(node_ids)]
        for start in range(0, len(ids), PAGE):
            some = Filter.by_id().contains_any(ids[start : start + PAGE])
            yield from self._page(some, 0, vectors=vectors)

    def where(self, condition: Any) -> Iterator[Any]:
        """Objects that a filter selects, with vectors; at most `MOST_ROWS`."""
        for offset in range(0, MOST_ROWS, PAGE):
            found = self._page(condition, offset, vectors=True)
            yield from found
            if len(found) < PAGE:
                return

    def every(self, properties: Sequence[str] = NODE_PROPERTIES, *, vectors: bool = True) -> Iterator[Any]:
        """All objects, in order of their ids."""
        after: Any = None
        while True:
            found = self._answer(
                lambda after=after: self._use().query.fetch_objects(  # type: ignore[misc]
                    limit=PAGE, after=after, include_vector=vectors, return_properties=list(properties)
                )
            )
            yield from found
            if len(found) < PAGE:
                return
            after = found[-1].uuid

    def delete_where(self, condition: Any) -> None:
        """Delete the objects that a filter selects; the server takes 10,000 at a time."""
        while self.call(lambda: self._use().data.delete_many(where=condition)).successful:
            pass

    def delete_named(self, node_ids: Sequence[str]) -> None:
        """Delete the objects of these nodes; unknown ids are no error."""
        ids = [object_id(one) for one in dict.fromkeys(node_ids)]
        for start in range(0, len(ids), PAGE):
            self.delete_where(Filter.by_id().contains_any(ids[start : start + PAGE]))

    def dialect(self) -> WeaviateDialect:
        """Renders filters for this collection."""
        return WeaviateDialect(self.properties)

    # ---- sending -----------------------------------------------------------------------------------------

    def _use(self) -> Any:
        if self._handle is None:
            self._handle = self._client.collections.use(self.name)
        return self._handle

    def _page(self, condition: Any, offset: int, *, vectors: bool) -> list[Any]:
        return self._answer(
            lambda: self._use().query.fetch_objects(
                filters=condition,
                limit=PAGE,
                offset=offset,
                include_vector=vectors,
                return_properties=list(NODE_PROPERTIES),
            )
        )

    def _answer(self, ask: Callable[[], Any]) -> list[Any]:
        return list(self.call(ask).objects)

    def call(self, request: Callable[[], Result]) -> Result:
        """Send a request. The client tries searches and inserts again while the server is unavailable; deletes and
        the schema are tried again here. All requests are safe to repeat.

        Raises:
            StoreError: The service failed again and again, or refuses; or this process is a fork of the one that
                opened the client.
        """
        self._guard.check()
        rounds = Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_attempt(ROUNDS),
            wait=wait_exponential_jitter(initial=0.2, max=10.0),
            reraise=True,
        )
        try:
            return rounds(request)
        except WeaviateBaseError as error:
            said = str(error).split("\n")[0][:300]
            raise StoreError(f"Weaviate failed: {said}. Calling again is safe.") from error


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, UnexpectedStatusCodeError):
        return error.status_code in (408, 429, 500, 502, 503, 504)
    if isinstance(error, WeaviateDeleteManyError):
        return "[UNAVAILABLE]" in str(error)
    return isinstance(error, (WeaviateConnectionError, WeaviateTimeoutError))
