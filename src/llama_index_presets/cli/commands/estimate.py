"""Command `estimate`: what an ingest would take, counted before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    dollars,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.cli.commands.ingest import complain_of_failures
from llama_index_presets.cli.terminal import working
from llama_index_presets.counting import counted
from llama_index_presets.presets.matrix import preset as find_preset

if TYPE_CHECKING:
    from llama_index_presets.presets.estimates.answer import AnswerEstimate
    from llama_index_presets.presets.estimates.estimate import ContextEstimate, Estimate
    from llama_index_presets.presets.estimates.reranking import RerankEstimate

__all__ = ["estimate"]

_MEGA = 1_000_000


@app.command()
def estimate(
    ctx: typer.Context,
    preset: PresetName,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[PATHS]", help="Files and folders; else the sources of llama-presets.toml."),
    ],
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, help="Read only so many documents, and extrapolate."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="As for 'ingest --again': count unchanged files, too.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a page with bars: what is sent, and what it costs.")
    ] = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Estimate an ingest: documents, chunks, tokens, dollars, minutes, disk. Sends and writes nothing."""
    find_preset(preset)
    with working("Reading and counting"):
        from llama_index_presets.presets.estimates.ingestion import estimate_preset

        found = estimate_preset(
            preset,
            [str(path) for path in paths],
            storage=_place(ctx, storage, preset),
            offline=offline,
            settings=settings,
            sample=sample,
            again=again,
        )
    if as_json:
        emit(found.to_dict())
    else:
        _show(found)
        if again and found.chunks > found.cached:
            say(
                "The index itself was not opened: where the embedding cache was emptied, as 'compact' does, "
                "'ingest --again' still keeps the vectors of chunks whose text stays, and costs less than this."
            )
    if plot:
        from llama_index_presets.presets.estimates.page import estimate_page
        from llama_index_presets.report.charts import write_page

        complain(f"Written: {write_page(estimate_page(found, _rows(found)), plot)}")
    complain_of_failures(found.failed)
    if found.failed:
        raise typer.Exit(FAILED)


def _place(ctx: typer.Context, storage: str, preset: str) -> str | None:
    """Storage whose documents cost nothing; none where it was not named, and holds the index of another preset."""
    from llama_index_presets.presets.index.storage import read_metadata, resolve_storage

    if ctx.get_parameter_source("storage").name == "DEFAULT":  # type: ignore[union-attr]
        place = resolve_storage(storage)
        if place.metadata_file.exists() and read_metadata(place)["preset"] != preset:
            return None
    return storage


def _rows(found: Estimate) -> list[tuple[str, str]]:
    about = f" (+/- {found.margin:.1%}, from a sample)" if found.margin else ""
    repeats = f", of which {found.repeated:,} repeat another one" if found.repeated else ""
    not_sent = f"; {found.repeated_tokens:,} of repeated chunks are not sent" if found.repeated else ""
    minutes = "unknown" if found.minutes is None else f"{found.minutes:,.1f}"
    rows = [
        ("Documents", f"{found.documents:,} to ingest, {found.unchanged:,} unchanged"),
        ("Chunks", f"{found.chunks:,}, of which {found.cached:,} need no model{repeats}"),
        ("Tokens", f"{found.tokens:,}{about}{not_sent}"),
        ("Cost", dollars(None if found.cost_usd is None else float(found.cost_usd))),
        ("Minutes", f"{minutes}: {found.minutes_from}"),
        ("Disk", f"about {found.disk_bytes / _MEGA:,.1f} MB on this machine"),
    ]
    if found.context is not None:
        rows.append(("Context sentences", _context(found.context)))
    if found.answer is not None:
        rows.append(("Each answer", _answer(found.answer)))
    return rows


def _show(found: Estimate) -> None:
    shown = table("With", found.model)
    for row in _rows(found):
        shown.add_row(*row)
    print_table(shown)
    say("Nothing was sent.")


def _context(context: ContextEstimate) -> str:
    """Price of the context sentences, which is part of the cost."""
    usd = None if context.cost_usd is None else float(context.cost_usd)
    return (
        f"{dollars(usd)} of the cost: {context.model} writes {context.calls:,} ({context.known:,} are there), reads "
        f"{counted(context.prompt_tokens, 'token')}, {context.cached_tokens:,} of them cached"
    )


def _answer(answer: AnswerEstimate) -> str:
    """Price of an answer, and its parts."""
    reranking = "" if answer.reranking is None else f"; {_reranking(answer.reranking)}"
    if answer.usd == 0:
        return f"$0: {answer.model} runs on this machine{reranking}"
    usd = None if answer.usd is None else float(answer.usd)
    return (
        f"{dollars(usd)}: {answer.model} reads {counted(answer.prompt_tokens, 'token')} and writes "
        f"{answer.answer_tokens}, without thinking{reranking}"
    )


def _reranking(reranking: RerankEstimate) -> str:
    """Price and time of re-ranking, which is part of an answer."""
    usd = (
        ""
        if reranking.usd == 0
        else f" for {dollars(None if reranking.usd is None else float(reranking.usd))}"
    )
    time = "" if reranking.ms is None else f", about {reranking.ms:,.0f} ms on this machine"
    return f"{reranking.model} re-ranks up to {counted(reranking.pairs, 'passage')}{usd}{time}"
