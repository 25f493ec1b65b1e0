"""Questions in ten languages: what the detectors, the keyword index and the default settings make of them.

    python benchmarks/languages.py

140 facts, 14 in each of ten languages, lie in one index (tests/fixtures/languages/facts.json, written for this). The
numbers are the questions of 14 whose fact comes first. "before" is what an index made for English did: the English
analyzer for every word, and no keyword search beside the vectors of the model. Peers that are installed are asked, too.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_index.core import Document
from llama_index.core.schema import QueryBundle, TextNode

from llama_index_presets import BM25Index, ExtractiveLLM, PresetEngine, build
from llama_index_presets.text.languages import detect_language

FACTS = json.loads(
    (Path(__file__).parents[1] / "tests/fixtures/languages/facts.json").read_text(encoding="utf-8")
)
TEXTS = {f"{code}-{n}": text for code, pairs in FACTS.items() for n, (text, _) in enumerate(pairs)}


def line(name: str, right: Callable[[str, str], Any], *, cpu: bool = False) -> None:
    """Print one row: of each language, for how many questions `right(question, wanted id)` holds."""
    began = time.process_time()
    counts = [
        sum(bool(right(question, f"{code}-{n}")) for n, (_, question) in enumerate(pairs))
        for code, pairs in FACTS.items()
    ]
    spent = f"{(time.process_time() - began) / len(TEXTS) * 1e3:8.2f} ms" if cpu else ""
    print(f"{name:<38}" + "".join(f"{count:>5}" for count in counts) + f"{sum(counts):>7}{spent}", flush=True)


def detectors() -> None:
    """Which language a question is in."""
    detect_language("Wie oft?" * 3)  # reads the model
    line("ours (script, words, py3langid)", lambda q, i: detect_language(q) == i[:2], cpu=True)
    from py3langid import classify

    line("py3langid alone", lambda q, i: classify(q)[0] == i[:2], cpu=True)
    if importlib.util.find_spec("langdetect"):
        from langdetect import detect

        line("langdetect", lambda q, i: detect(q)[:2] == i[:2], cpu=True)
    if importlib.util.find_spec("lingua"):
        from lingua import LanguageDetectorBuilder

        lingua = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

        def named(question: str, wanted: str) -> bool:
            found = lingua.detect_language_of(question)
            return found is not None and found.iso_code_639_1.name.lower() == wanted[:2]

        line("lingua, all models in memory", named, cpu=True)


def keywords() -> None:
    """The keyword index alone."""
    for language in ("english", "auto"):
        index = BM25Index(language=language)
        index.add([TextNode(id_=name, text=text) for name, text in TEXTS.items()])
        line(f"BM25Index, {language}", lambda q, i, index=index: [n for n, _ in index.search(q, 1)] == [i])


def engines() -> None:
    """The presets, from question to cited answer."""
    for pattern in ("simple", "hybrid"):
        with (
            tempfile.TemporaryDirectory() as folder,
            build("healthcare", storage=folder, settings={"pattern": pattern}) as engine,
        ):
            engine.ingest(
                [Document(text=text, id_=name) for name, text in TEXTS.items()], show_progress=False
            )
            before = PresetEngine(replace(engine._parts, fallback=None))
            before.synthesizer._llm = ExtractiveLLM(language="english")
            line(f"{pattern}: found, before", lambda q, i, e=before: found(e, q) == i)
            line(f"{pattern}: answered, before", lambda q, i, e=before: answered(e, q) == i)
        with (
            tempfile.TemporaryDirectory() as folder,
            build("healthcare", storage=folder, settings={"pattern": pattern}) as engine,
        ):
            engine.ingest(
                [Document(text=text, id_=name) for name, text in TEXTS.items()], show_progress=False
            )
            line(f"{pattern}: found", lambda q, i, e=engine: found(e, q) == i)
            line(f"{pattern}: answered and cited", lambda q, i, e=engine: answered(e, q) == i)


def found(engine: PresetEngine, question: str) -> str | None:
    """Document of the best passage."""
    hits = engine.retrieve(QueryBundle(question))
    return hits[0].node.ref_doc_id if hits else None


def answered(engine: PresetEngine, question: str) -> str | None:
    """Document that a known answer cites first."""
    metadata = engine.query(question).metadata or {}
    cited = metadata["citations"]
    return cited[0]["source"] if metadata["known"] and cited else None


if __name__ == "__main__":
    print(f"{'questions of 14':<38}" + "".join(f"{code:>5}" for code in FACTS) + f"{'all':>7}")
    detectors()
    keywords()
    engines()
