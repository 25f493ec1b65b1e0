"""Evaluation of engines on labelled questions."""
