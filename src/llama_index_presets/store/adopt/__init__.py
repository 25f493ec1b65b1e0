"""Nodes that stock LlamaIndex adapters stored: read as they are, to be moved into a store of this package."""
