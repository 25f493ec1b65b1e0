"""What budgets have spent and hold, in one small file that the processes of a ledger share under a lock."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any, Final

from llama_index_presets.disk_faults import is_full
from llama_index_presets.errors import MonitorError
from llama_index_presets.monitor.journal import journal_folder, locked
from llama_index_presets.private_files import private_folder, private_open

__all__ = ["BudgetState", "Shares"]

_PATIENCE_S: Final = 10.0
_LAPSE_S: Final = 900.0
"""A reservation whose process died lapses after this long, in seconds."""
_FORGET_S: Final = 70 * 86_400.0
_FORGET_QUERY_S: Final = 86_400.0


class Shares:
    """The sums of all budgets while the lock is held."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._spent: dict[str, list[Any]] = content.get("spent", {})
        self._holds: dict[str, list[Any]] = content.get("holds", {})
        self.factors: dict[str, str] = content.get("factors", {})

    def begin(self, key: str, spent: Decimal) -> None:
        """Start a period with what the ledger says, unless another process has started it."""
        self._spent.setdefault(key, [str(spent), time.time()])

    def spent(self, key: str) -> Decimal:
        """Give what a period has cost, in USD."""
        return Decimal(self._spent[key][0]) if key in self._spent else Decimal(0)

    def held(self, key: str) -> Decimal:
        """Give what is held for calls under way in a period, in USD."""
        now = time.time()
        holds = (hold for hold in self._holds.values() if key in hold[1] and hold[2] > now)
        return sum((Decimal(hold[0]) for hold in holds), Decimal(0))

    def hold(self, call_id: str, keys: list[str], estimate: Decimal, factor: Decimal, model: str) -> None:
        """Hold dollars for a call: its estimate times what estimates of the model were too low by."""
        held = str(estimate * factor)
        self._holds[call_id] = [held, keys, time.time() + _LAPSE_S, model, str(estimate)]

    def drop(self, call_id: str) -> list[Any] | None:
        """Give up what is held for a call."""
        return self._holds.pop(call_id, None)

    def settle(self, call_id: str, keys: list[str], cost: Decimal) -> None:
        """Turn what is held for a call into what it cost; learn when the estimate was too low."""
        hold = self.drop(call_id)
        for key in dict.fromkeys([*keys, *(hold[1] if hold else ())]):
            if key in self._spent:
                self._spent[key][0] = str(self.spent(key) + cost)
        if hold and cost > (estimate := Decimal(hold[4])) > 0:
            factor = max(Decimal(self.factors.get(hold[3], "1")), cost / estimate)
            self.factors[hold[3]] = str(factor.quantize(Decimal("0.001"), ROUND_UP))

    def content(self) -> dict[str, Any]:
        """Give what is to be written, without what has lapsed."""
        now = time.time()
        self._holds = {call_id: hold for call_id, hold in self._holds.items() if hold[2] > now}
        self._spent = {
            key: value
            for key, value in self._spent.items()
            if now - value[1] < (_FORGET_QUERY_S if key.startswith("query=") else _FORGET_S)
            or key.startswith("ever=")
        }
        return {"spent": self._spent, "holds": self._holds, "factors": self.factors}


class BudgetState:
    """The file, its lock, and what this process remembers of it."""

    def __init__(self, ledger: Path) -> None:
        self._folder = journal_folder(ledger)
        self._path = self._folder / "budgets.json"
        self._mutex = threading.Lock()
        self._known: set[str] = set()

    def knows(self, key: str) -> bool:
        """Tell whether a period has been started."""
        return key in self._known and self._path.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[Shares]:
        """Read the file, let it be changed, and write it back, alone among threads and processes.

        Raises:
            MonitorError: The file cannot be written, was damaged, or its lock was held too long; a call that no
                budget could hold is not made.
        """
        with (
            _writable(self._folder),
            self._mutex,
            locked(self._folder / "budgets.lock", exclusive=True, timeout_s=_PATIENCE_S) as taken,
        ):
            if not taken:
                raise MonitorError(
                    f"The budget lock in '{self._folder}' was held for {_PATIENCE_S:.0f} s. "
                    "Expected microseconds; look for a process that hangs."
                )
            shares = Shares(self._read())
            yield shares
            self._write(shares.content())

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            self._known.clear()
            return {}
        except ValueError as error:  # a crash of the machine; the ledger knows what was spent
            self._path.unlink()
            self._known.clear()
            raise MonitorError(
                f"The sums of the budgets in '{self._path}' were damaged ({error}). Expected JSON; the file was "
                "deleted, and the next call sums up the ledger again."
            ) from error
        return content

    def _write(self, content: dict[str, Any]) -> None:
        draft = self._folder / "budgets.draft"
        with private_open(draft, "w", encoding="utf-8") as file:
            file.write(json.dumps(content))
        draft.replace(self._path)
        self._known = set(content["spent"])


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        private_folder(folder)
        yield
    except OSError as error:
        step = "Free space on its disk" if is_full(error) else "Make the folder writable"
        raise MonitorError(
            f"The sums of the budgets in '{folder}' cannot be written: {error}. {step}: without them no call can be "
            "held to its budget."
        ) from error
