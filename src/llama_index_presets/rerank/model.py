"""Cross-encoder loading; a model whose scores would mean nothing is refused."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index_presets.concurrency.forks import TORCH
from llama_index_presets.errors import ModelError
from llama_index_presets.inference.backends import Choice, choose_backend
from llama_index_presets.inference.model_folder import read_model_folder
from llama_index_presets.inference.processor import cpu_computes_bfloat16
from llama_index_presets.packages.extras import installed, require
from llama_index_presets.rerank.onnx_model import OnnxPairModel, folder_named, model_folder
from llama_index_presets.rerank.pair_model import (
    CPU_BATCH_TOKENS,
    ModelSource,
    PairModel,
    cannot_load,
    check_head,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = [
    "TorchPairModel",
    "load_pair_model",
    "read_first_token_only",
]

# A tokenizer without a limit reports a number like 1e30.
_NO_LIMIT = 1_000_000
_GPU_BATCH_TOKENS = 65_536


class TorchPairModel(PairModel):
    """A cross-encoder of sentence-transformers. One batch runs at a time.

    The lock is there because a Rust tokenizer raises "Already borrowed" when two threads change its
    truncation; on a CPU nothing is lost, since one batch already uses every core.

    Args:
        encoder: A single-logit cross-encoder.
        backend: What runs it, and why.
    """

    def __init__(self, encoder: CrossEncoder, backend: str = "torch") -> None:
        self.encoder = encoder
        self.backend = backend
        self.tokenizer: Any = encoder.tokenizer
        self.max_tokens = _limit(self.tokenizer.model_max_length, encoder.config)
        self.batch_tokens = CPU_BATCH_TOKENS if encoder.device.type == "cpu" else _GPU_BATCH_TOKENS
        self.special = int(self.tokenizer.num_special_tokens_to_add(pair=True))
        self._keep_logits = require("torch", extra="local-torch").nn.Identity()
        self._lock = threading.Lock()

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character range of each token of a text."""
        with self._lock:
            found = self.tokenizer(
                text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
            )
        return [(int(start), int(stop)) for start, stop in found["offset_mapping"]]

    def logits(self, query: str, texts: Sequence[str]) -> list[float]:
        """The model's raw outputs for one batch, float, higher is better; one forward pass."""
        TORCH.check()
        with self._lock:
            scores = self.encoder.predict(
                [(query, text) for text in texts],
                batch_size=max(1, len(texts)),
                show_progress_bar=False,
                activation_fn=self._keep_logits,
            )
        return [float(score) for score in scores]

    def _count(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            found = self.tokenizer(
                list(texts), add_special_tokens=False, truncation=False, padding=False, verbose=False
            )
        return [len(ids) for ids in found["input_ids"]]


def _limit(tokenizer_limit: int, config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None)
    known = [int(limit) for limit in (tokenizer_limit, positions) if limit and 0 < limit < _NO_LIMIT]
    return min(known) if known else _NO_LIMIT


# -- last layer of a BERT, computed for the first token alone -------------------------------------------------


logger = logging.getLogger(__name__)

# Their heads read hidden_states[:, 0] and nothing else, and their layers have the same parts.
_FAMILIES = (
    "BertForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
)
# Different lengths, so that the probe is padded and the mask matters.
_PROBE = [("what is it", "a probe"), ("what is it", "a probe that is some words longer than the other one")]
_TOLERANCE = 1e-3


def read_first_token_only(encoder: CrossEncoder) -> list[Any]:
    """Skip the last layer's work on all tokens but the first: the same logits, a seventh less time at 6 layers.

    Keys and values still come from every token. Logits of a probe before and after must agree, else the
    layer stays as it was, so a model or library that is built otherwise is run in full.

    Args:
        encoder: A cross-encoder in float32 on a CPU.

    Returns:
        The modules that now see one token only, and so can afford full precision; empty when the layer
        could not be replaced.
    """
    model: Any = encoder.model
    if type(model).__name__ not in _FAMILIES or model.config.is_decoder:
        return []
    layer = getattr(model, model.base_model_prefix).encoder.layer[-1]
    expected = _probe(encoder)
    whole = layer.forward
    for as_tuple in (False, True):  # transformers 5 passes the bare tensor on, 4 a tuple
        layer.forward = _first_token_forward(layer, as_tuple=as_tuple)
        if _agrees(encoder, expected):
            pooler = getattr(getattr(model, model.base_model_prefix), "pooler", None)
            tail = [layer.attention.output, layer.intermediate, layer.output, pooler]
            return [module for module in tail if module is not None]
    layer.forward = whole
    logger.info("%s is run in full: its last layer is not built as expected.", type(model).__name__)
    return []


def _first_token_forward(layer: Any, *, as_tuple: bool) -> Callable[..., Any]:
    attention = layer.attention.self
    attend = require("torch", extra="local-torch").nn.functional.scaled_dot_product_attention

    def heads(states: Any) -> Any:
        return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)

    def forward(hidden_states: Any, attention_mask: Any = None, *_: Any, **__: Any) -> Any:
        first = hidden_states[:, :1]
        read = attend(
            heads(attention.query(first)),
            heads(attention.key(hidden_states)),
            heads(attention.value(hidden_states)),
            attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
        )
        dtype = layer.attention.output.dense.weight.dtype  # float32 also where the other weights are not
        attended = layer.attention.output(read.transpose(1, 2).flatten(2).to(dtype), first.to(dtype))
        result = layer.output(layer.intermediate(attended), attended)
        return (result,) if as_tuple else result

    return forward


def _probe(encoder: CrossEncoder) -> list[float]:
    identity = require("torch", extra="local-torch").nn.Identity()
    return [float(x) for x in encoder.predict(_PROBE, activation_fn=identity, show_progress_bar=False)]


def _agrees(encoder: CrossEncoder, expected: list[float]) -> bool:
    try:
        found = _probe(encoder)
    except Exception:  # whatever another layout raises, the full layer is the answer
        return False
    return all(abs(one - other) <= _TOLERANCE for one, other in zip(found, expected, strict=True))


def load_pair_model(source: ModelSource) -> PairModel:
    """Load a cross-encoder: from its folder, else the local cache, else the hub.

    A model in the local cache is loaded without one request to the hub.

    Raises:
        ModelError: It cannot be found or loaded, has no scoring head, or scores more than one label.
        MissingExtraError: Nothing that could run it is installed.
    """
    choice = _choose(source)
    if choice.backend in ("onnx", "openvino"):
        return OnnxPairModel(read_model_folder(model_folder(source)), source, choice)
    TORCH.check()
    source = replace(source, backend=choice.backend)  # type: ignore[arg-type]
    encoder = _load(source)
    has_own_head = hasattr(encoder, "__len__") and len(encoder) > 1
    architectures = () if has_own_head else getattr(encoder.config, "architectures", None) or ()
    check_head(source.model, architectures, encoder.num_labels)
    device = encoder.device.type
    tail = read_first_token_only(encoder) if source.backend == "torch" and device == "cpu" else []
    if source.backend == "torch" and _wants_bfloat16(source, device):
        _to_bfloat16(encoder, tail)
    return TorchPairModel(encoder, backend=f"{choice.backend}: {choice.reason}")


def _choose(source: ModelSource) -> Choice:
    if source.backend == "torch":  # sentence-transformers finds, checks and refuses by itself
        return Choice("torch", "asked for")
    try:
        folder = model_folder(source)
    except ModelError:
        if not installed("sentence_transformers") or source.backend != "auto":
            raise
        return Choice("torch", "it is looked for by sentence-transformers")
    return choose_backend(
        read_model_folder(folder),
        source.backend,
        precision=source.precision,
        device=source.device,
        trust_remote_code=source.trust_remote_code,
    )


def _load(source: ModelSource) -> CrossEncoder:
    folder = _folder(source)
    try:
        return _construct(source, folder or source.model, local_files_only=True)
    except Exception as error:
        if folder is not None or source.local_files_only:
            raise cannot_load(source, _cause(error)) from error
    try:
        return _construct(source, source.model, local_files_only=False)
    except Exception as error:
        raise cannot_load(source, _cause(error)) from error


def _folder(source: ModelSource) -> str | None:
    found = folder_named(source)
    return str(found) if found else None


def _construct(source: ModelSource, name: str, *, local_files_only: bool) -> CrossEncoder:
    encoder: CrossEncoder = require("sentence_transformers", extra="local-torch").CrossEncoder(
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


def _cause(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _wants_bfloat16(source: ModelSource, device: str) -> bool:
    if source.precision != "auto":
        return source.precision == "bfloat16"
    if device == "cuda":
        return bool(require("torch", extra="local-torch").cuda.is_bf16_supported())
    return device == "cpu" and cpu_computes_bfloat16()


def _to_bfloat16(encoder: CrossEncoder, tail: Sequence[Any]) -> None:
    """Compute in bfloat16 but for the end: eight bits of mantissa would tie neighbouring logits.

    Args:
        encoder: The model; its scoring head stays in float32.
        tail: Further modules that stay in float32, and cast what they are given themselves.
    """
    torch = require("torch", extra="local-torch")
    model: Any = encoder.model
    model.to(torch.bfloat16)
    for module in tail:
        module.float()
    for name in ("classifier", "score"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Module):
            head.float()
            head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
