"""Presets: the selection matrix, and the assembly of an engine from one of its rows."""
