"""Callers: their keys, what they may read, how much they may ask."""
