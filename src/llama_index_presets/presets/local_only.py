"""Monitoring `local` promises that nothing leaves the machine: parts that would are refused when building."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from llama_index_presets.errors import SettingsError

__all__ = ["is_local", "refuse_remote"]

_LOCAL_MODULES = (
    "llama_index_presets.",
    "llama_index.core.",
    "llama_index.llms.huggingface",
    "llama_index.llms.llama_cpp",
    "llama_index.embeddings.huggingface",
    "llama_index.vector_stores.lancedb",
    "tests.",
)
_ADDRESSES = ("base_url", "api_base", "endpoint", "url", "host")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_local(part: object) -> bool:
    """Whether a part stays on this machine: known to, or pointed at a loopback address."""
    for name in _ADDRESSES:
        address = getattr(part, name, None)
        if isinstance(address, str) and address:
            return (urlsplit(address if "//" in address else f"//{address}").hostname or "") in _LOOPBACK
    return any(kind.__module__.startswith(_LOCAL_MODULES) for kind in type(part).__mro__[:1])


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
