"""Hits in, the same hits out in a better order."""
