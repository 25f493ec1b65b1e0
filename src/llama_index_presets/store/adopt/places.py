"""Place of stock nodes, as a command line names it, to its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from llama_index_presets.errors import SettingsError
from llama_index_presets.store.adopt.reader import StockReader

__all__ = ["find_stock", "open_stock"]

_STOCK_PLACES = (
    "duckdb:FILE#TABLE, lancedb:FOLDER#TABLE, postgresql://…#table=NAME, "
    "simple:FOLDER (StorageContext.persist) or chroma:FOLDER#COLLECTION"
)
"""Spellings of nodes that stock adapters wrote."""


def open_stock(place: str) -> StockReader:
    """Open nodes that a stock adapter wrote, read-only.

    Args:
        place: One of `_STOCK_PLACES`; what stands after ``#`` may be left out where there is only one.

    Returns:
        A reader, to be given to `llama_index_presets.store.move.move` as its source. Close it afterwards.

    Raises:
        SettingsError: The place has none of the spellings.
        StoreError: There are no such nodes.
        MissingExtraError: What reads them is not installed.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> index = VectorStoreIndex([TextNode(text="Gloves.", id_="a")], embed_model=MockEmbedding(embed_dim=2))
        >>> folder = tempfile.mkdtemp()
        >>> index.storage_context.persist(folder)
        >>> open_stock(f"simple:{folder}").ids_as_stored()
        ['a']
    """
    scheme, _, rest = place.partition(":")
    opener = _OPENERS.get("postgresql" if scheme.startswith("postgres") else scheme)
    if opener is None or not rest:
        raise SettingsError(f"'{place}' names no stock nodes. Give {_STOCK_PLACES}.")
    address, _, part = rest.partition("#")
    return opener(f"{scheme}:{address}" if opener is _postgres else address, part or None)


def find_stock(place: str) -> StockReader | None:
    """Reader of a place, or None where a store of this package is there, or nothing."""
    scheme, _, rest = place.partition(":")
    address, _, part = rest.partition("#")
    if scheme == "duckdb":
        from llama_index_presets.store.adopt.duckdb_table import StockDuckDB

        return (
            open_stock(place)
            if Path(address).is_file() and StockDuckDB.holds(address, part or None)
            else None
        )
    if scheme == "lancedb":
        from llama_index_presets.store.adopt.lancedb_table import StockLanceDB

        return open_stock(place) if StockLanceDB.holds(address, part or None) else None
    if scheme in ("simple", "chroma") or (scheme.startswith("postgres") and "table" in parse_qs(part)):
        return open_stock(place)
    return None


def _duckdb(address: str, part: str | None) -> StockReader:
    from llama_index_presets.store.adopt.duckdb_table import StockDuckDB

    return StockDuckDB(address, part)


def _lancedb(address: str, part: str | None) -> StockReader:
    from llama_index_presets.store.adopt.lancedb_table import StockLanceDB

    return StockLanceDB(address, part)


def _postgres(address: str, part: str | None) -> StockReader:
    from llama_index_presets.store.adopt.pgvector_table import StockPostgres

    options = {name: values[-1] for name, values in parse_qs(part or "").items()}
    unknown = set(options) - {"table", "schema"}
    if unknown or "table" not in options:
        raise SettingsError(f"'#{part or ''}' names no table. Write #table=NAME, or #table=NAME&schema=NAME.")
    return StockPostgres(address, **options)


def _simple(address: str, part: str | None) -> StockReader:
    from llama_index_presets.store.adopt.persist_folder import StockFolder

    return StockFolder(address, part)


def _chroma(address: str, part: str | None) -> StockReader:
    from llama_index_presets.store.adopt.chroma_folder import StockChroma

    return StockChroma(address, part)


_OPENERS: dict[str, Callable[[str, str | None], StockReader]] = {
    "duckdb": _duckdb,
    "lancedb": _lancedb,
    "postgresql": _postgres,
    "simple": _simple,
    "chroma": _chroma,
}
