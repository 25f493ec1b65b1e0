"""Ingestion into an assembled engine, and its estimate."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, Literal

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from llama_index_presets.counting import counted
from llama_index_presets.errors import BudgetExceededError, SettingsError, StoreError, StoreLockedError
from llama_index_presets.events import RunEndEvent, RunStartEvent
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.ingest.metadata.ownership import Ownership
from llama_index_presets.ingest.pipeline import IngestReport, Pipeline
from llama_index_presets.ingest.privacy.watch import PrivacyWatch, as_sent
from llama_index_presets.ingest.progress import progress_bar
from llama_index_presets.ingest.sources.document_source import DocumentSource
from llama_index_presets.ingest.sources.file_system_source import is_url, source_name, stays_here
from llama_index_presets.ingest.sources.files import root_path
from llama_index_presets.ingest.sources.frames import NO_COLUMNS, FrameColumns
from llama_index_presets.ingest.sources.source import Source, read_again, sources
from llama_index_presets.monitor.attribution import attribution
from llama_index_presets.presets.contextual.contextualiser import Contextualiser, ContextWork
from llama_index_presets.presets.contextual.model import (
    ceiling,
    counting_contextualiser,
    writing_contextualiser,
)
from llama_index_presets.presets.engine_parts import EngineParts, cost_of
from llama_index_presets.presets.estimates.estimate import Estimate, refuse_beyond
from llama_index_presets.presets.estimates.ingestion import Estimator
from llama_index_presets.presets.index.compaction import CompactReport, compact_parts
from llama_index_presets.presets.index.permissions import (
    finish_permissions,
    permissions_of_run,
    refuse_unseen,
    replace_set_permissions,
    seen_only,
)
from llama_index_presets.presets.index.storage import open_storage
from llama_index_presets.presets.ingestion.ray import RayLoad
from llama_index_presets.presets.ingestion.ray_workers import check_ray, ray_worker
from llama_index_presets.presets.models import reads_images

__all__ = ["IngestOptions", "compact", "estimate", "finish_removals", "ingest", "remove"]

dispatcher = get_dispatcher(__name__)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What `PresetEngine.ingest` takes beside the data; see there."""

    columns: FrameColumns = NO_COLUMNS
    sync: bool = False
    show_progress: bool | None = None
    max_cost_usd: float | Decimal | None = None
    wait: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    folder_key: str | None = None
    workers: Literal["ray"] | None = None
    ray_address: str | None = None
    compact: bool = False
    again: bool = False


def ingest(parts: EngineParts, data: Any, options: IngestOptions) -> IngestReport:
    """See `PresetEngine.ingest`: billed, and announced to listeners from its begin to its end."""
    run_id = uuid.uuid4().hex
    with parts.billed(run_id):
        dispatcher.event(RunStartEvent(run_id=run_id, kind="ingest"))
        try:
            report = _ingest(parts, data, options)
        except BaseException as error:
            dispatcher.event(RunEndEvent(run_id=run_id, error=type(error).__name__))
            raise
        cost_usd = cost_of(parts.ledger, run_id)
        dispatcher.event(RunEndEvent(run_id=run_id, cost_usd=cost_usd, counts=_counts(report)))
    report.cost_usd = None if cost_usd is None else float(cost_usd)
    report.unpriced_models = parts.ledger.unpriced_models_of(run_id)
    return report


def _counts(report: IngestReport) -> dict[str, int]:
    return {
        "documents": report.documents,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": len(report.failed),
        "chunks": report.chunks,
        "tokens": report.tokens,
    }


def _ingest(parts: EngineParts, data: Any, options: IngestOptions) -> IngestReport:
    if options.workers not in (None, "ray"):
        raise SettingsError(f"workers is {options.workers!r}; it is None, for this process, or 'ray'.")
    if options.workers == "ray":
        check_ray(parts, data, options.ray_address)
    vanished = _vanished(data) if options.sync else None
    judged = permissions_of_run(parts)
    found, watch = _sources(parts, data, options)
    with (
        ingest_lock(parts.storage.lock, wait=options.wait),
        writing_contextualiser(parts) as contextualiser,
    ):
        # there is something to ingest
        open_storage(parts.storage, parts.preset.name, parts.fingerprint, permissions=parts.permissions.on())
        finish_permissions(parts)
        ownership = _ownership(parts, data, options)
        if parts.permissions.on():
            if ownership.overrides.permissions != judged:  # changed since the documents were listed
                found, watch = _sources(parts, data, options)
            replace_set_permissions(parts, found, ownership)
        estimator = _estimator(parts, contextualiser)
        found = refuse_unseen(parts, ownership.over(found, estimator.known))
        expected = _allowed(parts, estimator, found, options)
        _repair_keyword(parts)
        pipeline = _pipeline(parts, estimator)
        with progress_bar(options.show_progress) as progress:
            load = _ray_load(parts, data, watch, options) if options.workers == "ray" else None
            report = pipeline.run(
                found, progress, sync=seen_only(parts, ownership.within(vanished)), load=load
            )
        if watch is not None:
            report.personal_data = watch.found
            report.removed += pipeline.remove(watch.refused)
        report.kept = _kept(parts, report, ownership)
        if parts.retrieval.second is not None:
            parts.retrieval.second.refresh()
        if options.compact:
            compact(parts)
        parts.storage.protect()
    _warn_in_clear(parts, report)
    if expected is not None:
        report.estimated_tokens = expected.tokens
        report.estimated_cost_usd = None if expected.cost_usd is None else float(expected.cost_usd)
    return report


def _kept(parts: EngineParts, report: IngestReport, ownership: Ownership) -> list[str]:
    """Documents that could not be read, and that the engine goes on to answer from."""
    failed = {one.source for one in report.failed}
    if not failed:
        return []
    stored = (
        doc_id
        for doc_id in parts.manifest.hashes()
        if doc_id in failed or any(parent.as_posix() in failed for parent in PurePath(doc_id).parents)
    )
    return sorted(filter(seen_only(parts, ownership.within(lambda _: True)), stored))


def _ownership(parts: EngineParts, data: Any, options: IngestOptions) -> Ownership:
    return Ownership(
        owners=parts.manifest.owners(),
        store=parts.vector_store,
        overrides=_overrides(parts, data, options),
        tenant=parts.ingest_metadata,
        complete=_knows_all(parts),
    )


def _knows_all(parts: EngineParts) -> bool:
    """Whether the manifest accounts for every node of the store, as far as the store can count them.

    Listing the ids of a server only to count them is worth it for a tenant, not for the shared engine.
    """
    count = getattr(parts.vector_store, "node_count", None)
    if count is None and not parts.ingest_metadata:
        return True
    if count is None and (node_ids := getattr(parts.vector_store, "node_ids", None)) is not None:
        count = lambda: len(node_ids())  # noqa: E731
    return count is not None and count() == parts.manifest.totals()[1]


def _repair_keyword(parts: EngineParts) -> None:
    """Repair the keyword index where another process was killed since this engine was built."""
    keyword: Any = parts.retrieval.keyword
    if keyword is not None and keyword.unfinished:
        from llama_index_presets.retrieve.bm25.consistency import check_consistency

        check_consistency(parts.vector_store, keyword, documents=keyword.unfinished, repair=True)


def compact(parts: EngineParts) -> CompactReport:
    """Compact the storage of an engine, under its ingest lock; see `PresetEngine.compact`."""
    return compact_parts(parts.storage, store=parts.vector_store, keyword=parts.retrieval.keyword)


def _ray_load(parts: EngineParts, data: Any, watch: PrivacyWatch | None, options: IngestOptions) -> RayLoad:
    who, estimator = attribution(), _estimator(parts)

    def used(chunks: int, tokens: int, seconds: float) -> None:
        if chunks:
            parts.ledger.record(
                kind="embedding", provider=estimator.provider, model=estimator.model, prompt_tokens=tokens,
                latency_ms=seconds * 1000, preset=who.preset, query_id=who.query_id, session=who.session,
                tenant=who.tenant, tags=(*who.tags, "ray"), usage_source="counted",
            )  # fmt: skip

    return RayLoad(
        opener=ray_worker(parts, _overrides(parts, data, options)),
        manifest=parts.manifest,
        watch=watch,
        used=used,
        address=options.ray_address,
    )


def estimate(
    parts: EngineParts, data: Any, options: IngestOptions, *, sample: int | None, measure: bool = True
) -> Estimate:
    """See `PresetEngine.estimate`."""
    found = as_sent(_found(parts, data, options), parts.settings.pii)
    with _counting(parts) as contextualiser:
        return _estimate(_estimator(parts, contextualiser), found, options, sample=sample, measure=measure)


def _counting(parts: EngineParts) -> AbstractContextManager[Contextualiser | None]:
    """The contextualiser of an estimate: a model that is named apart needs no key, since nothing is sent to it."""
    if parts.settings.context_llm is None:
        return writing_contextualiser(parts)
    sealer = parts.encryption.sealer if parts.encryption else None
    return counting_contextualiser(
        parts.preset, parts.settings, parts.storage.contexts, sealer, parts.ledger.pricer
    )


def _sources(
    parts: EngineParts, data: Any, options: IngestOptions
) -> tuple[list[Source], PrivacyWatch | None]:
    """Sources of the ingest, watched for personal data where the settings say so."""
    found = _found(parts, data, options)
    mode = parts.settings.pii
    if mode == "off":
        return found, None
    watch = PrivacyWatch(mode)
    return watch.over(found), watch


def _warn_in_clear(parts: EngineParts, report: IngestReport) -> None:
    """Warn of personal data in a storage that is not encrypted, as with `auto` and no key."""
    if parts.encryption is not None or not report.documents:
        return
    if report.personal_data and parts.settings.pii == "report":
        _warn_once(
            parts,
            f"{counted(len(report.personal_data), 'document')} with personal data went into a storage that is not "
            f"encrypted. "
            f'See encryption and pii in "llama-presets show {parts.preset.name}".',
        )
    elif parts.settings.encryption == "auto":
        _warn_once(
            None,
            "The storage is not encrypted: encryption is 'auto' and no key was found. Set LLAMA_PRESETS_ENCRYPTION_KEY "
            "and ingest into a new storage, or say encryption = 'off'.",
        )


_warned: set[tuple[str, str]] = set()


def _warn_once(parts: EngineParts | None, message: str) -> None:
    """Log a warning once a process and storage; without parts once a process, however many indexes it makes."""
    place = parts.storage.shown if parts is not None else ""
    if (place, message) not in _warned:
        _warned.add((place, message))
        _log.warning(message)


def _allowed(
    parts: EngineParts, estimator: Estimator, found: list[Source], options: IngestOptions
) -> Estimate | None:
    """Count exactly and refuse what would cost too much; without a limit there is nothing to count."""
    contextualiser = estimator.contextualiser
    of_sentences = None if contextualiser is None else ceiling(parts.settings)
    if options.max_cost_usd is None and of_sentences is None:
        return None
    expected = _estimate(estimator, found, options, sample=None, measure=False)
    if options.max_cost_usd is not None:
        refuse_beyond(expected, options.max_cost_usd)
    if contextualiser is not None:
        contextualiser.expected = ContextWork()
        contextualiser.limit_usd = _limit_of_sentences(expected, contextualiser, of_sentences, options)
    return expected


def _limit_of_sentences(
    expected: Estimate, contextualiser: Contextualiser, own: Decimal | None, options: IngestOptions
) -> Decimal:
    """What the sentences may cost while they are written: their own ceiling, and what embedding leaves of the run's.

    Raises:
        BudgetExceededError: They would cost more than their own ceiling, or the model has no known price.
    """
    context = expected.context
    assert context is not None
    limits = [] if own is None else [own]
    if own is not None:
        if context.cost_usd is None:
            raise contextualiser.unpriced(own)
        if context.cost_usd > own:
            error = BudgetExceededError(
                f"{counted(context.calls, 'context sentence')} of '{context.model}' cost ${context.cost_usd:.6f}, "
                f"more than context_max_usd, ${own:f}. Nothing was sent. Raise it, ingest fewer documents, or set "
                "chunk_context to 'title'."
            )
            error.limit_usd, error.estimate_usd = own, context.cost_usd
            raise error
    if options.max_cost_usd is not None:
        embedding = (expected.cost_usd or Decimal(0)) - (context.cost_usd or Decimal(0))
        limits.append(Decimal(str(options.max_cost_usd)) - embedding)
    return min(limits)


def _estimate(
    estimator: Estimator, found: list[Source], options: IngestOptions, *, sample: int | None, measure: bool
) -> Estimate:
    with progress_bar(options.show_progress, "Estimating") as progress:
        return estimator.run(found, progress, sample=sample, measure=measure)


def _estimator(parts: EngineParts, contextualiser: Contextualiser | None = None) -> Estimator:
    return Estimator(
        embed_model=parts.embed_model,
        chunker=parts.chunker,
        store=parts.preset.store,
        dim=parts.fingerprint.dim,
        known=parts.manifest.hashes(),
        contextualiser=contextualiser,
        vectors=parts.vector_store,
        pricer=parts.ledger.pricer,
    )


def remove(parts: EngineParts, doc_ids: Iterable[str], *, wait: bool = True) -> int:
    """Remove documents that the engine may change, under the ingest lock; returns how many were there.

    A document whose first ingest, or removal, was cut short is there, too: the store may hold passages of it.
    """
    with ingest_lock(parts.storage.lock, wait=wait):
        _repair_keyword(parts)
        known = {*parts.manifest.hashes(), *parts.manifest.leftovers()}
        wanted = [doc_id for doc_id in dict.fromkeys(doc_ids) if doc_id in known]
        mine = _ownership(parts, None, IngestOptions()).may_change(wanted)
        _pipeline(parts, _estimator(parts)).remove([*mine, *parts.manifest.removals()])
        return len(mine)


def finish_removals(parts: EngineParts) -> None:
    """Finish the removals that a process, now dead, has begun: what was removed is not found again.

    Where another process holds the ingest lock, or the store cannot be changed now, the next ingest or removal does.
    """
    if not parts.manifest.removals():
        return
    try:
        remove(parts, (), wait=False)
    except StoreLockedError:
        pass
    except StoreError as error:
        _log.warning(
            "A removal that was cut short is not finished: %s may still be found (%s). Remove them again.",
            counted(len(parts.manifest.removals()), "document"), error,
        )  # fmt: skip


def _pipeline(parts: EngineParts, estimator: Estimator) -> Pipeline:
    return Pipeline(
        embed_model=parts.embed_model,
        chunker=parts.chunker,
        store=parts.vector_store,
        manifest=parts.manifest,
        keyword=parts.retrieval.keyword,
        batch_chunks=parts.settings.batch_chunks,
        count_tokens=estimator.count_tokens,
        images=reads_images(parts.embed_model),
        contextualiser=estimator.contextualiser,
    )


def _found(parts: EngineParts, data: Any, options: IngestOptions) -> list[Source]:
    """The sources, each with the metadata that its folder, the caller and the engine's tenant put on it."""
    _refuse_remote_sources(parts, data)
    found = sources(
        data,
        columns=options.columns,
        images=reads_images(parts.embed_model),
        limit=SizeLimit(parts.settings.max_document_mb, parts.settings.ocr),
        separate_folders=options.folder_key is not None,
    )
    return _overrides(parts, data, options).over(read_again(found) if options.again else found)


def _refuse_remote_sources(parts: EngineParts, data: Any) -> None:
    """Nothing leaves the machine from a local preset, and a request for a document would."""
    if parts.preset.monitoring != "local":
        return
    for url in filter(
        is_url, [data] if isinstance(data, str) else data if isinstance(data, list | tuple) else []
    ):
        if not stays_here(url):
            raise SettingsError(
                f"The preset '{parts.preset.name}' asks nothing of other machines, and '{url.partition('://')[0]}://…' "
                "is on one. Copy the files here first."
            )


def _overrides(parts: EngineParts, data: Any, options: IngestOptions) -> MetadataOverrides:
    return MetadataOverrides(
        metadata={**options.metadata, **parts.ingest_metadata},
        permissions=permissions_of_run(parts),
        folder_key=options.folder_key,
        roots=() if options.folder_key is None else tuple(_separate(_folders(data, "folder_key"))),
    )


def _separate(roots: list[Path]) -> list[Path]:
    """Folders, none of them inside another: else the name of a file would depend on their order."""
    for root in roots:
        for above in roots:
            if above in root.parents:
                raise SettingsError(
                    f"'{root}' is inside '{above}', and folder_key takes names from both. Ingest them one at a time."
                )
    return roots


def _folders(data: Any, wanted_by: str) -> list[Path]:
    roots = [data] if isinstance(data, str | Path) else data
    if not isinstance(roots, list | tuple | set) or not all(isinstance(root, str | Path) for root in roots):
        raise SettingsError(
            f"{wanted_by} works on folders: give paths, or delete documents with engine.vector_store.delete."
        )
    return [root_path(root) for root in roots]


def _vanished(data: Any) -> Callable[[str], bool]:
    """Which stored documents lie under the folders that are being synced."""
    items = [data] if isinstance(data, str | Path | DocumentSource) else data
    named: list[str] = []
    if isinstance(items, list | tuple | set):
        named = [source_name(item) for item in items if is_url(item) or isinstance(item, DocumentSource)]
        items = [item for item in items if not (is_url(item) or isinstance(item, DocumentSource))]
    nothing_else = isinstance(items, list) and not items and bool(named)
    folders = [] if nothing_else else _folders(items, "sync")
    return lambda doc_id: (
        doc_id in named
        or doc_id.startswith(tuple(f"{name}/" for name in named))
        or any(Path(doc_id) == folder or folder in Path(doc_id).parents for folder in folders)
    )
