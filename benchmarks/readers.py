"""Readers beside two peers a format, on the same files: what is missing, repeated, scrambled, unnamed, and CPU time.

    python benchmarks/readers.py [--peers-python PYTHON] [--files DIR] [--formats html,docx]

The fixtures of tests/fixtures/readers say what each file's text must hold, in reading order. A row of a table,
``name: value; name: value``, is counted as cells: a cell is named when name and value stand in one line. With --files,
the files of a folder are read, too: how many give a text, and in what time. PYTHON is an environment with
``markitdown[all]``, ``trafilatura`` and ``pdfplumber``; they are not dependencies. Every reader is a process that
stays; a file goes to one after the other, twice, and the second time is counted, in CPU time of that process.
"""

from __future__ import annotations

import argparse
import html
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]


def ours(path: Path) -> str:
    from llama_index_presets.ingest.read import read_file

    plain = read_file(path, "h").plain
    headings = dict(plain.headings)
    cuts = sorted({0, *headings, len(plain.text)})
    parts = zip(cuts, [*cuts[1:], len(plain.text)], strict=True)
    sections = (
        (headings.get(start, "").split(" > ")[-1], plain.text[start:end].strip()) for start, end in parts
    )
    return "\n".join(text if text.startswith(heading) else f"{heading}\n{text}" for heading, text in sections)


@cache
def converter() -> Any:
    from markitdown import MarkItDown

    return MarkItDown()


def markitdown(path: Path) -> str:
    return str(converter().convert(str(path)).text_content)


def trafilatura(path: Path) -> str:
    import trafilatura as library

    return library.extract(path.read_bytes(), include_tables=True) or ""


def pdfplumber(path: Path) -> str:
    import pdfplumber as library

    with library.open(path) as document:
        return "\n".join(page.extract_text() or "" for page in document.pages)


def llama_index(path: Path) -> str:
    from llama_index.core import SimpleDirectoryReader

    documents = SimpleDirectoryReader.load_file(path, lambda _: {}, {}, raise_on_error=True)
    return "\n".join(document.text for document in documents)


READERS: dict[str, Callable[[Path], str]] = {
    one.__name__: one for one in (ours, markitdown, trafilatura, pdfplumber, llama_index)
}
SECOND_PEER = {".html": "trafilatura", ".htm": "trafilatura", ".pdf": "pdfplumber"}
"""Suffix -> the peer beside MarkItDown; LlamaIndex's own reader for every other."""
ELSEWHERE = ("markitdown", "trafilatura", "pdfplumber")


@dataclass
class Score:
    """Sums over the files of one format."""

    files: int = 0
    refused: int = 0
    sentences: int = 0
    missing: int = 0
    repeated: int = 0
    scrambled: int = 0
    cells: int = 0
    unnamed: int = 0
    noise: int = 0
    cpu_ms: float = 0.0


class Worker:
    """A reader in a process of its own."""

    def __init__(self, python: str, name: str) -> None:
        self.name = name
        command = [python, __file__, "--worker", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def read(self, path: Path) -> tuple[str | None, float]:
        """Text, or None where it is refused, and CPU seconds."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["text"], answer["seconds"]

    def close(self) -> None:
        self._process.communicate()


def work(name: str) -> None:
    """Loop of a worker: a path a line in, a JSON object a line out."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        began = time.process_time()
        try:
            text: str | None = READERS[name](Path(line.strip()))
        except BaseException:
            text = None
        out.write(json.dumps({"text": text, "seconds": time.process_time() - began}) + "\n")
        out.flush()


def flat(text: str) -> str:
    """Words without the marks of Markdown, so that no reader is judged by them."""
    text = re.sub(r"[*_`#>|\\~\[\]]+", " ", html.unescape(text))
    return " ".join(re.sub(r"\s+([.,;:!?])", r"\1", text).split())


def count(
    text: str, sentences: Iterable[str], cells: Iterable[tuple[str, str]], absent: Iterable[str]
) -> Score:
    """Compare a text with what it must say."""
    sentences = list(sentences)
    prose = [flat(one) for one in sentences if not re.search(r"\w: \S", one)]
    pairs = [*cells, *(pair for one in sentences if one not in prose for pair in cells_of(one))]
    whole, lines = flat(text), [flat(line) for line in text.split("\n")]
    places = [whole.find(one) for one in prose]
    found = [place for place in places if place >= 0]
    return Score(
        files=1,
        sentences=len(prose),
        missing=places.count(-1),
        repeated=sum(whole.count(one) > 1 for one in prose),
        scrambled=sum(after < before for before, after in itertools.pairwise(found)),
        cells=len(pairs),
        unnamed=sum(
            not any(flat(name) in line and flat(value) in line for line in lines) for name, value in pairs
        ),
        noise=sum(flat(one) in whole for one in absent if len(flat(one)) > 2),
    )


def cells_of(row: str) -> Iterator[tuple[str, str]]:
    for part in row.split("; ") if re.search(r"\w: \S", row) else ():
        name, colon, value = part.partition(": ")
        if colon:
            yield name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--formats", default="")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    check = subprocess.run(
        [options.peers_python, "-c", f"import {', '.join(ELSEWHERE)}"], capture_output=True, text=True
    )
    if check.returncode:  # a peer that is missing is not a peer that reads nothing
        raise SystemExit(f"{options.peers_python} lacks a peer: {check.stderr.strip().splitlines()[-1]}")
    wanted = {f".{one}" for one in options.formats.split(",") if one}
    workers = {
        name: Worker(options.peers_python if name in ELSEWHERE else sys.executable, name) for name in READERS
    }
    fixtures(workers, wanted)
    if options.files:
        folder(workers, options.files, wanted)
        pages_a_second(options.files)
    for worker in workers.values():
        worker.close()


def pages_a_second(files: Path) -> None:
    """PDF pages a second beside the bare loop of the library that ours stands on, in CPU time, interleaved."""
    import pypdfium2

    from llama_index_presets.errors import IngestError
    from llama_index_presets.ingest.readers.pdf.reader import read_pdf

    seconds, pages = {"ours": 0.0, "bare loop": 0.0}, 0
    for path in sorted(files.rglob("*.pdf")):
        for warm in (True, False):
            began = time.process_time()
            try:
                read_pdf(path)
            except IngestError:
                break
            middle = time.process_time()
            document = pypdfium2.PdfDocument(path)
            texts = [page.get_textpage().get_text_range() for page in document]
            if not warm:
                pages += len(texts)
                seconds["ours"] += middle - began
                seconds["bare loop"] += time.process_time() - middle
    if pages:
        rates = {name: pages / max(spent, 1e-9) for name, spent in seconds.items()}
        print(
            f"PDF: {pages} pages, ours {rates['ours']:.0f} pages/s, pypdfium2's bare loop "
            f"{rates['bare loop']:.0f} pages/s, ratio {rates['bare loop'] / rates['ours']:.1f}"
        )


def readers_of(suffix: str) -> tuple[str, str, str]:
    return "ours", "markitdown", SECOND_PEER.get(suffix, "llama_index")


def fixtures(workers: dict[str, Worker], wanted: set[str]) -> None:
    from tests.fixtures.readers import all_fixtures

    scores: dict[tuple[str, str], Score] = defaultdict(Score)
    with tempfile.TemporaryDirectory() as temporary:
        for fixture in all_fixtures():
            path = fixture.write(Path(temporary))
            if wanted and path.suffix not in wanted:
                continue
            for name in readers_of(path.suffix):
                workers[name].read(path)
                text, seconds = workers[name].read(path)
                one = count(text or "", fixture.sentences, fixture.cells, fixture.absent)
                one.refused, one.cpu_ms = int(text is None), seconds * 1000
                add(scores[path.suffix, name], one)
                add(scores["all", name if name in ("ours", "markitdown") else "second peer"], one)
    print(f"{'format':9} {'reader':12} files refused | missing/sentences repeated scrambled", end=" | ")
    print("unnamed/cells noise | CPU ms")
    for (suffix, name), one in sorted(scores.items(), key=lambda item: (item[0][0] != "all", item[0][0])):
        print(
            f"{suffix:9} {name:12} {one.files:5} {one.refused:7} | {one.missing:7}/{one.sentences:<9} {one.repeated:8} "
            f"{one.scrambled:9} | {one.unnamed:7}/{one.cells:<5} {one.noise:5} | {one.cpu_ms:8.1f}"
        )


def add(total: Score, one: Score) -> None:
    for field in fields(Score):
        setattr(total, field.name, getattr(total, field.name) + getattr(one, field.name))


def folder(workers: dict[str, Worker], files: Path, wanted: set[str]) -> None:
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for path in sorted(files.rglob("*")):
        suffix = path.suffix.lower()
        if not path.is_file() or (wanted and suffix not in wanted):
            continue
        for name in readers_of(suffix):
            text, seconds = workers[name].read(path)
            for key in (suffix, "all"):
                total = sums[key, name if key != "all" or name in ("ours", "markitdown") else "second peer"]
                for place, value in enumerate((1, bool(text and text.strip()), len(text or ""), seconds)):
                    total[place] += value
    print(f"\n{'format':9} {'reader':12} files with text characters CPU s")
    for (suffix, name), (number, texts, characters, seconds) in sorted(
        sums.items(), key=lambda item: item[0][0]
    ):
        print(f"{suffix:9} {name:12} {number:5} {texts:9} {characters:10,} {seconds:6.2f}")


if __name__ == "__main__":
    main()
