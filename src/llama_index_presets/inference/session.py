"""ONNX Runtime sessions: one thread each run, several runs side by side, and batches of like length."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.graphs import relative_buckets
from llama_index_presets.packages.command_process import is_brief
from llama_index_presets.packages.extras import require

__all__ = ["GraphSession", "batches_of_like_length", "cpu_threads", "run_side_by_side"]

_QUIET: Final = 3  # errors only: warnings of the runtime are about its own optimisations
_NO_TELEMETRY: Final = "ORT_DISABLE_TELEMETRY"
_FOLDER_OF_PLACES: Final = "session.model_external_initializers_file_folder_path"


def cpu_threads() -> int:
    """Cores that this process may use: ``OMP_NUM_THREADS``, else those of its affinity."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(work: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """Results of a function for each item, in order, computed by this thread and some that end with the call.

    No thread outlives the call, so a process that forks afterwards is as it was. This one takes its share, since the
    memory that a batch took stays with each thread that ran one. The first error ends it.
    """
    helpers = min(threads, len(items)) - 1
    if helpers < 1:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    left = iter(range(len(items)))

    def take() -> None:
        try:
            for place in left:
                results[place] = work(items[place])
        except BaseException:
            for _ in left:  # nobody begins another
                pass
            raise

    with ThreadPoolExecutor(helpers) as pool:
        others = [pool.submit(take) for _ in range(helpers)]
        take()
    for other in others:
        other.result()
    return results


def batches_of_like_length(lengths: Sequence[int], size: int, threads: int) -> list[list[int]]:
    """Places of texts, longest first, in batches of at most `size` and enough of them for every thread.

    Example:
        >>> batches_of_like_length([5, 90, 8, 100], 8, 2)
        [[3, 1], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    size = max(1, min(size, -(-len(order) // threads)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _runtime() -> Any:
    """The module of ONNX Runtime, with its telemetry off.

    From version 1.29 on it reports to its maker, unless the environment forbids it before the first import.

    Raises:
        ModelError: It is installed, and its library does not load on this machine.
    """
    late = "onnxruntime" in sys.modules and os.environ.get(_NO_TELEMETRY) != "1"
    os.environ[_NO_TELEMETRY] = "1"
    try:
        module = require("onnxruntime", extra="local")
        module.disable_telemetry_events()
    except MissingExtraError:
        raise
    except (ImportError, OSError) as error:
        raise ModelError(
            f"ONNX Runtime is installed, but cannot be loaded here ({type(error).__name__}: {str(error)[:200]}). Run: "
            "pip install --force-reinstall onnxruntime; where its wheel does not suit this machine: pip install "
            '"llama-index-presets[local-torch]", and take backend="torch".'
        ) from error
    if late:
        warnings.warn(
            "Another package imported ONNX Runtime first, with its telemetry on; most of it is off from here on. Set "
            f"{_NO_TELEMETRY}=1 in the environment before Python starts, so that nothing is reported to its maker.",
            stacklevel=2,
        )
    return module


class GraphSession:
    """A loaded graph; threads may share it.

    Args:
        graph: Bytes of an ONNX file, or the path of one.
        weights: Values of the placeholders, by name; empty for a file that carries its own.
        words: Vectors of the words, shape (words, dim), where the graph takes those instead of ids.
        first_position: Position of the first token.
        source: For messages.
        folder: Of files in which the graph names places.

    Raises:
        ModelError: The runtime cannot load it.
    """

    def __init__(
        self,
        graph: bytes | Path,
        weights: Mapping[str, np.ndarray],
        *,
        source: str,
        folder: Path | None = None,
        words: np.ndarray | None = None,
        first_position: int = 0,
    ) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        # A run stays on the thread that called it: runs are put side by side instead, which costs no waiting between
        # the steps of one, and leaves no threads behind that a fork would lose.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.enable_cpu_mem_arena = False  # it keeps the room of the largest batch for ever
        if folder is not None:
            options.add_session_config_entry(_FOLDER_OF_PLACES, str(folder))
        if is_brief():
            # Weights rearranged for the processor are a copy of them all: it saves 3 ms a question, and costs 18 ms.
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._weights = dict(weights)
        if weights:
            values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in self._weights.values()]
            options.add_external_initializers(list(self._weights), values)
        try:
            given = graph if isinstance(graph, bytes) else str(graph)
            self._session = runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a class of its own for each of a dozen states
            raise ModelError(
                f"ONNX Runtime cannot load '{source}' ({type(error).__name__}: {str(error)[:300]}). Download the "
                "model again, or take backend='torch'."
            ) from error
        self._inputs = {one.name: one.type for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._first_position = first_position
        self._words = words

    _length_step = 1
    """Tokens of which the length of a batch is a multiple; more where a runtime prepares each shape anew."""

    @property
    def outputs(self) -> list[str]:
        """Names of what the graph gives."""
        return self._outputs

    def run(self, encodings: Sequence[Any], output: str) -> tuple[np.ndarray, np.ndarray]:
        """One batch of encoded texts: an output of the graph, and the mask of shape (texts, tokens)."""
        longest = max(len(one.ids) for one in encodings)
        length = -(-longest // self._length_step) * self._length_step
        feed: dict[str, np.ndarray] = {
            name: np.zeros((len(encodings), length), dtype=np.int64)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        for row, one in enumerate(encodings):
            size = len(one.ids)
            feed["input_ids"][row, :size] = one.ids
            feed["attention_mask"][row, :size] = 1
            feed["token_type_ids"][row, :size] = one.type_ids
        mask = feed["attention_mask"]
        if "position_ids" in self._inputs:
            places = np.arange(length, dtype=np.int64) + self._first_position
            # Padding is masked: what its position says is never read, but it must be one of the table.
            feed["position_ids"] = np.where(mask > 0, places, self._first_position)
        if self._words is not None:
            feed["word_vectors"] = self._words[feed["input_ids"]]
        if "buckets" in self._inputs:
            feed["buckets"] = relative_buckets(length)
        return self.run_arrays(feed, output), mask

    def run_arrays(self, feed: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        """An output of the graph for arrays that are made elsewhere."""
        found: np.ndarray = self._session.run([output], self._typed(feed))[0]
        return found

    def _typed(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        kinds = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(float)": np.float32}
        return {
            name: feed[name].astype(kinds[self._inputs[name]], copy=False)
            for name in feed
            if name in self._inputs
        }
