"""Hits in, a cited answer out."""
