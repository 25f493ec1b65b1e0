"""Paths that no file can be at: every command says so in one line, without a class of Python's."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.errors import SettingsError
from llama_index_presets.files.paths import read_path
from llama_index_presets.presets.index.storage import resolve_storage

COMMANDS = [
    ("ingest", "healthcare", "{file}", "--storage", "{bad}"),
    ("ask", "healthcare", "What?", "--storage", "{bad}"),
    ("chat", "healthcare", "--storage", "{bad}"),
    ("documents", "healthcare", "--storage", "{bad}"),
    ("costs", "--storage", "{bad}"),
    ("answers", "--storage", "{bad}"),
    ("compact", "{bad}"),
    ("permissions", "healthcare", "--storage", "{bad}"),
    ("show-citation", "abc", "1", "--storage", "{bad}"),
    ("audit", "verify", "--storage", "{bad}"),
    ("doctor", "healthcare", "--storage", "{bad}"),
    ("serve", "healthcare", "--port", "0", "--storage", "{bad}"),
    ("eject", "healthcare", "{bad}"),
    ("key", "list", "--keys", "{bad}"),
    ("key", "add", "bob", "--keys", "{bad}"),
    ("evaluate", "healthcare", "--questions", "{bad}", "--storage", "{folder}"),
    ("preview", "{bad}"),
]


def unusable(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "loop").symlink_to("loop")
    return {"loop": str(tmp_path / "loop" / "s"), "long": str(tmp_path / ("x" * 300))}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2]))
@pytest.mark.parametrize("kind", ["loop", "long"])
def test_every_command_says_what_is_wrong_with_a_path(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, command: tuple[str, ...], kind: str
) -> None:
    """A circle of links and a name that is too long; nothing is made anywhere."""
    (tmp_path / "d.txt").write_text("Cats purr.")
    bad = unusable(tmp_path)[kind]
    words = {"bad": bad, "file": tmp_path / "d.txt", "folder": tmp_path}
    code, _, err = run(*(part.format(**words) for part in command))
    line = err.strip().splitlines()[-1]
    assert code in (1, 2) and line.startswith("Error: ") and len(line) < 700, line
    assert "Error:" not in line[6:] and "Errno" not in line and "--debug" not in line, line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.txt", "loop"]


def test_a_path_is_read_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home is read and links are followed, unless one is to stay; what is not there yet is fine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "file").touch()
    assert read_path("~/link", "It") == tmp_path.resolve() / "target"
    assert read_path("~/link", "It", links=False) == tmp_path / "link"
    assert read_path(tmp_path / "file" / "below", "It").name == "below"


@pytest.mark.parametrize("path", ["~no-such-user/s", "a\0b"])
def test_a_storage_that_cannot_be_looked_at_is_a_wrong_setting(path: str) -> None:
    """A home that nobody has, and a name that no system takes."""
    with pytest.raises(SettingsError, match=r"The storage '.*' cannot be looked at \(.*\)\. Check its name"):
        resolve_storage(path)
