"""Reranker training on labelled judgments: a thin wrapper over sentence-transformers' trainer."""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.packages.extras import require
from llama_index_presets.rerank.blend_report import judge, ndcg_by_blend
from llama_index_presets.text.digests import text_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

__all__ = [
    "HeldOutQuery",
    "TrainingList",
    "TrainingReport",
    "TrainingSettings",
    "fine_tune",
    "group_pairs",
    "mine_hard_negatives",
]

# -- training lists -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingList:
    """A query with texts and whether each answers it.

    Attributes:
        query: What was asked.
        texts: The candidates.
        labels: 1.0 for a text that answers, 0.0 for one that does not; as many as texts.
    """

    query: str
    texts: tuple[str, ...]
    labels: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise SettingsError(
                f"A training list has {counted(len(self.texts), 'text')} and {counted(len(self.labels), 'label')}; "
                "expected one label for each text."
            )


def group_pairs(pairs: Iterable[tuple[str, str, float]]) -> list[TrainingList]:
    """Labelled (query, text, label) pairs as one list for each query, in order of first appearance.

    Example:
        >>> group_pairs([("q", "yes", 1.0), ("q", "no", 0.0)])
        [TrainingList(query='q', texts=('yes', 'no'), labels=(1.0, 0.0))]
    """
    grouped: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for query, text, label in pairs:
        grouped[query].append((text, float(label)))
    return [
        TrainingList(query, tuple(text for text, _ in rows), tuple(label for _, label in rows))
        for query, rows in grouped.items()
    ]


def mine_hard_negatives(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    retriever: BaseRetriever,
    *,
    negatives: int = 4,
    seed: int = 0,
) -> list[TrainingList]:
    """Mine hard negatives: texts that the retriever wrongly ranks high for each judged query.

    The reranker will only ever see what this retriever returns, so relevant texts come from its hits too: a
    query of which no relevant text is retrieved makes no list.

    Args:
        queries: Query id -> text.
        qrels: Query id -> node id or document id -> grade; > 0 is relevant.
        retriever: The one that will feed the reranker; its depth is the depth of the mining, 30 to 100.
        negatives: Texts without a judgment for each relevant one, drawn at random from the hits. Some will
            be relevant and unjudged: use fewer when judgments are sparse.
        seed: Of the draw.
    """
    draw = random.Random(seed)
    lists = (
        _list_of(query, qrels.get(name, {}), retriever.retrieve(query), negatives, draw)
        for name, query in queries.items()
    )
    return [found for found in lists if found is not None]


def _list_of(
    query: str,
    grades: Mapping[str, float],
    hits: Sequence[NodeWithScore],
    negatives: int,
    draw: random.Random,
) -> TrainingList | None:
    relevant = [hit for hit in hits if _grade(hit, grades) > 0]
    wrong = [hit for hit in hits if _grade(hit, grades) <= 0]
    if not relevant or not wrong:
        return None
    drawn = draw.sample(wrong, min(negatives * len(relevant), len(wrong)))
    labels = [1.0] * len(relevant) + [0.0] * len(drawn)
    return TrainingList(query, tuple(_text(hit) for hit in [*relevant, *drawn]), tuple(labels))


def _grade(hit: NodeWithScore, grades: Mapping[str, float]) -> float:
    document = getattr(hit.node, "ref_doc_id", None)
    return max(grades.get(hit.node.node_id, 0.0), grades.get(document, 0.0) if document else 0.0)


def _text(hit: NodeWithScore) -> str:
    from llama_index.core.schema import MetadataMode

    return hit.node.get_content(metadata_mode=MetadataMode.EMBED)


# -- model card -----------------------------------------------------------------------------------------------


_HEADING = "## Measured by llama-index-presets"


def _write_measurements(
    folder: Path,
    base_model: str,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    held_out: int,
) -> None:
    """Append training facts and the before/after table to ``README.md`` of a saved model.

    Args:
        folder: The saved model.
        base_model: What training began with.
        settings: The training's settings.
        report: The training's report.
        held_out: Queries behind the table.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "# Reranker\n"
    body = text.split(_HEADING)[0].rstrip()
    facts = [
        f"- trained from `{Path(base_model).name}` on {report['lists']} lists, {report['pairs']} pairs, "
        f"{report['steps']} steps, {report['seconds']:.0f} s",
        f"- settings: {', '.join(f'{name}={value}' for name, value in settings.items())}",
    ]
    lines = [body, "", _HEADING, "", *facts, "", *_table(report["ndcg_by_blend"], held_out)]
    card.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(measured: Mapping[float, float], held_out: int) -> list[str]:
    if not measured:
        return ["Not measured: no held-out queries were given. Do not trust it before it is."]
    before = measured.get(1.0)
    rows = [
        f"| {blend:g} | {value:.4f} | {value - (before or 0):+.4f} |" for blend, value in measured.items()
    ]
    return [
        f"Mean nDCG@10 over {held_out} held-out queries, by `blend` (1 is the retriever's order, before):",
        "",
        "| blend | nDCG@10 | change |",
        "|---|---|---|",
        *rows,
    ]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Settings of a training.

    Attributes:
        epochs: Passes over the lists.
        learning_rate: Highest step size; reached after `warmup` and then lowered to 0 linearly.
        warmup: Share of the steps that warm up, in [0, 1].
        batch_size: Pairs in one step.
        max_length: Tokens of a pair that are read, in training and by the saved model.
        positive_weight: Weight of a relevant text in the loss; None balances relevant and irrelevant.
        bfloat16: Whether to compute in bfloat16 (half the time where the processor has it).
        device: ``"cpu"``, ``"cuda"``; None uses a GPU where there is one.
        save_steps: Steps between checkpoints, from which an interrupted training resumes.
        seed: Of the order of the pairs and of a new scoring head.
    """

    epochs: float = 1.0
    learning_rate: float = 3e-5
    warmup: float = 0.1
    batch_size: int = 16
    max_length: int = 256
    positive_weight: float | None = None
    bfloat16: bool = False
    device: str | None = None
    save_steps: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class HeldOutQuery:
    """A labelled query that training does not see, with its candidates.

    Attributes:
        query: What is asked.
        hits: Candidates of the retriever, best first, with scores.
        relevance: Node id or document id -> grade; > 0 is relevant.
    """

    query: str
    hits: Sequence[NodeWithScore]
    relevance: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """Result of a training.

    Attributes:
        folder: Where the model lies, ready for ``CrossEncoderRerank(folder)``.
        lists: Training lists.
        pairs: Query-text pairs in them.
        steps: Optimiser steps, those before a resume included.
        seconds: Wall time of this run.
        ndcg_by_blend: Blend -> mean nDCG@10 over the held-out queries, in [0, 1]; blend 1 is the order of the
            retriever, so the figure "before". Empty without held-out queries.
    """

    folder: Path
    lists: int
    pairs: int
    steps: int
    seconds: float
    ndcg_by_blend: dict[float, float]


def fine_tune(
    lists: Iterable[TrainingList],
    base_model: str | Path,
    out: str | Path,
    *,
    held_out: Sequence[HeldOutQuery] = (),
    settings: TrainingSettings | None = None,
) -> TrainingReport:
    """Train a cross-encoder and save it with a model card of its measurements.

    Runs on a CPU or a GPU. An interrupted call, made again with the same arguments, goes on from its last
    checkpoint. Nothing is read from or sent to a hub unless `base_model` is a name there.

    Args:
        lists: From `mine_hard_negatives` (queries and judgments) or `group_pairs` (labelled pairs).
        base_model: A cross-encoder to go on from, or an encoder that gets a new scoring head: a folder or a
            name on the hub.
        out: Folder of the trained model, made if need be.
        held_out: Labelled queries for the measurement; they must not be in `lists`.
        settings: How to train.

    Raises:
        SettingsError: The lists hold no relevant or no irrelevant text, a held-out query is among them, or
            `out` holds an unfinished training of something else.
        MissingExtraError: sentence-transformers, accelerate or datasets is not installed.
    """
    settings = settings or TrainingSettings()
    material = list(lists)
    _check(material, held_out)
    folder = Path(out)
    checkpoints = _checkpoints(folder, material, str(base_model), settings)
    began = time.perf_counter()
    steps = _train(material, str(base_model), folder, checkpoints, settings)
    shutil.rmtree(checkpoints)
    report = TrainingReport(
        folder=folder,
        lists=len(material),
        pairs=sum(len(item.texts) for item in material),
        steps=steps,
        seconds=time.perf_counter() - began,
        ndcg_by_blend=_measure(folder, held_out, settings),
    )
    _write_measurements(folder, str(base_model), asdict(settings), asdict(report), len(held_out))
    return report


def _check(material: Sequence[TrainingList], held_out: Sequence[HeldOutQuery]) -> None:
    labels = {label > 0 for item in material for label in item.labels}
    if labels != {True, False}:
        lacking = "irrelevant" if True in labels else "relevant"
        raise SettingsError(
            f"The {counted(len(material), 'training list', 'hold')} no {lacking} text. A reranker learns from both: "
            "mine hard negatives, or add judgments."
        )
    seen = {item.query for item in material}
    leaked = [held.query for held in held_out if held.query in seen]
    if leaked:
        raise SettingsError(
            f"{counted(len(leaked), 'held-out query', 'are')} in the training lists too, such as '{leaked[0]}'; the "
            "measurement would be false. Take them out of the lists."
        )


def _checkpoints(
    folder: Path, material: Sequence[TrainingList], base_model: str, settings: TrainingSettings
) -> Path:
    """The checkpoint folder, marked with what is trained there, so that only the same training resumes."""
    checkpoints = folder / "checkpoints"
    mark = checkpoints / "training.json"
    facts = json.dumps([base_model, asdict(settings), [asdict(item) for item in material]])
    digest = text_digest(facts)
    if mark.is_file() and json.loads(mark.read_text())["sha256"] != digest:
        raise SettingsError(
            f"'{checkpoints}' holds an unfinished training of another model, settings or lists. Give another "
            "folder, or delete it to start anew."
        )
    checkpoints.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"sha256": digest}))
    return checkpoints


def _train(
    material: Sequence[TrainingList],
    base_model: str,
    folder: Path,
    checkpoints: Path,
    settings: TrainingSettings,
) -> int:
    for module in ("datasets", "accelerate"):
        require(module, extra="train")
    library = require("sentence_transformers.cross_encoder", extra="train")
    transformers = require("transformers", extra="train")
    transformers.set_seed(settings.seed)
    model = library.CrossEncoder(
        base_model, num_labels=1, max_length=settings.max_length, device=settings.device
    )
    dataset = _dataset(material)
    trainer = library.CrossEncoderTrainer(
        model=model,
        args=_arguments(library, checkpoints, settings, len(dataset)),
        train_dataset=dataset,
        loss=_loss(model, material, settings),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(_progress(transformers))
    trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
    model.save_pretrained(str(folder))
    return int(trainer.state.global_step)


def _arguments(library: Any, checkpoints: Path, settings: TrainingSettings, pairs: int) -> Any:
    return library.CrossEncoderTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup * settings.epochs * pairs / settings.batch_size),
        bf16=settings.bfloat16,
        use_cpu=settings.device == "cpu",
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=20,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _dataset(material: Sequence[TrainingList]) -> Any:
    rows = [
        (item.query, text, label)
        for item in material
        for text, label in zip(item.texts, item.labels, strict=True)
    ]
    columns = ("query", "text", "label")
    datasets = require("datasets", extra="train")
    return datasets.Dataset.from_dict({name: [row[at] for row in rows] for at, name in enumerate(columns)})


def _loss(model: Any, material: Sequence[TrainingList], settings: TrainingSettings) -> Any:
    torch = require("torch", extra="train")
    losses = require("sentence_transformers.cross_encoder.losses", extra="train")
    weight = settings.positive_weight
    if weight is None:
        labels = [label for item in material for label in item.labels]
        relevant = sum(label > 0 for label in labels)
        weight = (len(labels) - relevant) / relevant
    return losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(weight))


def _progress(transformers: Any) -> Any:
    """Loss and step go to this module's logger, where the trainer would print them."""

    class Progress(transformers.TrainerCallback):  # type: ignore[misc]
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
        ) -> None:
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, logs)

    return Progress()


def _last_checkpoint(checkpoints: Path) -> str | None:
    found = [path for path in checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return str(max(found, key=lambda path: int(path.name.split("-")[1]))) if found else None


def _measure(
    folder: Path, held_out: Sequence[HeldOutQuery], settings: TrainingSettings
) -> dict[float, float]:
    if not held_out:
        return {}
    from llama_index_presets.rerank.cross_encoder import CrossEncoderRerank

    reranker = CrossEncoderRerank(str(folder), device=settings.device)
    return ndcg_by_blend(judge(reranker, held.query, held.hits, held.relevance) for held in held_out)
