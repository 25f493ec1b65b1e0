"""Chunks that do not say what they are about: failures of the default hybrid, by `chunk_context`.

    python benchmarks/context.py --documents DIR [--questions benchmarks/context_questions.jsonl]
    python benchmarks/context.py --documents DIR --draft FILE

DIR holds the folders rfc, sec and clinical with the files that the questions name. A question names its document and
words of one sentence that does not name it; most were drafted by the rule of `draft`, those whose id begins with
"hand" were written by hand. It fails where none of the first 20 hits is of its document and holds its quote.

Files are ingested as they are, once for each value of the setting ``chunk_context``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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


def plain(text: str) -> str:
    """Words, without marks of lists, which readers take away."""
    return " ".join(word for word in text.split() if word not in ("-", "*", "•"))


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


def ranks(
    questions: list[dict[str, str]], paths: list[Path], context: str, storage: Path
) -> tuple[list[int | None], int]:
    """Place of the first hit that holds each question's quote, from 1, None beyond the first `DEPTH`; and chunks."""
    cache = str(storage.parent / "embeddings")
    settings = {"store": "duckdb", "top_k": DEPTH, "chunk_context": context, "embedding_cache": cache}
    with build("financial-documents", storage=storage, offline=True, settings=settings) as engine:
        chunks = engine.ingest(paths).chunks
        found = []
        for one in questions:
            hits = [hit.node for hit in engine.retriever.retrieve(one["question"])]
            name = Path(one["file"]).name
            places = (
                place
                for place, node in enumerate(hits[:DEPTH], 1)
                if node.metadata["file_name"] == name and plain(one["quote"]) in plain(node.text)
            )
            found.append(next(places, None))
    return found, chunks


def shortened(paths: list[Path], questions: list[dict[str, str]], around: int, folder: Path) -> list[Path]:
    """Copies of the files with their beginning and so many characters around each quote: distractors of one kind."""
    made = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        kept = [(0, around)]
        for one in questions:
            pattern = r"\s+".join(map(re.escape, one["quote"].split()))
            if Path(one["file"]).name == path.name and (place := re.search(pattern, text)):
                kept.append((max(place.start() - around, 0), place.end() + around))
        parts, end = [], 0
        for first, last in sorted(kept):
            parts.append(text[max(first, end) : last])
            end = max(end, last)
        made.append(folder / path.name)
        made[-1].write_text("".join(parts), encoding="utf-8")
    return made


def failures(places: list[int | None], depth: int) -> int:
    return sum(place is None or place > depth for place in places)


def ndcg(places: list[int | None]) -> float:
    return statistics.fmean(1 / math.log2(place + 1) if place and place <= 10 else 0.0 for place in places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--questions", type=Path, default=Path(__file__).parent / "context_questions.jsonl")
    parser.add_argument("--around", type=int, help="keep of each file so many characters around its quotes")
    parser.add_argument("--contexts", nargs="+", default=["none", "title", "lead"])
    parser.add_argument("--storage", type=Path, help="keep the indexes in this folder")
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
    paths = files(options.documents)
    if options.around:
        copies = (options.storage or Path(tempfile.mkdtemp())) / "files"
        copies.mkdir(parents=True, exist_ok=True)
        paths = shortened(paths, questions, options.around, copies)
    groups = list(dict.fromkeys(one["file"].split("/")[0] for one in questions))
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(questions)} questions, {len(paths)} files, {size:,} bytes", flush=True)
    print("| chunk_context | of | chunks | failures@20 | failures@5 | nDCG@10 |\n|---|---|---|---|---|---|")
    for context in options.contexts:
        with tempfile.TemporaryDirectory() as folder:
            places, chunks = ranks(questions, paths, context, (options.storage or Path(folder)) / context)
        for group in ["all", *groups]:
            own = [
                place
                for place, one in zip(places, questions, strict=True)
                if group in ("all", one["file"].split("/")[0])
            ]
            print(
                f"| {context} | {group} ({len(own)}) | {chunks if group == 'all' else ''} | {failures(own, 20)} "
                f"| {failures(own, 5)} | {ndcg(own):.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
