"""Vector stores with one contract."""
