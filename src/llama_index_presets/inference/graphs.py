"""ONNX graphs of text encoders, written from ``config.json`` and the names of the weights; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from llama_index_presets.errors import ModelError
from llama_index_presets.inference.graph_writer import GraphWriter, WrittenGraph
from llama_index_presets.inference.safetensors import TensorPlace

__all__ = [
    "ENCODERS",
    "Purpose",
    "encoder_graph",
    "relative_buckets",
    "unsupported",
    "word_table",
    "write_encoder",
]

Purpose = Literal["tokens", "first", "scores"]
"""Output of a graph: vectors of all tokens, of the first one, or the logits of a sequence classifier."""

_WORDS: Final = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Names of the tensors of one architecture; ``{i}`` is the layer."""

    prefixes: tuple[str, ...]
    layer: str
    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    wide: str
    narrow: str
    norm: str
    head: tuple[str, str] | None  # the dense layer of the scoring head and its activation; then `final`
    final: str
    unused: tuple[str, ...] = ("position_ids", "pooler.", "lm_head.", "cls.", "vocab_", "mlm")
    relative: bool = False
    types: bool = True
    offset: bool = False


_BERT_LAYER: Final[dict[str, Any]] = dict(
    layer="encoder.layer.{i}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    norm="output.LayerNorm",
)
_ROBERTA = _Names(
    **_BERT_LAYER,
    prefixes=("", "roberta."),
    head=("classifier.dense", "Tanh"),
    final="classifier.out_proj",
    offset=True,
)
ENCODERS: Final[Mapping[str, _Names]] = {
    "bert": _Names(**_BERT_LAYER, prefixes=("", "bert."), head=("pooler.dense", "Tanh"), final="classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _Names(
        **_BERT_LAYER,
        prefixes=("", "electra."),
        head=("classifier.dense", "Gelu"),
        final="classifier.out_proj",
        unused=("position_ids", "discriminator_", "generator_"),
    ),
    "mpnet": _Names(
        prefixes=("", "mpnet."),
        layer="encoder.layer.{i}.",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attended="attention.attn.o",
        attended_norm="attention.LayerNorm",
        wide="intermediate.dense",
        narrow="output.dense",
        norm="output.LayerNorm",
        head=("classifier.dense", "Tanh"),
        final="classifier.out_proj",
        relative=True,
        types=False,
        offset=True,
    ),
    "distilbert": _Names(
        prefixes=("", "distilbert."),
        layer="transformer.layer.{i}.",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attended="attention.out_lin",
        attended_norm="sa_layer_norm",
        wide="ffn.lin1",
        narrow="ffn.lin2",
        norm="output_layer_norm",
        head=("pre_classifier", "Relu"),
        final="classifier",
        types=False,
    ),
}
"""Architectures whose graph is written here, by ``model_type``."""

_ACTIVATIONS: Final = {
    "gelu": "Gelu",
    "gelu_new": "FastGelu",
    "gelu_pytorch_tanh": "FastGelu",
    "relu": "Relu",
}


def _own(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), default)


def unsupported(config: Mapping[str, Any]) -> str | None:
    """What in a configuration no graph can be written for, or None."""
    kind = config.get("model_type")
    if kind not in ENCODERS:
        return f"its architecture '{kind}'"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return f"its positions ('{config['position_embedding_type']}')"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "its decoder"
    activation = _own(config, "hidden_act", "activation", default="gelu")
    return None if activation in _ACTIVATIONS else f"its activation '{activation}'"


def encoder_graph(
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    purpose: Purpose,
    *,
    int8: bool = False,
    places: Mapping[str, TensorPlace] | None = None,
) -> WrittenGraph:
    """Write the graph of a text encoder.

    Inputs: ``word_vectors``, shape (texts, tokens, dim), the rows of `word_table`: of a table that may be most of the
    model, only the rows that are read take memory. ``attention_mask`` (int32) and ``position_ids``, shape (texts,
    tokens); with types also ``token_type_ids``, with relative positions ``buckets`` of shape (tokens, tokens). The
    result is ``output``.

    Args:
        config: Content of ``config.json``, of an architecture in `ENCODERS`.
        shapes: Of the weights, by name.
        purpose: What the graph gives.
        int8: Whether dense layers compute in int8; their weights are then what `int8_weight` makes of them.
        places: As of `GraphWriter`.

    Raises:
        ModelError: The weights are not those of the architecture.
    """
    writer = GraphWriter(shapes, int8=int8, places=places)
    return writer.finish(*write_encoder(writer, config, shapes, purpose))


def write_encoder(
    writer: GraphWriter,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    purpose: Purpose,
) -> tuple[dict[str, tuple[Any, int]], str]:
    """Add the operations of an encoder to a graph; gives its inputs and the name of its result.

    Args:
        writer: Of ONNX, or of another runtime's graphs.
        config: As of `encoder_graph`.
        shapes: Of the weights, by name.
        purpose: What the graph gives.

    Raises:
        ModelError: The weights are not those of the architecture.
    """
    names = ENCODERS[str(config["model_type"])]
    prefix = word_table(config, shapes).removesuffix(_WORDS)
    inputs: dict[str, tuple[Any, int]] = {
        "word_vectors": (np.float32, 3),
        "attention_mask": (np.int32, 2),
        "position_ids": (np.int64, 2),
    }
    if names.types and f"{prefix}embeddings.token_type_embeddings.weight" in shapes:
        inputs["token_type_ids"] = (np.int64, 2)
    if names.relative:
        inputs["buckets"] = (np.int64, 2)
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    x = _embedded(writer, prefix, inputs, epsilon)
    bias = _relative_bias(writer, prefix) if names.relative else None
    layers = int(_own(config, "num_hidden_layers", "n_layers"))
    for layer in range(layers):
        only_first = purpose != "tokens" and layer == layers - 1
        x = _layer(
            writer,
            prefix + names.layer.format(i=layer),
            names,
            config,
            x,
            bias,
            epsilon,
            only_first=only_first,
        )
    if purpose == "scores":
        x = _head(writer, prefix, names, x)
    if strange := writer.unread((*names.unused, _WORDS)):
        raise ModelError(
            f"The weights have '{strange[0]}', which a '{config['model_type']}' has no place for."
        )
    return inputs, writer.node("Identity", [x], output="output")


def word_table(config: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    """Name of the weight whose rows are the vectors of the words.

    Raises:
        ModelError: The weights are not those of the architecture.
    """
    names = [prefix + _WORDS for prefix in ENCODERS[str(config["model_type"])].prefixes]
    found = next((name for name in names if name in shapes), None)
    if found is None:
        raise ModelError(
            f"The weights are not those of a '{config['model_type']}': they have no '{names[0]}'."
        )
    return found


def _embedded(writer: GraphWriter, prefix: str, inputs: Mapping[str, Any], epsilon: float) -> str:
    place = f"{prefix}embeddings."
    x = "word_vectors"
    more = {"position_embeddings": "position_ids", "token_type_embeddings": "token_type_ids"}
    for table, ids in more.items():
        if ids in inputs:
            rows = writer.node("Gather", [writer.weight(f"{place}{table}.weight"), ids])
            x = writer.node("Add", [x, rows])
    x = writer.norm(x, f"{place}LayerNorm", epsilon)
    # ELECTRA's small models embed in fewer numbers than they compute in.
    projected = f"{prefix}embeddings_project"
    return writer.linear(x, projected) if f"{projected}.weight" in writer._shapes else x


def _relative_bias(writer: GraphWriter, prefix: str) -> str:
    rows = writer.node(
        "Gather", [writer.weight(f"{prefix}encoder.relative_attention_bias.weight"), "buckets"]
    )
    heads = writer.node("Transpose", [rows], perm=[2, 0, 1])
    return writer.node("Unsqueeze", [heads, writer.constant("front", np.array([0], dtype=np.int64))])


def _layer(
    writer: GraphWriter,
    place: str,
    names: _Names,
    config: Mapping[str, Any],
    x: str,
    bias: str | None,
    epsilon: float,
    *,
    only_first: bool,
) -> str:
    """One layer; the last one computes only what is read, where that is the first token."""
    asked = writer.first(x) if only_first else x
    if only_first and bias is not None:
        two = writer.constant("axis", np.array([2], dtype=np.int64))
        bias = writer.node("Slice", [bias, "zero", "one", two])
    parts = [
        writer.linear(source, place + name)
        for source, name in ((asked, names.query), (x, names.key), (x, names.value))
    ]
    heads = int(_own(config, "num_attention_heads", "n_heads"))
    attended = writer.node(
        "MultiHeadAttention", [*parts, "", "attention_mask", bias or ""], contrib=True, num_heads=heads
    )
    mixed = writer.linear(attended, place + names.attended, bias=False)
    x = writer.skip_norm(
        mixed, asked, place + names.attended_norm, epsilon, bias=f"{place}{names.attended}.bias"
    )
    wide = writer.linear(x, place + names.wide)
    wide = writer.activation(_ACTIVATIONS[_own(config, "hidden_act", "activation", default="gelu")], wide)
    narrow = writer.linear(wide, place + names.narrow, bias=False)
    return writer.skip_norm(narrow, x, place + names.norm, epsilon, bias=f"{place}{names.narrow}.bias")


def _head(writer: GraphWriter, prefix: str, names: _Names, x: str) -> str:
    if names.head is None:
        raise ModelError("The architecture has no classification head. Take a cross-encoder's model folder.")
    dense, activation = names.head
    dense = prefix + dense if dense.startswith("pooler") else dense
    return writer.linear(writer.activation(activation, writer.linear(x, dense)), names.final)


def relative_buckets(tokens: int, buckets: int = 32, most: int = 128) -> np.ndarray:
    """T5's buckets of relative positions, as MPNet uses them: int64, shape (tokens, tokens).

    Example:
        >>> relative_buckets(3).tolist()
        [[0, 17, 18], [1, 0, 17], [2, 1, 0]]
    """
    places = np.arange(tokens)
    behind = places[:, None] - places[None, :]
    half, exact = buckets // 2, buckets // 4
    distance = np.abs(behind)
    with np.errstate(divide="ignore"):
        far = np.log(distance.astype(np.float32) / exact) / np.log(most / exact) * (half - exact)
    far = np.minimum(exact + np.where(distance > 0, far, 0).astype(np.int64), half - 1)
    return np.asarray((behind < 0) * half + np.where(distance < exact, distance, far), dtype=np.int64)
