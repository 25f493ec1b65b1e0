"""The folder of an engine: what is in it, which model made it, whether it can be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import FingerprintError, StoreCorruptError, StoreError, StoreWriteError
from llama_index_presets.values import Fingerprint

__all__ = ["Storage", "open_storage", "read_card"]

_CARD = "preset.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the files of an engine lie.

    Attributes:
        folder: The folder that the user named.
    """

    folder: Path

    @property
    def card(self) -> Path:
        """Which preset and model made the folder."""
        return self.folder / _CARD

    @property
    def vectors(self) -> Path:
        """The vector store's own folder or file stem."""
        return self.folder / "vectors"

    @property
    def keywords(self) -> Path:
        """The keyword index of the hybrid pattern."""
        return self.folder / "keywords"

    @property
    def manifest(self) -> Path:
        """Which documents are in the index."""
        return self.folder / "documents.sqlite"

    @property
    def ledger(self) -> Path:
        """The calls and what they cost."""
        return self.folder / "calls.duckdb"

    @property
    def logs(self) -> Path:
        """JSON log, one object a line."""
        return self.folder / "logs" / "calls.jsonl"

    @property
    def audit(self) -> Path:
        """The audit log of level `audit`, one chained entry a line."""
        return self.folder / "audit.jsonl"


def open_storage(folder: str | Path, preset: str, fingerprint: Fingerprint) -> Storage:
    """Open a folder for a preset, making it when it is missing.

    Raises:
        StoreWriteError: It cannot be written.
        StoreCorruptError: Its card cannot be read.
        StoreError: Another preset made it.
        FingerprintError: Another embedding model or chunk size made it.
    """
    storage = Storage(Path(folder).expanduser().resolve())
    _make(storage)
    if storage.card.exists():
        _check(storage, preset, fingerprint)
    else:
        card = {"format": _FORMAT, "preset": preset, "fingerprint": str(fingerprint)}
        _write_whole(storage.card, json.dumps(card, indent=1) + "\n")
    return storage


def read_card(folder: str | Path) -> dict[str, object]:
    """Which preset and model made a folder.

    Raises:
        StoreError: The folder holds no index.
        StoreCorruptError: The card cannot be read.
    """
    card = Storage(Path(folder).expanduser()).card
    if not card.exists():
        raise StoreError(
            f"'{card.parent}' holds no index. Run 'llama-presets ingest' with this --storage first."
        )
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
        return {
            "format": int(content["format"]),
            "preset": str(content["preset"]),
            "fingerprint": str(content["fingerprint"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(
            f"'{card}' is damaged ({type(error).__name__}). Restore it from a backup, or ingest into a new folder."
        ) from error


def _make(storage: Storage) -> None:
    try:
        storage.folder.mkdir(parents=True, exist_ok=True)
        probe = storage.folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"The storage folder '{storage.folder}' cannot be written ({error.strerror}). Choose another --storage."
        ) from error


def _check(storage: Storage, preset: str, fingerprint: Fingerprint) -> None:
    card = read_card(storage.folder)
    if card["format"] != _FORMAT:
        raise StoreError(
            f"'{storage.folder}' has format {card['format']}; this release reads {_FORMAT}. Upgrade."
        )
    if card["preset"] != preset:
        raise StoreError(
            f"'{storage.folder}' was made by the preset '{card['preset']}', not '{preset}'. Use another --storage."
        )
    if card["fingerprint"] != str(fingerprint):
        raise FingerprintError(
            f"'{storage.folder}' was made with {card['fingerprint']}; you are using {fingerprint}. Vectors of two "
            "models cannot be mixed: use the original settings, or ingest into a new --storage.",
            stored=str(card["fingerprint"]),
            given=str(fingerprint),
        )


def _write_whole(path: Path, text: str) -> None:
    """All of the text or none of it, whatever happens meanwhile."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
