"""Readiness of a row: one list of what stands between it and an engine on this machine.

`list`, `show`, `init`, `doctor` and the error of `build` all read this list, so none says "ready" of what cannot run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import has_weights
from llama_index_presets.errors import ModelError
from llama_index_presets.presets.checks.local_weights import find_reranker
from llama_index_presets.presets.estimates.model_uses import ModelUse, model_uses
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.settings import Settings
from llama_index_presets.providers.embedding_models import CATALOGUE, read_embedding_name
from llama_index_presets.providers.rerankers import CROSS_ENCODER, DEFAULT_RERANKER, read_reranker_name

__all__ = ["STORE_KEYS", "Obstacle", "obstacles"]

Kind = Literal["parts", "keys", "weights", "address"]

STORE_KEYS: Final = {"pinecone": "PINECONE_API_KEY"}
"""Key of `matrix.STORES` -> the variable that its key comes from."""
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing that an engine of a row lacks.

    Attributes:
        kind: ``"parts"`` (a package), ``"keys"``, ``"weights"`` or ``"address"``.
        fact: What is the matter, in words.
        fix: What to do about it.
        refused: Whether `build` refuses; otherwise it goes on, and downloads what is missing or does without.
    """

    kind: Kind
    fact: str
    fix: str = ""
    refused: bool = True

    @property
    def line(self) -> str:
        """Both in one line, for a person."""
        return f"{self.fact}: {self.fix}" if self.fix else self.fact


def obstacles(
    row: Preset, settings: Settings, *, replaced: frozenset[str] = frozenset(), reach: bool = False
) -> list[Obstacle]:
    """Everything that an engine of a row lacks here; an empty list means that it is ready.

    Args:
        row: As the settings choose it, with `offline` applied where it is wanted.
        settings: Name a reranker, and the options of the models.
        replaced: Columns whose part the caller brings along, and ``"reranker"``.
        reach: Whether servers are asked for a connection, 2 s each; nothing is sent.

    Example:
        >>> from llama_index_presets.presets.matrix import preset
        >>> [obstacle.kind for obstacle in obstacles(preset("healthcare"), Settings())]
        []
    """
    uses = [use for use in model_uses(row, settings) if use.part not in replaced]
    found = [
        *_parts(row, replaced),
        *_keys(row, uses, replaced),
        *_weights(row, settings, replaced),
        *(_addresses(uses) if reach else ()),
    ]
    return list(dict.fromkeys(found))


def _parts(row: Preset, replaced: frozenset[str]) -> Iterator[Obstacle]:
    for line in row.missing(replaced=replaced):
        fact, _, fix = line.partition(": pip install")
        yield Obstacle(kind="parts", fact=fact, fix=f"pip install{fix}" if fix else "")


def _keys(row: Preset, uses: list[ModelUse], replaced: frozenset[str]) -> Iterator[Obstacle]:
    fix = "Set it, put it into the .env beside the settings file, or use offline=True (--offline)."
    wanting = [use for use in uses if use.key and not use.key_from and not use.on_this_machine]
    for key in dict.fromkeys(use.key for use in wanting):
        sharing = ", ".join(f"{use.part} '{use.name}'" for use in wanting if use.key == key)
        yield Obstacle(kind="keys", fact=f"{key} is not set ({sharing})", fix=fix)
    key = STORE_KEYS.get(row.store, "")
    if key and "store" not in replaced and not os.environ.get(key):
        # `check_place` refuses, and knows the address.
        yield Obstacle(kind="keys", fact=f"{key} is not set (store '{row.store}')", fix=fix, refused=False)


def _weights(row: Preset, settings: Settings, replaced: frozenset[str]) -> Iterator[Obstacle]:
    read = read_embedding_name(row.embedding)
    if "embedding" not in replaced and read.provider == CATALOGUE:
        model = embedding_model(row.embedding)
        if model.provider == "local" and not _has(row.embedding):
            yield Obstacle(
                kind="weights",
                fact=f"the weights of '{model.name}' are not on this machine",
                fix=f"llama-presets weights pull {model.name}",
                refused=row.monitoring == "local",  # which downloads nothing
            )
    if row.pattern == "advanced" and "reranker" not in replaced:
        name = settings.reranker or DEFAULT_RERANKER
        if read_reranker_name(name).provider == CROSS_ENCODER and find_reranker(name) is None:
            yield Obstacle(
                kind="weights",
                fact=f"the re-ranker '{name}' is not on this machine",
                fix="Download it once, or copy its folder and name that in the setting 'reranker'.",
                refused=row.monitoring == "local",
            )


def _has(embedding: str) -> bool:
    try:
        return has_weights(embedding_model(embedding))
    except ModelError:  # the folder of an own model is not there
        return False


def _addresses(uses: list[ModelUse]) -> Iterator[Obstacle]:
    for use in uses:
        place = urlsplit(use.endpoint)
        if not place.hostname:
            continue
        port = place.port or (443 if place.scheme == "https" else 80)
        try:
            socket.create_connection((place.hostname, port), timeout=_PATIENCE_S).close()
        except OSError as error:
            yield Obstacle(
                kind="address",
                fact=f"{place.hostname}:{port} cannot be reached ({use.part} '{use.name}'; {error})",
                fix="Start the server, or correct the address.",
                refused=False,
            )
