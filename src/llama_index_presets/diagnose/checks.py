"""Checks of the machine: versions, extras, keys, settings, weights. Reads metadata; imports no heavy package."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from packaging.requirements import Requirement

from llama_index_presets.counting import counted
from llama_index_presets.diagnose.finding import Finding, Level
from llama_index_presets.errors import (
    ModelError,
    MonitorError,
    PresetsError,
    SettingsError,
    StoreLockedError,
    StoreWriteError,
)
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.checks.offline import foreign_listeners, remote_exporters
from llama_index_presets.presets.checks.readiness import obstacles
from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.estimates.model_uses import model_uses
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import CATALOGUE, EMBEDDING_PROVIDERS, read_embedding_name
from llama_index_presets.providers.language_providers import PROVIDERS
from llama_index_presets.providers.rerankers import CROSS_ENCODER, RERANKER_PROVIDERS, read_reranker_name
from llama_index_presets.providers.variables import find_variable

__all__ = [
    "check_engine",
    "check_extras",
    "check_keys",
    "check_listeners",
    "check_model_uses",
    "check_models",
    "check_readiness",
    "check_reranker",
    "check_settings",
    "check_versions",
    "check_weights",
]

# -- a running engine and its process -------------------------------------------------------------------------


_DUCKDB_LIMIT = 100_000


def check_engine(engine: PresetEngine) -> Iterator[Finding]:
    """Check an open engine: its storage, its models, and the listeners of this process.

    Example:
        >>> import tempfile
        >>> from llama_index_presets import build
        >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
        ...     [one.fix.split(" (")[0] for one in check_engine(engine) if one.check == "encryption"]
        ['Set LLAMA_PRESETS_ENCRYPTION_KEY']
    """
    yield from _check_encryption(engine)
    yield from _check_contents(engine)
    yield from _check_ledger(engine)
    yield from check_models(engine.llm, engine._parts.embed_model)
    yield from check_listeners([engine.llm, engine._parts.embed_model])


def check_models(llm: BaseLLM | None, embed_model: BaseEmbedding | None) -> Iterator[Finding]:
    """Check for retries that multiply, and for streams without token usage."""
    for model in (llm, embed_model):
        if model is not None:
            yield from _check_retries(model)
    options = getattr(llm, "additional_kwargs", None) or {}
    usage = options.get("stream_options")
    if usage is not None and not usage.get("include_usage"):
        yield Finding(
            level="warning",
            check="streaming",
            message=f"{type(llm).__name__} streams with stream_options={usage}: the provider will not report usage",
            fix='Set additional_kwargs={"stream_options": {"include_usage": True}}, or leave stream_options out.',
        )


def check_listeners(models: list[Any]) -> Iterator[Finding]:
    """Check for other packages' handlers on LlamaIndex's dispatcher and callbacks, and for duplicates."""
    foreign = foreign_listeners()
    names = [type(handler).__module__.partition(".")[0] for handler in foreign]
    for name in sorted(set(names)):
        twice = max(_count(foreign, kind, name) for kind in ("event", "span"))
        if twice > 1:
            yield Finding(
                level="warning",
                check="instrumentation",
                message=f"{name} listens {counted(twice, 'time')}: every call is counted twice",
                fix="Instrument once for a process; call uninstrument() before instrumenting again.",
            )
        else:
            yield Finding(
                level="note", check="instrumentation", message=f"{name} listens to all calls of this process"
            )
    hosts = remote_exporters()
    if hosts:
        yield Finding(
            level="note", check="instrumentation", message=f"OpenTelemetry sends to {', '.join(hosts)}"
        )
    yield from _check_callbacks(models)
    if not foreign:
        yield Finding(level="ok", check="instrumentation", message="nobody else listens to this process")


def _count(handlers: list[Any], kind: str, name: str) -> int:
    return sum(
        f"{kind}handler" in "".join(parent.__name__.lower() for parent in type(handler).__mro__)
        and type(handler).__module__.startswith(name)
        for handler in handlers
    )


def _check_callbacks(models: list[Any]) -> Iterator[Finding]:
    from llama_index.core import global_handler

    managers = {id(model.callback_manager): model.callback_manager for model in models}
    handlers: dict[int, BaseCallbackHandler] = {
        id(handler): handler for manager in managers.values() for handler in manager.handlers
    }
    if global_handler is not None:
        handlers[id(global_handler)] = global_handler
    kinds = [type(handler).__name__ for handler in handlers.values()]
    for kind in sorted(set(kinds)):
        if kinds.count(kind) > 1:
            yield Finding(
                level="warning",
                check="instrumentation",
                message=f"{kinds.count(kind)} {kind} are in the callback managers: calls may be counted twice",
                fix="Keep one handler for a process.",
            )


def _check_encryption(engine: PresetEngine) -> Iterator[Finding]:
    state = engine.explain()["effective"]["encryption"]
    if engine._parts.encryption is None and engine._parts.settings.encryption == "auto":
        yield Finding(
            level="warning",
            check="encryption",
            message="text and metadata are in clear: encryption is 'auto' and no key was found",
            fix="Set LLAMA_PRESETS_ENCRYPTION_KEY (openssl rand -hex 32) and ingest into a new --storage.",
        )
    else:
        yield Finding(level="ok", check="encryption", message=str(state))


def _check_contents(engine: PresetEngine) -> list[Finding]:
    """Compare what manifest, store and keyword index hold, while nobody ingests: else they differ for a moment."""
    try:
        with ingest_lock(engine._parts.storage.lock, wait=False):
            return [*_check_store(engine), *_check_keyword(engine)]
    except StoreLockedError as error:
        return [Finding(level="note", check="store", message=f"not counted now. {error}")]
    except StoreWriteError:  # a folder that can only be read, so nobody ingests into it
        return [*_check_store(engine), *_check_keyword(engine)]


def _check_store(engine: PresetEngine) -> Iterator[Finding]:
    documents, chunks = engine._parts.manifest.totals()
    yield Finding(level="ok", check="fingerprint", message=str(engine._parts.fingerprint))
    store: Any = engine.vector_store
    stored = len(store.node_ids()) if hasattr(store, "node_ids") else None
    if stored is None:
        message = (
            f"{counted(documents, 'document')}, {counted(chunks, 'chunk')} by the manifest; this store cannot count "
            "its own"
        )
        yield Finding(level="note", check="store", message=message)
    elif stored != chunks:
        yield Finding(
            level="error",
            check="store",
            message=f"the store holds {counted(stored, 'chunk')}, the manifest {chunks}",
            fix="Ingest the same paths again; if that does not help, ingest into a new --storage.",
        )
    else:
        yield Finding(
            level="ok", check="store", message=f"{counted(documents, 'document')}, {counted(chunks, 'chunk')}"
        )
    if engine._parts.preset.store == "duckdb" and chunks > _DUCKDB_LIMIT:
        yield Finding(
            level="warning",
            check="store",
            message=f"{counted(chunks, 'chunk')} in DuckDB, whose search is exact and reads them all",
            fix='Move them: llama-presets move, and store = "lancedb".',
        )


def _check_ledger(engine: PresetEngine) -> Iterator[Finding]:
    """Read the ledger: answers go on without it, and nothing is recorded or held to a budget."""
    try:
        ((calls,),) = engine.ledger.sql("SELECT count(*) FROM llm_calls").fetchall()
    except MonitorError as error:
        yield Finding(
            level="error",
            check="ledger",
            message=str(error),
            fix=f"Restore it from a backup, or move '{engine.ledger.path}' away: a new one is begun.",
        )
    else:
        yield Finding(level="ok", check="ledger", message=counted(calls, "call"))


def _check_keyword(engine: PresetEngine) -> Iterator[Finding]:
    from llama_index_presets.retrieve.bm25.consistency import check_consistency

    keyword: Any = engine._parts.retrieval.keyword
    if keyword is None:
        return
    report = check_consistency(engine.vector_store, keyword)
    if report.consistent:
        yield Finding(
            level="ok",
            check="keyword index",
            message=f"in step with the store ({counted(report.checked, 'chunk')})",
        )
        return
    yield Finding(
        level="error",
        check="keyword index",
        message=f"out of step: {counted(len(report.missing), 'chunk')} missing, {len(report.extra)} too many, "
        f"{len(report.changed)} changed, {counted(len(report.unfinished), 'document')} unfinished",
        fix="Run with --repair, or retrieve.check_consistency(…, repair=True).",
    )


def _check_retries(model: Any) -> Iterator[Finding]:
    ours = hasattr(model, "_retry_policy")
    inner = max(
        [getattr(model, "max_retries", 0) or 0]
        + [getattr(getattr(model, name, None), "max_retries", 0) or 0 for name in ("_client", "_aclient")]
    )
    name = type(model).__name__
    if ours and inner:
        yield Finding(
            level="error",
            check="retries",
            message=f"{name} retries {counted(inner, 'time')} inside our "
            f"{counted(model._retry_policy.attempts, 'attempt')}: they multiply",
            fix="Set its max_retries to 0.",
        )
    elif inner > 1:
        yield Finding(
            level="warning",
            check="retries",
            message=f"{name} retries {counted(inner, 'time')} on its own: failed attempts are no rows of the ledger",
            fix="Wrap it: monitor.retry.retrying(model).",
        )
    elif ours:
        yield Finding(
            level="ok",
            check="retries",
            message=f"{name}: {counted(model._retry_policy.attempts, 'attempt')}, one layer",
        )


_DISTRIBUTION = "llama-index-presets"
_KEYS = {
    "PINECONE_API_KEY": "the Pinecone store",
    "LLAMA_PRESETS_AUDIT_KEY": "the audit log",
    "LLAMA_PRESETS_ENCRYPTION_KEY": "encryption at rest",
}
_NO_CAPABILITY = {"all", "dev", "docs"}


def check_versions() -> Iterator[Finding]:
    """Check versions of Python, this package and its required dependencies."""
    yield Finding(level="ok", check="python", message=f"{platform.python_version()} on {sys.platform}")
    try:
        ours = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Finding(
            level="note",
            check="versions",
            message="llama-index-presets runs from its source tree, not installed",
        )
        return
    yield Finding(level="ok", check="versions", message=f"llama-index-presets {ours}")
    for requirement in _requirements():
        if requirement.marker is None:
            yield from _check_version(requirement)


def check_extras() -> Iterator[Finding]:
    """Check which extras are complete."""
    extras: dict[str, list[str]] = {}
    for requirement in _requirements():
        for extra in _extras_of(requirement):
            if requirement.name != _DISTRIBUTION:
                extras.setdefault(extra, []).append(requirement.name)
    complete = [extra for extra, names in extras.items() if not any(_version(name) is None for name in names)]
    if extras:
        missing = sorted(set(extras) - set(complete) - _NO_CAPABILITY)
        listed = ", ".join(sorted(set(complete) - _NO_CAPABILITY)) or "none"
        hint = f"; not installed: {', '.join(missing)}" if missing else ""
        yield Finding(level="ok", check="extras", message=f"installed: {listed}{hint}")
    if _version("arize-phoenix"):
        yield Finding(
            level="warning",
            check="versions",
            message="the Phoenix server is installed in this environment and pins packages of ours",
            fix="Run Phoenix from an environment of its own; only the extra 'tracing' belongs here.",
        )


def check_keys(row: Preset | None) -> Iterator[Finding]:
    """Check which keys are set; their values are used for nothing else."""
    needs = {"PINECONE_API_KEY"} if row and row.store == "pinecone" else set()
    if row is None:
        yield from _provider_keys()
    for name, use in _KEYS.items():
        if os.environ.get(name):
            yield Finding(level="ok", check="keys", message=f"{name} is set ({use})")
        elif name not in needs:  # which `check_readiness` says
            yield Finding(level="note", check="keys", message=f"{name} is not set ({use})")


def _provider_keys() -> Iterator[Finding]:
    """Which providers of models have their key set on this machine."""
    tables = (PROVIDERS, EMBEDDING_PROVIDERS, RERANKER_PROVIDERS)
    keys = {key: provider.about for table in tables for provider in table.values() for key in provider.keys}
    found = {key: variable for key in keys if (variable := find_variable(key, secret=True)) is not None}
    for key, variable in found.items():
        yield Finding(level="ok", check="keys", message=f"{key} is set ({variable.source}; {keys[key]})")
    if not found:
        yield Finding(level="note", check="keys", message="no key of a provider of models is set")


def check_model_uses(row: Preset, settings: Settings) -> Iterator[Finding]:
    """Check each model of a row: which it is, whether its key is set and where, and which address it is asked at."""
    uses = model_uses(row, settings)
    for key in dict.fromkeys(use.key for use in uses if use.key):
        sharing = [use for use in uses if use.key == key]
        of = ", ".join(f"{use.part} '{use.name}'" for use in sharing)
        if sharing[0].key_from:
            yield Finding(level="ok", check="keys", message=f"{key} is set ({sharing[0].key_from}; {of})")
    for use in uses:
        where = use.place if use.on_this_machine else f"{use.place}, not on this machine"
        whose = "" if use.provider in ("", "on this machine") else f" of {use.provider}"
        yield Finding(level="ok", check="models", message=f"{use.part}: '{use.model}'{whose}, {where}")


def check_settings(preset: str | None, file: Path | None) -> Iterator[Finding]:
    """Check that file and environment make valid settings, and list those that are not defaults."""
    try:
        values, origins = load_settings(file, preset)
    except SettingsError as error:
        yield Finding(level="error", check="settings", message=str(error), fix="Correct or unset it.")
        return
    shown = values.to_dict()
    changed = [f"{name} = {shown[name]!r} ({place})" for name, place in origins.items() if place != "default"]
    yield Finding(level="ok", check="settings", message="; ".join(changed) or "all defaults")


def check_readiness(row: Preset, settings: Settings, *, reach: bool = False) -> Iterator[Finding]:
    """Check for everything that stands between a row and an engine; see `presets.checks.readiness`."""
    found = obstacles(row, settings, reach=reach)
    for one in found:
        reranker = one.kind == "weights" and not one.refused and "re-ranker" in one.fact
        level: Level = "warning" if reranker else "error"
        yield Finding(level=level, check=one.kind, message=one.fact, fix=one.fix)
    if not any(one.kind == "parts" for one in found):
        yield Finding(level="ok", check="parts", message=f"every part of '{row.name}' is installed")


def check_reranker(row: Preset, name: str) -> Iterator[Finding]:
    """Say where the cross-encoder of the advanced pattern lies, if it does.

    Args:
        row: The row.
        name: The re-ranker of its settings.
    """
    if row.pattern == "advanced" and read_reranker_name(name).provider == CROSS_ENCODER:
        folder = find_reranker(name)
        if folder is not None:
            yield Finding(level="ok", check="weights", message=f"{name} in {folder}")


def check_weights(row: Preset) -> Iterator[Finding]:
    """Check the hash of the embedding model's weights, where they are on this machine."""
    from llama_index_presets.embed.catalogue import embedding_model
    from llama_index_presets.embed.weights import find_weights, has_weights

    if read_embedding_name(row.embedding).provider != CATALOGUE:
        return
    model = embedding_model(row.embedding)
    try:
        if model.provider != "local" or not has_weights(model):
            return
        folder = find_weights(model, allow_download=False)
    except (ModelError, PresetsError) as error:
        yield Finding(level="error", check="weights", message=str(error), fix="See the message.")
        return
    checked = "hash verified" if model.sha256 else "no hash is known"
    yield Finding(level="ok", check="weights", message=f"{model.name} in {folder} ({checked})")


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return []


def _extras_of(requirement: Requirement) -> list[str]:
    if requirement.marker is None:
        return []
    names = metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    return [name for name in names if requirement.marker.evaluate({"extra": name})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_version(requirement: Requirement) -> Iterator[Finding]:
    found = _version(requirement.name)
    if found is None:
        yield Finding(
            level="error",
            check="versions",
            message=f"{requirement.name} is not installed",
            fix=f'pip install "{requirement}"',
        )
    elif not requirement.specifier.contains(found, prereleases=True):
        yield Finding(
            level="error",
            check="versions",
            message=f"{requirement.name} {found} is installed; {requirement.specifier} is needed",
            fix=f'pip install "{requirement}"',
        )
    else:
        yield Finding(level="ok", check="versions", message=f"{requirement.name} {found}")
