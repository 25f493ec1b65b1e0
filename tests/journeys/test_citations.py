"""Citations to the word: spans, quotes and boxes of answers, and the page that shows them."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from llama_index.core import Document
from tests.fakes import ScriptedLLM
from typer.testing import CliRunner

from llama_index_presets import build
from llama_index_presets.answer.cited.quotes import Chunk
from llama_index_presets.answer.cited.support import check_sentences
from llama_index_presets.cli import app
from llama_index_presets.errors import AnswerError

FACTS = {
    "botulism": "Botulism is treated with an antitoxin <from horses> & rest.",
    "measles": "Measles is spread through the air by coughing.",
    "rabies": "Rabies is prevented by a vaccine after a bite.",
    "tetanus": "Tetanus is caused by a toxin of bacteria in soil.",
}
QUESTIONS = {
    "botulism": "How is botulism treated?",
    "measles": "How is measles spread?",
    "rabies": "How is rabies prevented?",
    "tetanus": "What is tetanus caused by?",
}


def page(name: str) -> str:
    return f"A page about {name}.\n\nIt was written in spring.\n\n{FACTS[name]} Nothing else is known.\n"


def test_quotes_stand_in_the_document_to_the_character(tmp_path: Path) -> None:
    """Span, quote and checked sentence of each answer, against the text that was ingested."""
    with build("healthcare", storage=tmp_path / "s", settings={"encryption": "off"}) as engine:
        engine.ingest([Document(text=page(name), id_=name) for name in FACTS])
        for name, question in QUESTIONS.items():
            response = engine.query(question)
            cited = response.metadata["citations"][0]
            start, end = cited["span"]
            assert page(name)[start:end] == cited["quote"] == FACTS[name]
            assert cited["boxes"] == []
            assert [one["supported"] for one in response.metadata["sentences"]] == [True]


def test_a_citation_is_shown_later_without_its_words_being_kept(tmp_path: Path) -> None:
    """The file beside the ledger holds ids and numbers; the page takes the words from the store, escaped."""
    storage = tmp_path / "s"
    with build("healthcare", storage=storage, settings={"encryption": "off"}) as engine:
        engine.ingest([Document(text=page("botulism"), id_="botulism")])
        query_id = engine.query(QUESTIONS["botulism"]).metadata["query_id"]
    kept = (storage / "citations.sqlite").read_bytes()
    assert b"antitoxin" not in kept and b"treated" not in kept
    assert (storage / "citations.sqlite").stat().st_mode & 0o077 == 0
    file = tmp_path / "page.html"
    result = CliRunner().invoke(
        app, ["show-citation", query_id, "1", "--storage", str(storage), "--html", str(file), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["quotes"] == [FACTS["botulism"]]
    html = file.read_text()
    assert (
        '<mark id="cited">Botulism is treated with an antitoxin &lt;from horses&gt; &amp; rest.</mark>'
        in html
    )
    assert "default-src 'none'" in html and "<script" not in html and "<from" not in html


def test_what_is_not_kept_is_refused(tmp_path: Path) -> None:
    """Unknown queries and numbers, and a chunk that was deleted since."""
    with build("healthcare", storage=tmp_path / "s", settings={"encryption": "off"}) as engine:
        engine.ingest([Document(text=page("measles"), id_="measles")])
        query_id = engine.query(QUESTIONS["measles"]).metadata["query_id"]
        with pytest.raises(AnswerError, match="has no citation \\[7\\]; it has 1"):
            engine.citation_page(query_id, 7)
        with pytest.raises(AnswerError, match="No citation of query 'zzz'"):
            engine.citation_page("zzz", 1)
        engine.delete(["measles"])
        with pytest.raises(AnswerError, match="not in the index any more"):
            engine.citation_page(query_id, 1)


def test_boxes_of_a_pdf_are_within_two_points(tmp_path: Path) -> None:
    """A line drawn at a known place: its words from edge to edge, from the ascent to below the baseline."""
    from reportlab.pdfbase.pdfmetrics import stringWidth
    from reportlab.pdfgen import canvas

    file, size = tmp_path / "page.pdf", 12
    drawn = canvas.Canvas(str(file), pagesize=(595, 842))
    drawn.setFont("Helvetica", size)
    places = {name: (72, 760 - 60 * row) for row, name in enumerate(FACTS)}
    for name, (x, y) in places.items():
        drawn.drawString(x, y, FACTS[name])
    drawn.save()
    with build("healthcare", storage=tmp_path / "s", settings={"encryption": "off"}) as engine:
        engine.ingest(file)
        for name, question in QUESTIONS.items():
            response = engine.query(question)
            boxes = response.metadata["citations"][0]["boxes"]
            x, y = places[name]
            assert len(boxes) == 1
            assert boxes[0]["page"] == "1"
            assert boxes[0]["x0"] == pytest.approx(x, abs=2)
            assert boxes[0]["x1"] == pytest.approx(x + stringWidth(FACTS[name], "Helvetica", size), abs=2)
            assert boxes[0]["y0"] == pytest.approx(842 - y - 0.85 * size, abs=2)
            assert boxes[0]["y1"] == pytest.approx(842 - y + 0.15 * size, abs=2)
        shown = engine.citation_page(response.metadata["query_id"], 1).html
    assert len(re.findall("<rect ", shown)) == 1 and "data:image/png;base64," in shown


def test_old_citations_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds so many rows and no more."""
    from llama_index_presets.presets.citations import store as citation_store

    monkeypatch.setattr(citation_store, "KEPT_QUERIES", 1)
    for place in range(9):
        citation_store.keep_citations(
            tmp_path, f"q{place}", [{"n": 1, "valid": True, "node_id": "a", "spans": []}]
        )
    with sqlite3.connect(tmp_path / "citations.sqlite") as connection:
        assert connection.execute("select count(*), min(query_id) from citations").fetchone() == (4, "q5")


WARRANTY = "Steel frames carry a warranty of ten years. Carbon frames carry a warranty of five years."


@pytest.mark.parametrize(
    ("says", "missing"),
    [
        ("Carbon frames carry a warranty of 99 years. [1]", ["99"]),
        ("Carbon frames carry a warranty of 5 years. [1]", []),
        ("Carbon is covered for seven years, steel for ten.", ["seven"]),
        ("Yes, carbon frames carry a warranty of five years. [1]", []),
        ("Yes. [1]", []),
    ],
)
def test_a_figure_that_stands_nowhere_in_the_cited_passage_is_told(
    tmp_path: Path, says: str, missing: list[str]
) -> None:
    """In the dictionary, the notebook and the terminal; a figure that stands there is not."""
    storage = tmp_path / "s"
    with build(
        "healthcare", storage=storage, settings={"encryption": "off"}, llm=ScriptedLLM(says=says)
    ) as engine:
        engine.ingest([Document(text=WARRANTY, id_="warranty.txt")])
        response = engine.query("How long is the warranty on carbon frames?")
    told = [figure for one in response.to_dict().get("unsupported", []) for figure in one["missing"]]
    assert told == missing
    for shown in (repr(response), response._repr_html_()):
        assert ("Not in what it cites" in shown) is bool(missing)
        assert all(f"Not in what it cites: {figure}" in shown for figure in missing)


def test_a_yes_alone_is_no_statement(tmp_path: Path) -> None:
    """Nothing is said of it; a sentence behind it is judged without it."""
    passages = [[Chunk("n", WARRANTY, 0, {})]]
    judged = [
        one.supported for one in check_sentences("Yes. [1] No, steel frames carry ten years. [1]", passages)
    ]
    assert judged == [None, True]


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_the_commands_name_a_figure_that_is_not_in_what_is_cited(tmp_path: Path, command: str) -> None:
    """Below the sources, where who reads the answer looks; `--json` lists the sentence."""
    storage = tmp_path / "s"
    with build("healthcare", storage=storage, settings={"encryption": "off"}) as engine:
        engine.ingest([Document(text=WARRANTY, id_="warranty.txt")])
    question = "How long is the warranty on carbon frames?"
    llm = "tests.fakes:ScriptedLLM?says=Carbon frames carry a warranty of 99 years. [1]"
    arguments = ["healthcare", "--storage", str(storage), "--llm", llm]
    if command == "chat":
        shown = CliRunner().invoke(app, ["chat", *arguments], input=f"{question}\n\n").output
    else:
        shown = CliRunner().invoke(app, ["ask", *arguments, question]).output
        found = json.loads(CliRunner().invoke(app, ["ask", *arguments, question, "--json"]).stdout)
        assert found["unsupported"][0]["missing"] == ["99"]
    assert "Not in what it cites: 99 (“Carbon frames carry a warranty of 99 years.”)" in shown


@pytest.mark.parametrize("chunking", ["sentence", "sentence-window"])
def test_words_under_a_title_are_cited_under_it(tmp_path: Path, chunking: str) -> None:
    """The lines above the first section are in its chunk, and are no part of it."""
    text = (
        "# Returns\n\nA bicycle may be sent back within 30 days of delivery. Opened tubes are not taken back.\n\n"
        "## Refunds\n\nRefunds are paid to the original card within seven working days."
    )
    (tmp_path / "returns.md").write_text(text)
    settings = {"encryption": "off", "chunking": chunking}
    with build("healthcare", storage=tmp_path / "s", settings=settings) as engine:
        engine.ingest(tmp_path / "returns.md")
        asked = ("Within how many days may a bicycle be sent back?", "How are refunds paid?")
        headings = [engine.query(question).metadata["citations"][0]["heading"] for question in asked]
    assert headings == ["Returns", "Returns > Refunds"]
