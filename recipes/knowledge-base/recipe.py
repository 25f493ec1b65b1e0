"""Search the handbook of a company, one department or all, and keep it in step with its folder."""

import sys
import tempfile
from pathlib import Path

from llama_index_presets import build
from llama_index_presets.filters.text import parse_filters

DOCUMENTS = Path(__file__).parent / "documents"
QUESTIONS = [
    ("How many weeks of parental leave may each parent take?", []),
    ("What is needed for work from another country?", ["department=hr"]),
    ("When is access from another country blocked?", ["department=it"]),
    ("What is the CEO's salary?", []),
]


def main(storage: str, *, offline: bool = True) -> None:
    """Ingest the folder, ask with and without a department."""
    with build("knowledge-base", storage=storage, offline=offline) as engine:
        report = engine.ingest(DOCUMENTS, folder_key="department", sync=True)
        print(f"{report.documents} documents, {report.unchanged} unchanged, {report.removed} removed\n")
        for question, conditions in QUESTIONS:
            only = parse_filters(conditions)
            response = (engine.with_filters(only) if only else engine).query(question)
            print(f"{question} {' '.join(conditions)}\n{response}")
            for citation in response.metadata["citations"]:
                print(
                    f"  [{citation['n']}] {Path(citation['source']).relative_to(DOCUMENTS)}: {citation['heading']}"
                )
            print()
        stats = engine.ledger.get_usage_stats(days=7)
        print(f"{stats.total_calls} calls, ${stats.total_cost_usd:.6f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
