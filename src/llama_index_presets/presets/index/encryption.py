"""Encryption of a storage: source of the key, and the check against a second key or plain files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from llama_index.core.vector_stores.types import BasePydanticVectorStore

from llama_index_presets.errors import EncryptionError, SettingsError
from llama_index_presets.files.encryption import Encryptor, read_key_text
from llama_index_presets.ingest.metadata.document_metadata import ALLOWED_KEY
from llama_index_presets.packages.extras import installed, require
from llama_index_presets.presets.index.storage import Storage, read_metadata
from llama_index_presets.presets.settings import Settings
from llama_index_presets.store.encrypted import EncryptedVectorStore

__all__ = ["ENCRYPTION_KEY", "Encryption", "choose_encryption", "encryption_key"]

ENCRYPTION_KEY: Final = "LLAMA_PRESETS_ENCRYPTION_KEY"
"""Environment variable with the key, or the path of a file that holds it."""

_KEYRING = ("llama-index-presets", "encryption-key")
_HOW = (
    f"Set {ENCRYPTION_KEY} to a key (openssl rand -hex 32) or to the path of its file, or keep it in the keyring: "
    f"keyring set {' '.join(_KEYRING)}."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Encryption of a storage: method, key and searchable metadata.

    Attributes:
        sealer: Holds the key.
        searchable: Metadata keys that stay in clear.
        source: Where the key came from.
    """

    sealer: Encryptor
    searchable: tuple[str, ...]
    source: str

    @property
    def label(self) -> str:
        """Method, name of the key and searchable metadata, for the fingerprint of the index."""
        keys = "+".join(quote(key, safe="") for key in sorted(self.searchable))
        return f"aes-256-gcm/{self.sealer.key_id}/{keys}"

    def over(self, store: BasePydanticVectorStore) -> BasePydanticVectorStore:
        """The store, encrypted; one that is encrypted already stays as it is."""
        if isinstance(store, EncryptedVectorStore):
            return store
        return EncryptedVectorStore(store, sealer=self.sealer, searchable=self.searchable)


def choose_encryption(settings: Settings, pattern: str, storage: Storage) -> Encryption | None:
    """Decide whether a storage is encrypted; an existing one stays as it is.

    Args:
        settings: `encryption` and `searchable_metadata`.
        pattern: Key of `matrix.PATTERNS`.
        storage: Nothing in it is opened or changed.

    Returns:
        None for a storage in clear.

    Raises:
        SettingsError: There is no key and there must be one, it is no key, the pattern keeps words in clear, or the
            searchable metadata is not that of the storage.
        EncryptionError: The storage is in clear, or under another key.
    """
    found = None if settings.encryption == "off" else encryption_key()
    if found is None and settings.encryption == "on":
        raise SettingsError(f"encryption is 'on' and there is no key. {_HOW}")
    chosen = None
    if found is not None:
        key, source = found
        searchable = settings.searchable_metadata
        if settings.permissions == "on":
            searchable = (*searchable, ALLOWED_KEY)
        chosen = Encryption(sealer=Encryptor(key), searchable=searchable, source=source)
    if storage.metadata_file.exists():
        _hold(storage, chosen)
    if chosen and pattern == "hybrid":
        raise SettingsError(
            "The keyword index of the hybrid pattern keeps the words of all documents in clear, so an encrypted "
            'storage cannot have one. Set pattern = "advanced" or "simple", or encryption = "off".'
        )
    return chosen


def encryption_key() -> tuple[bytes, str] | None:
    """Find the key: the environment first, then the keyring of the system where the package `keyring` is installed.

    Returns:
        The key and where it came from, or None.

    Raises:
        SettingsError: What was found is no key, or the keyring refused.
    """
    named = os.environ.get(ENCRYPTION_KEY, "")
    if named:
        return read_key_text(_content(named), source=ENCRYPTION_KEY), ENCRYPTION_KEY
    if not installed("keyring"):
        return None
    keyring = require("keyring", extra="encryption")
    try:
        kept = keyring.get_password(*_KEYRING)
    except require("keyring.errors", extra="encryption").NoKeyringError:
        return None
    except require("keyring.errors", extra="encryption").KeyringError as error:
        raise SettingsError(
            f"The keyring cannot be read ({type(error).__name__}). Unlock it, or set {ENCRYPTION_KEY}."
        ) from error
    return (read_key_text(kept, source="the keyring"), "keyring") if kept else None


def _content(named: str) -> str:
    # `Path.is_file` raises, with the text in its message, where it is longer than the name of a file can be.
    if not (named.startswith(("/", "~", ".")) or os.path.isfile(named)):  # noqa: PTH113
        return named
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise SettingsError(f"The key file that {ENCRYPTION_KEY} names cannot be read ({reason}).") from error


def _hold(storage: Storage, chosen: Encryption | None) -> None:
    """An existing storage stays what it is: in clear, or under its key with its searchable metadata."""
    stored = str(read_metadata(storage)["fingerprint"]).partition(";encryption=")[2]
    given = chosen.label if chosen else ""
    if stored == given:
        return
    if not stored:
        raise EncryptionError(
            f"'{storage.shown}' is in clear and a key was given: one storage is not half encrypted. Ingest into a new "
            '--storage to encrypt, or set encryption = "off" to go on in clear.'
        )
    if chosen is None:
        raise EncryptionError(f"'{storage.shown}' is encrypted and no key was given. {_HOW}")
    _, key_id, keys = stored.split("/")
    if key_id != chosen.sealer.key_id:
        raise EncryptionError(
            f"'{storage.shown}' is encrypted with the key '{key_id}'; the one from {chosen.source} is "
            f"'{chosen.sealer.key_id}'. Give the key that made it."
        )
    raise SettingsError(
        f"'{storage.shown}' was made with searchable_metadata = {_listed(keys.split('+'))}; you ask for "
        f"{_listed(sorted(chosen.searchable))}. What lies there would lack the new keys: ingest into a new --storage."
    )


def _listed(keys: Sequence[str]) -> str:
    return str([key for key in keys if key])
