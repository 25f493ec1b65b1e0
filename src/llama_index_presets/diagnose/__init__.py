"""Checks of a machine, of an engine and of what leaves the machine."""
