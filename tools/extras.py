"""Table of extras: how many packages each brings and how much room they take, put into docs/reference/extras.md.

    python tools/extras.py             # resolve and install every extra afresh (minutes, needs the package index)
    python tools/extras.py --counts    # resolve alone: sizes are taken over where the packages are the same
    python tools/extras.py --render    # write docs/reference/extras.md's table from the record again

`uv pip compile` resolves for Linux x86-64 without regard to constraints.txt: what a user gets today. Sizes are those of
the installed files. The record is benchmarks/results/extras.json; tests/unit/test_package_metadata.py holds the page
and pyproject.toml to it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "results" / "extras.json"
PAGE = ROOT / "docs" / "reference" / "extras.md"
BEGIN, END = "<!-- extras: made by tools/extras.py -->", "<!-- end of extras -->"
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"
CORE, BASE = "llama-index-core alone", "no extra"
FOR_DEVELOPERS = {"dev"}
TOGETHER = ("healthcare,offline",)
"""Extras that are installed together, beside each by itself."""


def declared() -> dict[str, list[str]]:
    """Extra -> what it asks for, of pyproject.toml; the base under `BASE`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {name: sorted(wanted) for name, wanted in project["optional-dependencies"].items()}
    return {BASE: sorted(project["dependencies"])} | extras


def rows() -> list[str]:
    """What the table has a row for."""
    extras = [name for name in declared() if name not in FOR_DEVELOPERS and name != BASE]
    return [CORE, BASE, *extras, *TOGETHER]


def resolve(row: str, out: Path) -> list[str]:
    """Resolve a row with the newest of everything; gives ``name==version`` lines."""
    extras = [] if row in (CORE, BASE) else [part for name in row.split(",") for part in ("--extra", name)]
    source = ROOT / "pyproject.toml"
    if row == CORE:
        source = out.with_suffix(".in")
        source.write_text("llama-index-core\n", encoding="utf-8")
    flags = ["--no-header", "--no-annotate", "--python-version", PYTHON, "--python-platform", PLATFORM]
    run("uv", "pip", "compile", "--quiet", *flags, *extras, str(source), "--output-file", str(out))
    return sorted(line for line in out.read_text("utf-8").splitlines() if "==" in line)


def size_mb(requirements: Path, folder: Path) -> int | None:
    """Size of the installed files of resolved requirements, in MB (10^6 bytes); None where one has to be compiled."""
    flags = ["--no-deps", "--only-binary", ":all:", "--python-version", PYTHON, "--python-platform", PLATFORM]
    try:
        run("uv", "pip", "install", "--quiet", *flags, "--target", str(folder), "-r", str(requirements))
        files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
        return round(sum(file.stat().st_size for file in files) / 1e6)
    except subprocess.CalledProcessError:
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str) -> None:
    """Run a command of the environment that this script runs in."""
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.exists() else command[0]
    subprocess.run([program, *command[1:]], check=True)


def measure(*, sizes: bool) -> dict[str, Any]:
    """Resolve every row, and install those whose packages changed."""
    before = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {"rows": {}}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for row in rows():
            out = Path(temporary) / "requirements.txt"
            packages = resolve(row, out)
            old = before["rows"].get(row, {})
            mb = old.get("mb")
            if sizes and (mb is None or old.get("packages") != packages):
                mb = size_mb(out, Path(temporary) / "installed")
            found[row] = {"packages": packages, "mb": mb}
            print(f"{row}: {len(packages)} packages, {mb} MB", flush=True)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": date, "python": PYTHON, "platform": PLATFORM, "declared": declared(), "rows": found}


def table(record: dict[str, Any]) -> str:
    """The Markdown table of a record."""
    core = len(record["rows"][CORE]["packages"])
    lines = ["| extra | packages | beyond llama-index-core | MB on disk |", "|---|---|---|---|"]
    for row, found in record["rows"].items():
        name = row if row in (CORE, BASE) else f"`{row}`"
        count = len(found["packages"])
        lines.append(f"| {name} | {count} | {count - core} | {found['mb'] or '–'} |")
    note = (
        f"Resolved on {record['date']} for Python {record['python']}, Linux x86-64, the newest of everything."
    )
    return "\n".join([BEGIN, note, "", *lines, END])


def put_in(readme: str, made: str) -> str:
    """docs/reference/extras.md with the table in place of the old one."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(readme):
        raise SystemExit(f"docs/reference/extras.md has no {BEGIN}")
    return pattern.sub(lambda _: made, readme)


def main() -> None:
    """Measure, or render, and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", action="store_true", help="install nothing")
    parser.add_argument("--render", action="store_true", help="write the table from the record")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text("utf-8")) if options.render else measure(sizes=not options.counts)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(put_in(PAGE.read_text("utf-8"), table(record)), encoding="utf-8")


if __name__ == "__main__":
    main()
