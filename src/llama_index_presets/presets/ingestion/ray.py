"""Ingest on a Ray cluster: workers read, cut, embed and store whole documents; this process keeps the manifest.

Nothing but paths goes to the workers and nothing but a line a document comes back, so neither text nor vectors pass
through this process or the object store.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, TextNode, TransformComponent

from llama_index_presets._options import strict
from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.limits import DEFAULT_LIMIT, SizeLimit
from llama_index_presets.ingest.manifest import ManifestEntry
from llama_index_presets.ingest.metadata.overrides import MetadataOverrides
from llama_index_presets.ingest.pipeline import FailedSource, IngestReport, Pipeline
from llama_index_presets.ingest.privacy.watch import PrivacyWatch
from llama_index_presets.ingest.progress import Progress, Silent
from llama_index_presets.ingest.sources.source import Source, file_source
from llama_index_presets.packages.extras import require

__all__ = ["IngestDocuments", "OpenedWorker", "RayLoad", "Recorder", "WorkerOpener", "ray_cluster"]

_DOCUMENTS = 32  # a worker takes and commits together; what a lost worker costs
_AGAIN = "again"
_BATCH_KEYS = ("embedded", "tokens", "seconds")


class Recorder:
    """Manifest stand-in on a worker: collects entries that the driver process will write."""

    def __init__(self) -> None:
        self.entries: list[ManifestEntry] = []

    def hashes(self) -> dict[str, str]:
        """Empty: a worker is only given documents that need work."""
        return {}

    def begin(self, doc_ids: Any) -> None:
        """Do nothing: the driver has logged the intent."""

    def record(self, entries: Any) -> None:
        """Collect documents that are in the store."""
        self.entries += entries

    def forget(self, doc_ids: Any) -> None:
        """Do nothing: a worker has no entries."""


@dataclass(frozen=True, slots=True)
class OpenedWorker:
    """Objects that a worker needs, opened.

    Attributes:
        pipeline: From sources to the store.
        overrides: Metadata that the run puts on documents.
        watch: Looks for personal data, or None.
        limit: What a file may expand to.
    """

    pipeline: Pipeline
    overrides: MetadataOverrides
    watch: PrivacyWatch | None
    limit: SizeLimit = DEFAULT_LIMIT


class WorkerOpener(Protocol):
    """Factory that opens, on a worker, the objects it needs; must survive pickling."""

    def __call__(self, recorder: Recorder) -> OpenedWorker:
        """Open; the pipeline records into `recorder`."""


@strict()
class IngestDocuments(TransformComponent):
    """Worker's transformation: documents to ingest in, their outcomes out.

    Its nodes carry no text. Going in, ``id_`` is the document's path; coming out, the metadata holds ``hash``,
    ``chunks`` and ``document_tokens``, or ``error`` for a document that was left out, or ``fatal`` where the
    store or the model failed; the first node of a batch also holds what the whole batch used.

    Args:
        opener: See `WorkerOpener`; called once a worker.
    """

    opener: Any
    _opened: Any = PrivateAttr(default=None)
    _recorder: Recorder = PrivateAttr(default_factory=Recorder)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:
        """Ingest a batch."""
        began = time.perf_counter()
        try:
            report, entries, personal = self._load(nodes)
        except Exception as error:  # said in one line there; raised here, it would be a stack of Ray's
            fatal = {"fatal": f"{type(error).__name__}: {error}"}
            return [TextNode(id_=node.node_id, text="", metadata=fatal) for node in nodes]
        failed = {failure.source: failure.error for failure in report.failed}
        results: list[BaseNode] = []
        for node in nodes:
            entry = entries.get(node.node_id)
            about: dict[str, Any] = {
                "personal": personal.get(node.node_id),
                "warnings": report.warnings.get(node.node_id),
            }
            if entry is not None:
                about |= {"hash": entry.content_hash, "chunks": entry.chunks, "document_tokens": entry.tokens}
                about |= {"language": entry.language, "reader_version": entry.reader_version}
            else:
                about["error"] = failed.get(node.node_id, "The worker said nothing about it.")
            results.append(TextNode(id_=node.node_id, text="", metadata=about))
        used = (report.embedded, report.tokens, time.perf_counter() - began)
        results[0].metadata |= dict(zip(_BATCH_KEYS, used, strict=True))
        return results

    def _load(
        self, nodes: Sequence[BaseNode]
    ) -> tuple[IngestReport, dict[str, ManifestEntry], dict[str, dict[str, int]]]:
        if self._opened is None:
            self._opened = self.opener(self._recorder)
        opened: OpenedWorker = self._opened
        self._recorder.entries.clear()
        report = IngestReport()
        found, watch = (
            opened.overrides.over(
                replace(
                    file_source(Path(node.node_id), limit=opened.limit), again=bool(node.metadata.get(_AGAIN))
                )
                for node in nodes
            ),
            opened.watch,
        )
        if watch is not None:
            watch.found.clear()
            found = watch.over(found)
        opened.pipeline.load(found, report, Silent())
        return (
            report,
            {entry.doc_id: entry for entry in self._recorder.entries},
            dict(watch.found) if watch else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RayLoad:
    """Loader of documents on a Ray cluster, in place of `Pipeline.load`.

    All documents are noted in the manifest before the first worker stores anything, and recorded as they arrive, so a
    run that is killed goes on where it was.

    Attributes:
        opener: See `WorkerOpener`.
        manifest: What the store holds.
        watch: Collects personal data that workers found, or None.
        used: Told the chunks, tokens and seconds of each batch.
        address: Address of the cluster; None or ``"local"`` starts one on this machine.
        documents_a_batch: Documents that a worker takes and commits together; what a lost worker costs.
    """

    opener: WorkerOpener
    manifest: Any
    watch: PrivacyWatch | None
    used: Callable[[int, int, float], None]
    address: str | None = None
    documents_a_batch: int = _DOCUMENTS

    def __call__(self, documents: Sequence[Source], report: IngestReport, progress: Progress) -> None:
        """Ingest documents that are new or changed.

        Raises:
            IngestError: No cluster answers, or a worker's store or model failed. What was stored before is recorded.
        """
        if not documents:
            return
        owners = {source.doc_id: source.owner for source in documents}
        with ray_cluster(self.address) as ray:
            self.manifest.begin(owners)
            for result in self._results(ray, documents):
                self._take(result, report, owners)
                progress.advance()

    def _results(self, ray: Any, documents: Sequence[Source]) -> Iterator[TextNode]:
        adapter = require("llama_index.ingestion.ray", extra="ray")
        codec = require("llama_index.ingestion.ray.utils", extra="ray")
        workers, resources = _workers(ray, len(documents), self.documents_a_batch)
        step = adapter.RayTransformComponent(
            transform_class=IngestDocuments,
            transform_kwargs={"opener": self.opener},
            map_batches_kwargs={
                "batch_size": self.documents_a_batch,
                "compute": ray.data.ActorPoolStrategy(size=workers),
                **resources,
            },
        )
        todo = [
            codec.ray_serialize_node(TextNode(id_=source.doc_id, text="", metadata={_AGAIN: source.again}))
            for source in documents
        ]
        blocks = max(workers, -(-len(todo) // self.documents_a_batch))
        try:
            for row in step(
                ray.data.from_items(todo, override_num_blocks=min(blocks, len(todo)))
            ).iter_rows():
                yield codec.ray_deserialize_node(row)
        except ray.exceptions.RayError as error:
            raise IngestError(
                f"The Ray cluster gave up ({_last_line(error)}). What was stored is recorded: run again to go on."
            ) from error

    def _take(self, result: TextNode, report: IngestReport, owners: Mapping[str, Mapping[str, Any]]) -> None:
        about = result.metadata
        if "fatal" in about:
            raise IngestError(
                f"A Ray worker failed: {about['fatal'].rstrip('.')}. What was stored is recorded: run again to go on."
            )
        if "embedded" in about:
            embedded, tokens, seconds = (about[key] for key in _BATCH_KEYS)
            report.embedded += embedded
            report.tokens += tokens
            self.used(embedded, tokens, seconds)
        if self.watch is not None and about["personal"]:
            self.watch.found[result.node_id] = about["personal"]
        if about.get("warnings"):
            report.warnings[result.node_id] = about["warnings"]
        if "error" in about:
            report.failed.append(FailedSource(result.node_id, about["error"]))
            if self.watch is not None and self.watch.mode == "refuse" and about["personal"]:
                self.watch.refused.append(result.node_id)
            return
        entry = ManifestEntry(
            result.node_id, about["hash"], about["chunks"], about["document_tokens"], owners[result.node_id],
            about.get("language", ""), about.get("reader_version", 0),
        )  # fmt: skip
        self.manifest.record([entry])
        report.documents += 1
        report.chunks += entry.chunks


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, for a `with` block; one that is connected already is used.

    Ray's usage reports, its dashboard and its progress bars are off.

    Args:
        address: As of ``ray.init``; None and ``"local"`` start one here.

    Raises:
        MissingExtraError: Ray is not installed.
        IngestError: No cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it writes to standard error past all handlers
    ray = require("ray", extra="ray")
    require("ray.data", extra="ray")
    mine = not ray.is_initialized()
    if mine:
        _start(ray, address)
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
        if mine:
            ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    here = {"num_cpus": os.cpu_count(), "include_dashboard": False}
    where = {"address": address} if address and address != "local" else here
    try:
        with warnings.catch_warnings():  # LanceDB warns of forks; Ray's are followed by an exec
            warnings.filterwarnings("ignore", message="lancedb fork")
            ray.init(log_to_driver=False, logging_level="ERROR", **where)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise IngestError(
            f"No Ray cluster answers at '{address or 'local'}' ({_last_line(error)}). Start one with 'ray start "
            "--head', or give 'local' to use this machine."
        ) from error


def _workers(ray: Any, documents: int, batch: int) -> tuple[int, dict[str, float]]:
    """Number of workers and their resources: a GPU each where there are some, else a CPU."""
    there = ray.cluster_resources()
    kind, name = ("num_gpus", "GPU") if there.get("GPU") else ("num_cpus", "CPU")
    return max(1, min(int(there.get(name, 1)), -(-documents // batch))), {kind: 1}


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
