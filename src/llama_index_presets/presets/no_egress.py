"""Run a preset where every address leads back to this machine, and say what it tried to reach.

Run as a program, this module is the child process that does the work inside the namespace.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_index_presets.errors import PresetsError
from llama_index_presets.presets.network_namespace import Watch, enter_network_namespace

__all__ = ["EgressReport", "run_without_network"]

_LONGEST_S = 1_800
_CONTROL = ("192.0.2.1", 443, "control.invalid")
"""An address and a name that are reserved for documentation and tests: that the watch sees them shows that it works."""
_SAMPLES = {
    "botulism.md": "# Botulism\n\n## Treatment\n\nBotulism is treated with an antitoxin, as early as possible.\n",
    "insulin.md": "# Insulin\n\n## Storage\n\nAn insulin pen in use is kept at room temperature for 28 days.\n",
}
_QUESTION = "How is botulism treated?"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressReport:
    """What a preset did without a network.

    Attributes:
        preset: Its name.
        steps: What was done: build, ingest, query, aquery, stream, close.
        documents: How many were ingested.
        attempts: What it tried to reach, each once, with ``packets``; empty is what one hopes for.
        error: What ended it early, in one line, or None.
    """

    preset: str
    steps: list[str]
    documents: int
    attempts: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def silent(self) -> bool:
        """Whether it did everything and tried to reach nothing."""
        return self.error is None and not self.attempts

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"silent": self.silent, **asdict(self)}


def run_without_network(
    preset: str,
    *,
    documents: Path | None = None,
    question: str | None = None,
    settings: Path | None = None,
    offline: bool = False,
) -> EgressReport:
    """Ingest and ask in a process of its own, in a network namespace, in a temporary folder.

    Args:
        preset: A row of the matrix.
        documents: A file or folder; None takes two short texts.
        question: What is asked; None takes one about these texts.
        settings: A TOML file.
        offline: See `build`; a preset with network services is only silent with it.

    Raises:
        PresetsError: No namespace can be made here, or its watch sees nothing.
    """
    task = {
        "preset": preset,
        "documents": str(documents.resolve()) if documents else None,
        "question": question or _QUESTION,
        "settings": str(settings.resolve()) if settings else None,
        "offline": offline,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # an embedded Postgres may run as another user
        done = subprocess.run(
            [sys.executable, "-m", __name__, folder],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        result = Path(folder) / "result.json"
        if not result.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PresetsError(f"The run without a network ended early (exit code {done.returncode}): {last}")
        found = json.loads(result.read_text(encoding="utf-8"))
    if "refused" in found:
        raise PresetsError(found["refused"])
    return EgressReport(**found)


# -- inside the namespace -----------------------------------------------------------------------------------------


def _child(folder: Path) -> None:
    task = json.loads(sys.stdin.read())
    result = folder / "result.json"
    try:
        enter_network_namespace()
    except PresetsError as error:
        result.write_text(json.dumps({"refused": str(error)}), encoding="utf-8")
        return
    with Watch() as control:
        _try_to_leave()
    steps: list[str] = []
    documents, ended = 0, None
    with Watch() as watch:
        try:
            documents = _work(task, folder, steps)
        except Exception as error:
            ended = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if {attempt.protocol for attempt in control.seen()} != {"tcp", "dns"}:
        found: dict[str, Any] = {
            "refused": "The watch did not see a connection made on purpose; nothing is shown."
        }
    else:
        attempts = [{**asdict(one), "packets": count} for one, count in sorted(watch.seen().items())]
        report = EgressReport(
            preset=task["preset"], steps=steps, documents=documents, attempts=attempts, error=ended
        )
        found = asdict(report)
    result.write_text(json.dumps(found), encoding="utf-8")


def _try_to_leave() -> None:
    address, port, name = _CONTROL
    with socket.socket() as outgoing:
        outgoing.settimeout(2)
        outgoing.connect_ex((address, port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        query.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", (address, 53))


def _work(task: dict[str, Any], folder: Path, steps: list[str]) -> int:
    from llama_index_presets.presets.build import build

    samples = folder / "documents"
    samples.mkdir()
    for name, text in _SAMPLES.items():
        (samples / name).write_text(text, encoding="utf-8")
    engine = build(
        task["preset"], storage=folder / "storage", offline=task["offline"], settings=task["settings"]
    )
    steps.append("build")
    with engine:
        report = engine.ingest(task["documents"] or samples, show_progress=False)
        steps.append("ingest")
        engine.query(task["question"])
        steps.append("query")
        asyncio.run(engine.aquery(task["question"]))
        steps.append("aquery")
        "".join(engine.stream(task["question"]).response_gen)
        steps.append("stream")
    steps.append("close")
    return report.documents


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
