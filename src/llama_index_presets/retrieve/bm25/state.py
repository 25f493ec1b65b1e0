"""State of the keyword index, in memory and on disk, and its transactions. Works on records, not nodes."""

from __future__ import annotations

import atexit
import math
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import SettingsError, StoreError, StoreUnavailableError
from llama_index_presets.ranking.bm25 import Analyzer, Postings, View
from llama_index_presets.retrieve.bm25.documents import DocumentEntry, DocumentTable
from llama_index_presets.retrieve.bm25.index_files import IndexDirectory, Manifest
from llama_index_presets.retrieve.bm25.languages import AUTO
from llama_index_presets.retrieve.bm25.write_ahead_log import Journal, LogRecord, NodeEntry, damaged

__all__ = ["KeywordState", "Mark", "analyzer_of"]

_DEFAULTS: dict[str, Any] = {
    "language": "english",
    "k1": 1.2,
    "b": 0.75,
    "text": "embed",
    "fields": {},
    "pairs": 0.3,
}
_FIXED = ("language", "text", "fields")
"""Settings that the tokens on disk depend on."""

_BEFORE_FORMAT_3 = {"fields": {}, "pairs": 0.0}
"""What an index of an earlier format has, whose settings do not name it; its tokens have no identifiers either."""

_FIELDS: dict[str, dict[str, int]] = {"embed": {"title": 2}, "none": {}}
"""Weights of fields where none are given, by what is indexed."""

_HEAVIEST = 10
"""A weight is how often a field's words are counted: a larger one costs memory and says no more."""

_TEXTS = tuple(_FIELDS)
_SMALL_JOURNAL_BYTES = 2**20
_SMALL_BATCH = 256
_JOURNAL_SHARE_AT_REST = 1 / 50
"""Of the snapshot's size: a longer journal is folded in after a load, as each opening would have to replay it."""
_MEMORY_WASTE = 0.5


class Mark(NamedTuple):
    """Version of an index: equal marks mean that nothing was changed in between.

    Attributes:
        generation: Of the snapshot.
        journal_end: Where the last record ends, in bytes; of an index in memory, how many changes there were.
        nodes: How many there are.
        changing: Whether a change of some document has begun and not ended, cut short or under way.
    """

    generation: int
    journal_end: int
    nodes: int
    changing: bool


class KeywordState:
    """Postings and document table, equal to the content of the folder.

    Thread safe: `snapshot` gives a consistent pair, which later changes do not touch.

    Args:
        path: The folder, or None for memory only.
        wanted: Settings as the caller gave them, None where it gave nothing.

    Raises:
        SettingsError: A setting is unknown, or not what the folder was made with.
        StoreCorruptError: The folder cannot be read.
    """

    def __init__(self, path: Path | None, wanted: Mapping[str, Any]) -> None:
        self._writing = threading.RLock()
        self._changing = threading.RLock()
        self._loading = threading.RLock()
        self._writes_alone = False
        self._wanted = wanted
        self._folder = None if path is None else IndexDirectory(path.absolute())
        self._by_document: dict[str | None, dict[str, None]] | None = None
        self.settings: dict[str, Any] = {}
        self._outdated = False
        self._generation = -1
        self._journal: Journal | None = None
        self._journal_end = 0
        self._wrote_in: int | None = None
        _live.add(self)
        self._resolve_settings({})
        self._reset(self._no_postings(), DocumentTable(), ())
        self.refresh()

    @property
    def outdated(self) -> bool:
        """Whether the folder was written by a version without fields, positions and identifiers."""
        return self._outdated

    # -- looking ------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[View, DocumentTable]:
        """Postings and document table of one moment, rows of both the same; refreshes from other writers first."""
        self.refresh()
        with self._changing:
            return self._postings.view(), self._document_table

    def mark(self) -> Mark:
        """Current version, after a refresh from other writers."""
        self.refresh()
        with self._changing:
            return Mark(self._generation, self._journal_end, len(self._postings), bool(self._unfinished))

    def head(self, node_id: str) -> DocumentEntry | None:
        """Entry of a node, or None where it is not in the index."""
        with self._changing:
            return (
                self._document_table.head(self._postings.row_of(node_id))
                if node_id in self._postings
                else None
            )

    def heads(self) -> list[DocumentEntry]:
        """Entry of every node."""
        with self._changing:
            return [self._document_table.head(self._postings.row_of(name)) for name in self._postings]

    def of_documents(self, documents: Iterable[str]) -> list[str]:
        """Ids of the nodes that came from these documents."""
        with self._changing:
            if self._by_document is None:
                self._by_document = {}
                for head in self.heads():
                    self._by_document.setdefault(head.document, {})[head.id] = None
            return [name for document in documents for name in self._by_document.get(document, ())]

    def nodes(self) -> list[BaseNode]:
        """Every node, of an index that holds its nodes itself."""
        with self._changing:
            return [self._document_table.node(self._postings.row_of(name)) for name in self._postings]

    @property
    def place(self) -> Path | None:
        """The folder, or None for memory only."""
        return None if self._folder is None else self._folder.path

    @property
    def unfinished(self) -> frozenset[str]:
        """Documents whose change began and did not end, and is not open in a living process."""
        with self._changing:
            found = frozenset(self._unfinished)
        under_way = bool(found) and self._folder is not None and self._folder.change_under_way()
        return frozenset() if under_way else found

    def under_way(self) -> AbstractContextManager[None]:
        """Mark a change as open for other processes."""
        return nullcontext() if self._folder is None else self._folder.changing()

    # -- changing -----------------------------------------------------------------------------------------

    def commit(self, record: LogRecord) -> None:
        """Make a change durable, then visible.

        Raises:
            StoreWriteError: The folder cannot be written; nothing changed.
            StoreLockedError: Another process keeps writing.
        """
        with self._writing:
            if self._folder is None:
                self._apply(record)
                self._journal_end += 1  # no journal, but a change is a change
                self._tidy_memory()
                return
            with self._alone(self._folder, make=True):
                self._commit_to(self._folder, record)
                self._wrote_in = os.getpid()

    def renewed_settings(self) -> dict[str, Any]:
        """Settings that an outdated folder gets: its own, and those that it lacks as the caller or the default say."""
        own = {name: self.settings[name] for name in _DEFAULTS if name not in _BEFORE_FORMAT_3}
        given = {name: value for name, value in self._wanted.items() if value is not None}
        # what cannot be changed
        self._chosen(given, {**own, "fields": given.get("fields", {}), "pairs": 0.0})
        return self._chosen({**own, **given}, {})

    def renew(self, entries: Sequence[NodeEntry]) -> None:
        """Write an outdated folder afresh, with the present defaults; what others changed meanwhile is refused.

        Args:
            entries: Every node, tokenised with `renewed_settings`.

        Raises:
            StoreWriteError: The folder cannot be written.
            StoreLockedError: Another process keeps writing.
        """
        assert self._folder is not None
        with self._writing, self._alone(self._folder):
            if not self._outdated:
                return
            unfinished = set(self._unfinished)
            try:
                with self._changing:
                    self.settings, self._outdated = self.renewed_settings(), False
                    self.analyzer = analyzer_of(self.settings["language"])
                    self._reset(self._no_postings(), DocumentTable(), unfinished)
                    self._apply(LogRecord(put=entries))
                    self._publish(self._folder)
            except BaseException:
                self._load(self._folder)
                raise

    def compact(self) -> None:
        """Rewrite every file, without replaced or deleted nodes."""
        with self._writing:
            if self._folder is None:
                self._tidy_memory(always=True)
                return
            with self._alone(self._folder, make=True):
                self._publish(self._folder)

    def finish_load(self) -> None:
        """Fold a long journal into the snapshot, which opens many times faster.

        Raises:
            StoreWriteError: The folder cannot be written; the index is as it was.
            StoreLockedError: Another process keeps writing.
        """
        with self._writing:
            folder = self._folder
            if folder is None or self._wrote_in != os.getpid() or not folder.path.is_dir():
                return
            self._wrote_in = None
            with self._alone(folder):
                if self._journal_end > max(
                    _SMALL_JOURNAL_BYTES, self._snapshot_bytes * _JOURNAL_SHARE_AT_REST
                ):
                    self._publish(folder)

    def persist(self, path: Path | None) -> None:
        """Rewrite every file, to another folder where one is named.

        Raises:
            SettingsError: The folder holds another index, or the index is in memory and no folder is given.
        """
        if path is None and self._folder is None:
            raise SettingsError("This keyword index is in memory; say where to write it: persist(path).")
        if path is None or (self._folder is not None and self._folder.path == path):
            self.compact()
            return
        folder = IndexDirectory(path)
        with folder.locked(), self._changing:
            if folder.exists():
                raise SettingsError(f"{path} holds a keyword index already; choose an empty folder.")
            self._publish(folder, generation=0)

    def refresh(self) -> None:
        """Catch up with what other processes, or other objects on the same folder, wrote."""
        folder = self._folder
        if folder is None or self._writes_alone:
            return
        with self._loading:
            if not self._writes_alone:  # it may have begun while this thread waited
                self._catch_up(folder)

    def _catch_up(self, folder: IndexDirectory) -> None:
        """Read what is new; under `_loading`, as a slower thread would put an older generation in place of this one."""
        if (folder.changed() or self._generation < 0) and folder.exists():
            self._load(folder)
        elif self._journal is not None and self._journal.size > self._journal_end:
            with self._changing:
                self._replay(self._journal)

    @contextmanager
    def _alone(self, folder: IndexDirectory, *, make: bool = False) -> Iterator[None]:
        """Write alone: with the lock of the folder, and all that others wrote read.

        Other threads read nothing from the folder meanwhile: memory has all there is, and what they would load lacks
        what this one is about to write.

        Args:
            folder: Of this index.
            make: Whether to make the folder an index if it is none.
        """
        with folder.locked():
            with self._loading:
                if make and not folder.exists():
                    self._publish(folder)
                self._catch_up(folder)
                self._writes_alone = True
            try:
                yield
            finally:
                self._writes_alone = False

    def _commit_to(self, folder: IndexDirectory, record: LogRecord) -> None:
        journal = self._journal
        if journal is None or not journal.headed or len(record.put) > max(_SMALL_BATCH, len(self._postings)):
            # Most of the index is new, or the folder is of format 1: the snapshot itself is the commit, and nothing
            # is written twice.
            try:
                self._apply(record)
                self._publish(folder)
            except BaseException:
                self._load(folder)
                raise
            return
        self._journal_end = journal.append(record, end=self._journal_end)
        self._apply(record)
        if self._journal_end > max(_SMALL_JOURNAL_BYTES, self._snapshot_bytes // 2):
            self._publish(folder)

    # -- memory -------------------------------------------------------------------------------------------

    def _apply(self, record: LogRecord) -> None:
        with self._changing:
            ids = [DocumentEntry.from_json(entry.head).id for entry in record.put]
            self._remove(record.drop)
            self._remove(ids)
            self._document_table.extend(record.put)
            self._postings.add(ids, [entry.tokens for entry in record.put])
            if self._by_document is not None:
                for name in ids:
                    head = self._document_table.head(self._postings.row_of(name))
                    self._by_document.setdefault(head.document, {})[name] = None
            self._unfinished.update(record.begin)
            self._unfinished.difference_update(record.end)

    def _remove(self, ids: Iterable[str]) -> None:
        present = [name for name in ids if name in self._postings]
        if self._by_document is not None:
            for name in present:
                self._by_document[self._document_table.head(self._postings.row_of(name)).document].pop(
                    name, None
                )
        self._postings.remove(present)

    def _reset(self, postings: Postings, document_table: DocumentTable, unfinished: Iterable[str]) -> None:
        with self._changing:
            self._postings, self._document_table = postings, document_table
            self._unfinished = set(unfinished)
            self._by_document = None

    def _tidy_memory(self, *, always: bool = False) -> None:
        with self._changing:
            if always or (self._postings.rows > _SMALL_BATCH and self._postings.waste > _MEMORY_WASTE):
                self._document_table = self._document_table.kept(self._live_rows())
                self._postings.compact()

    def _live_rows(self) -> list[int]:
        return [row for row, name in enumerate(self._postings.ids) if name is not None]

    # -- disk ---------------------------------------------------------------------------------------------

    def _publish(self, folder: IndexDirectory, generation: int | None = None) -> None:
        number = self._generation + 1 if generation is None else generation
        manifest = Manifest(generation=number, settings=self.settings, unfinished=sorted(self._unfinished))
        rows = self._live_rows()
        folder.commit_snapshot(
            manifest, self._postings.export(), lambda place: self._document_table.write(place, rows)
        )
        if folder is self._folder:
            self._load(folder)

    def _load(self, folder: IndexDirectory) -> None:
        """Read the current snapshot and log; tries again when a writer swaps them meanwhile."""
        for attempt in range(5):
            try:
                self._load_once(folder, folder.manifest())
                return
            except FileNotFoundError as error:
                if attempt == 4 or not folder.changed():
                    folder.forget()
                    raise damaged(Path(error.filename or folder.path), "it is missing") from error
            except BaseException as error:
                folder.forget()
                if isinstance(error, OSError):
                    raise StoreUnavailableError(
                        f"{folder.path} cannot be read ({error}). Nothing was touched."
                    ) from error
                raise

    def _load_once(self, folder: IndexDirectory, manifest: Manifest) -> None:
        self._resolve_settings(manifest.settings)
        exported, document_table = folder.load(manifest)
        postings = Postings.restore(exported, k1=self.settings["k1"], b=self.settings["b"])
        with self._changing:
            self._reset(postings, document_table, manifest.unfinished)
            self._generation, self._journal = manifest.generation, folder.journal(manifest)
            self._journal_end = self._journal.start
            self._snapshot_bytes = sum(
                file.stat().st_size for file in folder.snapshot(manifest.generation).iterdir()
            )
            self._replay(self._journal)

    def _replay(self, journal: Journal) -> None:
        for record, end in journal.records(self._journal_end):
            self._apply(record)
            self._journal_end = end

    def _resolve_settings(self, remembered: Mapping[str, Any]) -> None:
        """Current settings: as passed, else as the folder remembers, else the default."""
        self._outdated = bool(remembered) and not remembered.keys() & _BEFORE_FORMAT_3.keys()
        known = {**remembered, **_BEFORE_FORMAT_3} if self._outdated else remembered
        if self._folder is not None and known and known.keys() != _DEFAULTS.keys():
            raise damaged(self._folder.path, f"its settings are {sorted(remembered)}")
        self.settings = self._chosen({} if self._outdated else self._wanted, known)
        self.analyzer = analyzer_of(self.settings["language"], complete=not self._outdated)

    def _chosen(self, wanted: Mapping[str, Any], remembered: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {
            name: _first(wanted.get(name), remembered.get(name), default)
            for name, default in _DEFAULTS.items()
        }
        if chosen["text"] not in _TEXTS:
            raise SettingsError(f"text is '{chosen['text']}'; choose one of: {', '.join(_TEXTS)}.")
        if not remembered and wanted.get("fields") is None:
            chosen["fields"] = _FIELDS[chosen["text"]]
        _check_weights(chosen["fields"], chosen["pairs"])
        chosen["fields"] = dict(chosen["fields"])
        if chosen["language"] != AUTO:
            chosen["language"] = Analyzer(language=chosen["language"]).language
        for name in _FIXED:
            if remembered and remembered[name] != chosen[name]:
                raise SettingsError(
                    f"The keyword index was made with {name} '{remembered[name]}', not '{chosen[name]}'. "
                    f"Leave {name} out, or build another index in an empty folder."
                )
        return chosen

    def _no_postings(self) -> Postings:
        return Postings(k1=self.settings["k1"], b=self.settings["b"], positions=not self._outdated)


def _check_weights(fields: Mapping[str, int], pairs: float) -> None:
    for name, weight in fields.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= _HEAVIEST:
            raise SettingsError(
                f"The weight of the field '{name}' is {weight!r}; give a whole number from 0 to {_HEAVIEST}."
            )
    if not (math.isfinite(pairs) and pairs >= 0):
        raise SettingsError(f"pairs is {pairs}; give a weight of 0 (off) or more.")


def analyzer_of(language: str, *, complete: bool = True) -> Analyzer:
    """Analyzer of a keyword index; one of an earlier format knows neither marks nor whole identifiers.

    That of an index in which each node has its own language is the English one, whose other settings all share.
    """
    return Analyzer(
        language="english" if language == AUTO else language, marks=complete, identifiers=complete
    )


_live: weakref.WeakSet[KeywordState] = weakref.WeakSet()


def _finish_all() -> None:
    """At the end of the process: what `finish_load` does, for those who did not call it."""
    for state in list(_live):
        with suppress(StoreError):  # the journal stays as it is, and is replayed
            state.finish_load()


atexit.register(_finish_all)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
