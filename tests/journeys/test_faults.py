"""Kills in the middle of what writes: the short form of `benchmarks/faults/campaign.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults" / "campaign.py"


@pytest.mark.slow("nine processes are killed")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks a process for each fault")
def test_kills_lose_nothing_leave_nothing_over_and_make_nothing_unusable() -> None:
    """Three kills each of a first creation, a ledger and a keyword index; the script ends with 1 otherwise."""
    command = [sys.executable, str(CAMPAIGN), "--kills", "9", "--kills-only", "--seed", "7"]
    only = ["--only", "first creation,ledger,keyword index"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, *only], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "| all | 9 | 0 | 0 | 0 |" in done.stdout
