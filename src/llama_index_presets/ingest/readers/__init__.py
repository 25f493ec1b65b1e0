"""Readers: a module a format, each a function from a path to plain text and metadata; `registry` is their table."""
