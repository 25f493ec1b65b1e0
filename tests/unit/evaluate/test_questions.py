"""Questions are read from JSON Lines, CSV and BEIR, and a line that does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import SettingsError
from llama_index_presets.evaluate.outcomes import Checkpoint, Outcome, named_sources
from llama_index_presets.evaluate.questions import digest, read_questions


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_json_lines_have_grades_answers_and_honest_gaps(tmp_path: Path) -> None:
    """An empty list of sources says that nothing answers; no list says nothing."""
    path = write(
        tmp_path,
        "q.jsonl",
        '{"question": "A?", "sources": {"a.md": 2, "b.md": 0}, "answer": "yes"}\n\n'
        '{"question": "B?", "sources": []}\n'
        '{"question": "C?", "id": "c"}\n'
        '{"question": "D?", "sources": "d.md", "answerable": false}\n',
    )
    first, second, third, fourth = read_questions(path)
    assert (first.id, first.relevant, first.answer, first.answerable) == ("1", {"a.md"}, "yes", True)
    assert (second.relevance, second.answerable) == ({}, False)
    assert (third.id, third.answerable) == ("c", None)
    assert (fourth.relevant, fourth.answerable) == ({"d.md"}, False)


def test_csv_has_the_same_columns(tmp_path: Path) -> None:
    """Sources are separated by semicolons; empty ones mean that nothing answers."""
    path = write(tmp_path, "q.csv", 'question,sources,answer\n"A, or b?",a.md; b.md,yes\nB?,,\n')
    first, second = read_questions(path)
    assert (first.text, dict(first.relevance), first.answer) == (
        "A, or b?",
        {"a.md": 1.0, "b.md": 1.0},
        "yes",
    )
    assert (second.answerable, second.answer) == (False, None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", "A?", "ends in .jsonl or .csv"),
        ("q.jsonl", "", "holds no question"),
        ("q.jsonl", "{", r"q.jsonl:1: not JSON"),
        ("q.jsonl", '{"query": "A?"}', r"q.jsonl:1: unknown query; expected answer, answerable"),
        ("q.jsonl", '{"question": " "}', r"q.jsonl:1: there is no 'question'"),
        ("q.jsonl", '{"question": "A?", "sources": {"a": "x"}}', "expected a list, or an object"),
        ("q.jsonl", '{"question": "A?", "answerable": "maybe"}', "expected true or false"),
        ("q.jsonl", '{"question": "A?", "id": "1"}\n' * 2, "has the id '1' twice"),
        ("q.csv", "question\n,\n", "q.csv:2"),
        ("q.csv", "question,sources\nA?,a.md,b.md\n", "q.csv:2: the row has more cells than the header"),
        ("q.csv", f'question\nA?\n"{"x" * 140_000}"\n', "q.csv:3: not CSV .*limit"),
        ("q.jsonl", "[" * 100_000, "q.jsonl:1: not JSON"),
        ("q.jsonl", '{"question": ["A?"]}', r"q.jsonl:1: question is \['A\?'\]; expected text"),
        ("q.jsonl", '{"question": "A?", "answer": ["a", "b"]}', "answer is .*; expected text"),
        ("q.jsonl", '{"question": "A?", "sources": ""}', "none of them empty"),
        ("q.jsonl", '{"question": "A?", "sources": [null]}', "none of them empty"),
        ("q.jsonl", '{"question": "A?", "sources": [["a.md"]]}', "expected a list, or an object"),
        ("q.jsonl", '{"question": "A?", "sources": {"a": NaN}}', "a grade is nan, and one is 0 or from 0.01"),
        ("q.jsonl", '{"question": "A?", "sources": {"a": Infinity}}', "a grade is inf"),
        ("q.jsonl", '{"question": "A?", "sources": {"a": 1e300}}', "a grade is 1e\\+300"),
        ("q.jsonl", '{"question": "A?", "sources": {"a": 0.001}}', "a grade is 0.001"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    """With the line."""
    with pytest.raises(SettingsError, match=message):
        read_questions(write(tmp_path, name, text))


def test_equal_questions_have_equal_names(tmp_path: Path) -> None:
    """Results are compared only where the questions are the same."""
    one = read_questions(write(tmp_path, "a.jsonl", '{"question": "A?", "sources": ["a", "b"]}'))
    same = read_questions(write(tmp_path, "b.jsonl", '{"sources": ["b", "a"], "question": "A?"}'))
    other = read_questions(write(tmp_path, "c.jsonl", '{"question": "A?", "sources": ["a"]}'))
    assert digest(one) == digest(same) != digest(other)


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["/x/a.md", "/x/b.md", "/y/a.md", "c"]), max_size=8))
def test_a_source_is_named_once_and_by_the_name_of_the_questions(found: list[str]) -> None:
    """The end of a path will do, at a slash."""
    names = named_sources([[name] for name in found], ["x/a.md", "md"])
    assert len(names) == len(set(names))
    assert ("x/a.md" in names) == ("/x/a.md" in found)
    assert "md" not in names


def test_a_line_ends_where_json_and_csv_say(tmp_path: Path) -> None:
    """U+2028 and U+0085 are text inside a string; a quoted cell may hold a line break."""
    odd = "Which\u2028line\u0085is\x0cit?"
    lines = tmp_path / "q.jsonl"
    lines.write_text('{"question": "Which\u2028line\u0085is\\fit?", "sources": ["a"]}\r\n', encoding="utf-8")
    assert [one.text for one in read_questions(lines)] == [odd]
    rows = tmp_path / "q.csv"
    rows.write_text('question,sources\n"Two\nlines?",a.md\n', encoding="utf-8")
    assert [one.text for one in read_questions(rows)] == ["Two\nlines?"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "queries.jsonl").write_text('{"_id": "1", "text": "a\u2028b"}\n', encoding="utf-8")
    (tmp_path / "b" / "qrels.tsv").write_text("q\td\ts\n1\td1\t1\n", encoding="utf-8")
    assert [one.text for one in read_questions(tmp_path / "b")] == ["a\u2028b"]


def test_a_checkpoint_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torn last line is cut off in place, so that a full disk cannot lose the others; another file is refused."""
    path = tmp_path / "runs.jsonl"
    with Checkpoint(path) as kept:
        kept.add(Outcome(question="1", ranking=("a",)))
        kept.add(Outcome(question="2", ranking=("a",)))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"question": "3')
    monkeypatch.setattr(Path, "write_bytes", lambda *_: pytest.fail("written over"))
    with Checkpoint(path) as kept:
        assert set(kept.outcomes) == {"1", "2"} and path.read_bytes() == whole
        kept.add(Outcome(question="3", ranking=()))
    with Checkpoint(path) as kept:
        assert set(kept.outcomes) == {"1", "2", "3"}
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="is no file of an unfinished run"):
        Checkpoint(path)


def test_an_id_is_taken_as_it_is_given(tmp_path: Path) -> None:
    """Zero is an id, and only a question without one gets the number of its place."""
    path = write(
        tmp_path, "q.jsonl", '{"question": "A?", "id": 0}\n{"question": "B?", "id": 1}\n{"question": "C?"}\n'
    )
    assert [one.id for one in read_questions(path)] == ["0", "1", "3"]


@pytest.mark.parametrize(("said", "meant"), [("1", True), ("0", False), ("true", True), ('" No "', False)])
def test_answerable_is_true_or_false_however_it_is_written(tmp_path: Path, said: str, meant: bool) -> None:
    """A measure asks whether it is True, which 1 is not."""
    path = write(tmp_path, "q.jsonl", f'{{"question": "A?", "answerable": {said}}}')
    assert read_questions(path)[0].answerable is meant


def test_no_judgment_of_a_beir_folder_is_lost(tmp_path: Path) -> None:
    """Neither the first one of a file without a header, nor any behind a byte order mark."""
    write(tmp_path, "queries.jsonl", '\ufeff{"_id": "1", "text": "A?"}\n{"_id": "2", "text": "B?"}\n')
    write(tmp_path, "qrels.tsv", "1\ta.md\t1\n2\tb.md\t2\n")
    assert [(one.id, dict(one.relevance)) for one in read_questions(tmp_path)] == [
        ("1", {"a.md": 1.0}),
        ("2", {"b.md": 2.0}),
    ]
    write(tmp_path, "qrels.tsv", "query-id\tcorpus-id\tscore\n1\ta.md\tnan\n")
    with pytest.raises(SettingsError, match="a grade is nan"):
        read_questions(tmp_path)
