"""The ledger under many writers, kills, full disks and odd files."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import MonitorError, SettingsError
from llama_index_presets.monitor.ledger.journal import journal_folder
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.storage import fold

CALL = {"kind": "llm", "provider": "openai", "model": "gpt-4o-mini"}


def start(code: str, *arguments: object) -> subprocess.Popen:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


WRITE = """
    import sys
    from llama_index_presets.monitor.ledger.ledger import Ledger
    ledger = Ledger(sys.argv[1])
    for number in range(int(sys.argv[2])):
        ledger.record(kind="llm", provider="local", model="m", prompt_tokens=number)
    ledger.close()
"""


def count(path: Path) -> int:
    (rows,) = Ledger(path).sql("SELECT count(*) FROM llm_calls").fetchall()
    return rows[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.duckdb"


def test_an_unwritten_ledger_reads_as_empty_and_leaves_no_file(path):
    """Reading a ledger that nobody has written gives zeros and creates nothing."""
    assert Ledger(path).get_usage_stats().total_calls == 0
    assert list(path.parent.iterdir()) == []


def test_rows_of_four_processes_are_all_there(path):
    """Four processes that write at once lose nothing, and the last to close leaves one plain DuckDB file."""
    writers = [start(WRITE, path, 1_000) for _ in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert count(path) == 4_000
    with duckdb.connect(str(path), read_only=True) as plain:
        assert plain.execute("SELECT count(*), sum(prompt_tokens) FROM llm_calls").fetchone() == (
            4_000,
            4 * sum(range(1_000)),
        )


def test_rows_of_eight_threads_are_all_there(path):
    """Eight threads on one ledger lose nothing."""
    with Ledger(path) as ledger:
        work = [
            threading.Thread(target=lambda: [ledger.record(**CALL, prompt_tokens=1) for _ in range(500)])
            for _ in range(8)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    assert count(path) == 4_000


def test_a_reader_sees_what_a_living_writer_has_flushed(path):
    """A flushed row is visible to another process while the writer holds its journal open."""
    with Ledger(path) as ledger:
        ledger.record(**CALL)
        ledger.flush()
        reader = start(
            "import sys; from llama_index_presets.monitor.ledger.ledger import Ledger;"
            "print(Ledger(sys.argv[1]).get_usage_stats().total_calls)",
            path,
        )
        assert reader.communicate(timeout=60)[0].strip() == "1"


def test_the_end_of_a_process_without_close_loses_nothing(path):
    """A script that never closes its ledger still leaves every row."""
    code = (
        "import sys; from llama_index_presets.monitor.ledger.ledger import Ledger\n"
        "l = Ledger(sys.argv[1]); [l.record(kind='llm') for _ in range(7)]"
    )
    assert start(code, path).wait(60) == 0
    assert count(path) == 7


HANG = """
    import sys, time
    from llama_index_presets.monitor.ledger.ledger import Ledger
    ledger = Ledger(sys.argv[1], durable=sys.argv[2] == "durable", flush_interval_s=float(sys.argv[3]))
    for number in range(50):
        ledger.record(kind="llm", provider="local", model="m")
    if sys.argv[2] == "flushed":
        ledger.flush()
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("way", ["durable", "flushed"])
def test_kill_9_loses_nothing_that_was_flushed_or_durable(path, way):
    """A process killed in the middle leaves every durable or flushed row, and the next close folds them in."""
    writer = start(HANG, path, way, 60)
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    assert count(path) == 50
    with Ledger(path) as ledger:
        ledger.record(**CALL)
    assert count(path) == 51
    assert not list(journal_folder(path).glob("*.jsonl"))


def test_kill_9_loses_at_most_the_last_interval(path):
    """Rows older than the flush interval survive a kill although nobody flushed them."""
    writer = start(HANG, path, "lazy", 0.05)
    assert writer.stdout.readline() == "written\n"
    deadline = time.monotonic() + 20
    while count(path) < 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    assert count(path) == 50


def test_a_torn_last_line_costs_only_itself(path):
    """Half a line, as a kill in mid-write leaves it, hides no other row."""
    with Ledger(path) as ledger:
        ledger.record(**CALL)
        ledger.flush()
        journal = next(journal_folder(path).glob("*.jsonl"))
        with journal.open("a") as file:
            file.write('{"call_id": "torn", "kind": "ll')
        assert count(path) == 1
    assert count(path) == 1


def test_folding_twice_counts_nothing_twice(path):
    """A journal that was folded but not yet removed, as a crash leaves it, is not read again."""
    ledger = Ledger(path)
    ledger.record(**CALL)
    ledger.flush()
    journal = next(journal_folder(path).glob("*.jsonl"))
    saved = journal.read_bytes()
    ledger.close()
    journal.write_bytes(saved)
    assert count(path) == 1
    assert Ledger(path).fold() == 1
    assert count(path) == 1


def test_a_forked_child_writes_its_own_rows_alone(path):
    """Rows that the parent had in memory at a fork are written once, by the parent."""
    ledger = Ledger(path, flush_interval_s=60)
    ledger.record(kind="llm", model="parent")
    child = os.fork()
    if child == 0:
        ledger.record(kind="llm", model="child")
        ledger.close()
        os._exit(0)
    os.waitpid(child, 0)
    ledger.close()
    rows = Ledger(path).sql("SELECT model FROM llm_calls ORDER BY model").fetchall()
    assert rows == [("child",), ("parent",)]


def test_rows_are_kept_while_the_folder_cannot_be_written(path):
    """A ledger whose folder is blocked says so, keeps its rows, and writes them once it can."""
    blocker = journal_folder(path)
    blocker.write_text("a file where the folder should be")
    ledger = Ledger(path, flush_interval_s=60)
    ledger.record(**CALL)
    with pytest.raises(MonitorError, match="cannot be written"):
        ledger.flush()
    blocker.unlink()
    ledger.close()
    assert count(path) == 1


def test_retention_drops_old_rows_when_folding(path):
    """With keep_days, rows older than that are gone after a close."""
    old = int((time.time() - 40 * 86_400) * 1e6)
    with Ledger(path, keep_days=30) as ledger:
        ledger.record(**CALL, timestamp_us=old)
        ledger.record(**CALL)
    assert count(path) == 1


def test_an_unknown_model_is_unpriced_and_named_once(path, caplog):
    """A model without a known price costs NULL, is counted as unpriced, and is named in one warning."""
    with Ledger(path) as ledger:
        for _ in range(3):
            ledger.record(kind="llm", provider="acme", model="acme-1", prompt_tokens=10)
        stats = ledger.get_usage_stats()
    assert (stats.unpriced_calls, stats.total_cost_usd) == (3, 0)
    (told,) = caplog.records
    assert "model 'acme-1' of provider 'acme'" in told.getMessage()


def test_a_query_costs_the_sum_of_its_calls_or_is_unpriced(path):
    """query_cost sums Decimals from memory and from disk alike; one unpriced call makes it unknown."""
    with Ledger(path) as ledger:
        for _ in range(2):
            ledger.record(**CALL, prompt_tokens=1000, completion_tokens=100, query_id="q")
        ledger.record(kind="llm", provider="acme", model="acme-1", prompt_tokens=1, query_id="r")
        assert ledger.query_cost("q") == 2 * (1000 * Decimal("0.15") + 100 * Decimal("0.60")) / 1_000_000
        assert ledger.query_cost("r") is None
        assert ledger.query_cost("never asked") == 0
    again = Ledger(path)
    assert again.query_cost("q") == Decimal("0.00042")
    assert again.query_cost("r") is None


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.sampled_from("abc")), max_size=12))
def test_the_total_is_the_sum_of_its_parts(tmp_path_factory, calls):
    """Costs by model, tenant and day each add up to the total, to the last digit."""
    with Ledger(tmp_path_factory.mktemp("sum") / "calls.duckdb") as ledger:
        for prompt, completion, tenant in calls:
            ledger.record(**CALL, prompt_tokens=prompt, completion_tokens=completion, tenant=tenant)
        total = ledger.get_usage_stats().total_cost_usd
        for by in ("model", "tenant", "day"):
            assert sum((row.cost_usd for row in ledger.costs(by)), Decimal(0)) == total


def test_bad_input_is_refused_with_a_reason(path):
    """Unknown kinds, float costs, unknown groups, wrong SQL, foreign files and closed ledgers each say so."""
    ledger = Ledger(path)
    with pytest.raises(SettingsError, match="Expected a kind of"):
        ledger.record(kind="lmm")
    with pytest.raises(SettingsError, match="floats lose cents"):
        ledger.record(kind="llm", cost_usd=0.1)
    with pytest.raises(SettingsError, match="Choose one of: model"):
        ledger.costs("colour")
    with pytest.raises(MonitorError, match="llm_callz"):
        ledger.sql("SELECT * FROM llm_callz")
    ledger.close()
    with pytest.raises(MonitorError, match="is closed"):
        ledger.record(kind="llm")
    with pytest.raises(SettingsError, match="is a folder"):
        Ledger(path.parent)
    with pytest.raises(SettingsError, match="flush_interval_s is 0"):
        Ledger(path, flush_interval_s=0)
    foreign = path.with_name("foreign.duckdb")
    duckdb.connect(str(foreign)).execute("CREATE TABLE t (a INT)").close()
    with pytest.raises(MonitorError, match="without the tables of a ledger"):
        Ledger(foreign).get_usage_stats()


def test_reading_a_ledger_does_not_import_llama_index(path):
    """The read side starts fast: no LlamaIndex, torch, openai or pandas is imported."""
    code = (
        "import sys; from llama_index_presets import Ledger; Ledger(sys.argv[1]).costs('model');"
        "print([m for m in ('llama_index', 'torch', 'openai', 'pandas') if m in sys.modules])"
    )
    assert start(code, path).communicate(timeout=60)[0].strip() == "[]"


def test_equal_prompts_share_a_hash_that_the_plain_hash_does_not_give_away(tmp_path, path):
    """Hashes are keyed: equal within a ledger and its processes, different between ledgers."""
    first, second = Ledger(path), Ledger(path)
    other = Ledger(tmp_path / "other.duckdb")
    assert first.hash_prompt("Hello") == second.hash_prompt("Hello") != other.hash_prompt("Hello")


def test_the_prompt_hash_is_hmac_sha256(path):
    """The hash is RFC 2104's HMAC with the key in the journal folder, so that others can check it."""
    import hashlib
    import hmac

    ledger = Ledger(path)
    found = ledger.hash_prompt("Hello")
    key = (journal_folder(path) / "prompt.key").read_bytes()
    assert found == hmac.new(key, b"Hello", hashlib.sha256).hexdigest()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_rows_are_exported(path, ending):
    """All rows go to Parquet or CSV, dollars to the last digit, and to a Polars frame."""
    with Ledger(path) as ledger:
        ledger.record(**CALL, prompt_tokens=1, tags=["a", "b"])
        target = ledger.export(path.with_name(f"it's.{ending}"))
        assert ledger.to_polars("SELECT model, cost_usd FROM llm_calls").rows() == [
            ("gpt-4o-mini", Decimal("0.00000015"))
        ]
    found = duckdb.execute(
        "SELECT model, cost_usd::DECIMAL(18,12) FROM read_" + ending + "(?)", [str(target)]
    )
    assert found.fetchall() == [("gpt-4o-mini", Decimal("0.00000015"))]


def test_an_export_to_another_format_is_refused(path):
    """Only Parquet and CSV are written."""
    with pytest.raises(SettingsError, match=r"Expected \.parquet or \.csv"):
        Ledger(path).export("calls.xlsx")


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1"]


def test_no_cell_of_an_exported_table_is_a_formula(path):
    """A text that a spreadsheet would run gets an apostrophe in front; other texts, and numbers, stay as they are."""
    with Ledger(path) as ledger:
        for tenant in [*FORMULAS, "a=b", ""]:
            ledger.record(**CALL, tenant=tenant, session=tenant, latency_ms=-1.5)
        target = ledger.export(path.with_suffix(".csv"))
        parquet = ledger.export(path.with_suffix(".parquet"))
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for column in ("tenant", "session"):
        assert [row[column] for row in rows] == [*("'" + text for text in FORMULAS), "a=b", ""]
    assert {row["latency_ms"] for row in rows} == {"-1.5"}
    plain = duckdb.execute("SELECT tenant FROM read_parquet(?)", [str(parquet)]).fetchall()
    assert {name for (name,) in plain} == {*FORMULAS, "a=b", ""}


@pytest.mark.parametrize("durable", [False, True])
def test_a_fold_between_making_a_journal_and_locking_it_loses_no_row(path, monkeypatch, durable):
    """Another process that closes its ledger at this moment does not take the new journal for an orphan."""
    opened = os.open

    def open_and_fold(file, flags, *mode, **options):
        descriptor = opened(file, flags, *mode, **options)
        if flags & os.O_EXCL:
            fold(path)
        return descriptor

    with Ledger(path) as ledger:
        ledger.record(**CALL)
    with Ledger(path, durable=durable) as ledger:
        monkeypatch.setattr(os, "open", open_and_fold)
        for _ in range(3):
            ledger.record(**CALL)
            ledger.flush()
    assert count(path) == 1 + 3


def test_thousands_of_journals_are_read_and_folded_as_one(path):
    """Journals of killed processes add up, torn last lines included; the fold leaves none."""
    with Ledger(path) as ledger:
        ledger.record(**CALL, prompt_tokens=7)
        ledger.flush()
        folder = journal_folder(path)
        line = next(folder.glob("*.jsonl")).read_text()
    for number in range(3000):
        torn = line[:20] if number % 3 == 0 else ""
        (folder / f"{number:06}-1-aa.jsonl").write_text(line + torn)
    assert count(path) == 1 + 3000
    assert fold(path) == 3000
    assert count(path) == 1 + 3000 and not list(folder.glob("*.jsonl"))


def test_a_draft_of_a_killed_process_is_swept_and_a_new_one_is_not(path):
    """What a kill leaves between making and naming a journal goes with the next fold after an hour."""
    with Ledger(path) as ledger:
        ledger.record(**CALL)
    old, new = (journal_folder(path) / f".{name}.jsonl.draft" for name in ("old", "new"))
    old.touch()
    new.touch()
    two_hours_ago = time.time() - 2 * 3600
    os.utime(old, (two_hours_ago, two_hours_ago))
    fold(path)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_durable_row_that_the_disk_refused_is_counted_once(path, monkeypatch):
    """The row stays in memory, its bytes leave the journal again, and the next flush writes it once."""
    with Ledger(path, durable=True) as ledger:
        ledger.record(**CALL)
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", _refuse)
            with pytest.raises(MonitorError, match="No space left"):
                ledger.record(**CALL)
    assert count(path) == 2


def _refuse(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_clock_far_ahead_drops_no_rows(path, monkeypatch, caplog):
    """Nor does a second process of that day, whose own rows say the same; a right clock drops rows as before."""
    today, ahead = time.time(), time.time() + 60 * 365 * 86_400
    with Ledger(path, keep_days=30) as ledger:
        ledger.record(**CALL, timestamp_us=int((today - 86_400) * 1e6))
        ledger.record(**CALL)
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: ahead)
        for _ in range(2):
            with Ledger(path, keep_days=30) as ledger:
                ledger.record(**CALL, timestamp_us=int(ahead * 1e6))
    assert count(path) == 4
    assert caplog.text.count("more than a year after its rows, so none was dropped") == 2
    with Ledger(path, keep_days=30) as ledger:
        ledger.record(**CALL, timestamp_us=int((today - 40 * 86_400) * 1e6))
    assert count(path) == 4


def test_rows_that_are_years_old_go_once_two_days_say_so(path):
    """A ledger that was not used for long keeps to `keep_days` again after its second day."""
    now = int(time.time() * 1e6)
    for age_days, left in ((800, 1), (1, 2), (0, 2)):
        with Ledger(path, keep_days=30) as ledger:
            ledger.record(**CALL, timestamp_us=now - age_days * 86_400_000_000)
        assert count(path) == left


def test_a_ledger_in_memory_keeps_its_rows_when_the_clock_jumps(monkeypatch):
    """The rows of this process are all there is."""
    ledger = Ledger(":memory:", keep_days=30)
    ledger.record(**CALL)
    ledger.flush()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    ledger.fold()
    assert len(ledger._journal.lines()) == 1


def test_an_empty_key_of_prompt_hashes_is_made_anew(path):
    """A crash of the machine can leave the file without its bytes; hashes are never made with an empty key."""
    key = journal_folder(path) / "prompt.key"
    key.parent.mkdir()
    key.touch()
    Ledger(path).hash_prompt("Hello")
    assert len(key.read_bytes()) == 32
    assert [file.name for file in key.parent.iterdir()] == ["prompt.key"]


def test_a_key_that_cannot_be_written_is_a_clear_error(path, monkeypatch):
    """A full disk leaves neither a part of a key nor a draft of one."""
    monkeypatch.setattr(os, "fdatasync", _refuse)
    with pytest.raises(MonitorError, match=r"key of prompt hashes .* No space left"):
        Ledger(path).hash_prompt("Hello")
    assert not list(journal_folder(path).iterdir())


def test_a_full_disk_at_the_fold_keeps_the_journals_and_says_so(path, tmp_path):
    """Close warns that nothing is lost, in one line; with room again the next close folds what is there."""
    code = """
        import resource, sys
        from llama_index_presets.monitor.ledger.ledger import Ledger
        ledger = Ledger(sys.argv[1])
        ledger.record(kind="llm", provider="local", model="m", prompt_tokens=5)
        ledger.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        ledger.close()
        assert ledger.closed and ledger.get_usage_stats().total_tokens == 5
    """
    for limit in (0, 4096, 8192, 20_480):
        target = tmp_path / f"{limit}.duckdb"
        process = start(code, target, limit)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert said.count("\n") == 1 and "rows are safe in the journals beside it: make room" in said, limit
        assert Ledger(target).get_usage_stats().total_tokens == 5
        with Ledger(target):
            pass
        assert not list(journal_folder(target).glob("*.jsonl"))
        assert Ledger(target).get_usage_stats().total_tokens == 5


@pytest.mark.parametrize("closed", [False, True])
def test_rows_that_no_disk_takes_are_one_line_at_the_end(tmp_path, closed):
    """No traceback when the process ends, and nothing at all where the caller of `close` has heard it."""
    code = """
        import resource, sys
        from llama_index_presets.errors import MonitorError
        from llama_index_presets.monitor.ledger.ledger import Ledger
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        ledger = Ledger(sys.argv[1], flush_interval_s=600)
        ledger.record(kind="llm", provider="local", model="m", prompt_tokens=5)
        if sys.argv[2] == "True":
            try:
                ledger.close()
            except MonitorError:
                pass
    """
    process = start(code, tmp_path / "calls.duckdb", closed)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.count("\n")) == (0, 0 if closed else 1), said
    assert closed or said.startswith("Calls of this process are not recorded, and lost: Ledger journal in")


def test_a_full_disk_does_not_end_the_thread_that_writes(path, monkeypatch, caplog):
    """A journal that has grown is folded by that thread; where it cannot be, later rows are written all the same."""

    def refuse(*_args, **_options):
        raise MonitorError("Its disk is full.")

    with Ledger(path, flush_interval_s=0.01) as ledger:
        monkeypatch.setattr("llama_index_presets.monitor.ledger.ledger._FOLD_AT_BYTES", 1)
        monkeypatch.setattr("llama_index_presets.monitor.ledger.storage.fold", refuse)
        for wanted in (1, 2):
            ledger.record(**CALL)
            until = time.monotonic() + 30
            while count(path) < wanted and time.monotonic() < until:
                time.sleep(0.01)
            assert count(path) == wanted
        monkeypatch.undo()
    assert "Its disk is full" in caplog.text


def test_a_ledger_does_not_move_into_another_database(tmp_path: Path) -> None:
    """A DuckDB file of something else, such as a vector store, keeps its tables; the rows stay in the journal."""
    path = tmp_path / "vectors.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE vectors (id VARCHAR)")
    ledger = Ledger(path)
    ledger.record(**CALL)
    with pytest.raises(MonitorError, match=r"without the tables of a ledger \(found: \['vectors'\]\)"):
        ledger.close()
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("vectors",)]
    assert len(list(journal_folder(path).glob("*.jsonl"))) == 1


ONE_COMMAND = """
import sys
from llama_index_presets.packages.command_process import run_as_command
run_as_command(brief=True)
from llama_index_presets.monitor.ledger.ledger import Ledger
with Ledger(sys.argv[1]) as ledger:
    ledger.record(kind="llm", model="gpt-4o-mini", prompt_tokens=1000)
print("duckdb" in sys.modules)
"""


def test_a_brief_command_leaves_its_rows_to_a_later_close(tmp_path: Path) -> None:
    """DuckDB would cost a cold question 50 MB; readers see journals, and a later close folds them."""
    path = tmp_path / "calls.duckdb"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", ONE_COMMAND, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False"
    assert not path.exists()
    with Ledger(path) as ledger:
        assert ledger.sql("SELECT count(*) FROM llm_calls").fetchall() == [(2,)]
    assert path.exists() and not list((tmp_path / "calls.duckdb.journal").glob("*.jsonl"))


def test_a_brief_command_closes_although_a_journal_is_folded_meanwhile(tmp_path: Path) -> None:
    """Another process may fold a journal between this one's listing of the folder and its look at the size."""
    path = tmp_path / "calls.duckdb"
    folder = tmp_path / "calls.duckdb.journal"
    folder.mkdir()
    (folder / "gone.jsonl").symlink_to(folder / "folded")  # listed, and not there
    done = subprocess.run(
        [sys.executable, "-c", ONE_COMMAND, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_journals_of_many_brief_commands_are_folded(tmp_path: Path) -> None:
    """At most 15 wait."""
    path = tmp_path / "calls.duckdb"
    folder = tmp_path / "calls.duckdb.journal"
    with Ledger(path) as ledger:
        ledger.record(kind="llm", model="gpt-4o-mini", prompt_tokens=1000)
    for number in range(15):
        (folder / f"{number}.jsonl").touch()
    done = subprocess.run(
        [sys.executable, "-c", ONE_COMMAND, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"
    assert not list(folder.glob("*.jsonl"))
