"""Find a cross-encoder, load it, and refuse one whose scores would mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index_presets._extras import require
from llama_index_presets.errors import ModelError
from llama_index_presets.rerank.first_token import read_first_token_only
from llama_index_presets.rerank.pair_model import PairModel

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["Backend", "ModelSource", "Precision", "load_pair_model"]

Backend = Literal["torch", "onnx", "openvino"]
Precision = Literal["auto", "float32", "bfloat16"]

_INSTALL = {
    "onnx": 'pip install "optimum-onnx[onnxruntime]"',
    "openvino": 'pip install "optimum-intel[openvino]"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Which model to load, and how.

    Attributes:
        model: A folder, or a name on the hub.
        revision: Commit, tag or branch on the hub; None for the default branch.
        backend: What runs the model.
        device: ``"cpu"``, ``"cuda"``, …; None lets sentence-transformers choose.
        precision: ``"auto"`` is bfloat16 where the processor computes in it natively, else float32.
        max_length: Most tokens of a pair; None is the model's own limit.
        trust_remote_code: Whether Python code from the model's repository may run here.
        cache_folder: Where downloaded models lie; None is the hub's default.
        local_files_only: Never ask the hub.
    """

    model: str
    revision: str | None = None
    backend: Backend = "torch"
    device: str | None = None
    precision: Precision = "auto"
    max_length: int | None = None
    trust_remote_code: bool = False
    cache_folder: str | None = None
    local_files_only: bool = False


def load_pair_model(source: ModelSource) -> PairModel:
    """Load a cross-encoder: from its folder, else the local cache, else the hub.

    A model in the local cache is loaded without one request to the hub.

    Raises:
        ModelError: It cannot be found or loaded, has no scoring head, or scores more than one label.
        MissingExtraError: sentence-transformers is not installed.
    """
    encoder = _load(source)
    _check_head(encoder, source.model)
    device = encoder.device.type
    tail = read_first_token_only(encoder) if source.backend == "torch" and device == "cpu" else []
    if source.backend == "torch" and _wants_bfloat16(source, device):
        _to_bfloat16(encoder, tail)
    return PairModel(encoder)


def _load(source: ModelSource) -> CrossEncoder:
    folder = _folder(source)
    try:
        return _construct(source, folder or source.model, local_files_only=True)
    except Exception as error:
        if folder is not None or source.local_files_only:
            raise ModelError(_cannot_load(source, error)) from error
    try:
        return _construct(source, source.model, local_files_only=False)
    except Exception as error:
        raise ModelError(_cannot_load(source, error)) from error


def _folder(source: ModelSource) -> str | None:
    path = Path(source.model).expanduser()
    if path.is_dir():
        return str(path)
    if source.model.startswith((".", "/", "~")) or source.model.count("/") > 1:
        raise ModelError(
            f"There is no folder '{path}'. Pass the folder of a saved cross-encoder, or a name on the hub "
            "such as 'cross-encoder/ms-marco-MiniLM-L6-v2'."
        )
    return None


def _construct(source: ModelSource, name: str, *, local_files_only: bool) -> CrossEncoder:
    encoder: CrossEncoder = require("sentence_transformers", extra="local").CrossEncoder(
        name,
        max_length=source.max_length,
        device=source.device,
        revision=source.revision,
        backend=source.backend,
        trust_remote_code=source.trust_remote_code,
        cache_folder=source.cache_folder,
        local_files_only=local_files_only,
    )
    return encoder


def _cannot_load(source: ModelSource, error: Exception) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    install = _INSTALL.get(source.backend)
    extra = f" The {source.backend} backend needs: {install}." if install else ""
    return (
        f"The cross-encoder '{source.model}' could not be loaded: {cause}{extra} Pass the folder of a saved "
        "cross-encoder, or download the model once where the hub can be reached."
    )


def _check_head(encoder: CrossEncoder, name: str) -> None:
    """A bi-encoder loads too, with a head of random numbers: refuse what would rank by dice."""
    classes = list(getattr(encoder.config, "architectures", None) or [])
    has_own_head = hasattr(encoder, "__len__") and len(encoder) > 1
    if classes and not has_own_head and not any(c.endswith("ForSequenceClassification") for c in classes):
        raise ModelError(
            f"'{name}' is a {classes[0]} and has no scoring head; its scores would be random. Use a "
            "cross-encoder, or train one from it with llama_index_presets.rerank.fine_tune."
        )
    if encoder.num_labels != 1:
        raise ModelError(
            f"'{name}' scores {encoder.num_labels} labels; a reranker needs one. "
            "Use a model that was trained for ranking."
        )


def _wants_bfloat16(source: ModelSource, device: str) -> bool:
    if source.precision != "auto":
        return source.precision == "bfloat16"
    torch = require("torch", extra="local")
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and _cpu_has_bfloat16(torch)


def _cpu_has_bfloat16(torch: Any) -> bool:
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def _to_bfloat16(encoder: CrossEncoder, tail: Sequence[Any]) -> None:
    """Compute in bfloat16 but for the end: eight bits of mantissa would tie neighbouring logits.

    Args:
        encoder: The model; its scoring head stays in float32.
        tail: Further modules that stay in float32, and cast what they are given themselves.
    """
    torch = require("torch", extra="local")
    model: Any = encoder.model
    model.to(torch.bfloat16)
    for module in tail:
        module.float()
    for name in ("classifier", "score"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Module):
            head.float()
            head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
