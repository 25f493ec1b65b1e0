"""The rules of choosing, as data: when a rule speaks, about which rows, and what it says. See ``choosing.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from llama_index_presets.presets.matrix import Preset

__all__ = ["Rule", "rules"]

Verdict = Literal["for", "against", "out", "swap", "suggest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of choosing.

    Attributes:
        id: Its name in ``choosing.toml`` and in ``docs/choosing.md``.
        text: The rule, as a sentence.
        verdict: What it says of the rows that it speaks about.
        when: Facts that must hold: name -> value, or a list of which one must be it; ``NAME_above`` and
            ``NAME_below`` compare.
        cells: What a row must have: column -> choices; ``reach`` is ``"network"`` or ``"machine"``.
        not_cells: What it must not have.
        weight: Points of ``for`` and ``against``, or the price of a ``swap``.
        suggest: Settings that it proposes.
    """

    id: str
    text: str
    verdict: Verdict
    when: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Any] = field(default_factory=dict)
    not_cells: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 0
    suggest: Mapping[str, Any] = field(default_factory=dict)

    def speaks(self, facts: Mapping[str, Any], row: Preset) -> bool:
        """Whether it applies to a row, given the facts of a case."""
        return (
            all(_holds(name, wanted, facts) for name, wanted in self.when.items())
            and all(_cell(row, column) in _several(choice) for column, choice in self.cells.items())
            and not any(_cell(row, column) in _several(choice) for column, choice in self.not_cells.items())
        )


@cache
def rules() -> tuple[Rule, ...]:
    """All rules, in the order of ``choosing.toml``.

    Example:
        >>> next(rule for rule in rules() if rule.id == "hybrid-for-words").verdict
        'for'
    """
    text = files(__package__).joinpath("choosing.toml").read_text(encoding="utf-8")
    return tuple(Rule(id=name, **row) for name, row in tomllib.loads(text).items())


def reach(row: Preset) -> str:
    """Whether a row leaves the machine: ``"network"`` or ``"machine"``."""
    return "machine" if all(part.local for part in row.parts().values()) else "network"


def _cell(row: Preset, column: str) -> str:
    return reach(row) if column == "reach" else str(getattr(row, column))


def _holds(name: str, wanted: Any, facts: Mapping[str, Any]) -> bool:
    for suffix, compare in (("_above", float.__gt__), ("_below", float.__lt__)):
        if name.endswith(suffix):
            return compare(float(facts[name.removesuffix(suffix)]), float(wanted))
    fact = facts[name]
    found = fact if isinstance(fact, tuple) else (fact,)
    return any(value in _several(wanted) for value in found)


def _several(choice: Any) -> list[Any]:
    return choice if isinstance(choice, list) else [choice]
