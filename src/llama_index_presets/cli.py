"""The command line. Commands that only read tables start fast: they never import LlamaIndex."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from llama_index_presets import __version__
from llama_index_presets.errors import PresetsError, SettingsError
from llama_index_presets.presets.matrix import COLUMNS, PRESETS, Preset
from llama_index_presets.presets.matrix import preset as find_preset

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["app", "main"]

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class _OneLineErrors(TyperGroup):
    """Runs a command; what is raised on purpose becomes one line and an exit code, a traceback only with --debug."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("Stopped. What was committed is in the index; run the same command again to go on.")
            raise typer.Exit(INTERRUPTED) from None
        except PresetsError as error:
            self._fail(ctx, str(error), WRONG_USAGE if isinstance(error, SettingsError) else FAILED, error)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if type(error).__module__.startswith(
                ("typer", "click")
            ):  # wrong usage: the library's own one line
                raise
            hint = "" if _debug() else " (--debug shows where)"
            self._fail(ctx, f"{type(error).__name__}: {_first_line(error)}{hint}", FAILED, error)

    def _fail(self, ctx: Any, message: str, code: int, error: Exception) -> NoReturn:
        if _debug():
            traceback.print_exception(error)
        _complain(f"Error: {message}")
        if "--json" in sys.argv:
            _emit({"error": message})
        raise typer.Exit(code) from None


app = typer.Typer(
    name="llama-presets",
    cls=_OneLineErrors,
    rich_markup_mode=None,
    help="From a use case to a running, measured, billed LlamaIndex query engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PresetName = Annotated[str, typer.Argument(metavar="PRESET", help="A row of 'llama-presets list'.")]
StorageFolder = Annotated[
    Path, typer.Option("--storage", help="Folder of the index, the ledger and the logs.")
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON object on standard output, everything else on standard error."),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Swap every networked part for its local counterpart.")
]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with settings.")]

_STORAGE = Path("llama-presets-storage")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """From a use case to a running, measured, billed LlamaIndex query engine."""
    if version:
        _say(__version__)
        raise typer.Exit(DONE)


@app.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """The seven presets, and what each still needs on this machine."""
    rows = [_row(row) for row in PRESETS.values()]
    if as_json:
        _emit({"presets": rows})
        return
    table = _table("Preset", "Embedding", "Store", "Pattern", "Monitoring", "Ready")
    for row in rows:
        cells = [row[column] for column in ("name", "embedding", "store", "pattern", "monitoring")]
        table.add_row(*cells, "yes" if row["ready"] else "no")
    _print(table)
    _say("llama-presets show PRESET says what a preset is for, and what is missing.")


@app.command()
def show(preset: PresetName, as_json: AsJson = False) -> None:
    """One preset: its parts, why they were chosen, and what is missing."""
    row = find_preset(preset)
    details = {**_row(row), "llm": row.llm, "why": row.why, "offline": dict(_cells(row.offline()))}
    if as_json:
        _emit(details)
        return
    table = _table("Part", "Choice", "With --offline")
    for column, choice in _cells(row):
        table.add_row(column, choice, details["offline"][column])
    _say(f"{row.name}: {row.use_case}\n{row.why}")
    _print(table)
    for line in details["missing"] or ["Nothing is missing."]:
        _say(line)


@app.command()
def ingest(
    preset: PresetName,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    storage: StorageFolder = _STORAGE,
    offline: Offline = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove documents that vanished from the folders.")
    ] = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring the index in line with files; what did not change costs nothing."""
    with _engine(preset, storage, offline, settings) as engine:
        report = engine.ingest([str(path) for path in paths], sync=sync)
    if as_json:
        _emit(report.to_dict())
    else:
        removed = f", {report.removed} removed" if report.removed else ""
        _say(
            f"{report.documents} documents ingested, {report.unchanged} unchanged{removed}: "
            f"{report.embedded} chunks embedded, {report.tokens:,} tokens, {_dollars(report.cost_usd)}."
        )
    for failure in report.failed:
        _complain(f"{failure.source}: {failure.error}")
    if report.failed:
        raise typer.Exit(FAILED)


@app.command()
def ask(
    preset: PresetName,
    question: Annotated[str, typer.Argument(help="The question.")],
    storage: StorageFolder = _STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the index, with its sources and its cost."""
    _need_index(storage)
    with _engine(preset, storage, offline, settings) as engine:
        response = engine.query(question)
    metadata: dict[str, Any] = response.metadata or {}
    cited = [citation for citation in metadata["citations"] if citation["valid"]]
    if as_json:
        keys = ("n", "source", "page", "score", "text")
        citations = [{key: citation[key] for key in keys} for citation in cited]
        bill = {key: metadata[key] for key in ("query_id", "cost_usd", "latency_ms")}
        _emit({"answer": str(response), "known": metadata["known"], "citations": citations, **bill})
        return
    _say(str(response))
    for citation in cited:
        page = f", page {citation['page']}" if citation["page"] else ""
        heading = f" ({citation['heading']})" if citation["heading"] else ""
        _say(f"  [{citation['n']}] {citation['source']}{page}{heading}, score {citation['score']:.3f}")
    _say(f"  {_dollars(metadata['cost_usd'])}, {metadata['latency_ms']:.0f} ms, query {metadata['query_id']}")


@app.command()
def chat(
    preset: PresetName,
    storage: StorageFolder = _STORAGE,
    offline: Offline = False,
    settings: SettingsFile = None,
) -> None:
    """Talk with the index, one message a line; an empty line or Ctrl-D ends it."""
    _need_index(storage)
    with _engine(preset, storage, offline, settings) as engine:
        conversation = engine.as_chat_engine()
        for line in sys.stdin if not sys.stdin.isatty() else iter(lambda: _prompt(), ""):
            if not line.strip():
                break
            response = conversation.chat(line.strip())
            _say(str(response))
            for citation in (response.metadata or {}).get("citations", []):
                if citation["valid"]:
                    _say(f"  [{citation['n']}] {citation['source']}")


@app.command()
def costs(
    storage: StorageFolder = _STORAGE,
    days: Annotated[float, typer.Option("--days", min=0.001, help="How far to look back, in days.")] = 7,
    by: Annotated[str, typer.Option("--by", help="model, day, preset or tag.")] = "model",
    as_json: AsJson = False,
) -> None:
    """What was called and what it cost."""
    from llama_index_presets.monitor.ledger import Ledger

    path = storage / "calls.duckdb"
    if not storage.is_dir():
        raise SettingsError(
            f"There is no storage folder '{storage}'. Give the --storage of an earlier ingest."
        )
    with Ledger(path) as ledger:
        stats = ledger.get_usage_stats(days=days)
        rows = [asdict(row) for row in ledger.costs(by=by, days=days)]
    if as_json:
        keys = ("total_calls", "total_tokens", "total_cost_usd", "avg_latency_ms", "unpriced_calls")
        _emit({**{key: getattr(stats, key) for key in keys}, "by": rows})
        return
    _say(
        f"{stats.total_calls:,} calls, {stats.total_tokens:,} tokens, {_dollars(float(stats.total_cost_usd))}, "
        f"{stats.avg_latency_ms:,.0f} ms a call in {days:g} days; {stats.unpriced_calls} calls without a known price."
    )
    if rows:
        table = _table(*rows[0])
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        _print(table)


def main() -> None:
    """Run the command line; --debug may stand anywhere."""
    app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])


def _debug() -> bool:
    return "--debug" in sys.argv


def _engine(preset: str, storage: Path, offline: bool, settings: Path | None) -> PresetEngine:
    find_preset(preset)  # before the slow import: a typo is answered at once
    from llama_index_presets.presets.build import build

    return build(preset, storage=storage, offline=offline, settings=settings)


def _need_index(storage: Path) -> None:
    from llama_index_presets.presets.storage import read_card

    read_card(storage)


def _cells(row: Preset) -> list[tuple[str, str]]:
    return [(column, getattr(row, column)) for column in COLUMNS]


def _row(row: Preset) -> dict[str, Any]:
    missing = row.missing()
    columns = ("name", "use_case", "embedding", "store", "pattern", "monitoring")
    return {**{column: getattr(row, column) for column in columns}, "ready": not missing, "missing": missing}


def _dollars(cost: float | None) -> str:
    return "cost unknown (a model has no known price)" if cost is None else f"${cost:.6f}"


def _table(*columns: str) -> Any:
    from rich.table import Table

    return Table(*columns, box=None, padding=(0, 1, 0, 0))


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def _emit(value: dict[str, Any]) -> None:
    _say(json.dumps(value, default=_jsonable, ensure_ascii=False))


def _jsonable(value: Any) -> Any:
    return float(value) if hasattr(value, "as_tuple") else str(value)


def _say(text: str) -> None:
    typer.echo(text)


def _complain(text: str) -> None:
    typer.echo(text, err=True)


def _prompt() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


if __name__ == "__main__":
    main()
