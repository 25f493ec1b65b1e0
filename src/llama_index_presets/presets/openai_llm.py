"""OpenAI language model of the presets: the official class, with its key hidden."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from llama_index.core.base.llms.types import LLMMetadata
from pydantic import Field, PrivateAttr

from llama_index_presets._extras import require
from llama_index_presets._options import strict
from llama_index_presets.errors import SettingsError
from llama_index_presets.hidden_keys import HidesKey
from llama_index_presets.monitor.prices import context_window_of

require("llama_index.llms.openai", extra="openai")
from llama_index.llms.openai import OpenAI as OfficialOpenAI  # noqa: E402

__all__ = ["OpenAI"]

_SMALLEST_WINDOW: Final = 8_192
"""Tokens; of a model that neither LlamaIndex nor the list of prices knows."""
_log = logging.getLogger(__name__)


@strict()
class OpenAI(HidesKey, OfficialOpenAI):
    """`OpenAI` of LlamaIndex, whose key is in no repr, dump or pickle; arguments as of the official class.

    The official class raises for a model that is newer than itself. This one takes the context window that it is given,
    else that of the list of prices, else 8,192 tokens, and logs a warning.

    Example:
        >>> model = OpenAI("gpt-4o-mini", api_key="sk-secret")
        >>> "secret" in repr(model) + str(model.to_dict()) + model.model_dump_json()
        False
    """

    api_key: str | None = Field(default=None, exclude=True, repr=False)
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    context_window: int | None = Field(default=None, gt=0, description="In tokens; None looks it up.")
    _process: int = PrivateAttr(default_factory=os.getpid)

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of a model."""
        window = self.context_window
        if window is None:
            try:
                known: LLMMetadata = super().metadata
            except ValueError:
                window = self.context_window = self._looked_up()
            else:
                return known
        return LLMMetadata(
            context_window=window,
            num_output=self.max_tokens or -1,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model,
        )

    def _looked_up(self) -> int:
        window = context_window_of("openai", self.model)
        if window is None:
            _log.warning(
                "The context window of '%s' is not known; %d tokens are assumed. Set llm.context_window.",
                self.model, _SMALLEST_WINDOW,
            )  # fmt: skip
        return window or _SMALLEST_WINDOW

    def _get_credential_kwargs(self, is_async: bool = False) -> dict[str, Any]:
        if not self.api_key:
            raise SettingsError(
                f"'{self.model}' needs a key and none is set. Set OPENAI_API_KEY, or give api_key=."
            )
        return super()._get_credential_kwargs(is_async)
