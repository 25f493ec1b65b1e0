"""Metadata of documents: found, given, owned, permitted."""
