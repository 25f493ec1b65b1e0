"""Written ONNX files, read by the official package and run by the runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from llama_index_presets.inference import onnx_file


def whole_file() -> bytes:
    """``scaled = x * 3``, then a transposition; and a weight that is nowhere used."""
    nodes = [
        onnx_file.node("Mul", ["x", "three"], ["scaled"], domain="", attributes={}),
        onnx_file.node("Transpose", ["scaled"], ["y"], domain="", attributes={"perm": [1, 0]}),
    ]
    tensors = [
        onnx_file.array_tensor("three", np.array([3], dtype=np.float32)),
        onnx_file.outside_tensor("weight", [300, 2], onnx_file.UINT8, {"location": "weights", "offset": 512}),
    ]
    return onnx_file.graph_file(
        nodes,
        tensors,
        [onnx_file.value("x", np.float32, ["rows", "columns"])],
        [onnx_file.value("y", np.float32, None)],
        name="test",
        operators={"": 17, "com.microsoft": 1},
    )


def test_the_official_package_reads_what_was_meant() -> None:
    """Versions, names, shapes and number types are those that were given."""
    model = onnx.load_from_string(whole_file())
    assert (model.ir_version, {one.domain: one.version for one in model.opset_import}) == (
        9,
        {"": 17, "com.microsoft": 1},
    )
    three, weight = model.graph.initializer
    assert onnx.numpy_helper.to_array(three).tolist() == [3.0]
    assert (weight.name, list(weight.dims), weight.data_type, weight.data_location) == (
        "weight",
        [300, 2],
        onnx.TensorProto.UINT8,
        onnx.TensorProto.EXTERNAL,
    )
    assert [(one.key, one.value) for one in weight.external_data] == [
        ("location", "weights"),
        ("offset", "512"),
    ]
    (x,), (y,) = model.graph.input, model.graph.output
    assert [axis.dim_param for axis in x.type.tensor_type.shape.dim] == ["rows", "columns"]
    assert y.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and not y.type.tensor_type.HasField("shape")


@pytest.mark.parametrize(
    "given", [0, -1, 127, 128, 2**40, -(2**62), 1.5, -(2**-40), "tanh", "ü", [1, 0, -300], [0.5, 2.0], (3, 2)]
)
def test_an_attribute_comes_back_as_it_was(given: object) -> None:
    """Numbers of every size and sign, texts and lists; floats as float32 has them."""
    content = onnx_file.node("Op", ["a", ""], ["b"], domain="com.microsoft", attributes={"given": given})
    node = onnx.NodeProto.FromString(content)
    assert (node.op_type, list(node.input), list(node.output), node.domain) == (
        "Op",
        ["a", ""],
        ["b"],
        "com.microsoft",
    )
    found = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(given, str):
        assert found.decode() == given
    else:
        assert np.asarray(found).tolist() == np.asarray(given, dtype=np.asarray(found).dtype).tolist()


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_an_array_of_each_number_type_comes_back(kind: str) -> None:
    """Also one that is not contiguous, and one of another byte order."""
    values = np.arange(12).reshape(3, 4).astype(kind)[:, ::2]
    read = onnx.TensorProto.FromString(onnx_file.array_tensor("a", values))
    assert onnx.numpy_helper.to_array(read).tolist() == values.tolist()
    if kind == "int32":
        swapped = onnx.TensorProto.FromString(onnx_file.array_tensor("a", values.astype(">i4")))
        assert onnx.numpy_helper.to_array(swapped).tolist() == values.tolist()


def test_the_runtime_runs_a_written_file() -> None:
    """3 times the transposed matrix."""
    content = onnx.load_from_string(whole_file())
    del content.graph.initializer[1]  # its numbers are nowhere
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([[1, 2, 4]], dtype=np.float32)})
    assert y.tolist() == [[3.0], [6.0], [12.0]]
