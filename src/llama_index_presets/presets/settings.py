"""The dials of an engine: one typed object, filled from a file, the environment and code, in rising precedence."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from llama_index_presets.errors import SettingsError

__all__ = ["Origins", "Settings", "load_settings"]

Origins = dict[str, str]
"""Setting -> where its value came from: ``default``, ``code``, ``LLAMA_PRESETS_…`` or the path of a file."""

_ENVIRONMENT = "LLAMA_PRESETS_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Dials with their defaults.

    Attributes:
        embedding: Another embedding model than the preset's, by its name in the catalogue.
        store: Another vector store, by its name in `parts.STORES`.
        pattern: Another pattern, by its name in `parts.PATTERNS`.
        monitoring: Another level, by its name in `parts.MONITORING`.
        llm: Another LLM, by its name in `parts.LLMS`.
        top_k: Passages that an answer may use.
        candidates: Hits that each leg of a hybrid search, or a re-ranker, is given; None takes 100 and 50.
        fusion: How a hybrid search fuses its legs; see `ranking.fusion.FUSIONS`.
        reranker: Folder or hub name of a cross-encoder; None takes the default of `CrossEncoderRerank`.
        blend: Weight of the retrieval score beside the re-ranker's, 0 to 1.
        context_tokens: Token budget of these passages in the prompt.
        answer_floor: Cosine below which a passage is no evidence, -1 to 1; None takes the embedding model's own.
        chunk_tokens: Longest chunk, in tokens of the embedding model; None takes what it reads, at most 512.
        batch_chunks: Chunks embedded and committed together at ingest.
        max_question_chars: Longest question, in characters.
        state: Folder for what an index whose `storage` is a URL keeps on this machine; see `storage.find_storage`.
    """

    embedding: str | None = None
    store: str | None = None
    pattern: str | None = None
    monitoring: str | None = None
    llm: str | None = None
    top_k: int = 5
    candidates: int | None = None
    fusion: str = "auto"
    reranker: str | None = None
    blend: float = 0.0
    context_tokens: int = 3_000
    answer_floor: float | None = None
    chunk_tokens: int | None = None
    batch_chunks: int = 256
    max_question_chars: int = 20_000
    state: str | None = None

    def __post_init__(self) -> None:
        for name in ("top_k", "context_tokens", "batch_chunks", "max_question_chars"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.chunk_tokens is not None and self.chunk_tokens < 16:
            raise SettingsError(f"chunk_tokens is {self.chunk_tokens}; a chunk needs at least 16.")
        if self.candidates is not None and self.candidates < 1:
            raise SettingsError(f"candidates is {self.candidates}; it must be at least 1.")
        if not 0 <= self.blend <= 1:
            raise SettingsError(f"blend is {self.blend}; a weight lies between 0 and 1.")
        if self.answer_floor is not None and not -1 <= self.answer_floor <= 1:
            raise SettingsError(f"answer_floor is {self.answer_floor}; a cosine lies between -1 and 1.")

    def cells(self) -> dict[str, str]:
        """The cells of the matrix that are chosen otherwise: column -> choice."""
        chosen = {
            column: getattr(self, column) for column in ("embedding", "store", "pattern", "monitoring", "llm")
        }
        return {column: choice for column, choice in chosen.items() if choice is not None}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def load_settings(given: Mapping[str, Any] | Settings | str | Path | None) -> tuple[Settings, Origins]:
    """Fill the settings.

    Args:
        given: Values from code, a `Settings`, or the path of a TOML file; the environment
            (``LLAMA_PRESETS_TOP_K=8``) goes before the file and after code.

    Raises:
        SettingsError: Unknown names, wrong types or values out of range.

    Example:
        >>> load_settings({"top_k": 3})[0].top_k
        3
    """
    if isinstance(given, Settings):
        return given, dict.fromkeys(asdict(given), "code")
    from_file = _read(Path(given)) if isinstance(given, str | Path) else {}
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (str(given), from_file),
        ("environment", _environment()),
        ("code", given if isinstance(given, Mapping) else {}),
    ]
    values: dict[str, Any] = {}
    origins: Origins = {field.name: "default" for field in fields(Settings)}
    for origin, layer in layers:
        for name, value in layer.items():
            values[name] = _checked(name, value, origin)
            origins[name] = origin if origin != "environment" else _ENVIRONMENT + name.upper()
    return Settings(**values), origins


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file '{path}' cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The settings file '{path}' is not TOML ({error}).") from error


def _environment() -> dict[str, Any]:
    names = {_ENVIRONMENT + field.name.upper(): field.name for field in fields(Settings)}
    return {name: _number(os.environ[key]) for key, name in names.items() if key in os.environ}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked(name: str, value: Any, origin: str) -> Any:
    known = {field.name: str(field.type) for field in fields(Settings)}
    if name not in known:
        nearest = get_close_matches(name, known, n=1)
        hint = f"Did you mean '{nearest[0]}'?" if nearest else f"Known: {', '.join(known)}."
        raise SettingsError(f"There is no setting '{name}' (from {origin}). {hint}")
    allowed: dict[str, tuple[type, ...]] = {"str": (str,), "float": (int, float), "int": (int,)}
    kinds = allowed[known[name].split(" ")[0]]
    if isinstance(value, bool) or not (isinstance(value, kinds) or (value is None and "None" in known[name])):
        raise SettingsError(f"{name} is {value!r} (from {origin}); expected {known[name]}.")
    return value
