"""Ingest estimate of an engine: documents, chunks, tokens, dollars, minutes and disk, before anything is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import catalogue
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.ingest.previews.estimate import Work, count_work
from llama_index_presets.ingest.privacy.watch import as_sent
from llama_index_presets.ingest.progress import Progress, progress_bar
from llama_index_presets.ingest.sources.source import Source, read_again, sources
from llama_index_presets.monitor.calls.usage import count_embedding, provider_of
from llama_index_presets.monitor.prices import FREE_PROVIDER, Pricer, Tokens, free_here, price_key
from llama_index_presets.packages.command_process import is_brief
from llama_index_presets.presets.checks.offline import go_offline
from llama_index_presets.presets.contextual.contextualiser import Contextualiser
from llama_index_presets.presets.contextual.model import counting_contextualiser
from llama_index_presets.presets.estimates.answer import AnswerEstimate, estimate_answer
from llama_index_presets.presets.estimates.estimate import ContextEstimate, Estimate
from llama_index_presets.presets.estimates.reranking import local_scorer
from llama_index_presets.presets.index.encryption import choose_encryption
from llama_index_presets.presets.index.storage import Storage, check_metadata, resolve_storage
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.models import (
    make_chunker,
    make_embedding,
    make_fingerprint,
    reads_images,
    with_cache,
)
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.presets.settings import Settings
from llama_index_presets.text.languages import forget_model
from llama_index_presets.values import Fingerprint

__all__ = ["Estimator", "estimate_preset"]

_DISK: dict[str, tuple[float, float, int]] = {
    "lancedb": (2.0, 1.1, 1_430),
    "duckdb": (1.03, 0.5, 420),
    "pgvector": (1.3, 1.0, 490),
}
"""Bytes on disk a chunk: (x bytes of the float32 vector, x bytes of the text, and so many more); measured on 2,000
chunks of 200 to 2,000 characters at 384 and 1536 dimensions. LanceDB keeps the version before a compaction for a
while; an index for approximate search comes on top (docs/how-to/scale-out.md)."""

_REMOTE_CHUNK = 60  # bytes of a managed store's chunk on this machine: its share of the manifest
_RATE_LIMITS: dict[str, tuple[int, int]] = {"openai": (1_000_000, 3_000)}
"""Provider -> tokens and requests a minute, where the model does not say: the lowest paid tier of OpenAI."""
_REQUEST_TEXTS = 100
_MEASURED_TEXTS = 32
_MEASURED_SECONDS = 1.0
"""Time after which no more chunks are embedded to find the speed of a model, however few it were."""
_NOWHERE = "storage that is not there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """Counts and prices what an ingest would do.

    Attributes:
        embed_model: The model that would be used; asked only for token counts and, when it is local, for the vectors of
            a small sample.
        chunker: As the ingest cuts.
        store: Key of `matrix.STORES`.
        dim: Length of the vectors.
        known: What is in the index: see `Manifest.hashes`.
        caches: Whether the ingest will have an embedding cache although `embed_model` has none yet, since its storage
            is still to be made.
        contextualiser: Counts the context sentences, where a language model writes them.
        vectors: The store, for the vectors of documents that are read again; None counts without them.
        pricer: Knows the prices.
        answer: What one answer costs, where the preset is known.
        make_scorer: Makes what scores passages with a re-ranker on this machine, to be timed; see `local_scorer`.
    """

    embed_model: BaseEmbedding
    chunker: SentenceChunker
    store: str
    dim: int
    known: Mapping[str, str]
    caches: bool = False
    contextualiser: Contextualiser | None = None
    vectors: BasePydanticVectorStore | None = None
    pricer: Pricer = field(default_factory=Pricer)
    answer: AnswerEstimate | None = None
    make_scorer: Callable[[], Callable[[Sequence[str]], object] | None] | None = None

    def run(
        self,
        sources: Sequence[Source],
        progress: Progress,
        *,
        sample: int | None = None,
        measure: bool = True,
    ) -> Estimate:
        """Estimate.

        Args:
            sources: What should be in the index.
            progress: Told of each document.
            sample: Read only so many documents and extrapolate; None reads all, and counts exactly.
            measure: Whether a local model embeds a few chunks to find its speed.

        Raises:
            SettingsError: `sample` is less than 1, or cutting would send text already.
        """
        if sample is not None and sample < 1:
            raise SettingsError(f"sample is {sample}; it must be at least 1.")
        if self.chunker.name.startswith("semantic") and self.provider != FREE_PROVIDER:
            raise SettingsError(
                f"chunking is 'semantic': to cut, it sends every sentence to '{self.model}', so nothing can be "
                "counted before. Choose another chunking, or a local embedding."
            )
        work = count_work(
            sources,
            known=self.known,
            chunker=self.chunker,
            count_tokens=self.count_tokens,
            missing=getattr(self.embed_model, "missing", _all_places if self.caches else None),
            progress=progress,
            sample=sample,
            images=reads_images(self.embed_model),
            contextualiser=self.contextualiser,
            store=self.vectors,
        )
        if is_brief():  # it has read its texts, and the embedding model is still to come
            forget_model()
        minutes, minutes_from = self._minutes(work) if measure else (None, "not measured")
        cost, _ = self.pricer.price(self.provider, self.model, Tokens(work.tokens))
        unpriced = [price_key(self.provider, self.model)] if cost is None else []
        context = self._context(work)
        if context is not None and context.cost_usd is None and self.contextualiser is not None:
            unpriced.append(self.contextualiser.price_key)
        if context is not None:
            cost = None if cost is None or context.cost_usd is None else cost + context.cost_usd
        return Estimate(
            documents=work.documents,
            unchanged=work.unchanged,
            failed=tuple(work.failed),
            chunks=work.chunks,
            cached=work.chunks - work.embedded,
            repeated=work.repeated,
            tokens=work.tokens,
            repeated_tokens=work.repeated_tokens,
            margin=work.margin,
            cost_usd=cost,
            minutes=minutes,
            minutes_from=minutes_from,
            disk_bytes=self._disk_bytes(work),
            model=self.model,
            answer=self._timed_answer(work) if measure else self.answer,
            context=context,
            unpriced_models=tuple(dict.fromkeys(unpriced)),
        )

    def _context(self, work: Work) -> ContextEstimate | None:
        """What the context sentences cost; a sample is extrapolated."""
        if self.contextualiser is None:
            return None
        expected = self.contextualiser.expected.scaled(work.documents / work.read if work.read else 1.0)
        return ContextEstimate(
            model=self.contextualiser.about.name,
            calls=expected.calls,
            known=expected.known,
            prompt_tokens=expected.prompt_tokens,
            cached_tokens=expected.cached_tokens,
            answer_tokens=expected.answer_tokens,
            cost_usd=self.contextualiser.price(expected),
        )

    @property
    def _inner(self) -> BaseEmbedding:
        """The model behind a cache."""
        inner: BaseEmbedding = getattr(self.embed_model, "inner", self.embed_model)
        return inner

    @property
    def model(self) -> str:
        """Name of the model, without its organisation."""
        return self._inner.model_name.rsplit("/", 1)[-1]

    @property
    def provider(self) -> str:
        """Who serves it, as `genai-prices` spells it; ``"local"`` for this machine."""
        known = catalogue().get(self.model)
        address = str(getattr(self._inner, "api_base", None) or "")
        if known is None and free_here(self.pricer, self.model, address):
            return FREE_PROVIDER
        return known.provider if known else provider_of(type(self._inner).__name__, self.model)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as the model bills them."""
        if self.provider in ("openai", "azure"):  # what LlamaIndex sends has no line breaks
            texts = [text.replace("\n", " ") for text in texts]
        if self.provider == FREE_PROVIDER and self.chunker.counts_by_words:
            return [self.chunker.count(text) for text in texts]
        own = getattr(self._inner, "count_tokens", None)
        if own is not None:
            return list(own(list(texts)))
        return [count_embedding(self.provider, self.model, [text])[0] for text in texts]

    def _minutes(self, work: Work) -> tuple[float | None, str]:
        if not work.embedded:
            return 0.0, "nothing to embed"
        if self.provider == FREE_PROVIDER:
            return self._measured(work)
        limits = _RATE_LIMITS.get(self.provider)
        tokens = getattr(self._inner, "tokens_per_minute", None) or (limits and limits[0])
        requests = getattr(self._inner, "requests_per_minute", None) or (limits and limits[1])
        if not tokens or not requests:
            return None, f"nothing is known about the rate limits of '{self.provider or self.model}'"
        sent = -(-work.embedded // _REQUEST_TEXTS)
        minutes = max(work.tokens / tokens, sent / requests)
        return (
            minutes,
            f"a rate limit of {counted(tokens, 'token')} and {counted(requests, 'request')} a minute",
        )

    def _measured(self, work: Work) -> tuple[float, str]:
        """Embed a few of the texts: after one that loads the model, since loading is paid once."""
        measured, seconds = _seconds(self._inner.get_text_embedding_batch, _some(work.texts))
        total = seconds * (work.embedded - work.images) / max(measured, 1)
        if work.pictures:
            images = [picture.resolve_image() for picture in work.pictures]
            embed: Any = self._inner.get_image_embedding_batch  # type: ignore[attr-defined]
            pictures, of_images = _seconds(embed, images)
            total += of_images * work.images / pictures
            measured, seconds = measured + pictures, seconds + of_images
        return total / 60, f"{counted(measured, 'chunk')} embedded on this machine in {seconds:.2f} s"

    def _timed_answer(self, work: Work) -> AnswerEstimate | None:
        """What one answer costs, with the time of a re-ranker on this machine where there are passages to time it."""
        reranking = self.answer.reranking if self.answer is not None else None
        score = self.make_scorer() if reranking is not None and self.make_scorer and work.texts else None
        if self.answer is None or reranking is None or score is None:
            return self.answer
        scored, seconds = _seconds(score, _some(work.texts))
        timed = replace(reranking, ms=round(1000 * seconds * reranking.pairs / scored, 1))
        return replace(self.answer, reranking=timed)

    def _disk_bytes(self, work: Work) -> int:
        if self.store not in _DISK:
            return work.chunks * _REMOTE_CHUNK
        of_vector, of_text, row = _DISK[self.store]
        return round(work.chunks * (of_vector * 4 * self.dim + row) + of_text * work.text_bytes)


def estimate_preset(
    preset: str,
    data: Any,
    *,
    storage: str | Path | None = None,
    offline: bool = False,
    settings: Mapping[str, Any] | Settings | str | Path | None = None,
    sample: int | None = None,
    show_progress: bool | None = None,
    again: bool = False,
) -> Estimate:
    """Estimate an ingest, without keys, without opening the store, and without writing anything.

    Args:
        preset: A row of the matrix.
        data: A path or several, `Document`s, or nodes.
        storage: Where the index is or would be; documents that it has already cost nothing.
        offline: As for `build`.
        settings: As for `build`.
        sample: Read only so many documents, and extrapolate; None reads all and counts exactly.
        show_progress: Whether to draw a bar; None draws one where standard error is a terminal.
        again: As for `PresetEngine.ingest`. The store is not opened: chunks whose vectors it alone has, since the
            embedding cache was emptied, are counted as if they were new.

    Raises:
        SettingsError: A setting is wrong, or the embedding model's package is missing.
        StoreError: The storage belongs to another preset; FingerprintError when to another model.
        IngestError: Nothing to ingest.

    Example:
        >>> from llama_index.core import Document
        >>> estimate = estimate_preset("knowledge-base", [Document(text="Hello world.")])
        >>> estimate.tokens, str(estimate.cost_usd), estimate.minutes_from
        (3, '6.0000E-8', 'a rate limit of 1,000,000 tokens and 3,000 requests a minute')
    """
    values, _ = load_settings(settings, preset)
    row = find_preset(preset).with_settings(values)
    place = resolve_storage(storage, state=values.state) if storage is not None else None
    if offline:
        row = go_offline(row, place.folder if place else _NOWHERE, values, ()).row
    embed_model = _counting_embedding(row, values, local=offline or row.monitoring == "local")
    chunker = make_chunker(embed_model, values.chunk_tokens, values.chunking, values.chunk_context)
    fingerprint = make_fingerprint(embed_model, chunker)
    known: dict[str, str] = {}
    sealer: Encryptor | None = None
    if place is not None and place.metadata_file.exists():
        sealer = _checked_sealer(row, values, place, fingerprint)
        known = _known(place.manifest, sealer)
        embed_model = with_cache(
            embed_model,
            values.embedding_cache,
            place,
            queries=False,
            hash_key=sealer.hash_key if sealer else None,
        )
    found = sources(
        data, images=reads_images(embed_model), limit=SizeLimit(values.max_document_mb, values.ocr)
    )
    found = as_sent(read_again(found) if again else found, values.pii)
    pricer = Pricer(values.prices)
    contexts = place.contexts if place is not None and place.contexts.exists() else None
    with (
        counting_contextualiser(row, values, contexts, sealer, pricer) as contextualiser,
        progress_bar(show_progress, "Estimating") as progress,
    ):
        estimator = Estimator(
            embed_model=embed_model,
            chunker=chunker,
            store=row.store,
            dim=fingerprint.dim,
            known=known,
            caches=values.embedding_cache != "off",
            contextualiser=contextualiser,
            pricer=pricer,
            answer=estimate_answer(row, values, pricer),
            make_scorer=partial(local_scorer, values),
        )
        return estimator.run(found, progress, sample=sample)


def _counting_embedding(row: Preset, values: Settings, *, local: bool) -> BaseEmbedding:
    """The embedding model of a row, for its tokenizer: nothing is sent to it."""
    missing = row.parts()["embedding"].missing(f"embedding '{row.embedding}'")
    if missing:
        raise SettingsError(f"The preset '{row.name}' cannot count: {'; '.join(missing)}.")
    return make_embedding(
        row.embedding,
        local=local,
        sends=False,
        dimensions=values.dimensions,
        options=row.options.get("embedding"),
    )


def _checked_sealer(
    row: Preset, values: Settings, place: Storage, fingerprint: Fingerprint
) -> Encryptor | None:
    """What opens the texts of an index, once it is known to be of this preset and model."""
    encryption = choose_encryption(values, row.pattern, place)
    label = encryption.label if encryption else ""
    check_metadata(place, row.name, replace(fingerprint, encryption=label))
    return encryption.sealer if encryption else None


def _all_places(texts: Sequence[str]) -> list[int]:
    """What an empty cache is missing."""
    return list(range(len(texts)))


def _some(texts: Sequence[str]) -> Sequence[str]:
    """As many texts as are timed, spread over all."""
    return texts[:: -(-len(texts) // _MEASURED_TEXTS) or 1]


def _seconds(embed: Callable[[list[Any]], object], inputs: Sequence[Any]) -> tuple[int, float]:
    """How many inputs a model took, and how long, without the loading that the first call brings.

    As many at a time as there are cores: more would take tens of megabytes each. They are spread over what is there, so
    that those after which the time is up stand for the rest.
    """
    from llama_index_presets.inference.session import cpu_threads  # which brings numpy to every start

    if not inputs:
        return 0, 0.0
    together, done = cpu_threads(), 0
    places = sorted(range(len(inputs)), key=lambda place: (place % 4, place))
    embed([inputs[0]])
    started = time.perf_counter()
    while done < len(places) and time.perf_counter() - started < _MEASURED_SECONDS:
        embed([inputs[place] for place in places[done : done + together]])
        done = min(done + together, len(places))
    return done, time.perf_counter() - started


def _known(path: Path, sealer: Encryptor | None) -> dict[str, str]:
    if not path.exists():
        return {}
    manifest = Manifest(path, sealer=sealer)
    try:
        return manifest.hashes()
    finally:
        manifest.close()
