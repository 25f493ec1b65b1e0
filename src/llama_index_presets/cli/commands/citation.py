"""Command `show-citation`: the words that an answer cited, marked on their page."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from llama_index_presets.cli.app import STORAGE, AsJson, Offline, SettingsFile, StorageFolder, app, emit, say
from llama_index_presets.cli.engines import open_engine

__all__ = ["show_citation"]


@app.command(name="show-citation")
def show_citation(
    query_id: Annotated[str, typer.Argument(metavar="QUERY_ID", help="Of the answer, as 'ask' prints it.")],
    n: Annotated[int, typer.Argument(metavar="N", help="Number of the citation in the answer.")],
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    file: Annotated[
        Path | None, typer.Option("--html", help="Write the page to this file instead of opening it.")
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Open the page that an answer cited, with the words marked."""
    from llama_index_presets.presets.index.storage import read_metadata

    card = read_metadata(storage)
    with open_engine(str(card["preset"]), storage, offline, settings) as engine:
        page = engine.citation_page(query_id, n)
    if file is not None:
        file.write_text(page.html, encoding="utf-8")
    if as_json:
        emit({**page.to_dict(), "html": None if file is None else str(file)})
        return
    where = f"{page.source}, page {page.page}" if page.page is not None else page.source
    say(f"[{page.n}] {where}")
    for quote in page.quotes:
        say(f"  {' '.join(quote.split())}")
    if file is None:
        # In a folder of this user alone.
        file = Path(tempfile.mkdtemp(prefix="llama-presets-")) / "citation.html"
        file.write_text(page.html, encoding="utf-8")
        webbrowser.open(file.as_uri())
    say(f"  {file}")
