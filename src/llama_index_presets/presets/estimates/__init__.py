"""Estimates before anything is paid: models used, ingestion, answers."""
