"""Reports of ingest jobs: the sum of those of their batches, as their sender may see them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.uploads import document_id

__all__ = ["all_failed", "shown", "sum_of"]


def sum_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two reports as one: numbers and lists are added, an unknown cost stays unknown."""
    total = dict(first)
    for name, value in second.items():
        before = total.get(name)
        if name in first and (value is None or before is None):
            total[name] = None
        elif isinstance(value, dict):
            total[name] = {**(before or {}), **value}
        elif before is not None and isinstance(value, int | float | list):
            total[name] = before + value
        else:
            total[name] = value
    return total


def shown(report: Mapping[str, Any], state: Path, caller: Caller) -> dict[str, Any]:
    """A report without the server's folders."""
    failed = [
        {
            **one,
            "source": document_id(state, caller, str(one["source"])),
            "error": _without(state, str(one["error"])),
        }
        for one in report.get("failed", ())
    ]
    personal = {
        document_id(state, caller, name): counts for name, counts in report.get("personal_data", {}).items()
    }
    return {**report, "failed": failed, "personal_data": personal}


def _without(state: Path, text: str) -> str:
    return text.replace(state.as_posix() + "/", "")


def all_failed(report: Mapping[str, Any], total: int) -> bool:
    """Whether no document of a job was ingested."""
    return total > 0 and len(report.get("failed", ())) >= total
