"""Commands `ask` and `chat`, and `show-citation`, which opens what an answer cited."""

from __future__ import annotations

import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_index_presets.cli.answer_output import show_closest, show_pieces, show_sources
from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    Filters,
    ModelName,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    dollars,
    emit,
    say,
    what_failed,
)
from llama_index_presets.cli.engines import Everything, Groups, User, as_user, need_index, open_engine
from llama_index_presets.cli.terminal import can_ask, is_terminal, model_loads_shown, printable, working
from llama_index_presets.concurrency.interrupts import interrupts_noted
from llama_index_presets.errors import SettingsError

__all__ = ["ask", "chat", "show_citation"]


@app.command()
def ask(
    preset: PresetName,
    question: Annotated[
        str | None, typer.Argument(help="The question; may be left out with --image.")
    ] = None,
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    filters: Filters = None,
    settings: SettingsFile = None,
    llm: ModelName = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="An image to ask with (preset multi-modal).")
    ] = None,
    user: User = "",
    groups: Groups = "",
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the index, with its sources and its cost."""
    if question is None and image is None:
        raise SettingsError(
            "Missing argument 'QUESTION': ask something in quotes, or ask with an image, --image FILE."
        )
    need_index(storage)
    with open_engine(preset, storage, offline, settings, filters, llm=llm) as engine:
        view = as_user(engine, user, groups, everything)
        query = _query(question or "", image)
        live = not as_json and is_terminal(sys.stdout)
        with working("Answering") as status, model_loads_shown(status):
            response: Any = view.stream(query) if live else view.query(query)
            if live:
                show_pieces(response.response_gen, status)
        # Before the engine closes: a ledger that cannot be written then costs nobody the answer.
        _print_answer(response, as_json=as_json, live=live)


def _print_answer(response: Any, *, as_json: bool, live: bool) -> None:
    metadata: dict[str, Any] = response.metadata or {}
    if as_json:
        emit(_as_json(response, metadata))
        return
    _show_answer(response.to_dict()["answer"], metadata, live=live)
    say(f"  {dollars(metadata['cost_usd'])}, {metadata['latency_ms']:.0f} ms, query {metadata['query_id']}")
    _warn_when_cut(metadata)


def _as_json(response: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """The one object of --json."""
    whole = response.to_dict()
    bill = ("query_id", "cost_usd", "latency_ms", "finish_reason")
    optional = ("unsupported", "numbers", "degraded", "unpriced_models", "closest")
    return {
        "answer": str(response),
        "known": metadata["known"],
        "citations": [_shown(citation) for citation in _valid_citations(metadata)],
        **{key: metadata[key] for key in bill},
        **{key: whole[key] for key in optional if key in whole},
    }


def _show_answer(text: str, metadata: dict[str, Any], *, live: bool) -> None:
    """Print an answer, unless its pieces were printed as they came, with its sources and doubts."""
    if not live:
        say(text)
    show_sources(text, _valid_citations(metadata))
    show_closest(metadata.get("closest") or ())
    _warn_of_figures(metadata)


def _valid_citations(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return [citation for citation in metadata.get("citations", []) if citation["valid"]]


def _query(question: str, image: Path | None) -> Any:
    from llama_index.core.schema import QueryBundle

    return question if image is None else QueryBundle(question, image_path=str(image))


@app.command()
def chat(
    preset: PresetName,
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    filters: Filters = None,
    settings: SettingsFile = None,
    llm: ModelName = None,
    user: User = "",
    groups: Groups = "",
    everything: Everything = False,
) -> None:
    """Talk with the index, one message a line; an empty line or Ctrl-D ends it."""
    need_index(storage)
    with (
        interrupts_noted() as interrupts,
        open_engine(preset, storage, offline, settings, filters, llm=llm) as engine,
    ):
        conversation = as_user(engine, user, groups, everything).as_chat_engine()
        live, failed = is_terminal(sys.stdout), False
        for line in iter(_prompt, "") if can_ask() else sys.stdin or ():
            if not line.strip():
                break
            try:
                with working("Answering") as status, model_loads_shown(status):
                    response: Any = (
                        conversation.stream_chat(line.strip()) if live else conversation.chat(line.strip())
                    )
                    if live:
                        show_pieces(response.response_gen, status)
            except Exception as error:  # the conversation goes on; Ctrl-C is no Exception
                if interrupts.heard:
                    raise
                failed = True
                complain(f"Error: {what_failed(error)}")
                complain("The conversation goes on: ask again, or end it with an empty line.")
                continue
            metadata: dict[str, Any] = response.metadata or {}
            _show_answer(str(response), metadata, live=live)
            _warn_when_cut(metadata)
    if failed and not can_ask():  # a script goes by the code
        raise typer.Exit(FAILED)


def _prompt() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


def _shown(citation: dict[str, Any]) -> dict[str, Any]:
    """Fields of a citation for --json; more for a paper or a table."""
    keys = ("n", "source", "page", "score", "text")
    extra = ("title", "authors", "year", "table", "image")
    return {key: citation[key] for key in keys} | {key: citation[key] for key in extra if key in citation}


def _warn_of_figures(metadata: dict[str, Any]) -> None:
    """Say which figures of an answer are not in what it cites."""
    from llama_index_presets.answer.response import figures_to_check

    for line in figures_to_check(metadata):
        say(f"  {printable(line)}")


def _warn_when_cut(metadata: dict[str, Any]) -> None:
    """Warn on standard error that an answer is incomplete."""
    from llama_index_presets.answer.finish import cut_off

    if metadata.get("known") and (warning := cut_off(metadata.get("finish_reason"))):
        complain(warning)


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

    preset = str(read_metadata(storage)["preset"])
    with open_engine(preset, storage, offline, settings) as engine:
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
