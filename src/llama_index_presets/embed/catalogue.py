"""What is known of each embedding model: data in ``catalogue.toml``, read without importing LlamaIndex."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Literal

from llama_index_presets.errors import SettingsError

__all__ = ["EmbeddingModel", "catalogue", "embedding_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """One embedding model.

    Attributes:
        name: Short name, as the matrix spells it.
        provider: ``"local"``, or the service, as `genai-prices` spells it.
        dim: Length of a vector.
        max_tokens: Tokens it reads, special tokens included; the rest would be cut.
        normalized: Whether our vectors of it have unit length.
        modality: ``"text"``, or ``"image"`` for text and images in one space.
        encoding: tiktoken encoding of a hosted model.
        hub: Repository on the Hugging Face hub of a local model.
        package: Importable package that carries its weights, where one exists.
        package_folder: Folder of the weights inside that package.
        sha256: Of ``model.safetensors``; weights with another hash are refused.
        answer_floor: Cosine below which a passage does not count as evidence for an answer.
        choose_when: When it is the right choice.
    """

    name: str
    provider: str
    dim: int
    max_tokens: int
    normalized: bool = True
    modality: Literal["text", "image"] = "text"
    encoding: str | None = None
    hub: str | None = None
    package: str | None = None
    package_folder: str = ""
    sha256: str | None = None
    answer_floor: float = 0.25
    choose_when: str = ""


@cache
def catalogue() -> dict[str, EmbeddingModel]:
    """All models, by name.

    Example:
        >>> catalogue()["all-MiniLM-L6-v2"].dim
        384
    """
    text = files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {name: EmbeddingModel(name=name, **row) for name, row in tomllib.loads(text).items()}


def embedding_model(name: str) -> EmbeddingModel:
    """Look a model up by its name, with or without the organisation in front.

    Raises:
        SettingsError: No such model; the message names the nearest.
    """
    models = catalogue()
    short = name.rsplit("/", 1)[-1]
    if short in models:
        return models[short]
    nearest = get_close_matches(short, models, n=1)
    hint = f"Did you mean '{nearest[0]}'?" if nearest else f"Known: {', '.join(models)}."
    raise SettingsError(f"The embedding model '{name}' is not in the catalogue. {hint}")
