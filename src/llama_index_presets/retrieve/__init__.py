"""Retrieve stage: a query in, hits out, best first.

BM25Index              nodes by their words, on disk, changed node by node, filtered before ranking
HybridFusionRetriever  several retrievers at once, fused by node id, each hit with its history
FilteredQuery          a query with metadata filters of its own
check_consistency      compare a keyword index with the store beside it, and repair it
"""

from __future__ import annotations

from llama_index_presets.packages.lazy_names import lazy_names

__all__ = ["BM25Index", "FilteredQuery", "HybridFusionRetriever", "check_consistency"]

_PUBLIC = {
    "BM25Index": "bm25.index",
    "FilteredQuery": "filtered_query",
    "HybridFusionRetriever": "hybrid",
    "check_consistency": "bm25.consistency",
}
__getattr__ = lazy_names(__name__, _PUBLIC)  # LlamaIndex takes more than a second to import
