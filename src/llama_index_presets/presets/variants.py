"""A second engine beside the first: another preset, or other settings, with an index of its own where it needs one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.storage import find_storage

__all__ = ["Variant", "parse_settings"]

_MAKES_THE_INDEX = frozenset(
    {
        "embedding", "dimensions", "store", "pattern", "chunking", "chunk_tokens", "encryption",
        "searchable_metadata", "pii",
    }
)  # fmt: skip
"""Settings that an index is made with: another value needs another index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An engine to measure, before it is built.

    Attributes:
        preset: Its name.
        storage: Where its index lies.
        settings: Path of a TOML file, or None.
        changes: Settings on top of the file.
    """

    preset: str
    storage: str
    settings: Path | None = None
    changes: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """Preset and changes, in a few words."""
        return " ".join([self.preset, *(f"{name}={value}" for name, value in (self.changes or {}).items())])

    def other(self, preset: str | None, changes: Mapping[str, Any], storage: str | None) -> Variant:
        """The one to compare with.

        Args:
            preset: Another preset, or None for this one.
            changes: Settings on top of this one's.
            storage: Where its index lies; None takes this one's where both can share it, else a folder below.
        """
        both = replace(self, preset=preset or self.preset, changes={**(self.changes or {}), **changes})
        own = {name: value for name, value in changes.items() if name in _MAKES_THE_INDEX}
        if storage is None and both.preset == self.preset and not own:
            return both
        name = "-".join([both.preset, *(f"{key}-{value}" for key, value in sorted(own.items()))])
        return replace(both, storage=storage or str(find_storage(self.storage).folder / "variants" / name))

    def given(self) -> Mapping[str, Any] | Path | None:
        """What `build` takes as settings.

        Raises:
            SettingsError: The file cannot be read.
        """
        if not self.changes:
            return self.settings
        return {**_table(self.settings, self.preset), **self.changes}


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs; a value that is JSON is taken as such.

    Raises:
        SettingsError: A pair has no ``=``.

    Example:
        >>> parse_settings(["top_k=8", "chunking=semantic"])
        {'top_k': 8, 'chunking': 'semantic'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"'{pair}' is no setting; expected KEY=VALUE, such as top_k=8.")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def _table(path: Path | None, preset: str) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"The settings file '{path}' cannot be read ({error}).") from error
    top = {name: value for name, value in content.items() if not isinstance(value, dict)}
    return {**top, **content.get(preset, {})}
