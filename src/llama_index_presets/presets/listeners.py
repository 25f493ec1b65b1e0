"""Who else listens to LlamaIndex in this process, and whether they carry what they hear away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.local_only import is_loopback

__all__ = ["foreign_listeners", "refuse_remote_listeners", "remote_exporters"]

_OURS = ("llama_index_presets.", "llama_index.core.", "llama_index_instrumentation.")


def foreign_listeners() -> list[Any]:
    """Handlers of other packages on the dispatcher that hears every call: instrumentors, and the application's own."""
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
