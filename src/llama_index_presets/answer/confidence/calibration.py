"""Calibration: what turns evidence into the probability that an answer is there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_toml

__all__ = ["CALIBRATION_FILE", "FEATURES", "Calibration", "calibration_of", "find_calibrations"]

CALIBRATION_FILE: Final = "calibration.toml"
"""File of a storage with the calibration that ``llama-presets evaluate --calibrate`` made for it."""

FEATURES: Final = ("coverage", "similarity", "margin", "names", "typed", "heading", "lead")
"""Names of the features, in the order of `Calibration.weights`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Weights of the features in the log-odds that the answer is there, and the probability below which it is not.

    Attributes:
        intercept: Log-odds where every feature is 0.
        coverage: Weight of the share of the question's words, 0 to 1.
        similarity: Weight of the cosine.
        margin: Weight of the difference of cosines between the best hit and the best of another document.
        names: Weight of the share of the question's names, numbers and codes, 0 to 1.
        typed: Weight of whether the number, date or name is there that the question asks for, 0 to 1.
        heading: Weight of how much closer the heading is than what stands below it, -1 to 1.
        lead: Weight of how much further than usual the quoted sentence is ahead of the next one, -0.15 to 0.35.
        floor: Probability below which the answer is "I don't know", 0 to 1.

    Example:
        >>> Calibration(intercept=-2.0, coverage=4.0, floor=0.5).probability((1, 0, 0, 0, 0, 0, 0)) > 0.5
        True
    """

    intercept: float
    coverage: float = 0.0
    similarity: float = 0.0
    margin: float = 0.0
    names: float = 0.0
    typed: float = 0.0
    heading: float = 0.0
    lead: float = 0.0
    floor: float = 0.5

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights in the order of `FEATURES`."""
        return (
            self.coverage,
            self.similarity,
            self.margin,
            self.names,
            self.typed,
            self.heading,
            self.lead,
        )

    def probability(self, features: Sequence[float]) -> float:
        """Probability that the answer is there, 0 to 1, of features in the order of `FEATURES`."""
        odds = self.intercept + sum(w * x for w, x in zip(self.weights, features, strict=True))
        return 1 / (1 + math.exp(-max(min(odds, 50.0), -50.0)))


def calibration_of(values: Mapping[str, Any]) -> Calibration:
    """Read a calibration from a table of numbers, as the catalogue and ``calibration.toml`` have it.

    Raises:
        SettingsError: A key is unknown or missing, a value is no number, or the floor is no probability.

    Example:
        >>> calibration_of({"intercept": -1, "coverage": 3, "floor": 0.4}).floor
        0.4
    """
    known = set(Calibration.__dataclass_fields__)
    wrong = sorted(set(values) - known) + [
        key for key, value in values.items() if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if wrong or "intercept" not in values or not 0 <= values.get("floor", 0.5) <= 1:
        raise SettingsError(
            f"A calibration has numbers for {', '.join(Calibration.__dataclass_fields__)}, the floor between 0 and 1; "
            f"found {dict(values)}."
        )
    return Calibration(**{key: float(value) for key, value in values.items()})


def find_calibrations(
    folder: Path,
    known: Mapping[str, Mapping[str, float]] | None,
    *,
    min_confidence: float | None = None,
) -> dict[str, Calibration]:
    """Calibrations ``evidence`` and ``sentences``: those of the storage, else those of the embedding model.

    Args:
        folder: Of the storage: a calibration of its own is kept there.
        known: Those of the embedding model; None wants none, of the storage neither.
        min_confidence: Replaces their floors, 0 to 1.

    Raises:
        SettingsError: The file of the storage is no TOML, or has something else in it.
    """
    if known is None:
        return {}
    file = folder / CALIBRATION_FILE
    tables = _tables(file) if file.is_file() else known
    found = {name: calibration_of(table) for name, table in tables.items()}
    if min_confidence is None:
        return found
    return {name: replace(calibration, floor=min_confidence) for name, calibration in found.items()}


def _tables(file: Path) -> Mapping[str, Any]:
    try:
        tables = read_toml(file)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The calibration '{file}' cannot be read ({error}). Remove it, or calibrate again."
        ) from error
    if set(tables) - {"evidence", "sentences"} or not all(
        isinstance(table, dict) for table in tables.values()
    ):
        raise SettingsError(
            f"The calibration '{file}' has {', '.join(tables)}; expected the tables evidence and sentences."
        )
    return tables
