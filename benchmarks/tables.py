"""Questions about single cells of tables in filings, rendered here as HTML, PDF, Word and Excel.

    python benchmarks/tables.py

Six companies, each with a page of prose and a table of six rows and three years; 108 questions a format, such as "What
was the cost of sales of Harbour Foods in 2021?". "beside" are the cells whose value stands in one line with the names
of its row and column, as a reader gives the text; "found" are the questions whose best passage, of `healthcare`, is of
the company and states the value beside both; "answered" those whose answer without a language model quotes the value
from the company's page; "wrong" the answers to 18 questions about a year, a row and a company that no table has.
MarkItDown is measured where it is installed.
"""

from __future__ import annotations

import importlib.util
import random
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from llama_index.core.schema import QueryBundle

from llama_index_presets import build
from llama_index_presets.ingest.previews.preview import preview

COMPANIES = (
    "Harbour Foods",
    "Northern Rail",
    "Keller Pumps",
    "Amber Textiles",
    "Delta Shipping",
    "Orchard Media",
)
ROWS = (
    "Net revenue",
    "Cost of sales",
    "Gross profit",
    "Research and development",
    "Operating income",
    "Total assets",
)
YEARS = ("2021", "2020", "2019")
Table = dict[tuple[str, str], str]


def values(company: str) -> Table:
    """The cells of a company's table: the same at every run, and no number twice."""
    draw = random.Random(company)
    numbers = draw.sample(range(1_000, 9_999), len(ROWS) * len(YEARS))
    cells = [(row, year) for row in ROWS for year in YEARS]
    return {cell: f"{number / 10:,.1f}" for cell, number in zip(cells, numbers, strict=True)}


def prose(company: str) -> str:
    return f"{company} reports its results in millions of euros. The table gives three years."


def grid(company: str) -> list[list[str]]:
    table = values(company)
    return [["", *YEARS], *([row, *(table[row, year] for year in YEARS)] for row in ROWS)]


def write_html(path: Path, company: str) -> None:
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in grid(company))
    path.write_text(f"<h1>{company}</h1><p>{prose(company)}</p><table>{cells}</table>", encoding="utf-8")


def write_xlsx(path: Path, company: str) -> None:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = company
    for row in grid(company):
        sheet.append(
            [float(cell.replace(",", "")) if re.fullmatch(r"[\d,]+\.\d", cell) else cell for cell in row]
        )
    for row in sheet.iter_rows(min_row=2, min_col=2):
        for cell in row:
            cell.number_format = "#,##0.0"
    book.save(path)


def write_pdf(path: Path, company: str) -> None:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer
    from reportlab.platypus import Table as Drawn

    styles = getSampleStyleSheet()
    parts = [
        Paragraph(company, styles["Heading1"]),
        Paragraph(prose(company), styles["Normal"]),
        Spacer(1, 12),
    ]
    SimpleDocTemplate(str(path)).build([*parts, Drawn(grid(company), colWidths=[160, 80, 80, 80])])


def write_docx(path: Path, company: str) -> None:
    """A table without marked names, as most people make one."""

    def paragraph(text: str, style: str = "") -> str:
        styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{styled}<w:r><w:t>{text}</w:t></w:r></w:p>"

    rows = (
        "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) + "</w:tr>"
        for row in grid(company)
    )
    table = f"<w:tbl>{''.join(rows)}</w:tbl>"
    style = '<w:style w:type="paragraph" w:styleId="H1"><w:name w:val="heading 1"/></w:style>'
    office = "http://schemas.openxmlformats.org"
    space = f'xmlns:w="{office}/wordprocessingml/2006/main"'
    body = paragraph(company, "H1") + paragraph(prose(company)) + table
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>")
        archive.writestr("word/styles.xml", f"<w:styles {space}>{style}</w:styles>")
        archive.writestr(
            "word/_rels/document.xml.rels",
            f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="r1" Type="{office}/'
            'officeDocument/2006/relationships/styles" Target="styles.xml"/></Relationships>',
        )


FORMATS = {"html": write_html, "pdf": write_pdf, "docx": write_docx, "xlsx": write_xlsx}


def beside(text: str, company: str) -> int:
    """Cells whose value stands in one line, or one `name: value` of it, with the names of its row and its column."""
    lines = text.splitlines()
    return sum(
        any(_states(line, row, year, value) for line in lines)
        for (row, year), value in values(company).items()
    )


def _states(line: str, row: str, year: str, value: str) -> bool:
    return row in line and bool(re.search(rf"{year}[^;|]*?:\s*\$?{re.escape(value)}(?!\d)", line))


def asked_of(folder: Path) -> tuple[int, int, int]:
    """Questions whose best passage states the value beside its names; those answered; unanswerable ones answered."""
    found = answered = wrong = 0
    with tempfile.TemporaryDirectory() as storage, build("healthcare", storage=storage) as engine:
        engine.ingest(folder, show_progress=False)
        for company in COMPANIES:
            for (row, year), value in values(company).items():
                question = f"What was the {row.lower()} of {company} in {year}?"
                (best, *_) = engine.retrieve(QueryBundle(question))
                own = company in best.node.metadata["source"]
                found += own and any(_states(line, row, year, value) for line in best.node.text.splitlines())
                response = engine.query(question)
                sources = [citation["source"] for citation in response.metadata["citations"]]
                answered += bool(sources) and value in str(response) and company in sources[0]
            wrong += sum(engine.query(question).metadata["known"] for question in unanswerable(company))
    return found, answered, wrong


def unanswerable(company: str) -> tuple[str, ...]:
    """Questions that the tables do not answer: another year, another row, another company."""
    return (
        f"What was the cost of sales of {company} in 2016?",
        f"What was the goodwill of {company} in 2021?",
        f"What was the operating income of {company.split()[0]} Motors in 2020?",
    )


def markitdown_texts(paths: dict[str, Path]) -> dict[str, str] | None:
    if not importlib.util.find_spec("markitdown"):
        return None
    from markitdown import MarkItDown

    reader: Any = MarkItDown()
    return {company: reader.convert(str(path)).text_content for company, path in paths.items()}


def main() -> None:
    cells = len(COMPANIES) * len(ROWS) * len(YEARS)
    print(f"{cells} cells a format{'beside':>12}{'MarkItDown':>12}{'found':>12}{'answered':>12}{'wrong':>8}")
    for suffix, write in FORMATS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = {company: folder / f"{company}.{suffix}" for company in COMPANIES}
            for company, path in paths.items():
                write(path, company)
            ours = sum(beside(preview([path])[0].text, company) for company, path in paths.items())
            peer = markitdown_texts(paths)
            theirs = "not here" if peer is None else str(sum(beside(peer[c], c) for c in COMPANIES))
            found, answered, wrong = asked_of(folder)
            print(f"{suffix:<18}{ours:>12}{theirs:>12}{found:>12}{answered:>12}{wrong:>8}", flush=True)


if __name__ == "__main__":
    main()
