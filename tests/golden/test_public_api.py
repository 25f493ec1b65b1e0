"""The public surface: every root name with the signatures of what it can do, as a file that is reviewed like code.

``UPDATE_GOLDEN=1 pytest tests/golden`` rewrites it.
"""

from __future__ import annotations

import inspect
from typing import Any

from tests.golden.test_golden import compare

import llama_index_presets


def parameters(function: Any) -> str:
    """Names, kinds and defaults; annotations are the type checker's business."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def surface(thing: Any) -> Any:
    """A function's parameters; a class's own public methods and properties, those that it inherits from us included."""
    if not inspect.isclass(thing):
        return parameters(thing) if callable(thing) else type(thing).__name__
    ours = [base for base in thing.__mro__ if base.__module__.startswith("llama_index_presets")]
    members: dict[str, str] = {"__init__": parameters(thing.__init__)}
    for base in reversed(ours):
        for name, member in vars(base).items():
            if not name.startswith("_") and name != "model_config":
                function = getattr(member, "__func__", member)
                members[name] = parameters(function) if callable(function) else "property"
    return dict(sorted(members.items()))


def test_the_public_surface_is_the_reviewed_one() -> None:
    """Root names, methods and their keywords: what users call, so what no change may lose unseen."""
    compare(
        "public_api",
        {name: surface(getattr(llama_index_presets, name)) for name in sorted(llama_index_presets.__all__)},
    )
