"""Where the time of a cold question goes: one question in a fresh process, step by step."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_index_presets.counting import counted
from llama_index_presets.diagnose.samples import SAMPLE_QUESTION, write_samples
from llama_index_presets.errors import PresetsError
from llama_index_presets.packages.command_process import run_as_command

__all__ = ["Step", "time_cold_question"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a cold question.

    Attributes:
        name: What is done.
        wall_s: Seconds that it took.
        cpu_s: Seconds of processor time, user and system, of all threads.
        rss_mb: Memory of the process afterwards, in MB; 0 where the system does not say.
    """

    name: str
    wall_s: float
    cpu_s: float
    rss_mb: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def time_cold_question(
    preset: str, *, storage: str | None = None, settings: Path | None = None, offline: bool = False
) -> list[Step]:
    """Ask one question in a fresh process, twice, and time each step.

    Args:
        preset: A row of the matrix.
        storage: An index to ask; None makes one of two short texts in a temporary folder first, untimed.
        settings: TOML file with settings.
        offline: As in `build`.

    Returns:
        The steps in their order; the last but one is their sum, the last the same question again.

    Raises:
        PresetsError: The process failed; says how.
    """
    with tempfile.TemporaryDirectory(prefix="llama-presets-time-") as folder:
        job = {
            "preset": preset,
            "storage": storage or str(Path(folder) / "storage"),
            "settings": None if settings is None else str(settings),
            "offline": offline,
        }
        if storage is None:
            _run("_prepare", {**job, "documents": str(write_samples(Path(folder)))})
        steps = [Step(**step) for step in _run("_measure", job)]
    *cold, again = steps
    whole = Step(
        "cold question", sum(s.wall_s for s in cold), sum(s.cpu_s for s in cold), max(s.rss_mb for s in cold)
    )
    return [*cold, whole, again]


def _run(function: str, job: dict[str, Any]) -> Any:
    code = f"from {__name__} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PresetsError(f"The question could not be timed: {lines[-1] if lines else 'the process ended'}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- in the fresh process ---------------------------------------------------------------------------------


class _Clock:
    """Times steps; the first one begins with the process."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._wall, self._cpu = time.perf_counter() - time.process_time(), 0.0

    def lap(self, name: str) -> None:
        """End a step, and begin the next."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.steps.append(Step(name, wall - self._wall, cpu - self._cpu, _rss_mb()))
        self._wall, self._cpu = wall, cpu


def _rss_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")  # Linux alone has it
    except OSError:
        return 0.0
    return next(
        (int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmRSS")), 0.0
    )


def _measure() -> None:
    """Time the steps of the job on standard input, and print them."""
    clock, job = _Clock(), json.loads(sys.stdin.read())
    run_as_command(brief=True)
    clock.lap("Python, and this package")
    with redirect_stdout(sys.stderr):
        _ask(clock, job)
    print(json.dumps([step.to_dict() for step in clock.steps]))  # noqa: T201 -- the answer to the parent


def _ask(clock: _Clock, job: dict[str, Any]) -> None:
    import llama_index.core  # noqa: F401 -- timed by itself

    clock.lap("import LlamaIndex")
    from llama_index_presets.presets.build import build

    clock.lap("import the engine")
    engine = build(job["preset"], storage=job["storage"], settings=job["settings"], offline=job["offline"])
    if engine.has_permissions:
        engine = engine.as_user(user="doctor", everything=True)
    clock.lap("import the parts, open the storage")
    engine.embed_model.get_query_embedding(SAMPLE_QUESTION)
    clock.lap("load the model, embed the question")
    hits = engine.retriever.retrieve(SAMPLE_QUESTION)
    clock.lap("first search")
    engine.query(SAMPLE_QUESTION)
    clock.lap(f"answer from {counted(len(hits), 'passage')}")
    engine.query(SAMPLE_QUESTION)
    clock.lap("second question")
    engine.close()


def _prepare() -> None:
    """Make an index of the job's documents."""
    job = json.loads(sys.stdin.read())
    with redirect_stdout(sys.stderr):
        from llama_index_presets.presets.build import build

        with build(
            job["preset"], storage=job["storage"], settings=job["settings"], offline=job["offline"]
        ) as engine:
            engine.ingest(job["documents"])
    print("null")  # noqa: T201
