"""A text encoder that starts on ONNX Runtime, and moves to OpenVINO in bfloat16 when a run is long."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from llama_index_presets.errors import MissingExtraError, ModelError
from llama_index_presets.inference.model_folder import ModelFolder
from llama_index_presets.inference.openvino_session import OpenVinoSession, can_run
from llama_index_presets.inference.session import GraphSession
from llama_index_presets.inference.text_encoder import OnnxTextEncoder
from llama_index_presets.packages.extras import installed

__all__ = ["LONG_RUN_TOKENS", "LongRunEncoder", "moves_to_openvino"]

logger = logging.getLogger(__name__)

LONG_RUN_TOKENS: Final = 16_384
"""Tokens after which OpenVINO is loaded: some five seconds of work, of which its start costs half a second."""

_SMALL_CALL_TOKENS: Final = 1_024
"""Calls of fewer tokens stay on ONNX Runtime: a question has the same vector before and after."""

_COMPARED: Final = 8


def moves_to_openvino(model: ModelFolder) -> bool:
    """Whether long runs of a model can move here; the processor is asked elsewhere."""
    return installed("openvino") and can_run(model)


class LongRunEncoder(OnnxTextEncoder):
    """As `OnnxTextEncoder`; from `LONG_RUN_TOKENS` tokens on, calls of many texts run on OpenVINO in bfloat16.

    Before the first such call, texts of it are computed by both, and the model stays where it is if their vectors
    differ by more than two runtimes of one fingerprint may, or if OpenVINO does not load; either is logged. A batch
    size of 1, with which each text is computed by itself, stays on ONNX Runtime, and so does a process that was forked.

    Args:
        model: The folder.
        max_tokens: Tokens read; None takes the model's own limit.
        least_cosine: Between the vectors of the two, from which on they count as the same.
    """

    def __init__(self, model: ModelFolder, max_tokens: int | None = None, *, least_cosine: float) -> None:
        self._model = model
        self._least_cosine = least_cosine
        self._tokens = 0
        self._long: OpenVinoSession | None = None
        self._stays = False
        self._moving = threading.Lock()
        super().__init__(model, max_tokens)

    def _session_for(self, encodings: Sequence[Any], batch_size: int) -> GraphSession:
        tokens = sum(len(one.ids) for one in encodings)
        if batch_size == 1 or tokens < _SMALL_CALL_TOKENS or self._stays:
            return self._session
        self._tokens += tokens
        if self._tokens < LONG_RUN_TOKENS:
            return self._session
        if self._long is None:
            with self._moving:
                if self._long is None and not self._stays:
                    self._move(encodings[:_COMPARED])
        here = self._long is not None and self._long.process == os.getpid()
        return self._long if here and self._long is not None else self._session

    def _move(self, encodings: Sequence[Any]) -> None:
        self._stays = True
        try:
            session = OpenVinoSession(self._model, "first" if self._first_only else "tokens")
            found = self._vectors(encodings, session)
        except (ModelError, MissingExtraError, RuntimeError) as error:
            logger.warning("A long ingest stays on ONNX Runtime, as OpenVINO cannot be used: %s", error)
            return
        expected = self._vectors(encodings, self._session)
        least = float(np.min(np.sum(found.astype(np.float64) * expected, axis=1)))
        if not least >= self._least_cosine:
            logger.warning(
                "A long ingest stays on ONNX Runtime: in bfloat16, vectors of '%s' agree to a cosine of %.5f only.",
                *(self._model.folder.name, least),
            )
            return
        self._long, self._stays = session, False
