"""Ask filings and calls for figures: quoted with page and table, every question on record."""

import sys
import tempfile
from pathlib import Path

from llama_index_presets import build
from llama_index_presets.monitor.audit import audit_key, verify

DOCUMENTS = Path(__file__).parent / "documents"
QUESTIONS = [
    "What was the net revenue in 2024?",
    "What was the EBITDA of BWF in Q3?",
    "What is the interest of the term loan?",
    "Who audits the accounts of Globex?",
]


def main(storage: str, *, offline: bool = True) -> None:
    """Ingest the documents, ask, check the audit log."""
    with build("financial-documents", storage=storage, offline=offline) as engine:
        report = engine.ingest(DOCUMENTS)
        print(f"{report.documents} documents, {report.chunks} chunks\n")
        for question in QUESTIONS:
            response = engine.for_user("analyst-7").query(question)
            print(f"{question}\n{response}")
            for citation in response.metadata["citations"]:
                page = f", page {citation['page']}" if citation["page"] else ""
                print(f"  [{citation['n']}] {Path(citation['source']).name}{page}: {citation['heading']}")
            print()
    checked = verify(Path(storage) / "audit.jsonl", key=audit_key(make=False))
    print(f"Audit log: {checked.entries} entries, {'unbroken' if checked.ok else checked.reason}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
