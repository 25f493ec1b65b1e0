"""Advice before and after a build: which preset, at what cost, and plain code of it."""
