"""Answer stage of an engine: the synthesizer with its floor of evidence, calibrated for the embedding model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms.llm import LLM

from llama_index_presets.answer.cited.support import Similarities
from llama_index_presets.answer.confidence.calibration import Calibration, find_calibrations
from llama_index_presets.answer.confidence.sentence_vectors import SentenceVectors
from llama_index_presets.answer.context import SYSTEM_PROMPT
from llama_index_presets.answer.extractive import ExtractiveLLM
from llama_index_presets.answer.synthesize import CitedSynthesizer
from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue
from llama_index_presets.presets.models import reads_images
from llama_index_presets.presets.settings import Settings

__all__ = ["calibration_tables", "make_synthesizer", "system_prompt"]


def make_synthesizer(
    llm: LLM, embed_model: BaseEmbedding, values: Settings, folder: Path
) -> CitedSynthesizer:
    """Synthesizer of an engine.

    A plain `ExtractiveLLM` is given the embedding model where that is local. `answer_floor` in the
    settings replaces the calibration by a cosine; `min_confidence` replaces the floor of the calibration.

    Args:
        llm: Writes the answers.
        embed_model: Of the index.
        values: Settings.
        folder: Of the storage: a calibration of its own is kept there.

    Raises:
        SettingsError: The calibration of the storage cannot be read.
    """
    known = catalogue().get(_short_name(embed_model))
    calibrations = find_calibrations(
        folder, calibration_tables(known, values), min_confidence=values.min_confidence
    )
    unknown = 0.0 if reads_images(embed_model) else None  # in no such space is a cosine below 0 any evidence
    given = values.answer_floor
    return CitedSynthesizer(
        llm=_with_meaning(llm, embed_model, known, calibrations.get("sentences")),
        floor=given if given is not None else known.answer_floor if known else unknown,
        cross_floor=given if given is not None else known.cross_floor if known else unknown,
        calibration=calibrations.get("evidence"),
        context_tokens=values.context_tokens,
        verify_numbers=values.verify_numbers,
        system_prompt=system_prompt(values),
        on_injection=values.on_injection,
        similarities=_similarities(embed_model, known),
    )


def system_prompt(values: Settings) -> str:
    """The rules in an LLM's prompt: those of the settings or ours, and the language of its answers."""
    rules = values.system_prompt or SYSTEM_PROMPT
    return f"{rules} Answer in {values.answer_language}." if values.answer_language else rules


def calibration_tables(
    known: EmbeddingModel | None, values: Settings
) -> dict[str, Mapping[str, float]] | None:
    """Calibrations of an embedding model as tables; None where the settings name a cosine instead."""
    if values.answer_floor is not None:
        return None
    tables = {"evidence": known.evidence, "sentences": known.sentences} if known else {}
    return {name: table for name, table in tables.items() if table}


def _with_meaning(
    llm: LLM, embed_model: BaseEmbedding, known: EmbeddingModel | None, calibration: Calibration | None
) -> LLM:
    """An extractive model that compares meanings with the local model of the index; any other model as it is."""
    if not isinstance(llm, ExtractiveLLM) or llm.embed_model is not None:
        return llm
    if known is None or not known.reads_sentences:
        return llm
    return ExtractiveLLM(
        max_sentences=llm.max_sentences,
        min_coverage=llm.min_coverage,
        language=llm.language,
        embed_model=embed_model,
        calibration=calibration,
        callback_manager=llm.callback_manager,
    )


def _similarities(embed_model: BaseEmbedding, known: EmbeddingModel | None) -> Similarities | None:
    """Cosines by the local model of the index; None where a service would be asked."""
    if known is None or known.provider != "local" or known.modality != "text":
        return None
    return SentenceVectors(embed_model).similarities


def _short_name(embed_model: BaseEmbedding) -> str:
    return embed_model.model_name.rsplit("/", 1)[-1]
