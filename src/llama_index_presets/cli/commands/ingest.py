"""Command `ingest`: the index synchronised with files, once or after each change."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final

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
    say,
)
from llama_index_presets.cli.commands.storage import file_missing
from llama_index_presets.cli.engines import must_find, open_engine
from llama_index_presets.counting import counted
from llama_index_presets.errors import BudgetExceededError, IngestError, StoreError, StoreLockedError
from llama_index_presets.presets.matrix import preset as find_preset

if TYPE_CHECKING:
    from llama_index_presets.ingest.pipeline import FailedSource, IngestReport
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["complain_of_failures", "ingest"]

_MOST_WARNED: Final = 3
_MOST_KEPT: Final = 20
"""Names of documents that are printed of those kept as they were."""


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
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Read unchanged files anew, as after an upgrade; chunks whose text stays are not embedded again.",
        ),
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
            _watch(engine, paths, interval, as_json, options, again)
            return
        report = _ingest_in_turn(engine, paths, sync=sync, again=again, **options)
        # With permissions only a user may list documents.
        listed = [] if engine.has_permissions or not report.documents else engine.documents()
        # Before the engine closes: a ledger that cannot be written then costs nobody the report.
        _print_report(report, as_json)
        _warn_of_moved(preset, paths, [one.id for one in listed])
    if report.failed:
        raise typer.Exit(FAILED)


def _watch(
    engine: PresetEngine,
    paths: list[str],
    interval_s: float,
    as_json: bool,
    options: dict[str, Any],
    again: bool,
) -> None:
    """Ingest after each change, until Ctrl-C; a run that fails is reported, and the next change tries again.

    With `again`, the first run reads unchanged files, too.
    """
    from llama_index_presets.ingest.sources.watch import follow

    failures: list[Any] = []
    try:
        for number, _ in enumerate(follow(paths, interval_s=interval_s)):
            try:
                report = _ingest_in_turn(engine, paths, sync=True, again=again and number == 0, **options)
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


def _ingest_in_turn(engine: PresetEngine, paths: list[str], **options: Any) -> IngestReport:
    """Ingest; while another process holds the lock, print that and wait."""
    try:
        return engine.ingest(paths, wait=False, **options)
    except StoreLockedError as error:
        complain(str(error).replace("Wait until it is done.", "Waiting for it; Ctrl-C stops."))
        return engine.ingest(paths, **options)


def _print_report(report: IngestReport, as_json: bool) -> None:
    if as_json:
        emit(report.to_dict())
    else:
        removed = f", {report.removed} removed" if report.removed else ""
        say(
            f"{counted(report.documents, 'document')} ingested, {report.unchanged} unchanged{removed}: "
            f"{counted(report.embedded, 'chunk')} embedded, {counted(report.tokens, 'token')}, "
            f"{dollars(report.cost_usd)}."
        )
        if report.estimated_tokens is not None:
            say(
                f"Estimated: {counted(report.estimated_tokens, 'token')}, {dollars(report.estimated_cost_usd)}."
            )
        _say_personal_data(report)
        if report.outdated:
            what, them = (
                counted(report.outdated, "document", "were"),
                "it" if report.outdated == 1 else "them",
            )
            say(
                f"Of the unchanged, {what} read by an older release's reader; --again reads {them} anew and embeds "
                "only chunks that change."
            )
    _complain_of_warnings(report.warnings)
    complain_of_failures(report.failed)
    if report.kept:
        complain("Still answered from, as read last; to take one out, delete the file and use --sync:")
        for source in report.kept[:_MOST_KEPT]:
            complain(f"  {source}")
        if (more := len(report.kept) - _MOST_KEPT) > 0:
            complain(f"  and {more:,} more; --json lists all")


def _complain_of_warnings(warnings: Mapping[str, Sequence[str]]) -> None:
    """Print what the readers were unsure of; what many documents share once, with the first of them."""
    by_text: dict[str, list[str]] = {}
    for source, said in warnings.items():
        for warning in said:
            by_text.setdefault(warning, []).append(source)
    for warning, sources in by_text.items():
        if len(sources) > _MOST_WARNED:
            complain(
                f"{counted(len(sources), 'document')}, such as {sources[0]}: warning: {warning} --json lists all."
            )
            continue
        for source in sources:
            complain(f"{source}: warning: {warning}")


def _warn_of_moved(preset: str, paths: Iterable[str], listed: Sequence[str]) -> None:
    """Name documents whose files are gone, and are among those of this run under another folder."""
    from llama_index_presets.ingest.sources.file_system_source import is_url
    from llama_index_presets.ingest.sources.files import root_path

    roots = [root_path(path) for path in paths if not is_url(path)]
    here = {
        PurePath(one).relative_to(root).as_posix()
        for root in roots
        for one in listed
        if PurePath(one).is_relative_to(root)
    } - {"."}
    gone = [one for one in listed if _old_root(one, here) and file_missing(one)]
    if not gone:
        return
    old = _old_root(gone[0], here)
    whole = all(file_missing(one) for one in listed if one.startswith(f"{old}/"))
    remove = (
        f"Remove them with 'llama-presets documents {preset} {shlex.quote(old)} --delete'."
        if whole
        else f"'llama-presets documents {preset}' lists them, and removes those named with --delete."
    )
    complain(
        f"Of the index, {counted(len(gone), 'document', 'have')} the names of these, and no file any more, such as "
        f"'{gone[0]}': were they moved? They are answered from beside the new ones. {remove}"
    )


def _old_root(document: str, names: set[str]) -> str:
    """Folder below which a path has one of these relative paths; empty where it has none."""
    parts = document.split("/")
    return next(
        ("/".join(parts[:at]) for at in range(2, len(parts)) if "/".join(parts[at:]) in names),
        "",
    )


def complain_of_failures(failed: Sequence[FailedSource]) -> None:
    """Print what could not be read, and why; a reason that several documents share once, above them."""
    by_reason: dict[str, list[str]] = {}
    for failure in failed:
        by_reason.setdefault(failure.error, []).append(failure.source)
    for reason, sources in by_reason.items():
        if len(sources) == 1:
            complain(f"{sources[0]}: {reason}")
            continue
        complain(f"{counted(len(sources), 'document')}: {reason}")
        for source in sources:
            complain(f"  {source}")


def _say_personal_data(report: IngestReport) -> None:
    """Print the count of each kind of personal data in total; --json has it by document."""
    totals: Counter[str] = Counter()
    for counts in report.personal_data.values():
        totals.update(counts)
    if totals:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(totals.items()))
        say(f"Personal data in {counted(len(report.personal_data), 'document')}: {listed}.")
