"""What to write in place of a wrong command line: an option that is an argument, a setting, or has another name."""

from __future__ import annotations

import shlex
from typing import Any, Final

from llama_index_presets._options import nearest
from llama_index_presets.presets.matrix import PRESETS
from llama_index_presets.values import PROJECT_FILE

__all__ = ["WORDS", "add_hint"]

WORDS: Final = "llama_index_presets.words"
"""Key of a context's ``meta`` with the words of the command line."""

_PRESET: Final = frozenset({"preset", "p", "use_case"})
_PLACES: Final = frozenset({"path", "paths", "file", "files", "folder", "folders", "dir", "directory"})
_DOCUMENTS: Final = frozenset({"document", "documents", "docs", "d"})
_DEBUG: Final = frozenset({"verbose", "v", "trace", "traceback"})
_ARGUMENTS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "preset": ("The preset is the first argument", _PRESET | {"name"}),
    "question": (
        "The question is an argument, in quotes",
        frozenset({"question", "query", "q", "prompt", "text", "message"}),
    ),
    "paths": ("Files and folders are arguments", _PLACES | _DOCUMENTS | {"input", "i", "source", "sources"}),
    "names": ("Documents are arguments", _PLACES | _DOCUMENTS | {"name", "id"}),
    "documents": ("Documents are arguments", _PLACES | _DOCUMENTS | {"name", "id"}),
    "name": ("The name is an argument", frozenset({"name", "model", "caller", "user", "n", "m"})),
    "query_id": ("The query is the first argument", frozenset({"query_id", "query", "id"})),
    "n": ("The number of the citation is the second argument", frozenset({"n", "number", "citation"})),
    "place": ("The storage is an argument", _PLACES | {"index"}),
}
"""Argument of a command -> what it is, and the options that it is taken for."""

_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "--llm": frozenset({"model", "m", "language_model", "llm_model", "chat_model"}),
    "--storage": _PLACES | {"index", "db", "database", "store", "s", "persist_dir", "output", "o", "url"},
    "--offline": frozenset({"local", "no_network", "local_only"}),
    "--settings": frozenset({"config", "c", "setting", "config_file", "settings_file"}),
    "--json": frozenset({"format", "output_format", "f", "j"}),
    "--filter": frozenset({"where", "filters"}),
    "--max-cost": frozenset({"budget", "limit", "max_usd", "max_cost_usd"}),
    "--groups": frozenset({"group"}),
    "--questions": frozenset({"dataset", "file", "input", "queries"}),
    "--delete": frozenset({"remove", "rm"}),
    "--sync": frozenset({"prune", "delete"}),
}
"""Option -> other names that it is guessed by."""

_KEYS: Final = frozenset({"key", "api_key", "apikey", "token", "openai_api_key", "openai_key"})

_COMMANDS: Final[dict[str, frozenset[str]]] = {
    'ask PRESET "…"': frozenset({"query", "search", "question", "q", "answer", "retrieve", "find"}),
    "ingest PRESET PATHS": frozenset({"index", "add", "load", "import", "embed", "insert", "upload", "sync", "build"}),
    "init": frozenset({"new", "create", "setup", "start", "configure"}),
    "list": frozenset({"presets", "ls"}),
    "show PRESET": frozenset({"config", "settings", "info", "describe"}),
    "serve PRESET": frozenset({"run", "server", "api", "up"}),
    "costs": frozenset({"cost", "usage", "spending", "bill", "ledger"}),
    "weights list": frozenset({"models", "pull", "download"}),
    "documents PRESET NAME --delete": frozenset({"delete", "remove", "rm", "forget"}),
    "doctor": frozenset({"check", "status", "verify", "diagnose"}),
    "evaluate PRESET": frozenset({"test", "bench", "benchmark"}),
    "-h": frozenset({"help"}),
    "--version": frozenset({"version"}),
}  # fmt: skip
"""Command -> other names that it is guessed by."""


def add_hint(error: Any) -> None:
    """Add to a usage error of the command-line library what to write in place.

    Args:
        error: Its ``message`` gets the hint, where there is one.
    """
    ctx, kind = error.ctx, type(error).__name__
    if ctx is None:
        return
    if kind == "MissingParameter":
        about = getattr(error.param, "help", None)
        error.message = error.message or about or ""
        return
    if kind == "NoSuchOption":
        hint = _for_option(ctx, error.option_name)
    elif kind == "UsageError":
        hint = _for_command(ctx) if hasattr(ctx.command, "commands") else _for_surplus(ctx, error.message)
    else:
        return
    if hint:
        error.message = f"{error.message.partition('. Did you mean')[0].rstrip('.')}. {hint}"
        if kind == "NoSuchOption":
            error.possibilities = None  # names that look alike, and mean something else


# -- options ----------------------------------------------------------------------------------------------------------


def _for_option(ctx: Any, option: str) -> str | None:
    """Hint for an option that a command does not have."""
    if hasattr(ctx.command, "commands"):
        return _for_early_option(ctx, option)
    name = option.lstrip("-").replace("-", "_").lower()
    arguments = [one.name for one in ctx.command.params if one.param_type_name == "argument"]
    options = {each for one in ctx.command.params if one.param_type_name == "option" for each in one.opts}
    for argument in arguments:
        about, guesses = _ARGUMENTS.get(argument, ("", frozenset()))
        if name in guesses:
            return f"{about}: {_moved(ctx, option, argument)}"
    for real, guesses in _OPTIONS.items():
        if real in options and name in guesses:
            return f"The option is {real}."
    if name in _KEYS:
        return (
            "Keys come from the environment or a file .env, as OPENAI_API_KEY=…; "
            "'llama-presets show PRESET' says which are missing."
        )
    if name in _PRESET:
        return _without_preset(ctx, options)
    if name in _DEBUG:
        return "The option is --debug: it shows where an error comes from."
    return _for_setting(name) if "--settings" in options else None


def _for_early_option(ctx: Any, option: str) -> str | None:
    """Hint for an option in front of the command that has it."""
    for word in _words(ctx):
        command = ctx.command.commands.get(word)
        if command is not None and any(option in one.opts for one in command.params):
            return f"Options come after the command: {_line(ctx, word, '…', option, '…')}"
    return None


def _moved(ctx: Any, option: str, argument: str) -> str:
    """The command line with an option's value in place of the argument."""
    words = _words(ctx)[len(_names(ctx)) :]
    at = next((n for n, word in enumerate(words) if word.partition("=")[0] == option), len(words))
    head, after = words[:at], words[at + 1 :]
    value = words[at].partition("=")[2] if at < len(words) else ""
    if not value:
        value, after = (after or ["…"])[0], after[1:]
    if argument == "preset":
        return _line(ctx, nearest(value, PRESETS, cutoff=0.5) or value, *head, *after)
    return _line(ctx, *head, *after, value)


def _for_setting(name: str) -> str | None:
    """Hint for a setting that is given as an option."""
    from llama_index_presets.presets.project.settings_sources import describe_settings

    known = {one.name: one.environment for preset in PRESETS for one in describe_settings(preset)}
    near = nearest(name, known, cutoff=0.85)
    if near is None:
        return None
    return (
        f"{near} is a setting: {known[near]}=… in the environment, or a line '{near} = …' below [settings] of "
        f"{PROJECT_FILE} or in a file for --settings."
    )


def _without_preset(ctx: Any, options: set[str]) -> str:
    about = "goes by the storage, --storage FOLDER" if "--storage" in options else "is about no preset"
    return f"'{' '.join(_names(ctx))}' {about}; leave the preset out."


# -- arguments and commands -------------------------------------------------------------------------------------------


def _for_surplus(ctx: Any, message: str) -> str | None:
    """Hint for a preset where none is taken, or where it is an option."""
    surplus = message.partition("(s) (")[2].rstrip(")").split()
    options = {each for one in ctx.command.params if one.param_type_name == "option" for each in one.opts}
    if not surplus or surplus[0] not in PRESETS or "preset" in {one.name for one in _arguments(ctx)}:
        return None
    if "--preset" in options:
        return f"The preset is an option here: {_line(ctx, '--preset', surplus[0])}"
    return _without_preset(ctx, options)


def _for_command(ctx: Any) -> str | None:
    """Hint for a command that goes by another name."""
    word = next((one for one in _words(ctx) if not one.startswith("-")), "").lower()
    found = next((real for real, guesses in _COMMANDS.items() if word in guesses), None)
    if ctx.parent is not None or found is None:
        return None
    return f"Write: {_line(ctx, raw=found)}"


def _arguments(ctx: Any) -> list[Any]:
    return [one for one in ctx.command.params if one.param_type_name == "argument"]


# -- words ------------------------------------------------------------------------------------------------------------


def _words(ctx: Any) -> list[str]:
    return list(ctx.meta.get(WORDS, ()))


def _names(ctx: Any) -> list[str]:
    """Names of a command and of the groups above it, without the program's."""
    return [] if ctx.parent is None else [*_names(ctx.parent), ctx.info_name]


def _line(ctx: Any, *words: str, raw: str = "") -> str:
    """A command line to copy."""
    quoted = [word if word == "…" else shlex.quote(word) for word in words]
    return " ".join(["llama-presets", *_names(ctx), *quoted, *([raw] if raw else [])])
