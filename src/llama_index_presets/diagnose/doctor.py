"""Doctor: checks of a machine, a preset and its storage, each finding with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_presets.counting import counted
from llama_index_presets.diagnose.checks import (
    check_extras,
    check_keys,
    check_model_uses,
    check_readiness,
    check_reranker,
    check_settings,
    check_versions,
    check_weights,
)
from llama_index_presets.diagnose.finding import Finding
from llama_index_presets.errors import PresetsError, StoreLockedError
from llama_index_presets.presets.matrix import Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.presets.settings import Settings, settings_class
from llama_index_presets.providers.rerankers import DEFAULT_RERANKER

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["examine"]


def examine(
    preset: str | None = None,
    *,
    storage: str | Path | None = None,
    settings: Path | None = None,
    offline: bool = False,
    repair: bool = False,
    reach: bool = False,
) -> Iterator[Finding]:
    """Run every check, in the order in which a build would fail.

    Args:
        preset: A row of the matrix; None looks at the machine alone.
        storage: Where its index lies; it is opened, and nothing in it is changed unless `repair` says so.
        settings: A TOML file.
        offline: See `build`.
        repair: Whether to bring a keyword index back in step with its store.
        reach: Whether to try the servers that the settings name.

    Raises:
        UnknownPresetError: No such preset.

    Example:
        >>> {finding.check for finding in examine("healthcare")} >= {"python", "keys", "weights"}
        True
    """
    row, values = _row(preset, settings, offline=offline) if preset else (None, Settings())
    yield from check_versions()
    yield from check_extras()
    yield from check_settings(preset, settings)
    yield from check_keys(row)
    if row is None or preset is None:
        return
    yield from check_model_uses(row, values)
    yield from check_readiness(row, values, reach=reach)
    yield from check_weights(row)
    yield from check_reranker(row, values.reranker or DEFAULT_RERANKER)
    if storage is not None:
        yield from _check_storage(row, storage, settings, offline=offline, repair=repair)


def _row(preset: str, settings: Path | None, *, offline: bool) -> tuple[Preset, Settings]:
    """Row as it would be built, and its settings."""
    row, values = find_preset(preset), settings_class(preset)()
    with suppress(PresetsError):  # `check_settings` says so
        values = load_settings(settings, preset)[0]
        row = row.with_settings(values)
    return row.offline() if offline else row, values


def _check_storage(
    row: Preset, storage: str | Path, settings: Path | None, *, offline: bool, repair: bool
) -> Iterator[Finding]:
    from llama_index_presets.diagnose.storage_checks import check_location, check_not_begun
    from llama_index_presets.presets.index.storage import resolve_storage

    place = resolve_storage(storage)
    found = list(check_location(row, place, offline=offline))
    yield from found
    if place.folder.exists() and not place.folder.is_dir():
        return
    try:
        if place.metadata_file.exists():
            yield from _check_index(row.name, storage, settings, offline=offline, repair=repair)
        elif not any(one.level == "error" for one in found):
            yield check_not_begun(place)
    except StoreLockedError as error:
        yield Finding(level="warning", check="storage", message=str(error), fix="Look again when it is done.")
    except (PresetsError, OSError) as error:
        yield Finding(level="error", check="storage", message=str(error), fix="See the message.")


def _check_index(
    preset: str, storage: str | Path, settings: Path | None, *, offline: bool, repair: bool
) -> Iterator[Finding]:
    from llama_index_presets.diagnose.checks import check_engine
    from llama_index_presets.presets.build import build

    with build(preset, storage=storage, settings=settings, offline=offline, repair=repair) as engine:
        yield from _repaired(engine)
        yield from check_engine(
            engine.as_user(user="doctor", everything=True) if engine.has_permissions else engine
        )


def _repaired(engine: PresetEngine) -> Iterator[Finding]:
    report = engine._parts.retrieval.repaired
    if report is not None and not report.consistent:
        changed = len(report.missing) + len(report.extra) + len(report.changed)
        yield Finding(level="note", check="keyword index", message=f"repaired: {counted(changed, 'chunk')}")
