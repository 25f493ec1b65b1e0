"""Authenticated encryption of texts and ids under one key. Pure: imports no store and touches no file.

Rows are sealed with AES-256-GCM under a fresh random nonce of 96 bits, bound to the id of their row. Ids are sealed
with AES-SIV (RFC 5297), which gives equal ids equal ciphertexts, so that a store can still find and replace them. Both
keys come from the one given through HKDF-SHA256 (RFC 5869), each with its own label.
"""

from __future__ import annotations

import base64
import binascii
import os

from llama_index_presets.counting import counted
from llama_index_presets.errors import EncryptionError, SettingsError
from llama_index_presets.packages.extras import require

__all__ = ["Encryptor", "read_key_text"]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_PREFIX = "sealed1:"


class Encryptor:
    """Encryptor and decryptor under one key; thread safe. The key is in no attribute, `repr` or error.

    Args:
        key: 32 random bytes. Not a passphrase: nothing slows a guesser down.

    Raises:
        MissingExtraError: The package `cryptography` is not installed.
        SettingsError: The key has another length.

    Example:
        >>> sealer = Encryptor(bytes(range(32)))
        >>> sealer.open(sealer.seal(b"Jane Doe", place="row-1"), place="row-1")
        b'Jane Doe'
        >>> sealer.seal_id("jane.md") == sealer.seal_id("jane.md")
        True
        >>> sealer.open_id(sealer.seal_id("jane.md"))
        'jane.md'
    """

    __slots__ = ("_ids", "_invalid", "_rows", "hash_key", "key_id")

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise SettingsError(
                f"The encryption key has {counted(len(key), 'byte')}; it must have {_KEY_BYTES}."
            )
        aead = require("cryptography.hazmat.primitives.ciphers.aead", extra="encryption")
        self._invalid = require("cryptography.exceptions", extra="encryption").InvalidTag
        self._rows = aead.AESGCM(_derived(key, b"rows", 32))
        self._ids = aead.AESSIV(_derived(key, b"ids", 64))
        self.hash_key: bytes = _derived(key, b"hashes", 32)
        """For keyed hashes of texts, so that a hash cannot be found by trying likely texts."""
        self.key_id: str = _derived(key, b"key id", 8).hex()
        """Names the key without telling it: equal keys, equal ids."""

    def seal(self, data: bytes, *, place: str) -> str:
        """Encrypt.

        Args:
            data: What to hide.
            place: Where it will lie; it opens nowhere else.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return _PREFIX + _text(nonce + self._rows.encrypt(nonce, data, place.encode()))

    def open(self, sealed: str, *, place: str) -> bytes:
        """Decrypt the output of `seal`.

        Raises:
            EncryptionError: It is not encrypted, or another key, another place or another hand made it.
        """
        if not sealed.startswith(_PREFIX):
            raise EncryptionError(
                f"Row '{place}' is not encrypted. Clear and encrypted rows are not mixed: open the store without "
                "encryption, or load its nodes into a new one."
            )
        try:
            raw = _bytes(sealed.removeprefix(_PREFIX))
            opened: bytes = self._rows.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], place.encode())
        except (self._invalid, ValueError) as error:
            raise EncryptionError(
                f"Row '{place}' does not open with the key '{self.key_id}': another key wrote it, or it was altered."
            ) from error
        return opened

    def seal_id(self, name: str) -> str:
        """Encrypt an id; equal ids give equal results."""
        return _text(self._ids.encrypt(b"\0" + name.encode("utf-8", "surrogatepass"), None))

    def open_id(self, sealed: str) -> str:
        """Decrypt the output of `seal_id`.

        Raises:
            EncryptionError: It is not encrypted, or not with this key.
        """
        try:
            opened: bytes = self._ids.decrypt(_bytes(sealed), None)
        except (self._invalid, ValueError) as error:
            raise EncryptionError(
                f"A stored id does not open with the key '{self.key_id}': it is in clear, another key wrote it, or it "
                "was altered."
            ) from error
        return opened[1:].decode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        """The name of the key, never the key."""
        return f"Encryptor(key_id='{self.key_id}')"


def read_key_text(text: str, *, source: str) -> bytes:
    """Parse a key in text form: 64 hexadecimal digits, or the base64 of 32 bytes.

    Args:
        text: Surrounding space does not count.
        source: Where it came from, for the error; the text is never shown.

    Raises:
        SettingsError: It is neither.

    Example:
        >>> read_key_text("00" * 32, source="the test") == bytes(32)
        True
    """
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * _KEY_BYTES else _bytes(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise SettingsError(
            f"The encryption key from {source} is no key: expected 64 hexadecimal digits, or the base64 of 32 bytes. "
            "Make one with: openssl rand -hex 32."
        )
    return key


def _derived(key: bytes, label: bytes, length: int) -> bytes:
    hashes = require("cryptography.hazmat.primitives.hashes", extra="encryption")
    hkdf = require("cryptography.hazmat.primitives.kdf.hkdf", extra="encryption").HKDF
    derived: bytes = hkdf(
        algorithm=hashes.SHA256(), length=length, salt=None, info=b"llama-index-presets " + label
    ).derive(key)
    return derived


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error
