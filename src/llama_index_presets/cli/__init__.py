"""Command line. Commands that only read tables start fast: they never import LlamaIndex."""

from llama_index_presets.cli.app import app, main
from llama_index_presets.cli.commands import (
    ask,
    costs,
    doctor,
    estimate,
    evaluate,
    ingest,
    init,
    move,
    presets,
    preview,
    questions,
    recommend,
    serve,
    storage,
    tune,
    weights,
)

__all__ = [
    "app",
    "ask",
    "costs",
    "doctor",
    "estimate",
    "evaluate",
    "ingest",
    "init",
    "main",
    "move",
    "presets",
    "preview",
    "questions",
    "recommend",
    "serve",
    "storage",
    "tune",
    "weights",
]
