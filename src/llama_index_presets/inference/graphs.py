"""ONNX graphs of text encoders, written from ``config.json`` and the names of the weights; needs no torch.

A graph holds no weights: it names their places in the ``.safetensors`` files, which the runtime maps, or placeholders
that the session fills; so a model is on the disk once and a graph is some ten kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from llama_index_presets.errors import ModelError
from llama_index_presets.inference import onnx_file
from llama_index_presets.inference.safetensors import Place

__all__ = [
    "CODES",
    "ENCODERS",
    "GRAPH_VERSION",
    "INT8_BLOCK",
    "SCALES",
    "GraphWriter",
    "Purpose",
    "WrittenGraph",
    "encoder_graph",
    "int8_weight",
    "relative_buckets",
    "unsupported",
    "word_table",
    "write_encoder",
]

GRAPH_VERSION: Final = 1
"""Raised when graphs are written otherwise, so that cached ones are made anew."""

Purpose = Literal["tokens", "first", "scores"]
"""Output of a graph: vectors of all tokens, of the first one, or the logits of a sequence classifier."""

_CONTRIB: Final = "com.microsoft"
INT8_BLOCK: Final = 32
"""Numbers that share a scale, in weights and in what they are multiplied with; more are faster and less exact."""

CODES: Final = ".int8"
SCALES: Final = ".scales"
"""Endings of the names of placeholders that hold a weight in int8."""

_WEIGHTS_FILE: Final = "model.safetensors"
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


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """A graph without its weights.

    Attributes:
        onnx: Content of an ONNX file.
        weights: Names of its placeholders, for which a session is given the numbers.
    """

    onnx: bytes
    weights: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Content of a cache file: the names on a line, then the graph."""
        return json.dumps(self.weights).encode() + b"\n" + self.onnx

    @classmethod
    def from_bytes(cls, content: bytes) -> WrittenGraph:
        """Read what `to_bytes` gave."""
        names, _, graph = content.partition(b"\n")
        return cls(graph, tuple(json.loads(names)))


def int8_weight(name: str, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Value of an int8 placeholder: codes of 0 to 255 around 128, or the scales of their blocks.

    Args:
        name: Of the placeholder, ending in `CODES` or `SCALES`.
        weights: Of the file.
    """
    matrix = weights[name.removesuffix(CODES).removesuffix(SCALES)]
    blocks = matrix.reshape(len(matrix), -1, INT8_BLOCK)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / 127
    scales[scales == 0] = 1
    if name.endswith(SCALES):
        return np.asarray(scales.reshape(-1), dtype=np.float32)
    return np.asarray(np.rint(blocks / scales) + 128, dtype=np.uint8)


class GraphWriter:
    """Nodes and placeholders of a graph in the making.

    Args:
        shapes: Shape of each weight of the file, by name.
        int8: Whether dense layers compute in int8, with a scale for each block of `INT8_BLOCK` numbers.
        places: Of weights that the runtime is to map from their files; the others are placeholders.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        int8: bool = False,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._int8 = int8
        self._places = places or {}
        self._shapes = shapes
        self._nodes: list[bytes] = []
        self._placed: dict[str, bytes] = {}
        self._outside: set[str] = set()

    def weight(self, name: str) -> str:
        """The placeholder of a weight."""
        if name not in self._shapes:
            raise ModelError(
                f"The weights have no '{name}', which this architecture needs. Download the model again."
            )
        if name not in self._placed:
            place = self._places.get(name)
            if place is None:
                self._place(name, self._shapes[name], onnx_file.FLOAT)
            else:
                entry: dict[str, str | int] = {
                    "location": place.file,
                    "offset": place.offset,
                    "length": place.length,
                }
                self._placed[name] = onnx_file.outside_tensor(
                    name, self._shapes[name], onnx_file.FLOAT, entry
                )
        return name

    def _place(self, name: str, dims: Sequence[int], kind: int) -> None:
        self._placed[name] = onnx_file.outside_tensor(name, dims, kind, {"location": _WEIGHTS_FILE})
        self._outside.add(name)

    def constant(self, name: str, values: np.ndarray) -> str:
        """A small array that is part of the graph."""
        self._placed[name] = onnx_file.array_tensor(name, values)
        return name

    def node(self, operator: str, inputs: Sequence[str], *, contrib: bool = False, **attributes: Any) -> str:
        """Add an operation; gives the name of its output."""
        name = attributes.pop("output", f"t{len(self._nodes)}")
        domain = _CONTRIB if contrib else ""
        self._nodes.append(onnx_file.node(operator, inputs, [name], domain=domain, attributes=attributes))
        return str(name)

    def linear(self, x: str, name: str, *, bias: bool = True) -> str:
        """A dense layer; its weight is used as it lies in the file, ``(out, in)``."""
        product = self._product(x, f"{name}.weight")
        return self.node("Add", [product, self.weight(f"{name}.bias")]) if bias else product

    def _product(self, x: str, name: str) -> str:
        self.weight(name)
        outputs, inputs = self._shapes[name]
        if not self._int8 or inputs % INT8_BLOCK:
            return self.node("FusedMatMul", [x, name], contrib=True, transB=1)
        del self._placed[name]
        self._outside.discard(name)
        blocks = inputs // INT8_BLOCK
        self._place(name + CODES, [outputs, blocks, INT8_BLOCK], onnx_file.UINT8)
        self._place(name + SCALES, [outputs * blocks], onnx_file.FLOAT)
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": INT8_BLOCK, "accuracy_level": 4}
        return self.node("MatMulNBits", [x, name + CODES, name + SCALES], contrib=True, **sizes)

    def activation(self, kind: str, x: str) -> str:
        """An activation, by the name of its operator."""
        return self.node(kind, [x], contrib=kind in ("Gelu", "FastGelu"))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """A layer normalisation."""
        parts = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", parts, axis=-1, epsilon=epsilon)

    def skip_norm(self, x: str, skip: str, name: str, epsilon: float, *, bias: str) -> str:
        """``norm(x + bias + skip)`` in one operation."""
        parts = [x, skip, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), self.weight(bias)]
        return self.node("SkipLayerNormalization", parts, contrib=True, epsilon=epsilon)

    def first(self, x: str) -> str:
        """The first token of each text, still of shape (texts, 1, dim)."""
        for name, place in (("zero", 0), ("one", 1)):
            self.constant(name, np.array([place], dtype=np.int64))
        return self.node("Slice", [x, "zero", "one", "one"])

    def finish(self, inputs: Mapping[str, tuple[Any, int]], output: str) -> WrittenGraph:
        """The finished graph.

        Args:
            inputs: Number type and rank of each.
            output: Name of the result.
        """
        content = onnx_file.graph_file(
            self._nodes,
            self._placed.values(),
            [
                onnx_file.value(name, kind, [f"{name}_{axis}" for axis in range(rank)])
                for name, (kind, rank) in inputs.items()
            ],
            [onnx_file.value(output, np.float32, None)],
            name="llama-index-presets",
            operators={"": 17, _CONTRIB: 1},
        )
        return WrittenGraph(content, tuple(name for name in self._placed if name in self._outside))

    def unread(self, unused: Iterable[str]) -> list[str]:
        """Weights of the file that the graph does not use and that are not known to be of no use."""
        read = {name.removesuffix(CODES) for name in self._placed}
        return [
            name for name in self._shapes if name not in read and not any(part in name for part in unused)
        ]


def encoder_graph(
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    purpose: Purpose,
    *,
    int8: bool = False,
    places: Mapping[str, Place] | None = None,
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
    x = _embedded(writer, prefix, names, inputs, epsilon)
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


def _embedded(
    writer: GraphWriter, prefix: str, names: _Names, inputs: Mapping[str, Any], epsilon: float
) -> str:
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
