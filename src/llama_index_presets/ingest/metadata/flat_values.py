"""Values that a file states about itself, flat, so that every store can hold them and filter on them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.ingest.clean import whole_characters

__all__ = ["LONGEST_VALUE", "MetadataChanges", "field_name", "flat_fields", "flat_value", "shown_key"]

LONGEST_VALUE: Final = 1_000
"""Characters of a value."""

_DEEPEST: Final = 10  # objects inside each other
_NAMED: Final = 3
_WHOLE_NUMBERS: Final = range(-(2**63), 2**63)  # that stores can hold
_NO_NUMBER: Final = "NaN or infinite, which no filter finds; left out"
_TOO_LARGE: Final = "a whole number of more than 64 bits; kept as text"
_NO_TYPE: Final = "of a type that cannot be stored; left out"
_TOO_DEEP: Final = f"nested more than {_DEEPEST} deep; left out"
_CUT: Final = f"longer than {LONGEST_VALUE:,} characters; the rest was left out"


@dataclass(slots=True)
class MetadataChanges:
    """What was changed in the metadata of one document.

    Attributes:
        keys: Kind of change to the keys, in order.
        counts: Kind of change to the number of values.
    """

    keys: dict[str, dict[str, None]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str, key: str) -> None:
        """Count one change of this kind."""
        self.keys.setdefault(kind, {})[shown_key(key)] = None
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def lines(self) -> list[str]:
        """One line for each kind of change, with a count and the first keys."""
        found = []
        for kind, keys in self.keys.items():
            named = ", ".join(f"'{key}'" for key in list(keys)[:_NAMED]) + (
                " …" if len(keys) > _NAMED else ""
            )
            found.append(f"metadata {named}: {counted(self.counts[kind], 'value', 'are')} {kind}.")
        return found


def field_name(key: Any) -> str:
    """Name of a field, however it is written.

    Example:
        >>> field_name(" Due Date"), field_name("due-date")
        ('due_date', 'due_date')
    """
    written = whole_characters(" ".join(str(key).split())[:LONGEST_VALUE]).replace("\0", "")
    return re.sub(r"[ -]", "_", written.lower())


def flat_fields(name: str, value: Any, changes: MetadataChanges) -> dict[str, Any]:
    """A value under its name; what is nested in it under names with dots, as search engines do it.

    Lists of objects become a list for each field, lists in lists one list.

    Example:
        >>> flat_fields("owner", {"name": "Ann", "teams": [{"id": 1}, {"id": 2}]}, MetadataChanges())
        {'owner.name': 'Ann', 'owner.teams.id': [1, 2]}
    """
    found: dict[str, Any] = {}

    def visit(name: str, value: Any, depth: int, *, listed: bool) -> None:
        if depth > _DEEPEST:
            changes.note(_TOO_DEEP, name)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                visit(f"{name}.{field_name(key)}", inner, depth + 1, listed=listed)
        elif isinstance(value, list | tuple | set | frozenset):
            for one in value:
                visit(name, one, depth + isinstance(one, list | tuple), listed=True)
        elif (plain := flat_value(value, name, changes)) not in (None, ""):
            before = found.get(name)
            listed = listed or before is not None
            kept = before if isinstance(before, list) else [before] if before is not None else []
            if listed:
                kept.append(plain)
            found[name] = kept if listed else plain

    visit(name, value, 0, listed=False)
    return found


def flat_value(value: Any, name: str, changes: MetadataChanges) -> Any:
    """Text in one line, a number or a boolean; None for anything else.

    Example:
        >>> flat_value(date(2021, 5, 1), "due", MetadataChanges()), flat_value(" a\\nb ", "note", MetadataChanges())
        ('2021-05-01', 'a b')
    """
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        line = " ".join(value.split())
        if len(line) > LONGEST_VALUE:
            changes.note(_CUT, name)
        return whole_characters(line[:LONGEST_VALUE]).replace("\0", "")
    if isinstance(value, int):
        if value in _WHOLE_NUMBERS:
            return value
        is_short = value.bit_length() < LONGEST_VALUE
        changes.note(_TOO_LARGE if is_short else _NO_TYPE, name)
        return str(value) if is_short else None
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is not None:
        changes.note(_NO_NUMBER if isinstance(value, float) else _NO_TYPE, name)
    return None


def shown_key(key: str) -> str:
    """A key as a line of the report shows it: short, and without what no terminal should get."""
    short = key if len(key) <= 60 else f"{key[:57]}…"
    return "".join(one if one.isprintable() else "\ufffd" for one in short)
