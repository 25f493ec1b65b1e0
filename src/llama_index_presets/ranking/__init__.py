"""Pure ranking arithmetic: fusion, BM25, maximal marginal relevance."""
