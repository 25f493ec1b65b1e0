"""Process of a command of ours, without code of an application: how it imports packages, whether it ends soon."""

from __future__ import annotations

import logging

from llama_index_presets.packages.imports_by_name import import_by_name
from llama_index_presets.packages.stand_ins import stand_in

__all__ = ["is_brief", "run_as_command"]

_brief = False


def run_as_command(*, brief: bool = False) -> None:
    """Say that this process is a command of ours, which decides how its modules are imported.

    Args:
        brief: It asks its models a few times and ends, so that preparing them for many runs does not pay.
    """
    global _brief
    _brief = brief
    # lancedb annotates with the models of a REST client that it does not ask: a second of a cold question.
    stand_in("lance_namespace_urllib3_client")
    import_by_name("llama_index.core")  # of its 400 modules a question needs 120
    logging.getLogger("llama_index.core").addHandler(logging.NullHandler())  # as its own __init__ does


def is_brief() -> bool:
    """Whether this process is a command of ours that asks its models a few times."""
    return _brief
