"""Interface of a cross-encoder, on any runtime: token counts and logits of (query, text) pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llama_index_presets.counting import counted
from llama_index_presets.errors import ModelError
from llama_index_presets.inference.backends import Backend

__all__ = ["CPU_BATCH_TOKENS", "ModelSource", "PairModel", "Precision", "cannot_load", "check_head"]

Precision = Literal["auto", "float32", "bfloat16", "int8"]

CPU_BATCH_TOKENS: Final = 2_048
"""Around this many tokens the matrices of a small encoder still fit into a CPU's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Source of a model, and its loading options.

    Attributes:
        model: A folder, or a name on the hub.
        revision: Commit, tag or branch on the hub; None for the default branch.
        backend: What runs the model; ``"auto"`` is what is installed and fastest here.
        device: ``"cpu"``, ``"cuda"``, …; None takes a GPU where there is one.
        precision: ``"auto"`` is float32 on ONNX Runtime; on torch bfloat16 where the processor computes in it
            natively, else float32.
        max_length: Most tokens of a pair; None is the model's own limit.
        trust_remote_code: Whether Python code from the model's repository may run here.
        cache_folder: Where downloaded models lie; None is the hub's default.
        local_files_only: Never ask the hub.
    """

    model: str
    revision: str | None = None
    backend: Backend = "auto"
    device: str | None = None
    precision: Precision = "auto"
    max_length: int | None = None
    trust_remote_code: bool = False
    cache_folder: str | None = None
    local_files_only: bool = False


class PairModel(ABC):
    """Token counts and logits of one loaded cross-encoder. Thread safe.

    Attributes:
        backend: What runs it, and why.
        max_tokens: Most tokens of a pair, special tokens included.
        batch_tokens: Tokens of a batch, padding included, that suit the device.
        special: Special tokens of a pair.
    """

    backend: str
    max_tokens: int
    batch_tokens: int = CPU_BATCH_TOKENS
    special: int

    def room(self, query: str) -> int:
        """Tokens left for a text beside this query; at least half of the model's limit.

        A query longer than that is itself cut by the model.
        """
        taken = self._count([query])[0] + self.special
        return max(self.max_tokens - taken, self.max_tokens // 2 - self.special, 1)

    def pair_tokens(self, query: str, texts: Sequence[str]) -> list[int]:
        """Tokens of each pair before truncation, special tokens included."""
        if not texts:
            return []
        fixed, *counts = self._count([query, *texts])
        return [fixed + count + self.special for count in counts]

    @abstractmethod
    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of a text."""

    @abstractmethod
    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """The model's raw outputs for one batch, float, higher is better."""

    @abstractmethod
    def _count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""


def cannot_load(source: ModelSource, cause: str) -> ModelError:
    """Error for a model that is nowhere, or is no cross-encoder; the cause ends in a full stop."""
    return ModelError(
        f"The cross-encoder '{source.model}' could not be loaded: {cause} Pass the folder of a saved cross-encoder, or "
        "download the model once where the hub can be reached."
    )


def check_head(name: str, architectures: Sequence[str], labels: int) -> None:
    """Refuse a bi-encoder, whose head would be of random numbers, and a classifier of several labels.

    Args:
        name: Of the model.
        architectures: As its configuration names them; empty where they say nothing of its head.
        labels: How many scores it gives.

    Raises:
        ModelError: It is one of these.
    """
    if architectures and not any(one.endswith("ForSequenceClassification") for one in architectures):
        raise ModelError(
            f"'{name}' is a {architectures[0]} and has no scoring head; its scores would be random. Use a "
            "cross-encoder, or train one from it with llama_index_presets.rerank.fine_tune."
        )
    if labels != 1:
        raise ModelError(
            f"'{name}' scores {counted(labels, 'label')}; a reranker needs one. Use a model that was trained for "
            "ranking."
        )
