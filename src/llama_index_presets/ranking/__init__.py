"""Ranking arithmetic: fusion, BM25, maximal marginal relevance. Pure."""
