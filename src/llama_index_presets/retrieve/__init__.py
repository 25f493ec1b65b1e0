"""A query in, hits out, best first."""
