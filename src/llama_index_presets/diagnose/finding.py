"""Finding of a check: severity, one line of fact, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "note", "warning", "error"]
"""From good to bad: a note is worth knowing, a warning may cost money or privacy, an error keeps something from
working."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of ``llama-presets doctor``.

    Attributes:
        level: How bad it is.
        check: What was looked at, in a word or two.
        message: The fact, with its values; never a secret.
        fix: What to do; empty where there is nothing to do.
    """

    level: Level
    check: str
    message: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """Finding as JSON values."""
        return asdict(self)
