"""What commands take from the project file when their arguments do not say it: preset, storage, sources, settings."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import typer
from typer.core import TyperCommand

from llama_index_presets._options import nearest
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import PRESETS
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.file import Project, find_project
from llama_index_presets.values import PROJECT_FILE

__all__ = ["STORAGE", "ProjectCommand"]

STORAGE: Final = "llama-presets-storage"
"""Folder of the index where nothing names another."""

_MAY_BE_EMPTY: Final = ("--allowed",)  # nobody
_TAKERS: Final = frozenset({"preset", "storage", "paths"})


class ProjectCommand(TyperCommand):
    """Command whose arguments may come from ``llama-presets.toml``; what the command line names goes before it.

    An argument called ``preset`` may be left out, also before a question or before paths: a first word that is no
    preset is then the question or path. ``--storage``, ``--settings``, ``--offline`` and ``paths`` take the project's
    values. The project of one preset gives nothing to a command about another.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Complete the arguments, then read them.

        Raises:
            SettingsError: An option is empty, or the arguments need what the project file has, and there is none.
        """
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if any(word == "" or word.endswith("=") for word in args):
            self._refuse_empty(ctx, args)
        names = {parameter.name for parameter in self.params}
        if not names & _TAKERS or any(word in args for word in ctx.help_option_names):
            return super().parse_args(ctx, args)
        given, left, _ = self.make_parser(ctx).parse_args(list(args))
        if left and isinstance(given.get("question"), str):
            words = " ".join(str(word) for word in (given["preset"], given["question"], *left))
            raise SettingsError(
                f'Put a question of several words in quotes: llama-presets {self.name} "{words}"'
            )
        project = None if given.get("config") else find_project()
        before = self._missing_preset(given, project, args)
        named = given.get("preset") if not before else None
        if project is not None and named is not None and named != project.preset:
            typer.echo(f"'{project.shown}' is for '{project.preset}': not used for '{named}'.", err=True)
            project = None
        if project is None:
            return super().parse_args(ctx, args)
        after = self._sources(given, project, before)
        ctx.default_map = self._defaults(project, names)
        rest = super().parse_args(ctx, [*before, *args, *after])
        sources = (ctx.get_parameter_source(name) for name in ctx.default_map)
        if before or after or any(source is not None and source.name == "DEFAULT_MAP" for source in sources):
            typer.echo(f"Project: {project.shown} ({project.preset})", err=True)
        return rest

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        """Refuse options with nothing in them, such as ``--tenant "$TENANT"`` where the variable is not set."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        empty = [
            parameter.opts[0]
            for parameter in self.params
            if parameter.opts[0] not in _MAY_BE_EMPTY
            and parameter.param_type_name == "option"
            and "" in _as_list(given.get(parameter.name or ""))
        ]
        if empty:
            raise SettingsError(
                f"{' and '.join(empty)} is empty, which would count as not given. Give a value, or leave the option "
                "out."
            )

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as the usage line shows them: those that a project file can give are optional."""
        return [re.sub(r"^\{(\[.*\])\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def _missing_preset(self, given: dict[str, Any], project: Project | None, args: list[str]) -> list[str]:
        """The project's preset, where the arguments leave it out.

        Raises:
            SettingsError: They leave it out, and there is no project file; or the first word is almost a preset.
        """
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        if not arguments or arguments[0].name != "preset":
            return []
        first, rest = given.get("preset"), arguments[1:]
        if not isinstance(first, str):
            if project is None and arguments[0].required:
                raise SettingsError(_no_preset(self.name))
            return [project.preset] if project is not None and not given.get("config") else []
        if first in PRESETS:
            return []
        is_path = os.path.exists(first)  # noqa: PTH110 -- of a question longer than a file's name can be, Path's raises
        if (
            not rest
            or (rest[0].nargs == 1 and isinstance(given.get(rest[0].name or ""), str))
            or (rest[0].nargs == -1 and not is_path and project is None)
            or (not is_path and nearest(first, PRESETS, cutoff=0.7))
        ):
            find_preset(first)  # raises, with the nearest name
        if project is None:
            raise SettingsError(f"'{_short(first)}' is no preset. {_no_preset(self.name, *args)}")
        return [project.preset]

    def _sources(self, given: dict[str, Any], project: Project, before: list[str]) -> list[str]:
        """The project's sources, where no path is given."""
        if not any(one.name == "paths" and one.param_type_name == "argument" for one in self.params):
            return []
        if given.get("paths") or (before and isinstance(given.get("preset"), str)):
            return []
        if not project.sources:
            raise SettingsError(
                f"'{project.shown}' names no sources. Add a line, sources = [\"documents\"], or name files and folders."
            )
        return list(project.sources)

    def _defaults(self, project: Project, names: set[str]) -> dict[str, Any]:
        values: dict[str, Any] = {
            "storage": project.storage or str(project.path.parent / STORAGE),
            "settings": str(project.path),
            "offline": project.offline,
        }
        if other := os.environ.get("LLAMA_PRESETS_SETTINGS"):
            typer.echo(
                f"Settings: '{other}' (LLAMA_PRESETS_SETTINGS), not those of '{project.shown}'.", err=True
            )
            del values["settings"]
        return {name: value for name, value in values.items() if name in names}


def _no_preset(command: str | None, *words: str) -> str:
    shown = " ".join(f'"{_short(word)}"' if " " in word else word for word in words)
    return (
        f"No preset is named, and there is no {PROJECT_FILE} in this folder or above. Name one, "
        f"llama-presets {command} healthcare{' ' + shown if shown else ''}, or make the file: llama-presets init"
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
