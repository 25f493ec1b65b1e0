"""JSON schema of the project file, for editors; made from the settings, so that it knows every one of them."""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from llama_index_presets.presets.matrix import MONITORING, PATTERNS, PRESETS, STORES
from llama_index_presets.presets.project.settings_sources import documented, kinds_of, options_of
from llama_index_presets.presets.settings import MODELS, SETTINGS, Settings

__all__ = ["SCHEMA_URL", "project_schema"]

SCHEMA_URL: Final = "https://raw.githubusercontent.com/llama-index-presets/llama-index-presets/main/docs/llama-presets.schema.json"
"""Where editors find it."""

_TYPES: Final = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    NoneType: "null",
}
_TABLES: Final = {"store": STORES, "pattern": PATTERNS, "monitoring": MONITORING}


def project_schema() -> dict[str, Any]:
    """The schema, as JSON values.

    Example:
        >>> project_schema()["properties"]["preset"]["enum"][0]
        'knowledge-base'
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_URL,
        "title": "llama-presets.toml",
        "description": "Project file of llama-index-presets: what the commands of a folder work on.",
        "type": "object",
        "required": ["preset"],
        "additionalProperties": False,
        "properties": {
            "preset": {
                "enum": list(PRESETS),
                "description": "Row of the matrix: "
                + "; ".join(f"{name}: {row.use_case}" for name, row in PRESETS.items()),
            },
            "storage": {
                "type": "string",
                "description": "Folder of the index, relative to this file, or the URL of its vectors.",
            },
            "sources": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Files and folders that ingest reads, relative to this file.",
            },
            "offline": {
                "type": "boolean",
                "default": False,
                "description": "Swap every networked part for its local counterpart.",
            },
            **{name: _model(name) for name in MODELS},
            "settings": {
                "type": "object",
                "additionalProperties": False,
                "description": "Settings of the preset; llama-presets show PRESET lists them.",
                "properties": _settings(),
            },
            "serve": {"type": "object", "description": "Address, access and limits of llama-presets serve."},
            "engines": {"type": "object", "description": "Engines of llama-presets serve --config, by name."},
        },
    }


def _model(name: str) -> dict[str, Any]:
    """A model by its name, or a table of its name and options."""
    about = documented(Settings)
    table = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "description": about[f"{name}_options"],
    }
    return {"anyOf": [{"type": "string"}, table], "description": about[name]}


def _settings() -> dict[str, Any]:
    kinds, about = kinds_of(Settings), documented(Settings)
    every = [Settings(), *(kind() for kind in SETTINGS.values())]
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        values = [values_of.to_dict()[name] for values_of in every]
        default = {"default": values[0]} if all(value == values[0] for value in values) else {}
        one = _model(name) if name in MODELS else {**_accepts(name, kind), "description": about.get(name, "")}
        found[name] = one if default.get("default") is None else {**one, **default}
    return found


def _accepts(name: str, kind: Any) -> dict[str, Any]:
    """What a value may be; TOML has no null, so that an option's None is leaving it out."""
    if name in _TABLES:
        return {"enum": list(_TABLES[name])}
    options = [option for option in options_of(kind) if option is not NoneType]
    (option,) = options
    if get_origin(option) is Literal:
        return {"enum": list(get_args(option))}
    if get_origin(option) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    return {"type": _TYPES[option]}
