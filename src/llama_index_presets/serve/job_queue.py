"""Queue of ingest jobs: one thread an engine, which goes on after a restart and waits for other processes.

A job that a restart cut off runs again from its next batch: documents that are in the index already cost nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_presets.errors import (
    BudgetExceededError,
    PresetsError,
    SettingsError,
    StoreLockedError,
)
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import private_folder, private_open
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.engines import Engines, Served, engine_tag
from llama_index_presets.serve.jobs import Job, Jobs, Text
from llama_index_presets.serve.protocols.problems import Problem, log_fault
from llama_index_presets.serve.turns import JOBS_LOCK, let_removals_pass
from llama_index_presets.serve.uploads import document_id, is_upload, keep_upload, upload_folder

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["JobQueue"]

_log = logging.getLogger("llama_index_presets.serve")

_BATCH: Final = 8  # documents between two looks at whether to stop; what a kill may repeat
_RETRY_S: Final = 2.0
_TURN_S: Final = 1.0  # between two looks at whether another process has ended its jobs


@dataclass(slots=True)
class JobQueue:
    """Runs the jobs of all engines: one thread an engine, since a storage takes one ingest at a time.

    Attributes:
        engines: The engines; each job leases its own while it runs.
        admit: Called with the caller of a job before each batch; raises where their key no longer counts.
    """

    engines: Engines
    admit: Callable[[Caller], None] = lambda caller: None
    _tables: dict[str, Jobs] = field(default_factory=dict)
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _wakes: dict[str, threading.Event] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def table(self, served: Served) -> Jobs:
        """Jobs of an engine."""
        with self._lock:
            table = self._tables.get(str(served.state))
            if table is None:
                table = self._tables[str(served.state)] = Jobs(served.state)
            return table

    def resume(self, served: Served) -> None:
        """Run what an earlier process left unfinished."""
        if (served.state / "jobs.sqlite").exists() and self.table(served).unfinished():
            self.wake(served.name)

    def submit(
        self,
        served: Served,
        caller: Caller,
        files: Sequence[Path],
        texts: Sequence[Text],
        metadata: Mapping[str, Any],
    ) -> Job:
        """Take over what was received, record a job, and run it.

        Args:
            served: The engine, leased.
            caller: Who sent it.
            files: Received files, under their final names in a folder of their own; they are moved.
            texts: Documents given as text.
            metadata: Put on every document.

        Raises:
            Problem: 400, a text has the id of an upload.
        """
        if named := next((one for one in texts if is_upload(served.state, one.id)), None):
            shown = document_id(served.state, caller, named.id)[:80]
            raise Problem(400, f"'{shown}' is the id of an upload. Give the text another id.", code="bad_id")
        table, job_id = self.table(served), uuid.uuid4().hex
        items = [str(keep_upload(file, upload_folder(served.state, caller))) for file in files]
        if texts:
            items.append(str(_keep_texts(served.state / "texts", job_id, texts)))
        job = table.add(caller, job_id, items, len(files) + len(texts), metadata)
        self.wake(served.name)
        return job

    def wake(self, name: str) -> None:
        """Let the thread of an engine look for jobs; started when it does not run."""
        with self._lock:
            if self._stop.is_set():
                return
            wake = self._wakes.setdefault(name, threading.Event())
            wake.set()
            thread = self._threads.get(name)
            if thread is None or not thread.is_alive():
                # A daemon: when the server is killed in an ingest, the next start goes on where it was.
                thread = threading.Thread(
                    target=self._work, args=(name, wake), name=f"ingest-{name}", daemon=True
                )
                self._threads[name] = thread
                thread.start()

    def close(self, wait_s: float) -> None:
        """Stop after the batches under way, as far as these end in time."""
        self._stop.set()
        for wake in self._wakes.values():
            wake.set()
        until = time.monotonic() + wait_s
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads.values()):
            for table in self._tables.values():
                table.close()

    def _work(self, name: str, wake: threading.Event) -> None:
        while not self._stop.is_set():
            wake.wait()
            wake.clear()
            try:
                while not self._stop.is_set() and self._run_next(name):
                    pass
            except Problem:
                pass  # the engine is gone, or not there yet: it wakes this thread when it is opened
            except Exception as error:
                log_fault(f"the ingest queue of '{name}'", error)

    def _run_next(self, name: str) -> bool:
        """Run one job; whether there was one. Of several processes that serve a storage, one runs its jobs."""
        with self.engines.leased(name) as served:
            table = self.table(served)
            if not table.unfinished():
                return False
            with FileLock(served.state / JOBS_LOCK) as turn:
                while not turn.acquire(timeout_s=0):
                    if self._stop.wait(_TURN_S) or not table.unfinished():
                        return False
                jobs = table.unfinished()
                if jobs:
                    self._run(table, jobs[0], served)
                return bool(jobs)

    def _run(self, table: Jobs, job: Job, served: Served) -> None:
        caller = Caller(**{**job.caller, "groups": tuple(job.caller["groups"])})
        table.update(job.id, status="running", error="")
        report, finished = dict(job.report), job.finished
        try:
            engine = served.view(caller)
            documents = _documents(job)
            while finished < len(documents):
                if self._stop.is_set() or table.get(job.id).status == "cancelled":
                    return
                let_removals_pass(served.state)
                batch = documents[finished : finished + _BATCH]
                with attributed(tags=(*caller.tags, engine_tag(served.name))):
                    added = self._ingest(table, job, caller, engine, batch)
                if added is None:  # stopped while it waited
                    return
                report = _sum_of(report, _shown(added, served.state, caller))
                finished += len(batch)
                table.update(job.id, finished=finished, report=report, status="running", error="")
            table.update(job.id, status="failed" if _all_failed(report, job.total) else "done")
        except Exception as error:
            table.update(job.id, status="failed", error=_reason(error))
            log_fault(f"ingest job {job.id}", error)
        _forget_texts(job)

    def _ingest(
        self, table: Jobs, job: Job, caller: Caller, engine: PresetEngine, batch: Sequence[Any]
    ) -> dict[str, Any] | None:
        """Ingest a batch; while another process holds the storage, or the keys cannot be read, wait."""
        while not self._stop.is_set():
            why = self._unreadable_keys(caller)
            try:
                if not why:
                    return _ingest(engine, batch, job.metadata)
            except StoreLockedError as error:
                why = f"The storage is in use (process {error.pid})."
            table.update(job.id, status="waiting", error=why)
            if self._stop.wait(_RETRY_S) or table.get(job.id).status == "cancelled":
                return None
        return None

    def _unreadable_keys(self, caller: Caller) -> str:
        """Why it is unknown whether the caller's key still counts, or empty.

        Raises:
            Problem: 401, it does not.
        """
        try:
            self.admit(caller)
        except SettingsError as error:
            _log.error("%s", error)
            return "The keys of this server cannot be read."
        return ""


def _ingest(engine: PresetEngine, batch: Sequence[Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Files and documents of a batch, each in one call."""
    report: dict[str, Any] = {}
    paths = [item for item in batch if isinstance(item, str)]
    there = [path for path in paths if Path(path).exists()]
    others = [item for item in batch if not isinstance(item, str)]
    for data in (there, others):
        if data:
            added = engine.ingest(data, wait=False, show_progress=False, metadata=metadata)
            report = _sum_of(report, added.to_dict())
    gone = [{"source": path, "error": "The upload is gone."} for path in paths if path not in there]
    return _sum_of(report, {"failed": gone}) if gone else report


def _documents(job: Job) -> list[Any]:
    """Paths and LlamaIndex documents of a job, in a fixed order."""
    from llama_index.core import Document

    found: list[Any] = []
    for item in job.items:
        if not item.endswith(".texts.json"):
            found.append(item)
            continue
        rows = json.loads(Path(item).read_text("utf-8"))
        found += [Document(text=row["text"], id_=row["id"], metadata=row["metadata"]) for row in rows]
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, BudgetExceededError | Problem):
        return str(error)
    kind = type(error).__name__
    return (
        f"{kind}. The server's log says where."
        if isinstance(error, PresetsError)
        else f"The server failed ({kind})."
    )


def _keep_texts(folder: Path, job_id: str, texts: Sequence[Text]) -> Path:
    private_folder(folder)
    path = folder / f"{job_id}.texts.json"
    with private_open(path, "w", encoding="utf-8") as out:
        json.dump([{"id": one.id, "text": one.text, "metadata": dict(one.metadata)} for one in texts], out)
    return path


def _forget_texts(job: Job) -> None:
    for item in job.items:
        if item.endswith(".texts.json"):
            Path(item).unlink(missing_ok=True)


def _sum_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
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


def _shown(report: Mapping[str, Any], state: Path, caller: Caller) -> dict[str, Any]:
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


def _all_failed(report: Mapping[str, Any], total: int) -> bool:
    """Whether no document of a job was ingested."""
    return total > 0 and len(report.get("failed", ())) >= total
