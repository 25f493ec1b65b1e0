"""Project file ``llama-presets.toml``: what it may hold, found from the current folder upwards, checked as a whole.

preset = "healthcare"
storage = "llama-presets-storage"
sources = ["documents"]
llm = "ollama/llama3.2"

[settings]
top_k = 8
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llama_index_presets._options import nearest
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_settings_toml
from llama_index_presets.presets.index.address import is_url
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.settings import MODELS
from llama_index_presets.values import PROJECT_FILE

__all__ = ["Project", "beside", "find_project", "is_project", "project_settings", "read_project"]

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "preset": (str,),
    "storage": (str,),
    "sources": (list,),
    "offline": (bool,),
    **dict.fromkeys(MODELS, (str, dict)),  # a name, or a table with ``name`` and options
    "settings": (dict,),
    "serve": (dict,),
    "engines": (dict,),
}
_WORDS: Final = {str: "a text", list: "a list of texts", bool: "true or false", dict: "a table"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project file says, paths made absolute by its folder.

    Attributes:
        path: The file.
        preset: Row of the matrix.
        storage: Folder or URL of the index; None takes the default of the command line, in the folder of the file.
        sources: Files and folders that `ingest` reads.
        offline: As for `build`.
        tables: Names of the tables of a server that stand in it: ``serve``, ``engines``.
    """

    path: Path
    preset: str
    storage: str | None = None
    sources: tuple[str, ...] = ()
    offline: bool = False
    tables: frozenset[str] = frozenset()

    @property
    def shown(self) -> str:
        """The path, as short as it can be from here.

        Example:
            >>> Project(path=Path.cwd() / "llama-presets.toml", preset="healthcare").shown
            'llama-presets.toml'
        """
        return os.path.relpath(self.path)


def find_project(start: Path | None = None) -> Project | None:
    """Project of a folder: the nearest file upwards, or None.

    Args:
        start: Where to begin; None is the current folder.

    Raises:
        SettingsError: The file is wrong, or stands above `start` and belongs to another user.
    """
    try:
        start = Path.cwd() if start is None else start.absolute()
    except FileNotFoundError:  # the current folder was removed
        return None
    for folder in (start, *start.parents):
        file = folder / PROJECT_FILE
        if os.path.isfile(file):  # noqa: PTH113  # False also where a folder may not be read
            if folder != start:
                _refuse_foreign(file)
            return read_project(file)
    return None


def _refuse_foreign(file: Path) -> None:
    """In a folder such as /tmp, anybody could put a file that names models, and so code, for all who work below it."""
    if hasattr(os, "getuid") and file.stat().st_uid not in (os.getuid(), 0):
        raise SettingsError(
            f"The project file '{file}' is above this folder and belongs to another user, so it is not used. "
            f"If you trust it: cd {file.parent}, and run the command there."
        )


def read_project(path: Path) -> Project:
    """Read a project file and check all that is in it, its settings too.

    Raises:
        SettingsError: It cannot be read, or a name or value is wrong; all of the top level in one message.
    """
    content = read_settings_toml(path, "project file")
    _check(content, path)
    row = find_preset(content["preset"])
    folder = path.absolute().parent
    storage = content.get("storage")
    return Project(
        path=path.absolute(),
        preset=row.name,
        storage=storage if storage is None or is_url(storage) else beside(folder, storage),
        sources=tuple(beside(folder, source) for source in content.get("sources", ())),
        offline=content.get("offline", False),
        tables=frozenset({"serve", "engines"} & content.keys()),
    )


def is_project(content: Mapping[str, Any]) -> bool:
    """Whether the content of a TOML file is that of a project and not of settings, among which is no ``preset``."""
    return isinstance(content.get("preset"), str)


def project_settings(content: Mapping[str, Any], path: Path, preset: str | None) -> dict[str, Any]:
    """The settings that a project file holds: its table ``[settings]``, and the models at its top.

    Raises:
        SettingsError: It is the project of another preset, or a name or value of its top level is wrong.
    """
    _check(content, path)
    if preset is not None and content["preset"] != preset:
        raise SettingsError(
            f"'{path}' is the project file of '{content['preset']}', not of '{preset}'. Give another settings file."
        )
    models = {name: content[name] for name in MODELS if name in content}
    twice = sorted(models.keys() & content.get("settings", {}).keys())
    if twice:
        raise SettingsError(f"{path}: {', '.join(twice)} is given at the top and under [settings]. Keep one.")
    return {**content.get("settings", {}), **models}


def _check(content: Mapping[str, Any], path: Path) -> None:
    """Refuse names and values that no project file has, all in one message."""
    faults = [] if "preset" in content else ["it has no 'preset' (llama-presets list shows them)"]
    for name, value in content.items():
        if name not in _KINDS:
            near = nearest(name, _KINDS)
            hint = f", did you mean '{near}'?" if near else "; settings belong under [settings]"
            faults.append(f"'{name}' is unknown{hint}")
        elif not isinstance(value, _KINDS[name]) or (
            isinstance(value, list) and not all(isinstance(item, str) for item in value)
        ):
            expected = " or ".join(_WORDS[kind] for kind in _KINDS[name])
            faults.append(f"{name} is {value!r}, expected {expected}")
    if faults:
        raise SettingsError(f"{path}: {'; '.join(faults)}. It takes: {', '.join(_KINDS)}.")


def beside(folder: Path, value: str) -> str:
    """A path that a file in a folder names; relative to that folder, ``~`` is the user's home."""
    return str(folder / Path(value).expanduser())
