"""Settings of an engine: one typed object per preset, with its defaults; `settings_sources` fills it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from threading import TIMEOUT_MAX
from typing import Any, Final, Literal

from llama_index_presets.errors import SettingsError
from llama_index_presets.providers.options import check_options
from llama_index_presets.values import PERMISSION_ORIGINS

__all__ = [
    "LEG_CANDIDATES",
    "MODELS",
    "RERANK_CANDIDATES",
    "CustomerChatbotSettings",
    "FinancialDocumentsSettings",
    "HealthcareSettings",
    "Settings",
    "settings_class",
]


MODELS: Final = ("llm", "embedding", "reranker")
"""Settings that name a model, each with a setting of its options."""

RERANK_CANDIDATES: Final = 50
"""Hits that a re-ranker is given when `candidates` is not set."""

LEG_CANDIDATES: Final = 100
"""Hits that each leg of a hybrid search is asked for when `candidates` is not set."""

_COUNTS = "top_k num_queries context_tokens batch_chunks max_document_mb max_question_chars answer_cache_mb candidates"
_POSITIVE = "alert_error_rate alert_latency_s alert_cost_ratio answer_cache_hours"
_BOUNDS: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    (_COUNTS, lambda value: value >= 1, "it must be at least 1"),
    (_POSITIVE, lambda value: value > 0, "it must be above 0"),
    ("context_max_usd", lambda value: value >= 0, "it cannot be negative"),
    ("chunk_tokens", lambda value: value >= 16, "a chunk needs at least 16"),
    ("leg_timeout_s", lambda value: 0 < value <= TIMEOUT_MAX, "it must be above 0, and none for no limit"),
    ("vector_weight blend", lambda value: 0 <= value <= 1, "a weight lies between 0 and 1"),
    ("answer_floor", lambda value: -1 <= value <= 1, "a cosine lies between -1 and 1"),
    ("min_confidence", lambda value: 0 <= value <= 1, "a probability lies between 0 and 1"),
)
"""Names of settings, what their values satisfy (nan satisfies nothing), and what a message says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that every preset has.

    A field's type is its check (a `Literal` lists the choices), and its line under Attributes is its help: both are
    read by `settings_sources` and by ``llama-presets show``.

    Attributes:
        embedding: Another embedding model than the preset's, by its name: of the catalogue, a folder,
            ``ollama/nomic-embed-text``, ``http://…/v1#model``; see `embedding_models.read_embedding_name`.
        embedding_options: Its timeout_s, headers, endpoint, batch_size, and ``key``, the variable with the key; in TOML
            the table ``[embedding]``, with ``name`` for the model.
        dimensions: Shorter vectors of an embedding model that can be shortened (text-embedding-3-*).
        store: Another vector store, by its name in `matrix.STORES`.
        pattern: Another pattern, by its name in `matrix.PATTERNS`.
        monitoring: Another level, by its name in `matrix.MONITORING`.
        llm: Another language model, by its name: ``openai/gpt-5-mini``, ``ollama/llama3.2``, ``http://…/v1#model``;
            see `language_models.read_name`.
        llm_options: Its temperature, max_tokens, timeout_s, context_window, headers, endpoint, and ``key``, the
            variable with the key; in TOML the table ``[llm]``, with ``name`` for the model.
        top_k: Passages that an answer may use; 8 where none is set and no language model writes, since a further
            passage costs no tokens then.
        candidates: Hits that each leg of a hybrid search, or a re-ranker, is given; None takes 100 and 50.
        fusion: How a hybrid search fuses its legs; see `ranking.fusion.FUSIONS`.
        vector_weight: Weight of the vector leg in a fusion, 0 to 1; the keyword leg has the rest. None: alike.
        on_leg_error: Whether a hybrid search whose leg fails raises, or answers with the other and says so in
            ``metadata["failed_legs"]``.
        leg_timeout_s: Seconds that each leg of a hybrid search has; None for no limit.
        second_embedding: A second embedding model, by its name as in `embedding`, whose search is a further leg of a
            hybrid search; ingest embeds every chunk with it, too. See `retrieve.second_embedding`.
        num_queries: Questions that a hybrid search asks: 1 is the user's own; the language model writes the others.
        hyde: Whether the language model writes a passage that would answer the question, and a hybrid search embeds it
            with the question.
        question_filters: Whether a hybrid search reads filters from the question ("in 2023", "by Smith"); see
            `retrieve.question_filters`.
        reranker: Another re-ranker, by its name: folder or hub name of a cross-encoder, ``cohere/rerank-v3.5``,
            ``http://…#model``; see `rerankers.read_reranker_name`. None takes the default of `CrossEncoderRerank`.
        reranker_options: Its endpoint, and ``key``, the variable with the key; in TOML the table ``[reranker]``.
        blend: Weight of the retrieval score beside the re-ranker's, 0 to 1.
        context_tokens: Token budget of these passages in the prompt.
        answer_floor: Cosine below which a passage is no evidence, -1 to 1; None goes by the embedding model's
            calibration, or by its own cosine where it has none.
        min_confidence: Probability that the passages hold the answer below which the answer is "I don't know", 0 to 1;
            None takes the calibration's own. Holds where `answer_floor` is not set.
        system_prompt: Rules that a language model is told, in any language; None takes ours.
        answer_language: Language of its answers, such as German; None answers in the language of the question.
        chunking: How documents are cut; see `ingest.chunking.strategies`.
        chunk_tokens: Longest chunk, in tokens of the embedding model; None takes what it reads, at most 512.
        chunk_context: What is embedded and indexed with a chunk beside its headings: ``title``, that of its document,
            where no heading says it; ``lead``, the document's lead sentence too, with chunks that name nothing;
            ``llm``, the title and a sentence that a language model writes about the chunk; or ``none``. Holds for
            documents that are ingested from then on.
        context_llm: Language model that writes these sentences, by its name as in `llm`; None takes the `llm`.
        context_max_usd: Dollars that the sentences of one ingest may cost, >= 0: checked by an estimate before it, and
            before each call. ``inf`` is no ceiling.
        batch_chunks: Chunks embedded and committed together at ingest.
        max_document_mb: Most that one document may expand to at ingest, in millions: bytes of a text file, bytes that
            an archive (docx, pptx, xlsx, epub) unpacks to beyond its own size, characters of text, pixels of an image
            (never more than 89). A larger one is reported under ``failed``.
        ocr: Languages in which an installed tesseract reads pictures and scanned pages at ingest, such as ``eng+deu``;
            empty leaves them out. Wants the extra ``ocr``.
        embedding_cache: Where vectors are kept by content, so that no text is embedded twice: ``storage`` (beside the
            index), ``off``, or a folder that several indexes share.
        answer_cache: Whether an answer is kept beside the index and given again, without a call of the language model,
            to a question that can only have the same one; see the how-to page "answer-cache".
        answer_cache_mb: Largest size of these answers, in MiB; the least recently used go first.
        answer_cache_hours: Hours after which such an answer is written afresh.
        max_question_chars: Longest question, in characters.
        verify_numbers: What becomes of a statement whose figures do not stand in the passages that it cites: kept,
            marked, or removed.
        on_injection: What becomes of a passage that speaks to the language model: it is named in
            ``metadata["suspicious"]``, it is left out as well, or the question is not answered.
        on_outage: When a service is down: ``raise`` its error, or ``answer`` with an apology, what was found, and
            ``degraded`` in the metadata.
        state: Folder for what an index whose `storage` is a URL keeps on this machine; see `storage.resolve_storage`.
        shared_index: Whether processes take turns with an index in DuckDB, so that one can ask while another serves or
            ingests. Without, the first one keeps the others out. Every other store always allows it.
        encryption: Whether text and metadata are encrypted on disk; ``auto`` does it when a key is there.
        searchable_metadata: Metadata keys that stay in clear, and so can be filtered on, when the rest is encrypted.
        pii: What ingest does about personal data: nothing, count it, replace it, or leave the document out.
        permissions: Whether each document is seen only by those that it allows; see `PresetEngine.as_user`. Once it is
            ``on`` for a storage, it stays so.
        permissions_from: Whose word counts for who may see a document, beside that of the ingest's caller: ``sidecar``,
            the file NAME.meta.json; ``source``, a `Document`'s metadata, a row, or a connected source;
            ``front-matter``, what a file says of itself.
        prices: Price book, the path of a TOML file with prices of your own: of a model without a known price, of your
            contract; see the page "cost-tracking".
        stream_usage: Whether streams of OpenAI's protocol ask the server for their usage; false estimates it. A server
            that refuses the question is not asked again.
        trace_endpoint: OTLP/HTTP collector, such as ``http://127.0.0.1:6006``; ``off`` sends no traces. None takes that
            address at the monitoring level `full`, and sends none at the others.
        trace_project: Under which name Phoenix files the traces; None takes the preset's.
        trace_content: What leaves of questions, passages and answers in traces: a keyed hash, the text, or nothing.
        alert_webhook: Where alerts of the level `full` are posted to, beside the log; taken for a secret.
        alert_by: Whether alerts judge each ``tenant`` and each ``caller`` of a server, beside all calls together.
        alert_error_rate: Share of the calls of the last quarter of an hour that may fail, 0 to 1.
        alert_latency_s: Seconds that one call in twenty may take.
        alert_cost_ratio: Cost of the last day over the mean day of the week before.
    """

    embedding: str | None = None
    embedding_options: dict | None = field(default=None, repr=False)  # type: ignore[type-arg]
    dimensions: int | None = None
    store: str | None = None
    pattern: str | None = None
    monitoring: str | None = None
    llm: str | None = None
    llm_options: dict | None = field(default=None, repr=False)  # type: ignore[type-arg]
    top_k: int = 5
    candidates: int | None = None
    fusion: str = "auto"
    vector_weight: float | None = None
    on_leg_error: Literal["raise", "degrade"] = "raise"
    leg_timeout_s: float | None = None
    second_embedding: str | None = None
    num_queries: int = 1
    hyde: bool = False
    question_filters: bool = False
    reranker: str | None = None
    reranker_options: dict | None = field(default=None, repr=False)  # type: ignore[type-arg]
    blend: float = 0.0
    context_tokens: int = 3_000
    answer_floor: float | None = None
    min_confidence: float | None = None
    system_prompt: str | None = None
    answer_language: str | None = None
    chunking: Literal["sentence", "token", "semantic", "hierarchical", "sentence-window"] = "sentence"
    chunk_tokens: int | None = None
    chunk_context: Literal["none", "title", "lead", "llm"] = "none"
    context_llm: str | None = None
    context_max_usd: float = 5.0
    batch_chunks: int = 256
    max_document_mb: int = 100
    ocr: str = ""
    embedding_cache: str = "storage"
    answer_cache: Literal["off", "on"] = "off"
    answer_cache_mb: int = 64
    answer_cache_hours: float = 168.0
    max_question_chars: int = 20_000
    verify_numbers: Literal["off", "mark", "remove"] = "off"
    on_injection: Literal["flag", "drop", "refuse"] = "flag"
    on_outage: Literal["raise", "answer"] = "raise"
    state: str | None = None
    shared_index: bool = True
    encryption: Literal["off", "auto", "on"] = "off"
    searchable_metadata: tuple[str, ...] = ()
    pii: Literal["off", "report", "redact", "refuse"] = "off"
    permissions: Literal["off", "on"] = "off"
    permissions_from: tuple[str, ...] = ("sidecar", "source")
    prices: str | None = None
    stream_usage: bool = True
    trace_endpoint: str | None = None
    trace_project: str | None = None
    trace_content: Literal["hash", "text", "none"] = "hash"
    alert_webhook: str | None = field(default=None, repr=False)
    alert_by: tuple[str, ...] = ()
    alert_error_rate: float = 0.05
    alert_latency_s: float = 30.0
    alert_cost_ratio: float = 3.0

    def __post_init__(self) -> None:
        for names, holds, expected in _BOUNDS:
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not holds(value):
                    raise SettingsError(f"{name} is {value}; {expected}.")
        for name, known in (("permissions_from", PERMISSION_ORIGINS), ("alert_by", ("tenant", "caller"))):
            if unknown := sorted(set(getattr(self, name)) - set(known)):
                raise SettingsError(f"{name} names '{unknown[0]}'; it takes any of {', '.join(known)}.")
        if self.ocr and not re.fullmatch(r"[A-Za-z_/]+(\+[A-Za-z_/]+)*", self.ocr):
            raise SettingsError(
                f"ocr is '{self.ocr}'; expected languages as tesseract names them, such as 'eng' or 'eng+deu'."
            )
        for name in MODELS:
            check_options(getattr(self, f"{name}_options") or {}, name)

    def cells(self) -> dict[str, str]:
        """The cells of the matrix that are chosen otherwise: column -> choice."""
        chosen = {
            column: getattr(self, column) for column in ("embedding", "store", "pattern", "monitoring", "llm")
        }
        return {column: choice for column, choice in chosen.items() if choice is not None}

    def options(self) -> dict[str, dict[str, Any]]:
        """Options of the models: column -> option -> value."""
        return {"llm": self.llm_options or {}, "embedding": self.embedding_options or {}}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a webhook, whose address is its password, is not shown, nor the password of an endpoint."""
        values: dict[str, Any] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }
        return values | {
            **{
                name: _without_header_values(values[name]) if isinstance(values[name], dict) else None
                for name in ("llm_options", "embedding_options", "reranker_options")
            },
            "alert_webhook": None if self.alert_webhook is None else "(set)",
            "trace_endpoint": self.trace_endpoint and re.sub("//[^/@]*@", "//***@", self.trace_endpoint),
        }


def _without_header_values(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the values of headers hidden, since one may be a key."""
    return options | ({"headers": dict.fromkeys(options["headers"], "(set)")} if "headers" in options else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthcareSettings(Settings):
    """Settings of `healthcare`: encrypted as soon as there is a key, personal data reported at ingest."""

    encryption: Literal["off", "auto", "on"] = "auto"
    pii: Literal["off", "report", "redact", "refuse"] = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerChatbotSettings(Settings):
    """Settings of `customer-chatbot`: a customer reads an apology, never an error."""

    on_outage: Literal["raise", "answer"] = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinancialDocumentsSettings(Settings):
    """Settings of `financial-documents`: a figure is in the cited source, or it is removed from the answer; passages of
    filings, which speak of "the Company", are found by the title of their document."""

    verify_numbers: Literal["off", "mark", "remove"] = "remove"
    chunk_context: Literal["none", "title", "lead", "llm"] = "title"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResearchPapersSettings(Settings):
    """Settings of `research-papers`: more passages of more papers in a longer context."""

    top_k: int = 8
    context_tokens: int = 6_000


SETTINGS: dict[str, type[Settings]] = {
    "customer-chatbot": CustomerChatbotSettings,
    "financial-documents": FinancialDocumentsSettings,
    "healthcare": HealthcareSettings,
    "research-papers": ResearchPapersSettings,
}
"""Presets whose dials, or their defaults, differ from `Settings`.

A subclass that checks its own values calls ``Settings.__post_init__(self)`` first: ``super()`` without arguments does
not work in a class with slots.
"""


def settings_class(preset: str | None) -> type[Settings]:
    """Settings class of a preset; `Settings` for None and for presets without settings of their own.

    Example:
        >>> settings_class("healthcare").__name__, settings_class("knowledge-base").__name__
        ('HealthcareSettings', 'Settings')
    """
    return SETTINGS.get(preset or "", Settings)
