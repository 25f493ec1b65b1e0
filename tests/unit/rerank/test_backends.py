"""ONNX Runtime and OpenVINO beside torch; what to install, where they are not there."""

from __future__ import annotations

import sys

import pytest
from llama_index.core.schema import NodeWithScore

from llama_index_presets import CrossEncoderRerank
from llama_index_presets.errors import MissingExtraError, ModelError

QUERY = "How is botulism treated?"
# backend -> largest difference of a probability from float32 torch. OpenVINO computes in bfloat16 where the processor
# does.
BACKENDS = {"onnx": 1e-5, "openvino": 0.05}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_scores_as_torch_does(model: str, hits: list[NodeWithScore], backend: str) -> None:
    """It gives the probabilities of the original."""
    expected = CrossEncoderRerank(model, precision="float32", backend="torch").probabilities(QUERY, hits)
    found = CrossEncoderRerank(model, backend=backend).probabilities(QUERY, hits)
    assert found == pytest.approx(expected, abs=BACKENDS[backend])


@pytest.mark.parametrize(
    ("backend", "module", "line"),
    [
        ("onnx", "onnxruntime", r'pip install "llama-index-presets\[local\]"'),
        ("openvino", "openvino", r'pip install "llama-index-presets\[local-openvino\]"'),
    ],
)
def test_a_missing_backend_says_what_to_install(
    model: str, backend: str, module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error carries the install line of that backend."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises((ModelError, MissingExtraError), match=line):
        CrossEncoderRerank(model, backend=backend).warm_up()
