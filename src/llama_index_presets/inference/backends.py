"""Choice of what runs a local model: ONNX Runtime, OpenVINO, or sentence-transformers on torch."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llama_index_presets.errors import MissingExtraError, ModelError, SettingsError
from llama_index_presets.inference.model_folder import ModelFolder
from llama_index_presets.inference.openvino_session import can_run
from llama_index_presets.inference.processor import cpu_computes_bfloat16
from llama_index_presets.inference.text_encoder import obstacle_of, onnx_installed
from llama_index_presets.packages.extras import installed

__all__ = ["BACKENDS", "Backend", "Choice", "choose_backend", "only_torch_device"]

Backend = Literal["auto", "onnx", "torch", "openvino"]
BACKENDS: Final = ("auto", "onnx", "torch", "openvino")
_GPU_FILES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_TORCH: Final = 'pip install "llama-index-presets[local-torch]"'
_NO_WHEEL: Final = f"where it has no wheel for this Python or processor: {_TORCH}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a model.

    Attributes:
        backend: ``"onnx"``, ``"torch"`` or ``"openvino"``.
        reason: Why, in a few words.
    """

    backend: str
    reason: str


def _torch_installed() -> bool:
    return installed("sentence_transformers") and installed("torch")


def _gpu_in_sight() -> bool:
    """Whether torch could find a GPU; asking torch itself would cost a second on machines that have none."""
    if "torch" in sys.modules:
        return bool(sys.modules["torch"].cuda.is_available())
    return any(Path(file).exists() for file in _GPU_FILES) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def only_torch_device(device: str | None) -> str | None:
    """Why a device needs torch, in words that follow "because of"; None for the CPU where there is no GPU."""
    if device not in (None, "auto", "cpu"):
        return f"device='{device}'"
    gpu = device != "cpu" and _torch_installed() and _gpu_in_sight()
    return "the GPU, which is torch's" if gpu else None


def choose_backend(
    model: ModelFolder,
    backend: str,
    *,
    precision: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Choice:
    """Choose what runs a model here.

    Args:
        model: Description of its folder.
        backend: What was asked for; ``"auto"`` takes ONNX Runtime on a CPU, torch on a GPU or for a model that only
            torch runs.
        precision: As the embedding or the re-ranker was told.
        device: As it was told; None is a GPU where there is one.
        trust_remote_code: Whether code of the model's repository may run here.

    Raises:
        SettingsError: No such backend, or one that cannot do what was asked.
        ModelError: The model cannot be run by what is installed; the message says what to install.
        MissingExtraError: Neither runtime is installed.
    """
    if backend not in BACKENDS:
        raise SettingsError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.")
    if model.remote_code and not trust_remote_code and (backend == "torch" or obstacle_of(model)):
        raise ModelError(
            f"'{model.folder}' brings Python code of its own, which is not run without consent. Read it, then pass "
            f"trust_remote_code=True (it needs torch: {_TORCH}), or take another model."
        )
    if backend == "torch":
        return Choice(backend, "asked for")
    if backend == "openvino":
        return _asked_for_openvino(model, precision, device)
    only_torch = _only_torch(precision, device)
    if backend == "onnx":
        return _asked_for_onnx(model, only_torch)
    return _automatic(model, only_torch, device)


def _only_torch(precision: str, device: str | None) -> str | None:
    if device not in (None, "auto", "cpu"):
        return f"device='{device}'"
    return f"precision='{precision}'" if precision == "bfloat16" else None


def _asked_for_onnx(model: ModelFolder, only_torch: str | None) -> Choice:
    if only_torch:
        raise SettingsError(
            f"backend='onnx' computes on the CPU in float32 or int8, not with {only_torch}. Take 'torch'."
        )
    if not onnx_installed():
        raise MissingExtraError("onnxruntime", "local", _NO_WHEEL)
    if reason := obstacle_of(model):
        raise ModelError(f"ONNX Runtime cannot run '{model.folder}' because of {reason}. Run: {_TORCH}")
    return Choice("onnx", "asked for")


def _asked_for_openvino(model: ModelFolder, precision: str, device: str | None) -> Choice:
    if device not in (None, "auto", "cpu"):
        raise SettingsError(
            f"backend='openvino' computes on the CPU, not with device='{device}'. Take 'torch'."
        )
    if precision == "int8":
        raise SettingsError("backend='openvino' computes in float32 or bfloat16, not in int8. Take 'onnx'.")
    if precision == "bfloat16" and not cpu_computes_bfloat16():
        raise SettingsError("precision='bfloat16' needs a processor that multiplies it (AVX512-BF16 or AMX).")
    if not installed("openvino"):
        raise MissingExtraError("openvino", "local-openvino")
    if not can_run(model):
        reason = obstacle_of(model) or "its weights: there is no model.safetensors"
        raise ModelError(f"OpenVINO cannot run '{model.folder}' because of {reason}. Take backend='auto'.")
    return Choice("openvino", "asked for")


def _automatic(model: ModelFolder, only_torch: str | None, device: str | None) -> Choice:
    if only_torch:
        return Choice("torch", f"{only_torch} is torch's")
    if device in (None, "auto") and _torch_installed() and _gpu_in_sight():
        return Choice("torch", "there is a GPU")
    reason = obstacle_of(model)
    if onnx_installed() and reason is None:
        return Choice("onnx", "the first to start of what is installed, and exact")
    if _torch_installed():
        return Choice(
            "torch",
            f"ONNX Runtime does not run it because of {reason}"
            if reason
            else "ONNX Runtime is not installed",
        )
    if onnx_installed():
        raise ModelError(f"ONNX Runtime cannot run '{model.folder}' because of {reason}. Run: {_TORCH}")
    raise MissingExtraError("onnxruntime", "local", _NO_WHEEL)
