"""Write the JSON schema of the project file, for editors: docs/llama-presets.schema.json.

python tools/project_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path

from llama_index_presets.presets.project.schema import project_schema

FILE = Path(__file__).parents[1] / "docs" / "llama-presets.schema.json"


def text() -> str:
    """The file's content."""
    return json.dumps(project_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"Written: {FILE.name}")
