"""Ingestion into an engine: documents to chunks in its index, here or on a Ray cluster."""
