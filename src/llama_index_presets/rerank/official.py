"""Option names of `SentenceTransformerRerank` accepted by `CrossEncoderRerank`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index.core.schema import NodeWithScore

from llama_index_presets._options import Limits, one_value, refuse_unknown, refuse_values
from llama_index_presets.errors import SettingsError

__all__ = ["OFFICIAL", "check_model", "own_settings", "with_retrieval_score"]

OFFICIAL = ("cross_encoder_kwargs",)
"""Keywords of the official constructor beside those that both have."""

_SCORE_KEY = "retrieval_score"
"""Metadata key of the score that a hit came with."""

_INSTEAD = (
    "CrossEncoderRerank gives probabilities in [0, 1]. Use SentenceTransformerRerank for other numbers."
)
_SAME = {"model_name_or_path": "model"}
_TAKEN = (
    "max_length", "device", "revision", "trust_remote_code", "cache_folder", "local_files_only", "backend",
)  # fmt: skip
_LIMITS: Limits = {
    "num_labels": ((None, 1), "one score is read of each pair."),
    "token": ((None, False), "set HF_TOKEN in the environment."),
    "activation_fn": ((None,), _INSTEAD),
    "activation_fct": ((None,), _INSTEAD),
    "default_activation_function": ((None,), _INSTEAD),
    "model_kwargs": ((None, {}), "precision= and device= are what can be chosen."),
    "automodel_args": ((None, {}), "precision= and device= are what can be chosen."),
    "tokenizer_kwargs": ((None, {}), "the tokenizer is the model's own. Give the folder of a saved model."),
    "tokenizer_args": ((None, {}), "the tokenizer is the model's own. Give the folder of a saved model."),
    "config_kwargs": ((None, {}), "the configuration is the model's own. Give the folder of a saved model."),
    "prompts": ((None,), "texts are scored as they are."),
    "default_prompt_name": ((None,), "texts are scored as they are."),
    "model_card_data": ((None,), "nothing is trained here."),
    "similarity_fn_name": ((None,), _INSTEAD),
}


def own_settings(
    settings: Mapping[str, Any], cross_encoder_kwargs: Mapping[str, Any] | None, usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Take settings out of ``cross_encoder_kwargs``, the keywords of sentence-transformers' `CrossEncoder`.

    Args:
        settings: Under the names of this package, as the caller gave them.
        cross_encoder_kwargs: The official setting; None is none.
        usual: What `settings` holds where the caller gave nothing.

    Returns:
        `settings` with those in it.

    Raises:
        SettingsError: One is unknown, cannot be honoured, or is given twice with two values.

    Example:
        >>> own_settings({"max_length": None}, {"max_length": 256}, {"max_length": None})
        {'max_length': 256}
    """
    owner, own = "CrossEncoderRerank", dict(settings)
    given = dict(cross_encoder_kwargs or {})
    refuse_unknown("cross_encoder_kwargs", given, [*_TAKEN, *_SAME, *_LIMITS])
    refuse_values(owner, given, _LIMITS)
    for name, value in given.items():
        if name not in _LIMITS and value is not None:
            ours = _SAME.get(name, name)
            own[ours] = one_value(ours, own[ours], usual[ours], f"cross_encoder_kwargs['{name}']", value)
    return own


def check_model(model: object) -> None:
    """Refuse what is no model.

    Raises:
        SettingsError: It is a number, as the first argument of the official class is.
    """
    if not isinstance(model, str | Path):
        raise SettingsError(
            f"model is {model!r}; expected a folder, or a name on the hub. The first argument of "
            "SentenceTransformerRerank is top_n: write top_n= and model=."
        )


def with_retrieval_score(hit: NodeWithScore) -> NodeWithScore:
    """Copy of a hit with its score in the metadata of its node, hidden from prompts and embeddings.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> with_retrieval_score(NodeWithScore(node=TextNode(text="red"), score=0.5)).node.metadata
        {'retrieval_score': 0.5}
    """
    node = hit.node.model_copy()
    node.metadata = {**node.metadata, _SCORE_KEY: hit.score}
    node.excluded_embed_metadata_keys = _also(node.excluded_embed_metadata_keys)
    node.excluded_llm_metadata_keys = _also(node.excluded_llm_metadata_keys)
    return hit.model_copy(update={"node": node})


def _also(keys: list[str]) -> list[str]:
    return [*(key for key in keys if key != _SCORE_KEY), _SCORE_KEY]
