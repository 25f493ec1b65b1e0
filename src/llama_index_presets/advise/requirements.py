"""Requirements of a use case, the input of a recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import SettingsError

__all__ = ["Priority", "Requirements", "requirements_from"]

Priority = Literal["accuracy", "balanced", "cost"]
_MODALITIES = ("text", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Requirements of a use case.

    Attributes:
        documents: How many there will be.
        tokens_per_document: Their mean length, in tokens; for the estimate.
        queries_per_month: How many questions will be asked.
        private: Whether no text may leave the machine.
        offline: Whether there is no network.
        postgres: Whether a PostgreSQL is there already.
        gpu: Whether there is a GPU to run models on.
        modalities: ``"text"``, ``"image"`` or both.
        priority: What decides where both cannot be had: accuracy or cost.
        customers: Whether answers face customers.
        exact_words: Whether acronyms, part numbers, tickers or names matter.
        near_duplicates: Whether many passages are almost alike.
        audited: Whether every query needs a record.
        budget_usd: Most that a month may cost, in US dollars; None is no limit.

    Raises:
        SettingsError: A number is out of range, or a word is not known.
    """

    documents: int = 10_000
    tokens_per_document: int = 800
    queries_per_month: int = 10_000
    private: bool = False
    offline: bool = False
    postgres: bool = False
    gpu: bool = False
    modalities: tuple[str, ...] = ("text",)
    priority: Priority = "balanced"
    customers: bool = False
    exact_words: bool = False
    near_duplicates: bool = False
    audited: bool = False
    budget_usd: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        for field in fields(self):
            _check(field.name, str(field.type), getattr(self, field.name))
        if not self.modalities or set(self.modalities) - set(_MODALITIES):
            raise SettingsError(f"modalities is {list(self.modalities)}; expected 'text', 'image' or both.")
        if self.priority not in get_args(Priority):
            raise SettingsError(f"priority is {self.priority!r}; expected {', '.join(get_args(Priority))}.")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "modalities": list(self.modalities)}


def requirements_from(given: Mapping[str, Any] | Requirements) -> Requirements:
    """Check a mapping, such as a parsed JSON object.

    Raises:
        SettingsError: An unknown name, or a value that does not fit.

    Example:
        >>> requirements_from({"documents": 500, "private": True}).private
        True
    """
    if isinstance(given, Requirements):
        return given
    known = [field.name for field in fields(Requirements)]
    for name in given:
        if name not in known:
            raise SettingsError(f"There is no requirement '{name}'. {did_you_mean(str(name), known)}")
    return Requirements(**given)


def _check(name: str, kind: str, value: Any) -> None:
    if kind == "bool" and not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}; expected true or false.")
    if kind not in ("int", "float | None") or value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if not number or value < 0 or (kind == "int" and value != int(value)):
        raise SettingsError(
            f"{name} is {value!r}; expected a {'whole ' * (kind == 'int')}number of 0 or more."
        )
