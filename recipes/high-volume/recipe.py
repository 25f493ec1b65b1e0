"""Serve many tenants from one managed index: a namespace each, the cost known before, a ceiling, and no leaks."""

import os
import sys
import tempfile
from pathlib import Path

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from llama_index_presets import build
from llama_index_presets.presets.estimates.ingestion import estimate_preset

DOCUMENTS = Path(__file__).parent / "documents"
QUESTIONS = [
    "After how many hours is the compressor oil of the K200 changed?",
    "Within how many days does the site pay?",
]
INDEX = os.environ.get("PINECONE_INDEX")  # with PINECONE_API_KEY and OPENAI_API_KEY: the services themselves


def open_tenant(folder: str, tenant: str):
    """A tenant's engine: a namespace of the index, or a folder of its own without a network."""
    storage = f"pinecone://{INDEX}/{tenant}" if INDEX else f"{folder}/{tenant}"
    return build(
        "high-volume", storage=storage, offline=not INDEX, settings={"trace_endpoint": "off", "top_k": 2}
    )


def main(folder: str) -> None:
    """Estimate, ingest below a ceiling, ask every tenant the same questions."""
    for tenant in ("acme", "borealis"):
        with open_tenant(folder, tenant) as engine:
            estimate = engine.estimate(DOCUMENTS / tenant)
            print(
                f"{tenant}: {estimate.documents} documents, {estimate.tokens} tokens, ${estimate.cost_usd:.6f}"
            )
            report = engine.ingest(DOCUMENTS / tenant, max_cost_usd=0.01)
            print(f"  ingested: {report.tokens} tokens, ${report.cost_usd:.6f}, as estimated")
            print(f"  again: {engine.ingest(DOCUMENTS / tenant).embedded} chunks embedded")
            for question in QUESTIONS:
                response = engine.query(question)
                sources = {Path(citation["source"]).name for citation in response.metadata["citations"]}
                print(f"  {question}\n    {response} ({', '.join(sorted(sources))})")
            only = MetadataFilters(filters=[MetadataFilter(key="file_name", value="safety-notice.md")])
            print(f"  Which gloves?\n    {engine.with_filters(only).query('Which gloves for refrigerant?')}")
    hosted = estimate_preset("high-volume", DOCUMENTS)  # no key needed: nothing is sent
    million = float(hosted.cost_usd) / hosted.documents * 1_000_000
    print(f"A million documents like these, embedded by OpenAI: ${million:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
