"""What `offline=True` makes of a row: local counterparts, and an explicit stand-in where weights are not there."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import cache_folder, has_weights
from llama_index_presets.errors import StoreError
from llama_index_presets.presets.matrix import Preset, stand_in
from llama_index_presets.presets.rerankers import DEFAULT_RERANKER, find_reranker
from llama_index_presets.presets.settings import Settings
from llama_index_presets.presets.storage import Storage, find_storage, read_card

__all__ = ["OfflineRow", "go_offline"]


@dataclass(frozen=True, slots=True)
class OfflineRow:
    """A row that runs without a network.

    Attributes:
        row: With local cells; `Preset.swapped` names what stood there before.
        notices: What it cannot do on this machine and how to change that, a sentence or two each.
    """

    row: Preset
    notices: tuple[str, ...] = ()


def go_offline(row: Preset, storage: str | Path, settings: Settings, by_hand: Collection[str]) -> OfflineRow:
    """Swap networked cells, then those whose weights are not on this machine.

    A cell that the caller fills by hand, and a re-ranker that the settings name, are left alone.

    Args:
        row: Row of the matrix.
        storage: Where the index lies: one that a stand-in made stays with it.
        settings: Names a re-ranker, or none.
        by_hand: Columns whose part the caller brings along.
    """
    row, notices = row.offline(), []
    if "embedding" not in by_hand:
        row, notice = _embedding(row, find_storage(storage, state=settings.state))
        notices += notice
    if row.pattern == "advanced" and "reranker" not in by_hand and settings.reranker is None:
        row, notice = _pattern(row)
        notices += notice
    return OfflineRow(row, tuple(notices))


def _embedding(row: Preset, storage: Storage) -> tuple[Preset, list[str]]:
    wanted, other = row.embedding, stand_in(row.embedding)
    if other is None or embedding_model(wanted).provider != "local":
        return row, []
    made_with = _made_with(storage)
    if made_with != other and (made_with == wanted or has_weights(embedding_model(wanted))):
        return row, []
    reason = (
        f"this index was made with '{other}', the stand-in for '{wanted}' on a machine without its weights"
        if made_with == other
        else f"the weights of '{wanted}' are not on this machine, so '{other}' embeds in its place"
    )
    if embedding_model(wanted).modality == "image":
        reason += ", texts only: pictures are left out"
    notice = (
        f"A stand-in embeds: {reason}. For '{wanted}', put its folder at {cache_folder() / 'models' / wanted} and "
        "ingest into a new storage."
    )
    return _swapped(row, "embedding", other), [notice]


def _pattern(row: Preset) -> tuple[Preset, list[str]]:
    if find_reranker(DEFAULT_RERANKER):
        return row, []
    notice = (
        f"Re-ranking is off: the weights of '{DEFAULT_RERANKER}' are not on this machine, so passages keep the order "
        f"of the vector search. Get them once where there is a network (hf download {DEFAULT_RERANKER}), or name the "
        "folder of a cross-encoder in the setting 'reranker'."
    )
    return _swapped(row, "pattern", "simple"), [notice]


def _swapped(row: Preset, column: str, choice: str) -> Preset:
    before = dict(row.swapped).get(column, getattr(row, column))
    swapped = {**dict(row.swapped), column: before}
    return replace(row, swapped=tuple(swapped.items())).with_cells({column: choice})


def _made_with(storage: Storage) -> str | None:
    """Name of the model that made an index, or None where there is none yet."""
    try:
        fingerprint = str(read_card(storage)["fingerprint"])
    except StoreError:  # no index, or a damaged one, which opening it reports
        return None
    found = re.search(r"model=([^;]+)", fingerprint)
    return found[1].rsplit("/", 1)[-1] if found else None
