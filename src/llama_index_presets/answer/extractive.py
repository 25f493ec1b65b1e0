"""Extractive answers without a language model: the best-matching sentences of the passages, verbatim."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from pydantic import Field, PrivateAttr

from llama_index_presets._options import strict
from llama_index_presets.answer.confidence.calibration import Calibration
from llama_index_presets.answer.confidence.evidence import Passage, Reading, Unit, read_passages
from llama_index_presets.answer.confidence.parts import parts_of
from llama_index_presets.answer.confidence.sections import SECTION_PATH, asks_meaning
from llama_index_presets.answer.confidence.sentence_vectors import SentenceVectors
from llama_index_presets.answer.confidence.units import is_question
from llama_index_presets.answer.context import DONT_KNOW, IMAGE, closest_images, nothing_for, parse_prompt
from llama_index_presets.answer.follow_up import make_whole
from llama_index_presets.answer.injections.detector import without_instructions
from llama_index_presets.answer.quoting import (
    answering_units,
    first_units,
    quoted,
    units_behind,
    with_items,
    with_next,
)
from llama_index_presets.answer.stock_prompts import chat_prompt, follow_up, refinement
from llama_index_presets.ranking.bm25 import Analyzer
from llama_index_presets.text.languages import ENGLISH

__all__ = ["CONFIDENCE", "ExtractiveLLM"]

CONFIDENCE: Final = "confidence"
"""Key of a response's ``additional_kwargs`` with the probability that the passages hold the answer."""


_EMBEDDED_UNITS: Final = 4
"""Sentences of a question whose meaning is compared: those that its words point to. Embedding them is most of what an
answer costs, and the fifth was quoted for one question in a hundred; see docs/decisions/0197."""

_TOO_FAR_BEHIND: Final = 0.3
"""Words that score so much less than the best ones are hardly made up for in meaning; see docs/decisions/0197."""

_USUAL_LEAD: Final = 0.15
"""How far the best sentence is ahead where that says nothing: a fact stands in one sentence, and what only sounds like
the question in several; see docs/decisions/0221."""

_LARGEST_LEAD: Final = 0.5
"""Further ahead says nothing more."""

_LIKE_THE_BEST: Final = 0.85
"""Share of the best score that a further sentence needs."""

_ANOTHER_FIGURE: Final = 0.9
"""The same where a number or a date is asked for and the best sentence has one: another figure is another answer."""

_OF_ITS_WORDS: Final = 0.7
"""Share of the best sentence's coverage that a further sentence needs: more than its neighbourhood gives it."""

_UNDER_A_HEADING: Final = 3
"""Units below a heading that its similarity counts for."""

_ANOTHER_TABLE: Final = 0.4
"""Share of the confidence where a passage with a table lacks what is asked for; see `Reading.lacks`."""

_ANOTHER_SECTION: Final = 0.6
"""Share of the confidence where the section is headed by something else than what is asked for; see `section_fit`."""

_ANOTHER_CODE: Final = 0.4
"""Share of the score and of the confidence where the passage has not the code that is asked for, such as HTTP/3."""

_ANOTHER_KIND: Final = 0.6
"""The same where the sentence speaks of another kind of what is asked: glaze firing, not bisque firing."""

_SECTION: Final = 0.3
"""What a sentence gains below a heading of what is asked for, and loses below another; see `section_fit`."""

_DEFINES: Final = 0.3
"""What a sentence gains that introduces the term that is asked for."""

_ITS_MATTER: Final = 0.5
"""Share of that gain that goes by how much of the question the headings hold: another page has such a section, too."""


@strict()
class ExtractiveLLM(LLM):
    """Extractive model: quotes sentences, never writes a word of its own. Deterministic, local, free.

    It reads the numbered passages out of the prompt (ours, or those of LlamaIndex's query and chat engines) and quotes
    the sentences, list items and table rows of the passage that answers best, with its ``[n]``. A sentence is scored by
    the share of the question's words that it, its heading and its neighbours hold, weighted by how rare they are among
    the passages, and, where an embedding model is given, by meaning. A heading that is closest in meaning brings the
    first sentences below it. A question of several parts is answered part by part. Without enough evidence, or asked
    with a prompt of another kind, it says "I don't know." A sentence that speaks to a language model is not quoted, nor
    what follows it in its paragraph; see `injection`.
    Images among the passages are named, since they cannot be quoted: "Closest images: red-circle.png [1]."

    Args:
        max_sentences: How many sentences an answer may have; the items of a list count as one, and one that completes
            the best sentence, which may stand behind it, is not counted.
        min_coverage: Share of the question's weighted words that the best sentence must hold, 0 to 1, where there is no
            `calibration`.
        language: For stemming and stop words; see `Analyzer`. ``"auto"`` takes that of the passages.
        embed_model: Compares meanings; should be local, since a question embeds up to four sentences, each once in the
            life of this object. None goes by words.
        calibration: What turns the evidence into a probability, and the probability that an answer needs; see
            `evidence.Calibration`. None goes by `min_coverage`.

    Example:
        >>> prompt = "Context:\\n\\n[1]\\nCats purr. Dogs bark.\\n\\nQuestion: What do cats do?\\nAnswer:"
        >>> str(ExtractiveLLM().complete(prompt))
        'Cats purr. [1]'
    """

    max_sentences: int = Field(default=3, gt=0)
    min_coverage: float = Field(default=0.5, ge=0, le=1)
    language: str = "auto"
    embed_model: BaseEmbedding | None = Field(default=None, exclude=True, repr=False)
    calibration: Calibration | None = Field(default=None, exclude=True, repr=False)
    _analyzer: Analyzer | None = PrivateAttr(default=None)
    _vectors: SentenceVectors | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Check the language."""
        super().model_post_init(context)
        if self.language != "auto":
            self._analyzer = Analyzer(language=self.language)
        self._vectors = SentenceVectors(self.embed_model) if self.embed_model is not None else None

    @classmethod
    def class_name(cls) -> str:
        """Name used by LlamaIndex serialisation."""
        return "ExtractiveLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Model metadata: any context length, model name ``extractive``."""
        return LLMMetadata(
            context_window=1_000_000, num_output=2_000, model_name="extractive", is_chat_model=True
        )

    def answer(self, prompt: str) -> str:
        """Answer a prompt that holds passages and a question."""
        return self.answer_with_confidence(prompt)[0]

    def answer_with_confidence(
        self,
        prompt: str,
        *,
        cosines: Sequence[float | None] | None = None,
        documents: Sequence[int] | None = None,
        margin: float | None = None,
    ) -> tuple[str, float]:
        """Answer a prompt, and say how probable it is that the passages hold the answer.

        Args:
            prompt: Passages and a question.
            cosines: Of each passage in the order of the numbers; None where retrieval gave none.
            documents: Which document each passage comes from, as a number.
            margin: How far the best hit stands out in cosine, those counted that are not among the passages.

        Returns:
            The answer, and a probability between 0 and 1: that of the calibration, or the coverage where there is none.
        """
        if asked := follow_up(prompt):
            return make_whole(asked[1], asked[0]), 1.0
        if refined := refinement(prompt):
            if refined.answer != DONT_KNOW:
                return refined.answer, 1.0
            prompt = refined.prompt
        numbered, question = parse_prompt(prompt)
        images = [(number, heading) for number, heading, _ in numbered if heading.startswith(IMAGE)]
        passages = [
            Passage(
                number,
                heading,
                without_instructions(text),
                _at(cosines, number),
                str(_at(documents, number) or ""),
            )
            for number, heading, text in numbered
            if not heading.startswith(IMAGE)
        ]
        quotes, confidence = self._quotes(passages, question, margin) if passages else ("", 0.0)
        said = [quotes, closest_images(images)]
        return " ".join(one for one in said if one) or DONT_KNOW, confidence

    def evidence(self, question: str, passages: Sequence[Passage]) -> tuple[float, ...] | None:
        """Features of the sentence that would be quoted, as `evidence.FEATURES`; None without a sentence."""
        reading, ranked, headings = self._read(passages, question)
        if not ranked:
            return None
        return _features(reading, ranked, headings)

    def _read(
        self, passages: Sequence[Passage], question: str, margin: float | None = None
    ) -> tuple[Reading, list[Unit], dict[int, float]]:
        """The passages read; their units, best first; the similarity of each heading, by passage."""
        reading = read_passages(question, passages, self._analyzer, margin=margin)
        headings = self._compare(reading)
        return (
            reading,
            sorted(
                _candidates(reading, self.max_sentences), key=lambda unit: -_score(unit, reading, headings)
            ),
            headings,
        )

    def _quotes(self, passages: Sequence[Passage], question: str, margin: float | None) -> tuple[str, float]:
        """The quoted sentences that hold the answer, or an empty text; and the confidence in them.

        A question of several parts is answered part by part, and says for which nothing was found; where that is so for
        all of them it is taken as a whole.
        """
        parts = parts_of(question)
        found = self._parts(passages, parts, margin) if len(parts) > 1 else []
        if any(units for units, _ in found):
            confidence = min(confidence for units, confidence in found if units)
            missing = [place for place, (units, _) in enumerate(found) if not units]
            said = quoted(passages, [units for units, _ in found])
            return "\n\n".join([said, *(nothing_for(place) for place in missing)]), confidence
        units, confidence = self._choose(passages, question, margin)
        return quoted(passages, [units]), confidence

    def _parts(
        self, passages: Sequence[Passage], parts: Sequence[str], margin: float | None
    ) -> list[tuple[list[Unit], float]]:
        """What answers each part; "it" in a later one is what the part before it was answered from.

        Where that has no name, a part is asked together with the one before, and needs sentences of its own.
        """
        found: list[tuple[list[Unit], float]] = []
        before, topic, said = "", "", set[tuple[int, int]]()
        for part in parts:
            asked = make_whole(part, before, topic=topic)
            units, confidence = self._choose(passages, asked, margin)
            places = {(unit.passage, unit.place) for unit in units}
            if before and asked.startswith(before.rstrip("?.! ")) and places <= said:
                units = []
            if units:
                topic = passages[units[0].passage].heading.split(SECTION_PATH, 1)[0]
            found.append((units, confidence))
            before, said = asked, said | places
        return found

    def _choose(
        self, passages: Sequence[Passage], question: str, margin: float | None
    ) -> tuple[list[Unit], float]:
        """Units that hold the answer, or none; and the confidence in them."""
        reading, ranked, headings = self._read(passages, question, margin)
        if not ranked:
            return [], 0.0
        best = ranked[0]
        heading = headings.get(best.passage, 0.0)
        confidence = self._confidence(reading, ranked, headings)
        by_words = self.calibration is None or reading.goes_by_words
        floor = self.min_coverage if by_words else self.calibration.floor  # type: ignore[union-attr]
        if confidence < floor:
            return [], confidence
        if _heading_answers(best, reading, is_closest=heading > (best.similarity or 0.0)):
            chosen = first_units(reading, best.passage, self.max_sentences)
        elif is_question(best.text):
            chosen = units_behind(best, reading, self.max_sentences)
        else:
            figure = reading.question.wants in ("number", "date") and best.typed == 1
            least = (_ANOTHER_FIGURE if figure else _LIKE_THE_BEST) * _score(best, reading)
            own = _OF_ITS_WORDS * best.coverage
            alike = [
                one
                for one in ranked
                if one.passage == best.passage
                and _score(one, reading) >= least
                and one.coverage >= own
                and not is_question(one.text)
                and not (one.meaning and best.names - one.names)  # the row of another customer
                and not (best.labelled == 1 and one.labelled < 0)
            ]
            chosen = with_next(alike[: self.max_sentences], best, reading)
        return sorted(with_items(chosen, reading), key=lambda unit: unit.place), confidence

    def _compare(self, reading: Reading) -> dict[int, float]:
        """Give the likeliest units their similarity; return that of the headings, by passage."""
        if self._vectors is None or reading.goes_by_words:
            return {}
        scores = {id(unit): _score(unit, reading) for unit in reading.units}
        likely = sorted(reading.units, key=lambda unit: (-scores[id(unit)], unit.passage, unit.place))
        least = scores[id(likely[0])] - _TOO_FAR_BEHIND if likely else 0.0
        likely = [unit for unit in likely[:_EMBEDDED_UNITS] if scores[id(unit)] >= least]
        headed = sorted({unit.passage for unit in likely if reading.passages[unit.passage].heading})
        texts = [unit.meaning or unit.text for unit in likely] + [
            reading.passages[which].heading for which in headed
        ]
        similarities = self._vectors.similarities(reading.question.text, texts)
        for unit, similarity in zip(likely, similarities, strict=False):
            unit.similarity = similarity
        return {which: _HEADING * one for which, one in zip(headed, similarities[len(likely) :], strict=True)}

    def _confidence(self, reading: Reading, ranked: Sequence[Unit], headings: Mapping[int, float]) -> float:
        best = ranked[0]
        share = _ANOTHER_TABLE if reading.lacks[best.passage] else 1.0
        if reading.sections[best.passage] < 0:
            share *= _ANOTHER_SECTION
        if reading.other_code[best.passage]:
            share *= _ANOTHER_CODE
        if reading.is_of_another_kind(best):
            share *= _ANOTHER_KIND
        share *= reading.decides(best)
        if self.calibration is None or reading.goes_by_words:
            return share * best.coverage
        return share * self.calibration.probability(_features(reading, ranked, headings))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message; takes ``cosines``, ``documents`` and ``margin`` as `answer_with_confidence` does."""
        return _chat_response(*self.answer_with_confidence(_last(messages), **_scores(kwargs)))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return CompletionResponse(text=self.answer(prompt))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer the last message, word by word."""
        answer, confidence = self.answer_with_confidence(_last(messages), **_scores(kwargs))
        return (_chat_response(text, confidence, delta) for text, delta in _growing(answer))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt, word by word."""
        answer = self.answer(prompt)
        return (CompletionResponse(text=text, delta=delta) for text, delta in _growing(answer))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message; where sentences are embedded, off the event loop."""
        return _chat_response(*await self._in_thread(_last(messages), **_scores(kwargs)))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt."""
        return CompletionResponse(text=(await self._in_thread(prompt))[0])

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer the last message, word by word."""
        answer, confidence = await self._in_thread(_last(messages), **_scores(kwargs))

        async def pieces() -> ChatResponseAsyncGen:
            for text, delta in _growing(answer):
                yield _chat_response(text, confidence, delta)

        return pieces()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt, word by word."""
        answer, _ = await self._in_thread(prompt)

        async def pieces() -> CompletionResponseAsyncGen:
            for text, delta in _growing(answer):
                yield CompletionResponse(text=text, delta=delta)

        return pieces()

    async def _in_thread(self, prompt: str, **scores: Any) -> tuple[str, float]:
        if self._vectors is None:  # a few milliseconds
            return self.answer_with_confidence(prompt, **scores)
        return await asyncio.to_thread(self.answer_with_confidence, prompt, **scores)


_HEADING: Final = 0.9
"""A heading counts a little less than a sentence: it says what its section is about, not what it says."""


def _candidates(reading: Reading, most: int) -> list[Unit]:
    """Units that were compared with the question, where any was."""
    units = answering_units(reading, most)
    return [unit for unit in units if unit.similarity is not None] or units


def _features(reading: Reading, ranked: Sequence[Unit], headings: Mapping[int, float]) -> tuple[float, ...]:
    """Features of the best unit."""
    unit = ranked[0]
    if unit.similarity is None:
        return reading.features(unit.passage, None, unit.coverage, typed=unit.typed)
    heading = headings.get(unit.passage, 0.0)
    below = heading / _HEADING if heading else None
    sectioned = SECTION_PATH in reading.passages[unit.passage].heading
    if below and sectioned and reading.language == ENGLISH and reading.sections[unit.passage] < 1:
        heading, below = 0.0, min(below, unit.similarity)  # it names the matter, and not what is asked of it
    similarity = max(unit.similarity, heading)
    # Below the heading of a section all that stands there answers, and nothing leads.
    lead = 0.0 if sectioned else _lead(reading, ranked, headings)
    return reading.features(unit.passage, similarity, unit.coverage, below, unit.typed, lead)


def _lead(reading: Reading, ranked: Sequence[Unit], headings: Mapping[int, float]) -> float:
    """How much further than usual the best unit is ahead of the next one that says something else.

    Where there is none, no other was near enough to be compared.
    """
    best = ranked[0]
    following = next((one for one in ranked[1:] if one.text != best.text), None)
    if following is None:
        return _LARGEST_LEAD - _USUAL_LEAD
    ahead = _score(best, reading, headings) - _score(following, reading, headings)
    return min(ahead, _LARGEST_LEAD) - _USUAL_LEAD


def _score(unit: Unit, reading: Reading, headings: Mapping[int, float] = MappingProxyType({})) -> float:
    """Words, meaning and shape of a unit; what was retrieved later counts a little less."""
    cosine = reading.passages[unit.passage].cosine or 0.0
    meaning = unit.similarity or 0.0
    if unit.place < _UNDER_A_HEADING:  # a heading speaks for the first sentences below it
        meaning = max(meaning, headings.get(unit.passage, 0.0))
    evidence = unit.coverage + meaning + 0.4 * cosine + 0.2 * unit.typed + _section(unit.passage, reading)
    evidence += _DEFINES * unit.defines
    share = _ANOTHER_CODE if reading.other_code[unit.passage] else 1.0
    return (evidence * unit.shape) * (1 - 0.02 * unit.passage) * share


def _section(passage: int, reading: Reading) -> float:
    """What a section gains or loses by its heading: most on the aspect asked for, where it names the matter, too."""
    fit = reading.sections[passage]
    return _SECTION * (fit if fit < 1 else 1 - _ITS_MATTER * (1 - reading.headed[passage]))


def _heading_answers(best: Unit, reading: Reading, *, is_closest: bool) -> bool:
    """Whether the first sentences below a heading answer a question, and not the best one.

    They do where the section is headed by what is asked, and the heading is closest to it in meaning or the question is
    what something is. Else not for a number, a date, a name or a row of a table,
    which stand somewhere in the section; and what follows a bare title says what its matter is, nothing more.
    """
    if reading.sections[best.passage] == 1 and (is_closest or asks_meaning(reading.question.text)):
        return True
    if not is_closest:
        return False
    below = SECTION_PATH in reading.passages[best.passage].heading or asks_meaning(reading.question.text)
    return below and not reading.question.wants and not best.meaning


def _at(values: Sequence[Any] | None, number: int) -> Any:
    return values[number - 1] if values is not None and 1 <= number <= len(values) else None


def _scores(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("cosines", "documents", "margin") if name in options}


def _last(messages: Sequence[ChatMessage]) -> str:
    return chat_prompt([(message.role.value, str(message.content or "")) for message in messages])


def _chat_response(text: str, confidence: float, delta: str | None = None) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, additional_kwargs={CONFIDENCE: confidence})


def _growing(text: str) -> list[tuple[str, str]]:
    """A text as it grows by words: (so far, what came)."""
    pieces, so_far = [], ""
    for place, word in enumerate(text.split(" ")):
        delta = word if place == 0 else " " + word
        so_far += delta
        pieces.append((so_far, delta))
    return pieces
