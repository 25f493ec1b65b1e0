"""Components of an engine, made as its settings say: models, retrieval, monitoring."""
