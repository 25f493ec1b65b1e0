"""A cold question: whole processes of ours beside a stock LlamaIndex script, in CPU seconds and peak memory.

    python benchmarks/cold_start.py [--rounds 5] [--questions FILE]

Each process answers one question over an index that was made before. `stock` is HuggingFaceEmbedding and LanceDB under
a VectorStoreIndex; `vector` rows start a process, embed one question and end. Rounds are interleaved and shuffled; a
figure is the median of user and system seconds, of the process and its children, with the files in the page cache.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_index_presets.embed.catalogue import embedding_model
from llama_index_presets.embed.weights import find_weights

QUESTION = "How is insulin stored?"
TEXTS = {
    "insulin.txt": "Insulin is kept between two and eight degrees. An opened pen is kept at room temperature.",
    "botulism.txt": "Botulism is treated with antitoxin. Honey is not given to infants.",
    "heart.txt": "The heart pumps blood through the body. Blood pressure is measured at rest.",
}
STOCK_OPEN = """
import sys
from llama_index.core import Document, VectorStoreIndex, StorageContext
from llama_index.core.embeddings import BaseEmbedding
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.lancedb import LanceDBVectorStore
folder, weights, question = sys.argv[1:4]
model = HuggingFaceEmbedding(model_name=weights, device="cpu")
store = LanceDBVectorStore(uri=folder, table_name="documents", mode="overwrite" if question == "-" else "append")
"""
STOCK_MAKE = (
    STOCK_OPEN
    + """
from pathlib import Path
documents = [Document(text=path.read_text()) for path in sorted(Path(sys.argv[4]).glob("*.txt"))]
context = StorageContext.from_defaults(vector_store=store)
VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=model)
"""
)
STOCK_ASK = (
    STOCK_OPEN
    + """
index = VectorStoreIndex.from_vector_store(store, embed_model=model)
hits = index.as_retriever(similarity_top_k=3).retrieve(question)
assert "Insulin" in hits[0].get_content()
"""
)
STOCK_VECTOR = """
import sys
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
assert len(HuggingFaceEmbedding(model_name=sys.argv[2], device="cpu").get_query_embedding(sys.argv[3])) == 384
"""
OUR_VECTOR = """
import sys
from llama_index_presets import LocalEmbedding
assert len(LocalEmbedding("all-MiniLM-L6-v2", allow_download=False).get_query_embedding(sys.argv[3])) == 384
"""
CORE = "import llama_index.core"
PACKAGE = "import llama_index_presets"
NOTHING = "pass"


def measured(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak MB of one process with its children."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{said}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def commands(place: Path) -> dict[str, list[str]]:
    weights = str(find_weights(embedding_model("all-MiniLM-L6-v2"), allow_download=False))
    documents = place / "documents"
    documents.mkdir()
    for name, text in TEXTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    python, cli = [sys.executable, "-c"], [sys.executable, "-m", "llama_index_presets"]
    stock = [str(place / "stock"), weights]
    measured([*python, STOCK_MAKE, *stock, "-", str(documents)])
    asks = {}
    for store in ("lancedb", "duckdb"):
        more = ["--storage", str(place / store), "--offline"]
        environment = ["env", f"LLAMA_PRESETS_STORE={store}"]
        measured([*environment, *cli, "ingest", "healthcare", str(documents), *more])
        asks[f"ask healthcare, {store}"] = [*environment, *cli, "ask", "healthcare", QUESTION, *more]
    return {
        "python": [*python, NOTHING],
        "import llama_index_presets": [*python, PACKAGE],
        "import llama_index.core": [*python, CORE],
        "vector, stock": [*python, STOCK_VECTOR, *stock, QUESTION],
        "vector, ours": [*python, OUR_VECTOR, *stock, QUESTION],
        "question, stock script": [*python, STOCK_ASK, *stock, QUESTION],
        **asks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        runs = commands(Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for number in range(options.rounds + 1):
            for name in random.Random(number).sample(list(runs), len(runs)):
                figures = measured(runs[name])
                if number:
                    found[name].append(figures)
    stock = statistics.median(seconds for seconds, _ in found["question, stock script"])
    print(f"{'':30}{'CPU s':>8}{'peak MB':>10}{'x stock':>9}")
    for name, figures in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:30}{seconds:8.2f}{memory:10.0f}{stock / seconds:9.1f}")


if __name__ == "__main__":
    main()
