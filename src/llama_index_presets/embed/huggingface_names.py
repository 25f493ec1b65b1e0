"""Option names of `HuggingFaceEmbedding` accepted by `LocalEmbedding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index_presets._options import Limits, one_value, refuse_values
from llama_index_presets.errors import SettingsError

__all__ = ["OFFICIAL", "check_length", "own_settings"]

_SAME = {"query_instruction": "query_prefix", "text_instruction": "passage_prefix"}

_FOLDER = "Give the folder of a saved model as model_name."
_OFFICIAL_CLASS = "Use HuggingFaceEmbedding and pass it as embed_model=."

_LIMITS: Limits = {
    "normalize": (
        (None, True),
        f"vectors always have unit length, which changes no cosine. {_OFFICIAL_CLASS}",
    ),
    "trust_remote_code": ((None, False), f"code of a model's repository is never run. {_OFFICIAL_CLASS}"),
    "cache_folder": (
        (None,),
        "weights are looked for in $LLAMA_PRESETS_CACHE and in the hub's own cache ($HF_HOME). Set one of them. "
        + _FOLDER,
    ),
    "parallel_process": ((None, False), "give processes=, the number of processes."),
    "target_devices": ((None,), "give device= and processes=."),
    "show_progress_bar": (
        (None, False),
        "a bar is a matter of the call: get_text_embedding_batch(texts, show_progress=True).",
    ),
    "backend": (
        (None, "torch"),
        f"models run on torch; precision='int8' is fast on a CPU. {_OFFICIAL_CLASS}",
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

OFFICIAL = ("max_length", "local_files_only", *_SAME, *_LIMITS)
"""Keywords of the official constructor beside those that both have."""


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate official settings; ``max_length`` is left for `check_length`.

    An empty instruction is none, as there. ``local_files_only=True`` is ``allow_download=False``.

    Raises:
        SettingsError: One cannot be honoured: the message says why, and what to do. Or the same is said twice, with
            two values.

    Example:
        >>> own_settings({"query_instruction": "query: ", "normalize": True, "device": "cpu"})
        {'device': 'cpu', 'query_prefix': 'query: '}
    """
    refuse_values("LocalEmbedding", settings, _LIMITS)
    own = {name: value for name, value in settings.items() if name not in OFFICIAL or name == "max_length"}
    for name, ours in _SAME.items():
        if settings.get(name):
            own[ours] = one_value(ours, own.get(ours), None, name, settings[name])
    if settings.get("local_files_only"):
        own["allow_download"] = one_value(
            "allow_download", own.get("allow_download", True), True, "local_files_only", False
        )
    return own


def check_length(max_length: int | None, model_name: str, reads: int | None) -> None:
    """Accept the limit that the model has anyway.

    Args:
        max_length: In tokens; None is the model's own.
        model_name: For the message.
        reads: What the model reads, in tokens; None where only its files know.

    Raises:
        SettingsError: It is another one: the official class would cut longer texts without a word.
    """
    if max_length not in (None, reads):
        own = f"reads {reads:,} tokens" if reads is not None else "reads what its own files say"
        raise SettingsError(
            f"LocalEmbedding cannot honour max_length={max_length}: texts are never cut in silence, and '{model_name}' "
            f"{own}. Leave it out; split the texts before, or take long_text='pool' for the mean of their pieces."
        )
