"""Access to a storage with permissions: whether it has them, and what one user may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)

from llama_index_presets._options import strict
from llama_index_presets.errors import PermissionsError, SettingsError
from llama_index_presets.ingest.metadata.document_metadata import ALLOWED_KEY
from llama_index_presets.ingest.metadata.permissions import principals, sees, visible_to
from llama_index_presets.presets.index.storage import Storage, has_permissions, turn_on_permissions

__all__ = ["Access", "StoragePermissions", "VisibleRetriever", "narrowed_access"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a user may see: documents that allow one name of each set.

    Attributes:
        user: Name of the user, or empty.
        names: Sets of names, one for each `as_user` that made the view; none sees everything.
    """

    user: str
    names: tuple[frozenset[str], ...]

    @property
    def everything(self) -> bool:
        """Whether permissions do not restrict it."""
        return not self.names

    def sees(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a node of this metadata may be shown."""
        return sees(self.names, metadata)

    @property
    def filters(self) -> MetadataFilters:
        """The same for a store."""
        return MetadataFilters(
            filters=[visible_to(names) for names in self.names], condition=FilterCondition.AND
        )

    @property
    def default(self) -> tuple[str, ...]:
        """Who sees what the user ingests and does not share: the user alone; nobody where only groups are known."""
        return (f"user:{self.user}",) if self.user else ()


def narrowed_access(before: Access | None, user: str, groups: Iterable[str], everything: bool) -> Access:
    """Access of a view made from an engine or from another view, which it can only narrow.

    Raises:
        SettingsError: Names are missing or not usable.
        PermissionsError: A view is to see everything that does not.
    """
    if not isinstance(everything, bool):
        raise SettingsError(f"everything is {everything!r}, expected True or False.")
    if not everything:
        names = principals(user, groups)
        return Access(user or (before.user if before else ""), (*(before.names if before else ()), names))
    if not user or list(groups):
        raise SettingsError(
            "as_user(everything=True) takes the name of the user, for the record, and no groups."
        )
    if before is not None and not before.everything:
        raise PermissionsError("This engine is held to a user; a view of it cannot see everything.")
    return Access(user, ())


class StoragePermissions:
    """Whether a storage has permissions; never forgotten once it was seen.

    The storage's metadata file is looked at again whenever it may have changed, so that a process that began before
    permissions were turned on refuses from then on. Vectors on a server may have been given permissions by another
    machine: they are asked once.

    Args:
        location: The storage.
        wanted: Whether the settings turn them on.
        store: Asked once, at the first question; None where that is not needed.
        dim: Dimensions of its vectors.
    """

    def __init__(
        self, location: Storage, *, wanted: bool, store: BasePydanticVectorStore | None = None, dim: int = 1
    ) -> None:
        self._location = location
        self._dim = dim
        self._on = wanted
        self._store = store
        self._stamp: tuple[int, ...] | None = None
        if wanted:
            turn_on_permissions(location)

    def on(self) -> bool:
        """Whether the storage has permissions.

        Raises:
            StoreCorruptError: The metadata file of the storage cannot be read.
        """
        if self._on:
            return True
        stamp = self._stamp_of_metadata()
        if stamp != self._stamp:
            # Only ever set: a thread that looked before another would take its discovery back.
            if has_permissions(self._location):
                self._on = True
            self._stamp = stamp
        store = self._store
        if not self._on and store is not None:
            if _holds_permissions(store, self._dim):
                self._on = True
                turn_on_permissions(self._location)
            self._store = None
        return self._on

    def _stamp_of_metadata(self) -> tuple[int, ...] | None:
        try:
            status = self._location.metadata_file.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _holds_permissions(store: BasePydanticVectorStore, dim: int) -> bool:
    """Whether any node of a store has permissions."""
    anybody = MetadataFilter(key=ALLOWED_KEY, operator=FilterOperator.ALL, value=[])
    query = VectorStoreQuery(
        query_embedding=[1.0] * dim, similarity_top_k=1, filters=MetadataFilters(filters=[anybody])
    )
    return bool(store.query(query).nodes)


@strict()
class VisibleRetriever(BaseRetriever):
    """Retriever whose hits are those that a user may see.

    Args:
        inner: Finds them.
        visible: Drops the others.
    """

    def __init__(
        self, inner: BaseRetriever, visible: Callable[[list[NodeWithScore]], list[NodeWithScore]]
    ) -> None:
        super().__init__(callback_manager=inner.callback_manager)
        self._inner = inner
        self._visible = visible

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._visible(self._inner.retrieve(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._visible(await self._inner.aretrieve(query_bundle))
