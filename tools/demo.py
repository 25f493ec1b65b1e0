"""What `make demo` shows, offline: retrieval, an answer cited to the word, abstention, a filter, the cost.

python tools/demo.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_presets import build

DOCUMENTS = Path(__file__).parents[1] / "recipes" / "healthcare" / "documents"
QUESTION = "How long may an insulin pen in use be kept at room temperature?"
NEXT = """\
llama-presets init                      a project on your own documents: three questions
llama-presets list                      the seven presets, and what each needs here
python recipes/healthcare/recipe.py     the same documents, encrypted, with personal data replaced
docs/start.md                           ten minutes in Python; docs/choosing.md: which preset"""


def heading(text: str) -> None:
    """Print the title of a step."""
    print(f"\n== {text}")


def main(storage: str) -> None:
    """Show an engine of the preset healthcare on five guideline sheets."""
    with build("healthcare", storage=storage, settings={"encryption": "off"}) as engine:
        report = engine.ingest(DOCUMENTS)
        print(f"{report.documents} documents, {report.chunks} chunks, {report.tokens} tokens")
        heading("Retrieval: the passages nearest to a question")
        print(QUESTION)
        for hit in engine.retriever.retrieve(QUESTION)[:3]:
            print(
                f"  {hit.score:.3f}  {Path(hit.metadata['source']).name}: {' '.join(hit.text.split())[:60]}…"
            )
        heading("Answer: cited to the word")
        response = engine.query(QUESTION)
        print(response)
        for citation in response.metadata["citations"]:
            print(f"  [{citation['n']}] {Path(citation['source']).name}, characters {citation['span']}:")
            print(f'      "{citation["quote"]}"')
        heading("Abstention: no answer in the documents, no guess")
        print(f"Who won the 2030 World Cup?\n{engine.query('Who won the 2030 World Cup?')}")
        heading("Filter: one sheet only; nothing in a question can lift it")
        sheet = MetadataFilters(filters=[MetadataFilter(key="file_name", value="falls-and-sedation.txt")])
        print(f"{QUESTION}\n{engine.with_filters(sheet).query(QUESTION)}")
        heading("Cost: every call of a model, in the ledger")
        stats = engine.ledger.get_usage_stats(days=7)
        print(f"{stats.total_calls} calls, {stats.total_tokens} tokens, ${stats.total_cost_usd:.6f}")
    heading("Next")
    print(NEXT)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
