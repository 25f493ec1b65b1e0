"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_index_presets.files.whole_files import create_file, replace_file
from llama_index_presets.monitor.audit import AUDIT_KEY, audit_key, audit_key_file


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_links(*args: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("draft", [None, "draft"])
def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path, draft: str | None) -> None:
    """Also where a killed process left its draft, whose mode is not taken over."""
    beside = tmp_path / draft if draft else None
    if beside:
        beside.write_text("half")
        beside.chmod(0o644)
    for content in ("ä", b"\x00"):
        replace_file(tmp_path / "a", content, draft=beside, private=True, durable=True)
    assert (tmp_path / "a").read_bytes() == b"\x00"
    assert names(tmp_path) == ["a"]
    if os.name == "posix":
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves the old content, and no draft."""
    replace_file(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "a", "new", durable=True)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("links", [True, False])
def test_the_first_who_creates_a_file_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """With hard links and on a file system that has none."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for content in (b"first", b"second"):
        create_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


def test_an_audit_key_is_made_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As exFAT: the key is as private, and whole."""
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.delenv(AUDIT_KEY, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert audit_key(make=True) == audit_key(make=False)
    assert tmp_path in audit_key_file().parents
    assert names(audit_key_file().parent) == [audit_key_file().name]


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_name_may_be_as_long_as_the_file_system_takes(write: Callable[..., None], tmp_path: Path) -> None:
    """What is written beside it has a shorter one: 84 letters of three bytes are 252 of 255."""
    file = tmp_path / ("名" * 84)
    write(file, b"x")
    assert file.read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [file]
