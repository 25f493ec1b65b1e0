"""Sources of settings: a TOML file, the environment and code, in rising precedence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from inspect import getdoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_settings_toml
from llama_index_presets.presets.matrix import PRESETS
from llama_index_presets.presets.project.file import beside, is_project, project_settings
from llama_index_presets.presets.settings import MODELS, SETTINGS, Settings, settings_class
from llama_index_presets.providers.options import of_any_model
from llama_index_presets.providers.variables import use_env_file

__all__ = [
    "Origins",
    "SettingInfo",
    "describe_settings",
    "documented",
    "kinds_of",
    "load_settings",
    "options_of",
    "read_settings_file",
    "reading_more",
    "with_paths_beside",
]

Origins = dict[str, str]
"""Setting -> where its value came from: ``default``, ``code``, ``LLAMA_PRESETS_…`` or the path of a file."""

_PREFIX = "LLAMA_PRESETS_"

_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "prices": (),
    "state": (),
    "embedding_cache": ("storage", "off"),
}
"""Setting that is the path of a file or folder -> words that are none."""

NO_SETTINGS = frozenset({"AUDIT_KEY", "CACHE", "ENCRYPTION_KEY", "MODELS", "SETTINGS"})
"""Environment names, without their prefix, that are no settings: secrets, and what belongs to the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingInfo:
    """Description of one setting.

    Attributes:
        name: As in TOML and code.
        environment: Name of its environment variable.
        accepts: Its type or its choices, for a person.
        default: Its default, as a JSON value.
        about: What it does.
    """

    name: str
    environment: str
    accepts: str
    default: Any
    about: str


def describe_settings(preset: str | None) -> list[SettingInfo]:
    """Descriptions of the settings that a preset has.

    Example:
        >>> [dial.default for dial in describe_settings("healthcare") if dial.name == "pii"]
        ['report']
    """
    kind = settings_class(preset)
    defaults, kinds, about = kind().to_dict(), kinds_of(kind), documented(kind)
    return [
        SettingInfo(
            name=name,
            environment=_PREFIX + name.upper(),
            accepts=_accepts(kinds[name]),
            default=default,
            about=about.get(name, ""),
        )
        for name, default in defaults.items()
    ]


_READ_FOR_NOTHING: Final = 8
"""Passages that are read where no language model is paid for them; see docs/decisions/0209."""


def reading_more(values: Settings, origins: Origins) -> Settings:
    """Settings for answers that are quoted: more passages are read, which costs nothing, where nobody chose `top_k`.

    Args:
        values: Of a preset without a language model that writes, and without images.
        origins: Where each came from; see `load_settings`.

    Example:
        >>> [reading_more(*load_settings(given, "healthcare")).top_k for given in ({}, {"top_k": 3})]
        [8, 3]
    """
    if origins["top_k"] != "default":
        return values
    return replace(values, top_k=max(values.top_k, _READ_FOR_NOTHING))


def load_settings(
    given: Mapping[str, Any] | Settings | str | Path | None, preset: str | None = None
) -> tuple[Settings, Origins]:
    """Fill the settings.

    Args:
        given: Values from code, the preset's own settings object, or the path of a TOML file, whose tables named after
            presets go before its top level. The environment (``LLAMA_PRESETS_TOP_K=8``) goes before the file and
            after code; ``LLAMA_PRESETS_SETTINGS`` names a file where none is given.
        preset: Whose settings; None for those that every preset has.

    Raises:
        SettingsError: Unknown names, wrong types or values out of range.

    Example:
        >>> values, origins = load_settings({"top_k": 3}, "healthcare")
        >>> values.top_k, values.pii, origins["top_k"], origins["pii"]
        (3, 'report', 'code', 'default')
    """
    kind = settings_class(preset)
    if isinstance(given, Settings):
        use_env_file(None)
        return _complete(given, kind, preset)
    path = given if isinstance(given, str | Path) else os.environ.get(_PREFIX + "SETTINGS")
    use_env_file(Path(path) if path else None)
    file = read_settings_file(Path(path), preset) if path else {}
    code = _with_model_tables(given) if isinstance(given, Mapping) else {}
    layers = [(str(path), file), ("environment", _environment(kind)), ("code", code)]
    values: dict[str, Any] = {}
    origins: Origins = {field.name: "default" for field in fields(kind)}
    for origin, layer in layers:
        values = _without_foreign_options(values, layer)
        for name, value in layer.items():
            source = _PREFIX + name.upper() if origin == "environment" else origin
            values[name] = _checked(kind, name, value, source)
            origins[name] = source
    return kind(**values), origins


def _complete(given: Settings, kind: type[Settings], preset: str | None) -> tuple[Settings, Origins]:
    if type(given) is not kind:
        raise SettingsError(
            f"The preset '{preset}' takes {kind.__name__}, got {type(given).__name__}. Import it from "
            "llama_index_presets.presets.settings, or give a dictionary."
        )
    for name, value in asdict(given).items():
        _checked(kind, name, value, "code")
    return given, dict.fromkeys(asdict(given), "code")


# -- the file -----------------------------------------------------------------------------------------------------


def read_settings_file(path: Path, preset: str | None) -> dict[str, Any]:
    """The values of a file for one preset; the tables of the others are checked too, since a typo is one anywhere.

    Args:
        path: A settings file, or a project file.
        preset: Whose values.

    Raises:
        SettingsError: It cannot be read, is not TOML, or names what is unknown.
    """
    content = read_settings_toml(path, "settings file")
    if is_project(content):
        content = project_settings(content, path, preset)
    content = _with_model_tables(content)
    tables = {
        name: _with_model_tables(value) for name, value in content.items() if _is_preset_table(name, value)
    }
    for name, table in tables.items():
        if name not in PRESETS:
            raise SettingsError(
                f"There is no preset '{name}' (table of {path}). {did_you_mean(name, sorted(PRESETS))}"
            )
        for key, value in table.items():
            _checked(settings_class(name), key, value, f"{path} [{name}]")
    top = {name: value for name, value in content.items() if name not in tables}
    own = tables.get(preset or "", {})
    return with_paths_beside(path.absolute().parent, {**_without_foreign_options(top, own), **own})


def with_paths_beside(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a file names, in which relative paths are relative to the file's folder.

    Args:
        folder: Of the file.
        values: Setting -> value.

    Example:
        >>> with_paths_beside(Path("/etc/kb"), {"prices": "prices.toml", "embedding_cache": "off", "top_k": 3})
        {'prices': '/etc/kb/prices.toml', 'embedding_cache': 'off', 'top_k': 3}
    """
    return {
        name: beside(folder, value)
        if name in _PATHS and isinstance(value, str) and value not in ("", *_PATHS[name])
        else value
        for name, value in values.items()
    }


def _is_preset_table(name: str, value: Any) -> bool:
    return isinstance(value, dict) and not name.endswith("_options")


def _with_model_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Each table ``[llm]``, ``[embedding]``, ``[reranker]`` as two settings: its ``name``, and its other options."""
    flat = dict(values)
    for setting in MODELS:
        table = flat.get(setting)
        if isinstance(table, Mapping):
            del flat[setting]
            options = {key: value for key, value in table.items() if key != "name"}
            flat |= {setting: table["name"]} if "name" in table else {}
            flat[f"{setting}_options"] = options
    return flat


def _without_foreign_options(values: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values without the key, headers and address of a model, where a layer above names another one."""
    kept = dict(values)
    for setting in MODELS:
        options = kept.get(f"{setting}_options")
        if options and setting in above and f"{setting}_options" not in above:
            kept[f"{setting}_options"] = of_any_model(options)
    return kept


# -- the environment ----------------------------------------------------------------------------------------------


def _environment(kind: type[Settings]) -> dict[str, Any]:
    """Values of the environment; a name that no preset knows is refused, one of another preset is passed over."""
    names = {field.name for field in fields(kind)}
    every: list[type[Settings]] = [Settings, *SETTINGS.values()]
    anywhere = {field.name for known in every for field in fields(known)}
    found: dict[str, Any] = {}
    for variable, text in os.environ.items():
        name = variable.removeprefix(_PREFIX).lower()
        if not variable.startswith(_PREFIX) or variable.removeprefix(_PREFIX) in NO_SETTINGS or not text:
            continue
        if name not in anywhere:
            raise SettingsError(
                f"The environment variable {variable} names no setting. {did_you_mean(name, sorted(anywhere))}"
            )
        if name in names:
            found[name] = _parsed(text, kinds_of(kind)[name])
    return found


def _parsed(text: str, kind: Any) -> Any:
    """Text as the setting's type, or the text itself where it does not fit: `_checked` then says so."""
    options = options_of(kind)
    if bool in options:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
            text.lower(), text
        )
    if any(get_origin(option) is tuple for option in options):
        return [part.strip() for part in text.split(",") if part.strip()]
    for number in (int, float):
        if number in options:
            try:
                return number(text)
            except ValueError:
                continue
    return text


# -- names and types ----------------------------------------------------------------------------------------------


def _checked(kind: type[Settings], name: str, value: Any, origin: str) -> Any:
    kinds = kinds_of(kind)
    if name not in kinds:
        raise SettingsError(f"There is no setting '{name}' (from {origin}). {_whose(name, kinds)}")
    for option in options_of(kinds[name]):
        if get_origin(option) is tuple and _is_texts(value):
            return tuple(value)
        if _fits(value, option):
            return value
    shown = (
        repr(value)
        if _may_be_shown(kind, name)
        else f"no {_accepts(kinds[name])} but a {type(value).__name__}"
    )
    raise SettingsError(f"{name} is {shown} (from {origin}); expected {_accepts(kinds[name])}.")


def _may_be_shown(kind: type[Settings], name: str) -> bool:
    """Whether a setting holds no secret: what stays out of ``repr`` stays out of errors, too."""
    return next(field.repr for field in fields(kind) if field.name == name)


def _fits(value: Any, option: Any) -> bool:
    if get_origin(option) is Literal:
        return isinstance(value, str) and value in get_args(option)
    if get_origin(option) is tuple or isinstance(value, bool):
        return option is bool
    return isinstance(value, (int, float) if option is float else option)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def options_of(kind: Any) -> tuple[Any, ...]:
    """Types that a union allows; of another type, itself."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _accepts(kind: Any) -> str:
    """Readable name of a type.

    Example:
        >>> _accepts(int | None), _accepts(Literal["on", "off"]), _accepts(tuple[str, ...])
        ('int or none', "'on' or 'off'", 'list of str')
    """
    words = [
        word
        for option in options_of(kind)
        for word in (
            [repr(choice) for choice in get_args(option)]
            if get_origin(option) is Literal
            else ["list of str"]
            if get_origin(option) is tuple
            else ["none" if option is NoneType else option.__name__]
        )
    ]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def kinds_of(kind: type[Settings]) -> dict[str, Any]:
    """Type of each setting of a class."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _whose(name: str, known: Mapping[str, Any]) -> str:
    owners = [
        preset
        for preset, kind in SETTINGS.items()
        if name in kinds_of(kind) and name not in kinds_of(Settings)
    ]
    return f"It is a setting of '{owners[0]}'." if owners else did_you_mean(name, sorted(known))


def documented(kind: type[Settings]) -> dict[str, str]:
    """Lines under Attributes, of a class and of those that it comes from."""
    found: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        lines = (getdoc(ancestor) or "").partition("Attributes:\n")[2] if ancestor is not object else ""
        for name, about in re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", lines, flags=re.MULTILINE):
            found[name] = " ".join(about.replace("`", "").split())
    return found
