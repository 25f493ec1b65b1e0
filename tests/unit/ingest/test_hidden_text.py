"""Text that a reader of a document does not see is not ingested; what is seen stays."""

from __future__ import annotations

import pytest

from llama_index_presets.ingest.clean import without_controls
from llama_index_presets.ingest.readers.html.reader import plain_from_html

HIDDEN = "ignore this"
STYLES = [
    "display:none",
    "DISPLAY : NONE !important",
    "visibility:hidden",
    "opacity:0",
    "opacity:0.01",
    "font-size:0",
    "font-size:0px; color:red",
    "font-size:1px",
    "color:#fff",
    "color:white",
    "color:rgb(255, 255, 255)",
    "color:#fefefe",
    "color:transparent",
    "color:rgba(0,0,0,0)",
    "color:black;background:#000",
    "position:absolute;left:-9999px",
    "position:fixed; top:-2000em",
    "text-indent:-9999px",
    "width:1px;height:1px;overflow:hidden",
    "clip:rect(0,0,0,0);position:absolute",
    "clip-path: inset(100%)",
    "transform:scale(0)",
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tag", ["p", "span", "div", "h2", "td"])
def test_what_a_style_hides_is_not_read(style: str, tag: str) -> None:
    """In a paragraph, within one, in a heading and in a cell of a table."""
    part = f'<{tag} style="{style}">{HIDDEN}</{tag}>'
    part = f"<table><tr><th>A</th><th>B</th></tr><tr><td>1</td>{part}</tr></table>" if tag == "td" else part
    plain = plain_from_html(f"<body><p>Cats purr.</p>{part}<p>Dogs bark.</p></body>")
    assert HIDDEN not in plain.text + str(plain.headings)
    assert "Cats purr." in plain.text and "Dogs bark." in plain.text


@pytest.mark.parametrize(
    "rule", ["display:none", "visibility:hidden", "font-size:0", "color:#fff;background:#fff"]
)
@pytest.mark.parametrize("selector", [".x", "#y", "p.x", "div .x, .z"])
def test_what_the_sheet_of_the_page_hides_is_not_read(rule: str, selector: str) -> None:
    """By class, by id, and in a list of selectors."""
    page = (
        f"<head><style>/* a */ {selector} {{ {rule} }}</style></head>"
        f"<body><div><p>Cats purr.</p><p class='x' id='y'>{HIDDEN}</p></div></body>"
    )
    assert plain_from_html(page).text.strip() == "Cats purr."


@pytest.mark.parametrize(
    "part",
    [
        '<p style="color:white;background:navy">Dogs bark.</p>',
        '<div style="background:#003"><p style="color:#fff">Dogs bark.</p></div>',
        '<table bgcolor="#000000"><tr><td><font color="white">Dogs bark.</font></td></tr></table>',
        '<div style="color:white"><p style="color:black">Dogs bark.</p></div>',
        '<p style="font-size:0.8em">Dogs bark.</p>',
        '<p style="opacity:0.9;margin-left:-10px">Dogs bark.</p>',
        '<p style="font-size:10px">Dogs bark.</p>',
        '<p style="font: 12px/1.5 serif">Dogs bark.</p>',
        "<style>@media print { p { display: none } } a:hover { display: none }</style><p>Dogs bark.</p>",
    ],
)
def test_what_can_be_seen_is_read(part: str) -> None:
    """White letters on a dark ground, small ones, and what is hidden on paper alone."""
    assert "Dogs bark." in plain_from_html(f"<body>{part}</body>").text


def test_comments_of_a_page_are_not_read() -> None:
    """A comment is no text."""
    assert plain_from_html(f"<p>Cats <!-- {HIDDEN} -->purr.</p>").text.strip() == "Cats purr."


@pytest.mark.parametrize(
    "sign", ["\u200b", "\u2060", "\u202e", "\u2066", "\u180e", "\u3164", "\U000e0041", "\ufeff"]
)
def test_characters_that_cannot_be_seen_are_left_out(sign: str) -> None:
    """Blanks without width, marks of direction, fillers and tags, in any text."""
    assert without_controls(f"Cats{sign} purr.") == "Cats purr."


def test_joiners_stay_where_a_script_needs_them() -> None:
    """Persian writes with them, emoji are joined by them; between Latin letters they hide a word from a search."""
    assert without_controls("می\u200cخواهم") == "می\u200cخواهم"
    assert without_controls("ig\u200dnore") == "ignore"
