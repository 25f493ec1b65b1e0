"""`backend="openvino"`: what it gives, keeps and refuses; its numbers are held by test_long_runs."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.inference.test_runtime import MINILM_FOLDER, TEXTS, saved

from llama_index_presets import CrossEncoderRerank, LocalEmbedding
from llama_index_presets.errors import MissingExtraError, ModelError, SettingsError
from llama_index_presets.inference import backends
from llama_index_presets.inference.backends import choose_backend
from llama_index_presets.inference.model_folder import read_model_folder


def test_an_embedding_gives_the_same_vectors_and_keeps_its_identity() -> None:
    """Exactly in float32; in its own precision to the cosine of .9999 that one identity stands for."""
    onnx = LocalEmbedding("all-MiniLM-L6-v2", backend="onnx")
    expected = onnx.get_text_embedding_batch(TEXTS)
    for precision, least in (("float32", 0.9999999), ("auto", 0.9999)):
        model = LocalEmbedding("all-MiniLM-L6-v2", backend="openvino", precision=precision)
        found = model.get_text_embedding_batch(TEXTS)
        assert np.sum(np.multiply(found, expected), axis=1).min() > least
        assert model.vector_identity == onnx.vector_identity
        assert model.explain().startswith("all-MiniLM-L6-v2 runs on openvino (")


def test_a_cross_encoder_gives_the_same_scores(tmp_path: Path) -> None:
    """Raw outputs to 1e-4 in float32."""
    folder = saved(tmp_path, "bert", scores=True)
    expected = CrossEncoderRerank(folder, backend="onnx")._loaded().logits("a toxin", TEXTS)
    model = CrossEncoderRerank(folder, backend="openvino", precision="float32")
    assert model._loaded().logits("a toxin", TEXTS) == pytest.approx(expected, abs=1e-4)
    assert model.explain().endswith("runs on openvino: asked for")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "computes on the CPU, not with device='cuda'. Take 'torch'"),
        ({"precision": "int8"}, "not in int8. Take 'onnx'"),
        ({"precision": "bfloat16"}, "needs a processor that multiplies it"),
    ],
)
def test_what_it_cannot_do_is_refused(
    options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what can."""
    monkeypatch.setattr(backends, "cpu_computes_bfloat16", lambda: False)
    with pytest.raises(SettingsError, match=message):
        choose_backend(read_model_folder(MINILM_FOLDER), "openvino", **options)  # type: ignore[arg-type]


def test_a_missing_one_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of its extra."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'pip install "llama-index-presets\[local-openvino\]"'):
        choose_backend(read_model_folder(MINILM_FOLDER), "openvino")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """An ONNX file alone is ONNX Runtime's."""
    folder = Path(saved(tmp_path, "bert"))
    (folder / "model.safetensors").rename(folder / "model.onnx")
    with pytest.raises(ModelError, match=r"there is no model\.safetensors\. Take backend='auto'"):
        LocalEmbedding(str(folder), backend="openvino").get_text_embedding("x")


def _in_a_child(model: LocalEmbedding, results: Any) -> None:
    try:
        model.get_text_embedding("x")
    except ModelError as error:
        results.put(str(error))


def test_the_child_of_a_fork_gets_an_error_and_no_hang() -> None:
    """Its threads do not come along."""
    model = LocalEmbedding("all-MiniLM-L6-v2", backend="openvino")
    model.get_text_embedding("x")
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_in_a_child, args=(model, results))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "before it forked this one, where a call would hang" in results.get()
