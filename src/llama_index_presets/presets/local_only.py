"""Monitoring `local` promises that nothing leaves the machine: parts that would are refused when building."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import Preset

__all__ = ["is_local", "is_loopback", "refuse_remote", "refuse_remote_cells"]

_LOCAL_PACKAGES = (
    "llama_index.core",
    "llama_index.llms.huggingface",
    "llama_index.llms.llama_cpp",
    "llama_index.embeddings.huggingface",
    "llama_index.vector_stores.lancedb",
)
_ADDRESSES = ("base_url", "api_base", "endpoint", "url", "host")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_local(part: object) -> bool:
    """Whether a part stays on this machine.

    What it stands in front of must stay, too. An address decides, where there is one. Without one, a
    LlamaIndex integration, or a subclass of it, must be known to be local. A class that is the application's own is
    taken at its word: nobody can tell from outside.
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


def is_loopback(address: str) -> bool:
    """Whether an address, with or without a scheme, is on this machine.

    Example:
        >>> is_loopback("http://127.0.0.1:6006"), is_loopback("collector.example:4318")
        (True, False)
    """
    return (urlsplit(address if "//" in address else f"//{address}").hostname or "") in _LOOPBACK


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
