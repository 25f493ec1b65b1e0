"""Extractive answers to people's questions about ordinary documentation: how many are answered, and how many rightly.

    python benchmarks/answers_docs.py --docs DIR [--pattern simple] [--floor 0.64]

``answers_docs.jsonl`` has 260 questions, 40 answerable ones and 25 near ones that nobody answers about each of four
sets of pages: the documentation of HTTPX and Click, the handbook of Basecamp and the manual of Jellyfin. They were
written by somebody who had the pages and did not know how answers are found, a third in largely other words than the
pages'. The first line names repositories, commits and folders: DIR has a folder of each name with the pages, which are
not part of this repository. An answer is right if it holds one of the strings that an answer must have, letters and
digits alone compared; "closest" is the share of refused questions whose closest passages hold one, and
"reach a model" that of answerable ones for which a language model would be asked.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from llama_index_presets import build

QUESTIONS = Path(__file__).with_suffix(".jsonl")


def plain(text: str) -> str:
    """Letters and digits in small letters."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def holds(question: dict[str, Any], text: str) -> bool:
    """Whether a text has what an answer must have."""
    return any(plain(one) in plain(text) for one in question["must"])


def measure(
    pages: Path, asked: list[dict[str, Any]], storage: Path, options: argparse.Namespace
) -> dict[str, list[bool]]:
    """What became of each question."""
    preset = "healthcare" if options.pattern == "simple" else "financial-documents"
    settings: dict[str, Any] = (
        {"encryption": "off", "pii": "off"} if options.pattern == "simple" else {"verify_numbers": "off"}
    )
    if options.floor is not None:
        settings["min_confidence"] = options.floor
    found: dict[str, list[bool]] = {
        "answered": [],
        "right": [],
        "near": [],
        "closest": [],
        "reach a model": [],
    }
    with build(preset, storage=storage, offline=True, settings=settings) as engine:
        engine.ingest(str(pages), show_progress=False)
        for one in asked:
            response = engine.query(one["question"])
            known = bool(response.metadata["known"])
            if not one["answerable"]:
                found["near"].append(known)
                continue
            found["answered"].append(known)
            found["reach a model"].append(bool(response.source_nodes))
            found["right"].append(known and holds(one, str(response)))
            if not known:
                closest = response.metadata.get("closest", ())
                found["closest"].append(any(holds(one, passage["text"]) for passage in closest))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--docs", type=Path, required=True, help="a folder of pages for each set")
    parser.add_argument("--pattern", default="simple", choices=("simple", "hybrid"))
    parser.add_argument("--floor", type=float, help="min_confidence, in place of the calibration's")
    parser.add_argument("--storage", type=Path, help="keep the indexes here")
    options = parser.parse_args()
    sets, *asked = (json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines())
    storage = options.storage or Path(tempfile.mkdtemp())
    total: dict[str, list[bool]] = {}
    for name in sets:
        found = measure(
            options.docs / name,
            [one for one in asked if one["set"] == name],
            storage / f"{name}-{options.pattern}",
            options,
        )
        show(name, found)
        for key, values in found.items():
            total.setdefault(key, []).extend(values)
    show("all", total)


def show(name: str, found: dict[str, list[bool]]) -> None:
    """Print the shares."""
    shares = (f"{key} {sum(values) / max(len(values), 1):.3f}" for key, values in found.items())
    print(f"{name:10s} {', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
