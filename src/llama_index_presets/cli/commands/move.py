"""Command `move`: copy of an index from one store to another."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_presets.cli.app import FAILED, AsJson, app, complain, emit, say
from llama_index_presets.concurrency.closing import closes_all
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.paths import read_path
from llama_index_presets.ingest.progress import Progress, progress_bar

if TYPE_CHECKING:
    from contextlib import ExitStack

    from llama_index.core.vector_stores.types import BasePydanticVectorStore

__all__ = ["move"]

_KINDS = "duckdb:FILE, lancedb:FOLDER, postgresql://…, pinecone:INDEX or weaviate://HOST/COLLECTION"
_STOCK = (
    "What stock adapters wrote: duckdb:FILE#TABLE, lancedb:FOLDER#TABLE, postgresql://…#table=NAME, "
    "simple:FOLDER (StorageContext.persist), chroma:FOLDER#COLLECTION"
)


_IN_FOLDERS = ("duckdb", "lancedb", "simple", "chroma")


@app.command()
def move(
    source: Annotated[str, typer.Argument(metavar="SRC", help=f"{_KINDS}. {_STOCK}.")],
    target: Annotated[str, typer.Argument(metavar="DST", help=_KINDS)],
    as_json: AsJson = False,
    here: Annotated[bool, typer.Option("--here", hidden=True)] = False,
) -> None:
    """Copy nodes with their vectors to another store, without embedding anything, and check the copy.

    The source may also be what a stock LlamaIndex adapter wrote; it is only read.
    """
    _must_exist(source)
    _must_differ(source, target)
    if here:
        _move(source, target, as_json=as_json)
    else:
        _move_in_child(source, target, as_json=as_json)


def _move_in_child(source: str, target: str, *, as_json: bool) -> None:
    """Run this command in a process whose environment keeps its memory small; what the environment says is kept."""
    from llama_index_presets.store.move import COPY_ENVIRONMENT

    options = ["--here", "--json"] if as_json else ["--here"]
    code = f"import sys; sys.path[:] = {sys.path!r}; from llama_index_presets.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "move", *options, "--", source, target]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, encoding="utf-8", check=False,
        env={**COPY_ENVIRONMENT, **os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    if text := done.stdout.rstrip("\n"):
        say(text)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _move(source: str, target: str, *, as_json: bool) -> None:
    from llama_index_presets.store.move import move as move_nodes

    with closes_all("closing a store") as opened:
        # DuckDB alone has to be told that it only reads; then others may read beside it.
        old = _open_source(source, opened)
        fingerprint = getattr(old, "fingerprint", None)
        new = _open(target, opened, {"fingerprint": fingerprint} if fingerprint else {})
        with progress_bar(doing="Moving", things="nodes") as bar:
            report = move_nodes(old, new, progress=_shown_by(bar))
    if as_json:
        emit(json.loads(report.to_json()))
    else:
        recall = "" if report.recall_at_10 is None else f", recall@10 {report.recall_at_10:.3f}"
        say(
            f"{counted(report.nodes, 'node')}, {report.copied} copied now, {report.compared} compared{recall}."
        )
    if not report.ok:
        complain(f"{counted(len(report.missing), 'node', 'are')} missing, {len(report.different)} differ.")
        raise typer.Exit(FAILED)


def _must_exist(place: str) -> None:
    scheme, _, rest = place.partition(":")
    path = rest.partition("#")[0]
    if scheme in _IN_FOLDERS and "://" not in path and not Path(path).exists():
        raise SettingsError(f"There is no '{path}' to move from.")


def _must_differ(source: str, target: str) -> None:
    if _resolved(source) == _resolved(target):
        raise SettingsError("The source and the target are the same place. Give another one to move to.")


def _resolved(place: str) -> str:
    scheme, _, rest = place.partition(":")
    path = rest.partition("#")[0]
    if scheme in _IN_FOLDERS and "://" not in path:
        return f"{scheme}:{read_path(path, 'The folder')}"
    return place.partition("#")[0]


def _open_source(place: str, opened: ExitStack) -> Any:
    """Nodes that a stock adapter wrote, where there are some, else a store of this package."""
    from llama_index_presets.store.adopt.places import find_stock

    stock = find_stock(place)
    if stock is None:
        return _open(place, opened, {"read_only": True} if place.startswith("duckdb:") else {})
    opened.callback(stock.close)
    return stock


def _open(place: str, opened: ExitStack, options: dict[str, Any]) -> BasePydanticVectorStore:
    scheme, _, rest = place.partition(":")
    opener = _OPENERS.get("postgresql" if scheme.startswith("postgres") else scheme)
    if opener is None or not rest:
        raise SettingsError(f"'{scheme}' is no store. Give {_KINDS}.")
    store: BasePydanticVectorStore = opener(place, rest, options)
    close = getattr(store, "close", None)
    if close is not None:
        opened.callback(close)
    return store


def _duckdb(place: str, rest: str, options: dict[str, Any]) -> Any:
    from llama_index_presets.store.duckdb.store import DuckDBVectorStore

    return DuckDBVectorStore(rest, **options)


def _lancedb(place: str, rest: str, options: dict[str, Any]) -> Any:
    from llama_index_presets.store.lancedb.store import LanceDBVectorStore

    return LanceDBVectorStore(rest, **options)


def _postgres(place: str, rest: str, options: dict[str, Any]) -> Any:
    from llama_index_presets.store.postgres.store import PostgresVectorStore

    url, _, fragment = place.partition("#")
    known = re.search(r"(?:^|;)dim=(\d+)", fragment or options.get("fingerprint", ""))
    if known is None:
        raise SettingsError(
            "The length of the vectors in PostgreSQL is unknown. Add it to the URL: …#dim=384."
        )
    return PostgresVectorStore.from_url(url, embed_dim=int(known[1]), **options)


def _pinecone(place: str, rest: str, options: dict[str, Any]) -> Any:
    from llama_index_presets.store.pinecone.store import PineconeVectorStore

    return PineconeVectorStore(rest.removeprefix("//"), **options)


def _weaviate(place: str, rest: str, options: dict[str, Any]) -> Any:
    from llama_index_presets.store.weaviate.store import WeaviateVectorStore

    return WeaviateVectorStore.from_url(place, **options)


_OPENERS: dict[str, Callable[[str, str, dict[str, Any]], Any]] = {
    "duckdb": _duckdb,
    "lancedb": _lancedb,
    "postgresql": _postgres,
    "pinecone": _pinecone,
    "weaviate": _weaviate,
}


def _shown_by(bar: Progress) -> Callable[[int, int], None]:
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        bar.start(total)
        bar.advance(done - shown)
        shown = done

    return show
