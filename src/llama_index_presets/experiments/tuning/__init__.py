"""Tuning of a preset: from a user's questions to the front of quality, latency and dollars."""
