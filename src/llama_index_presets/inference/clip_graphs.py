"""ONNX graphs of CLIP's two towers, written from ``config.json`` and the names of the weights; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from llama_index_presets.inference.graph_writer import GraphWriter, WrittenGraph
from llama_index_presets.inference.safetensors import TensorPlace

__all__ = ["clip_obstacle", "image_graph", "last_places", "text_graph"]

_ACTIVATIONS: Final = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


def clip_obstacle(config: Mapping[str, Any]) -> str | None:
    """What in a configuration no graphs can be written for, or None."""
    towers = [config.get("text_config") or {}, config.get("vision_config") or {}]
    strange = [one.get("hidden_act", "quick_gelu") for one in towers]
    unknown = next((one for one in strange if one not in _ACTIVATIONS), None)
    return f"its activation '{unknown}'" if unknown else None


def text_graph(
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    places: Mapping[str, TensorPlace] | None = None,
) -> WrittenGraph:
    """Graph of the text tower: ``input_ids`` and ``last``, int64, to ``output``, shape (texts, dim).

    ``last`` has shape (texts, 2): row and place of the token that ends each text; see `last_places`. What follows it is
    padding, which no earlier token sees.
    """
    tower = _tower(config, "text_config", heads=8, width=512)
    writer = GraphWriter(shapes, places=places)
    words = writer.node(
        "Gather", [writer.weight("text_model.embeddings.token_embedding.weight"), "input_ids"]
    )
    positions = writer.node(
        "Gather", [writer.weight("text_model.embeddings.position_embedding.weight"), "position_ids"]
    )
    x = writer.node("Add", [words, positions])
    x = _layers(writer, "text_model.encoder.layers", tower, x, causal=True)
    x = writer.node("GatherND", [x, "last"])
    x = writer.norm(x, "text_model.final_layer_norm", tower["epsilon"])
    x = writer.linear(x, "text_projection", bias=False)
    inputs: dict[str, tuple[Any, int]] = {
        name: (np.int64, 2) for name in ("input_ids", "position_ids", "last")
    }
    return writer.finish(inputs, writer.node("Identity", [x], output="output"))


def image_graph(
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    places: Mapping[str, TensorPlace] | None = None,
) -> WrittenGraph:
    """Graph of the image tower: ``pixel_values``, float32, shape (images, 3, side, side), to ``output``."""
    tower = _tower(config, "vision_config", heads=12, width=768)
    writer = GraphWriter(shapes, places=places)
    patch = int((config.get("vision_config") or {}).get("patch_size", 32))
    weight = writer.weight("vision_model.embeddings.patch_embedding.weight")
    patches = writer.node(
        "Conv", ["pixel_values", weight], strides=[patch, patch], kernel_shape=[patch, patch]
    )
    flat = _flat(writer, patches)
    x = writer.node("Concat", [_class_tokens(writer, flat), flat], axis=1)
    x = writer.node("Add", [x, writer.weight("vision_model.embeddings.position_embedding.weight")])
    x = writer.norm(x, "vision_model.pre_layrnorm", tower["epsilon"])
    x = _layers(writer, "vision_model.encoder.layers", tower, x, causal=False)
    axis = writer.constant("class_axis", np.array([1], dtype=np.int64))
    x = writer.node("Squeeze", [writer.first(x), axis])
    x = writer.norm(x, "vision_model.post_layernorm", tower["epsilon"])
    x = writer.linear(x, "visual_projection", bias=False)
    return writer.finish({"pixel_values": (np.float32, 4)}, writer.node("Identity", [x], output="output"))


def _tower(config: Mapping[str, Any], name: str, *, heads: int, width: int) -> dict[str, Any]:
    """Numbers of a tower; the defaults are those of transformers, which leaves them out of the file."""
    stated = config.get(name) or {}
    return {
        "layers": int(stated.get("num_hidden_layers", 12)),
        "heads": int(stated.get("num_attention_heads", heads)),
        "width": int(stated.get("hidden_size", width)),
        "epsilon": float(stated.get("layer_norm_eps", 1e-5)),
        "activation": str(stated.get("hidden_act", "quick_gelu")),
    }


def _flat(writer: GraphWriter, patches: str) -> str:
    """(images, width, rows, columns) to (images, patches, width)."""
    shape = writer.constant("flat", np.array([0, 0, -1], dtype=np.int64))
    return writer.node("Transpose", [writer.node("Reshape", [patches, shape])], perm=[0, 2, 1])


def _class_tokens(writer: GraphWriter, flat: str) -> str:
    """The class token, once for each image: shape (images, 1, width)."""
    first = writer.first(flat)  # of the right shape; its values are multiplied away
    none = writer.node("Sub", [first, first])
    return writer.node("Add", [none, writer.weight("vision_model.embeddings.class_embedding")])


def _layers(writer: GraphWriter, place: str, tower: Mapping[str, Any], x: str, *, causal: bool) -> str:
    for layer in range(tower["layers"]):
        own = f"{place}.{layer}."
        normal = writer.norm(x, own + "layer_norm1", tower["epsilon"])
        parts = [writer.linear(normal, f"{own}self_attn.{name}_proj") for name in ("q", "k", "v")]
        attended = writer.node(
            "MultiHeadAttention", parts, contrib=True, num_heads=tower["heads"], unidirectional=int(causal)
        )
        x = writer.node("Add", [x, writer.linear(attended, own + "self_attn.out_proj")])
        wide = writer.linear(writer.norm(x, own + "layer_norm2", tower["epsilon"]), own + "mlp.fc1")
        x = writer.node("Add", [x, writer.linear(_activated(writer, tower, wide), own + "mlp.fc2")])
    return x


def _activated(writer: GraphWriter, tower: Mapping[str, Any], x: str) -> str:
    kind = tower["activation"]
    if kind == "quick_gelu":
        return writer.node("QuickGelu", [x], contrib=True, alpha=1.702)
    return writer.activation({"gelu": "Gelu", "relu": "Relu"}.get(kind, "FastGelu"), x)


def last_places(ids: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Row and place of the token that ends each text, int64, shape (texts, 2), as transformers finds it.

    Old configurations say that the end is token 2, which it is not; there, it is the largest id.

    Example:
        >>> last_places(np.array([[5, 7, 9, 9]]), {"text_config": {"eos_token_id": 9}}).tolist()
        [[0, 2]]
    """
    end = int((config.get("text_config") or {}).get("eos_token_id", 49_407))
    places = ids.argmax(axis=1) if end == 2 else (ids == end).argmax(axis=1)
    return np.stack([np.arange(len(ids)), places], axis=1).astype(np.int64)
