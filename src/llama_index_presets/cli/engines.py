"""Commands that run an engine: `ingest`, `ask` and `chat`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llama_index_presets.cli.answer_output import show_pieces, show_sources
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
)
from llama_index_presets.cli.terminal import (
    can_ask,
    is_terminal,
    model_loads_shown,
    printable,
    working,
)
from llama_index_presets.errors import (
    BudgetExceededError,
    IngestError,
    SettingsError,
    StoreError,
    StoreLockedError,
)
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.providers.language_models import read_name

if TYPE_CHECKING:
    from llama_index_presets.ingest.pipeline import FailedSource, IngestReport
    from llama_index_presets.presets.engine import PresetEngine
    from llama_index_presets.presets.index.storage import Storage

__all__ = ["ask", "chat", "existing_storage", "ingest", "must_find", "need_index", "open_engine"]

_MOST_KEPT: Final = 20
"""Names of documents that are printed of those kept as they were."""

User = Annotated[str, typer.Option("--user", help="Who asks, where the storage has permissions.")]
Groups = Annotated[str, typer.Option("--groups", help="Their groups: hr,all.")]
Everything = Annotated[
    bool, typer.Option("--everything", help="See every document; with --user, for the record.")
]


@app.command()
def ingest(
    preset: PresetName,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[PATHS]",
            help="Files, folders, URLs of files (s3://…, https://…); else the sources of llama-presets.toml.",
        ),
    ],
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove documents that vanished from the folders.")
    ] = False,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", help="KEY=VALUE put on every document. Repeatable.")
    ] = None,
    folder_key: Annotated[
        str | None,
        typer.Option(
            "--folder-key", help="Metadata key that takes the name of a file's top folder: department."
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", min=0, help="Count first; refuse when it would cost more US dollars."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Ingest on a Ray cluster; 'local' starts one here."),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Take removed and replaced text off the disk in the end.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on: follow the folders with --sync after each change. Ctrl-C ends it."
        ),
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="With --watch: seconds between two looks.")
    ] = 2.0,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Synchronise the index with files; unchanged ones cost nothing."""
    find_preset(preset)
    from llama_index_presets.filters.text import parse_metadata

    options: dict[str, Any] = {
        "metadata": parse_metadata(metadata or []),
        "folder_key": folder_key,
        "compact": compact,
    }
    must_find(paths)
    options |= {"max_cost_usd": max_cost} | ({"workers": "ray", "ray_address": ray} if ray else {})
    with open_engine(preset, storage, offline, settings) as engine:
        if watch:
            _watch(engine, paths, interval, as_json, options)
            return
        report = _ingest_in_turn(engine, paths, sync=sync, **options)
    _print_report(report, as_json)
    if report.failed:
        raise typer.Exit(FAILED)


def _watch(
    engine: PresetEngine, paths: list[str], interval_s: float, as_json: bool, options: dict[str, Any]
) -> None:
    """Ingest after each change, until Ctrl-C; a run that fails is told, and the next change tries again."""
    from llama_index_presets.ingest.sources.watch import follow

    failures: list[Any] = []
    try:
        for number, _ in enumerate(follow(paths, interval_s=interval_s)):
            try:
                report = _ingest_in_turn(engine, paths, sync=True, **options)
            except BudgetExceededError:
                raise
            except (IngestError, StoreError) as error:
                complain(f"Error: {error}")
                continue
            if number == 0 or report.documents or report.removed or report.failed != failures:
                _print_report(report, as_json)
            failures = report.failed
    except KeyboardInterrupt:
        complain("Stopped. What was committed is in the index.")


def _print_report(report: IngestReport, as_json: bool) -> None:
    if as_json:
        emit(report.to_dict())
    else:
        removed = f", {report.removed} removed" if report.removed else ""
        say(
            f"{report.documents} documents ingested, {report.unchanged} unchanged{removed}: "
            f"{report.embedded} chunks embedded, {report.tokens:,} tokens, {dollars(report.cost_usd)}."
        )
        if report.estimated_tokens is not None:
            say(f"Estimated: {report.estimated_tokens:,} tokens, {dollars(report.estimated_cost_usd)}.")
        _say_personal_data(report)
    for source, warnings in report.warnings.items():
        for warning in warnings:
            complain(f"{source}: warning: {warning}")
    complain_of_failures(report.failed)
    if report.kept:
        complain("Still answered from, as read last; to take one out, delete the file and use --sync:")
        for source in report.kept[:_MOST_KEPT]:
            complain(f"  {source}")
        if (more := len(report.kept) - _MOST_KEPT) > 0:
            complain(f"  and {more:,} more; --json lists all")


def complain_of_failures(failed: Sequence[FailedSource]) -> None:
    """Print what could not be read, and why; a reason that several documents share once, above them."""
    by_reason: dict[str, list[str]] = {}
    for failure in failed:
        by_reason.setdefault(failure.error, []).append(failure.source)
    for reason, sources in by_reason.items():
        if len(sources) == 1:
            complain(f"{sources[0]}: {reason}")
            continue
        complain(f"{len(sources)} documents: {reason}")
        for source in sources:
            complain(f"  {source}")


def _say_personal_data(report: IngestReport) -> None:
    """Print the count of each kind of personal data in total; --json has it by document."""
    totals: Counter[str] = Counter()
    for counts in report.personal_data.values():
        totals.update(counts)
    if totals:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(totals.items()))
        say(f"Personal data in {len(report.personal_data)} documents: {listed}.")


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
        view = _as_user(engine, user, groups, everything)
        query = _query(question or "", image)
        live = not as_json and is_terminal(sys.stdout)
        with working("Answering") as status, model_loads_shown(status):
            response: Any = view.stream(query) if live else view.query(query)
            if live:
                show_pieces(response.response_gen, status)
    metadata: dict[str, Any] = response.metadata or {}
    cited = [citation for citation in metadata["citations"] if citation["valid"]]
    if as_json:
        citations = [_shown(citation) for citation in cited]
        bill: dict[str, Any] = {
            key: metadata[key] for key in ("query_id", "cost_usd", "latency_ms", "finish_reason")
        }
        told = response.to_dict()
        extra = {key: told[key] for key in ("unsupported", "numbers", "degraded") if key in told}
        answer = str(response)
        emit({"answer": answer, "known": metadata["known"], "citations": citations, **bill, **extra})
        return
    if not live:
        say(str(response))
    show_sources(response.to_dict()["answer"], cited)
    _warn_of_figures(metadata)
    say(f"  {dollars(metadata['cost_usd'])}, {metadata['latency_ms']:.0f} ms, query {metadata['query_id']}")
    _warn_when_cut(metadata)


def _as_user(engine: PresetEngine, user: str, groups: str, everything: bool) -> PresetEngine:
    """The engine for whom the options name; itself where they name nobody."""
    if not (user or groups or everything):
        return engine
    listed = [group.strip() for group in groups.split(",")] if groups else []
    return engine.as_user(user=user, groups=listed, everything=everything)


@app.command()
def permissions(
    preset: PresetName,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT]...", help="Ids; none for all.")
    ] = None,
    allowed: Annotated[
        str | None,
        typer.Option("--allowed", help="Who may see them from now on: hr,user:ada; '' for nobody."),
    ] = None,
    storage: StorageFolder = STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who may see documents, or set it; nothing is embedded again. The storage has permissions = "on"."""
    need_index(storage)
    with open_engine(preset, storage, offline, settings) as engine:
        if allowed is not None:
            if not documents:
                raise SettingsError(
                    "--allowed sets the permissions of the documents named: name one or more."
                )
            changed = engine.set_permissions(documents, allowed)
        listed = engine.permissions(documents or None)
    if as_json:
        emit({"permissions": listed, **({"changed": changed} if allowed is not None else {})})
        return
    for name, names in listed.items():
        say(f"{name}: {', '.join(names) or 'nobody'}")
    if allowed is not None and changed < len(set(documents or ())):
        complain(f"{len(set(documents or ())) - changed} of the documents are not in the index.")
        raise typer.Exit(FAILED)


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
    with open_engine(preset, storage, offline, settings, filters, llm=llm) as engine:
        conversation = _as_user(engine, user, groups, everything).as_chat_engine()
        live = is_terminal(sys.stdout)
        for line in iter(_prompt, "") if can_ask() else sys.stdin or ():
            if not line.strip():
                break
            with working("Answering") as status, model_loads_shown(status):
                response: Any = (
                    conversation.stream_chat(line.strip()) if live else conversation.chat(line.strip())
                )
                if live:
                    show_pieces(response.response_gen, status)
            if not live:
                say(str(response))
            metadata: dict[str, Any] = response.metadata or {}
            cited = [citation for citation in metadata.get("citations", []) if citation["valid"]]
            show_sources(str(response), cited)
            _warn_of_figures(metadata)
            _warn_when_cut(metadata)


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


def _ingest_in_turn(engine: PresetEngine, paths: list[str], **options: Any) -> IngestReport:
    """Ingest; while another process holds the lock, print that and wait."""
    try:
        return engine.ingest(paths, wait=False, **options)
    except StoreLockedError as error:
        complain(str(error).replace("Wait until it is done.", "Waiting for it; Ctrl-C stops."))
        return engine.ingest(paths, **options)


def open_engine(
    preset: str,
    storage: str,
    offline: bool,
    settings: Path | None,
    filters: Sequence[str] | None = None,
    *,
    llm: str | None = None,
) -> PresetEngine:
    """Build an engine; a mistyped preset or model fails before the slow import."""
    find_preset(preset)
    if llm:
        read_name(llm)
    from llama_index_presets.filters.text import parse_filters

    wanted = parse_filters(filters or [])
    with working("Opening the index"):
        from llama_index_presets.presets.build import build

        return build(preset, storage=storage, llm=llm, offline=offline, settings=settings, filters=wanted)


def _shown(citation: dict[str, Any]) -> dict[str, Any]:
    """Fields of a citation for --json; more for a paper or a table."""
    keys = ("n", "source", "page", "score", "text")
    extra = ("title", "authors", "year", "table", "image")
    return {key: citation[key] for key in keys} | {key: citation[key] for key in extra if key in citation}


def must_find(paths: Sequence[str | Path]) -> None:
    """Fail when there is nothing to ingest, before a storage is made for it.

    Raises:
        IngestError: A path is missing, or a folder is empty.
    """
    from llama_index_presets.ingest.sources.file_system_source import is_url
    from llama_index_presets.ingest.sources.files import find_files

    local = [str(path) for path in paths if not is_url(path)]
    if local or not paths:
        find_files(local)


def need_index(storage: str) -> None:
    """Fail when the folder has no index yet; vectors on a server may come from another machine."""
    from llama_index_presets.presets.index.storage import read_metadata, resolve_storage

    place = resolve_storage(storage)
    if place.address is None:
        read_metadata(place)


def existing_storage(storage: str) -> Storage:
    """The storage whose folder is there, whatever is in it.

    Raises:
        SettingsError: There is no such folder.
    """
    from llama_index_presets.presets.index.storage import resolve_storage

    place = resolve_storage(storage)
    if not place.folder.is_dir():
        raise SettingsError(
            f"There is no storage folder '{place.shown}'. Give the --storage of an earlier ingest."
        )
    return place


def _prompt() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""
