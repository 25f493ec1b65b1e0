"""Typer application that the commands register with: shared options, output, and errors in one line."""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from llama_index_presets import __version__
from llama_index_presets.cli.project import STORAGE, ProjectCommand
from llama_index_presets.cli.terminal import clear_screen, complain, console, print_table, say, table
from llama_index_presets.cli.usage_hints import WORDS, add_hint
from llama_index_presets.concurrency.interrupts import interrupts_noted
from llama_index_presets.errors import FilterError, PresetsError, SettingsError
from llama_index_presets.files.paths import shortened
from llama_index_presets.packages.command_process import run_as_command
from llama_index_presets.presets.matrix import PRESETS

__all__ = [
    "FAILED",
    "STORAGE",
    "AsJson",
    "Commands",
    "Filters",
    "ModelName",
    "Offline",
    "OptionalPreset",
    "PresetName",
    "SettingsFile",
    "StorageFolder",
    "app",
    "clear_screen",
    "complain",
    "complain_of_unpriced",
    "console",
    "dollars",
    "emit",
    "main",
    "print_table",
    "say",
    "table",
    "what_failed",
]

_NOTHING_CHANGED = "Nothing was changed."
_SAFE = {
    "ingest": "What was committed is in the index; run the same command again to go on.",
    "ask": "The index is as it was; calls made so far are in the ledger.",
    "chat": "The index is as it was; calls made so far are in the ledger.",
    "evaluate": "Questions answered so far are kept; run the same command again to go on.",
    "questions": "What was drafted or decided so far is kept; run the same command again to go on.",
    "tune": "Runs made so far are kept; run the same command again to go on.",
    "documents": "Documents removed so far are gone; run the same command again.",
    "compact": "Files written afresh are in place, the others as they were; run the same command again.",
    "move": "The source is as it was; what was copied stays, and the same command goes on.",
    "serve": "What was committed is in the index.",
    "mcp": "What was committed is in the index.",
    "weights": "What was fetched is kept; run the same command again to go on.",
    "init": "No file was written.",
    "eject": "Files written so far stay; run the same command with --force.",
    "doctor": "A repair that was begun is finished by running it again.",
}
"""Command -> what a Ctrl-C in it leaves behind."""

_OF_THE_PATH: Final = frozenset(
    {
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
    }
)
"""Numbers of errors that say what is wrong with a path, and of no fault of ours."""

DONE, FAILED, WRONG_USAGE, INTERRUPTED, READER_GONE = 0, 1, 2, 130, 141


_emitted: Final[list[bool]] = []
"""One item a JSON object that the command has printed."""


class _OneLineErrors(TyperGroup):
    """Command group that prints this package's errors in one line with an exit code; a traceback only with --debug."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the command line; ``--help`` prints here."""
        with _reader_may_leave():
            try:
                return super().make_context(*arguments, **options)
            except Exception as error:
                if _is_wrong_usage(error):
                    _hint(error)
                raise

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words of the command line, for the hint of an error, and read them."""
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        _emitted.clear()
        with interrupts_noted() as interrupts:
            try:
                with _reader_may_leave():
                    return super().invoke(ctx)
            except KeyboardInterrupt:
                self._stop(ctx)
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                if interrupts.heard:
                    self._stop(ctx, error)
                self._explain(ctx, error)

    def _stop(self, ctx: Any, error: Exception | None = None) -> NoReturn:
        """End after a Ctrl-C, and say what is left undone; `error` is what a library turned the interrupt into."""
        if error is not None and _debug():
            traceback.print_exception(error)
        complain(f"Stopped. {_SAFE.get(ctx.invoked_subcommand or '', _NOTHING_CHANGED)}")
        # Under -m, CPython ends by the signal in place of this code if the interrupt came through an exec() of some
        # import: a mark stays until the next exec().
        exec("")  # nosec B102  # a fixed text
        raise typer.Exit(INTERRUPTED) from None

    def _explain(self, ctx: Any, error: Exception) -> NoReturn:
        if isinstance(error, PresetsError):
            code = WRONG_USAGE if isinstance(error, SettingsError | FilterError) else FAILED
            self._fail(ctx, str(error), code, error)
        if _is_wrong_usage(error):
            _hint(error)
            raise error
        self._fail(ctx, what_failed(error), FAILED, error)

    def _fail(self, ctx: Any, message: str, code: int, error: Exception) -> NoReturn:
        if _debug():
            traceback.print_exception(error)
        complain(f"Error: {message}")
        # One object, but of --watch; what goes wrong after it has the exit code.
        if "--json" in sys.argv and (not _emitted or "--watch" in sys.argv):
            emit({"error": message})
        raise typer.Exit(code) from None


def _is_wrong_usage(error: Exception) -> bool:
    """Whether the command-line library refuses the command line, which it explains itself."""
    return type(error).__module__.startswith(("typer", "click"))


def _hint(error: Any) -> None:
    """Say in a usage error what to write in place; with --json as an object, too."""
    if not hasattr(error, "format_message") or not getattr(error, "ctx", None):
        return
    add_hint(error)
    if "--json" in sys.argv:
        emit({"error": error.format_message()})


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Commands(typer.Typer):
    """Typer application whose commands take what they are not told from the project file."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any
    ) -> Callable[[_Function], _Function]:
        """Register a command."""
        return super().command(name, cls=cls or ProjectCommand, **options)


app = Commands(
    name="llama-presets",
    cls=_OneLineErrors,
    rich_markup_mode=None,
    help="From a use case to a running, measured, billed LlamaIndex query engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _presets_like(incomplete: str) -> list[tuple[str, str]]:
    return [(name, row.use_case) for name, row in PRESETS.items() if name.startswith(incomplete)]


PRESET_HELP = "A row of 'llama-presets list'; else the preset of llama-presets.toml."
PresetName = Annotated[
    str, typer.Argument(metavar="[PRESET]", help=PRESET_HELP, autocompletion=_presets_like)
]
OptionalPreset = Annotated[
    str | None, typer.Argument(metavar="PRESET", help=PRESET_HELP, autocompletion=_presets_like)
]
StorageFolder = Annotated[
    str,
    typer.Option(
        "--storage",
        help="Folder of the index, or the URL of its vectors: postgresql://…, s3://…, pinecone://…",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON object on standard output, everything else on standard error."),
]
Offline = Annotated[
    bool, typer.Option("--offline/--no-offline", help="Swap every networked part for its local counterpart.")
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="Condition on metadata: department=hr, 'year>=2020', 'groups any hr,all'. Repeatable.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--llm",
        metavar="NAME",
        help="Language model: openai/gpt-5-mini, ollama/llama3.2, http://localhost:8080/v1#name, module:Class.",
    ),
]
Reach = Annotated[
    bool, typer.Option("--reach", help="Also try whether servers that are named can be reached.")
]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with settings.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """From a use case to a running, measured, billed LlamaIndex query engine."""
    if version:
        say(__version__)
        raise typer.Exit(DONE)


def main() -> None:
    """Run the command line; --debug is accepted at any position.

    When the reader of the output has gone (``… | head -1``), it ends without a word and with code 141, as programs do
    that the signal SIGPIPE ends.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    run_as_command(brief=arguments[:1] in (["ask"], ["estimate"]))
    try:
        app(args=arguments)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _fall_silent()
            sys.exit(READER_GONE)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Exit with `READER_GONE` when the reader of the output is gone; a client's broken connection stays an error."""
    try:
        yield
    except BrokenPipeError:
        if not any(map(_is_unread, (sys.stdout, sys.stderr))):
            raise
        _fall_silent()
        raise typer.Exit(READER_GONE) from None


def _is_unread(stream: Any) -> bool:
    """Whether a stream is a pipe without a reader."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # no file at all, or a closed one
        return False
    return bool(poll.poll(0))


def _fall_silent() -> None:
    """Redirect pending output to the null device: Python would complain of the broken pipe at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _is_unread(stream):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _debug() -> bool:
    return "--debug" in sys.argv


def what_failed(error: Exception) -> str:
    """An error in one line; one that is not of this package with its class."""
    if isinstance(error, PresetsError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_THE_PATH and error.filename:
        name = shortened(os.fsdecode(error.filename))
        return f"'{name}' cannot be opened ({error.strerror}). Check its name, its links and its rights."
    hint = "" if _debug() else " (--debug shows where)"
    return f"{type(error).__name__}: {_first_line(error)}{hint}"


def dollars(cost: float | None) -> str:
    """Dollars as text; None is an unknown price."""
    return "cost unknown (a model has no known price)" if cost is None else f"${cost:.6f}"


def complain_of_unpriced(models: Sequence[str]) -> None:
    """Say which models have no known price, and what to do; nothing where all have one."""
    if models:
        from llama_index_presets.monitor.prices import how_to_price

        complain(
            f"No price is known for {', '.join(models)}, so the cost is not known. {how_to_price(models)}"
        )


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    _emitted.append(True)
    say(json.dumps(value, default=_jsonable, ensure_ascii=False))


def _jsonable(value: Any) -> Any:
    return float(value) if hasattr(value, "as_tuple") else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
