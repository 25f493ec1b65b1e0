"""Advice before and after a build: recommended presets, cost estimates, and export to plain code."""
