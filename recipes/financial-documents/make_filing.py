"""Write documents/brightwater-10k-2024.pdf, the filing of this recipe, with reportlab."""

from pathlib import Path

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Table

STYLES = getSampleStyleSheet()
INCOME = [
    ["(in millions of $)", "2024", "2023"],
    ["Net revenue", "1,272.4", "1,181.9"],
    ["Cost of goods sold", "(811.0)", "(770.3)"],
    ["Operating income", "142.6", "121.8"],
    ["Net income", "96.3", "80.2"],
]
DEBT = [
    ["(in millions of $)", "2024", "2023"],
    ["Term loan", "210.0", "240.0"],
    ["Notes due 2029", "150.0", "150.0"],
]


def main() -> None:
    """Two pages: results with a table, debt with a table."""
    pages = [
        Paragraph("Brightwater Foods, annual report 2024", STYLES["Title"]),
        Paragraph("Published in February 2025", STYLES["BodyText"]),
        Paragraph("Item 7. Results of operations", STYLES["Heading1"]),
        Paragraph(
            "Net revenue grew because prices rose in spring and two plants were added.", STYLES["BodyText"]
        ),
        Paragraph("Table 1: Income statement", STYLES["BodyText"]),
        Table(INCOME),
        PageBreak(),
        Paragraph("Item 8. Debt", STYLES["Heading1"]),
        Paragraph("The term loan bears interest of SOFR plus 175 basis points.", STYLES["BodyText"]),
        Paragraph("Table 2: Borrowings", STYLES["BodyText"]),
        Table(DEBT),
    ]
    target = Path(__file__).parent / "documents" / "brightwater-10k-2024.pdf"
    title = "Brightwater Foods, annual report 2024"
    SimpleDocTemplate(str(target), pagesize=A4, title=title, author="Brightwater Foods", invariant=1).build(
        pages
    )


if __name__ == "__main__":
    main()
