"""Train a cross-encoder from the packaged MiniLM without one collection, and measure it there.

    python benchmarks/rerank_left_out.py --data DIR --left-out scifact [--warm-up] [--epochs 4]
    python benchmarks/rerank_left_out.py --data DIR --own scifact [--warm-up] [--epochs 6] [--drop-near]

DIR holds the five collections in BEIR layout. ``--left-out`` trains on the judgments of the other four, as far as they
help a collection that nobody judged; ``--own`` trains on the training judgments of one, as a user with judgments would.
The 50 best passages of the default hybrid search are scored, and nDCG@10 of documents is printed for each share
of the search's own score. ``--warm-up`` first learns from texts without judgments: a sentence, or the title, has to
find the passage that it was taken from among those that are closest to it in meaning.

The candidates are kept beside the script's `--work` folder, so that training can go on elsewhere: it needs nothing but
torch, transformers and the folder. A minute or two on a GPU, hours on a CPU (``--limit`` takes fewer questions).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

COLLECTIONS = ("scifact", "tatqa", "hotpotqa-100", "medquad-liveqa", "squad-xquad-en")
DEPTH, RETRIEVED = 50, 60
SHARES = (1, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0)
QUESTION_TOKENS, TEXT_TOKENS = 64, 192
NEGATIVES = 7


def write_candidates(data: Path, name: str, work: Path) -> None:
    """What the default hybrid search finds for every judged question of a collection."""
    from llama_index.core.schema import QueryBundle
    from quality import read_documents, read_judgments, read_lines

    from llama_index_presets import build

    folder = data / name
    judged = {"test": read_judgments(folder)}
    questions = {row["_id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
    if (folder / "qrels.train.tsv").exists():
        judged["train"] = read_judgments(folder, "qrels.train.tsv")
        questions |= {row["_id"]: row["text"] for row in read_lines(folder / "queries.all.jsonl")}
    texts: dict[str, int] = {}
    rows = []
    settings = {"store": "duckdb", "top_k": RETRIEVED}
    with build("financial-documents", storage=work / name, offline=True, settings=settings) as engine:
        engine.ingest(read_documents(folder))
        for split, judgments in judged.items():
            for query, relevant in judgments.items():
                hits = [
                    (
                        texts.setdefault(
                            f"{hit.node.metadata.get('title', '')}\n{hit.node.get_content()}".strip(),
                            len(texts),
                        ),
                        hit.node.ref_doc_id,
                        hit.score,
                    )
                    for hit in engine.retriever.retrieve(QueryBundle(questions[query]))
                ]
                rows.append(
                    {"split": split, "question": questions[query], "relevant": relevant, "hits": hits}
                )
    found = {"texts": list(texts), "questions": rows}
    (work / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


def jaccard(one: str, other: str) -> float:
    a, b = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(a & b) / max(len(a | b), 1)


class PairModel:
    """The packaged encoder with a head over its first vector and the mean; the words' vectors stay as they are."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder).to(self.device)
        self.encoder.embeddings.requires_grad_(False)
        width = self.encoder.config.hidden_size
        nn = torch.nn
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 1)
        ).to(self.device)

    def parameters(self) -> list[Any]:
        every = [*self.encoder.parameters(), *self.head.parameters()]
        return [one for one in every if one.requires_grad]

    def train(self, on: bool) -> None:
        self.encoder.train(on)
        self.head.train(on)

    def tokens(self, texts: list[str], most: int) -> list[list[int]]:
        found = self.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=most)
        return list(found["input_ids"])

    def scores(self, pairs: list[tuple[str, str]]) -> Any:
        torch = self.torch
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        asked = self.tokens([question for question, _ in pairs], QUESTION_TOKENS)
        told = self.tokens([text for _, text in pairs], TEXT_TOKENS)
        rows = [[start, *q, end, *t, end] for q, t in zip(asked, told, strict=True)]
        shape = (len(rows), max(map(len, rows)))
        ids, kinds, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
        for place, (row, question) in enumerate(zip(rows, asked, strict=True)):
            ids[place, : len(row)] = torch.tensor(row)
            kinds[place, len(question) + 2 : len(row)] = 1
            mask[place, : len(row)] = 1
        ids, kinds, mask = (one.to(self.device) for one in (ids, kinds, mask))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            states = self.encoder(input_ids=ids, token_type_ids=kinds, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(states.dtype)
            both = torch.cat([states[:, 0], (states * weight).sum(1) / weight.sum(1)], 1)
            return self.head(both).squeeze(-1).float()

    def fit(self, lists: list[tuple[str, list[str]]], *, rate: float, per_step: int, sigmoid: float) -> None:
        """One pass over lists whose first text is the right one: softmax over each, and a share of sigmoid loss."""
        torch, functional = self.torch, self.torch.nn.functional
        steps = math.ceil(len(lists) / per_step)
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.01)
        self.train(True)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / (0.1 * steps + 1)) * max(0.02, 1 - step / steps)
            part = lists[step * per_step : (step + 1) * per_step]
            scores = self.scores([(question, text) for question, texts in part for text in texts])
            sizes = [len(texts) for _, texts in part]
            right = torch.tensor([float(k == 0) for size in sizes for k in range(size)], device=self.device)
            loss = sigmoid * functional.binary_cross_entropy_with_logits(scores, right)
            for own in scores.split(sizes):
                loss = loss - functional.log_softmax(own, 0)[0] / len(part)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()

    def score(self, pairs: list[tuple[str, str]], batch: int = 256) -> np.ndarray:
        self.train(False)
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place][1]))
        found = np.zeros(len(pairs), dtype=np.float32)
        with self.torch.no_grad():
            for start in range(0, len(order), batch):
                places = order[start : start + batch]
                found[places] = self.scores([pairs[place] for place in places]).cpu().numpy()
        return found

    def neighbours(self, texts: list[str], most: int = 20, batch: int = 256) -> np.ndarray:
        """Of each text the places of those that are closest in meaning, itself first."""
        torch = self.torch
        self.train(False)
        vectors = []
        with torch.no_grad():
            for start in range(0, len(texts), batch):
                given = self.tokenizer(
                    texts[start : start + batch],
                    padding=True,
                    truncation=True,
                    max_length=TEXT_TOKENS,
                    return_tensors="pt",
                ).to(self.device)
                states = self.encoder(**given).last_hidden_state
                weight = given["attention_mask"].unsqueeze(-1)
                mean = (states * weight).sum(1) / weight.sum(1)
                vectors.append(torch.nn.functional.normalize(mean, dim=1))
            every = torch.cat(vectors)
            near = [(part @ every.T).topk(min(most, len(texts)), dim=1).indices for part in every.split(2048)]
        return torch.cat(near).cpu().numpy()


def without_judgments(texts: list[str], model: PairModel, draw: random.Random) -> list[tuple[str, list[str]]]:
    """Lists of a sentence, or a title, with the passage that it was taken from, and five others."""
    split = [
        [one for one in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+", text) if len(one) > 25]
        for text in texts
    ]
    near = model.neighbours(texts)
    lists = []
    for place, (text, sentences) in enumerate(zip(texts, split, strict=True)):
        others = [int(other) for other in near[place] if other != place]
        if len(sentences) < 3 or not others:
            continue
        for sentence in (sentences[0], *draw.sample(sentences, 2)):
            keep = draw.choice([1, 0.8, 0.6, 0.4])
            question = " ".join(word for word in sentence.split() if draw.random() < keep) or sentence
            drawn = draw.sample(others[:10], min(3, len(others))) + draw.sample(range(len(texts)), 2)
            wrong = [texts[one].replace(draw.choice(split[one] or [""]), " ") for one in drawn]
            lists.append((question, [text.replace(sentence, " "), *wrong]))
    draw.shuffle(lists)
    return lists


def judged_lists(found: dict[str, Any], rows: list[Any], draw: random.Random) -> list[tuple[str, list[str]]]:
    """Lists of a question, a relevant text, and seven that the search ranks high and nobody judged relevant."""
    lists = []
    for row in rows:
        right = [text for text, document, _ in row["hits"] if row["relevant"].get(document, 0) > 0]
        wrong = [text for text, document, _ in row["hits"] if row["relevant"].get(document, 0) <= 0]
        if right and len(wrong) > NEGATIVES:
            one = right[0] if draw.random() < 0.7 else draw.choice(right)
            drawn = [*draw.sample(wrong[:15], 4), *draw.sample(wrong[4:], min(NEGATIVES - 4, len(wrong) - 4))]
            lists.append((row["question"], [found["texts"][text] for text in (one, *drawn)]))
    return lists


def ndcg(documents: list[str], relevant: dict[str, int]) -> float:
    gains = [relevant.get(one, 0) / math.log2(place + 2) for place, one in enumerate(documents[:10])]
    ideal = sorted(relevant.values(), reverse=True)[:10]
    return sum(gains) / (sum(one / math.log2(place + 2) for place, one in enumerate(ideal)) or 1)


def measure(model: PairModel, found: dict[str, Any], rows: list[Any]) -> dict[float, float]:
    """Share of the search's score -> mean nDCG@10; both scores between 0 and 1."""
    pairs = [(row["question"], found["texts"][text]) for row in rows for text, _, _ in row["hits"][:DEPTH]]
    scores = iter(model.score(pairs))
    sums = dict.fromkeys(SHARES, 0.0)
    for row in rows:
        hits = row["hits"][:DEPTH]
        given = np.array([score for _, _, score in hits])
        given = (given - given.min()) / (np.ptp(given) + 1e-9)
        own = 1 / (1 + np.exp(-np.array([next(scores) for _ in hits])))
        for share in SHARES:
            best: dict[str, float] = {}
            for (_, document, _), value in zip(hits, share * given + (1 - share) * own, strict=True):
                best[document] = max(best.get(document, -1.0), float(value))
            ranked = sorted(best, key=lambda one: -best[one])
            ranked += [document for _, document, _ in row["hits"][DEPTH:] if document not in best]
            sums[share] += ndcg(list(dict.fromkeys(ranked)), row["relevant"])
    return {share: total / len(rows) for share, total in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="needed where the work folder has no candidates yet")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/rerank"), help="indexes and candidates are kept here"
    )
    parser.add_argument(
        "--weights", type=Path, help="folder of all-MiniLM-L6-v2; by default the pulled weights"
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--left-out", choices=COLLECTIONS)
    chosen.add_argument("--own", choices=("scifact",), help="a collection with training judgments")
    parser.add_argument("--warm-up", action="store_true", help="learn from texts without judgments first")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--drop-near",
        action="store_true",
        help="train without claims that share 60 % of their words with a test claim",
    )
    parser.add_argument("--limit", type=int, help="at most so many questions of each collection")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    tested = options.left_out or options.own
    learnt = [one for one in COLLECTIONS if one != tested] if options.left_out else [tested]
    for name in dict.fromkeys([*learnt, tested]):
        if not (options.work / f"{name}.json").exists():
            if options.data is None:
                parser.error(f"--work has no {name}.json; give --data to make it")
            write_candidates(options.data, name, options.work)
    if options.weights is None:
        from llama_index_presets.embed.pull import pull_weights

        options.weights = pull_weights("all-MiniLM-L6-v2").path
    run(options, tested, learnt)


def run(options: argparse.Namespace, tested: str, learnt: list[str]) -> None:
    import torch

    torch.manual_seed(7)
    draw, started = random.Random(7), time.perf_counter()
    found = {
        name: json.loads((options.work / f"{name}.json").read_text(encoding="utf-8"))
        for name in {*learnt, tested}
    }
    test = [row for row in found[tested]["questions"] if row["split"] == "test"][: options.limit]
    model = PairModel(options.weights)
    if options.warm_up:
        texts = [text for name in learnt for text in found[name]["texts"]][
            : options.limit and 20 * options.limit
        ]
        lists = without_judgments(texts, model, draw)
        print(f"warm-up: {len(lists)} lists", flush=True)
        model.fit(lists, rate=1e-4, per_step=48, sigmoid=0.3)
    lists = []
    for _ in range(options.epochs):
        epoch = []
        for name in learnt:
            rows = found[name]["questions"]
            if name == "scifact":
                rows = [row for row in rows if row["split"] == "train"]
            if options.drop_near and name == tested:
                asked = [row["question"] for row in test]
                rows = [row for row in rows if all(jaccard(row["question"], one) < 0.6 for one in asked)]
            epoch += judged_lists(found[name], rows[: options.limit], draw)
        draw.shuffle(epoch)
        lists += epoch
    model.fit(lists, rate=6e-5, per_step=24, sigmoid=0.5)
    took = time.perf_counter() - started
    print(f"trained on {len(lists)} lists, {took:.0f} s on {model.device}", flush=True)
    table = measure(model, found[tested], test)
    print(
        f"\n{tested}, {len(test)} questions, the search's 50 best\n\n| blend | nDCG@10 | change |\n|---|---|---|"
    )
    for share, value in table.items():
        print(f"| {share:g} | {value:.4f} | {value - table[1]:+.4f} |")


if __name__ == "__main__":
    main()
