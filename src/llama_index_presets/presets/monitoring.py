"""Start what a monitoring level promises."""

from __future__ import annotations

from contextlib import ExitStack

from llama_index_presets.monitor.handler import CostTrackingHandler
from llama_index_presets.monitor.ledger import Ledger
from llama_index_presets.monitor.logs import JsonLog
from llama_index_presets.presets.storage import Storage

__all__ = ["start_monitoring"]


def start_monitoring(level: str, storage: Storage, opened: ExitStack) -> Ledger:
    """Open the ledger, and whatever else the level has.

    Args:
        level: Key of `parts.MONITORING`.
        storage: Where the files lie.
        opened: Takes what must be closed.
    """
    ledger = Ledger(storage.ledger)
    opened.callback(ledger.close)
    if level == "local":
        opened.callback(JsonLog(ledger, to=storage.logs).close)
    handler = CostTrackingHandler(ledger, scope="bound").instrument()
    opened.callback(handler.close)
    return ledger
