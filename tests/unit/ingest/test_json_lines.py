"""JSON Lines end where JSON says: at line feeds and carriage returns."""

from __future__ import annotations

from pathlib import Path

from llama_index_presets.ingest.readers.data import read_json_lines


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path: Path) -> None:
    """U+2028 and U+0085 are text; each way to end a line ends one."""
    file = tmp_path / "a.jsonl"
    file.write_bytes('{"a": "x\u2028y\u0085z"}\r\n{"a": "two"}\r{"a": "three"}\n'.encode())
    plain, _ = read_json_lines(file)
    assert plain.text.split("\n\n") == ["a: x\u2028y\u0085z", "a: two", "a: three", ""]
    assert plain.warnings == ()
