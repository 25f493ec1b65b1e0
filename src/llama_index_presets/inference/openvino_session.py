"""Text encoders on OpenVINO, in bfloat16: slower to start than ONNX Runtime, and twice as fast in a long run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from llama_index_presets.concurrency.forks import ADVICE
from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.graph_writer import GraphWriter
from llama_index_presets.inference.graphs import Purpose, unsupported, word_table, write_encoder
from llama_index_presets.inference.model_folder import ModelFolder
from llama_index_presets.inference.processor import cpu_computes_bfloat16
from llama_index_presets.inference.safetensors import forget_pages, read_safetensors
from llama_index_presets.inference.session import GraphSession, cpu_threads
from llama_index_presets.inference.text_encoder import first_position, weights_file
from llama_index_presets.packages.extras import require

__all__ = ["OpenVinoSession", "can_run", "open_openvino", "openvino_module"]

_TELEMETRY: Final = "openvino_telemetry"
_MASKED: Final = -1e4
"""Added to the attention of what is padding; more than that is infinite in half precision."""

_KINDS: Final = {"int32": "tensor(int32)", "int64": "tensor(int64)", "float32": "tensor(float)"}


def openvino_module() -> Any:
    """The module of OpenVINO, imported without its telemetry.

    Its import reports to Google Analytics, unless its telemetry package is missing: then it takes its own stub.

    Raises:
        MissingExtraError: It is not installed.
        ModelError: It is installed, and its library does not load on this machine.
    """
    try:
        with _telemetry_hidden():
            return require("openvino", extra="local-openvino")
    except MissingExtraError:
        raise
    except (ImportError, OSError) as error:
        raise ModelError(
            f"OpenVINO is installed, but cannot be loaded here ({type(error).__name__}: {str(error)[:200]}). Run: "
            "pip install --force-reinstall openvino, or pip uninstall openvino: ONNX Runtime does its work."
        ) from error


@contextmanager
def _telemetry_hidden() -> Iterator[None]:
    if "openvino" in sys.modules:
        yield
        return
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            sys.modules.pop(_TELEMETRY, None)
        else:
            sys.modules[_TELEMETRY] = before


def can_run(model: ModelFolder) -> bool:
    """Whether a folder has weights that a graph is written for."""
    return not model.obstacle and weights_file(model) is not None and unsupported(model.config) is None


class _OpenVinoWriter(GraphWriter):
    """The operations that `write_encoder` uses, as nodes of OpenVINO.

    Args:
        operations: Module of an operation set.
        weights: Of the file, by name.
    """

    def __init__(self, operations: Any, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__({name: array.shape for name, array in weights.items()})
        self._op = operations
        self._weights = weights
        self._made: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}

    def weight(self, name: str) -> str:
        """The constant of a weight."""
        super().weight(name)
        if name not in self._made:
            self._made[name] = self._op.constant(np.asarray(self._weights[name], dtype=np.float32))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """A small array that is part of the graph."""
        self._made.setdefault(name, self._op.constant(values))
        return name

    def node(self, operator: str, inputs: Sequence[str], *, contrib: bool = False, **attributes: Any) -> str:
        """Add an operation; gives the name of its output."""
        name = str(attributes.pop("output", f"t{len(self._made)}"))
        parts = [self._part(one) if one else None for one in inputs]
        self._made[name] = self._operation(operator, parts, attributes)
        return name

    def _part(self, name: str) -> Any:
        if name not in self._made:
            kind, shape = _INPUTS[name]
            self._parameters[name] = self._made[name] = self._op.parameter(shape, kind, name=name)
        return self._made[name]

    def _operation(self, operator: str, parts: list[Any], attributes: dict[str, Any]) -> Any:
        op = self._op
        match operator:
            case "MultiHeadAttention":
                return self._attention(*parts, heads=attributes["num_heads"])
            case "FusedMatMul":
                return op.matmul(*parts, False, True)
            case "LayerNormalization":
                return self._norm(*parts, epsilon=attributes["epsilon"])
            case "SkipLayerNormalization":
                x, skip, weight, bias, added = parts
                return self._norm(op.add(op.add(x, added), skip), weight, bias, epsilon=attributes["epsilon"])
            case "Gather":
                return op.gather(*parts, self._numbers(0))
            case "Slice":
                data, begin, end, axis = parts
                return op.slice(data, begin, end, self._numbers([1]), axis)
            case "Transpose":
                return op.transpose(*parts, self._numbers(attributes["perm"]))
            case "Gelu" | "FastGelu":
                return op.gelu(*parts, "ERF" if operator == "Gelu" else "TANH")
            case "Identity":
                return parts[0]
            case _:  # Add, Unsqueeze, Relu, Tanh
                return getattr(op, operator.lower())(*parts)

    def _numbers(self, values: Any) -> Any:
        return self._op.constant(np.array(values, dtype=np.int64))

    def _norm(self, x: Any, weight: Any, bias: Any, *, epsilon: float) -> Any:
        scaled = self._op.mvn(x, self._numbers([-1]), True, epsilon, "INSIDE_SQRT")
        return self._op.add(self._op.multiply(scaled, weight), bias)

    def _attention(
        self, query: Any, key: Any, value: Any, _: Any, mask: Any, bias: Any, *, heads: int
    ) -> Any:
        op = self._op
        split = [
            op.transpose(op.reshape(one, self._numbers([0, 0, heads, -1]), True), self._numbers([0, 2, 1, 3]))
            for one in (query, key, value)
        ]
        if "mask to add" not in self._made:
            padding = op.subtract(op.constant(np.float32(1)), op.convert(mask, "f32"))
            added = op.multiply(padding, op.constant(np.float32(_MASKED)))
            self._made["mask to add"] = op.unsqueeze(added, self._numbers([1, 2]))
        masked = self._made["mask to add"]
        attended = op.scaled_dot_product_attention(*split, masked if bias is None else op.add(masked, bias))
        joined = op.transpose(attended, self._numbers([0, 2, 1, 3]))
        return op.reshape(joined, self._numbers([0, 0, -1]), True)


_INPUTS: Final[Mapping[str, tuple[Any, list[int]]]] = {
    "word_vectors": (np.float32, [-1, -1, -1]),
    "attention_mask": (np.int32, [-1, -1]),
    "position_ids": (np.int64, [-1, -1]),
    "token_type_ids": (np.int64, [-1, -1]),
    "buckets": (np.int64, [-1, -1]),
}


class OpenVinoSession(GraphSession):
    """A model on OpenVINO, one thread a run and a run on each core; threads may share it, forks may not.

    Args:
        model: A folder for which `can_run` holds.
        purpose: What the graph gives.
        precision: ``"bf16"``, or ``"f32"``.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: It cannot be loaded, or cannot run the model.
    """

    _length_step = 16  # the runtime makes code for each shape

    def __init__(self, model: ModelFolder, purpose: Purpose, *, precision: str = "bf16") -> None:
        runtime = openvino_module()
        file = weights_file(model)
        if file is None:
            raise ModelError(
                f"'{model.folder}' has no model.safetensors, from which OpenVINO's graph is made."
            )
        weights = read_safetensors(file)
        try:
            writer = _OpenVinoWriter(runtime.opset13, weights)
            inputs, output = write_encoder(writer, model.config, writer._shapes, purpose)
            graph = runtime.Model(
                [runtime.opset13.result(writer._made[output])], list(writer._parameters.values()), purpose
            )
            streams = cpu_threads()
            self._compiled = runtime.Core().compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": streams,
                    "ENABLE_CPU_PINNING": False,  # other processes use these cores, too
                },
            )
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run '{model.folder}' ({str(error)[:300]}). Take backend='onnx'."
            ) from error
        self._names = list(writer._parameters)
        self._inputs = {name: _KINDS[np.dtype(inputs[name][0]).name] for name in self._names}
        self._outputs = [output]
        self._words = np.array(weights[word_table(model.config, writer._shapes)])
        self._first_position = first_position(model.config)
        self._free: list[Any] = []
        self._lock = threading.Lock()
        self.process = os.getpid()
        forget_pages(weights)

    def run_arrays(self, feed: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        """The output of the graph for arrays that are made elsewhere.

        Raises:
            ModelError: This process was forked by the one that loaded it, and has none of its threads.
        """
        if self.process != os.getpid():
            raise ModelError(
                f"OpenVINO was loaded in process {self.process} before it forked this one, where a call would hang. "
                f"{ADVICE}"
            )
        with self._lock:
            request = self._free.pop() if self._free else self._compiled.create_infer_request()
        try:
            typed = self._typed(feed)
            found = request.infer([typed[name] for name in self._names], share_inputs=True)[0]
        finally:
            with self._lock:
                self._free.append(request)
        return np.asarray(found)


def open_openvino(model: ModelFolder, purpose: Purpose, *, precision: str = "auto") -> OpenVinoSession:
    """A session in bfloat16 where the processor computes in it, and where `precision` is not ``"float32"``.

    Raises:
        MissingExtraError: As of `OpenVinoSession`.
        ModelError: As of `OpenVinoSession`.
    """
    fast = precision != "float32" and cpu_computes_bfloat16()
    return OpenVinoSession(model, purpose, precision="bf16" if fast else "f32")
