"""The file of cached answers: bounded, private, shared, whole after a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.errors import StoreError, StoreWriteError
from llama_index_presets.files.encryption import Encryptor


def cache(folder: Path, **options: object) -> AnswerCache:
    settings: dict[str, object] = {"max_bytes": 10_000, "max_age_s": 60.0, **options}
    return AnswerCache(folder / "answers.sqlite", **settings)  # type: ignore[arg-type]


def test_an_entry_is_found_by_all_parts_of_its_key(tmp_path: Path) -> None:
    """Parts of a key do not run into each other."""
    answers = cache(tmp_path)
    answers.put(answers.key("ab", "c"), {"text": "Yes."})
    assert answers.get(answers.key("ab", "c")) == {"text": "Yes."}
    assert answers.get(answers.key("a", "bc")) is None


def test_an_old_entry_and_one_from_the_future_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past its age an entry is gone; so is one that a clock that was put back made."""
    answers, now = cache(tmp_path, max_age_s=60.0), time.time_ns()
    for later_s in (61, -1):
        key = answers.key(str(later_s))
        monkeypatch.setattr(time, "time_ns", lambda: now)
        answers.put(key, {"text": "Yes."})
        monkeypatch.setattr(time, "time_ns", lambda s=later_s: now + s * 10**9)
        assert answers.get(key) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """The sum of the entries stays below the limit, and what was asked for stays."""
    answers = cache(tmp_path, max_bytes=1_000)
    keys = [answers.key(str(n)) for n in range(5)]
    for place, key in enumerate(keys):
        answers.put(key, {"text": "x" * 280})
        if place:
            assert answers.get(keys[0]) is not None
    assert [answers.get(key) is not None for key in keys] == [True, False, False, True, True]
    answers.put(keys[1], {"text": "x" * 2_000})
    assert answers.get(keys[1]) is None


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Answers are text of documents: 0600, the log beside them, too."""
    answers = cache(tmp_path)
    answers.put(answers.key("q"), {"text": "Yes."})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("answers.sqlite*")}
    assert len(modes) >= 2 and set(modes.values()) == {0o600}


def test_an_encrypted_storage_has_no_answer_in_clear(tmp_path: Path) -> None:
    """Entries are sealed, and another key finds nothing."""
    answers = cache(tmp_path, sealer=Encryptor(bytes(32)))
    answers.put(answers.key("q"), {"text": "Jane Doe"})
    assert answers.get(answers.key("q")) == {"text": "Jane Doe"}
    answers.close()
    assert all(b"Jane" not in path.read_bytes() for path in tmp_path.iterdir())
    other = cache(tmp_path, sealer=Encryptor(bytes([1] * 32)))
    assert other.get(other.key("q")) is None
    assert other.get(answers.key("q")) is None


def test_clear_leaves_no_word_on_the_disk(tmp_path: Path) -> None:
    """Clearing counts what was there and overwrites the file."""
    answers = cache(tmp_path)
    answers.put(answers.key("q"), {"text": "forget me"})
    assert answers.clear() == 1
    answers.close()
    assert all(b"forget me" not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["file", "entry"])
def test_what_is_damaged_is_a_miss_and_is_replaced(tmp_path: Path, damage: str) -> None:
    """A broken file or entry costs a call, never an error or a wrong answer."""
    answers = cache(tmp_path)
    key = answers.key("q")
    answers.put(key, {"text": "Yes."})
    answers.clear() if damage == "file" else None
    answers.put(key, {"text": "Yes."})
    if damage == "file":
        answers.close()
        answers.path.write_bytes(b"no database" * 1_000)
    else:
        with answers._connected() as connection, connection:
            connection.execute(
                "update answers set entry = cast(replace(cast(entry as text), 'Yes', 'No!') as blob)"
            )
    assert answers.get(key) is None
    answers.put(key, {"text": "Yes."})
    assert answers.get(key) == {"text": "Yes."}


def test_threads_share_it(tmp_path: Path) -> None:
    """Eight threads write and read their own and each other's."""
    answers, wrong = cache(tmp_path, max_bytes=10**6), []

    def work(number: int) -> None:
        for place in range(20):
            answers.put(answers.key(str(place)), {"text": str(place)})
            found = answers.get(answers.key(str((place + number) % 20)))
            if found not in (None, {"text": str((place + number) % 20)}):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(answers) == 20


def test_a_get_that_waits_for_a_put_finds_it(tmp_path: Path) -> None:
    """An answer that was kept while a reader waited for the lock is no answer of the future, and is not deleted."""
    answers, found = cache(tmp_path), []
    key = answers.key("q")
    answers.put(key, {"text": "first"})
    with answers._connected():
        reader = threading.Thread(target=lambda: found.append(answers.get(key)))
        reader.start()
        time.sleep(0.05)
        answers.put(key, {"text": "second"})
    reader.join()
    assert found == [{"text": "second"}] and len(answers) == 1


_WRITER = """
import sys
from pathlib import Path
from llama_index_presets.answer.cache.store import AnswerCache
answers = AnswerCache(Path(sys.argv[1]), max_bytes=10**7, max_age_s=60)
place = 0
while True:
    answers.put(answers.key(str(place)), {"text": str(place) * 200})
    place += 1
    print(place, flush=True)
"""


def test_a_killed_process_leaves_whole_entries(tmp_path: Path) -> None:
    """After SIGKILL in the middle of writing, what was put is there and another process goes on."""
    path = tmp_path / "answers.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    done = [int(writer.stdout.readline()) for _ in range(30)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    answers = AnswerCache(path, max_bytes=10**7, max_age_s=60)
    assert [answers.get(answers.key(str(n))) for n in range(done)] == [
        {"text": str(n) * 200} for n in range(done)
    ]
    answers.put(answers.key("next"), {"text": "next"})
    assert answers.get(answers.key("next")) == {"text": "next"}


def test_a_file_that_was_replaced_is_left_and_the_new_one_emptied(tmp_path: Path) -> None:
    """A process that has the old file open sees the new one's answers, and clears them from the disk."""
    first, second = cache(tmp_path), cache(tmp_path)
    first.put(first.key("old"), {"text": "old"})
    for path in tmp_path.glob("answers.sqlite*"):
        path.unlink()
    assert first.get(first.key("old")) is None
    second.put(second.key("new"), {"text": "parcel 4711"})
    second.close()
    assert first.get(first.key("new")) == {"text": "parcel 4711"}
    assert first.clear() == 1
    assert not any(b"4711" in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("change", ["made = 'x'", "crc = 'x'", "crc = null_of", "entry = 'text'"])
def test_values_of_another_kind_are_none(tmp_path: Path, change: str) -> None:
    """SQLite keeps any value in any column; such a row is damage, not an error of the question."""
    answers = cache(tmp_path, max_bytes=300)
    key = answers.key("q")
    answers.put(key, {"text": "Yes."})
    change = change.replace("null_of", "1.5")
    with sqlite3.connect(answers.path) as connection:
        connection.execute(f"update answers set {change}, size = 'x'")
    assert answers.get(key) is None
    for n in range(9):
        answers.put(answers.key(str(n)), {"text": "x" * 100})
    assert answers.get(answers.key("8")) == {"text": "x" * 100}


def test_a_file_that_cannot_be_read_or_removed_costs_no_question(tmp_path: Path) -> None:
    """A folder in its place: reading and writing are misses, counting and clearing say what to do."""
    answers = cache(tmp_path)
    answers.path.mkdir()
    answers.put(answers.key("q"), {"text": "Yes."})
    assert answers.get(answers.key("q")) is None
    with pytest.raises(StoreError, match="cannot be read"):
        len(answers)
    with pytest.raises(StoreWriteError, match="cannot be emptied"):
        answers.clear()
    damaged = cache(tmp_path / "other")
    damaged.path.parent.mkdir()
    damaged.path.write_bytes(b"no database" * 100)
    damaged.path.with_name("answers.sqlite-wal").mkdir()  # what cannot be removed
    assert damaged.get(damaged.key("q")) is None


def test_answers_may_be_kept_for_ever(tmp_path: Path) -> None:
    """TOML knows inf: such an answer is never too old."""
    answers = cache(tmp_path, max_age_s=float("inf"))
    for n in range(2):
        answers.put(answers.key(str(n)), {"text": "Yes."})
    assert answers.get(answers.key("0")) == {"text": "Yes."}
