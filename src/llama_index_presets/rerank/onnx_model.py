"""Cross-encoders on ONNX Runtime or OpenVINO, without torch; a model whose scores would mean nothing is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.backends import Choice
from llama_index_presets.inference.hub import cached_snapshot, download
from llama_index_presets.inference.model_folder import ModelFolder
from llama_index_presets.inference.openvino_session import open_openvino
from llama_index_presets.inference.text_encoder import OnnxPairScorer, first_position
from llama_index_presets.inference.tokenizer import open_tokenizer
from llama_index_presets.rerank.pair_model import ModelSource, PairModel, cannot_load, check_head

__all__ = ["OnnxPairModel", "folder_named", "model_folder"]


def folder_named(source: ModelSource) -> Path | None:
    """The folder that a source names, or None where it names a model of the hub.

    Raises:
        ModelError: It is written like a folder, and there is none.
    """
    path = Path(source.model).expanduser()
    if path.is_dir():
        return path
    if source.model.startswith((".", "/", "~")) or source.model.count("/") > 1:
        raise ModelError(
            f"There is no folder '{path}'. Pass the folder of a saved cross-encoder, or a name on the hub "
            "such as 'cross-encoder/ms-marco-MiniLM-L6-v2'."
        )
    return None


def model_folder(source: ModelSource) -> Path:
    """The folder of a source: its own, the hub's cache, or a download.

    Raises:
        ModelError: It is on this machine nowhere, and could not be downloaded.
        MissingExtraError: What downloads it is not installed.
    """
    found = folder_named(source) or cached_snapshot(
        source.model, revision=source.revision, hub_cache=source.cache_folder
    )
    if found:
        return found
    cause = "it is not on this machine, and the hub may not be asked."
    if not source.local_files_only and not os.environ.get("HF_HUB_OFFLINE"):
        try:
            return download(source.model, revision=source.revision, hub_cache=source.cache_folder)
        except MissingExtraError:
            raise
        except Exception as error:
            # the hub's library, and those that it stands on, each have errors of their own
            cause = f"the hub could not be reached ({type(error).__name__})."
    raise cannot_load(source, cause)


class OnnxPairModel(PairModel):
    """A cross-encoder on ONNX Runtime, in float32 or int8, or on OpenVINO; threads may share it.

    Args:
        model: Its folder.
        source: Length and precision.
        choice: What runs it, and why.

    Raises:
        ModelError: It has no scoring head, or scores more than one label.
    """

    def __init__(self, model: ModelFolder, source: ModelSource, choice: Choice) -> None:
        labels = len(model.config.get("id2label") or range(int(model.config.get("num_labels", 2))))
        check_head(source.model, model.config.get("architectures") or (), labels)
        self.backend = f"{choice.backend}: {choice.reason}"
        positions = model.config.get("max_position_embeddings")
        most = model.max_tokens if source.max_length is None else source.max_length
        self.max_tokens = min(most, int(positions) - first_position(model.config)) if positions else most
        self._tokenizer = open_tokenizer(model.transformer)
        self.special = int(self._tokenizer.num_special_tokens_to_add(True))
        self._scorer = OnnxPairScorer(
            model,
            self.max_tokens,
            int8=source.precision == "int8",
            open_with=partial(open_openvino, precision=source.precision)
            if choice.backend == "openvino"
            else None,
        )

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of a text."""
        return [
            (int(start), int(stop))
            for start, stop in self._tokenizer.encode(text, add_special_tokens=False).offsets
        ]

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """The model's raw outputs, float, higher is better; shared out over the cores."""
        return self._scorer.logits(query, texts)

    def _count(self, texts: Sequence[str]) -> list[int]:
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in found]
