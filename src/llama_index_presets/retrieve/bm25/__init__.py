"""BM25 index on disk: snapshot files, a write-ahead log and a retriever."""
