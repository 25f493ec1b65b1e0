"""The audit log against an editor, a deleter, a shuffler, a truncator and a thief without the key."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import AuditError, SettingsError
from llama_index_presets.monitor.audit import AuditHead, AuditLog, verify

KEY = b"a key that the operator holds"
SECRET = "the patient Jane Doe"


def add(log: AuditLog, number: int) -> None:
    log.append(
        who="ada",
        preset="financial-documents",
        model="gpt-4o-mini",
        query_id=f"q{number}",
        prompt=f"{SECRET} {number}",
        passages=[("n1", f"{SECRET} passage"), ("n2", "other")],
        answer=f"{SECRET} answer",
        cost_usd=Decimal("0.00021"),
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit.jsonl", key=KEY)
    for number in range(5):
        add(log, number)
    return log


def test_an_untouched_log_verifies_and_holds_no_text(log):
    """Five entries verify; neither question, passage nor answer is in the file."""
    report = log.verify()
    assert (report.ok, report.entries, report.head.number) == (True, 5, 5)
    assert "Jane" not in log.path.read_text()


def lines(log: AuditLog) -> list[str]:
    return log.path.read_text().splitlines()


def recorded(log: AuditLog) -> Path:
    """The head beside the log, which somebody who hides something removes as well."""
    return log.path.with_name("audit.jsonl.head")


def edit(text: list[str]) -> list[str]:
    entry = json.loads(text[2])
    entry["entry"]["cost_usd"] = "0"
    return [*text[:2], json.dumps(entry, sort_keys=True), *text[3:]]


def twice(who: str, entry: str = '"entry"') -> Callable[[list[str]], list[str]]:
    """Change the text of the third line, so that a reader of JSON still reads the same values."""

    def change(text: list[str]) -> list[str]:
        third = text[2].replace('"who": "ada"', who).replace('"entry"', entry)
        assert third != text[2]
        return [*text[:2], third, *text[3:]]

    return change


def reordered(line: str) -> str:
    return json.dumps(dict(reversed(json.loads(line).items())))


TAMPERINGS = {
    "edit": (edit, 3),
    "delete": (lambda text: [*text[:2], *text[3:]], 3),
    "delete first": (lambda text: text[1:], 1),
    "reorder": (lambda text: [*text[:2], text[3], text[2], text[4]], 3),
    "duplicate": (lambda text: [*text[:3], text[2], *text[3:]], 4),
    "insert": (lambda text: [*text[:2], "{}", *text[2:]], 3),
    "second value of a key": (twice('"who": "eve", "who": "ada"'), 3),
    "second entry": (twice('"who": "ada"', '"entry": {}, "entry"'), 3),
    "other spaces": (lambda text: [*text[:2], text[2].replace(": ", ":"), *text[3:]], 3),
    "spaces behind": (lambda text: [*text[:2], text[2] + " ", *text[3:]], 3),
    "other escapes": (twice(r'"who": "\u0061da"'), 3),
    "another line end": (lambda text: [*text[:2], text[2] + "\r", *text[3:]], 3),
    "more behind": (lambda text: [*text[:2], text[2] + "{}", *text[3:]], 3),
    "another order": (lambda text: [*text[:2], reordered(text[2]), *text[3:]], 3),
    "nesting": (lambda text: [*text[:2], "[" * 100_000, *text[3:]], 3),
    "swap macs": (lambda text: [text[0].replace("ada", "eve"), *text[1:]], 1),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_and_located(log, name):
    """Any edit, deletion, insertion or reorder is found, with the line where the chain breaks."""
    change, line = TAMPERINGS[name]
    log.path.write_text("\n".join(change(lines(log))) + "\n")
    report = log.verify()
    assert (report.ok, report.first_bad) == (False, line)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_single_changed_byte_goes_unseen(tmp_path_factory, data):
    """Whichever byte is changed, the log no longer verifies."""
    log = AuditLog(tmp_path_factory.mktemp("audit") / "audit.jsonl", key=KEY)
    for number in range(2):
        add(log, number)
    content = bytearray(log.path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 127))
    log.path.write_bytes(content)
    assert not log.verify().ok


def test_truncation_shows_only_against_an_exported_head(log, tmp_path):
    """Without the newest entries the chain is whole in itself; the head that was kept elsewhere tells."""
    log.head().save(tmp_path / "head.json")
    log.path.write_text("\n".join(lines(log)[:3]) + "\n")
    recorded(log).unlink()
    assert log.verify().ok
    report = log.verify(AuditHead.load(tmp_path / "head.json"))
    assert not report.ok and "missing" in report.reason


def test_an_old_head_still_fits_a_log_that_grew(log):
    """A head is a point on the chain: later entries do not unsettle it."""
    head = log.head()
    add(log, 6)
    assert log.verify(head).ok


def test_a_rewritten_log_does_not_fit_the_exported_head(log, tmp_path):
    """Even who has the key cannot rewrite history behind a head that was kept elsewhere."""
    head = log.head()
    log.path.unlink()
    recorded(log).unlink()
    for number in range(9):
        add(log, number + 100)
    assert log.verify().ok
    assert log.verify(head).reason == "the exported head is another chain's"


def test_another_key_verifies_nothing(log):
    """The chain cannot be checked, or continued, with a key that is not the operator's."""
    assert verify(log.path, key=b"some other key of mine").first_bad == 1


def test_a_log_with_a_broken_last_line_is_not_continued(log):
    """After half a line nothing is appended, so that the break stays visible."""
    with log.path.open("a") as file:
        file.write('{"entry": {"number"')
    assert not log.verify().ok
    with pytest.raises(AuditError, match="cannot be continued"):
        add(log, 9)


def _add_many(path: Path) -> None:
    log = AuditLog(path, key=KEY)
    for number in range(20):
        add(log, number)


def test_several_processes_write_one_chain(tmp_path):
    """Three processes that append at once leave one whole chain."""
    path = tmp_path / "audit.jsonl"
    workers = [multiprocessing.get_context("fork").Process(target=_add_many, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    report = verify(path, key=KEY)
    assert (report.ok, report.entries) == (True, 60)


def test_keys_and_heads_are_checked(tmp_path):
    """Short keys, missing key files and files that are no head are refused."""
    with pytest.raises(SettingsError, match="has 5 bytes"):
        AuditLog(tmp_path / "a.jsonl", key=b"short")
    with pytest.raises(SettingsError, match="cannot be read"):
        AuditLog(tmp_path / "a.jsonl", key=tmp_path / "none")
    (tmp_path / "head.json").write_text("[]")
    with pytest.raises(AuditError, match="is no exported head"):
        AuditHead.load(tmp_path / "head.json")


def test_a_full_disk_leaves_no_half_line(log, monkeypatch):
    """The entry that could not be written whole is cut off again, so that the log goes on when there is room."""
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: _half(write, descriptor, data))
        with pytest.raises(AuditError, match=r"No space left .* free space on its disk"):
            add(log, 6)
    add(log, 7)
    assert (log.verify().ok, log.verify().entries) == (True, 5 + 1)


def _half(write, descriptor, data):
    """Write as a disk with room for a few bytes more does: a part, then an error."""
    if len(data) < 100:
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(descriptor, data[: len(data) - 99])


def test_a_log_whose_last_line_was_edited_is_not_continued(log):
    """A last line with a key twice could be read in two ways, and the next entry would confirm one of them."""
    text = log.path.read_text()
    log.path.write_text(text[:-2] + ', "mac": "0"}\n')
    with pytest.raises(AuditError, match="cannot be continued"):
        add(log, 9)


def test_a_line_that_nests_without_end_is_not_continued(log):
    """Python's reader gives up on it in a way of its own."""
    with log.path.open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(AuditError, match="cannot be continued"):
        add(log, 9)


LOSSES: dict[str, Callable[[AuditLog], object]] = {
    "emptied": lambda log: log.path.write_text(""),
    "deleted": lambda log: log.path.unlink(),
    "cut": lambda log: log.path.write_text("\n".join(lines(log)[:3]) + "\n"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_log_that_lost_its_newest_entries_is_not_continued(log, loss):
    """The head beside it says how far it reached; a new log begins where both were moved away."""
    kept = log.path.read_bytes()
    LOSSES[loss](log)
    with pytest.raises(AuditError, match=r"had 5: the newest are missing.*'audit.jsonl.head' away"):
        add(log, 6)
    assert log.verify().reason == "entries up to the recorded head are missing"
    log.path.write_bytes(kept)
    add(log, 6)
    assert (log.verify().ok, log.verify().entries) == (True, 5 + 1)
    log.path.unlink()
    recorded(log).unlink()
    add(log, 7)
    assert (log.verify().ok, log.verify().entries) == (True, 1)


def test_a_rewritten_log_does_not_fit_the_recorded_head(log):
    """As long as it is longer it is continued, and never verifies."""
    head = recorded(log).read_bytes()
    log.path.unlink()
    recorded(log).unlink()
    for number in range(9):
        add(log, number + 100)
    recorded(log).write_bytes(head)
    assert log.verify().reason == "the recorded head is another chain's"


@pytest.mark.parametrize("head", [b"", b"[" * 100_000, b'{"number": 3, "mac": "\xc3\xa9"}'])
def test_a_damaged_recorded_head_stops_nobody(log, head):
    """A crash of the machine may cut it; the next entry writes it anew, and what is no head of the chain shows."""
    recorded(log).write_bytes(head)
    assert log.verify().ok == (b"number" not in head)
    add(log, 6)
    assert log.verify().ok and recorded(log).stat().st_mode & 0o777 == 0o600
