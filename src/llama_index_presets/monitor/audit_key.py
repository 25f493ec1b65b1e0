"""Where the audit log's key comes from: the environment, or a file of the user's outside every storage folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from llama_index_presets.disk_faults import write_all
from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.audit import read_key

__all__ = ["AUDIT_KEY", "audit_key", "audit_key_file"]

AUDIT_KEY: Final = "LLAMA_PRESETS_AUDIT_KEY"
"""Environment variable that holds the key, or the path of its file."""


def audit_key_file() -> Path:
    """The file that holds the key where the environment names none: in the user's configuration folder."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(configuration).expanduser() / "llama-index-presets" / "audit.key"


def audit_key(*, make: bool) -> bytes:
    """Find the operator's key.

    ``$LLAMA_PRESETS_AUDIT_KEY`` goes first: the path of a file, where it starts with ``/``, ``~`` or ``.`` or where
    such a file exists, else the key itself. Without it the key lies in `audit_key_file`, readable by its owner alone.

    Args:
        make: Whether to make that file, with a random key of 32 bytes in hex, where there is none.

    Raises:
        SettingsError: There is no key and none may be made, or it cannot be read, or has fewer than 16 bytes.
    """
    named = os.environ.get(AUDIT_KEY, "")
    if named:
        is_path = named.startswith(("/", "~", ".")) or Path(named).is_file()
        return read_key(Path(named).expanduser() if is_path else named.encode())
    file = audit_key_file()
    if make and not file.exists():
        _make(file)
    if not file.exists():
        raise SettingsError(
            f"The operator's key is missing: there is no '{file}'. Set {AUDIT_KEY} to the key or its file, or give "
            "--key FILE."
        )
    return read_key(file)


def _make(file: Path) -> None:
    """Write a key whole, for its owner alone; of two processes that make one at once, the first wins."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            try:
                write_all(descriptor, secrets.token_hex(32).encode() + b"\n", durable=True)
            finally:
                os.close(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The audit key '{file}' cannot be made ({error.strerror}). Set {AUDIT_KEY} to a key of yours, or to its "
            "file: openssl rand -hex 32."
        ) from error
