"""Embedding stage: text in, unit vectors out."""
