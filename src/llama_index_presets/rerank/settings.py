"""Refuse settings that cannot work, before a model is loaded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_presets.errors import SettingsError

__all__ = ["check_settings"]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the arguments of a `CrossEncoderRerank`.

    Raises:
        SettingsError: A value is out of range; the message names it and what was expected.
    """
    for name in ("top_n", "batch_size"):
        _expect(settings[name] >= 1, name, settings[name], "a whole number >= 1")
    _expect(settings["cache_size"] >= 0, "cache_size", settings["cache_size"], "a whole number >= 0")
    _expect(0 <= settings["blend"] <= 1, "blend", settings["blend"], "a number from 0 to 1")
    low, wait, length = settings["min_score"], settings["deadline_ms"], settings["max_length"]
    _expect(low is None or 0 <= low <= 1, "min_score", low, "None or a number from 0 to 1")
    _expect(wait is None or wait > 0, "deadline_ms", wait, "None or a number > 0")
    _expect(length is None or length >= 8, "max_length", length, "None or a whole number >= 8")
    choices = {
        "backend": ("torch", "onnx", "openvino"),
        "precision": ("auto", "float32", "bfloat16"),
        "long_text": ("truncate", "best_window"),
    }
    for name, known in choices.items():
        _expect(settings[name] in known, name, settings[name], f"one of {', '.join(known)}")
    if settings["backend"] != "torch" and settings["precision"] == "bfloat16":
        raise SettingsError(
            f"precision='bfloat16' needs backend='torch', not '{settings['backend']}': an exported model "
            "keeps the precision it was exported in. Leave precision at 'auto'."
        )


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"{name} is {value!r}; expected {expected}.")
