"""Draw what `make demo` prints as docs/images/demo.svg.

python docs/record_demo.py
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "demo.svg"


def main() -> None:
    """Run the demo and keep its picture."""
    run = subprocess.run(
        [sys.executable, "tools/demo.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text("$ make demo", style="bold green"))
    for line in run.stdout.splitlines():
        style = "bold cyan" if line.startswith("== ") else "dim" if line.startswith("  ") else ""
        console.print(Text(line.replace(str(ROOT), "."), style=style))
    svg = console.export_svg(title="llama-index-presets")
    # The exported picture would fetch a font from a server; any monospace font does.
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
