"""Long runs on OpenVINO: the vectors of transformers, when it is taken, and when it is not."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer
from tests.unit.inference.test_runtime import TEXTS, saved
from torch.nn import Identity

from llama_index_presets import LocalEmbedding
from llama_index_presets.embed.local import encoders
from llama_index_presets.embed.local.encoders import SAME_VECTORS
from llama_index_presets.inference import long_runs
from llama_index_presets.inference.graphs import ENCODERS
from llama_index_presets.inference.long_runs import LongRunEncoder
from llama_index_presets.inference.model_folder import read_model_folder
from llama_index_presets.inference.openvino_session import OpenVinoSession
from llama_index_presets.inference.text_encoder import OnnxPairScorer, OnnxTextEncoder

MANY = [f"{text} {number}" for number in range(30) for text in TEXTS]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call of `MANY` is a long run."""
    monkeypatch.setattr(long_runs, "LONG_RUN_TOKENS", 2_000)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_graph_on_openvino_gives_the_vectors_of_transformers(kind: str, tmp_path: Path) -> None:
    """In float32, of mixed lengths, so that padding and positions matter."""
    folder = saved(tmp_path, kind)
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)
    model = read_model_folder(Path(folder))
    encoder = OnnxTextEncoder(model)
    encoder._session = OpenVinoSession(model, "tokens", precision="f32")
    np.testing.assert_allclose(encoder.encode(TEXTS, 8), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_graph_on_openvino_gives_the_scores_of_cross_encoder(kind: str, tmp_path: Path) -> None:
    """In float32, to 1e-4."""
    folder = saved(tmp_path, kind, scores=True)
    expected = CrossEncoder(folder, device="cpu").predict(
        [("a toxin", text) for text in TEXTS], activation_fn=Identity()
    )
    model = read_model_folder(Path(folder))
    scorer = OnnxPairScorer(model, 64)
    scorer._session = OpenVinoSession(model, "scores", precision="f32")
    assert scorer.logits("a toxin", TEXTS) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_long_run_moves_and_keeps_its_vectors(soon: None, tmp_path: Path) -> None:
    """The first call is ONNX Runtime's, the second OpenVINO's; a small one and single texts stay."""
    model = read_model_folder(Path(saved(tmp_path, "bert")))
    encoder = LongRunEncoder(model, least_cosine=0.99)
    expected = OnnxTextEncoder(model).encode(MANY, 8)
    np.testing.assert_array_equal(encoder.encode(MANY, 8), expected)
    assert encoder._long is None
    moved = encoder.encode(MANY, 8)
    assert isinstance(encoder._long, OpenVinoSession)
    assert np.sum(moved * expected, axis=1).min() > 0.99
    np.testing.assert_array_equal(encoder.encode(TEXTS, 8), OnnxTextEncoder(model).encode(TEXTS, 8))
    np.testing.assert_array_equal(encoder.encode(MANY, 1), OnnxTextEncoder(model).encode(MANY, 1))


def test_a_model_whose_vectors_differ_stays(
    soon: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Vectors that bfloat16 changes by more than the least cosine are not taken, and the log says so once."""
    model = read_model_folder(Path(saved(tmp_path, "bert")))
    encoder = LongRunEncoder(model, least_cosine=1.1)
    expected = OnnxTextEncoder(model).encode(MANY, 8)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(encoder.encode(MANY, 8), expected)
    assert caplog.text.count("A long ingest stays on ONNX Runtime: in bfloat16, vectors of") == 1


def test_openvino_that_does_not_load_is_said_once(
    soon: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its library missing a symbol, say; the run goes on."""
    model = read_model_folder(Path(saved(tmp_path, "bert")))
    encoder = LongRunEncoder(model, least_cosine=SAME_VECTORS)

    def broken(*_: Any, **__: Any) -> None:
        raise ImportError("libopenvino.so: no such symbol")

    monkeypatch.setattr("llama_index_presets.inference.openvino_session.require", broken)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert encoder.encode(MANY, 8).shape == (len(MANY), 32)
    assert caplog.text.count("pip install --force-reinstall openvino") == 1


@pytest.mark.parametrize(
    ("settings", "moves"),
    [
        ({}, True),
        ({"precision": "float32"}, False),
        ({"precision": "int8"}, False),
        ({"backend": "onnx"}, False),
    ],
)
def test_explain_says_what_a_long_run_takes(
    settings: dict[str, Any], moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for by name stays; elsewhere the text names OpenVINO and the number of tokens."""
    monkeypatch.setattr(encoders, "cpu_computes_bfloat16", lambda: True)
    told = LocalEmbedding("all-MiniLM-L6-v2", device="cpu", **settings).explain()
    assert ("passages beyond 16,384 tokens run on openvino (bfloat16)" in told) is moves


def test_a_processor_without_bfloat16_keeps_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gains nothing there."""
    monkeypatch.setattr(encoders, "cpu_computes_bfloat16", lambda: False)
    assert "openvino" not in LocalEmbedding("all-MiniLM-L6-v2", device="cpu").explain()


def _in_fork(encoder: LongRunEncoder, queue: Any) -> None:
    queue.put(encoder.encode(MANY, 8))


def test_a_forked_process_goes_on(soon: None, tmp_path: Path) -> None:
    """OpenVINO's threads do not come along: the child computes on ONNX Runtime."""
    model = read_model_folder(Path(saved(tmp_path, "bert")))
    encoder = LongRunEncoder(model, least_cosine=0.99)
    for _ in range(2):
        encoder.encode(MANY, 8)
    assert encoder._long is not None
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_fork, args=(encoder, queue))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    np.testing.assert_array_equal(found, OnnxTextEncoder(model).encode(MANY, 8))


def test_nothing_is_reported_to_the_maker_of_openvino(tmp_path: Path) -> None:
    """Its import sends an event and leaves a file in the home folder, unless its telemetry is hidden from it."""
    script = textwrap.dedent("""
        import socket, sys
        def refused(*_, **__): raise SystemExit("a socket was opened")
        socket.socket.connect = socket.getaddrinfo = refused
        from llama_index_presets.inference.openvino_session import openvino_module
        openvino_module()
        assert "openvino_telemetry.main" not in sys.modules
        assert "openvino.tools.ovc.telemetry_stub" in sys.modules
    """)
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
