"""Consent to a cost before anything is sent: by the option --max-cost, or by a person at the terminal."""

from __future__ import annotations

import math
import sys
from decimal import Decimal

import typer

from llama_index_presets.cli.terminal import can_ask, is_terminal
from llama_index_presets.errors import BudgetExceededError, SettingsError

__all__ = ["agree_to_cost"]


def agree_to_cost(
    what: str, cost: Decimal | None, unpriced: str, *, max_cost: float | None, as_json: bool, cheaper: str
) -> None:
    """Go on where something is free or within --max-cost, else where a person agrees.

    Args:
        what: What would cost, as the beginning of a sentence, such as ``"Tuning"``.
        cost: An upper estimate in US dollars; None where a price is unknown.
        unpriced: Why it is unknown, such as ``"a model has no known price"``.
        max_cost: The option; None asks.
        as_json: Whether the output is for a program, which is not asked.
        cheaper: What to do where it is above the limit, in a sentence.

    Raises:
        BudgetExceededError: It is above the limit, or nobody has agreed.
    """
    if max_cost is not None and math.isnan(max_cost):
        raise SettingsError("--max-cost is nan; expected US dollars, 0 or more.")
    if cost == 0:
        return
    amount = f"an unknown amount ({unpriced})" if cost is None else f"at most about ${cost:.4f}"
    if max_cost is not None:
        if cost is None or cost > Decimal(str(max_cost)):
            raise BudgetExceededError(
                f"{what} would cost {amount}, and the limit is ${max_cost:g}. Nothing was sent. {cheaper}"
            )
        return
    if as_json or not is_terminal(sys.stderr) or not can_ask():
        raise BudgetExceededError(f"{what} would cost {amount}. Nothing was sent. Agree with --max-cost USD.")
    if not typer.confirm(f"{what} would cost {amount}. Go on?", err=True):
        raise BudgetExceededError("Nothing was sent.")
