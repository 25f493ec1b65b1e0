"""Commands over the ledger and the audit log: `costs` and `audit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    StorageFolder,
    app,
    clear_screen,
    complain_of_unpriced,
    emit,
    print_table,
    say,
)
from llama_index_presets.cli.engines import existing_storage
from llama_index_presets.cli.project import ProjectCommand
from llama_index_presets.counting import counted

if TYPE_CHECKING:
    from llama_index_presets.monitor.ledger.ledger import Ledger

__all__ = ["audit_app", "costs", "verify"]

audit_app = typer.Typer(help="The tamper-evident log of queries.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")


@app.command()
def costs(
    storage: StorageFolder = STORAGE,
    days: Annotated[
        float, typer.Option("--days", min=0.001, help="How far --json and --markdown look back, in days.")
    ] = 7,
    by: Annotated[
        str, typer.Option("--by", help="Group of --json: model, day, preset, tenant, tag, …")
    ] = "model",
    since: Annotated[
        str | None, typer.Option("--since", help="The same as --days, with a unit: 24h, 7d, 4w.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a digest in Markdown, for a mail or a chat.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with plots to this file.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the report and new alerts until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Calls of models and their cost."""
    from llama_index_presets.monitor.ledger.ledger import Ledger

    place = existing_storage(storage)
    if since is not None:
        from llama_index_presets.monitor.ledger.digest import read_period

        days = read_period(since)
    with Ledger(place.ledger) as ledger:
        if html is not None:
            from llama_index_presets.monitor.ledger.report import write_cost_page

            say(f"Written: {write_cost_page(ledger, html)}")
        elif markdown:
            from llama_index_presets.monitor.ledger.digest import digest

            say(digest(ledger, days=days).rstrip("\n"))
        elif as_json:
            from llama_index_presets.monitor.ledger.report import costs_json

            found = costs_json(ledger, days=days, by=by)
            emit(found)
            complain_of_unpriced(found.get("unpriced_models", ()))
        else:
            _show(ledger, watch=watch)
            complain_of_unpriced([] if watch else ledger.unpriced_models(days=7))


def _show(ledger: Ledger, *, watch: bool) -> None:
    from llama_index_presets.monitor.alerts import AlertMonitor
    from llama_index_presets.monitor.ledger import report

    looks = report.watch(ledger, AlertMonitor(ledger, [lambda alert: None]), times=None if watch else 1)
    for found, alerts in looks:
        if watch:
            clear_screen()
        for table in report.report_tables(found):
            print_table(table)
        for alert in alerts if watch else []:
            say(f"Alert: {alert}")


@audit_app.command(cls=ProjectCommand)
def verify(
    log: Annotated[
        Path | None, typer.Argument(help="The audit log; else the one of --storage.", show_default=False)
    ] = None,
    storage: StorageFolder = STORAGE,
    key: Annotated[
        Path | None, typer.Option("--key", help="File with the operator's key; else the engine's own.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option("--head", help="An exported head that the log must contain.")
    ] = None,
    export: Annotated[Path | None, typer.Option("--export-head", help="Write the head to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find any edit, deletion or reorder of an audit log and, against an exported head, truncation."""
    from llama_index_presets.monitor.audit import AuditHead, audit_key, no_log
    from llama_index_presets.monitor.audit import verify as verify_log
    from llama_index_presets.presets.index.storage import resolve_storage

    path = log or resolve_storage(storage).folder / "audit.jsonl"
    if not path.exists():
        raise no_log(path)  # before a key is asked for, which nobody needs who has no log
    report = verify_log(
        path,
        key=key or audit_key(make=False),
        head=AuditHead.load(head) if head else None,
    )
    if report.ok and export is not None:
        report.head.save(export)
    if as_json:
        emit(asdict(report))
    elif report.ok:
        say(
            f"{counted(report.entries, 'entry')}, unbroken. Head: entry {report.head.number}, {report.head.mac}"
        )
    else:
        say(f"Broken at line {report.first_bad}: {report.reason}.")
    if not report.ok:
        raise typer.Exit(FAILED)
