"""Ingest stage: files and documents in, clean chunks out."""
