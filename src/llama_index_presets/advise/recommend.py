"""Preset recommendation: requirements to ranked presets, each with the rules behind its rank and its cost."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from llama_index_presets.advise.cost_estimate import Bill, estimate_bill
from llama_index_presets.advise.requirements import Requirements, requirements_from
from llama_index_presets.advise.use_case import Understood, facts_of, read_use_case
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.prices import Pricer
from llama_index_presets.presets.matrix import PRESETS, Preset

__all__ = ["RankedPreset", "Reason", "Recommendation", "Rule", "RuledOut", "recommend", "rules"]

# -- rules, read from choosing.toml ---------------------------------------------------------------------------


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

    def applies(self, facts: Mapping[str, Any], row: Preset) -> bool:
        """Whether the rule applies to a row, under the facts of a case."""
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
    """Network reach of a row: ``"network"`` or ``"machine"``."""
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


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason for a rank: a rule that applied.

    Attributes:
        rule: Its name in ``docs/choosing.md``.
        quote: The rule.
    """

    rule: str
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPreset:
    """Preset that fits, with its score, its reasons and its cost.

    Attributes:
        preset: Its name.
        offline: Whether it is to be built with ``offline=True``.
        score: Points of the rules for it less those against it; higher is better.
        reasons: What speaks for it.
        cautions: What speaks against it.
        suggestions: Rules that propose a setting.
        settings: What they propose, for ``build(settings=…)``.
        bill: What it would cost.
    """

    preset: str
    offline: bool
    score: int
    reasons: tuple[Reason, ...]
    cautions: tuple[Reason, ...]
    suggestions: tuple[Reason, ...]
    settings: Mapping[str, Any]
    bill: Bill

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        quotes = {
            name: [asdict(reason) for reason in getattr(self, name)]
            for name in ("reasons", "cautions", "suggestions")
        }
        head = {"preset": self.preset, "offline": self.offline, "score": self.score}
        return {**head, **quotes, "settings": dict(self.settings), "bill": self.bill.to_dict()}


@dataclass(frozen=True, slots=True)
class RuledOut:
    """Preset that does not fit, with the reason.

    Attributes:
        preset: Its name.
        reasons: The rules that rule it out.
    """

    preset: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The presets that fit, best first, and those that do not.

    Attributes:
        requirements: What was asked for.
        ranked: Presets that fit, best first; of equal ones the cheaper, then the order of the matrix.
        ruled_out: The others, with what rules them out.
        understood: What was read from the description of a use case; empty where none was given.
    """

    requirements: Requirements
    ranked: tuple[RankedPreset, ...]
    ruled_out: tuple[RuledOut, ...]
    understood: tuple[Understood, ...] = ()

    @property
    def best(self) -> RankedPreset:
        """The first of the ranked.

        Raises:
            SettingsError: Every preset is ruled out; says by which rules.
        """
        if not self.ranked:
            names = ", ".join(sorted({reason.rule for row in self.ruled_out for reason in row.reasons}))
            raise SettingsError(f"No preset fits: the rules {names} leave none. Relax a requirement.")
        return self.ranked[0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        out = [
            {"preset": row.preset, "reasons": [asdict(reason) for reason in row.reasons]}
            for row in self.ruled_out
        ]
        ranked = [row.to_dict() for row in self.ranked]
        return {
            "understood": [part.to_dict() for part in self.understood],
            "requirements": self.requirements.to_dict(),
            "ranked": ranked,
            "ruled_out": out,
        }


def recommend(case: str | Requirements | Mapping[str, Any] | None = None, /, **named: Any) -> Recommendation:
    """Rank the presets for a case, by the rules of ``docs/choosing.md``.

    Args:
        case: A use case in words, a `Requirements`, or its fields as a mapping.
        **named: The same fields as keywords; beside words they go before what the words say.

    Raises:
        SettingsError: An unknown field, a value that does not fit, or words that say nothing of a case.

    Example:
        >>> found = recommend(documents=2_000, private=True)
        >>> found.best.preset, [row.preset for row in found.ruled_out][:2]
        ('healthcare', ['knowledge-base', 'customer-chatbot'])
        >>> recommend("annual reports and SEC filings").best.preset
        'financial-documents'
    """
    understood: tuple[Understood, ...] = ()
    if isinstance(case, str):
        understood = read_use_case(case)
        case, named = {**facts_of(understood), **named}, {}
    if case is not None and named:
        raise SettingsError("recommend takes a Requirements object or keywords, not both.")
    needs = requirements_from(named if case is None else case)
    pricer = Pricer()
    judged = [_judge(row, needs, pricer) for row in PRESETS.values()]
    ranked = [row for row in judged if isinstance(row, RankedPreset)]
    ranked.sort(key=lambda row: (-row.score, row.bill.total("month")))
    out = tuple(row for row in judged if isinstance(row, RuledOut))
    return Recommendation(requirements=needs, ranked=tuple(ranked), ruled_out=out, understood=understood)


def _judge(row: Preset, needs: Requirements, pricer: Pricer) -> RankedPreset | RuledOut:
    facts = {**asdict(needs), "images": "image" in needs.modalities, "budgeted": needs.budget_usd is not None}
    # The budget counts what will run: whether a row is swapped is settled first.
    swaps = [rule for rule in rules() if rule.verdict == "swap" and rule.applies(facts, row)]
    used = row.offline() if swaps else row
    bill = estimate_bill(used, needs, pricer)
    facts["over_budget"] = needs.budget_usd is not None and float(bill.total("month")) > needs.budget_usd
    applying = [rule for rule in rules() if rule.verdict != "swap" and rule.applies(facts, used)]
    out = tuple(_reason(rule) for rule in applying if rule.verdict == "out")
    if out:
        return RuledOut(row.name, out)
    by = {
        verdict: [rule for rule in applying if rule.verdict == verdict]
        for verdict in ("for", "against", "suggest")
    }
    return RankedPreset(
        preset=row.name,
        offline=bool(swaps),
        score=sum(rule.weight for rule in by["for"]) - sum(rule.weight for rule in by["against"] + swaps),
        reasons=tuple(map(_reason, by["for"])),
        cautions=tuple(map(_reason, [*swaps, *by["against"]])),
        suggestions=tuple(map(_reason, by["suggest"])),
        settings={key: value for rule in by["suggest"] for key, value in rule.suggest.items()},
        bill=bill,
    )


def _reason(rule: Rule) -> Reason:
    return Reason(rule.id, rule.text)
