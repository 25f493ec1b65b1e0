"""Questions about the sections of a numbered plain text, with its headings read as such and without.

    python benchmarks/text_sections.py --rfc FILE

FILE is RFC 2616, of which each status code, header field and method has a section. Offline preset `financial-documents`
(hybrid, DuckDB). Printed: how often the first hit begins in the section that the question names, nDCG@10 of the first
such hit, how many questions are answered, and how often the first quoted words stand in that section.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from llama_index.core.schema import QueryBundle

from llama_index_presets import build
from llama_index_presets.ingest.readers import text as reader

WORDINGS = (
    (r"10\.\d\.\d+", "What does {} mean?"),
    (r"14\.\d+", "What is the {} header field used for?"),
    (r"9\.[2-9]", "What does the {} method do?"),
    (r"13\.\d+(?:\.\d+)?", "What is said about {}?"),
)
Asked = tuple[str, int, int]
"""A question, and where its section begins and ends."""


def questions(file: Path) -> Iterator[Asked]:
    plain, _ = reader.read_text(file)
    ends = [start for start, _ in plain.headings[1:]] + [plain.length]
    for (start, path), end in zip(plain.headings, ends, strict=True):
        number, title = path.split(" > ")[-1].split(" ", 1)
        wording = next((text for pattern, text in WORDINGS if re.fullmatch(pattern, number)), None)
        if wording:
            yield wording.format(title), start, end


def measure(file: Path, asked: list[Asked]) -> str:
    first = answered = quoted = 0
    gain = 0.0
    settings = {"store": "duckdb"}
    with (
        tempfile.TemporaryDirectory() as folder,
        build("financial-documents", storage=folder, offline=True, settings=settings) as engine,
    ):
        engine.ingest([file])
        for question, start, end in asked:
            found = [hit.node.metadata for hit in engine.retrieve(QueryBundle(question))]
            inside = [
                place
                for place, one in enumerate(found, 1)
                if one["char_start"] < end and one["char_end"] > start
            ]
            first += inside[:1] == [1]
            gain += 1 / math.log2(inside[0] + 1) if inside and inside[0] <= 10 else 0
            response = engine.query(question)
            answered += response.metadata["known"]
            spans = [one["span"] for one in response.metadata["citations"] if one.get("span")]
            quoted += bool(response.metadata["known"] and spans and start <= spans[0][0] < end)
    return f"first hit {first}, nDCG@10 {gain / len(asked):.3f}, answered {answered}, quoted from it {quoted}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rfc", type=Path, required=True)
    file = parser.parse_args().rfc
    asked = list(questions(file))
    print(f"{len(asked)} questions", flush=True)
    print("with headings:   ", measure(file, asked), flush=True)
    with patch.object(reader, "numbered_headings", lambda _: ()):
        print("without headings:", measure(file, asked), flush=True)


if __name__ == "__main__":
    main()
