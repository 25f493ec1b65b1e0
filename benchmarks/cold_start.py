"""A cold question: whole processes of ours beside a stock LlamaIndex script, in CPU seconds and peak memory.

    python benchmarks/cold_start.py [--rounds 5] [--rows NAME …] [--python INTERPRETER]

Each process answers one question over an index that was made before. `stock` is HuggingFaceEmbedding and LanceDB under
a VectorStoreIndex; `LlamaIndex whole` rows are our command without its imports by name; `vector` rows start a process,
embed one question and end; `rerank` rows score two passages with a cross-encoder of MiniLM's size. Rounds are
interleaved and shuffled; a figure is the median of user and system seconds, of the process and its children, with the
files in the page cache. `second question` is timed inside a process, which
also says what of its memory is its own (the rest is files that processes share). --python runs ours in another
environment, such as one that has `healthcare,offline` alone; the stock rows need sentence-transformers.
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
OUR_SECOND = """
import re, sys, time
from pathlib import Path
from llama_index_presets import build
with build("healthcare", storage=sys.argv[1], offline=True, settings={"store": sys.argv[2]}) as engine:
    engine.query(sys.argv[3])
    began = time.process_time()
    engine.query(sys.argv[3])
    seconds = time.process_time() - began
    pages = Path("/proc/self/smaps_rollup").read_text()
    own = sum(int(size) for size in re.findall(r"Private_\\w+: +(\\d+)", pages))
print(seconds, own / 1024)
"""
PASSAGES = """
from llama_index.core.schema import NodeWithScore, TextNode
texts = ("Honey is not given to infants.", "Insulin is kept cold.")
passages = [NodeWithScore(node=TextNode(text=text)) for text in texts]
"""
OUR_RERANK = (
    """
import sys
from llama_index_presets import CrossEncoderRerank
rerank = CrossEncoderRerank(sys.argv[1], top_n=1)
"""
    + PASSAGES
    + "assert rerank.postprocess_nodes(passages, query_str=sys.argv[2])"
)
STOCK_RERANK = (
    """
import sys
from llama_index.core.postprocessor import SentenceTransformerRerank
rerank = SentenceTransformerRerank(model=sys.argv[1], top_n=1, device="cpu", trust_remote_code=False)
"""
    + PASSAGES
    + "assert rerank.postprocess_nodes(passages, query_str=sys.argv[2])"
)
HEAD = """
import sys, torch
from sentence_transformers import CrossEncoder
torch.manual_seed(0)
CrossEncoder(sys.argv[1], num_labels=1, device="cpu").save_pretrained(sys.argv[2])
"""
ASK_WHOLE = """
from llama_index_presets.packages import command_process
command_process.import_by_name = lambda package: None  # the command then imports all of LlamaIndex
from llama_index_presets.cli import main
main()
"""
CORE = "import llama_index.core"
PACKAGE = "import llama_index_presets"
NOTHING = "pass"
STOCK, SECOND = "question, stock script", "second question"


Figures = tuple[float, float]
"""CPU seconds, and MB."""


def measured(command: list[str]) -> tuple[Figures, str]:
    """CPU seconds and peak MB of one process with its children, and what it printed."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    printed, said = process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed:\n{said}")
    return (used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), printed


def commands(place: Path, interpreter: str) -> dict[str, list[str]]:
    """Row -> command; what the commands need is made first."""
    weights = str(find_weights(embedding_model("all-MiniLM-L6-v2"), allow_download=False))
    documents, head = place / "documents", str(place / "head")
    documents.mkdir()
    for name, text in TEXTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    python, own = [sys.executable, "-c"], [interpreter, "-c"]
    stock = [str(place / "stock"), weights]
    measured([*python, STOCK_MAKE, *stock, "-", str(documents)])
    measured([*python, HEAD, weights, head])
    asks, seconds = {}, {}
    for store in ("lancedb", "duckdb"):
        more = ["--storage", str(place / store), "--offline"]
        cli = ["env", f"LLAMA_PRESETS_STORE={store}", interpreter, "-m", "llama_index_presets"]
        measured([*cli, "ingest", "healthcare", str(documents), *more])
        ask = ["ask", "healthcare", QUESTION, *more]
        asks[f"ask healthcare, {store}"] = [*cli, *ask]
        asks[f"ask, LlamaIndex whole, {store}"] = [*cli[:-2], "-c", ASK_WHOLE, *ask]
        seconds[f"{SECOND}, {store}"] = [*own, OUR_SECOND, str(place / store), store, QUESTION]
    return {
        "python": [*own, NOTHING],
        "import llama_index_presets": [*own, PACKAGE],
        "import llama_index.core": [*own, CORE],
        "vector, stock": [*python, STOCK_VECTOR, *stock, QUESTION],
        "vector, ours": [*own, OUR_VECTOR, *stock, QUESTION],
        "rerank, stock": [*python, STOCK_RERANK, head, QUESTION],
        "rerank, ours": [*own, OUR_RERANK, head, QUESTION],
        STOCK: [*python, STOCK_ASK, *stock, QUESTION],
        **asks,
        **seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows whose names hold one of these")
    parser.add_argument("--python", default=sys.executable, help="interpreter of our rows")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        made = commands(Path(folder), options.python)
        runs = {name: made[name] for name in made if any(part in name for part in options.rows)}
        found: dict[str, list[Figures]] = {name: [] for name in runs}
        for number in range(options.rounds + (options.rounds > 1)):  # the first of several warms up
            for name in random.Random(number).sample(list(runs), len(runs)):
                figures, printed = measured(runs[name])
                if name.startswith(SECOND):
                    seconds, own = printed.split()
                    figures = float(seconds), float(own)
                if number or options.rounds == 1:
                    found[name].append(figures)
    report(found)


def report(found: dict[str, list[Figures]]) -> None:
    """Print the table, and the differences that the bars are about."""
    medians = {
        name: tuple(statistics.median(column) for column in zip(*figures, strict=True))
        for name, figures in found.items()
    }
    print(f"{'':30}{'CPU s':>8}{'peak MB':>10}{'x stock':>9}   (second question: MB of its own)")
    for name, (seconds, memory) in medians.items():
        print(
            f"{name:30}{seconds:8.3f}{memory:10.0f}{medians[STOCK][0] / seconds if STOCK in medians else 0:9.1f}"
        )
    if not {"python", "import llama_index_presets", "rerank, ours", "import llama_index.core"} <= set(
        medians
    ):
        return
    bare = medians["import llama_index_presets"][0] - medians["python"][0]
    first = medians["rerank, ours"][0] - medians["import llama_index.core"][0]
    print(f"import llama_index_presets beyond Python: {bare * 1000:.0f} ms")
    print(f"first score of a cross-encoder beyond LlamaIndex's import: {first:.2f} s")


if __name__ == "__main__":
    main()
