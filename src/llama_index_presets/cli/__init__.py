"""Command line. Commands that only read tables start fast: they never import LlamaIndex."""

from llama_index_presets.cli import engines
from llama_index_presets.cli.app import app, main
from llama_index_presets.cli.commands import (
    answers,
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
    questions,
    recommend,
    serve,
    tune,
    weights,
)

__all__ = [
    "answers",
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
    "questions",
    "recommend",
    "serve",
    "tune",
    "weights",
]
