"""The command line: one object with --json, one line per error, exit codes that say what happened."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with the healthcare recipe's documents in it."""
    from llama_index_presets import build

    folder = tmp_path_factory.mktemp("clinic")
    with build("healthcare", storage=folder) as engine:
        engine.ingest(HERE / "recipes" / "healthcare" / "documents")
    return folder


def test_list_gives_all_seven_rows(run) -> None:  # type: ignore[no-untyped-def]
    """As a table for people and as one object for programs."""
    code, out, _ = run("list")
    assert code == 0 and all(name in out for name in ("healthcare", "multi-modal", "text-embedding-3-large"))
    code, out, err = run("list", "--json")
    rows = json.loads(out)["presets"]
    assert (code, err, len(rows)) == (0, "", 7)
    assert set(rows[0]) == {
        "name", "use_case", "embedding", "store", "pattern", "monitoring", "llm", "models", "ready", "missing",
    }  # fmt: skip
    (embedding, llm) = rows[0]["models"]
    assert (llm["part"], llm["model"], llm["key"], llm["key_set"]) == (
        "llm",
        rows[0]["llm"],
        "OPENAI_API_KEY",
        False,
    )
    assert (embedding["part"], embedding["endpoint"], embedding["on_this_machine"]) == (
        "embedding",
        "",
        False,
    )


def test_list_and_show_say_where_keys_and_addresses_come_from(run, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """From a settings file and the .env beside it; the key itself is nowhere."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-secret\nOPENAI_BASE_URL=http://127.0.0.1:9/v1\n")
    file = tmp_path / "settings.toml"
    file.write_text('llm = "openai/gpt-5-mini"\n')
    for command in (("list",), ("show", "knowledge-base"), ("doctor", "knowledge-base")):
        _, out, err = run(*command, "--settings", file)
        assert "gpt-5-mini" in out and "sk-secret" not in out + err
        assert "http://127.0.0.1:9/v1" in out.replace("\n", "")
    _, out, _ = run("show", "knowledge-base", "--settings", file, "--json")
    uses = {use["part"]: use for use in json.loads(out)["models"]}
    assert uses["llm"]["key_from"] == str(tmp_path / ".env") and uses["llm"]["key_set"]
    assert uses["llm"]["endpoint_from"] == f"OPENAI_BASE_URL in {tmp_path / '.env'}"
    assert uses["llm"]["on_this_machine"] and uses["embedding"]["on_this_machine"]


def test_show_says_why_and_what_is_missing(run) -> None:  # type: ignore[no-untyped-def]
    """The row, its offline counterpart, and its gaps."""
    code, out, _ = run("show", "healthcare")
    assert code == 0 and "Nothing leaves the machine" in out and "Nothing is missing." in out
    shown = json.loads(run("show", "knowledge-base", "--json")[1])
    assert shown["offline"]["embedding"] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "helthcare"], 2, "Did you mean 'healthcare'?"),
        (["ask", "healthcare"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
        (["ingest", "healthcare", "docs", "--frob"], 2, "No such option"),
        (["ask", "healthcare", "q", "--storage", "/nowhere/at/all"], 1, "holds no index"),
        (["costs", "--storage", "/nowhere/at/all"], 2, "There is no storage folder"),
    ],
)
def test_errors_are_one_line_with_the_right_exit_code(run, arguments, code, message) -> None:  # type: ignore[no-untyped-def]
    """2 is wrong usage, 1 is a stated failure, and there is no traceback."""
    found, out, err = run(*arguments)
    assert found == code and message in err and "Traceback" not in err and out == ""


def test_with_json_an_error_is_an_object_too(run) -> None:  # type: ignore[no-untyped-def]
    """A program that reads standard output always gets exactly one object."""
    code, out, err = run("show", "helthcare", "--json")
    assert (code, json.loads(out)) == (2, {"error": err.removeprefix("Error: ").strip()})


def test_debug_shows_the_traceback_wherever_it_stands(run) -> None:  # type: ignore[no-untyped-def]
    """For a bug report."""
    assert "Traceback" in run("show", "helthcare", "--debug")[2]
    assert "Traceback" in run("--debug", "show", "helthcare")[2]


def test_what_cannot_be_read_any_more_and_is_answered_from_is_named(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emptied file and one in a folder that is closed now keep their text in the index, and the run says so."""
    folder, storage = tmp_path / "docs", tmp_path / "s"
    (folder / "sub").mkdir(parents=True)
    (folder / "valve.md").write_text("The valve opens at four bar.")
    (folder / "sub" / "pump.md").write_text("The pump runs at 50 Hz.")
    (folder / "lamp.md").write_text("The lamp is green.")
    (folder / "new.md").write_text("")
    ingest = ("ingest", "healthcare", folder, "--storage", storage, "--sync")
    _, _, err = run(*ingest)
    assert "new.md" in err and "Still answered from" not in err
    (folder / "valve.md").write_text("")
    scandir = os.scandir

    def closed(path: Path) -> object:  # which root, who may run the tests, is never told
        if Path(path) == folder / "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    code, _, err = run(*ingest)
    kept = [str(folder / "sub" / "pump.md"), str(folder / "valve.md")]
    assert (code, err.splitlines()[-2:]) == (1, [f"  {name}" for name in kept])
    assert "Still answered from, as read last" in err.splitlines()[-3]
    assert json.loads(run(*ingest, "--json")[1])["kept"] == kept


def test_documents_are_listed_and_those_of_a_folder_that_is_gone_removed(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--sync` knows the folders that are named, and nobody can name one that was renamed."""
    for name in ("old/a.md", "old/deep/b.md", "older/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The valve of {name} opens at four bar.")
    storage, where = tmp_path / "s", ("healthcare", "--storage", tmp_path / "s", "--json")
    run("ingest", "healthcare", tmp_path / "old", tmp_path / "older", "--storage", storage)
    (tmp_path / "old").rename(tmp_path / "new")
    listed = {Path(one["id"]).name: one for one in json.loads(run("documents", *where)[1])["documents"]}
    assert {name: one["file_missing"] for name, one in listed.items()} == {
        "a.md": True,
        "b.md": True,
        "c.md": False,
    }
    assert all(one["chunks"] == 1 and one["tokens"] > 0 for one in listed.values())
    code, _, err = run("documents", *where, "old", "nothing", "--delete")
    assert code == 2 and "no document 'old'" in err
    monkeypatch.chdir(tmp_path)
    code, _, err = run("documents", *where, "old", "nothing", "--delete")
    assert code == 2 and "no document 'nothing'" in err
    assert json.loads(run("documents", *where, "old/", "--delete")[1])["deleted"] == 2
    left = json.loads(run("documents", *where)[1])["documents"]
    assert [Path(one["id"]).name for one in left] == ["c.md"]
    assert run("documents", *where, "--delete")[0] == 2


def test_an_ingest_of_a_folder_that_was_moved_names_what_is_left_of_its_old_place(  # type: ignore[no-untyped-def]
    run, tmp_path: Path
) -> None:
    """The old copies are answered from beside the new ones; a removal is proposed that takes nothing else along."""
    for name in ("old/a.md", "old/deep/b.md", "other/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The valve of {name} opens at four bar.")
    where = ("--storage", tmp_path / "s")
    run("ingest", "healthcare", tmp_path / "old", tmp_path / "other", *where)
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "other" / "c.md").unlink()
    code, out, err = run("ingest", "healthcare", tmp_path / "new", *where, "--json")
    assert code == 0 and json.loads(out)["documents"] == 2
    assert "Of the index, 2 documents have the names of these, and no file any more" in err
    assert f"llama-presets documents healthcare {tmp_path / 'old'} --delete" in err
    assert "moved" not in run("ingest", "healthcare", tmp_path / "new", *where)[2]  # said once
    (tmp_path / "new" / "kept.md").write_text("The pump is kept in its place.")
    run("ingest", "healthcare", tmp_path / "new", *where)
    (tmp_path / "new" / "a.md").rename(tmp_path / "a.md")
    err = run("ingest", "healthcare", tmp_path / "a.md", *where)[2]
    assert "moved" not in err  # a file that is named itself has no folder that could have been another


def test_a_moved_file_whose_folder_has_others_is_removed_by_name(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A removal of the whole folder would take those along that are there."""
    (tmp_path / "one").mkdir()
    for name in ("a.md", "kept.md"):
        (tmp_path / "one" / name).write_text(f"The valve of {name} opens at four bar.")
    where = ("--storage", tmp_path / "s")
    run("ingest", "healthcare", tmp_path / "one", *where)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.md").rename(tmp_path / "two" / "a.md")
    err = run("ingest", "healthcare", tmp_path / "two", *where)[2]
    assert (
        "were they moved?" in err
        and "removes those named" in err
        and f"{tmp_path / 'one'} --delete" not in err
    )
    (tmp_path / "one" / "kept.md").unlink()
    (tmp_path / "two" / "a.md").unlink()
    assert "None of the files is there" in run("documents", "healthcare", *where)[1]


def test_ask_answers_with_sources_and_cost(run, clinic: Path) -> None:  # type: ignore[no-untyped-def]
    """The JSON has the promised keys, and the answer stands in its source."""
    code, out, err = run("ask", "healthcare", "How is botulism treated?", "--storage", clinic, "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert set(answer) == {
        "answer",
        "known",
        "citations",
        "query_id",
        "cost_usd",
        "latency_ms",
        "finish_reason",
    }
    first = answer["citations"][0]
    assert set(first) == {"n", "source", "page", "score", "text"}
    assert first["source"].endswith("botulism-ward-guide.md") and 0 < first["score"] <= 1
    assert answer["known"] and "antitoxin" in answer["answer"] and answer["cost_usd"] == 0
    code, out, _ = run("ask", "healthcare", "Who won the 2030 World Cup?", "--storage", clinic, "--json")
    assert (code, json.loads(out)["known"], json.loads(out)["citations"]) == (0, False, [])


@pytest.mark.parametrize("as_json", [False, True])
def test_a_ledger_that_cannot_be_written_costs_nobody_the_answer(  # type: ignore[no-untyped-def]
    run, clinic: Path, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer and the report are printed; then comes the error, with its code, and no second object of JSON."""
    from llama_index_presets.errors import MonitorError
    from llama_index_presets.presets.engine import PresetEngine

    close = PresetEngine.close

    def refuse(engine: PresetEngine) -> None:  # as that of a preset with an audit log
        close(engine)
        raise MonitorError("The journal cannot be written.")

    monkeypatch.setattr(PresetEngine, "close", refuse)
    options = ["--storage", clinic, *(["--json"] if as_json else [])]
    code, out, err = run("ask", "healthcare", "How is botulism treated?", *options)
    assert (code, err) == (1, "Error: The journal cannot be written.\n") and "antitoxin" in out
    assert not as_json or "antitoxin" in json.loads(out)["answer"]
    code, out, err = run("ingest", "healthcare", HERE / "recipes" / "healthcare" / "documents", *options)
    assert (code, err) == (1, "Error: The journal cannot be written.\n")
    assert json.loads(out)["unchanged"] == 5 if as_json else "5 unchanged" in out


def test_ask_for_people_shows_source_lines(run, clinic: Path) -> None:  # type: ignore[no-untyped-def]
    """Answer, numbered sources with heading and score, cost."""
    _, out, _ = run("ask", "healthcare", "How long may an insulin pen in use be kept?", "--storage", clinic)
    assert "28 days. [1]" in out and "insulin-storage.md (Insulin storage > Pens in use), score 0." in out
    assert "$0.000000" in out


@pytest.mark.parametrize(
    ("question", "message"), [("", "is empty"), ("x" * 100_000, "has 100,000 characters")]
)
def test_impossible_questions_are_refused(run, clinic: Path, question: str, message: str) -> None:  # type: ignore[no-untyped-def]
    """Before any model is asked."""
    code, _, err = run("ask", "healthcare", question, "--storage", clinic)
    assert code == 1 and message in err and len(err.splitlines()) == 1


def test_a_question_longer_than_the_model_reads_is_pooled_with_a_warning(run, clinic: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    """It is not cut in silence: the mean of its pieces is searched with, and a line says so."""
    code, out, _ = run("ask", "healthcare", "why " * 2000, "--storage", clinic)
    assert (code, out.splitlines()[0]) == (0, "I don't know.")
    assert (
        "A text has 2,002 tokens and 'all-MiniLM-L6-v2' reads 256: the mean of its pieces is taken"
        in caplog.text
    )


def test_ingest_says_which_files_an_older_reader_has_read_and_reads_them_again(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """One line with the option to add; with it the files are read, and nothing is embedded that is there."""
    from llama_index_presets.ingest.manifest import Manifest

    (tmp_path / "a.md").write_text("The pump is inspected every month.")
    arguments = ("ingest", "healthcare", tmp_path / "a.md", "--storage", tmp_path / "s")
    assert "--again" not in run(*arguments)[1]
    manifest = Manifest(next((tmp_path / "s").rglob("documents.sqlite")))
    manifest._connection.execute("UPDATE documents SET reader_version = NULL")
    manifest._connection.commit()
    manifest.close()
    out = run(*arguments)[1].replace("\n", " ")
    assert "Of the unchanged, 1 document was read by an older release's reader; --again reads it anew" in out
    assert json.loads(run(*arguments, "--json")[1])["outdated"] == 1
    estimate = ("estimate", *arguments[1:], "--again", "--json")
    assert json.loads(run(*estimate)[1])["documents"] == 1
    report = json.loads(run(*arguments, "--again", "--json")[1])
    assert (report["documents"], report["unchanged"], report["embedded"], report["outdated"]) == (1, 0, 0, 0)
    run("compact", tmp_path / "s")
    assert "The index itself was not opened" in run(*estimate[:-1])[1]


def test_a_second_ingest_embeds_nothing_and_reports_json(run, clinic: Path) -> None:  # type: ignore[no-untyped-def]
    """The promised keys; unchanged documents are counted."""
    documents = HERE / "recipes" / "healthcare" / "documents"
    code, out, err = run("ingest", "healthcare", documents, "--storage", clinic, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert set(report) >= {"documents", "unchanged", "failed", "chunks", "embedded", "tokens", "cost_usd"}
    assert (report["documents"], report["unchanged"], report["embedded"]) == (0, 5, 0)


def test_a_bad_file_makes_exit_code_1_and_the_rest_lands(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The report names the file and the reason."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "good.txt").write_text("Gloves are changed between patients.")
    (tmp_path / "docs" / "empty.txt").touch()
    code, out, err = run("ingest", "healthcare", tmp_path / "docs", "--storage", tmp_path / "s", "--json")
    report = json.loads(out)
    assert (code, report["documents"]) == (1, 1)
    assert report["failed"] == [
        {"source": str(tmp_path / "docs" / "empty.txt"), "error": "The file is empty (0 bytes)."}
    ]
    assert "empty.txt: The file is empty" in err


def test_a_reason_that_documents_share_is_said_once(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """With the documents below it, each on a line of its own."""
    (tmp_path / "docs").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "docs" / name).touch()
    (tmp_path / "docs" / "good.txt").write_text("Gloves are changed between patients.")
    code, _, err = run("estimate", "healthcare", tmp_path / "docs", "--storage", tmp_path / "s")
    assert code == 1
    assert [line for line in err.splitlines() if "txt" in line or "empty" in line] == [
        "2 documents: The file is empty (0 bytes).",
        f"  {tmp_path / 'docs' / 'a.txt'}",
        f"  {tmp_path / 'docs' / 'b.txt'}",
    ]


def test_an_ingest_that_was_cut_short_is_said_by_documents(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A first ingest that is killed lists nothing; while one is under way, or after the next, nothing is said."""
    from llama_index_presets import build
    from llama_index_presets.ingest.lock import ingest_lock

    folder, home = tmp_path / "documents", tmp_path / "s"
    folder.mkdir()
    (folder / "a.txt").write_text("Cats purr.")
    killed = (
        "import os, sys\nfrom llama_index_presets import build\n"
        "from llama_index_presets.ingest.manifest import Manifest\n"
        "Manifest.record = lambda *_: os.kill(os.getpid(), 9)\n"
        "build('healthcare', storage=sys.argv[1]).ingest(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", killed, str(home), str(folder)], check=False, capture_output=True)
    where = ("healthcare", "--storage", home)
    name = str(folder / "a.txt")
    code, out, err = run("documents", *where)
    assert (code, name in out) == (0, False)
    assert err.startswith(f"An ingest was cut short with 1 document, such as '{name}'")
    assert json.loads(run("documents", *where, "--json")[1]) == {"documents": [], "unfinished": [name]}
    with build("healthcare", storage=home) as engine, ingest_lock(home / "ingest.lock"):
        assert engine.unfinished_documents() == []
    run("ingest", "healthcare", folder, "--storage", home)
    code, out, err = run("documents", *where, "--json")
    assert ([one["id"] for one in json.loads(out)["documents"]], err) == ([name], "")


def test_a_warning_that_many_documents_share_is_said_once(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Four files in Latin-1 are one line, with the first of them; --json has all."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").write_bytes(
            "Der Löwe brüllt im Käfig, die Vögel hören zu.".encode("latin-1")
        )
    arguments = ("ingest", "healthcare", folder, "--storage", tmp_path / "s")
    code, _, err = run(*arguments)
    assert code == 0 and err.count("warning:") == 1
    assert f"4 documents, such as {folder / 'a.txt'}: warning:" in err
    again = run(*arguments[:-1], tmp_path / "t", "--json")[1]
    assert len(json.loads(again)["warnings"]) == 4


def test_an_estimate_asks_no_storage_of_another_preset(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clinic: Path
) -> None:
    """What is in the default place and was not named does not stand in the way; one that is named is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama-presets-storage").symlink_to(clinic)
    (tmp_path / "a.md").write_text("Morphine is counted twice a day.")
    code, out, _ = run("estimate", "high-volume", "a.md", "--offline", "--json")
    assert (code, json.loads(out)["documents"]) == (0, 1)
    code, _, err = run("estimate", "high-volume", "a.md", "--offline", "--storage", clinic)
    assert code == 1 and "was made by the preset 'healthcare'" in err


def test_a_missing_audit_log_says_which_presets_keep_one(  # type: ignore[no-untyped-def]
    run, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No errno: the next step. A key is not asked for where there is nothing to check."""
    for key in ("", "k" * 32):
        monkeypatch.setenv("LLAMA_PRESETS_AUDIT_KEY", key)
        code, _, err = run("audit", "verify", "--storage", clinic)
        assert code == 1 and "There is no audit log" in err and "monitoring = 'audit'" in err


def test_a_storage_whose_name_is_not_utf8_says_so(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """It asked for "at least one character, without control characters"."""
    (tmp_path / "a.md").write_text("Alpha.")
    code, _, err = run("ingest", "healthcare", tmp_path / "a.md", "--storage", f"{tmp_path}/st\udcf6")
    assert code == 2 and "which is not UTF-8; rename it, or set a UTF-8 locale" in err


def test_an_empty_folder_and_an_unwritable_storage_are_stated_failures(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each says what to do next."""
    (tmp_path / "docs").mkdir()
    code, _, err = run("ingest", "healthcare", tmp_path / "docs", "--storage", tmp_path / "s")
    assert code == 1 and "There is no file to ingest" in err
    (tmp_path / "file").touch()
    (tmp_path / "docs" / "a.md").write_text("Alpha.")
    code, _, err = run("ingest", "healthcare", tmp_path / "docs", "--storage", tmp_path / "file")
    assert code == 1 and "cannot be written" in err


def test_a_storage_of_another_model_is_refused(run, clinic: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Other chunk sizes count as another model: their vectors must not be mixed."""
    (tmp_path / "settings.toml").write_text("chunk_tokens = 64\n")
    arguments = ["ask", "healthcare", "q", "--storage", clinic, "--settings", tmp_path / "settings.toml"]
    code, _, err = run(*arguments)
    assert code == 1 and "was made with model=all-MiniLM-L6-v2" in err and "chunker=sentence-64" in err


def test_a_corrupt_storage_is_a_stated_failure(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Damaged files are named, not repaired in silence."""
    from llama_index.core import Document

    from llama_index_presets import build

    with build("healthcare", storage=tmp_path / "s") as engine:
        engine.ingest([Document(text="Something.", doc_id="d")])
    tables = [path for path in (tmp_path / "s" / "vectors").rglob("*") if path.is_file()]
    assert tables
    for path in tables:
        path.write_bytes(b"garbage")
    code, _, err = run("ask", "healthcare", "What?", "--storage", tmp_path / "s")
    assert code == 1 and len(err.splitlines()) == 1 and str(tmp_path / "s") in err


def test_costs_reads_what_ask_wrote(run, clinic: Path) -> None:  # type: ignore[no-untyped-def]
    """Totals and groups, as a table and as one object."""
    code, out, _ = run("costs", "--storage", clinic, "--json")
    costs = json.loads(out)
    assert code == 0
    assert set(costs) == {
        "total_calls",
        "total_tokens",
        "total_cost_usd",
        "avg_latency_ms",
        "unpriced_calls",
        "by",
    }
    assert costs["total_calls"] > 0 and costs["total_cost_usd"] == 0 and costs["unpriced_calls"] == 0
    assert "all-MiniLM-L6-v2" in {row["key"] for row in costs["by"]}
    shown = run("costs", "--storage", clinic)[1]
    assert "all-MiniLM-L6-v2" in shown and "unpriced" in shown


def test_chat_remembers_what_was_asked(run, clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """'How is it treated?' is understood from the message before; an empty line ends the talk."""
    import io

    monkeypatch.setattr(
        sys, "stdin", io.StringIO("What are the first signs of botulism?\nHow is it treated?\n\nno")
    )
    code, out, _ = run("chat", "healthcare", "--storage", clinic)
    assert code == 0 and "drooping eyelids" in out and "antitoxin" in out


def test_below_i_do_not_know_stand_the_closest_passages(run, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A reader who was not answered looks there: in `ask`, in `chat` and with --json; not below an answer."""
    import io

    (tmp_path / "dogs.md").write_text("# May I bring my dog?\n\nInto the office yes, into production never.")
    storage = ("--storage", tmp_path / "s")
    run("ingest", "healthcare", tmp_path / "dogs.md", *storage)
    out = run("ask", "healthcare", "Can dogs come along to work?", *storage)[1]
    assert out.startswith("I don't know.\nClosest passages, none of which is sure to hold the answer:\n  ")
    assert "dogs.md (May I bring my dog?)" in out and '"Into the office yes, into production never."' in out
    answer = json.loads(run("ask", "healthcare", "Can dogs come along to work?", *storage, "--json")[1])
    assert [one["source"].endswith("dogs.md") for one in answer["closest"]] == [True]
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("Can dogs come along to work?\nMay I bring my dog into the office?\n")
    )
    talk = run("chat", "healthcare", *storage)[1]
    assert talk.count("Closest passages") == 1 and talk.count("[1]") == 2
    assert "closest" not in json.loads(
        run("ask", "healthcare", "May I bring my dog into the office?", *storage, "--json")[1]
    )


@pytest.mark.slow("a process that loads torch and is stopped")
def test_ctrl_c_stops_with_130_and_the_next_run_completes(tmp_path: Path) -> None:
    """What was committed stays; the message says how to go on."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(400):
        (docs / f"{number}.txt").write_text(f"Document {number} says that ward {number} is clean. " * 30)
    arguments = [
        sys.executable,
        "-m",
        "llama_index_presets.cli",
        "ingest",
        "healthcare",
        str(docs),
        "--storage",
        str(tmp_path / "s"),
    ]
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "src"}
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "s" / "documents.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and "run the same command again" in err and "Traceback" not in err


def test_costs_can_be_a_page(run, clinic: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """One self-contained file."""
    code, out, _ = run("costs", "--storage", clinic, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert code == 0 and "report.html" in out and "<svg" in page and "http" not in page.split("<svg")[0]


def test_audit_verify_finds_an_edit(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Exit code 0 for a whole chain, 1 for a broken one, 2 without the key."""
    from llama_index_presets.monitor.audit import AuditLog

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "key").write_bytes(b"a key that the operator holds")
    log = AuditLog(tmp_path / "audit.jsonl", key=tmp_path / "key")
    for number in range(3):
        log.append(
            who="ada",
            preset="p",
            model="m",
            query_id=f"q{number}",
            prompt="Profit?",
            passages=[("n", "7")],
            answer="7",
            cost_usd=None,
        )
    arguments = ["audit", "verify", tmp_path / "audit.jsonl"]
    assert run(*arguments)[0] == 2
    code, out, _ = run(*arguments, "--key", tmp_path / "key", "--json", "--export-head", tmp_path / "head")
    assert (code, json.loads(out)["entries"], (tmp_path / "head").exists()) == (0, 3, True)
    lines = (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_text(lines[0] + lines[1].replace("q1", "q9") + lines[2])
    code, out, _ = run(*arguments, "--key", tmp_path / "key")
    assert code == 1 and "Broken at line 2" in out
    assert run("audit", "verify", "--storage", tmp_path, "--key", tmp_path / "key")[0] == 1


def test_move_copies_an_index(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """From DuckDB to LanceDB with a report; a source that is not there is an error."""
    from llama_index.core.schema import TextNode

    from llama_index_presets import DuckDBVectorStore

    with DuckDBVectorStore(tmp_path / "a.duckdb", fingerprint="model=m;dim=2") as store:
        store.add([TextNode(id_=str(n), text=f"t{n}", embedding=[1.0, float(n)]) for n in range(20)])
    arguments = ["move", f"duckdb:{tmp_path / 'a.duckdb'}", f"lancedb:{tmp_path / 'lance'}"]
    code, out, _ = run(*arguments, "--json")
    report = json.loads(out)
    assert (code, report["nodes"], report["copied"], report["ok"]) == (0, 20, 20, True)
    with DuckDBVectorStore(tmp_path / "a.duckdb", read_only=True):  # Another reader is no hindrance.
        again = subprocess.run(
            [sys.executable, "-m", "llama_index_presets", *arguments, "--json"],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "PYTHONPATH": str(HERE / "src")},
        )
    assert json.loads(again.stdout)["copied"] == 0
    code, _, err = run("move", f"duckdb:{tmp_path / 'none.duckdb'}", f"lancedb:{tmp_path / 'lance'}")
    assert code == 2 and "to move from" in err
    for same in ("a.duckdb", "lance/../a.duckdb"):
        code, _, err = run("move", f"duckdb:{tmp_path / 'a.duckdb'}", f"duckdb:{tmp_path / same}")
        assert code == 2 and "the same place" in err
    code, _, err = run("move", "postgresql://u:secret@host/db#dim=3", "postgresql://u:secret@host/db")
    assert code == 2 and "the same place" in err and "secret" not in err


@pytest.mark.slow("a process of its own for a bar")
def test_a_move_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """How far it is, where someone looks; the report alone goes to standard output."""
    from llama_index.core.schema import TextNode

    from llama_index_presets import DuckDBVectorStore

    with DuckDBVectorStore(tmp_path / "a.duckdb", fingerprint="model=m;dim=2") as store:
        store.add([TextNode(id_=str(n), text=f"t{n}", embedding=[1.0, float(n)]) for n in range(20)])
    arguments = ["move", f"duckdb:{tmp_path / 'a.duckdb'}", f"duckdb:{tmp_path / 'b.duckdb'}", "--json"]
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "llama_index_presets", *arguments],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "PYTHONPATH": str(HERE / "src"), "TERM": "xterm", "COLUMNS": "100"},
    ) as ran:
        os.close(end)
        drawn = b"".join(_drawn_on(terminal)).decode()
        assert ran.stdout is not None
        assert json.loads(ran.stdout.read())["copied"] == 20
    assert "Moving" in drawn and "20/20" in drawn


def _drawn_on(terminal: int) -> Iterator[bytes]:
    """What a program draws until it ends, which Linux tells by an error."""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 4096):
            yield piece
    os.close(terminal)


def test_python_m_is_the_same_command() -> None:
    """Where the script is not on the path, the package itself is the command."""
    ran = subprocess.run(
        [sys.executable, "-m", "llama_index_presets", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(HERE / "src")},
    )
    assert len(json.loads(ran.stdout)["presets"]) == 7


TYPO: list[list[object]] = [
    ["ingest", "healthcare", "docz"],
    ["ingest", "healthcare", "docz", "--json"],
    ["ask", "healthcare", "Who?"],
    ["chat", "healthcare"],
    ["evaluate", "healthcare", "--questions", "questions.jsonl"],
    ["evaluate", "healthcare", "--questions", "questions.jsonl", "--documents", "docz"],
    ["evaluate", "healthcare", "--questions", "questions.jsonl", "--reranking"],
    ["estimate", "healthcare", "docz"],
    ["costs"],
    ["compact"],
    ["doctor", "healthcare", "--repair"],
    ["audit", "verify"],
]


@pytest.mark.parametrize("arguments", TYPO, ids=lambda arguments: " ".join(map(str, arguments)))
def test_no_storage_is_made_before_there_is_something_to_ingest(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object]
) -> None:
    """A typo, or a question to an index that is not there, leaves nothing behind that would refuse another preset."""
    monkeypatch.chdir(tmp_path)
    question = {"question": "Who?", "sources": ["a.md"]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    code, _, _ = run(*arguments, *([] if arguments[0] == "doctor" else ["--storage", "s"]))
    assert code != 0 or arguments[0] == "doctor"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["questions.jsonl"]


def test_the_preset_after_a_typo_is_not_refused(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The default storage belongs to the first preset that ingests something."""
    assert (
        run("ingest", "research-papers", tmp_path / "docz", "--offline", "--storage", tmp_path / "s")[0] == 1
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Morphine is counted twice a day.")
    code, out, _ = run("ingest", "healthcare", tmp_path / "docs", "--storage", tmp_path / "s", "--json")
    assert (code, json.loads(out)["documents"]) == (0, 1)


PRINTING: list[list[str]] = [["show", "healthcare"], ["list"], ["list", "--json"], ["doctor"], ["--help"]]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_leaves_ends_the_program_quietly(arguments: list[str]) -> None:
    """``… | head -1``: no traceback, no message of Python's; the code is that of a program that SIGPIPE ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "llama_index_presets.cli", *arguments]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr.decode()) == (128 + signal.SIGPIPE, "")


def test_a_connection_that_breaks_is_no_reader_that_left(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """A client's broken pipe is an error like any other, in one line."""

    def breaks(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("llama_index_presets.diagnose.doctor.examine", breaks)
    code, _, err = run("doctor")
    assert code == 1 and err.startswith("Error: BrokenPipeError: [Errno 32] Broken pipe")


def heeds_ctrl_c() -> None:
    """Undo what a shell does to a job in the background, where these tests may run, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_while_the_command_is_loaded_ends_it_quietly(tmp_path: Path) -> None:
    """Code 130 and no traceback, as in the middle of its work."""
    (tmp_path / "typer.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(9)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:src"}
    done = subprocess.run(
        [sys.executable, "-m", "llama_index_presets", "list"],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=heeds_ctrl_c,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_watch_follows_a_folder_until_it_is_interrupted(tmp_path: Path) -> None:
    """Each change is one line of JSON; Ctrl-C is the ordinary end, and the index is whole."""

    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The pump leaks.")
    command = [
        sys.executable,
        "-m",
        "llama_index_presets",
        "ingest",
        "healthcare",
        str(folder),
        "--watch",
        "--json",
    ]
    command += ["--interval", "0.2", "--storage", str(tmp_path / "storage")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "src"},
        preexec_fn=heeds_ctrl_c,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["documents"] == 1
        (folder / "b.txt").write_text("The valve is shut.")
        assert json.loads(process.stdout.readline())["documents"] == 1
        (folder / "a.txt").unlink()
        assert json.loads(process.stdout.readline())["removed"] == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Stopped." in errors


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "healthcare", "What?", "--groups", ""],
        ["ask", "healthcare", "What?", "--user="],
        ["ask", "healthcare", "What?", "--settings", ""],
        ["ingest", "healthcare", ".", "--storage", ""],
        ["serve", "healthcare", "--keys", ""],
        ["serve", "healthcare", "--allow-host", "a.example", "--allow-host", ""],
    ],
)
def test_an_empty_option_is_no_default(run, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    """`--groups "$GROUPS"` with a variable that is not set asked as if there were no groups at all."""
    code, _, error = run(*words)
    assert (code, "is empty, which would count as not given" in error) == (2, True)
