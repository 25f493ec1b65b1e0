"""Offline presets: local counterparts of services, and an explicit stand-in where weights are missing."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from llama_index_presets._addresses import is_loopback
from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import has_weights
from llama_index_presets.errors import SettingsError, StoreError
from llama_index_presets.inference.hub import cache_folder
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.index.storage import Storage, read_metadata, resolve_storage
from llama_index_presets.presets.matrix import Preset, stand_in
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import CATALOGUE, read_embedding_name
from llama_index_presets.providers.language_models import is_on_this_machine, read_name
from llama_index_presets.providers.rerankers import (
    DEFAULT_RERANKER,
    read_reranker_name,
    reranks_on_this_machine,
)

__all__ = [
    "OfflineRow",
    "foreign_listeners",
    "go_offline",
    "is_local",
    "refuse_remote",
    "refuse_remote_cells",
    "refuse_remote_contextualiser",
    "refuse_remote_listeners",
    "refuse_remote_reranker",
    "remote_exporters",
]

# -- parts that leave the machine -----------------------------------------------------------------------------


_LOCAL_PACKAGES = (
    "llama_index.core",
    "llama_index.llms.huggingface",
    "llama_index.llms.llama_cpp",
    "llama_index.embeddings.huggingface",
    "llama_index.vector_stores.lancedb",
)
_ADDRESSES = ("base_url", "api_base", "azure_endpoint", "endpoint", "endpoint_url", "url", "host")


def is_local(part: object) -> bool:
    """Whether a part runs on this machine.

    What it stands in front of must stay, too. An address decides, where there is one. Without one, a
    LlamaIndex integration, or a subclass of it, must be known to be local. A class that is the application's own is
    taken at its word: it cannot be told from outside.
    """
    inner = getattr(part, "inner", None)  # of a CachedEmbedding, an EncryptedVectorStore
    if inner is not None and not is_local(inner):
        return False
    for name in _ADDRESSES:
        address = getattr(part, name, None)
        if isinstance(address, str) and address:
            return is_loopback(address)
    place = getattr(part, "uri", None)
    if isinstance(place, str) and "://" in place and not place.startswith("file://"):
        return False
    integrations = [
        kind.__module__ for kind in type(part).__mro__ if kind.__module__.startswith("llama_index.")
    ]
    return all(_in_packages(module) for module in integrations)


def _in_packages(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in _LOCAL_PACKAGES)


def refuse_remote(preset: str, parts: Sequence[object]) -> None:
    """Refuse parts that would send documents or questions elsewhere.

    Raises:
        SettingsError: Names the parts.
    """
    remote = [type(part).__name__ for part in parts if not is_local(part)]
    if remote:
        raise SettingsError(
            f"The preset '{preset}' keeps everything on this machine; {', '.join(remote)} would send text elsewhere. "
            "Use a local model, one served on localhost, or another preset."
        )


def refuse_remote_cells(row: Preset, *, replaced: frozenset[str]) -> None:
    """Refuse cells that name a service, such as an LLM chosen in the settings.

    Args:
        row: With every choice of the settings.
        replaced: Columns whose part the caller brings along.

    Raises:
        SettingsError: Names the cells.
    """
    remote = [
        f"{column} '{getattr(row, column)}'"
        for column, part in row.parts().items()
        if not part.local and column not in replaced
    ]
    if remote:
        raise SettingsError(
            f"The preset '{row.name}' keeps everything on this machine; {', '.join(remote)} would send text elsewhere. "
            "Choose a local one, use offline=True (--offline), or another preset."
        )


def refuse_remote_contextualiser(row: Preset, settings: Settings) -> None:
    """Refuse a language model of the settings that would be sent whole documents at ingest.

    Raises:
        SettingsError: Names it.
    """
    name = settings.context_llm
    if name is not None and not is_on_this_machine(read_name(name), {}):
        raise SettingsError(
            f"The preset '{row.name}' keeps everything on this machine here; context_llm '{name}' would send documents "
            "elsewhere. Choose a model on this machine, another preset, or leave out offline=True (--offline)."
        )


def refuse_remote_reranker(row: Preset, settings: Settings, *, replaced: frozenset[str]) -> None:
    """Refuse a re-ranker of the settings that would be sent the passages.

    Raises:
        SettingsError: Names it.
    """
    if settings.reranker is None or row.pattern != "advanced" or "reranker" in replaced:
        return
    if not reranks_on_this_machine(read_reranker_name(settings.reranker), settings.reranker_options or {}):
        raise SettingsError(
            f"The preset '{row.name}' keeps everything on this machine; reranker '{settings.reranker}' would send text "
            "elsewhere. Choose a cross-encoder on this machine, or another preset."
        )


# -- other listeners of the process ---------------------------------------------------------------------------


_OURS = ("llama_index_presets.", "llama_index.core.", "llama_index_instrumentation.")


def foreign_listeners() -> list[Any]:
    """Handlers of other packages on the root dispatcher: instrumentors, and the application's own."""
    root = get_dispatcher()
    return [
        handler
        for handler in [*root.event_handlers, *root.span_handlers]
        if not type(handler).__module__.startswith(_OURS)
    ]


def remote_exporters() -> list[str]:
    """Hosts outside this machine that the process's OpenTelemetry tracer provider sends to."""
    if "opentelemetry.trace" not in sys.modules:
        return []
    provider = sys.modules["opentelemetry.trace"].get_tracer_provider()
    addresses = {str(address) for address in map(_address, _exporters(provider)) if address}
    return sorted({urlsplit(one).hostname or one for one in addresses if not is_loopback(one)})


def refuse_remote_listeners(preset: str) -> None:
    """Refuse to build a local preset in a process that sends its traces elsewhere.

    An instrumentor with exporters on this machine alone, and the application's own handlers, are taken as they are.

    Raises:
        SettingsError: Names the instrumentors and where they send to.
    """
    from llama_index.core import global_handler

    hosts = remote_exporters()
    names = sorted({type(handler).__module__.partition(".")[0] for handler in foreign_listeners()})
    if hosts and names:
        raise SettingsError(
            f"The preset '{preset}' keeps everything on this machine; {', '.join(names)} listens in this process and "
            f"sends traces to {', '.join(hosts)}. Call its uninstrument(), or send to a collector on 127.0.0.1."
        )
    vendor = type(global_handler).__module__
    if vendor.startswith("llama_index.callbacks."):
        raise SettingsError(
            f"The preset '{preset}' keeps everything on this machine; LlamaIndex's global handler is {vendor}, which "
            "sends what it hears to a service. Remove it: llama_index.core.global_handler = None."
        )


def _exporters(provider: Any) -> Iterator[Any]:
    """Exporters of a provider; a batch processor hides its own one or two attributes deep."""
    first = getattr(provider, "_active_span_processor", None)
    for processor in getattr(first, "_span_processors", ()):
        for holder in (processor, getattr(processor, "_batch_processor", None)):
            for name in ("span_exporter", "_exporter"):
                exporter = getattr(holder, name, None)
                if exporter is not None:
                    yield exporter


def _address(exporter: Any) -> str | None:
    address = getattr(exporter, "_endpoint", None)
    return address if isinstance(address, str) else None


@dataclass(frozen=True, slots=True)
class OfflineRow:
    """A row that runs without a network.

    Attributes:
        row: With local cells; `Preset.swapped` names what stood there before.
        notices: What it cannot do on this machine and how to change that, a sentence or two each.
    """

    row: Preset
    notices: tuple[str, ...] = ()


def go_offline(
    row: Preset, storage: str | Path, settings: Settings, overrides: Collection[str]
) -> OfflineRow:
    """Swap networked cells, then those whose weights are not on this machine.

    A cell that the caller fills by hand, and a re-ranker that the settings name, are left alone.

    Args:
        row: Row of the matrix.
        storage: Where the index lies: one that a stand-in made stays with it.
        settings: Names a re-ranker, or none.
        overrides: Columns whose part the caller brings along.
    """
    row, notices = row.offline(), []
    if "embedding" not in overrides:
        row, notice = _embedding(row, resolve_storage(storage, state=settings.state))
        notices += notice
    if row.pattern == "advanced" and "reranker" not in overrides and _reranker_is_missing(settings):
        row, notice = _pattern(row, settings.reranker)
        notices += notice
    return OfflineRow(row, tuple(notices))


def _embedding(row: Preset, storage: Storage) -> tuple[Preset, list[str]]:
    wanted, other = row.embedding, stand_in(row.embedding)
    if other is None or read_embedding_name(wanted).provider != CATALOGUE:
        return row, []
    if embedding_model(wanted).provider != "local":
        return row, []
    made_with = _made_with(storage)
    if made_with != other and (made_with == wanted or has_weights(embedding_model(wanted))):
        return row, []
    reason = (
        f"this index was made with '{other}', the stand-in for '{wanted}' on a machine without its weights"
        if made_with == other
        else f"the weights of '{wanted}' are not on this machine, so '{other}' embeds in its place"
    )
    if embedding_model(wanted).modality == "image":
        reason += ", texts only: pictures are left out"
    notice = (
        f"A stand-in embeds: {reason}. For '{wanted}', get its weights once where there is a network (llama-presets "
        f"weights pull {wanted}), or put its folder at {cache_folder() / 'models' / wanted}, and ingest into a new "
        "storage."
    )
    return _swapped(row, "embedding", other), [notice]


def _reranker_is_missing(settings: Settings) -> bool:
    """Whether a default re-ranker is to be found, or the one that the settings name is elsewhere."""
    if settings.reranker is None:
        return True
    name = read_reranker_name(settings.reranker)
    return not reranks_on_this_machine(name, settings.reranker_options or {})


def _pattern(row: Preset, remote: str | None) -> tuple[Preset, list[str]]:
    if remote is not None:
        notice = (
            f"Re-ranking is off: '{remote}' is a service, so passages keep the order of the vector search. Name the "
            "folder of a cross-encoder in the setting 'reranker'."
        )
        return _swapped(row, "pattern", "simple"), [notice]
    if find_reranker(DEFAULT_RERANKER):
        return row, []
    notice = (
        f"Re-ranking is off: the weights of '{DEFAULT_RERANKER}' are not on this machine, so passages keep the order "
        f"of the vector search. Get them once where there is a network (hf download {DEFAULT_RERANKER}), or name the "
        "folder of a cross-encoder in the setting 'reranker'."
    )
    return _swapped(row, "pattern", "simple"), [notice]


def _swapped(row: Preset, column: str, choice: str) -> Preset:
    before = dict(row.swapped).get(column, getattr(row, column))
    swapped = {**dict(row.swapped), column: before}
    return replace(row, swapped=tuple(swapped.items())).with_cells({column: choice})


def _made_with(storage: Storage) -> str | None:
    """Name of the model that made an index, or None where there is none yet."""
    try:
        fingerprint = str(read_metadata(storage)["fingerprint"])
    except StoreError:  # no index, or a damaged one, which opening it reports
        return None
    found = re.search(r"model=([^;]+)", fingerprint)
    return found[1].rsplit("/", 1)[-1] if found else None
