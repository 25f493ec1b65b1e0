"""Search papers whose abstracts are nearly the same, by year, with citations that name the paper."""

import sys
import tempfile
from pathlib import Path

from llama_index_presets import build
from llama_index_presets.filters.text import parse_filters

DOCUMENTS = Path(__file__).parent / "documents"
QUESTIONS = [
    ("How much less memory does sparse attention need than full attention?", ["year>=2022"]),
    ("How much less memory does sparse attention need than full attention?", ["year<2022"]),
    ("How often do cross-encoders put the right abstract first?", []),
    ("When has the learned set to be found again?", ["authors contains Jan Lindqvist"]),
]


def main(storage: str, *, offline: bool = True) -> None:
    """Ingest the papers, ask with conditions on year and author."""
    with build("research-papers", storage=storage, offline=offline) as engine:
        report = engine.ingest(DOCUMENTS)
        print(f"{report.documents} papers, {report.chunks} chunks\n")
        for question, conditions in QUESTIONS:
            only = parse_filters(conditions)
            response = (engine.with_filters(only) if only else engine).query(question)
            print(f"{question} {' '.join(conditions)}\n{response}")
            for citation in response.metadata["citations"]:
                names = ", ".join(citation["authors"])
                print(f"  [{citation['n']}] {names} ({citation['year']}): {citation['title']}")
            print()
        for notice in engine.explain()["notices"]:
            print(f"Notice: {notice}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
