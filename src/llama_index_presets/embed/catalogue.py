"""Catalogue of embedding models: data in ``catalogue.toml``, read without importing LlamaIndex."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_settings_toml

__all__ = ["MODELS_FILE", "EmbeddingModel", "catalogue", "embedding_model", "shipped"]

MODELS_FILE: Final = "LLAMA_PRESETS_MODELS"
"""Environment variable with the path of a TOML file of models of your own, in the format of ``catalogue.toml``."""


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
        encoding: tiktoken encoding of a hosted model; a local one brings its ``tokenizer.json``.
        shortens: Whether `dimensions` may ask for fewer numbers.
        api_base: Server of a hosted model that speaks OpenAI's protocol, where that is not OpenAI.
        price: Where its price comes from: ``"genai-prices"``, or ``"free"``.
        query_prefix: What the model wants before a question.
        passage_prefix: What it wants before a passage.
        hub: Repository on the Hugging Face hub of a local model.
        path: Folder of a local model of your own.
        package: Importable package that carries its weights, where one exists.
        package_folder: Folder of the weights inside that package.
        sha256: Of ``model.safetensors``; weights with another hash are refused.
        answer_floor: Cosine below which a passage does not count as evidence for an answer.
        cross_floor: The same between a text and an image, which are further apart than two texts; None for text models.
        evidence: Calibration of "I don't know" from retrieval alone: weights of `coverage`, `similarity` (cosine),
            `margin` and `names` in the log-odds that a passage holds the answer, `intercept`, and `floor`, the
            probability that an LLM is asked at; None goes by `answer_floor`.
        sentences: The same for the sentence that `ExtractiveLLM` quotes, whose `similarity` is that of the sentence,
            and which has weights of the `heading` and of the `lead`, too.
        languages: ISO 639-1 codes of the languages that it was trained for; empty for one of many languages.
        choose_when: When it is the right choice.
    """

    name: str
    provider: str
    dim: int
    max_tokens: int
    normalized: bool = True
    modality: Literal["text", "image"] = "text"
    encoding: str | None = None
    shortens: bool = False
    api_base: str | None = None
    price: Literal["genai-prices", "free"] = "free"
    query_prefix: str = ""
    passage_prefix: str = ""
    hub: str | None = None
    path: str | None = None
    package: str | None = None
    package_folder: str = ""
    sha256: str | None = None
    answer_floor: float = 0.25
    cross_floor: float | None = None
    evidence: dict[str, float] | None = None
    sentences: dict[str, float] | None = None
    languages: Sequence[str] = ()
    choose_when: str = ""

    @property
    def reads_sentences(self) -> bool:
        """Whether an extractive answer compares sentences with it.

        A service would be paid, and told, for every sentence; CLIP reads captions, not sentences.
        """
        return self.provider == "local" and self.modality == "text"


def catalogue() -> Mapping[str, EmbeddingModel]:
    """All models, by name: those of this package, and those of the file that ``LLAMA_PRESETS_MODELS`` names.

    Raises:
        SettingsError: The file cannot be read, or an entry of it is wrong.

    Example:
        >>> catalogue()["all-MiniLM-L6-v2"].dim
        384
    """
    own = os.environ.get(MODELS_FILE)
    return _with_own(Path(own).expanduser()) if own else shipped()


@cache
def shipped() -> Mapping[str, EmbeddingModel]:
    """The models of this package, by name."""
    text = files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {name: EmbeddingModel(name=name, **row) for name, row in tomllib.loads(text).items()}


@cache
def _with_own(path: Path) -> Mapping[str, EmbeddingModel]:
    rows = read_settings_toml(path, f"models file of {MODELS_FILE}")
    return {**shipped(), **{name: _own_model(name, row, path) for name, row in rows.items()}}


def _own_model(name: str, row: Any, path: Path) -> EmbeddingModel:
    """Check one entry of a user, saying all that is wrong with it."""
    where = f"The model '{name}' of '{path}'"
    if name in shipped():
        raise SettingsError(f"{where} has the name of a model of this package. Choose another name.")
    if not isinstance(row, dict):
        raise SettingsError(f"{where} is {row!r}; expected a table: [{name}].")
    known = {field.name: field for field in fields(EmbeddingModel)}
    wrong = [f"'{key}' is not a field" for key in row if key not in known or key == "name"]
    wrong += [f"'{key}' is missing" for key in ("provider", "dim", "max_tokens") if key not in row]
    wrong += [
        f"'{key}' is {row[key]!r}; expected {known[key].type}"
        for key in row
        if key in known and not _fits(row[key], str(known[key].type))
    ]
    if row.get("provider") == "local" and not (row.keys() & {"hub", "path", "package"}):
        wrong.append("a local model needs 'path' or 'hub'")
    if wrong:
        raise SettingsError(f"{where}: {'; '.join(wrong)}. Fields: {', '.join(known)}.")
    return EmbeddingModel(name=name, **row)


def _fits(value: Any, kind: str) -> bool:
    if kind.startswith("Literal"):
        return repr(value) in kind.replace('"', "'")
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "dict[str,": (dict,),
    }
    return isinstance(value, kinds[kind.split(" ")[0]]) and (kind == "bool") == isinstance(value, bool)


def embedding_model(name: str) -> EmbeddingModel:
    """Look a model up by its name, with or without the organisation in front.

    Raises:
        SettingsError: No such model; the message names the nearest.
    """
    models = catalogue()
    short = name.rsplit("/", 1)[-1]
    if short in models:
        return models[short]
    raise SettingsError(
        f"The embedding model '{name}' is not in the catalogue. {did_you_mean(short, models)}"
    )
