"""Each format says what its file says, once, in the order in which it is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fixtures.readers import Fixture, all_fixtures

from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.read import read_file

FIXTURES = all_fixtures()


@pytest.fixture(params=FIXTURES, ids=lambda fixture: fixture.name)
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return request.param  # type: ignore[no-any-return]


def test_the_text_says_what_the_file_says(fixture: Fixture, tmp_path: Path) -> None:
    """Sentences once and in order, cells beside their names, nothing hidden, headings and pages where they belong."""
    plain = read_file(fixture.write(tmp_path), "h").plain
    places = [plain.text.find(sentence) for sentence in fixture.sentences]
    assert -1 not in places, (fixture.sentences[places.index(-1)], plain.text)
    assert places == sorted(places), plain.text
    assert [sentence for sentence in fixture.sentences if plain.text.count(sentence) != 1] == []
    assert [words for words in fixture.absent if words in plain.text] == []
    assert [cell for cell in fixture.cells if not stands_together(cell, plain.text)] == []
    assert set(fixture.headings) <= {section.heading for section in plain.sections()}, plain.headings
    assert [(words, plain.page(plain.text.index(words))) for words, _ in fixture.pages] == list(fixture.pages)
    assert all(any(part in warning for warning in plain.warnings) for part in fixture.warnings), (
        plain.warnings
    )
    assert bool(plain.warnings) == bool(fixture.warnings), plain.warnings
    assert_marks_are_in_order(plain)


def stands_together(cell: tuple[str, str], text: str) -> bool:
    name, value = cell
    return any(
        name in line and value in line[line.index(name) + len(name) :]
        for line in text.split("\n")
        if name in line
    )


def assert_marks_are_in_order(plain: PlainText) -> None:
    for marks in (plain.headings, plain.pages):
        offsets = [offset for offset, _ in marks]
        assert offsets == sorted(offsets) and all(0 <= offset <= len(plain.text) for offset in offsets)
    ends = [edge for table in plain.tables for edge in (table.start, table.end)]
    assert ends == sorted(ends) and all(0 <= edge <= len(plain.text) for edge in ends)
