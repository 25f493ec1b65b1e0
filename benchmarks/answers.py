"""Answers without a language model: found when they are there, refused when they are not, cited to the right passage.

    python benchmarks/answers.py --data DIR [--pattern simple] [--embedding NAME] [--fit] [--figure FILE.svg]

DIR holds squad-xquad-en (BEIR layout, gold strings in the queries' metadata), documents/clinical, and other
collections whose questions are far from both. Every fifth of the 240 SQuAD paragraphs is held out: questions about it
are near, and cannot be answered. Of the clinical pages every fifth is held out likewise; their questions are ours, in
other words than the headings. A question about a disease whose page is held out is near when no other page names the
disease, and "mentioned" when one does, since that page may well answer it. Everything runs through `build`; ``--fit``
fits the calibrations on each collection and on both, and reports each on the other.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core import Document
from llama_index.core.schema import QueryBundle

from llama_index_presets import ExtractiveLLM, build
from llama_index_presets.answer.synthesize import CitedSynthesizer

WORDINGS = (
    (
        r"prevent",
        (
            "How can I avoid getting {t}?",
            "Is there a way to keep from catching {t}?",
            "What protects against {t}?",
        ),
    ),
    (r"treatment", ("How is {t} treated?", "What helps against {t}?", "Which medicines are given for {t}?")),
    (r"symptom", ("How do I notice that I have {t}?", "What are signs of {t}?", "What does {t} feel like?")),
    (
        r"diagnos",
        (
            "Is there a test for {t}?",
            "How do doctors find out whether somebody has {t}?",
            "How is {t} detected?",
        ),
    ),
    (r"at risk", ("Who gets {t}?", "Which people are most likely to develop {t}?")),
    (r"^what causes", ("Why does somebody get {t}?", "Where does {t} come from?", "What leads to {t}?")),
    (r"^what (?:is|are) (?!the )", ("Can you explain {t}?", "What does {t} mean?", "Tell me what {t} is.")),
)
NOT_A_DISEASE = re.compile(
    "Prevent diabetes|Causes of|Lower My Risk|Diagnosis of|Steps|What I need|Monitor|Financial|Pituitary Program|^$"
)


@dataclass
class Asked:
    """A question with what became of it."""

    text: str
    kind: str  # answerable, near, mentioned, far
    gold: frozenset[str] = frozenset()
    answers: tuple[str, ...] = ()
    known: bool = False
    right: bool = False
    cited: list[str] = field(default_factory=list)
    confidence: float = 0.0
    reached: bool = False
    ms: float = 0.0
    wall_ms: float = 0.0
    tried: tuple[float, list[str], bool] = (0.0, [], False)
    evidence: tuple[float, ...] = ()
    sentence: tuple[float, ...] = ()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def squad(data: Path) -> tuple[list[Document], list[Asked]]:
    folder = data / "squad-xquad-en"
    rows = lines(folder / "corpus.jsonl")
    held = {row["_id"] for place, row in enumerate(rows) if place % 5 == 2}
    documents = [
        Document(text=row["text"], doc_id=row["_id"], metadata={"title": row["title"]})
        for row in rows
        if row["_id"] not in held
    ]
    gold = dict(
        line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]
    )
    asked = [
        Asked(
            q["text"],
            "near" if gold[q["_id"]] in held else "answerable",
            frozenset([gold[q["_id"]]]),
            tuple(q["metadata"]["answers"]),
        )
        for q in lines(folder / "queries.jsonl")
    ]
    names = {"scifact": 40, "hotpotqa-100": 100, "tatqa": 60, "medquad-liveqa": 60}
    far = [q["text"] for name, most in names.items() for q in lines(data / name / "queries.jsonl")[:most]]
    return documents, asked + [Asked(text, "far") for text in far]


def wordings_of(heading: str) -> tuple[str, ...] | None:
    """Questions about what a heading announces; sections of a page with the same ones are gold for each other's."""
    return next((texts for pattern, texts in WORDINGS if re.search(pattern, heading.lower())), None)


def clinical(data: Path) -> tuple[list[Path], list[Asked]]:
    pages = sorted((data / "documents" / "clinical").glob("*.md"))
    held = {page for place, page in enumerate(pages) if place % 5 == 3}
    kept = "\n".join(page.read_text(encoding="utf-8").lower() for page in pages if page not in held)
    asked = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ").strip()
        if NOT_A_DISEASE.search(title):
            continue
        topic = re.sub(r"^(Parasites - )?(Lice - )?|\s*\([^)]*\)", "", title).strip()
        headings = [heading.strip() for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)]
        for place, heading in enumerate(headings):
            wording = wordings_of(heading)
            if wording:
                question = wording[(place + len(topic)) % len(wording)].format(t=topic)
                missing = "mentioned" if topic.lower() in kept else "near"
                kind = missing if page in held else "answerable"
                gold = frozenset(f"{page.name}#{one}" for one in headings if wordings_of(one) is wording)
                asked.append(Asked(question, kind, gold))
    _, others = squad(data)
    subjects = ("Immune system", "Black Death", "Pharmacy")  # not far from clinical pages
    medicine = {row["_id"] for row in lines(data / "squad-xquad-en/corpus.jsonl") if row["title"] in subjects}
    far = [one.text for one in others if one.kind != "far" and not one.gold & medicine][::8]
    far += [q["text"] for q in lines(data / "tatqa/queries.jsonl")[:60]]
    return [page for page in pages if page not in held], asked + [Asked(text, "far") for text in far]


def document_of(node: Any) -> str:
    return str(node.ref_doc_id)


def section_of(node: Any) -> str:
    return f"{node.metadata['file_name']}#{str(node.metadata.get('heading', '')).split(' > ')[-1]}"


def ask(engine: Any, one: Asked, *, gold_of: Any, keen: CitedSynthesizer | None = None) -> None:
    """Ask, and take the time of what comes beyond retrieval."""
    hits = engine.retrieve(QueryBundle(one.text))
    begun, started = time.process_time(), time.perf_counter()
    answer = engine.synthesizer.answer(one.text, hits)
    one.ms, one.wall_ms = (time.process_time() - begun) * 1000, (time.perf_counter() - started) * 1000
    one.known, one.confidence = answer.known, answer.confidence or 0.0
    one.reached = bool(answer.blocks)
    one.cited, one.right = judged(one, answer, gold_of)
    if keen is not None:
        tried = keen.answer(one.text, hits)
        one.tried = (tried.confidence or 0.0, *judged(one, tried, gold_of))


def judged(one: Asked, answer: Any, gold_of: Any) -> tuple[list[str], bool]:
    """What an answer cites, and whether it is right."""
    cited = [gold_of(answer.blocks[number - 1].hit.node) for number in answer.markers.cited]
    if one.answers:
        right = answer.known and any(gold.lower() in answer.text.lower() for gold in one.answers)
    else:
        right = answer.known and bool(set(cited[:1]) & one.gold)
    return cited, right and one.kind == "answerable"


def keen_on_answers(engine: Any) -> CitedSynthesizer:
    """The engine's synthesizer without any floor, so that the figure knows what every floor would answer."""
    llm = engine.llm
    keen = ExtractiveLLM(embed_model=llm.embed_model, calibration=replace(llm.calibration, floor=0.0))
    keen._vectors = llm._vectors
    return CitedSynthesizer(llm=keen)


def features(engine: Any, one: Asked) -> None:
    """Features that the calibrations are fitted on: of the likeliest passage, and of the sentence that was quoted."""
    from llama_index_presets.experiments.calibration import features_of

    one.evidence, one.sentence = features_of(engine, one.text)


def report(name: str, asked: list[Asked]) -> None:
    of = {
        kind: [one for one in asked if one.kind == kind]
        for kind in ("answerable", "near", "mentioned", "far")
    }

    def share(kind: str, what: str) -> float:
        return sum(bool(getattr(one, what)) for one in of[kind]) / max(len(of[kind]), 1)

    cited = [one for one in of["answerable"] if one.known and one.cited]
    gold = sum(set(one.cited) <= one.gold for one in cited) / max(len(cited), 1)
    print(
        f"{name}: {', '.join(f'{len(ones)} {kind}' for kind, ones in of.items())}\n"
        f"  answered {share('answerable', 'known'):.3f}, right {share('answerable', 'right'):.3f}, cited is gold "
        f"{gold:.3f}\n  wrongly answered: near {share('near', 'known'):.3f}, "
        f"mentioned {share('mentioned', 'known'):.3f}, far {share('far', 'known'):.3f}\n"
        f"  reach a language model: answerable {share('answerable', 'reached'):.3f}, "
        f"near {share('near', 'reached'):.3f}, "
        f"far {share('far', 'reached'):.3f} ({sum(one.reached for one in of['far'])} of {len(of['far'])})\n"
        f"  beyond retrieval: CPU {spread([one.ms for one in asked])}; "
        f"wall {spread([one.wall_ms for one in asked])}",
        flush=True,
    )


def spread(times: list[float]) -> str:
    """Median, mean and 95th percentile of milliseconds."""
    ordered = sorted(times)
    median, most = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
    return f"median {median:.1f} ms, mean {sum(ordered) / len(ordered):.1f} ms, 95 % below {most:.1f} ms"


def fit(sets: dict[str, list[Asked]]) -> None:
    """Fit on each collection and on all; report each on the others."""
    from llama_index_presets.experiments.calibration import Labelled, choose_floor, fit_calibration

    for kind, false_answers in (("evidence", 0.25), ("sentence", 0.04)):
        made = {}
        for name, asked in [*sets.items(), ("all", [one for ones in sets.values() for one in ones])]:
            labelled = [
                Labelled(getattr(one, kind), one.kind == "answerable", one.kind)
                for one in asked
                if one.kind != "mentioned"
            ]
            made[name] = choose_floor(fit_calibration(labelled), labelled, false_answers=false_answers)
            print(kind, name, made[name])
        for name, calibration in made.items():
            for on, asked in sets.items():
                shares = {
                    group: np.mean(
                        [
                            calibration.probability(getattr(o, kind)) >= calibration.floor
                            for o in asked
                            if o.kind == group
                        ]
                    )
                    for group in ("answerable", "near", "far")
                }
                print(
                    f"  {kind} fitted on {name}, measured on {on}: "
                    + ", ".join(f"{k} {v:.3f}" for k, v in shares.items())
                )


def figure(path: Path, sets: dict[str, list[Asked]]) -> None:
    """Risk (share of wrong among the answers) against coverage (share of answerable questions answered)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "answers"
    import matplotlib.pyplot as plt

    shown, axes = plt.subplots(figsize=(6, 4))
    for name, asked in sets.items():
        answerable = sum(one.kind == "answerable" for one in asked)
        floors = sorted({round(one.tried[0], 3) for one in asked})
        points = []
        for floor in floors:
            given = [one for one in asked if one.tried[0] >= floor and one.tried[1]]
            if given:
                covered = sum(one.kind == "answerable" for one in given) / answerable
                points.append((covered, sum(not one.tried[2] for one in given) / len(given)))
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set(
        xlabel="coverage: answerable questions answered",
        ylabel="risk: wrong among the answers",
        xlim=(0, 1),
        ylim=(0, 0.6),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    shown.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pattern", default="simple", choices=("simple", "hybrid"))
    parser.add_argument("--only", choices=("squad", "clinical"))
    parser.add_argument(
        "--embedding", help="embedding model of the catalogue; its weights must be in the cache"
    )
    parser.add_argument("--storage", type=Path, help="keep the indexes here")
    parser.add_argument("--limit", type=int, help="only every n-th question")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    sets = {}
    for name, (documents, asked) in {
        "squad": squad(options.data),
        "clinical": clinical(options.data),
    }.items():
        if options.only in (None, name):
            asked = asked[:: options.limit or 1]
            folder = (options.storage or Path(tempfile.mkdtemp())) / "-".join(
                filter(None, (name, options.pattern, options.embedding))
            )
            preset = "healthcare" if options.pattern == "simple" else "financial-documents"
            settings = {"encryption": "off", "pii": "off"} if options.pattern == "simple" else {
                "store": "duckdb", "llm": "extractive", "monitoring": "basic", "verify_numbers": "off"
            }  # fmt: skip
            if options.embedding:
                settings["embedding"] = options.embedding
            with build(preset, storage=folder, offline=True, settings=settings) as engine:
                engine.ingest(
                    documents if name == "squad" else [str(page) for page in documents], show_progress=False
                )
                gold_of = document_of if name == "squad" else section_of
                ask(engine, Asked("warm", "far"), gold_of=gold_of)
                keen = keen_on_answers(engine) if options.figure else None
                for one in asked:
                    features(engine, one) if options.fit else ask(engine, one, gold_of=gold_of, keen=keen)
            sets[name] = asked
            if not options.fit:
                report(f"{name}, {options.pattern}", asked)
    if options.fit:
        fit(sets)
    if options.figure:
        figure(options.figure, sets)


if __name__ == "__main__":
    main()
