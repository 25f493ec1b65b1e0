"""Ingest into an assembled engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_index_presets.errors import SettingsError
from llama_index_presets.ingest.pipeline import IngestReport, Pipeline
from llama_index_presets.ingest.progress import progress_bar
from llama_index_presets.ingest.sources import sources
from llama_index_presets.presets.assembly import Assembly

__all__ = ["ingest"]


def ingest(
    assembly: Assembly,
    data: Any,
    *,
    text_column: str | None,
    id_column: str | None,
    sync: bool,
    show_progress: bool | None,
) -> IngestReport:
    """See `PresetEngine.ingest`."""
    vanished = _vanished(data) if sync else None
    found = sources(data, text_column=text_column, id_column=id_column)
    pipeline = Pipeline(
        embed_model=assembly.embed_model,
        chunker=assembly.chunker,
        store=assembly.vector_store,
        manifest=assembly.manifest,
        keyword=assembly.retrieval.keyword,
        batch_chunks=assembly.settings.batch_chunks,
    )
    with progress_bar(show_progress) as progress:
        return pipeline.run(found, progress, sync=vanished)


def _vanished(data: Any) -> Callable[[str], bool]:
    """Which stored documents lie under the folders that are being synced."""
    roots = [data] if isinstance(data, str | Path) else data
    if not isinstance(roots, list | tuple | set) or not all(isinstance(root, str | Path) for root in roots):
        raise SettingsError(
            "sync works on folders: give paths, or delete documents with engine.vector_store.delete."
        )
    folders = [Path(root).resolve() for root in roots]
    return lambda doc_id: any(Path(doc_id) == folder or folder in Path(doc_id).parents for folder in folders)
