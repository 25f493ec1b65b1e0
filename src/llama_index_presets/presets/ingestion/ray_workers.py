"""Ingestion on a Ray cluster: what it cannot do, and what a worker opens, by name and never by hand."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from llama_index_presets._addresses import is_loopback
from llama_index_presets.errors import FingerprintError, SettingsError
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.ingest.pipeline import Pipeline
from llama_index_presets.ingest.privacy.watch import PrivacyWatch
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.estimates.ingestion import Estimator
from llama_index_presets.presets.index.encryption import choose_encryption
from llama_index_presets.presets.index.storage import Storage
from llama_index_presets.presets.index.stores import open_store
from llama_index_presets.presets.ingestion.ray import OpenedWorker, Recorder
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.models import (
    make_chunker,
    make_fingerprint,
    open_embedding,
    reads_images,
)
from llama_index_presets.presets.settings import Settings

__all__ = ["RayWorker", "check_ray", "ray_worker"]

_HERE = (None, "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayWorker:
    """Opens what a worker needs. A plain value that travels; keys do not: workers find them in their environment.

    Attributes:
        row: The row, with `offline` applied.
        place: Where the engine's storage is; with the URL of the vectors, password included.
        settings: Effective settings.
        fingerprint: What the index is made with.
        local: Whether nothing may leave the machine.
        overrides: Metadata of the run.
    """

    row: Preset
    place: Storage = field(repr=False)
    settings: Settings
    fingerprint: str
    local: bool
    overrides: MetadataOverrides

    def __call__(self, recorder: Recorder) -> OpenedWorker:
        """Open it.

        Raises:
            SettingsError: A key is missing on the worker.
            FingerprintError: The worker has another version of the model or the chunker.
        """
        encryption = choose_encryption(self.settings, self.row.pattern, self.place)
        embed_model = open_embedding(
            self.row, self.settings, self.place, local=self.local, queries=False,
            hash_key=encryption.sealer.hash_key if encryption else None,
        )  # fmt: skip
        chunker = make_chunker(
            embed_model, self.settings.chunk_tokens, self.settings.chunking, self.settings.chunk_context
        )
        fingerprint = replace(
            make_fingerprint(embed_model, chunker), encryption=encryption.label if encryption else ""
        )
        if str(fingerprint) != self.fingerprint:
            raise FingerprintError(
                f"The worker makes {fingerprint}, the index holds {self.fingerprint}. Install the same release there.",
                stored=self.fingerprint,
                given=str(fingerprint),
            )
        opened = ExitStack()  # open until the worker's process ends
        store = open_store(self.row.store, self.place, fingerprint, opened)
        estimator = Estimator(
            embed_model=embed_model, chunker=chunker, store=self.row.store, dim=fingerprint.dim, known={}
        )
        pipeline = Pipeline(
            embed_model=embed_model,
            chunker=chunker,
            store=encryption.over(store) if encryption else store,
            manifest=cast(Manifest, recorder),
            batch_chunks=self.settings.batch_chunks,
            count_tokens=estimator.count_tokens,
        )
        watch = None if self.settings.pii == "off" else PrivacyWatch(self.settings.pii)
        return OpenedWorker(
            pipeline, self.overrides, watch, SizeLimit(self.settings.max_document_mb, self.settings.ocr)
        )


def ray_worker(parts: EngineParts, overrides: MetadataOverrides) -> RayWorker:
    """The worker of an engine."""
    return RayWorker(
        row=parts.preset,
        place=parts.storage,
        settings=parts.settings,
        fingerprint=str(parts.fingerprint),
        local=parts.preset.monitoring == "local" or bool(parts.preset.swapped),
        overrides=overrides,
    )


def check_ray(parts: EngineParts, data: Any, address: str | None) -> None:
    """Refuse what cannot be ingested on a cluster, before anything is started.

    Raises:
        SettingsError: Parts given by hand, a store or pattern with one writer, images, data without paths, or a cluster
            elsewhere where nothing may leave the machine.
    """
    row = parts.preset
    by_hand = sorted({"embedding", "store"} & parts.overrides.keys())
    paths = [data] if isinstance(data, str | Path) else data
    reasons = {
        f"{' and '.join(by_hand)} given by hand cannot be opened by workers; name them in settings": by_hand,
        'DuckDB takes one process; set store = "lancedb"': row.store == "duckdb",
        "the keyword index of the hybrid pattern has one writer": row.pattern == "hybrid",
        "images are ingested on one machine": reads_images(parts.embed_model),
        "context sentences of a language model are written on one machine": parts.settings.chunk_context
        == "llm",
        "workers read files; give paths": not (
            isinstance(paths, list | tuple | set) and all(isinstance(path, str | Path) for path in paths)
        ),
        f"the cluster at '{address}' is not on this machine, and nothing may leave it": (
            row.monitoring == "local" and address not in _HERE and not is_loopback(str(address))
        ),
    }
    wrong = [reason for reason, holds in reasons.items() if holds]
    if wrong:
        raise SettingsError(f"This cannot be ingested with Ray: {'; '.join(wrong)}.")
