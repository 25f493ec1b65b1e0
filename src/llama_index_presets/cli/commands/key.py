"""Commands `key add`, `key list` and `key revoke`: API keys of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_presets.cli.app import AsJson, Commands, app, complain, emit, print_table, say, table

__all__ = ["add", "key_app", "list_keys", "revoke"]

key_app = Commands(help="API keys of 'llama-presets serve'.", no_args_is_help=True)
app.add_typer(key_app, name="key")

KeysFile = Annotated[
    Path | None,
    typer.Option("--keys", help="File of the keys; else the one of the user's configuration folder."),
]


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
    file = _file(keys)
    key = file.add(caller)
    if as_json:
        emit({"key": key, "name": name, "file": str(file.path)})
        return
    complain(f"Key of '{name}', in '{file.path}' as a hash. Keep it now; it cannot be shown again:")
    say(key)


@key_app.command("list")
def list_keys(keys: KeysFile = None, as_json: AsJson = False) -> None:
    """List the keys, without any secret."""
    callers = list(_file(keys).callers().values())
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
    file = _file(keys)
    file.revoke(name)
    if as_json:
        emit({"revoked": name})
    else:
        say(f"Revoked: {name}.")


def _file(keys: Path | None):  # type: ignore[no-untyped-def]
    from llama_index_presets.serve.callers.key_file import KeyFile, default_key_file

    return KeyFile(keys or default_key_file())
