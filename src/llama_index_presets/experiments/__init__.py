"""Experiments with engines: evaluation and reranking on labelled questions."""
