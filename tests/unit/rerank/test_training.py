"""Training a reranker on one's own judgments."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from safetensors.torch import load_file, save_file

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.errors import SettingsError
from llama_index_presets.rerank import (
    HeldOutQuery,
    TrainingList,
    TrainingSettings,
    fine_tune,
    group_pairs,
    mine_hard_negatives,
)

FAST = TrainingSettings(batch_size=4, max_length=32, learning_rate=1e-3, save_steps=1, device="cpu")


class WordRetriever(BaseRetriever):
    """Hits by the number of words that they share with the query."""

    def __init__(self, hits: list[NodeWithScore]) -> None:
        self.hits = hits
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        words = set(query_bundle.query_str.lower().split())
        scored = [
            NodeWithScore(node=hit.node, score=float(len(words & set(hit.node.text.lower().split()))))
            for hit in self.hits
        ]
        return sorted(scored, key=lambda hit: -hit.score)


def material() -> list[TrainingList]:
    return group_pairs(
        [
            ("botulism", "antitoxin treats botulism", 1.0),
            ("botulism", "snow fell", 0.0),
            ("weather", "snow fell", 1.0),
            ("weather", "antitoxin treats botulism", 0.0),
        ]
    )


def test_negatives_come_from_what_the_retriever_ranks_high(hits: list[NodeWithScore]) -> None:
    """Judged texts are positives, the retriever's other hits are negatives."""
    found = mine_hard_negatives(
        {"q1": "toxin budget"}, {"q1": {"n7": 1.0}}, WordRetriever(hits), negatives=3, seed=1
    )
    (item,) = found
    assert item.labels == (1.0, 0.0, 0.0, 0.0)
    assert "neutralise" in item.texts[0]
    assert not any("neutralise" in text for text in item.texts[1:])


def test_a_query_whose_answer_is_not_retrieved_teaches_nothing(hits: list[NodeWithScore]) -> None:
    """The reranker will never see that answer either."""
    assert mine_hard_negatives({"q": "toxin"}, {"q": {"elsewhere": 1.0}}, WordRetriever(hits)) == []


def test_mining_is_repeatable(hits: list[NodeWithScore]) -> None:
    """The same seed draws the same negatives."""
    draws = [
        mine_hard_negatives({"q": "toxin"}, {"q": {"n7": 1.0}}, WordRetriever(hits), negatives=2, seed=5)
        for _ in range(2)
    ]
    assert draws[0] == draws[1]


def test_a_trained_model_loads_and_its_card_says_what_it_is_worth(
    model: str, hits: list[NodeWithScore], tmp_path: Path
) -> None:
    """Before and after on held-out queries, by blend, in the card and in the report."""
    held = HeldOutQuery("toxin", hits, {"n7": 1.0})
    report = fine_tune(material(), model, tmp_path / "out", held_out=[held], settings=FAST)
    assert (report.lists, report.pairs, report.steps) == (2, 4, 1)
    card = (report.folder / "README.md").read_text()
    assert f"| 1 | {report.ndcg_by_blend[1.0]:.4f} | +0.0000 |" in card
    assert not (report.folder / "checkpoints").exists()
    assert len(CrossEncoderRerank(str(report.folder)).postprocess_nodes(hits, query_str="toxin")) == 5


def test_training_changes_what_ranks_first(model: str, hits: list[NodeWithScore], tmp_path: Path) -> None:
    """After some passes the taught answer scores above the taught mistake."""
    settings = TrainingSettings(batch_size=4, max_length=32, learning_rate=3e-3, epochs=15, device="cpu")
    report = fine_tune(material(), model, tmp_path / "out", settings=settings)
    scores = CrossEncoderRerank(str(report.folder), precision="float32").probabilities
    texts = [NodeWithScore(node=hit.node) for hit in hits[:2]]
    texts[0].node = texts[0].node.model_copy(update={"text": "antitoxin treats botulism", "metadata": {}})
    texts[1].node = texts[1].node.model_copy(update={"text": "snow fell", "metadata": {}})
    right, wrong = scores("botulism", texts)
    assert right > wrong


def test_an_interrupted_training_resumes_from_its_checkpoint(model: str, tmp_path: Path) -> None:
    """A mark in the checkpoint's weights is found in the final model, so they were used."""
    blocked = tmp_path / "out" / "README.md"
    blocked.mkdir(parents=True)
    with pytest.raises(OSError, match=r"README\.md"):
        fine_tune(material(), model, tmp_path / "out", settings=FAST)
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("checkpoint-*/model.safetensors")
    weights = load_file(checkpoint)
    weights["classifier.bias"][:] = 7.0
    save_file(weights, checkpoint, metadata={"format": "pt"})
    blocked.rmdir()
    report = fine_tune(material(), model, tmp_path / "out", settings=FAST)
    assert load_file(report.folder / "model.safetensors")["classifier.bias"].tolist() == [7.0]


def test_another_training_does_not_resume_by_accident(model: str, tmp_path: Path) -> None:
    """A folder with an unfinished training of other lists is refused."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "training.json").write_text('{"sha256": "other"}')
    with pytest.raises(SettingsError, match="holds an unfinished training of another model"):
        fine_tune(material(), model, tmp_path, settings=FAST)


def test_a_held_out_query_must_not_be_taught(model: str, hits: list[NodeWithScore], tmp_path: Path) -> None:
    """The measurement would be false."""
    with pytest.raises(
        SettingsError, match="1 held-out query is in the training lists too, such as 'botulism'"
    ):
        fine_tune(material(), model, tmp_path, held_out=[HeldOutQuery("botulism", hits, {"n0": 1})])


@pytest.mark.parametrize(("label", "lacking"), [(1.0, "irrelevant"), (0.0, "relevant")])
def test_lists_must_hold_both_kinds(model: str, tmp_path: Path, label: float, lacking: str) -> None:
    """A reranker learns from contrast."""
    with pytest.raises(SettingsError, match=f"holds? no {lacking} text"):
        fine_tune(group_pairs([("q", "a", label)]), model, tmp_path)


def test_progress_is_logged_and_nothing_is_printed(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library leaves stdout to its caller."""
    with caplog.at_level("INFO", logger="llama_index_presets"):
        fine_tune(material(), model, tmp_path / "out", settings=FAST)
    assert "step 1 of 1" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_list_must_have_one_label_for_each_text() -> None:
    """Two texts, one label."""
    with pytest.raises(SettingsError, match="2 texts and 1 label"):
        TrainingList("q", ("a", "b"), (1.0,))
