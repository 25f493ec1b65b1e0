"""Answer questions about clinic guidelines; nothing leaves this machine, and nothing on its disk can be read."""

import os
import secrets
import sys
import tempfile
from pathlib import Path

from llama_index.core import Document

from llama_index_presets import build

DOCUMENTS = Path(__file__).parent / "documents"
NOTE = Document(  # about a person who does not exist
    doc_id="handover-note",
    text="Handover: Mrs Ada Fictional (DOB: 3/4/1950, MRN: 0012345, 212-555-0187) needs insulin at 18:00.",
)
QUESTIONS = [
    "How is botulism treated?",
    "How long may an insulin pen in use be kept at room temperature?",
    "When does Mrs Fictional need insulin?",
    "Who won the 2030 World Cup?",
]
KEY = "LLAMA_PRESETS_ENCRYPTION_KEY"


def main(storage: str) -> None:
    """Ingest the documents, ask the questions, show sources and cost."""
    with build("healthcare", storage=storage, settings={"pii": "redact", "encryption": "on"}) as engine:
        report = engine.ingest(DOCUMENTS)
        print(f"{report.documents} documents, {report.unchanged} unchanged, {report.chunks} chunks")
        print(f"encryption: {engine.explain()['effective']['encryption']}")
        for source, counts in engine.ingest([NOTE]).personal_data.items():
            print(f"replaced in {source}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}\n")
        for question in QUESTIONS:
            response = engine.query(question)
            print(f"{question}\n{response}")
            for citation in response.metadata["citations"]:
                print(f"  [{citation['n']}] {Path(citation['source']).name}, score {citation['score']:.3f}")
            print(f"  cost ${response.metadata['cost_usd']:.6f}, {response.metadata['latency_ms']:.0f} ms\n")
        stats = engine.ledger.get_usage_stats(days=7)
        print(f"In all: {stats.total_calls} calls, {stats.total_tokens} tokens, ${stats.total_cost_usd:.6f}")
    files = [path for path in Path(storage).rglob("*") if path.is_file()]
    readable = [path.name for path in files if b"Fictional" in path.read_bytes()]
    print(f"Files that name Mrs Fictional: {len(readable)} of {len(files)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])  # with your key in the environment
    else:
        os.environ.setdefault(KEY, secrets.token_hex(32))
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
