"""Command line. Commands that only read tables start fast: they never import LlamaIndex."""

from llama_index_presets.cli import (
    citation,
    compact,
    costs,
    doctor,
    eject,
    engines,
    estimate,
    evaluate,
    init,
    key,
    move,
    presets,
    preview,
    recommend,
    serve,
    weights,
)
from llama_index_presets.cli.app import app, main

__all__ = [
    "app",
    "citation",
    "compact",
    "costs",
    "doctor",
    "eject",
    "engines",
    "estimate",
    "evaluate",
    "init",
    "key",
    "main",
    "move",
    "presets",
    "preview",
    "recommend",
    "serve",
    "weights",
]
