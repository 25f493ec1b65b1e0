"""Wrong and right hits of the answer cache, and of one that goes by the closeness of vectors.

    python benchmarks/answer_cache.py

Each pair of `tests/question_pairs.py` is asked of an engine over one passage, so that every question finds the same
passages and only the questions tell the answers apart. The peer is the rule of semantic caches (GPTCache and its like):
a hit where the cosine of two questions reaches a threshold, with the local model of the presets.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from llama_index.core import Document

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fakes import ScriptedLLM, WordEmbedding
from tests.question_pairs import different_pairs, same_pairs

from llama_index_presets import build
from llama_index_presets.embed.local.embedding import LocalEmbedding

THRESHOLDS = (0.8, 0.9, 0.95, 0.98)


class Quiet(ScriptedLLM):
    """Remembers no prompt, so that equal engines have equal models."""

    def to_dict(self, **kwargs: object) -> dict[str, object]:
        return {**super().to_dict(**kwargs), "prompts": []}


def ours(pairs: list[tuple[str, str]]) -> tuple[int, float]:
    """Hits of the second question of each pair after the first, and CPU seconds."""
    settings = {"answer_cache": "on", "store": "duckdb", "answer_floor": -1.0, "monitoring": "basic"}
    begun, hits = time.process_time(), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        build(
            "knowledge-base", storage=folder, llm=Quiet(), embed_model=WordEmbedding(), settings=settings
        ) as engine,
    ):
        engine.ingest([Document(text="Everything is said in this one passage.", id_="all")])
        for first, second in pairs:
            engine._parts.answers.clear()
            engine.query(first)
            hits += "cached" in engine.query(second).metadata
    return hits, time.process_time() - begun


def peer(pairs: list[tuple[str, str]]) -> tuple[dict[float, int], float]:
    """Hits by threshold, and CPU seconds."""
    begun = time.process_time()
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    model = LocalEmbedding()
    vectors = dict(zip(texts, np.asarray([model.get_query_embedding(text) for text in texts]), strict=True))
    cosines = [
        float(vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]))
        for a, b in pairs
    ]
    return {t: sum(cosine >= t for cosine in cosines) for t in THRESHOLDS}, time.process_time() - begun


def main() -> None:
    """Print the counts."""
    print(f"{'pairs':28}{'n':>5}{'ours':>7}" + "".join(f"{f'cosine {t}':>13}" for t in THRESHOLDS))
    for name, pairs in (
        ("different: hits are wrong", different_pairs()),
        ("same: hits are right", same_pairs()),
    ):
        hits, spent = ours(pairs)
        others, others_spent = peer(pairs)
        print(f"{name:28}{len(pairs):5}{hits:7}" + "".join(f"{others[t]:13}" for t in THRESHOLDS))
        print(
            f"{'':28}CPU seconds: ours {spent:.1f} (two answers a pair), peer {others_spent:.1f} (vectors alone)"
        )


if __name__ == "__main__":
    main()
