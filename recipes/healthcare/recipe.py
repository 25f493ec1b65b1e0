"""Answer questions about clinic guidelines; nothing leaves this machine."""

import sys
import tempfile
from pathlib import Path

from llama_index_presets import build

DOCUMENTS = Path(__file__).parent / "documents"
QUESTIONS = [
    "How is botulism treated?",
    "How long may an insulin pen in use be kept at room temperature?",
    "Who won the 2030 World Cup?",
]


def main(storage: str) -> None:
    """Ingest the documents, ask the questions, show sources and cost."""
    with build("healthcare", storage=storage) as engine:
        report = engine.ingest(DOCUMENTS)
        print(f"{report.documents} documents, {report.unchanged} unchanged, {report.chunks} chunks\n")
        for question in QUESTIONS:
            response = engine.query(question)
            print(f"{question}\n{response}")
            for citation in response.metadata["citations"]:
                print(f"  [{citation['n']}] {Path(citation['source']).name}, score {citation['score']:.3f}")
            print(f"  cost ${response.metadata['cost_usd']:.6f}, {response.metadata['latency_ms']:.0f} ms\n")
        stats = engine.ledger.get_usage_stats(days=7)
        print(f"In all: {stats.total_calls} calls, {stats.total_tokens} tokens, ${stats.total_cost_usd:.6f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
