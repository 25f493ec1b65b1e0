"""The loaded model behind `LocalEmbedding`: one precision, one device, here or in several processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from llama_index_presets._extras import require
from llama_index_presets.errors import ModelError, SettingsError
from llama_index_presets.forks import TORCH
from llama_index_presets.loading import LoadOnce

__all__ = ["Encoder", "EncoderPool", "Precision", "cpu_computes_bfloat16", "load_encoder", "load_pool"]

Precision = Literal["auto", "float32", "bfloat16", "int8"]

_SLICE: Final = 64
"""Texts sent to a process at once: some seconds of work, so that all end at about the same time."""


def cpu_computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32.

    Args:
        cpuinfo: Where Linux lists the CPU's flags; a missing file (other systems) means no.
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


class Encoder:
    """A loaded sentence-transformers model; one lock, since its tokenizer keeps state between calls."""

    def __init__(self, folder: Path, precision: Precision, device: str) -> None:
        torch = require("torch", extra="local")
        sentence_transformers = require("sentence_transformers", extra="local")
        # It draws a bar for each loaded model.
        require("transformers", extra="local").utils.logging.disable_progress_bar()
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.precision = _resolved(precision, self.device, torch)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        self._model = sentence_transformers.SentenceTransformer(
            str(folder), device=self.device, model_kwargs={"torch_dtype": dtype}, local_files_only=True
        )
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
                texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
            )
        vectors = tensors.float().cpu().numpy()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _resolved(precision: Precision, device: str, torch: Any) -> Precision:
    if precision == "int8" and device != "cpu":
        raise SettingsError(f"precision='int8' runs on the CPU, not on '{device}'. Use 'bfloat16' there.")
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else cpu_computes_bfloat16()
    return "bfloat16" if fast and (device == "cpu" or device.startswith("cuda")) else "float32"


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


class EncoderPool:
    """The same model in several processes, each with its share of the cores; thread safe.

    Args:
        folder: Of the model.
        precision: As of `LocalEmbedding`.
        device: As of `LocalEmbedding`.
        processes: How many, >= 2.
    """

    def __init__(self, folder: Path, precision: Precision, device: str, processes: int) -> None:
        threads = max((os.cpu_count() or 1) // processes, 1)
        # Spawned, not forked: a fork of a process with torch threads can hang.
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(folder, precision, device, threads),
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


def _begin_worker(folder: Path, precision: Precision, device: str, threads: int) -> None:
    require("torch", extra="local").set_num_threads(threads)
    _worker["encoder"] = Encoder(folder, precision, device)


def _work(texts: list[str], batch_size: int) -> np.ndarray:
    return _worker["encoder"].encode(texts, batch_size)


def load_encoder(folder: Path, precision: Precision, device: str) -> Encoder:
    """Load a model, once in a process for the same settings.

    Raises:
        ModelError: The parent of this forked process has run a model.
    """
    TORCH.check()  # before the lock, which another thread of the parent may have held during the fork
    return _encoders(folder, precision, device)


def load_pool(folder: Path, precision: Precision, device: str, processes: int) -> EncoderPool:
    """Start the processes of a model, once for the same settings."""
    TORCH.check()
    return _pools(folder, precision, device, processes)


_encoders = LoadOnce(Encoder)
_pools = LoadOnce(EncoderPool)
