"""Diagnostics: checks of the machine, of an engine, and of network traffic."""
