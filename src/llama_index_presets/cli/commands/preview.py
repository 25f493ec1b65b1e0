"""Command `preview`: what an ingest would read of each file, seen before it is paid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import FAILED, AsJson, app, complain, emit, say
from llama_index_presets.counting import counted
from llama_index_presets.errors import IngestError

if TYPE_CHECKING:
    from llama_index_presets.ingest.previews.preview import FilePreview

__all__ = ["preview"]


@app.command()
def preview(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, and URLs of files.")],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with each source beside its text."),
    ] = None,
    chunk_tokens: Annotated[
        int, typer.Option("--chunk-tokens", min=16, help="Longest chunk, in tokens.")
    ] = 256,
    as_json: AsJson = False,
) -> None:
    """Show what is read of each file: pages, headings, tables, language, encoding, chunks, warnings. Sends nothing."""
    from llama_index_presets.ingest.previews.preview import preview as read

    found = read(paths, chunk_tokens=chunk_tokens, each=None if as_json else _show)
    if html is not None:
        _write(html, found)
    failed = [one for one in found if one.error is not None]
    if as_json:
        emit({"documents": [one.to_dict() for one in found], "html": None if html is None else str(html)})
    else:
        chunks = sum(len(one.chunks) for one in found)
        say(
            f"{counted(len(found) - len(failed), 'document')}, {counted(chunks, 'chunk')}; "
            f"{len(failed)} would be left out."
        )
        if html is not None:
            say(f"See {html}.")
    if failed:
        raise typer.Exit(FAILED)


def _write(path: Path, found: list[FilePreview]) -> None:
    from llama_index_presets.ingest.previews.page import preview_page

    try:
        path.write_text(preview_page(found), encoding="utf-8")
    except OSError as error:
        raise IngestError(
            f"'{path}' cannot be written ({error.strerror}). Name a file in a folder that exists."
        ) from error


def _show(one: FilePreview) -> None:
    if one.error is not None:
        complain(f"{one.source}: {one.error}")
        return
    say(_printable(one.source))
    counts = [counted(len(one.chunks), "chunk"), counted(one.characters, "character")]
    counts += [counted(len(one.pages), "page")] if one.pages else []
    counts += [f"language {one.language}"] if one.language else []
    counts += [one.encoding] if one.encoding else []
    say(f"  {', '.join(counts)}")
    for name, items in (
        ("heading", one.headings),
        ("table", [t.name or t.columns or "without a name" for t in one.tables]),
    ):
        for item in list(items)[:5]:
            say(f"  {name}: {_printable(item)}")
        if len(items) > 5:
            say(f"  and {len(items) - 5:,} more {name}s")
    if one.chunks:
        say(f"  begins: {_printable(' '.join(one.chunks[0].text.split())[:100])}")
    for warning in one.warnings:
        complain(f"{one.source}: warning: {warning}")


def _printable(text: str) -> str:
    """A document's text without the characters that would steer a terminal."""
    return "".join(one if one.isprintable() else " " for one in text)
