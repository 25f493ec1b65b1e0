"""Commands `serve` and `mcp`: engines for other programs and people; and `key`: who may ask them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import (
    STORAGE,
    AsJson,
    Commands,
    ModelName,
    Offline,
    OptionalPreset,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.project.file import find_project

if TYPE_CHECKING:
    from llama_index_presets.serve.config import ServeConfig

__all__ = ["add", "key_app", "list_keys", "mcp", "revoke", "serve"]

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with [engines.NAME] tables and [serve].")
]

key_app = Commands(help="API keys of 'llama-presets serve'.", no_args_is_help=True)
app.add_typer(key_app, name="key")

KeysFile = Annotated[
    Path | None,
    typer.Option("--keys", help="File of the keys; else the one of the user's configuration folder."),
]


@app.command()
def serve(
    preset: OptionalPreset = None,
    storage: StorageFolder = STORAGE,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port; 8000.")] = None,
    config: ConfigFile = None,
    keys: Annotated[Path | None, typer.Option("--keys", help="File of API keys; see 'key add'.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Name that requests may use for this server. Repeatable."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="PEM file, for HTTPS.")] = None,
    private_key: Annotated[Path | None, typer.Option("--private-key", help="PEM file of its key.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Processes that share the index; 1.")
    ] = None,
    offline: Offline = False,
    settings: SettingsFile = None,
    llm: ModelName = None,
) -> None:
    """Serve engines over HTTP: REST, OpenAI's protocol, MCP. Ctrl-C stops it, SIGHUP reloads the engines."""
    _need_extra("starlette", "uvicorn", "prometheus_client", "mcp", "python_multipart")
    changes = {
        "host": host,
        "port": port,
        "keys": str(keys) if keys else None,
        "hosts": tuple(allow_host) if allow_host else None,
        "certificate": str(certificate) if certificate else None,
        "private_key": str(private_key) if private_key else None,
        "workers": workers,
    }

    def read() -> ServeConfig:
        return _config(preset, storage, config, offline, settings, llm).with_changes(**changes)

    first = read()
    from llama_index_presets.serve.server import serve as in_one
    from llama_index_presets.serve.workers import serve_in_workers

    run, beside = in_one, ""
    if first.workers > 1:
        run, beside = serve_in_workers, f", once the first of {counted(first.workers, 'worker')} is ready"

    def announce(url: str) -> None:
        complain(f"Listening on {url}{beside} (process {os.getpid()})")

    with _log_to_stderr():
        run(first, reread=read, announce=announce)


@app.command()
def mcp(
    preset: OptionalPreset = None,
    storage: StorageFolder = STORAGE,
    config: ConfigFile = None,
    offline: Offline = False,
    settings: SettingsFile = None,
    llm: ModelName = None,
) -> None:
    """Serve engines to an agent over MCP on standard input and output."""
    _need_extra("mcp", "prometheus_client")
    found = _config(preset, storage, config, offline, settings, llm)
    from llama_index_presets.serve.protocols.mcp import serve_stdio

    with _log_to_stderr():
        serve_stdio(found)


@key_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who gets the key; goes into the audit log and the ledger.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant whose documents the caller sees.")] = "",
    groups: Annotated[
        str, typer.Option("--groups", help="Groups whose documents the caller sees: hr,all.")
    ] = "",
    budget: Annotated[
        str, typer.Option("--budget", help="Most US dollars: 5/day, 100/month, 0.05/query.")
    ] = "",
    rate: Annotated[str, typer.Option("--rate", help="Most requests: 60/minute.")] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="May ask, not ingest or delete.")] = False,
    expires: Annotated[str, typer.Option("--expires", help="When it ends: 2027-01-31, 90d, 12h.")] = "",
    keys: KeysFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; the file holds its hash alone."""
    from llama_index_presets.serve.callers.key_file import Caller, parse_expiry

    caller = Caller(
        name=name,
        tenant=tenant,
        groups=tuple(part.strip() for part in groups.split(",")) if groups else (),
        budget=budget,
        rate=rate,
        read_only=read_only,
        expires=parse_expiry(expires) if expires else "",
    )
    file = _key_file(keys)
    key = file.add(caller)
    if as_json:
        emit({"key": key, "name": name, "file": str(file.path)})
        return
    complain(f"Key of '{name}', in '{file.path}' as a hash. Keep it now; it cannot be shown again:")
    say(key)


@key_app.command("list")
def list_keys(keys: KeysFile = None, as_json: AsJson = False) -> None:
    """List the keys, without any secret."""
    callers = list(_key_file(keys).callers().values())
    if as_json:
        emit({"keys": [caller.to_dict() for caller in callers]})
        return
    shown = table("name", "tenant", "groups", "budget", "rate", "may", "expires", "id")
    for one in callers:
        may = "ask" if one.read_only else "ask, ingest"
        shown.add_row(
            one.name, one.tenant, ",".join(one.groups), one.budget, one.rate, may, one.expires[:10], one.id
        )
    print_table(shown)


@key_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key.")], keys: KeysFile = None, as_json: AsJson = False
) -> None:
    """Remove a key; a server that runs refuses it from the next request on."""
    file = _key_file(keys)
    file.revoke(name)
    if as_json:
        emit({"revoked": name})
    else:
        say(f"Revoked: {name}.")


def _key_file(keys: Path | None):  # type: ignore[no-untyped-def]
    from llama_index_presets.serve.callers.key_file import KeyFile, default_key_file

    return KeyFile(keys or default_key_file())


def _config(
    preset: str | None, storage: str, file: Path | None, offline: bool, settings: Path | None, llm: str | None
) -> ServeConfig:
    from llama_index_presets.serve.config import EngineConfig, ServeConfig, read_config

    if file is not None:
        if preset is not None:
            raise SettingsError(f"The engines are named twice: '{preset}' and --config '{file}'. Give one.")
        return read_config(file)
    if preset is None:
        raise SettingsError("Missing argument 'PRESET': name a preset, or give --config FILE.")
    one = EngineConfig(
        preset=preset, storage=storage, offline=offline, llm=llm, settings=str(settings) if settings else None
    )
    project = find_project()
    if project is not None and project.preset == preset and project.tables:
        return read_config(project.path, {preset: one})
    return ServeConfig(engines={preset: one})


def _need_extra(*modules: str) -> None:
    from llama_index_presets.packages.extras import require

    for module in modules:
        require(module, extra="serve")


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Log requests, as method, route, status, time and caller, and faults, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("llama_index_presets")
    ours.addHandler(handler)
    logging.getLogger("llama_index_presets.serve").setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
