"""CLIP's two towers, on ONNX Runtime or on transformers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llama_index_presets.concurrency.forks import TORCH
from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.backends import only_torch_device
from llama_index_presets.inference.clip_graphs import clip_obstacle, image_graph, last_places, text_graph
from llama_index_presets.inference.graph_cache import cached_graph, graph_key
from llama_index_presets.inference.model_folder import read_json
from llama_index_presets.inference.safetensors import places_in_files, read_safetensors
from llama_index_presets.inference.session import GraphSession, cpu_threads, run_side_by_side
from llama_index_presets.inference.text_encoder import onnx_installed
from llama_index_presets.packages.extras import installed, require

__all__ = ["ClipTowers", "OnnxTowers", "TorchTowers", "open_towers"]


class ClipTowers(Protocol):
    """What runs a CLIP model; vectors have shape (n, dim) and any length."""

    def texts(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors of padded texts."""

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Vectors of images, shape (n, 3, side, side)."""

    def run(self, work: Callable[[Any], np.ndarray], batches: Sequence[Any]) -> list[np.ndarray]:
        """Results of a function for each batch, in order."""


def open_towers(folder: Path, device: str | None, backend: str) -> ClipTowers:
    """The towers of a folder: on ONNX Runtime where it can run them and no GPU is asked for.

    Raises:
        ModelError: The weights are damaged or missing, or nothing installed can run them.
        MissingExtraError: Neither runtime is installed.
    """
    if backend == "torch":
        TORCH.check()
        return TorchTowers(folder, device)
    config = read_json(folder / "config.json")
    file = folder / "model.safetensors"
    reason = only_torch_device(device) or clip_obstacle(config)
    reason = reason or (None if file.is_file() else "its weights: there is no model.safetensors")
    if onnx_installed() and reason is None:
        return OnnxTowers(folder)
    if not installed("torch"):
        if reason is None:
            raise MissingExtraError("onnxruntime", "clip")
        raise ModelError(
            f"ONNX Runtime cannot run '{folder}' because of {reason}. Run: "
            'pip install "llama-index-presets[local-torch]"'
        )
    if backend == "onnx":
        raise ModelError(f"ONNX Runtime cannot run '{folder}' because of {reason}. Take backend='torch'.")
    TORCH.check()
    return TorchTowers(folder, device)


class OnnxTowers:
    """Both towers on ONNX Runtime, in float32; each is loaded at its first use. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = read_json(folder / "config.json")
        self._sessions: dict[str, GraphSession] = {}
        self._lock = threading.Lock()
        self._weights = read_safetensors(folder / "model.safetensors")
        self._session("text")  # so that damaged weights are found by the load, not by a later image

    def texts(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors of padded texts; what follows a text's end changes nothing."""
        places = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape)
        feed = {"input_ids": ids, "position_ids": places, "last": last_places(ids, self._config)}
        return self._session("text").run_arrays(feed, "output")

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Vectors of images."""
        return self._session("image").run_arrays({"pixel_values": pixels}, "output")

    def run(self, work: Callable[[Any], np.ndarray], batches: Sequence[Any]) -> list[np.ndarray]:
        """Batches side by side, one a core."""
        return run_side_by_side(work, batches, cpu_threads())

    def _session(self, tower: str) -> GraphSession:
        with self._lock:
            if tower not in self._sessions:
                self._sessions[tower] = self._open(tower)
            return self._sessions[tower]

    def _open(self, tower: str) -> GraphSession:
        shapes = {name: array.shape for name, array in self._weights.items()}
        write = text_graph if tower == "text" else image_graph
        file = self._folder / "model.safetensors"
        folder, places = places_in_files(file)
        key = graph_key(self._config, shapes, f"clip {tower}", places)
        graph = cached_graph(self._folder, key, lambda: write(self._config, shapes, places))
        placed = {name: self._weights[name] for name in graph.weights}
        return GraphSession(graph.onnx, placed, source=str(file), folder=folder)


class TorchTowers:
    """Both towers on transformers; one forward pass at a time, two would only share the same cores."""

    def __init__(self, folder: Path, device: str | None) -> None:
        torch, transformers = (require(name, extra="local-torch") for name in ("torch", "transformers"))
        transformers.utils.logging.disable_progress_bar()
        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model = transformers.CLIPModel.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # safetensors, torch and transformers each have errors of their own
            raise ModelError(
                f"The CLIP weights in '{folder}' cannot be loaded ({type(error).__name__}: "
                f"{(str(error).splitlines() or [''])[0][:200]}). Download the model again."
            ) from error
        self._model = model.float().eval().to(self.device)
        self._lock = threading.Lock()

    def texts(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors of padded texts."""
        return self._features("get_text_features", input_ids=ids, attention_mask=mask)

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Vectors of images."""
        return self._features("get_image_features", pixel_values=pixels)

    def run(self, work: Callable[[Any], np.ndarray], batches: Sequence[Any]) -> list[np.ndarray]:
        """Batches one after the other: each uses every core."""
        return [work(batch) for batch in batches]

    def _features(self, method: str, **arrays: np.ndarray) -> np.ndarray:
        TORCH.check()
        tensors = {name: self._torch.from_numpy(one).to(self.device) for name, one in arrays.items()}
        with self._lock, self._torch.inference_mode():
            found = getattr(self._model, method)(**tensors)
        found = getattr(found, "pooler_output", found)  # transformers 5 gives an object, 4 the tensor itself
        return np.asarray(found.float().cpu().numpy())
