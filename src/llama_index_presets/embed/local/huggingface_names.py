"""Option names of `HuggingFaceEmbedding` accepted by `LocalEmbedding`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llama_index_presets._options import Limits, one_value, refuse_values
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError

__all__ = ["OFFICIAL", "OfficialAttributes", "check_length", "own_settings", "usual_instruction"]

_SAME = {"query_instruction": "query_prefix", "text_instruction": "passage_prefix"}

_FOLDER = "Give the folder of a saved model as model_name."
_OFFICIAL_CLASS = "Use HuggingFaceEmbedding and pass it as embed_model=."

_LIMITS: Limits = {
    "normalize": (
        (None, True),
        f"vectors always have unit length, which changes no cosine. {_OFFICIAL_CLASS}",
    ),
    "parallel_process": ((None, False), "give processes=, the number of processes."),
    "target_devices": ((None,), "give device= and processes=."),
    "show_progress_bar": (
        (None, False),
        "a bar is a matter of the call: get_text_embedding_batch(texts, show_progress=True).",
    ),
    "revision": ((None,), f"weights of the catalogue are checked by hash. {_FOLDER}"),
    "token": ((None, False), "set HF_TOKEN in the environment."),
    "use_auth_token": ((None, False), "set HF_TOKEN in the environment."),
    "truncate_dim": ((None,), f"vectors keep their length. {_OFFICIAL_CLASS}"),
    "prompts": ((None,), "give query_instruction and text_instruction."),
    "default_prompt_name": ((None,), "give query_instruction and text_instruction."),
    "similarity_fn_name": ((None, "cosine"), "scores are cosines."),
    "model_kwargs": ((None, {}), f"precision= and device= are what can be chosen. {_OFFICIAL_CLASS}"),
    "tokenizer_kwargs": ((None, {}), f"the tokenizer is the model's own. {_FOLDER}"),
    "config_kwargs": ((None, {}), f"the configuration is the model's own. {_FOLDER}"),
    **{name: (("deprecated",), _FOLDER) for name in ("model", "tokenizer", "tokenizer_name", "pooling")},
}

_BGE = re.compile(r"bge-(small|base|large)-(en|zh)(-v1\.5)?")
_BGE_ENGLISH = "Represent this question for searching relevant passages: "
_BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："

OFFICIAL = ("local_files_only", *_SAME, *_LIMITS)
"""Keywords of the official constructor beside those that both have."""


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate official settings.

    An empty instruction is none, as there. ``local_files_only=True`` is ``allow_download=False``.

    Raises:
        SettingsError: One cannot be honoured: the message says why, and what to do. Or the same is said twice, with
            two values.

    Example:
        >>> own_settings({"query_instruction": "query: ", "normalize": True, "device": "cpu"})
        {'device': 'cpu', 'query_prefix': 'query: '}
    """
    refuse_values("LocalEmbedding", settings, _LIMITS)
    own = {name: value for name, value in settings.items() if name not in OFFICIAL}
    for name, ours in _SAME.items():
        if settings.get(name):
            own[ours] = one_value(ours, own.get(ours), None, name, settings[name])
    if settings.get("local_files_only"):
        own["allow_download"] = one_value(
            "allow_download", own.get("allow_download", True), True, "local_files_only", False
        )
    return own


def check_length(max_length: int | None, model_name: str, reads: int | None) -> None:
    """Accept a limit that the model can read.

    Args:
        max_length: In tokens; None is the model's own.
        model_name: For the message.
        reads: What the model reads, in tokens; None where only its files know.

    Raises:
        SettingsError: It is more than the model reads.
    """
    if max_length is not None and reads is not None and max_length > reads:
        raise SettingsError(
            f"LocalEmbedding cannot honour max_length={max_length}: '{model_name}' reads {counted(reads, 'token')}. "
            "Leave it out; longer texts are handled as long_text says."
        )


def usual_instruction(model_name: str, kind: str) -> str:
    """What the official class puts before a text of a model whose files do not say it.

    Args:
        model_name: On the hub.
        kind: ``"query"`` or ``"passage"``.

    Example:
        >>> usual_instruction("BAAI/bge-small-en-v1.5", "query")
        'Represent this question for searching relevant passages: '
    """
    organisation, _, short = model_name.rpartition("/")
    if organisation != "BAAI" or not _BGE.fullmatch(short) or kind != "query":
        return ""
    return _BGE_CHINESE if "-zh" in short else _BGE_ENGLISH


class OfficialAttributes:
    """Mix-in: attributes and methods of the official class that `LocalEmbedding` has by other names, or has not."""

    query_prefix: str | None
    passage_prefix: str | None

    @property
    def query_instruction(self) -> str | None:
        """The official name of `query_prefix`."""
        return self.query_prefix

    @property
    def text_instruction(self) -> str | None:
        """The official name of `passage_prefix`."""
        return self.passage_prefix

    @property
    def normalize(self) -> bool:
        """True: vectors have unit length."""
        return True

    @property
    def show_progress_bar(self) -> bool:
        """False: a bar is a matter of the call."""
        return False

    def get_image_embedding(self, img_file_path: Any) -> list[float]:
        """Refused: a text model reads no images.

        Raises:
            SettingsError: Always, with what to use.
        """
        raise SettingsError(
            "LocalEmbedding embeds texts. Use ClipEmbedding for images, and questions about them."
        )

    async def aget_image_embedding(self, img_file_path: Any) -> list[float]:
        """See `get_image_embedding`."""
        return self.get_image_embedding(img_file_path)

    def get_image_embedding_batch(
        self, img_file_paths: Any, show_progress: bool = False
    ) -> list[list[float]]:
        """See `get_image_embedding`."""
        return [self.get_image_embedding(img_file_paths)]

    async def aget_image_embedding_batch(
        self, img_file_paths: Any, show_progress: bool = False
    ) -> list[list[float]]:
        """See `get_image_embedding`."""
        return self.get_image_embedding_batch(img_file_paths)
