"""The real Phoenix server, from an environment of its own, with nothing open but loopback and nothing called home.

The environment is made once, with uv or pip, in the user's cache folder, and kept: Phoenix brings 150 packages that do
not resolve together with ours. Under `isolated` a command runs in a network namespace that has only loopback.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs
from tests.fixtures.package_index import skip_without_index

VERSION = "20.26.1"
"""The server that is tested; 20.3 to 20.9 cannot be imported on Python 3.11."""

SAFE = {
    "PHOENIX_HOST": "127.0.0.1",
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    "PHOENIX_ENABLE_MCP_SERVER": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
}
"""The settings of docs/how-to/phoenix.md."""


def executable() -> Path:
    """The command `phoenix`, installed when it is not there yet; skips the test where no package index answers."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    cache = os.environ.get("PRESETS_TEST_CACHE") or platformdirs.user_cache_dir("llama-index-presets-tests")
    folder = Path(cache) / f"phoenix-{VERSION}-{python}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "phoenix.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            (folder / "complete").touch()
    return folder / "bin" / "phoenix"


def _install(folder: Path) -> None:
    wanted, python = f"arize-phoenix=={VERSION}", str(folder / "bin" / "python")
    if subprocess.run([sys.executable, "-m", "uv", "--version"], capture_output=True).returncode == 0:
        uv = [sys.executable, "-m", "uv"]
        steps = [
            [*uv, "venv", "--python", sys.executable, str(folder)],
            [*uv, "pip", "install", "--python", python, wanted],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [python, "-m", "pip", "install", "--quiet", wanted],
        ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, timeout=500)
        skip_without_index(done)
        assert done.returncode == 0, done.stderr[-2000:]


def isolated(command: Sequence[str]) -> list[str]:
    """The command in a network namespace with loopback alone, where the system allows one; else as it is."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    allowed = unshare and ip and os.geteuid() == 0
    if allowed and subprocess.run([str(unshare), "-n", "true"], capture_output=True).returncode == 0:
        return [str(unshare), "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    return list(command)


class Phoenix:
    """A running server; a context manager.

    Args:
        command: From `executable`.
        folder: Where its database lies.
    """

    def __init__(self, command: Path, folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._port, self._grpc = _free_port(), _free_port()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str) -> Any:
        """A document of its REST API."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def ask(self, query: str) -> Any:
        """An answer of its GraphQL API."""
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]

    def __enter__(self) -> Phoenix:
        """Start it and wait until it answers."""
        own = {
            **SAFE,
            "PHOENIX_PORT": str(self._port),
            "PHOENIX_GRPC_PORT": str(self._grpc),
            "PHOENIX_WORKING_DIR": str(self._folder),
        }
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PHOENIX_", "PYTHON"))
        }
        self._log = (self._folder / "phoenix.log").open("w")
        self._process = subprocess.Popen(
            [str(self._command), "serve"], env=inherited | own, stdout=self._log, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + 240
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise RuntimeError((self._folder / "phoenix.log").read_text()[-3000:])
            time.sleep(0.3)
        return self

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2):
                return True
        except OSError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
