"""Rich text becomes plain text."""

from __future__ import annotations

import pytest

from llama_index_presets.ingest.clean import plain_from_pages, plain_from_text
from llama_index_presets.ingest.plain_text import PlainText
from llama_index_presets.ingest.readers.csv import plain_from_rows
from llama_index_presets.ingest.readers.html.reader import plain_from_html
from llama_index_presets.ingest.readers.markdown import plain_from_markdown

MARKDOWN = """---
title: front matter
---
# Botulism

A *rare* but **serious** illness; see [the guide](https://example.org/guide).

## Treatment

- an antitoxin
- `ventilation`

| drug | dose |
|---|---|
| antitoxin | 20 ml |

```python
print("kept")
```
"""


def test_markdown_syntax_is_gone_and_its_words_stay() -> None:
    """What is embedded holds words, not asterisks, pipes, link targets or front matter."""
    text = plain_from_markdown(MARKDOWN).text
    for word in ("rare but serious illness", "the guide", "an antitoxin", "ventilation", 'print("kept")'):
        assert word in text
    for syntax in ("*", "`", "#", "|", "](", "https://", "---", "front matter"):
        assert syntax not in text


def test_headings_become_paths_that_say_where_a_text_stands() -> None:
    """A section knows its headings, and heading text is not repeated in the body."""
    sections = list(plain_from_markdown(MARKDOWN).sections())
    assert [section.heading for section in sections] == ["Botulism", "Botulism > Treatment"]
    assert "Treatment" not in sections[1].text


def test_a_heading_of_the_same_level_replaces_the_one_before() -> None:
    """Paths never grow sideways."""
    plain = plain_from_html("<h1>A</h1><h3>B</h3><p>b</p><h2>C</h2><p>c</p><h1>D</h1><p>d</p>")
    assert [section.heading for section in plain.sections()] == ["A > B", "A > C", "D"]


def test_section_offsets_point_into_the_text() -> None:
    """Offsets are what citations are built from, so they must be exact."""
    plain = plain_from_markdown(MARKDOWN)
    assert all(plain.text[s.start : s.start + len(s.text)] == s.text for s in plain.sections())


def test_table_cells_carry_the_name_of_their_column() -> None:
    """A row that is retrieved alone must still say what its numbers mean."""
    assert "drug: antitoxin; dose: 20 ml" in plain_from_markdown(MARKDOWN).text


def test_html_scripts_styles_navigation_and_comments_are_dropped() -> None:
    """Nothing that a reader of the page would not see is embedded."""
    page = "<head><title>t</title></head><nav>menu</nav><!-- note --><p>Seen.<script>x()</script><style>p{}</style></p>"
    assert plain_from_html(page).text.strip() == "Seen."


def test_blocks_are_separated_and_inline_markup_is_not() -> None:
    """A word is never torn apart by markup, and two paragraphs never run together."""
    assert plain_from_html("<p>on<b>e</b></p><p>two<br>three</p>").text.strip() == "one\n\ntwo\nthree"


def test_rows_of_a_csv_file_become_paragraphs_with_column_names() -> None:
    """Empty cells are left out and quoted commas survive."""
    assert plain_from_rows('a,b,c\n1,"x, y",\n2,z,3\n').text == "a: 1; b: x, y\n\na: 2; b: z; c: 3"


def test_pages_are_joined_so_that_every_offset_has_its_page() -> None:
    """A chunk that begins on page 2 says page 2."""
    plain = plain_from_pages([("1", "first page"), ("ii", "second page")])
    assert [plain.page(plain.text.index(word)) for word in ("first", "second")] == ["1", "ii"]


@pytest.mark.parametrize("text", ["a\x00b\r\nc", "\ufeffa b\rc"])
def test_control_characters_and_foreign_line_ends_are_normalised(text: str) -> None:
    """Stores and prompts never see NUL bytes, byte order marks or carriage returns."""
    assert not set("\x00\r\ufeff") & set(plain_from_text(text).text)


def test_text_without_headings_is_one_section() -> None:
    """Plain files work like rich ones."""
    assert [section.heading for section in PlainText("Hello.").sections()] == [""]
