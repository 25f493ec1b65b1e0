"""What the queries asked last have cost, and how long they waited for models: kept while their process lives. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from llama_index_presets.monitor.ledger.row import Call, covered_s, forget_oldest
from llama_index_presets.monitor.prices import price_key

__all__ = ["QuerySums"]

_REMEMBERED: Final = 1_024


class QuerySums:
    """Sums of the queries asked last.

    Attributes:
        costs: Query -> what its calls have cost, in USD; None is a cost that nobody knows.
        answering: The same of its calls of language models.
        unpriced: Query -> the models that no price is known for, as a price book names them.
    """

    def __init__(self) -> None:
        self.costs: OrderedDict[str, Decimal | None] = OrderedDict()
        self.answering: OrderedDict[str, Decimal | None] = OrderedDict()
        self.unpriced: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._loads: dict[str, list[tuple[float, float]]] = {}

    def add(self, batch: Iterable[Call]) -> None:
        """Add the cost of calls to those of their queries; by one thread at a time."""
        for call in batch:
            if call.query_id:
                _add_cost(self.costs, call)
                if call.kind == "llm":
                    _add_cost(self.answering, call)
                if call.cost_usd is None:
                    self.unpriced.setdefault(call.query_id, {})[price_key(call.provider, call.model)] = None
                    while len(self.unpriced) > _REMEMBERED:
                        self.unpriced.popitem(last=False)

    def note_load(self, call: Call) -> None:
        """Note that a query has waited for a model to be loaded."""
        if not call.query_id:
            return
        end = call.timestamp / 1e6
        self._loads[call.query_id] = [
            *self._loads.get(call.query_id, ()),
            (end - call.latency_ms / 1000, end),
        ]
        while len(self._loads) > _REMEMBERED:
            forget_oldest(self._loads)

    def loading_ms(self, query_id: str) -> float:
        """How long a query has waited for models to be loaded, in milliseconds."""
        return covered_s(self._loads.get(query_id, ()), 0.0) * 1000


def _add_cost(costs: OrderedDict[str, Decimal | None], call: Call) -> None:
    before = costs.pop(call.query_id, Decimal(0))
    costs[call.query_id] = None if before is None or call.cost_usd is None else before + call.cost_usd
    while len(costs) > _REMEMBERED:
        costs.popitem(last=False)
