"""Cached embedding: any LlamaIndex embedding behind a cache keyed by model, role and content."""

from __future__ import annotations

import asyncio
import base64
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index_instrumentation import get_dispatcher
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.embed.cache import EmbeddingCache, Role
from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.embed.recognition import vector_identity
from llama_index_presets.errors import PartialEmbeddingError, SettingsError
from llama_index_presets.events import EmbeddingUsageEvent

__all__ = ["CacheStats", "CachedEmbedding", "CachedMultiModalEmbedding"]

_SECRETS: Final = frozenset({"api_key", "token", "default_headers", "headers", "callback_manager"})
_OF_THE_INNER: Final = frozenset({"dim", "max_tokens", "max_length", "tokenize", "count_tokens"})
dispatcher = get_dispatcher(__name__)
_counting = threading.Lock()  # of all objects: an object with a lock of its own could not be sent to a worker


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Hit and miss counts of a `CachedEmbedding`.

    Attributes:
        hits: Texts that the cache answered, and repetitions inside a batch.
        misses: Texts that the model computed.

    Example:
        >>> CacheStats(hits=3, misses=1).hit_rate
        0.75
    """

    hits: int = 0
    misses: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of hits, in [0, 1]; 0 before the first text."""
        return self.hits / max(self.hits + self.misses, 1)


@strict()
class CachedEmbedding(BaseEmbedding):
    """Embedding with a cache: looks up every text before its model is asked, and stores what the model returned.

    A vector is found by model, role (query or passage) and text together, so another model, another precision or a
    question that reads like a passage never gets the wrong one. A text that occurs twice in a batch is computed once.
    Vectors are float32, equal on a miss and on a hit. Texts of a batch that a model could embed are kept even if the
    batch fails (`PartialEmbeddingError`), so that the next run does not pay for them again. Thread safe; async methods
    keep the event loop free.

    Hits are reported by one `EmbeddingUsageEvent` a batch, from which the ledger makes a row with `cache_hit` and no
    cost; misses are reported by the model itself.

    Args:
        inner: Any LlamaIndex embedding.
        cache: Where vectors are kept, or the folder of an `EmbeddingCache`; one may serve many models.
        identity: What makes the vectors, in your words; None finds it from the model (`vector_identity`). Change it
            when the model changes behind the same name.
        cache_queries: Whether questions are kept as well as passages.

    Raises:
        SettingsError: No `identity` is given and it cannot be found.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding
        >>> model = CachedEmbedding(MockEmbedding(embed_dim=2), EmbeddingCache(tempfile.mkdtemp()))
        >>> _ = model.get_text_embedding_batch(["a", "b", "a"])
        >>> model.stats
        CacheStats(hits=1, misses=2)
    """

    inner: BaseEmbedding = Field(exclude=True, repr=False)
    cache: Any = Field(exclude=True)
    identity: str = Field(repr=False)
    cache_queries: bool = True
    _stats: CacheStats = PrivateAttr(default_factory=CacheStats)

    def __init__(
        self,
        inner: BaseEmbedding,
        cache: EmbeddingCache | str | Path,
        *,
        identity: str | None = None,
        cache_queries: bool = True,
        **settings: Any,
    ) -> None:
        settings.setdefault("model_name", inner.model_name)
        settings.setdefault("callback_manager", inner.callback_manager)
        # How many texts are looked up, computed and kept together: what a kill may cost. The model batches as it does.
        settings.setdefault("embed_batch_size", 2048)
        # Kept from here on: a model may count or remember in its options, and a pickled copy must find the same.
        settings["identity"] = identity or vector_identity(inner)
        if isinstance(cache, str | Path):
            cache = EmbeddingCache(cache)
        settings |= {"inner": inner, "cache": cache, "cache_queries": cache_queries}
        super().__init__(**settings)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse what the cache refuses: LlamaIndex would leave the cache out without a word."""
        self.cache.__reduce__()
        state: dict[str, Any] = super().__getstate__()
        return state

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CachedEmbedding"

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Settings with those of the model, without its keys, and the folder of the cache.

        Raises:
            SettingsError: The cache has a hash key, which would be written in clear.
        """
        self.cache.__reduce__()
        inner = {name: value for name, value in self.inner.to_dict().items() if name not in _SECRETS}
        cache = {"folder": str(self.cache.folder), "max_bytes": self.cache.max_bytes}
        return {**super().to_dict(**kwargs), "inner": inner, "cache": cache}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Make the embedding that `to_dict` describes; keys come from the environment, as LlamaIndex has it.

        Raises:
            SettingsError: The class of the model is not imported: import it, or pass ``inner=``.
        """
        settings = {**data, **kwargs}
        if isinstance(settings["inner"], Mapping):
            settings["inner"] = _model_class(settings["inner"]["class_name"]).from_dict(
                dict(settings["inner"])
            )
        if isinstance(settings["cache"], Mapping):
            settings["cache"] = EmbeddingCache(**settings["cache"])
        return super().from_dict(settings)

    def __getattr__(self, name: str) -> Any:
        """Give what splitters and engines ask of a model: its tokenizer and limits, where it has them."""
        if name in _OF_THE_INNER:
            return getattr(self.inner, name)
        return super().__getattr__(name)  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":
            # LlamaIndex sets it on the outermost model; calls happen in the inner one
            self.inner.callback_manager = value

    @property
    def stats(self) -> CacheStats:
        """Hits and misses so far, of this object."""
        return self._stats

    def missing(self, texts: Sequence[str]) -> list[int]:
        """Positions of passages that would have to be computed, repetitions left out.

        Example:
            >>> import tempfile
            >>> from llama_index.core import MockEmbedding
            >>> model = CachedEmbedding(MockEmbedding(embed_dim=2), EmbeddingCache(tempfile.mkdtemp()))
            >>> _ = model.get_text_embedding("known")
            >>> model.missing(["new", "known", "new"])
            [0]
        """
        keys = self.cache.keys(self.identity, "passage", texts)
        known = self.cache.contains_many(list(dict.fromkeys(keys)))
        return [place for key, place in _first_places(keys).items() if key not in known]

    # -- passages -------------------------------------------------------------------------------------------------

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed one passage."""
        return self._through([text], "passage", lambda texts: [self.inner.get_text_embedding(texts[0])])[0]

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed passages; those that are new go to the model's own batch method."""

        def compute(new: list[str]) -> list[Embedding]:
            return self.inner.get_text_embedding_batch(new, show_progress=show_progress, **kwargs)

        found: list[Embedding] = []
        for start in range(0, len(texts), self.embed_batch_size):
            found += self._through(texts[start : start + self.embed_batch_size], "passage", compute, start)
        return found

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed one passage."""

        async def compute(texts: list[str]) -> list[Embedding]:
            return [await self.inner.aget_text_embedding(texts[0])]

        return (await self._athrough([text], "passage", compute))[0]

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed passages; those that are new go to the model's own batch method."""

        async def compute(new: list[str]) -> list[Embedding]:
            return await self.inner.aget_text_embedding_batch(new, show_progress=show_progress, **kwargs)

        found: list[Embedding] = []
        for start in range(0, len(texts), self.embed_batch_size):
            found += await self._athrough(
                texts[start : start + self.embed_batch_size], "passage", compute, start
            )
        return found

    # -- questions ------------------------------------------------------------------------------------------------

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a question."""
        if not self.cache_queries:
            return self.inner.get_query_embedding(query)
        return self._through([query], "query", lambda texts: [self.inner.get_query_embedding(texts[0])])[0]

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a question."""
        if not self.cache_queries:
            return await self.inner.aget_query_embedding(query)

        async def compute(texts: list[str]) -> list[Embedding]:
            return [await self.inner.aget_query_embedding(texts[0])]

        return (await self._athrough([query], "query", compute))[0]

    # -- what the base class asks of a model -----------------------------------------------------------------------

    def _get_query_embedding(self, query: str) -> Embedding:
        return self.get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self.get_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.get_text_embedding_batch(texts)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self.aget_query_embedding(query)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self.aget_text_embedding(text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self.aget_text_embedding_batch(texts)

    # -- through the cache ----------------------------------------------------------------------------------------

    def _through(
        self,
        texts: Sequence[Any],
        role: Role,
        compute: Callable[[list[Any]], list[Embedding]],
        offset: int = 0,
    ) -> list[Embedding]:
        lookup = self._look_up(texts, role)
        if lookup.places:
            try:
                self._keep(lookup, dict(enumerate(compute(lookup.new(texts)))))
            except PartialEmbeddingError as error:
                self._keep(lookup, error.vectors)
                raise lookup.partial(error, offset) from error
        self._report(lookup)
        return lookup.vectors()

    async def _athrough(
        self, texts: Sequence[str], role: Role, compute: Callable[[list[str]], Any], offset: int = 0
    ) -> list[Embedding]:
        lookup = await asyncio.to_thread(self._look_up, texts, role)
        if lookup.places:
            try:
                computed = dict(enumerate(await compute(lookup.new(texts))))
                await asyncio.to_thread(self._keep, lookup, computed)
            except PartialEmbeddingError as error:
                await asyncio.to_thread(self._keep, lookup, error.vectors)
                raise lookup.partial(error, offset) from error
        self._report(lookup)
        return lookup.vectors()

    def _look_up(self, texts: Sequence[Any], role: Role) -> _Lookup:
        keys = self.cache.keys(self.identity, role, texts)
        places = _first_places(keys)
        found = self.cache.get_many(list(places))
        return _Lookup(keys, found, [place for key, place in places.items() if key not in found])

    def _keep(self, lookup: _Lookup, computed: Mapping[int, Embedding]) -> None:
        new = {
            lookup.keys[lookup.places[n]]: np.asarray(vector, dtype=np.float32)
            for n, vector in computed.items()
        }
        self.cache.put_many(new)
        lookup.found.update(new)

    def _report(self, lookup: _Lookup) -> None:
        misses = len(lookup.places)
        hits = len(lookup.keys) - misses
        with _counting:
            self._stats = CacheStats(hits=self._stats.hits + hits, misses=self._stats.misses + misses)
        if hits:
            known = catalogue().get(self.model_name.rsplit("/", 1)[-1])
            event = EmbeddingUsageEvent(
                provider=known.provider if known else "",
                model=self.model_name,
                texts=hits,
                cached_texts=hits,
                prompt_tokens=0,
                usage_source="counted",
            )
            dispatcher.event(event)


def _model_class(name: str) -> type[BaseEmbedding]:
    """The imported embedding class of this LlamaIndex name; nothing is imported because a dict says so."""
    waiting: list[type[BaseEmbedding]] = BaseEmbedding.__subclasses__()
    while waiting:
        kind = waiting.pop(0)
        if not inspect.isabstract(kind) and kind.class_name() == name:
            return kind
        waiting += kind.__subclasses__()
    raise SettingsError(
        f"The embedding class '{name}' is not imported here. Import it first, or make it and pass it: "
        "CachedEmbedding.from_dict(data, inner=model)."
    )


@dataclass(slots=True)
class _Lookup:
    """One batch: the key of each text, the vectors by key, and the places of texts that must be computed."""

    keys: list[bytes]
    found: dict[bytes, np.ndarray]
    places: list[int]

    def new(self, texts: Sequence[Any]) -> list[Any]:
        return [texts[place] for place in self.places]

    def vectors(self) -> list[Embedding]:
        return [self.found[key].tolist() for key in self.keys]

    def partial(self, error: PartialEmbeddingError, offset: int) -> PartialEmbeddingError:
        """Translate a failure to positions in the caller's batch."""
        there = {
            offset + place: self.found[key].tolist()
            for place, key in enumerate(self.keys)
            if key in self.found
        }
        failed = [offset + place for place, key in enumerate(self.keys) if key not in self.found]
        return PartialEmbeddingError(str(error), vectors=there, failed=failed)


def _first_places(keys: Sequence[bytes]) -> dict[bytes, int]:
    places: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, place)
    return places


@strict()
class CachedMultiModalEmbedding(CachedEmbedding, MultiModalEmbedding):
    """`CachedEmbedding` for a `MultiModalEmbedding`, such as `ClipEmbedding`: images are looked up, too.

    An image is found by the bytes of its file, so a renamed or copied file is not computed again. One without bytes of
    a file, such as a PIL image that a program drew, goes to the model. Arguments and errors are those of
    `CachedEmbedding`.

    Example:
        >>> import tempfile
        >>> from llama_index_presets.embed.cache import EmbeddingCache
        >>> from llama_index_presets.embed.clip.embedding import ClipEmbedding
        >>> model = CachedMultiModalEmbedding(ClipEmbedding("clip-ViT-B-32"), EmbeddingCache(tempfile.mkdtemp()))
        >>> model.missing_images([b"the bytes of a picture", b"the bytes of a picture"])
        [0]
    """

    def __init__(self, inner: BaseEmbedding, cache: EmbeddingCache, **settings: Any) -> None:
        super().__init__(inner, cache, **settings)

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "CachedMultiModalEmbedding"

    def missing_images(self, images: Sequence[Any]) -> list[int]:
        """Positions of images that would have to be computed, repetitions left out."""
        contents = [bytes_of(image) for image in images]
        places = [place for place, content in enumerate(contents) if content is not None]
        keys = self.cache.keys(self.identity, "image", [contents[place] or b"" for place in places])
        known = self.cache.contains_many(list(dict.fromkeys(keys)))
        new = {
            key: place
            for key, place in zip(reversed(keys), reversed(places), strict=True)
            if key not in known
        }
        drawn = [place for place, content in enumerate(contents) if content is None]
        return sorted([*new.values(), *drawn])

    def get_image_embedding(self, img_file_path: Any) -> Embedding:
        """Embed one image, of any kind that the model takes."""
        return self.get_image_embedding_batch([img_file_path])[0]

    def get_image_embedding_batch(
        self, img_file_paths: list[Any], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed images; those that are new go to the model's own batch method."""
        inner: Any = self.inner
        contents = [bytes_of(image) for image in img_file_paths]
        drawn = [image for image, content in zip(img_file_paths, contents, strict=True) if content is None]
        of_drawn = iter(inner.get_image_embedding_batch(drawn, show_progress) if drawn else [])

        # The model is given what the caller gave, whose path its errors name.
        of = {
            content: image
            for content, image in zip(contents, img_file_paths, strict=True)
            if content is not None
        }

        def compute(new: list[bytes]) -> list[Embedding]:
            found: list[Embedding] = inner.get_image_embedding_batch(
                [of[content] for content in new], show_progress
            )
            return found

        files = [content for content in contents if content is not None]
        of_files = iter(self._through(files, "image", compute) if files else [])
        return [next(of_drawn if content is None else of_files) for content in contents]

    async def aget_image_embedding(self, img_file_path: Any) -> Embedding:
        """`get_image_embedding`, without blocking the event loop."""
        return await asyncio.to_thread(self.get_image_embedding, img_file_path)

    async def aget_image_embedding_batch(
        self, img_file_paths: list[Any], show_progress: bool = False
    ) -> list[Embedding]:
        """`get_image_embedding_batch`, without blocking the event loop."""
        return await asyncio.to_thread(self.get_image_embedding_batch, img_file_paths, show_progress)

    def _get_image_embedding(self, img_file_path: Any) -> Embedding:
        return self.get_image_embedding(img_file_path)

    async def _aget_image_embedding(self, img_file_path: Any) -> Embedding:
        return await self.aget_image_embedding(img_file_path)


def bytes_of(image: Any) -> bytes | None:
    """The bytes of an image's file; None where it has none, or none that can be read: the model says what is wrong."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, BytesIO):
        return image.getvalue()
    if encoded := getattr(image, "image", None):
        return _decoded(encoded)
    path = image if isinstance(image, str | Path) else getattr(image, "image_path", None)
    try:
        return Path(path).read_bytes() if path else None
    except (OSError, ValueError):
        return None


def _decoded(encoded: Any) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        return None
