"""Loaded models behind `LocalEmbedding`: on ONNX Runtime or on sentence-transformers, here or in several processes."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np

from llama_index_presets.concurrency.forks import TORCH
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.inference.backends import Choice, choose_backend
from llama_index_presets.inference.loading import LoadOnce
from llama_index_presets.inference.long_runs import LongRunEncoder, moves_to_openvino
from llama_index_presets.inference.model_folder import ModelFolder, read_model_folder
from llama_index_presets.inference.openvino_session import open_openvino
from llama_index_presets.inference.processor import cpu_computes_bfloat16
from llama_index_presets.inference.text_encoder import OnnxTextEncoder
from llama_index_presets.packages.extras import require

__all__ = [
    "Encoder",
    "EncoderPool",
    "Precision",
    "TorchEncoder",
    "backend_of",
    "load_encoder",
    "load_pool",
    "moves_for_long_runs",
]

Precision = Literal["auto", "float32", "bfloat16", "int8"]

_SLICE: Final = 64
"""Texts sent to a process at once: some seconds of work, so that all end at about the same time."""

SAME_VECTORS: Final = 0.9999
"""Cosine from which on the vectors of two runtimes count as those of one model."""


class Encoder(Protocol):
    """A loaded embedding model.

    Attributes:
        dim: Length of a vector.
        max_tokens: Tokens that it reads, special tokens included.
        device: Where it computes.
    """

    dim: int
    max_tokens: int
    device: str

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim), in the order of the texts."""


class TorchEncoder:
    """A loaded sentence-transformers model; one lock, since its tokenizer keeps state between calls.

    Args:
        folder: Of the model.
        precision: As of `LocalEmbedding`.
        device: As of `LocalEmbedding`; ``"auto"`` is a GPU where there is one.
        max_tokens: Tokens read; None takes the model's own limit.
        trust_remote_code: Whether code of the model's repository may run here.
    """

    def __init__(
        self,
        folder: Path,
        precision: Precision,
        device: str,
        max_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        torch = require("torch", extra="local-torch")
        sentence_transformers = require("sentence_transformers", extra="local-torch")
        # It draws a bar for each loaded model.
        require("transformers", extra="local-torch").utils.logging.disable_progress_bar()
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.precision = _resolved(precision, self.device, torch)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        try:
            self._model = sentence_transformers.SentenceTransformer(
                str(folder),
                device=self.device,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                model_kwargs={"torch_dtype": dtype},
            )
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"sentence-transformers cannot load '{folder}' ({(str(error).splitlines() or [''])[0][:300]})."
                " Download the model again."
            ) from error
        if max_tokens is not None:
            self._model.max_seq_length = max_tokens
        if self.precision == "int8":
            self._model = _quantized(self._model, torch)
        self._lock = threading.Lock()
        self.max_tokens = int(self._model.max_seq_length)
        self.dim = int(self._model.get_embedding_dimension())

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim). The library sorts the texts by length."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        TORCH.check()
        with self._lock:
            tensors = self._model.encode(
                texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False, prompt=""
            )
        vectors = tensors.float().cpu().numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _resolved(precision: Precision, device: str, torch: Any) -> Precision:
    _check_int8(precision, device)
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else cpu_computes_bfloat16()
    return "bfloat16" if fast and (device == "cpu" or device.startswith("cuda")) else "float32"


def _check_int8(precision: str, device: str) -> None:
    if precision == "int8" and device not in ("cpu", "auto"):
        raise SettingsError(f"precision='int8' runs on the CPU, not on '{device}'. Use 'bfloat16' there.")


def _quantized(model: Any, torch: Any) -> Any:
    """Weights as int8, one scale a channel, but for layers that narrow.

    On MiniLM (cosine to float32): one scale a tensor 0.94, one a channel 0.98; with the narrowing layers of the
    feed-forward blocks left in float32, whose inputs have outliers, 0.99 at nearly the same speed.
    """
    quantization: Any = getattr(torch.ao, "quantization", None)
    if not hasattr(quantization, "quantize_dynamic"):
        raise ModelError(f"torch {torch.__version__} has no dynamic quantization. Use precision='float32'.")
    layers = {
        name: quantization.per_channel_dynamic_qconfig
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.in_features <= module.out_features
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it announces its own end, which the check above meets
        return quantization.quantize_dynamic(model, layers, dtype=torch.qint8)


def backend_of(
    folder: Path, precision: Precision, device: str, backend: str, trust_remote_code: bool = False
) -> Choice:
    """What runs a model of a folder here; see `choose_backend`."""
    _check_int8(precision, device)
    return choose_backend(
        read_model_folder(folder),
        backend,
        precision=precision,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def moves_for_long_runs(model: ModelFolder, precision: str, backend: str) -> bool:
    """Whether a model that runs on ONNX Runtime moves to OpenVINO for long runs: where nothing else is asked for."""
    return backend == precision == "auto" and cpu_computes_bfloat16() and moves_to_openvino(model)


def _make_encoder(
    folder: Path,
    precision: Precision,
    device: str,
    backend: str,
    max_tokens: int | None,
    trust_remote_code: bool,
    known_as: str | None,
) -> Encoder:
    choice = backend_of(folder, precision, device, backend, trust_remote_code)
    model = read_model_folder(folder)
    if choice.backend == "openvino":
        other = OnnxTextEncoder(model, max_tokens, open_with=partial(open_openvino, precision=precision))
        _check_vector(other, known_as, folder, SAME_VECTORS)
        return other
    if choice.backend == "onnx":
        encoder = (
            LongRunEncoder(model, max_tokens, least_cosine=SAME_VECTORS)
            if moves_for_long_runs(model, precision, backend)
            else OnnxTextEncoder(model, max_tokens, int8=precision == "int8")
        )
        _check_vector(encoder, known_as, folder, 0.99 if precision == "int8" else SAME_VECTORS)
        return encoder
    TORCH.check()
    return TorchEncoder(folder, precision, device, max_tokens, trust_remote_code)


def _check_vector(encoder: Encoder, known_as: str | None, folder: Path, least: float) -> None:
    """Compare with the vector that sentence-transformers gave in float32; a millisecond a load.

    A graph is written by us, and an ONNX file of the hub is not what the hash of the weights covers.
    """
    stored = json.loads(files(__package__).joinpath("stored_vectors.json").read_text(encoding="utf-8"))
    if known_as not in stored["vectors"]:
        return
    expected = np.frombuffer(base64.b64decode(stored["vectors"][known_as]), dtype="<f2").astype(np.float64)
    vector = encoder.encode([stored["text"]], 1)[0]
    cosine = float(vector @ expected / np.linalg.norm(expected)) if len(vector) == len(expected) else 0.0
    if not cosine >= least:
        raise ModelError(
            f"The model in '{folder}' gives another vector than '{known_as}' (cosine {cosine:.5f}; expected at least "
            f"{least}). A file of it is damaged or is another model: download it again, or take backend='torch'."
        )


class EncoderPool:
    """The same model in several processes, each with its share of the cores; thread safe.

    Args:
        folder: Of the model.
        precision: As of `LocalEmbedding`.
        device: As of `LocalEmbedding`.
        processes: How many, >= 2.
        backend: As of `LocalEmbedding`.
        max_tokens: Tokens read; None takes the model's own limit.
        trust_remote_code: Whether code of the model's repository may run here.
        known_as: Name in the catalogue, whose stored vector is compared.
    """

    def __init__(
        self,
        folder: Path,
        precision: Precision,
        device: str,
        processes: int,
        backend: str = "auto",
        max_tokens: int | None = None,
        trust_remote_code: bool = False,
        known_as: str | None = None,
    ) -> None:
        threads = max((os.cpu_count() or 1) // processes, 1)
        # Spawned, not forked: a fork of a process with torch threads can hang.
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(threads, folder, precision, device, backend, max_tokens, trust_remote_code, known_as),
        )
        self._run([([], 1)] * processes)  # so that each loads its model now, and not during the first batch

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Texts to unit vectors, float32, shape (n, dim), in the order of the texts."""
        TORCH.check()  # the processes belong to the parent; a fork would wait for them for ever
        # Sorted here, so that each process pads little; longest first, so that none ends late.
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        slices = [order[start : start + _SLICE] for start in range(0, len(order), _SLICE)]
        vectors = np.concatenate(
            self._run([([texts[place] for place in places], batch_size) for places in slices])
        )
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def _run(self, batches: Sequence[tuple[list[str], int]]) -> list[np.ndarray]:
        try:
            return [done.result() for done in [self._pool.submit(_work, *batch) for batch in batches]]
        except BrokenProcessPool as error:
            raise ModelError(
                "A process that embeds died: out of memory, or the program has no `if __name__ == '__main__':` around "
                "its start. Use fewer processes."
            ) from error


_worker: dict[str, Encoder] = {}


def _begin_worker(threads: int, *model: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before either runtime is imported
    _worker["encoder"] = _make_encoder(*model)


def _work(texts: list[str], batch_size: int) -> np.ndarray:
    return _worker["encoder"].encode(texts, batch_size)


def load_encoder(
    folder: Path,
    precision: Precision,
    device: str,
    backend: str = "auto",
    max_tokens: int | None = None,
    trust_remote_code: bool = False,
    known_as: str | None = None,
) -> Encoder:
    """Load a model, once in a process for the same settings.

    Raises:
        ModelError: It is torch's, and the parent of this forked process has run a model on torch.
    """
    return _encoders(folder, precision, device, backend, max_tokens, trust_remote_code, known_as)


def load_pool(
    folder: Path,
    precision: Precision,
    device: str,
    processes: int,
    backend: str = "auto",
    max_tokens: int | None = None,
    trust_remote_code: bool = False,
    known_as: str | None = None,
) -> EncoderPool:
    """Start the processes of a model, once for the same settings."""
    TORCH.check()
    return _pools(folder, precision, device, processes, backend, max_tokens, trust_remote_code, known_as)


_encoders = LoadOnce(_make_encoder)
_pools = LoadOnce(EncoderPool)
