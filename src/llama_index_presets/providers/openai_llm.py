"""OpenAI language model of the presets: the official class, with its key hidden."""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.errors import SettingsError
from llama_index_presets.hidden_keys import HidesKey
from llama_index_presets.packages.extras import require
from llama_index_presets.providers.named_llm import NamedLLM

require("llama_index.llms.openai", extra="openai")
from llama_index.llms.openai import OpenAI as OfficialOpenAI  # noqa: E402

__all__ = ["OpenAI"]


@strict()
class OpenAI(NamedLLM, HidesKey, OfficialOpenAI):
    """`OpenAI` of LlamaIndex, whose key is in no repr, dump or pickle; arguments as of the official class.

    The official class raises for a model that is newer than itself; of this one see `NamedLLM`.

    Example:
        >>> model = OpenAI("gpt-4o-mini", api_key="sk-secret")
        >>> "secret" in repr(model) + str(model.to_dict()) + model.model_dump_json()
        False
    """

    api_key: str | None = Field(default=None, exclude=True, repr=False)
    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    _window: int | None = PrivateAttr(default=None)
    _refused: frozenset[str] = PrivateAttr(default=frozenset())
    _loop: Any = PrivateAttr(default=None)
    _process: int = PrivateAttr(default_factory=os.getpid)

    def _get_credential_kwargs(self, is_async: bool = False) -> dict[str, Any]:
        if not self.api_key:
            raise SettingsError(
                f"'{self.model}' needs a key and none is set. Set OPENAI_API_KEY, or give api_key=."
            )
        return super()._get_credential_kwargs(is_async)
