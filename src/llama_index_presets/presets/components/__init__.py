"""Components of an engine, made as its settings say: retrieval, monitoring, answers."""
