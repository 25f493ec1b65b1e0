"""Detector of instructions: false flags on documents of one's own, and planted instructions found in them.

    python benchmarks/injection.py FOLDER ... [--chunk 1000]

Prints, for each folder, the chunks flagged without anything planted, the planted ones found, and CPU per chunk.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.unit.answer.planted import DISGUISED, FAMILIES

from llama_index_presets.answer.injections.detector import find_instructions


def chunks_of(folder: Path, size: int) -> list[str]:
    """Stretches of the text files of a folder."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in (".txt", ".md")
    ]
    return [text[place : place + size] for text in texts for place in range(0, len(text), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--chunk", type=int, default=1000)
    options = parser.parse_args()
    planted = [text for texts in FAMILIES.values() for text in texts] + DISGUISED
    for folder in options.folders:
        chunks = chunks_of(folder, options.chunk)
        if not chunks:
            continue
        began = time.process_time()
        flagged = [found for chunk in chunks if (found := find_instructions(chunk))]
        cost = (time.process_time() - began) / len(chunks) * 1000
        families = Counter(one.family for found in flagged for one in found)
        hits = sum(
            bool(find_instructions(f"{chunks[i % len(chunks)]} {text}")) for i, text in enumerate(planted)
        )
        print(
            f"{folder.name}: {len(flagged)} of {len(chunks)} chunks flagged ({len(flagged) / len(chunks):.2%}) "
            f"{dict(families)}; planted found {hits} of {len(planted)}; {cost:.1f} ms CPU a chunk"
        )


if __name__ == "__main__":
    main()
