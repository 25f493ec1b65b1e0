"""Chunks that do not say what they are about: failures@20 of the default hybrid, with and without a title.

    python benchmarks/context.py --documents DIR [--questions benchmarks/context_questions.jsonl]
    python benchmarks/context.py --documents DIR --draft FILE

DIR holds the folders rfc, sec and clinical with the files that the questions name. A question names its document and
words of one sentence that does not name it; most were drafted by the rule of `draft`, those whose id begins with
"hand" were written by hand. It fails where none of the first 20 hits is of its document and holds its quote.

Files are ingested as they are ("today"), and with a title in their metadata made of the file's name; titles are
embedded and indexed with every chunk.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_index.core import Document

from llama_index_presets import build
from llama_index_presets.text.sentences import split_sentences

SUBJECTS = {
    "rfc/rfc1945.txt": "RFC 1945",
    "rfc/rfc2616.txt": "RFC 2616",
    "sec/3M_2018_10K.txt": "3M in 2018",
    "sec/BESTBUY_2023_10K.txt": "Best Buy in 2023",
}
PER_FILE, CLINICAL = 25, 60
DEPTH = 20


def files(folder: Path) -> list[Path]:
    clinical = sorted((folder / "clinical").glob("*.md"))
    return [*(folder / name for name in SUBJECTS), *clinical[:CLINICAL]]


def title_of(file: Path) -> str:
    """Words of a file's name, without numbers of a catalogue."""
    words = re.sub(r"[_\W]+", " ", file.stem)
    return re.sub(r"^(\w+) \d{7} ", "", words)


def plain(text: str) -> str:
    return " ".join(text.split())


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z][a-z-]{4,}", text.lower())


def draft(folder: Path) -> Iterator[dict[str, str]]:
    """Sentences that do not name their document, asked for by words that other documents hold too."""
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in files(folder)}
    holders = Counter(word for text in texts.values() for word in set(words_of(text)))
    rng = random.Random(0)
    for file, text in texts.items():
        name = file.relative_to(folder).as_posix()
        subject = SUBJECTS.get(name) or text.split("\n", 1)[0].strip("# ")
        own = set(words_of(subject))
        sentences = [plain(one) for one in split_sentences(text)]
        whole = plain(text)
        fit = [
            one
            for one in sentences
            if 60 < len(one) < 240
            and not own & set(words_of(one))
            and not one.startswith("#")
            and "...." not in one
            and whole.count(one) == 1
            and len(shared(one, holders)) >= 3
        ]
        for number, one in enumerate(rng.sample(fit, min(len(fit), PER_FILE if name in SUBJECTS else 1))):
            first, second, third = shared(one, holders)[:3]
            yield {
                "id": f"{file.stem}-{number}",
                "file": name,
                "question": f"What does {subject} say about {first}, {second} and {third}?"
                if name in SUBJECTS
                else f"{subject}: what about {first}, {second} and {third}?",
                "quote": one[:80],
            }


def shared(sentence: str, holders: Counter[str]) -> list[str]:
    """Its rarest words that at least two documents hold, rarest first."""
    words = [word for word in dict.fromkeys(words_of(sentence)) if holders[word] >= 2]
    return sorted(words, key=lambda word: holders[word])


def failures(questions: list[dict[str, str]], documents: list[Any]) -> dict[str, bool]:
    """Question id -> whether none of the first hits holds its quote."""
    settings = {"store": "duckdb", "top_k": DEPTH}
    found = {}
    with (
        tempfile.TemporaryDirectory() as storage,
        build("financial-documents", storage=storage, offline=True, settings=settings) as engine,
    ):
        engine.ingest(documents)
        for one in questions:
            hits = [hit.node for hit in engine.retriever.retrieve(one["question"])]
            name = Path(one["file"]).name
            found[one["id"]] = not any(
                node.metadata["file_name"] == name and one["quote"] in plain(node.text)
                for node in hits[:DEPTH]
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--questions", type=Path, default=Path(__file__).parent / "context_questions.jsonl")
    parser.add_argument(
        "--draft", type=Path, help="write drafted questions to this file, and measure nothing"
    )
    options = parser.parse_args()
    if options.draft:
        lines = [json.dumps(one, ensure_ascii=False) for one in draft(options.documents)]
        options.draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(lines)} questions")
        return
    questions = [json.loads(line) for line in options.questions.read_text(encoding="utf-8").splitlines()]
    given = [
        Document(
            text=file.read_text(encoding="utf-8", errors="replace"),
            doc_id=file.name,
            metadata={"file_name": file.name, "title": title},
            excluded_embed_metadata_keys=["file_name"] if title else ["file_name", "title"],
        )
        for title_on in (False, True)
        for file in files(options.documents)
        for title in [title_of(file) if title_on else ""]
    ]
    half = len(given) // 2
    for name, documents in (("today", given[:half]), ("title from the file's name", given[half:])):
        found = failures(questions, documents)
        groups = Counter(one["file"].split("/")[0] for one in questions if found[one["id"]])
        asked = Counter(one["file"].split("/")[0] for one in questions)
        by_group = ", ".join(f"{group} {groups[group]} of {count}" for group, count in asked.items())
        print(f"{name}: failures@{DEPTH} {sum(found.values())} of {len(questions)} ({by_group})", flush=True)


if __name__ == "__main__":
    main()
