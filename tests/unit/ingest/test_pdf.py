"""PDF filings: rows that stay whole, pages, sections and tables to cite."""

from __future__ import annotations

from pathlib import Path

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table

from llama_index_presets.ingest.chunking.chunk import SentenceChunker
from llama_index_presets.ingest.read import read_file

ROWS = [
    ["(in millions of $)", "2024", "2023"],
    ["Net revenue", "1,250.5", "1,101.2"],
    ["Cost of sales", "(700.1)", "(650.0)"],
    ["Operating income", "310.4", "275.9"],
]
PROSE = "Net revenue grew because new shops opened in three countries, and the board expects this to go on."


def write_report(path: Path, rows: int = 1) -> Path:
    """A filing of two pages: a section with a table, then a section without."""
    styles = getSampleStyleSheet()
    table = Table([ROWS[0], *(ROWS[1:] * rows)])
    SimpleDocTemplate(str(path), pagesize=A4, title="Annual report 2024", author="Acme Corp").build(
        [
            Paragraph("Annual report 2024", styles["Title"]),
            Paragraph("Published in March 2025", styles["BodyText"]),
            Paragraph("Item 7. Results of operations", styles["Heading1"]),
            Paragraph(PROSE, styles["BodyText"]),
            Paragraph("Table 1: Income statement", styles["BodyText"]),
            table,
            Paragraph("The figures are audited by an independent firm every year.", styles["BodyText"]),
            PageBreak(),
            Paragraph("Item 8. Risk factors", styles["Heading1"]),
            Paragraph("Currencies may fall.", styles["BodyText"]),
        ]
    )
    return path


def test_a_row_names_its_columns_and_knows_its_page(tmp_path: Path) -> None:
    """Each figure stands beside its label, its year and its unit."""
    plain = read_file(write_report(tmp_path / "r.pdf"), "h").plain
    row = "(in millions of $): Net revenue; 2024: 1,250.5; 2023: 1,101.2"
    assert row in plain.text and PROSE in " ".join(plain.text.split())
    assert plain.page(plain.text.index(row)) == "1" and plain.page(plain.text.index("Currencies")) == "2"


def test_sections_and_tables_become_headings(tmp_path: Path) -> None:
    """Below the title; after the table its section goes on."""
    plain = read_file(write_report(tmp_path / "r.pdf"), "h").plain
    heads = {section.heading: section.text for section in plain.sections()}
    section = "Annual report 2024 > Item 7. Results of operations"
    assert "Net revenue; 2024: 1,250.5" in heads[f"{section} > Table 1: Income statement"]
    assert "audited" in heads[section] and "Currencies" in heads["Annual report 2024 > Item 8. Risk factors"]


def test_a_row_is_never_cut(tmp_path: Path) -> None:
    """However small the chunks, each row stands whole in one of them."""
    source = read_file(write_report(tmp_path / "r.pdf", rows=6), "h")
    chunks = SentenceChunker(tokenize=str.split, max_tokens=48).chunks(source)
    lines = [line for chunk in chunks for line in chunk.text.splitlines() if "Net revenue;" in line]
    assert len(chunks) > 5 and lines == ["(in millions of $): Net revenue; 2024: 1,250.5; 2023: 1,101.2"] * 6
