"""Checks of the machine: versions, extras, keys, settings, weights. Reads metadata; imports no heavy package."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from llama_index_presets._extras import installed
from llama_index_presets.errors import ModelError, PresetsError, SettingsError
from llama_index_presets.presets.findings import Finding
from llama_index_presets.presets.layers import load_settings
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.rerankers import find_reranker

__all__ = [
    "check_extras",
    "check_keys",
    "check_parts",
    "check_reranker",
    "check_settings",
    "check_versions",
    "check_weights",
]

_DISTRIBUTION = "llama-index-presets"
_KEYS = {
    "OPENAI_API_KEY": "OpenAI models",
    "PINECONE_API_KEY": "the Pinecone store",
    "LLAMA_PRESETS_AUDIT_KEY": "the audit log",
    "LLAMA_PRESETS_ENCRYPTION_KEY": "encryption at rest",
}
_NO_CAPABILITY = {"all", "dev", "docs"}


def check_versions() -> Iterator[Finding]:
    """Python, ourselves, and every package that is always installed, against what we ask for."""
    yield Finding(level="ok", check="python", message=f"{platform.python_version()} on {sys.platform}")
    try:
        ours = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Finding(
            level="note",
            check="versions",
            message="llama-index-presets runs from its source tree, not installed",
        )
        return
    yield Finding(level="ok", check="versions", message=f"llama-index-presets {ours}")
    for requirement in _requirements():
        if requirement.marker is None:
            yield from _check_version(requirement)


def check_extras() -> Iterator[Finding]:
    """Which extras are complete."""
    extras: dict[str, list[str]] = {}
    for requirement in _requirements():
        for extra in _extras_of(requirement):
            if requirement.name != _DISTRIBUTION:
                extras.setdefault(extra, []).append(requirement.name)
    complete = [extra for extra, names in extras.items() if not any(_version(name) is None for name in names)]
    if extras:
        missing = sorted(set(extras) - set(complete) - _NO_CAPABILITY)
        listed = ", ".join(sorted(set(complete) - _NO_CAPABILITY)) or "none"
        hint = f"; not installed: {', '.join(missing)}" if missing else ""
        yield Finding(level="ok", check="extras", message=f"installed: {listed}{hint}")
    if _version("arize-phoenix"):
        yield Finding(
            level="warning",
            check="versions",
            message="the Phoenix server is installed in this environment and pins packages of ours",
            fix="Run Phoenix from an environment of its own; only the extra 'tracing' belongs here.",
        )


def check_keys(row: Preset | None) -> Iterator[Finding]:
    """Which keys are set; their values are never read further than that."""
    needs = {"OPENAI_API_KEY"} if row and "gpt" in row.llm + row.embedding else set()
    needs |= {"OPENAI_API_KEY"} if row and row.embedding.startswith("text-embedding") else set()
    needs |= {"PINECONE_API_KEY"} if row and row.store == "pinecone" else set()
    for name, use in _KEYS.items():
        if os.environ.get(name):
            yield Finding(level="ok", check="keys", message=f"{name} is set ({use})")
        elif name in needs:
            yield Finding(
                level="error",
                check="keys",
                message=f"{name} is not set ({use})",
                fix="Set it, or use --offline.",
            )
        else:
            yield Finding(level="note", check="keys", message=f"{name} is not set ({use})")


def check_settings(preset: str | None, file: Path | None) -> Iterator[Finding]:
    """Whether file and environment make valid settings, and which are not defaults."""
    try:
        values, origins = load_settings(file, preset)
    except SettingsError as error:
        yield Finding(level="error", check="settings", message=str(error), fix="Correct or unset it.")
        return
    shown = values.to_dict()
    changed = [f"{name} = {shown[name]!r} ({place})" for name, place in origins.items() if place != "default"]
    yield Finding(level="ok", check="settings", message="; ".join(changed) or "all defaults")


def check_parts(row: Preset) -> Iterator[Finding]:
    """Whether every cell of a row can be assembled here."""
    for line in row.missing():
        what, _, fix = line.partition(": pip install")
        yield Finding(level="error", check="parts", message=what, fix=f"pip install{fix}" if fix else "")
    if not row.missing():
        yield Finding(level="ok", check="parts", message=f"every part of '{row.name}' is installed")


def check_reranker(row: Preset, name: str) -> Iterator[Finding]:
    """Whether the cross-encoder of the advanced pattern is here.

    Args:
        row: The row.
        name: The re-ranker of its settings.
    """
    if row.pattern != "advanced" or not installed("sentence_transformers"):
        return
    folder = find_reranker(name)
    if folder is None:
        yield Finding(
            level="warning",
            check="weights",
            message=f"the re-ranker '{name}' is not on this machine; offline, passages keep the order of the search",
            fix="Download it once, or copy its folder and name that in the setting 'reranker'.",
        )
    else:
        yield Finding(level="ok", check="weights", message=f"{name} in {folder}")


def check_weights(row: Preset) -> Iterator[Finding]:
    """Whether the embedding model's weights are here and are what they should be."""
    from llama_index_presets.embed.catalogue import embedding_model
    from llama_index_presets.embed.weights import find_weights

    model = embedding_model(row.embedding)
    if model.provider != "local" or not installed("sentence_transformers"):
        return
    try:
        folder = find_weights(model, allow_download=False)
    except (ModelError, PresetsError) as error:
        yield Finding(level="error", check="weights", message=str(error), fix="See the message.")
        return
    checked = "hash verified" if model.sha256 else "no hash is known"
    yield Finding(level="ok", check="weights", message=f"{model.name} in {folder} ({checked})")


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return []


def _extras_of(requirement: Requirement) -> list[str]:
    if requirement.marker is None:
        return []
    names = metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    return [name for name in names if requirement.marker.evaluate({"extra": name})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_version(requirement: Requirement) -> Iterator[Finding]:
    found = _version(requirement.name)
    if found is None:
        yield Finding(
            level="error",
            check="versions",
            message=f"{requirement.name} is not installed",
            fix=f'pip install "{requirement}"',
        )
    elif not requirement.specifier.contains(found, prereleases=True):
        yield Finding(
            level="error",
            check="versions",
            message=f"{requirement.name} {found} is installed; {requirement.specifier} is needed",
            fix=f'pip install "{requirement}"',
        )
    else:
        yield Finding(level="ok", check="versions", message=f"{requirement.name} {found}")
