"""Contextual retrieval: a sentence of a language model that situates a chunk in its document."""
