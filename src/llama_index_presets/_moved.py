"""Old paths of documented modules: importable for one release, with a warning that names the new path."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = __name__.rpartition(".")[0]
MOVED: Final[dict[str, str]] = {
    "answer.budget": "answer.context",
    "disk_faults": "files.disk_faults",
    "embed.cached_images": "embed.cached",
    "embed.frames": "embed.dataframes",
    "encryption": "files.encryption",
    "ingest.chunk": "ingest.chunking.chunk",
    "ingest.document_source": "ingest.sources.document_source",
    "ingest.frames": "ingest.sources.frames",
    "ingest.preview": "ingest.previews.preview",
    "ingest.preview_page": "ingest.previews.page",
    "ingest.watch": "ingest.sources.watch",
    "monitor.audit_key": "monitor.audit",
    "monitor.context": "monitor.attribution",
    "monitor.html": "monitor.ledger.report",
    "monitor.logs": "monitor.json_log",
    "monitor.report": "monitor.ledger.report",
    "monitor.stats": "monitor.ledger.queries",
    "presets.eject": "advise.eject",
    "presets.engine_checks": "diagnose.checks",
    "presets.estimate": "presets.estimates.ingestion",
    "presets.evaluation": "experiments.evaluation",
    "presets.ingest_estimate": "presets.estimates.ingestion",
    "presets.language_models": "providers.language_models",
    "presets.openai_llm": "providers.openai_llm",
    "presets.recommend": "advise.recommend",
    "presets.storage": "presets.index.storage",
    "retrieve.keyword": "retrieve.bm25.index",
    "retrieve.step": "retrieve.bm25.consistency",
    "sealing": "files.encryption",
    "store.embedded_postgres": "store.postgres.embedded",
    "store.lancedb_index": "store.lancedb.indexes",
    "store.lancedb_maintenance": "store.lancedb.indexes",
}
"""Old path -> new path, both below the package; they go with the next release."""

LEAK_TEST_MOVED: Final = (
    "The leak test of traces is not part of the package any more. Run it from a checkout of the repository: "
    "python tools/leaks.py PRESET, or --app module:function for an application of your own."
)
EMBED_TO_FILE_REMOVED: Final = (
    "embed_to_file is not part of the package any more. Read the file in batches with PyArrow or Polars and give each "
    "to embed_dataframe; docs/components/embeddings.md shows the loop."
)
REMOVED: Final[dict[str, str]] = {
    "diagnose.leaks": LEAK_TEST_MOVED,
    "monitor.leaks": LEAK_TEST_MOVED,
    "monitor.otlp_receiver": LEAK_TEST_MOVED,
    "presets.leak_app": LEAK_TEST_MOVED,
}
"""Old path of a module that left the package -> what to use instead."""


class MovedModules:
    """Import finder for modules under their old path; last in line, so that current paths cost nothing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of an old path, None for every other name."""
        old = fullname.removeprefix(_PACKAGE + ".")
        known = fullname != old and (old in MOVED or old in REMOVED)
        return ModuleSpec(fullname, self) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Module that forwards every name to the new one.

        Raises:
            ModuleNotFoundError: The module left the package; the message says what to use.
        """
        old = spec.name.removeprefix(_PACKAGE + ".")
        if old in REMOVED:
            raise ModuleNotFoundError(f"{spec.name}: {REMOVED[old]}", name=spec.name)
        new = f"{_PACKAGE}.{MOVED[old]}"
        # The frames between the import statement and this line are importlib's, which warnings skips.
        warnings.warn(
            f"{spec.name} has moved to {new}. Import it from there.", DeprecationWarning, stacklevel=2
        )
        module, target = ModuleType(spec.name, f"Moved to `{new}`."), importlib.import_module(new)

        def give(name: str) -> Any:
            return getattr(target, name)

        module.__dict__["__getattr__"] = give
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the names come from the new module."""


def install() -> None:
    """Append the finder to Python's own, once."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
