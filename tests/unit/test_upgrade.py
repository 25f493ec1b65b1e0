"""Files of other releases: the first ones are read, those of a newer one are refused or left as they are."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from llama_index_presets.answer.cache.store import AnswerCache
from llama_index_presets.errors import SettingsError, StoreError
from llama_index_presets.evaluate.results import read_result
from llama_index_presets.ingest.manifest import Manifest
from llama_index_presets.presets.index.storage import has_permissions, read_metadata, resolve_storage
from llama_index_presets.retrieve.bm25 import documents
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.jobs import Jobs

FIRST_PAYLOAD = (
    '["TextNode",{"id_":"n0","metadata":{"k":0},"metadata_template":"{key}: {value}","metadata_separator":"\\n",'
    '"text":"blue\\nfish","mimetype":"text/plain","text_template":"{metadata_str}\\n\\n{content}",'
    '"class_name":"TextNode"}]'
)
"""Payload of a node in a keyword index of the first releases: the text is one of the fields."""


def test_a_node_that_the_first_releases_kept_has_its_text() -> None:
    node = documents.deserialize(FIRST_PAYLOAD)
    assert (node.node_id, node.get_content(), node.metadata) == ("n0", "blue\nfish", {"k": 0})


def test_a_newer_storage_is_refused_whatever_else_its_metadata_names(tmp_path: Path) -> None:
    (tmp_path / "preset.json").write_text(json.dumps({"format": 9, "made_for": "healthcare"}))
    for read in (read_metadata, has_permissions):
        with pytest.raises(StoreError, match="format 9; this release reads 1 and 2.*upgrade"):
            read(resolve_storage(tmp_path))


def test_a_newer_result_of_an_evaluation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"format": 9, "label": "monday"}))
    with pytest.raises(SettingsError, match="has format 9; this release reads 1"):
        read_result(path)


def add_column(path: Path, table: str) -> None:
    """What a newer release would do to a table."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN added_later TEXT")
    connection.close()


def test_a_column_of_a_newer_release_stops_no_job(tmp_path: Path) -> None:
    Jobs(tmp_path).close()
    add_column(tmp_path / "jobs.sqlite", "jobs")
    jobs = Jobs(tmp_path)
    assert jobs.add(Caller(name="ada"), "job-1", [], 0, {}).id == "job-1"
    jobs.close()


def test_a_column_of_a_newer_release_stops_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    Manifest(path).close()
    for table in ("documents", "permissions"):
        add_column(path, table)
    manifest = Manifest(path)
    manifest.begin_permissions({"a.md": ["ada"]})
    assert manifest.permissions() == {"a.md": ["ada"]}
    manifest.close()


def test_a_column_of_a_newer_release_stops_no_cached_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    cache = AnswerCache(path, max_bytes=10_000, max_age_s=60)
    cache.put(b"first", {"text": "Yes."})
    cache.close()
    add_column(path, "answers")
    cache = AnswerCache(path, max_bytes=10_000, max_age_s=60)
    cache.put(b"second", {"text": "No."})
    assert (cache.get(b"first"), cache.get(b"second")) == ({"text": "Yes."}, {"text": "No."})
    cache.close()
