"""The command line. Commands that only read tables start fast: they never import LlamaIndex."""

from llama_index_presets.cli import costs, doctor, engines, estimate, evaluate, move, presets, recommend
from llama_index_presets.cli.app import app, main

__all__ = [
    "app",
    "costs",
    "doctor",
    "engines",
    "estimate",
    "evaluate",
    "main",
    "move",
    "presets",
    "recommend",
]
