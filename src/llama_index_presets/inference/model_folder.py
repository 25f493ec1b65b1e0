"""Model description read from a folder's own files: architecture, length, pooling, prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llama_index_presets.errors import ModelError

__all__ = ["ModelFolder", "read_json", "read_model_folder"]

_POOLINGS: Final = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
_NO_LIMIT: Final = 1_000_000  # a tokenizer without a limit reports a number like 1e30
_KNOWN_MODULES: Final = ("Transformer", "Pooling", "Normalize", "Dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder in the format of sentence-transformers or of transformers.

    Attributes:
        folder: The folder that was named.
        transformer: Where ``config.json`` and the weights lie; the folder itself, or one that ``modules.json`` names.
        config: Content of ``config.json``.
        max_tokens: Tokens that the model reads, special tokens included.
        pooling: How token vectors become one: names of `_POOLINGS`, put side by side.
        dense: Folders of linear layers after the pooling.
        lowercase: Whether texts are lowercased before the tokenizer sees them.
        prompts: What the model wants before a text, by purpose, such as ``"query"``; empty where it says: nothing.
        default_prompt: Purpose whose prompt stands before every text that names none.
        obstacle: What only sentence-transformers runs, or None.
        remote_code: Whether the model needs Python code of its repository.
    """

    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    max_tokens: int
    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[Path, ...] = ()
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    obstacle: str | None = None
    remote_code: bool = False

    @property
    def kind(self) -> str:
        """Model type, such as ``"bert"``."""
        return str(self.config.get("model_type", "unknown"))


def read_json(file: Path, *, missing: Any = None) -> Any:
    """Content of a JSON file; `missing` where there is none.

    Raises:
        ModelError: It cannot be read, or there is none and `missing` is not given.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise ModelError(f"'{file.parent}' has no {file.name}. Give the folder of a saved model.") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"'{file}' cannot be read ({type(error).__name__}: {error}). Download the model again."
        ) from error


def read_model_folder(folder: Path) -> ModelFolder:
    """Read the description of a model; no weights are read.

    Raises:
        ModelError: There is no ``config.json``, or a file is damaged.
    """
    modules = [
        (str(one["type"]), folder / str(one["path"]))
        for one in read_json(folder / "modules.json", missing=[])
    ]
    kinds = [kind.rsplit(".", 1)[-1] for kind, _ in modules]
    transformer_named = [path for kind, path in modules if kind.endswith("Transformer")]
    transformer = transformer_named[0] if transformer_named else folder
    # A model of word vectors alone has no configuration of a transformer; sentence-transformers runs it.
    config = read_json(transformer / "config.json", missing={} if modules and not transformer_named else None)
    reading = read_json(transformer / "sentence_bert_config.json", missing={})
    described = read_json(folder / "config_sentence_transformers.json", missing={})
    unknown = [kind for kind in kinds if kind not in _KNOWN_MODULES]
    pooling, obstacle = _pooling(next((path for kind, path in modules if kind.endswith("Pooling")), None))
    return ModelFolder(
        folder=folder,
        transformer=transformer,
        config=config,
        max_tokens=_max_tokens(reading, config, read_json(transformer / "tokenizer_config.json", missing={})),
        pooling=pooling,
        dense=tuple(path for kind, path in modules if kind.endswith("Dense")),
        lowercase=bool(reading.get("do_lower_case", False)),
        prompts={name: text for name, text in (described.get("prompts") or {}).items() if text is not None},
        default_prompt=described.get("default_prompt_name"),
        obstacle=f"its module '{unknown[0]}'" if unknown else obstacle,
        remote_code="auto_map" in config
        or any(not kind.startswith("sentence_transformers") for kind, _ in modules),
    )


def _max_tokens(reading: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    stated = reading.get("max_seq_length")
    if stated:
        return int(stated)
    limits = [config.get("max_position_embeddings"), tokenizer.get("model_max_length")]
    return min((int(limit) for limit in limits if limit and 0 < limit < _NO_LIMIT), default=512)


def _pooling(folder: Path | None) -> tuple[tuple[str, ...], str | None]:
    """The pooling of a model, and what of it only sentence-transformers runs."""
    if folder is None:
        return ("mean",), None
    stated = read_json(folder / "config.json", missing={})
    modes = stated.get("pooling_mode")
    names = [modes] if isinstance(modes, str) else list(modes or [])
    flags = {
        "mean_tokens": "mean",
        "cls_token": "cls",
        "max_tokens": "max",
        "mean_sqrt_len_tokens": "mean_sqrt_len",
    }
    found = names or [
        name
        for name in _POOLINGS
        if any(
            stated.get(f"pooling_mode_{flag}") for flag, own in {**flags, name: name}.items() if own == name
        )
    ]
    found = [name.removesuffix("_tokens") for name in found]
    strange = [name for name in found if name not in _POOLINGS]
    if strange:
        return ("mean",), f"pooling '{strange[0]}'"
    if stated.get("include_prompt") is False:
        return ("mean",), "pooling that leaves the prompt out"
    return tuple(found) or ("mean",), None
