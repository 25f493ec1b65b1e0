"""Command line. Commands that only read tables start fast: they never import LlamaIndex."""

from llama_index_presets.cli import engines
from llama_index_presets.cli.app import app, main
from llama_index_presets.cli.commands import (
    citation,
    compact,
    costs,
    doctor,
    eject,
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
