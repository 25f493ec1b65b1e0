"""Documents of a preset engine: ingest them, list them, show and remove them, set who may see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from llama_index.core.schema import BaseNode

from llama_index_presets.errors import AnswerError, IngestError, SettingsError
from llama_index_presets.ingest.lock import ingest_lock
from llama_index_presets.ingest.pipeline import IngestReport
from llama_index_presets.ingest.sources.frames import FrameColumns
from llama_index_presets.presets.citations.page import CitationPage, citation_page
from llama_index_presets.presets.engine_parts import EngineParts
from llama_index_presets.presets.estimates.estimate import Estimate
from llama_index_presets.presets.index.compaction import CompactReport
from llama_index_presets.presets.index.contents import (
    DocumentInfo,
    delete,
    document_nodes,
    document_text,
    documents,
    unfinished_documents,
)
from llama_index_presets.presets.index.permissions import list_permissions, set_permissions
from llama_index_presets.presets.ingestion.run import IngestOptions, compact, estimate, ingest

__all__ = ["EngineDocuments"]

_NO_PERMISSIONS: Final = (
    "'{}' has no permissions. Set permissions = \"on\" in the project file, or "
    'build with settings={{"permissions": "on"}}.'
)


class EngineDocuments:
    """What a `PresetEngine` does with the documents of its index; how it answers is written there."""

    _parts: EngineParts

    def ingest(
        self,
        data: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        id_column: str | None = None,
        template: str | None = None,
        metadata_columns: Sequence[str] | None = None,
        sync: bool = False,
        show_progress: bool | None = None,
        max_cost_usd: float | Decimal | None = None,
        wait: bool = True,
        metadata: Mapping[str, Any] | None = None,
        folder_key: str | None = None,
        workers: Literal["ray"] | None = None,
        ray_address: str | None = None,
        compact: bool = False,
        again: bool = False,
    ) -> IngestReport:
        """Synchronise the index with documents; unchanged ones cost nothing.

        A document replaces the one of its id. Documents of one id that differ, and an id that belongs to another
        tenant, are refused and reported as failed.

        Args:
            data: A path or several, URLs of files (``s3://…``), a `DocumentSource`, `Document`s, nodes, or a frame:
                Polars, pandas, an Arrow table or a DuckDB relation.
            text_column: Column of a frame with the text, or several, which are joined by line breaks.
            id_column: Column of a frame with a unique id; a row without one is left out, as are rows that share one and
                differ. None makes an id of a row's content.
            template: Text of a row of a frame, with its columns in braces: ``"{title}\\n{body}"``; in the place of
                `text_column`.
            metadata_columns: Columns of a frame that become metadata; None takes all others.
            sync: Whether documents that vanished from the given folders, URLs and sources are removed; never those of
                another tenant.
            show_progress: Whether to draw a bar; None draws one where standard error is a terminal.
            max_cost_usd: Count first, and refuse to begin when embedding would cost more than this, in US dollars.
            wait: Whether to wait when another process ingests into the same storage.
            metadata: Put on every document, to filter on; it wins over what a document says of itself. It is part of
                what makes a document unchanged: give the same each time.
            folder_key: Metadata key that takes the name of the folder that holds a file: the one directly below the
                folder given.
            workers: ``"ray"`` reads, cuts, embeds and stores on a Ray cluster; None does it here.
            ray_address: The cluster's address; None starts Ray on this machine, unless the process is connected.
            compact: Whether to take removed and replaced text off the disk in the end; see `compact`.
            again: Whether to read unchanged documents anew, as after an upgrade whose readers get more from a file.
                Chunks whose text is the same are not embedded again. A run that is stopped is completed by the next,
                with or without `again`.

        Raises:
            IngestError: Nothing to ingest, an unknown column, an unknown kind of data, or a closed engine.
            BudgetExceededError: It would cost more than `max_cost_usd`; nothing was sent.
            StoreLockedError: Another process ingests, and `wait` is False.
            SettingsError: What is given cannot be ingested with Ray.
        """
        self._parts.check_open(IngestError, "ingest")
        options = IngestOptions(
            columns=FrameColumns(
                text=text_column, template=template, id=id_column, metadata=metadata_columns
            ),
            sync=sync,
            show_progress=show_progress,
            max_cost_usd=max_cost_usd,
            wait=wait,
            metadata=metadata or {},
            folder_key=folder_key,
            workers=workers,
            ray_address=ray_address,
            compact=compact,
            again=again,
        )
        return ingest(self._parts, data, options)

    def estimate(
        self,
        data: Any,
        *,
        text_column: str | Sequence[str] | None = None,
        id_column: str | None = None,
        template: str | None = None,
        metadata_columns: Sequence[str] | None = None,
        sample: int | None = None,
        show_progress: bool | None = None,
        again: bool = False,
    ) -> Estimate:
        """Estimate an `ingest`: documents, chunks, tokens, dollars, minutes, disk. Nothing is sent or stored.

        Args:
            data: As for `ingest`.
            text_column: As for `ingest`.
            id_column: As for `ingest`.
            template: As for `ingest`.
            metadata_columns: As for `ingest`.
            sample: Read only so many documents, and extrapolate; None reads all and counts exactly.
            show_progress: As for `ingest`.
            again: As for `ingest`.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     estimate = engine.estimate([Document(text="Botulism is treated with an antitoxin.")])
            >>> estimate.documents, estimate.chunks, estimate.tokens, estimate.cost_usd
            (1, 1, 13, Decimal('0E-12'))
        """
        self._parts.check_open(IngestError, "ingest")
        columns = FrameColumns(text=text_column, template=template, id=id_column, metadata=metadata_columns)
        options = IngestOptions(columns=columns, show_progress=show_progress, again=again)
        return estimate(self._parts, data, options, sample=sample)

    def documents(self) -> list[DocumentInfo]:
        """Documents of the index that this engine may see, in the order of their ids.

        An engine with filters, such as that of a tenant, lists those with a passage that satisfies them.

        Raises:
            IngestError: The engine is closed.
            StoreError: The engine has filters, and the store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "list documents")
        return documents(self._parts)

    def unfinished_documents(self) -> list[str]:
        """Ids of documents of an ingest that was cut short, as by a kill.

        `documents` does not list the new ones of them, and a question may find their passages. The next ingest of the
        same data completes them.

        Empty while an ingest is under way, and for an engine with filters, which does not see whose they are.

        Raises:
            IngestError: The engine is closed.

        Example:
            >>> import tempfile
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     engine.unfinished_documents()
            []
        """
        self._parts.check_open(IngestError, "list documents")
        return unfinished_documents(self._parts)

    def document_text(self, doc_id: str) -> str:
        """Text of a document as the index holds it, passage by passage; empty where this engine sees none of it.

        Raises:
            IngestError: The engine is closed.
            StoreError: The store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "read documents")
        return document_text(self._parts, doc_id)

    def document_nodes(self, doc_id: str) -> list[BaseNode]:
        """Nodes of a document that this engine sees, in reading order.

        Raises:
            IngestError: The engine is closed.
            StoreError: The store cannot list its nodes.
        """
        self._parts.check_open(IngestError, "read documents")
        return document_nodes(self._parts, doc_id)

    def citation_page(self, query_id: str, n: int) -> CitationPage:
        """The document that an answer cited, with the words marked, as one HTML file; also for past answers.

        Args:
            query_id: Of the answer (``metadata["query_id"]``), or its beginning.
            n: Number of the citation.

        Raises:
            AnswerError: The engine is closed, the citation is not kept, or its chunk is gone or not visible here.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     _ = engine.ingest([Document(text="Botulism is treated with an antitoxin. It is rare.")])
            ...     response = engine.query("How is botulism treated?")
            ...     engine.citation_page(response.metadata["query_id"], 1).quotes
            ('Botulism is treated with an antitoxin.',)
        """
        self._parts.check_open(AnswerError, "show citations")
        return citation_page(self._parts, query_id, n)

    def delete(self, doc_ids: Sequence[str], *, wait: bool = True) -> int:
        """Remove documents from the index; their text leaves the disk with `compact`.

        Args:
            doc_ids: Ids as `documents` gives them; unknown ones, and those of another tenant, are left alone.
            wait: Whether to wait while an ingest into the same storage runs.

        Returns:
            How many were removed.

        Raises:
            IngestError: The engine is closed.
            StoreLockedError: An ingest runs, and `wait` is False.
        """
        self._parts.check_open(IngestError, "delete")
        return delete(self._parts, doc_ids, wait=wait)

    def compact(self) -> CompactReport:
        """Remove deleted documents from the disk: rewrite every file of the storage without their text.

        Waits for an ingest to end; questions of this and other processes go on, or wait a moment. Needs room for a
        second copy of the largest file. The embedding cache of the storage is emptied.

        Raises:
            StoreError: A part cannot be compacted now; what was done before it stays done, so call again.

        Example:
            >>> import tempfile
            >>> from llama_index.core import Document
            >>> from llama_index_presets import build
            >>> with build("healthcare", storage=tempfile.mkdtemp()) as engine:
            ...     report = engine.ingest([Document(text="Botulism is treated with an antitoxin.")])
            ...     engine.compact().parts
            ('vectors', 'documents', 'embeddings')
        """
        self._parts.check_process()
        with ingest_lock(self._parts.storage.lock):
            self._parts.check_open(IngestError, "ingest")
        return compact(self._parts)

    @property
    def has_permissions(self) -> bool:
        """Whether the storage has permissions; then nothing is shown without a user, see `as_user`."""
        return self._parts.permissions.on()

    def permissions(self, doc_ids: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Who may see documents, by document: groups, and ``user:NAME`` for users; an empty list for nobody.

        Args:
            doc_ids: Ids as `documents` gives them, unknown ones are left out; None for all.

        Raises:
            SettingsError: The storage has no permissions.
            PermissionsError: The engine is held to a user.
        """
        self._parts.check_open(IngestError, "read permissions")
        if not self.has_permissions:
            raise SettingsError(_NO_PERMISSIONS.format(self._parts.storage.shown))
        return list_permissions(self._parts, doc_ids)

    def set_permissions(self, doc_ids: Sequence[str], allowed: Iterable[str], *, wait: bool = True) -> int:
        """Set who may see documents from now on, in place of what they say; nothing is embedded again.

        It holds until it is set again, or an ingest names ``metadata={"allowed": …}``. While it is being changed a
        document is seen by nobody, and stays so where the process dies, until this or an ingest is called again.

        Args:
            doc_ids: Ids as `documents` gives them; unknown ones are left alone.
            allowed: Groups, and ``user:NAME`` for users; empty for nobody.
            wait: Whether to wait while an ingest into the same storage runs.

        Returns:
            How many documents were changed.

        Raises:
            SettingsError: The storage has no permissions, or a name is not usable.
            PermissionsError: The engine is held to a user.
            StoreLockedError: An ingest runs, and `wait` is False.
        """
        self._parts.check_open(IngestError, "set permissions")
        if not self.has_permissions:
            raise SettingsError(_NO_PERMISSIONS.format(self._parts.storage.shown))
        return set_permissions(self._parts, doc_ids, allowed, wait=wait)
