"""Checks of a running engine and of the process around it: storage, keyword index, retries, usage, who listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks.base_handler import BaseCallbackHandler

from llama_index_presets.presets.engine import PresetEngine
from llama_index_presets.presets.findings import Finding
from llama_index_presets.presets.listeners import foreign_listeners, remote_exporters

__all__ = ["check_engine", "check_listeners", "check_models"]

_DUCKDB_LIMIT = 100_000


def check_engine(engine: PresetEngine) -> Iterator[Finding]:
    """Everything about an engine that is open: its storage, its models, and who listens in this process.

    Example:
        >>> import tempfile
        >>> from llama_index_presets import build
        >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
        ...     [one.fix.split(" (")[0] for one in check_engine(engine) if one.check == "encryption"]
        ['Set LLAMA_PRESETS_ENCRYPTION_KEY']
    """
    yield from _check_encryption(engine)
    yield from _check_store(engine)
    yield from _check_keyword(engine)
    yield from check_models(engine.llm, engine._assembly.embed_model)
    yield from check_listeners([engine.llm, engine._assembly.embed_model])


def check_models(llm: BaseLLM | None, embed_model: BaseEmbedding | None) -> Iterator[Finding]:
    """Retries that multiply, and streams that do not say what they cost."""
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
    """Handlers of other packages on LlamaIndex's dispatcher and callbacks, and any that is there twice."""
    foreign = foreign_listeners()
    names = [type(handler).__module__.partition(".")[0] for handler in foreign]
    for name in sorted(set(names)):
        twice = max(_count(foreign, kind, name) for kind in ("event", "span"))
        if twice > 1:
            yield Finding(
                level="warning",
                check="instrumentation",
                message=f"{name} listens {twice} times: every call is told twice",
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
    if engine._assembly.encryption is None and engine._assembly.settings.encryption == "auto":
        yield Finding(
            level="warning",
            check="encryption",
            message="text and metadata are in clear: encryption is 'auto' and no key was found",
            fix="Set LLAMA_PRESETS_ENCRYPTION_KEY (openssl rand -hex 32) and ingest into a new --storage.",
        )
    else:
        yield Finding(level="ok", check="encryption", message=str(state))


def _check_store(engine: PresetEngine) -> Iterator[Finding]:
    documents, chunks = engine._assembly.manifest.totals()
    yield Finding(level="ok", check="fingerprint", message=str(engine._assembly.fingerprint))
    store: Any = engine.vector_store
    stored = len(store.node_ids()) if hasattr(store, "node_ids") else None
    if stored is None:
        message = f"{documents} documents, {chunks} chunks by the manifest; this store cannot count its own"
        yield Finding(level="note", check="store", message=message)
    elif stored != chunks:
        yield Finding(
            level="error",
            check="store",
            message=f"the store holds {stored} chunks, the manifest {chunks}",
            fix="Ingest the same paths again; if that does not help, ingest into a new --storage.",
        )
    else:
        yield Finding(level="ok", check="store", message=f"{documents} documents, {chunks} chunks")
    if engine._assembly.preset.store == "duckdb" and chunks > _DUCKDB_LIMIT:
        yield Finding(
            level="warning",
            check="store",
            message=f"{chunks:,} chunks in DuckDB, whose search is exact and reads them all",
            fix='Move them: llama-presets move, and store = "lancedb".',
        )


def _check_keyword(engine: PresetEngine) -> Iterator[Finding]:
    from llama_index_presets.retrieve.step import verify_in_step

    keyword: Any = engine._assembly.retrieval.keyword
    if keyword is None:
        return
    report = verify_in_step(engine.vector_store, keyword)
    if report.in_step:
        yield Finding(
            level="ok", check="keyword index", message=f"in step with the store ({report.checked} chunks)"
        )
        return
    yield Finding(
        level="error",
        check="keyword index",
        message=f"out of step: {len(report.missing)} chunks missing, {len(report.extra)} too many, "
        f"{len(report.changed)} changed, {len(report.unfinished)} documents unfinished",
        fix="Run with --repair, or retrieve.step.verify_in_step(…, repair=True).",
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
            message=f"{name} retries {inner} times inside our {model._retry_policy.attempts} attempts: they multiply",
            fix="Set its max_retries to 0.",
        )
    elif inner > 1:
        yield Finding(
            level="warning",
            check="retries",
            message=f"{name} retries {inner} times on its own: failed attempts are no rows of the ledger",
            fix="Wrap it: monitor.retry.retrying(model).",
        )
    elif ours:
        yield Finding(
            level="ok", check="retries", message=f"{name}: {model._retry_policy.attempts} attempts, one layer"
        )
