"""Text encoders and cross-encoders of a folder, run by ONNX Runtime: the hub's own ONNX file, or a written graph."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from llama_index_presets.errors import ModelError
from llama_index_presets.inference.graph_cache import cached_graph, graph_key
from llama_index_presets.inference.graph_writer import CODES, SCALES, int8_weight
from llama_index_presets.inference.graphs import ENCODERS, Purpose, encoder_graph, unsupported, word_table
from llama_index_presets.inference.model_folder import ModelFolder
from llama_index_presets.inference.safetensors import forget_pages, places_in_files, read_safetensors
from llama_index_presets.inference.session import (
    GraphSession,
    batches_of_like_length,
    cpu_threads,
    run_side_by_side,
)
from llama_index_presets.inference.tokenizer import ModelTokenizer
from llama_index_presets.packages.extras import installed

__all__ = [
    "BATCH",
    "OnnxPairScorer",
    "OnnxTextEncoder",
    "first_position",
    "obstacle_of",
    "onnx_installed",
    "open_session",
    "weights_file",
]

OpenSession = Callable[[ModelFolder, Purpose], GraphSession]

BATCH: Final = 8
"""Texts of a run: few, so that little is padded and a core's caches hold them."""

_HUB_FILE: Final = "onnx/model.onnx"
_HUB_INT8: Final = (
    "onnx/model_qint8_arm64.onnx"
    if platform.machine() in ("arm64", "aarch64")
    else "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
)
_WEIGHT_FILES: Final = ("model.safetensors", "model.safetensors.index.json")
_TOKEN_OUTPUTS: Final = ("last_hidden_state", "token_embeddings")


def onnx_installed() -> bool:
    """Whether the light runtime is there: ONNX Runtime and `tokenizers`."""
    return installed("onnxruntime") and installed("tokenizers")


def hub_file(model: ModelFolder, *, int8: bool = False) -> Path | None:
    """The ONNX file of a folder, as repositories on the hub have it; of int8, the variant for this kind of CPU."""
    names = _HUB_INT8 if int8 else (_HUB_FILE, "model.onnx")
    places = [folder / name for folder in (model.folder, model.transformer) for name in names]
    return next((place for place in places if place.is_file()), None)


def weights_file(model: ModelFolder) -> Path | None:
    """The weights of a folder in safetensors, or the index of their parts."""
    return next(
        (model.transformer / name for name in _WEIGHT_FILES if (model.transformer / name).is_file()), None
    )


def obstacle_of(model: ModelFolder) -> str | None:
    """Why ONNX Runtime cannot run a model, in words that follow "because of"; None when it can."""
    if model.obstacle:
        return model.obstacle
    if hub_file(model):
        return None
    if model.remote_code:
        return "its own code in the repository"
    if weights_file(model) is None:
        return "its weights: there is no onnx/model.onnx and no model.safetensors"
    return unsupported(model.config)


def first_position(config: Mapping[str, Any]) -> int:
    """Position of the first token: RoBERTa and its kin begin behind the padding's."""
    names = ENCODERS.get(str(config.get("model_type")))
    if names is None or not names.offset:
        return 0
    stated = config.get("pad_token_id")
    return 2 if stated is None or config["model_type"] == "mpnet" else int(stated) + 1


def open_session(model: ModelFolder, purpose: Purpose, *, int8: bool = False) -> GraphSession:
    """A session for a folder.

    Args:
        model: The folder.
        purpose: What the session gives.
        int8: Whether dense layers compute in int8: by the weights, or by the hub's quantised file where there are none.

    Raises:
        ModelError: Nothing in it can be run.
    """
    start = first_position(model.config)
    written = int8 and weights_file(model) is not None and unsupported(model.config) is None
    if not written and (file := hub_file(model, int8=int8)):
        return GraphSession(file, {}, first_position=start, source=str(file))
    reason, file = obstacle_of(model), weights_file(model)
    if reason or file is None:
        raise ModelError(
            f"ONNX Runtime cannot run '{model.folder}' because of {reason}. Run: "
            'pip install "llama-index-presets[local-torch]", and take backend="torch".'
        )
    weights = read_safetensors(file)
    shapes = {name: array.shape for name, array in weights.items()}
    folder, places = places_in_files(file)
    key = graph_key(model.config, shapes, f"{purpose} int8" if int8 else purpose, places)
    graph = cached_graph(
        model.transformer, key, lambda: encoder_graph(model.config, shapes, purpose, int8=int8, places=places)
    )
    placed = {
        name: int8_weight(name, weights) if name.endswith((CODES, SCALES)) else weights[name]
        for name in graph.weights
    }
    words = weights[word_table(model.config, shapes)]
    session = GraphSession(
        graph.onnx, placed, source=str(file), folder=folder, words=words, first_position=start
    )
    forget_pages(weights)  # the runtime has its own mapping of them, or copies
    return session


class OnnxTextEncoder:
    """A text embedding model on ONNX Runtime, in float32, or on another runtime's session; threads may share it.

    Args:
        model: The folder.
        max_tokens: Tokens read; None takes the model's own limit.
        int8: Whether dense layers compute in int8.
        open_with: Opens the session; None takes `open_session`.

    Attributes:
        dim: Length of a vector.
        max_tokens: Tokens read, special tokens included.
    """

    device = "cpu"

    def __init__(
        self,
        model: ModelFolder,
        max_tokens: int | None = None,
        *,
        int8: bool = False,
        open_with: OpenSession | None = None,
    ) -> None:
        self.max_tokens = max_tokens or model.max_tokens
        self._tokenizer = ModelTokenizer(model.transformer, self.max_tokens, lowercase=model.lowercase)
        self._first_only = model.pooling == ("cls",)
        purpose: Purpose = "first" if self._first_only else "tokens"
        self._session = open_with(model, purpose) if open_with else open_session(model, purpose, int8=int8)
        self._output = _token_output(self._session.outputs)
        self._pooling = model.pooling
        self._dense = [_dense(folder) for folder in model.dense]
        self._threads = cpu_threads()
        self.dim = int(self.encode(["dimension"], 1).shape[1])

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim), in the order of the texts."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        encodings = self._tokenizer.encode(texts)
        session = self._session_for(encodings, batch_size)
        batches = batches_of_like_length([len(one.ids) for one in encodings], batch_size, self._threads)
        parts = run_side_by_side(
            lambda places: self._vectors([encodings[place] for place in places], session),
            batches,
            self._threads,
        )
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[[place for places in batches for place in places]] = np.concatenate(parts)
        return vectors

    def _session_for(self, encodings: Sequence[Any], batch_size: int) -> GraphSession:
        return self._session

    def _vectors(self, encodings: Sequence[Any], session: GraphSession) -> np.ndarray:
        tokens, mask = session.run(encodings, self._output)
        vectors = (
            tokens
            if tokens.ndim == 2
            else np.concatenate([_pooled(tokens, mask, name) for name in self._pooling], axis=1)
        )
        for weight, bias, activation in self._dense:
            vectors = activation(vectors @ weight.T + bias)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _token_output(outputs: Sequence[str]) -> str:
    return next((name for name in _TOKEN_OUTPUTS if name in outputs), outputs[0])


def _pooled(tokens: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """One vector a text, shape (texts, dim), of its token vectors."""
    if name == "cls":
        return np.asarray(tokens[:, 0])
    if name == "lasttoken":
        return np.asarray(tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1])
    if name == "max":
        return np.asarray(np.where(mask[..., None] > 0, tokens, -np.inf).max(axis=1))
    weights = mask * np.arange(1, mask.shape[1] + 1) if name == "weightedmean" else mask
    total = np.einsum("ntd,nt->nd", tokens, weights.astype(np.float32))
    count = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return np.asarray(total / (np.sqrt(count) if name == "mean_sqrt_len" else count), dtype=np.float32)


def _dense(folder: Path) -> tuple[np.ndarray, np.ndarray, Any]:
    from llama_index_presets.inference.model_folder import read_json

    stated = read_json(folder / "config.json")
    activation = str(stated.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    functions: dict[str, Any] = {"Tanh": np.tanh, "Identity": lambda x: x, "ReLU": lambda x: np.maximum(x, 0)}
    if activation not in functions or not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"The layer in '{folder}' (activation {activation}) runs on torch only. Run: pip install "
            '"llama-index-presets[local-torch]", and take backend="torch".'
        )
    tensors = read_safetensors(folder / "model.safetensors")
    weight = np.asarray(tensors["linear.weight"])
    bias = (
        np.asarray(tensors["linear.bias"]) if "linear.bias" in tensors else np.zeros(len(weight), np.float32)
    )
    return weight, bias, functions[activation]


class OnnxPairScorer:
    """Logits of (query, text) pairs by a cross-encoder on ONNX Runtime, in float32; threads may share it.

    Args:
        model: The folder of a sequence classifier with one label.
        max_tokens: Tokens of a pair that are read.
        int8: Whether dense layers compute in int8.
        open_with: Opens the session; None takes `open_session`.
    """

    def __init__(
        self, model: ModelFolder, max_tokens: int, *, int8: bool = False, open_with: OpenSession | None = None
    ) -> None:
        self._tokenizer = ModelTokenizer(model.transformer, max_tokens, lowercase=model.lowercase)
        self._session = open_with(model, "scores") if open_with else open_session(model, "scores", int8=int8)
        self._output = next(
            (name for name in ("logits", "scores") if name in self._session.outputs), self._session.outputs[0]
        )
        self._threads = cpu_threads()

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """Raw scores of one query's texts, higher is better, in the order of the texts."""
        if not texts:
            return []
        encodings = self._tokenizer.encode_pairs(query, texts)
        batches = batches_of_like_length([len(one.ids) for one in encodings], BATCH, self._threads)
        parts = run_side_by_side(
            lambda places: self._session.run([encodings[place] for place in places], self._output)[0].reshape(
                len(places), -1
            )[:, 0],
            batches,
            self._threads,
        )
        scores = dict(
            zip((place for places in batches for place in places), np.concatenate(parts), strict=True)
        )
        return [float(scores[place]) for place in range(len(texts))]
