"""Sources of documents: folders, URLs of fsspec, readers, data frames; what changed since the last run."""
