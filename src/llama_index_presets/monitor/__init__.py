"""Monitoring: cost, latency and errors of every model call."""
